"""Properties that tell what they read are asked less often, and decided the same."""

from collections.abc import Hashable, Sequence
from typing import Any

import pytest

from machines.checker import (
    Outcome,
    PropertyRaised,
    always,
    always_step,
    can_always_reach,
    check,
    leads_to,
    readings,
    sometimes,
)
from machines.checker.model import Model, Property

SIZE = 6


class Grid(Model[tuple[int, int], str]):
    """Two numbers that count up, each by itself, to `SIZE`."""

    name = "grid"

    def __init__(self, claims: Sequence[Property]) -> None:
        self.claims = claims

    def initial(self) -> list[tuple[int, int]]:
        return [(0, 0)]

    def actions(self, state: tuple[int, int]) -> list[str]:
        return [name for name, number in zip("xy", state, strict=True) if number < SIZE]

    def step(self, state: tuple[int, int], action: str) -> tuple[int, int]:
        x, y = state
        return (x + 1, y) if action == "x" else (x, y + 1)

    def properties(self) -> Sequence[Property]:
        return self.claims


def the_sum(states: Sequence[tuple[int, int]]) -> Sequence[Hashable]:
    return [x + y for x, y in states]


def the_first(states: Sequence[tuple[int, int]]) -> Sequence[Hashable]:
    return [x for x, _ in states]


def claims(reads: Any) -> list[Property]:
    """One of each kind that holds, and one that fails, all of the sum of both numbers."""
    return [
        always("small", lambda state: sum(state) <= 2 * SIZE, reads=reads),
        always("below seven", lambda state: sum(state) < 7, reads=reads),
        always_step("up by one", lambda before, _, after: sum(after) == sum(before) + 1, reads=reads),
        always_step("never to five", lambda _, __, after: sum(after) != 5, reads=reads),
        sometimes("nine", lambda state: sum(state) == 9, reads=reads),
        sometimes("a hundred", lambda state: sum(state) == 100, reads=reads),
        can_always_reach("the end", lambda state: sum(state) == 2 * SIZE, reads=reads),
        can_always_reach("three", lambda state: sum(state) == 3, reads=reads),
        leads_to("on from four", lambda state: sum(state) == 4, lambda state: sum(state) == 8, reads=reads),
        leads_to("back from four", lambda state: sum(state) == 4, lambda state: sum(state) == 2, reads=reads),
    ]


def told(reads: Any, **options: Any) -> list[tuple[str, Outcome, Any]]:
    report = check(Grid(claims(reads)), **options)
    return [(verdict.name, verdict.outcome, verdict.path) for verdict in report.verdicts]


@pytest.mark.parametrize("strategy", ["breadth", "depth"])
def test_what_is_asked_by_reading_is_decided_as_what_is_asked_of_each_state(strategy: str) -> None:
    by_reading = told(the_sum, strategy=strategy)

    assert by_reading == told(None, strategy=strategy)
    assert [outcome for _, outcome, _ in by_reading] == [Outcome.HOLDS, Outcome.FAILS] * 5


def test_it_is_decided_the_same_when_answers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "_MOST_KNOWN", 2)

    assert told(the_sum) == told(None)


def test_it_is_decided_the_same_by_two_processes() -> None:
    assert told(the_sum, workers=2) == told(None)


def test_a_condition_is_asked_once_for_each_reading() -> None:
    asked: list[tuple[int, int]] = []
    steps: list[tuple[int, int]] = []

    def low(state: tuple[int, int]) -> bool:
        asked.append(state)
        return state[0] <= SIZE

    def forward(before: tuple[int, int], _: str, after: tuple[int, int]) -> bool:
        steps.append((before[0], after[0]))
        return before[0] <= after[0]

    report = check(
        Grid([always("low", low, reads=the_first), always_step("forward", forward, reads=the_first)]), self_check=False
    )

    assert report.outcome is Outcome.HOLDS
    assert report.states == (SIZE + 1) ** 2
    assert [x for x, _ in asked] == list(range(SIZE + 1))
    assert len(steps) == len(set(steps)) == 2 * SIZE + 1


def test_many_conditions_may_share_a_reading() -> None:
    many = [can_always_reach(f"to {n}", lambda state, n=n: sum(state) >= n, reads=the_sum) for n in range(12)]
    many += [
        leads_to(f"from {n}", lambda state, n=n: sum(state) == n, lambda state, n=n: sum(state) == n + 1, reads=the_sum)
        for n in range(13)
    ]

    outcomes = [verdict.outcome for verdict in check(Grid(many)).verdicts]

    assert outcomes == [Outcome.HOLDS] * 24 + [Outcome.FAILS]  # nothing comes after the last


def test_one_that_raises_names_the_state_and_the_step() -> None:
    def raises(state: tuple[int, int]) -> bool:
        return 1 // (3 - sum(state)) < 9

    with pytest.raises(PropertyRaised, match=r"'fragile' raised ZeroDivisionError.*in the state \(3, 0\).*action 'x'"):
        check(Grid([always("fragile", raises, reads=the_sum)]))
    with pytest.raises(PropertyRaised, match=r"'fragile' raised ZeroDivisionError.*in the state \(2, 0\).*action 'x'"):
        check(Grid([always_step("fragile", lambda _, __, after: raises(after), reads=the_sum)]))
