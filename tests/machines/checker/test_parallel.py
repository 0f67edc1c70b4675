"""Several processes find what one does, number for number; and are not used where they don't pay."""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machines.checker import (
    Model,
    Outcome,
    Property,
    always,
    always_step,
    can_always_reach,
    check,
    leads_to,
    no_deadlock,
)
from tests.machines.checker.examples.graphs import Drawn, Steps, graphs
from tests.machines.checker.examples.two_phase_commit import COMMITTED, PREPARED, Action, State, TwoPhaseCommit


class Everything(TwoPhaseCommit):
    """With failing and holding properties of every kind."""

    def properties(self) -> Sequence[Property]:
        return [
            *super().properties(),
            always("nobody commits", lambda state: COMMITTED not in state[0]),
            always_step("nobody hears abort", lambda _, action, __: action[0] != "hear abort"),
            always_step("told early", lambda before, action, _: action[0] != "told" or before[0].count(PREPARED) < 3),
            can_always_reach("agreement", lambda state: len(set(state[0])) == 1),
            can_always_reach("commit", lambda state: COMMITTED in state[0]),
            leads_to("agreement follows", lambda _: True, lambda state: len(set(state[0])) == 1),
            leads_to("commit follows", lambda _: True, lambda state: COMMITTED in state[0]),
            no_deadlock("goes on"),
        ]


pytestmark = pytest.mark.alone  # beside other threads no process is forked


@pytest.fixture(autouse=True)
def no_other_thread(request: pytest.FixtureRequest) -> None:
    """Those that an earlier test left idle end by themselves within seconds."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not hasattr(request.config, "workerinput"):
            thread.join(20)


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("kind", [Everything, TwoPhaseCommit])
@pytest.mark.parametrize("options", [{}, {"max_states": 1_234}, {"max_depth": 7}, {"visited": "fingerprint"}], ids=str)
def test_several_processes_give_the_report_of_one(workers: int, kind: Any, options: dict[str, Any]) -> None:
    alone, together = check(kind(4), workers=1, **options), check(kind(4), workers=workers, **options)
    assert together.configuration["workers"] == workers
    assert together.verdicts == alone.verdicts
    assert (together.states, together.transitions, together.depth, together.stopped_by) == (
        alone.states,
        alone.transitions,
        alone.depth,
        alone.stopped_by,
    )


def test_several_processes_and_symmetry() -> None:
    alone, together = (check(TwoPhaseCommit(5), workers=workers, symmetry=True) for workers in (1, 2))
    assert together.states == alone.states == 314
    assert together.verdicts == alone.verdicts


@given(graphs(), st.frozensets(st.integers(0, 5)))
@settings(max_examples=25)
def test_several_processes_agree_with_one_on_drawn_graphs(steps: Steps, some: frozenset[int]) -> None:
    wide: Steps = {
        state + 6 * copy: [(a, to + 6 * copy) for a, to in found] for state, found in steps.items() for copy in range(3)
    }
    begin = [0, 6, 12]
    claims = [
        leads_to("effect", lambda state: state % 6 == 0, lambda state: state % 6 in some),
        can_always_reach("goal", lambda state: state % 6 in some),
        no_deadlock("goes on"),
    ]
    assert (
        check(Drawn(wide, claims, begin), workers=3).verdicts == check(Drawn(wide, claims, begin), workers=1).verdicts
    )


def test_where_a_step_is_cheap_one_process_does_it_alone() -> None:
    assert check(TwoPhaseCommit(5)).configuration["workers"] == 1


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor")
def test_where_a_step_is_dear_several_are_used() -> None:
    class Waiting(Model[int, int]):
        """A tree whose steps wait, so that processes need not share a processor."""

        def initial(self) -> Sequence[int]:
            return [1]

        def successors(self, state: int) -> Sequence[tuple[int, int]]:
            time.sleep(0.002)
            return [(bit, 2 * state + bit) for bit in (0, 1)] if state < 256 else []

    report = check(Waiting())
    assert report.configuration["workers"] > 1
    assert report.states == 511


def test_states_that_do_not_arrive_as_equal_ones_stay_in_one_process() -> None:
    class Lonely:
        """Equal to itself alone."""

        def __init__(self, number: int) -> None:
            self.number = number

    nodes = [Lonely(number) for number in range(40)]

    class ByIdentity(Model[Lonely, int]):
        def initial(self) -> Sequence[Lonely]:
            return nodes[:4]

        def successors(self, state: Lonely) -> Sequence[tuple[int, Lonely]]:
            return [(add, nodes[(state.number + add) % 40]) for add in (1, 7)]

    report = check(ByIdentity(), workers=2)
    assert report.states == 40
    assert report.configuration["workers"] == 1


def test_an_error_in_another_process_is_raised_here() -> None:
    class Broken(TwoPhaseCommit):
        def successors(self, state: State) -> Sequence[tuple[Action, State]]:
            if state[0].count(COMMITTED) == 2:
                raise RuntimeError("two have committed")
            return super().successors(state)

    with pytest.raises(RuntimeError, match="two have committed"):
        check(Broken(4), workers=3)


def test_a_process_that_dies_is_done_without() -> None:
    here = os.getpid()

    class Dying(TwoPhaseCommit):
        def successors(self, state: State) -> Sequence[tuple[Action, State]]:
            if os.getpid() != here and state[0].count(COMMITTED) == 2:
                os._exit(3)
            return super().successors(state)

    report = check(Dying(4), workers=3)
    assert report.verdicts == check(TwoPhaseCommit(4), workers=1).verdicts
    assert report.outcome is Outcome.HOLDS


def test_no_process_is_left_behind() -> None:
    before = children()
    check(TwoPhaseCommit(4), workers=3)
    assert children() == before


def children() -> list[str]:
    """The processes that this thread has started and that are not gone."""
    return Path("/proc/thread-self/children").read_text().split()


def test_beside_other_threads_no_process_is_forked() -> None:
    """A fork would copy their locks as they are."""
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    try:
        report = check(TwoPhaseCommit(4), workers=2)
    finally:
        ended.set()
        thread.join()
    assert report.configuration["workers"] == 1
    assert report.states == check(TwoPhaseCommit(4), workers=1).states
