"""Runs that are cut, to see what a cancellation leaves behind.

A run is cut at its k-th turn: on asyncio a turn of the loop, on trio a step of a task. On asyncio there is also what knows no
shield: cancelling all tasks, as `asyncio.run` does when a second Ctrl-C comes.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import trio

PATIENCE = 20  # seconds

Run = Callable[[], Coroutine[Any, Any, None]]


class Cut(NamedTuple):
    """When a run is cancelled: at a turn, and again so many turns later (0: not again); `pierced`: past every shield."""

    at: int
    again: int = 0
    pierced: bool = False


class _CountingLoop(asyncio.SelectorEventLoop):
    """A loop that calls `turned(n)` before its n-th turn."""

    turns = 0
    turned: Callable[[int], None] | None = None

    def _run_once(self) -> None:
        if self.turned is not None:
            self.turns += 1
            self.turned(self.turns)
        super()._run_once()  # type: ignore[misc]


def cut_on_asyncio(run: Run, cut: Cut) -> bool:
    """Run it and cut it; whether it was cut before it ended."""

    async def main() -> bool:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _CountingLoop)
        me = asyncio.current_task()
        task = asyncio.create_task(run())

        def turned(turn: int) -> None:
            if turn == cut.at or (cut.again and turn == cut.at + cut.again):
                for victim in asyncio.all_tasks(loop) - {me} if cut.pierced else {task}:
                    victim.cancel()

        loop.turned = turned
        await asyncio.wait([task], timeout=PATIENCE)
        loop.turned = None
        assert task.done()
        assert asyncio.all_tasks() == {me}
        if task.cancelled():
            return True
        task.result()
        return loop.turns >= cut.at

    with asyncio.Runner(loop_factory=_CountingLoop) as runner:
        return runner.run(main())


class _Steps(trio.abc.Instrument):
    def __init__(self, stepped: Callable[[int], None]) -> None:
        self._steps = 0
        self._stepped = stepped

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps += 1
        self._stepped(self._steps)


def cut_on_trio(run: Run, cut: Cut) -> bool:
    """As `cut_on_asyncio`; the second cancellation is that of a scope further out."""

    async def main() -> bool:
        inner, outer = trio.CancelScope(), trio.CancelScope()

        def stepped(step: int) -> None:
            if step == cut.at:
                inner.cancel()
            elif cut.again and step == cut.at + cut.again:
                outer.cancel()

        instrument = _Steps(stepped)
        trio.lowlevel.add_instrument(instrument)
        try:
            with trio.fail_after(PATIENCE), outer, inner:
                await run()
        finally:
            trio.lowlevel.remove_instrument(instrument)
        return inner.cancel_called

    return trio.run(main)


LOOPS = {"asyncio": cut_on_asyncio, "trio": cut_on_trio}
