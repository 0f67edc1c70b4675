"""Shrinking a failing plan to fewer visits, fewer faults and a shorter time that still fail (delta debugging).

Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 28 (2002): remove pieces, large ones first,
as long as the rest fails in the same way.
"""

from collections.abc import Callable, Sequence
from typing import Final

from actors.simulation.plan import Plan
from actors.simulation.runner import Day, Simulation

MAX_RUNS: Final = 200


def shrunk(simulation: Simulation, day: Day, hours: float, *, max_runs: int = MAX_RUNS) -> tuple[Plan, Day, int]:
    """A small plan of the same seed that breaks the same promise, its run, and how many runs the search took.

    Raises `ValueError` for a day that broke no promise.
    """
    if day.failure is None:
        raise ValueError(f"seed {day.seed} broke no promise: there is nothing to make smaller")
    search = _Search(simulation, simulation.plan(day.seed, hours), day, max_runs)
    search.cut_time()
    smaller = True
    while smaller and search.left:
        before = search.size
        search.reduce(
            lambda plan: [one.number for one in plan.visits],
            lambda plan, kept: plan.only(kept, _faults(plan), plan.until_ms),
        )
        search.reduce(
            lambda plan: [one.number for one in plan.faults],
            lambda plan, kept: plan.only(_visits(plan), kept, plan.until_ms),
        )
        search.cut_time()
        smaller = search.size < before
    return search.plan, search.day, max_runs - search.left


def _visits(plan: Plan) -> set[int]:
    return {one.number for one in plan.visits}


def _faults(plan: Plan) -> set[int]:
    return {one.number for one in plan.faults}


class _Search:
    """The smallest failing plan so far, `plan`, and its run."""

    def __init__(self, simulation: Simulation, plan: Plan, day: Day, runs: int) -> None:
        self.plan = plan
        self.day = day
        self.left = runs
        self._simulation = simulation
        self._promise = "" if day.failure is None else day.failure.promise

    @property
    def size(self) -> tuple[int, int]:
        return len(self.plan.visits) + len(self.plan.faults), self.plan.until_ms

    def cut_time(self) -> None:
        """Cut the plan at the failure: nothing after it can have caused it."""
        if self.day.failure is not None and self.day.failure.at_ms < self.plan.until_ms:
            plan = self.plan
            self._try(plan.only(_visits(plan), _faults(plan), self.day.failure.at_ms + 1))

    def reduce(self, numbers_of: Callable[[Plan], Sequence[int]], only: Callable[[Plan, set[int]], Plan]) -> None:
        """Leave out visits or faults while the plan still fails, in pieces of half of them, then of a quarter, down to one."""
        size = len(numbers_of(self.plan)) or 1
        while True:
            at = 0
            while at < len(numbers := numbers_of(self.plan)):
                kept = {*numbers[:at], *numbers[at + size :]}
                if not self.left or not self._try(only(self.plan, kept)):
                    at += size
            if size == 1 or not self.left:
                return
            size = (size + 1) // 2

    def _try(self, plan: Plan) -> bool:
        if not self.left:
            return False
        self.left -= 1
        day = self._simulation.follow(plan)
        if day.failure is None or day.failure.promise != self._promise:
            return False
        self.plan, self.day = plan, day
        return True
