"""What does a state of the voice model cost? The actors that ship, in turns, with predecessors and all promises.

Rates are by the CPU time of this process, bytes by the growth of its resident memory, in a process of its own for each model.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from actors.model_parts import Faults
from actors.voice_model import voice_model
from machines.checker import Outcome, check

STATES_A_SECOND = 18_000
BYTES_A_STATE = 400
CI_SECONDS = 60.0


class Searched(NamedTuple):
    """One search: its outcome, states and transitions, seconds of CPU, and bytes by which the process grew."""

    outcome: str
    states: int
    transitions: int
    seconds: float
    n_bytes: int


def searched(*, max_states: int | None = None, faults: int = 0, **options: Any) -> Searched:
    """Search the voice model made with `options`."""
    model = voice_model(faults=Faults(total=faults), **options)
    model.properties()
    next(iter(model.initial()))
    before = _resident()
    began = time.process_time()
    report = check(model, max_states=max_states)
    seconds = time.process_time() - began
    return Searched(report.outcome.value, report.states, report.transitions, seconds, _resident() - before)


def lines(*, quick: bool) -> Iterator[str]:
    found = _apart(sessions=2, max_states=30_000 if quick else None)
    rate, size = found.states / found.seconds, found.n_bytes / found.states
    extent = f"{found.states:,} states, {found.transitions:,} steps, {found.outcome}"
    yield (
        f"{'two sessions, no fault':<32} {rate:>10,.0f} states/s, goal {STATES_A_SECOND:,} "
        f"{'ok' if rate >= STATES_A_SECOND else 'UNDER'} ({extent})"
    )
    if not quick:
        yield (
            f"{'two sessions, no fault':<32} {size:>10,.0f} B/state, goal {BYTES_A_STATE} "
            f"{'ok' if size <= BYTES_A_STATE else 'OVER'}"
        )
    found = _apart(faults=1, sessions=2, refused=1, in_turn=True, frames=2)
    good = found.outcome != Outcome.NOT_DECIDED.value and found.seconds <= CI_SECONDS
    yield (
        f"{'the CI: any one fault':<32} {found.seconds:>10.2f} s, goal {CI_SECONDS:.0f} "
        f"{'ok' if good else 'OVER'} ({found.states:,} states, {found.transitions:,} steps, {found.outcome})"
    )


def _apart(**options: Any) -> Searched:
    """`searched` in a process of its own, whose memory nothing else has grown."""
    command = [sys.executable, "-m", "benchmarks.models", json.dumps(options)]
    return Searched(*json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))


def _resident() -> int:
    """The most bytes that this process has had in memory."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else kilobytes * 1024


if __name__ == "__main__":
    print(json.dumps(searched(**json.loads(sys.argv[1]))))
