"""`python -m benchmarks`: all figures on all loops; `--quick` takes fewer runs and leaves out the real-time ones.

Each question is answered in a process of its own, so that what one has imported and left behind is not in the way of another.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib import import_module

import anyio

LOOPS: dict[str, tuple[str, dict[str, bool]]] = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
ON_EACH_LOOP = ("mailbox", "lifecycle", "frames")
QUESTIONS = (*ON_EACH_LOOP, "bytes", "blocking", "checker", "models", "realtime", "streams", "closing")
ONLY_BY_NAME = ("soak", "peers")  # ten minutes a loop; what is not installed
REALTIME_LEVELS = ((1_500, False), (1_000, True))


def main() -> int:
    """Answer the questions asked for and print one table each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=", ".join((*QUESTIONS, *ONLY_BY_NAME)))
    parser.add_argument("--quick", action="store_true", help="fewer runs, no real-time figures")
    parser.add_argument("--loop", choices=list(LOOPS), action="append", help="only this loop; may be repeated")
    arguments = parser.parse_args()
    for question in arguments.questions:
        if question not in (*QUESTIONS, *ONLY_BY_NAME):
            parser.error(f"no such question: {question} (there are {', '.join((*QUESTIONS, *ONLY_BY_NAME))})")
    loops = arguments.loop or list(LOOPS)
    if len(arguments.questions) == 1:
        print(f"\n{arguments.questions[0]}", flush=True)
        for line in _lines(arguments.questions[0], 3 if arguments.quick else 5, loops):
            print(f"  {line}", flush=True)
        return 0
    asked = arguments.questions or [name for name in QUESTIONS if not (arguments.quick and name == "realtime")]
    options = [*(["--quick"] if arguments.quick else []), *(f"--loop={loop}" for loop in loops)]
    codes = [subprocess.call([sys.executable, "-m", "benchmarks", name, *options]) for name in asked]
    return max(codes)


def _lines(question: str, runs: int, loops: list[str]) -> Iterator[str]:
    if question == "bytes":
        yield from import_module("benchmarks.lifecycle").bytes_lines()
    elif question == "blocking":
        yield from (figure.line() for figure in import_module("benchmarks.frames").blocking_figures(runs))
    elif question == "checker":
        yield from import_module("benchmarks.checker").lines(runs)
    elif question in ("models", "streams", "closing", "peers"):
        yield from import_module(f"benchmarks.{question}").lines(quick=runs < 5)
    else:
        module = import_module(f"benchmarks.{question}")
        for loop in loops:
            backend, options = LOOPS[loop]
            if question in ON_EACH_LOOP:
                found = anyio.run(module.figures, loop, runs, backend=backend, backend_options=options)
                yield from (figure.line() for figure in found)
                continue
            if question == "soak":
                row = partial(module.line, loop, quick=runs < 5)
                yield anyio.run(row, backend=backend, backend_options=options)
                continue
            for sessions, recording in REALTIME_LEVELS:
                row = partial(module.line, loop, sessions, recording=recording, seconds=6.0)
                yield anyio.run(row, backend=backend, backend_options=options)


if __name__ == "__main__":
    sys.exit(main())
