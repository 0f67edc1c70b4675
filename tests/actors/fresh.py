"""Answers of the floors with some of their files changed, each from a process that has seen no other code of ours.

Such a process is a fork of one that has loaded what others wrote and has compiled the floors, but has loaded none of them.
So nothing is copied, and what takes an interpreter longest to begin is done once.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from queue import SimpleQueue
from types import CodeType
from typing import Any, ClassVar

ROOT = Path(__file__).parents[2]
FLOORS = ("machines", "actors")
OTHERS = ("anyio", "asyncio", "msgspec", "pydantic", "transitions", "trio")  # what takes long to load

Ask = Callable[[Path, Sequence[Any], Mapping[str, str], int], Any]


class Died(Exception):
    """A process that ended without an answer."""


@contextmanager
def fresh(at_once: int) -> Iterator[Ask]:
    """`ask(script, arguments, changes, seconds)` returns what `answer(*arguments)` of the script does, where `changes` are new
    texts of files, by their path below the root; threads may ask, so many `at_once`. Raises `Died` if the process does not
    answer within so many seconds of a processor.
    """
    idle: SimpleQueue[_Process] = SimpleQueue()
    processes = [_Process() for _ in range(at_once)]
    for one in processes:
        idle.put(one)

    def ask(*question: Any) -> Any:
        process = idle.get()
        try:
            return process.ask(*question)
        finally:
            idle.put(process)

    try:
        yield ask
    finally:
        for one in processes:
            one.close()


class _Process:
    """An interpreter that forks for each question."""

    def __init__(self) -> None:
        self._running = subprocess.Popen(
            [sys.executable, "-P", __file__],
            env={"PYTHONHASHSEED": "0"},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, script: Path, arguments: Sequence[Any], changes: Mapping[str, str], seconds: int) -> Any:
        assert self._running.stdin is not None
        assert self._running.stdout is not None
        self._running.stdin.write(json.dumps([str(script), arguments, changes, seconds]) + "\n")
        self._running.stdin.flush()
        answer, died = json.loads(self._running.stdout.readline())
        if died:
            raise Died(died)
        return answer

    def close(self) -> None:
        self._running.communicate()


# ---------------------------------------------------------------------------------------------------------- the process


class _Floors(PathFinder):
    """Finds the modules of the floors, with the code that `compiled` has for their files."""

    compiled: ClassVar[dict[str, CodeType]] = {}

    @classmethod
    def find_spec(cls, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in FLOORS:
            return None
        spec = super().find_spec(fullname, [str(ROOT)] if path is None else path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        return _Floors.compiled[self.get_filename(fullname)]


def _compile(file: str, text: str) -> None:
    path = str(ROOT / file)
    _Floors.compiled[path] = compile(text, path, "exec", dont_inherit=True)


def _answer(script: str, arguments: Sequence[Any], changes: Mapping[str, str], seconds: int) -> tuple[Any, str]:
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        for file, text in changes.items():
            _compile(file, text)
        return runpy.run_path(script)["answer"](*arguments), ""
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the changes did
        return None, f"{type(error).__name__}: {error}"


def _serve() -> None:
    for name in OTHERS:
        importlib.import_module(name)
    for floor in FLOORS:
        for path in (ROOT / floor).rglob("*.py"):
            _compile(str(path.relative_to(ROOT)), path.read_text())
    sys.meta_path.insert(0, _Floors)
    sys.path.insert(0, str(ROOT))
    gc.freeze()
    for question in sys.stdin:
        if not (child := os.fork()):
            answers = os.dup(1)
            os.dup2(2, 1)  # what is printed is no answer
            os.write(answers, json.dumps(_answer(*json.loads(question))).encode() + b"\n")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps([None, f"ended with {status}"]), flush=True)  # noqa: T201


if __name__ == "__main__":
    _serve()
