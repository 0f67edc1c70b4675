"""A worker process by itself: whatever it does, and whenever it is cut, it is gone and its end was told once."""

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentos.core.communication.voice.stt.process import WorkerProcess
from tests.voice.cutting import LOOPS, Cut

PATIENCE_SECONDS = 20
FEWEST = 8  # turns of a run that does what it should

Program = Callable[[str], str]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """A shell script, as a program in the place of the worker's Python; gives its path."""

    def written(script: str) -> str:
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return written


class Watched:
    """A worker and what was told of it."""

    def __init__(self, executable: str) -> None:
        self.answers: list[Any] = []
        self.ends: list[str] = []
        self.worker = WorkerProcess(executable, wedge_seconds=5, on_answer=self.answers.append, on_end=self.ends.append)

    def is_gone(self) -> bool:
        assert self.worker.pid is not None
        try:
            os.kill(self.worker.pid, 0)
        except ProcessLookupError:
            return True
        return False


def open_files() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are enough


# A task that is cancelled before its first step leaves a coroutine behind that Python complains of.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("again", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("loop", "pierced"), [("asyncio", False), ("asyncio", True), ("trio", False)])
def test_cut_at_any_turn_it_leaves_nothing(loop: str, again: int, pierced: bool, program: Program) -> None:
    talks_then_hangs = program("for i in 1 2 3 4 5 6; do echo working >&2; done\nexec >&- 2>&-\nexec sleep 100")
    files = open_files()
    turn = 1
    while True:
        watched = Watched(talks_then_hangs)
        was_cut = LOOPS[loop](watched.worker.run, Cut(turn, again, pierced))
        gc.collect()  # what Python would complain of
        assert open_files() == files, turn
        if watched.worker.pid is not None:  # else its task never took a step
            assert watched.is_gone(), turn
            assert watched.ends == ["it ended with code -9"], turn
        if not was_cut:
            break
        turn += 1
    assert turn > FEWEST


@pytest.mark.anyio
async def test_nonsense_is_its_end(program: Program) -> None:
    watched = Watched(program("printf '\\377\\377\\377\\377hello'\nexec sleep 100"))
    with anyio.fail_after(PATIENCE_SECONDS):
        await watched.worker.run()
    assert watched.is_gone()
    (end,) = watched.ends
    assert end.startswith("it sent nonsense: ")
    assert end.endswith(" with code -9")


@pytest.mark.anyio
async def test_its_own_exit_code_is_told(program: Program) -> None:
    watched = Watched(program("exit 3"))
    with anyio.fail_after(PATIENCE_SECONDS):
        await watched.worker.run()
    assert watched.ends == ["it ended with code 3"]


@pytest.mark.anyio
@pytest.mark.parametrize("then", ["wait", "exit 0"])
async def test_killed_it_takes_along_what_it_started(program: Program, then: str, tmp_path: Path) -> None:
    watched = Watched(
        program(f"sleep 100 &\necho $! >{tmp_path}/started\nmv {tmp_path}/started {tmp_path}/pid\n{then}")
    )
    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watched.worker.run)
            while not (tmp_path / "pid").exists():
                await anyio.sleep(0.01)  # another process writes it
            assert watched.ends == []
            watched.worker.kill()
    assert watched.is_gone()
    assert len(watched.ends) == 1
    helper = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    with anyio.fail_after(PATIENCE_SECONDS):
        while helper.exists() and helper.read_text().split()[2] != "Z":
            await anyio.sleep(0.01)  # the kernel ends it


@pytest.mark.anyio
async def test_killed_before_it_starts_it_carries_nothing(program: Program) -> None:
    watched = Watched(program("exec sleep 100"))
    watched.worker.kill()
    with anyio.fail_after(PATIENCE_SECONDS):
        await watched.worker.run()
    assert watched.ends == ["it ended with code -9"]
