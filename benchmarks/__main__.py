"""`python -m benchmarks`: all figures on all loops; `--quick` takes fewer runs and leaves out the real-time ones."""

import argparse
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from benchmarks import frames, lifecycle, mailbox, realtime
from benchmarks.yard import Figure

LOOPS: dict[str, tuple[str, dict[str, bool]]] = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
QUESTIONS: dict[str, Callable[[str, int], Awaitable[list[Figure]]]] = {
    "mailbox": mailbox.figures,
    "lifecycle": lifecycle.figures,
    "frames": frames.figures,
}
REALTIME_LEVELS = ((1_500, False), (1_000, True))


def main() -> None:
    """Answer the questions asked for and print one table each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("questions", nargs="*", choices=[*QUESTIONS, "bytes", "blocking", "realtime", []])
    parser.add_argument("--quick", action="store_true", help="fewer runs, no real-time figures")
    parser.add_argument("--loop", choices=list(LOOPS), action="append", help="only this loop; may be repeated")
    arguments = parser.parse_args()
    asked = arguments.questions or [*QUESTIONS, "bytes", "blocking", *([] if arguments.quick else ["realtime"])]
    runs = 3 if arguments.quick else 5
    for question in asked:
        print(f"\n{question}")
        for line in _lines(question, runs, arguments.loop or list(LOOPS)):
            print(f"  {line}", flush=True)


def _lines(question: str, runs: int, loops: list[str]) -> list[str]:
    if question == "bytes":
        return lifecycle.bytes_lines()
    if question == "blocking":
        return [figure.line() for figure in frames.blocking_figures(runs)]
    lines = []
    for loop in loops:
        backend, options = LOOPS[loop]
        if question == "realtime":
            for sessions, recording in REALTIME_LEVELS:
                run = partial(realtime.line, loop, sessions, recording=recording, seconds=6.0)
                lines.append(anyio.run(run, backend=backend, backend_options=options))
        else:
            found = anyio.run(QUESTIONS[question], loop, runs, backend=backend, backend_options=options)
            lines.extend(figure.line() for figure in found)
    return lines


if __name__ == "__main__":
    sys.exit(main())
