"""Another thread never runs a step: it posts, and the loop is woken once for a batch."""

# ruff: noqa: RUF012 - a table on an actor class is never changed

import threading
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from actors.runtime.actor import Actor, Out
from actors.runtime.system import ActorSystem


class Count:
    def __init__(self, poster: int, number: int) -> None:
        self.poster = poster
        self.number = number


class Counter(Actor):
    """Notes what was posted, and in which thread its steps run; sets `done` at `wanted` messages."""

    __slots__ = ("done", "seen", "threads", "wanted")
    wiring = ("wanted", "done", "seen", "threads")
    handles = {Count: "count"}

    def __init__(self, wanted: int, done: anyio.Event, seen: list[tuple[int, int]], threads: set[int]) -> None:
        self.wanted = wanted
        self.done = done
        self.seen = seen
        self.threads = threads

    def count(self, message: Count, out: Out) -> None:
        self.threads.add(threading.get_ident())
        self.seen.append((message.poster, message.number))
        if len(self.seen) == self.wanted:
            self.done.set()


@pytest.mark.anyio
async def test_what_threads_post_arrives_whole_and_in_each_threads_order() -> None:
    system, done = ActorSystem(), anyio.Event()
    seen: list[tuple[int, int]] = []
    threads: set[int] = set()
    posters, each = 4, 500
    ref = system.spawn(Counter(posters * each, done, seen, threads), "counter")

    def post(poster: int) -> None:
        for number in range(each):
            system.post(ref, Count(poster, number))

    async with anyio.create_task_group() as group:
        await group.start(system.run)
        async with anyio.create_task_group() as workers:
            for poster in range(posters):
                workers.start_soon(anyio.to_thread.run_sync, post, poster)
        with anyio.fail_after(10):
            await done.wait()
        group.cancel_scope.cancel()
    for poster in range(posters):
        assert [number for who, number in seen if who == poster] == list(range(each))
    assert threads == {threading.get_ident()}


@pytest.mark.anyio
async def test_a_batch_wakes_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    system, done = ActorSystem(), anyio.Event()
    ref = system.spawn(Counter(100, done, [], set()), "counter")
    wakes: list[int] = []
    async with anyio.create_task_group() as group:
        await group.start(system.run)
        wake: Any = system._wake_from_thread
        monkeypatch.setattr(system, "_wake_from_thread", lambda: (wakes.append(1), wake()))
        for number in range(100):  # from the loop's own thread, so that it cannot take any meanwhile
            system.post(ref, Count(0, number))
        assert system.statistics().inbox == 100
        with anyio.fail_after(10):
            await done.wait()
        system.post(ref, Count(0, 100))
        group.cancel_scope.cancel()
    assert len(wakes) == 2


@pytest.mark.anyio
async def test_what_was_posted_before_the_run_is_taken_when_it_starts() -> None:
    system, done = ActorSystem(), anyio.Event()
    ref = system.spawn(Counter(2, done, [], set()), "counter")
    system.post(ref, Count(0, 0))
    system.post(ref, Count(0, 1))
    async with anyio.create_task_group() as group:
        await group.start(system.run)
        with anyio.fail_after(10):
            await done.wait()
        group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_post_never_runs_a_step_in_its_own_turn() -> None:
    system = ActorSystem()
    seen: list[tuple[int, int]] = []
    ref = system.spawn(Counter(1, anyio.Event(), seen, set()), "counter")
    async with anyio.create_task_group() as group:
        await group.start(system.run)
        system.post(ref, Count(0, 0))
        assert seen == []
        group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_who_posts_for_ever_does_not_hold_up_the_loop() -> None:
    system = ActorSystem()
    seen: list[tuple[int, int]] = []

    class Echo(Counter):
        __slots__ = ()

        def count(self, message: Count, out: Out) -> None:
            self.seen.append((message.poster, message.number))
            system.post(ref, Count(0, message.number + 1))

    ref = system.spawn(Echo(1, anyio.Event(), seen, set()), "echo")
    async with anyio.create_task_group() as group:
        await group.start(system.run)
        system.post(ref, Count(0, 0))
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert 1 <= len(seen) < 1000


@pytest.mark.anyio
async def test_what_is_posted_while_the_inbox_is_taken_wakes_the_loop_again() -> None:
    system, done = ActorSystem(), anyio.Event()
    seen: list[tuple[int, int]] = []

    class Poster(Counter):
        __slots__ = ()

        def count(self, message: Count, out: Out) -> None:
            if message.number < 3:  # in the very turn in which the inbox is being taken
                system.post(ref, Count(0, message.number + 1))
            super().count(message, out)

    ref = system.spawn(Poster(4, done, seen, set()), "poster")
    async with anyio.create_task_group() as group:
        await group.start(system.run)
        system.post(ref, Count(0, 0))
        with anyio.move_on_after(10):
            await done.wait()
        group.cancel_scope.cancel()
    assert [number for _, number in seen] == [0, 1, 2, 3]


@pytest.mark.anyio
async def test_a_post_after_the_end_is_lost_without_an_error() -> None:
    system = ActorSystem()
    seen: list[tuple[int, int]] = []
    ref = system.spawn(Counter(1, anyio.Event(), seen, set()), "counter")
    async with anyio.create_task_group() as group:
        await group.start(system.run)
        group.cancel_scope.cancel()
    await anyio.to_thread.run_sync(system.post, ref, Count(0, 0))
    assert seen == []


def test_a_post_into_a_loop_that_is_closed_already_is_lost_without_an_error() -> None:
    system = ActorSystem()
    wakers: list[Any] = []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            await group.start(system.run)
            wakers.append(system._wake_from_thread)
            group.cancel_scope.cancel()

    for backend in ("asyncio", "trio"):
        anyio.run(main, backend=backend)
        # A thread that had read the waker just before the end.
        system._notified, system._wake_from_thread = False, wakers[-1]
        system.post(system.spawn(Counter(1, anyio.Event(), [], set()), "counter"), Count(0, 0))
        system = ActorSystem()


@pytest.mark.anyio
async def test_a_drain_that_was_cut_goes_on_without_anyone_telling(new_stage: Any) -> None:
    stage = new_stage(budget=3)
    ref, done = stage.doer(), anyio.Event()

    def count_down(left: int) -> Any:
        def step(_: Any, out: Out) -> None:
            if left:
                out.tell(ref, stage.Do(str(left), count_down(left - 1)))
            else:
                done.set()

        return step

    async with anyio.create_task_group() as group:
        await group.start(stage.system.run)
        stage.do(ref, "begin", count_down(50))
        assert not done.is_set()
        with anyio.fail_after(10):
            await done.wait()
        group.cancel_scope.cancel()
