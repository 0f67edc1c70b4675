"""What does a state of the voice model cost? The actors that ship, in turns, with predecessors and all promises.

The unit is a search written by hand, that of two-phase commit with seven managers, made before and after. Rates are by the CPU
time of a process, bytes by the growth of its resident memory, in a process of its own for each model.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from actors.model.parts import Faults
from actors.voice_lab.model import voice_model
from benchmarks.checker import STATES as BY_HAND_STATES
from benchmarks.checker import by_hand
from machines.checker import Outcome, check

STATES_BY_HAND = 8.0  # a state of the voice model costs at most as much as so many by hand
SEARCHES_BY_HAND = 25.0  # and the model of the CI as so many whole searches
BYTES_A_STATE = 400
BY_HAND = "by-hand"
COMMAND = (sys.executable, "-m", "benchmarks.models")


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
    """Two sessions, in part if it is to be quick; else the whole, its bytes, and the model of the CI too."""
    before = _by_hand()
    found = _apart(sessions=2, max_states=30_000 if quick else None)
    search = (before + (after := _by_hand())) / 2
    each, size = found.seconds / found.states, found.n_bytes / found.states
    times = each / (search / BY_HAND_STATES)
    extent = f"{found.states:,} states, {found.transitions:,} steps, {found.outcome}"
    yield (
        f"{'two sessions, no fault':<32} {1 / each:>10,.0f} states/s, each {times:.1f} by hand, goal {STATES_BY_HAND:.0f} "
        f"{'ok' if times <= STATES_BY_HAND else 'OVER'} ({extent})"
    )
    if quick:
        return
    yield (
        f"{'two sessions, no fault':<32} {size:>10,.0f} B/state, goal {BYTES_A_STATE} "
        f"{'ok' if size <= BYTES_A_STATE else 'OVER'}"
    )
    found = _apart(faults=1, sessions=2, refused=1, in_turn=True, frames=2)
    times = found.seconds / ((after + _by_hand()) / 2)
    good = found.outcome != Outcome.NOT_DECIDED.value and times <= SEARCHES_BY_HAND
    yield (
        f"{'the CI: any one fault':<32} {found.seconds:>10.2f} s, {times:.1f} searches by hand, "
        f"goal {SEARCHES_BY_HAND:.0f} {'ok' if good else 'OVER'} "
        f"({found.states:,} states, {found.transitions:,} steps, {found.outcome})"
    )


def _by_hand() -> float:
    """Seconds of CPU that the search by hand takes, in a process of its own."""
    return float(subprocess.run([*COMMAND, BY_HAND], stdout=subprocess.PIPE, text=True, check=True).stdout)


def _apart(**options: Any) -> Searched:
    """`searched` in a process of its own, whose memory nothing else has grown."""
    command = [*COMMAND, json.dumps(options)]
    return Searched(*json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))


def _resident() -> int:
    """The most bytes that this process has had in memory."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else kilobytes * 1024


if __name__ == "__main__":
    if sys.argv[1] == BY_HAND:
        began = time.process_time()
        by_hand()
        print(time.process_time() - began)
    else:
        print(json.dumps(searched(**json.loads(sys.argv[1]))))
