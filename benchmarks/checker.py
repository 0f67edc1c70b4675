"""What does the model checker cost beside a search written by hand? Two-phase commit with seven resource managers.

All four searches are made in turn, in one process, and measured by its CPU time; the figures are medians. Those written by hand
keep the states and look at the property, and nothing else: no predecessors, no counterexample, no bounds.
"""

import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import NamedTuple

from machines.checker import Model, check
from tests.machines.checker.examples.packed_two_phase_commit import packed_two_phase_commit
from tests.machines.checker.examples.two_phase_commit import (
    ABORT,
    ABORTED,
    COMMIT,
    COMMITTED,
    PREPARED,
    WORKING,
    TwoPhaseCommit,
)

MANAGERS = 7
STATES, TRANSITIONS = 296_448, 2_744_705
SPIN_STATES_A_SECOND = (
    654_000  # SPIN 6.5.2, pan -O3 -march=native -DNOREDUCE, depth first, without the time to compile it
)


class Rate(NamedTuple):
    """One search: its states a second of CPU time, and what it is compared with."""

    name: str
    rate: float
    beside: float | None = None
    goal: float | None = None

    def line(self) -> str:
        """The figure as a row of a table."""
        text = f"{self.name:<44} {self.rate:>10,.0f} states/s"
        if self.beside is not None and self.goal is not None:
            ratio = self.rate / self.beside
            text += f" {ratio:>6.2f} of by hand, goal {self.goal} {'ok' if ratio >= self.goal else 'UNDER'}"
        return text


def by_hand() -> None:
    """Breadth first over the tuples of `TwoPhaseCommit`."""
    each = range(MANAGERS)
    begin = ((WORKING,) * MANAGERS, WORKING, (False,) * MANAGERS, frozenset[int]())
    seen = {begin}
    level = [begin]
    transitions = 0
    while level:
        below = []
        for managers, master, told, messages in level:
            found = []
            if master == WORKING:
                if all(told):
                    found.append((managers, COMMITTED, told, messages | {COMMIT}))
                found.append((managers, ABORTED, told, messages | {ABORT}))
            for at in each:
                manager = managers[at]
                if master == WORKING and at in messages:
                    found.append((managers, master, (*told[:at], True, *told[at + 1 :]), messages))
                if manager == WORKING:
                    found.append(((*managers[:at], PREPARED, *managers[at + 1 :]), master, told, messages | {at}))
                    found.append(((*managers[:at], ABORTED, *managers[at + 1 :]), master, told, messages))
                if COMMIT in messages:
                    found.append(((*managers[:at], COMMITTED, *managers[at + 1 :]), master, told, messages))
                if ABORT in messages:
                    found.append(((*managers[:at], ABORTED, *managers[at + 1 :]), master, told, messages))
            transitions += len(found)
            for after in found:
                if after not in seen:
                    assert not (ABORTED in after[0] and COMMITTED in after[0])
                    seen.add(after)
                    below.append(after)
        level = below
    assert (len(seen), transitions) == (STATES, TRANSITIONS)


def by_hand_in_bits() -> None:
    """Breadth first over ints: two bits for the master, one for each of its messages, and four for each manager."""
    told_all = sum(1 << 4 + 4 * at + 2 for at in range(MANAGERS))
    places = [4 + 4 * at for at in range(MANAGERS)]
    moves = [(at, 1 << at + 2, 1 << at + 3, 1 << at, ~(3 << at), COMMITTED << at, ABORTED << at) for at in places]
    low = sum(1 << at for at in places)
    seen = {0}
    level = [0]
    transitions = 0
    while level:
        below = []
        for state in level:
            found = []
            if not state & 3:
                if state & told_all == told_all:
                    found.append(state | COMMITTED | 4)
                found.append(state | ABORTED | 8)
            for at, told, sent, prepared, others, committed, aborted in moves:
                if state & sent and not state & 3:
                    found.append(state | told)
                if not state >> at & 3:
                    found.append(state | prepared | sent)
                    found.append(state | aborted)
                if state & 4:
                    found.append(state & others | committed)
                if state & 8:
                    found.append(state & others | aborted)
            transitions += len(found)
            for after in found:
                if after not in seen:
                    both = after & low
                    assert not (both & after >> 1 and after >> 1 & low & ~both)
                    seen.add(after)
                    below.append(after)
        level = below
    assert (len(seen), transitions) == (STATES, TRANSITIONS)


def lines(runs: int) -> Iterator[str]:
    plain, packed = TwoPhaseCommit(MANAGERS), packed_two_phase_commit(MANAGERS)
    searches: dict[str, Callable[[], None]] = {
        "by hand, tuples": by_hand,
        "checker, tuples": lambda: _check(plain),
        "by hand, ints": by_hand_in_bits,
        "checker, packed": lambda: _check(packed),
    }
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(runs):
        for name, search in searches.items():
            began = time.process_time()
            search()
            seconds[name].append(time.process_time() - began)
    rates = {name: STATES / statistics.median(taken) for name, taken in seconds.items()}
    yield Rate("by hand, tuples", rates["by hand, tuples"]).line()
    yield Rate("checker, tuples", rates["checker, tuples"], rates["by hand, tuples"], 0.6).line()
    yield Rate("by hand, ints", rates["by hand, ints"]).line()
    yield Rate("checker, packed", rates["checker, packed"], rates["by hand, ints"], 0.6).line()
    yield f"{'checker, packed, beside SPIN elsewhere':<44} {rates['checker, packed'] / SPIN_STATES_A_SECOND:>10.2f}, goal 0.3"
    for name, model in (("tuples", plain), ("packed", packed)):
        size = _bytes_a_state(model)
        yield f"{f'checker, {name}, with predecessors':<44} {size:>10.0f} B/state, goal 600 {'ok' if size <= 600 else 'OVER'}"


def _check(model: Model) -> None:
    report = check(model, workers=1)
    assert (report.states, report.transitions, report.complete) == (STATES, TRANSITIONS, True)


def _bytes_a_state(model: Model) -> float:
    """The most that was allocated at once during a search, for each state that it found."""
    tracemalloc.start()
    try:
        _check(model)
        return tracemalloc.get_traced_memory()[1] / STATES
    finally:
        tracemalloc.stop()
