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


# --- readings that can't be had ------------------------------------------------------------------------------------------


def raises_at_four(states: Sequence[tuple[int, int]]) -> Sequence[Hashable]:
    return [1 // (4 - x - y) for x, y in states]


def unhashable_at_four(states: Sequence[tuple[int, int]]) -> Sequence[Any]:
    return [[x, y] if x + y == 4 else x for x, y in states]


def too_few_at_four(states: Sequence[tuple[int, int]]) -> Sequence[Hashable]:
    return [x for x, y in states if x + y != 4]


BROKEN = pytest.mark.parametrize(
    ("reads", "text"),
    [
        (raises_at_four, "raised ZeroDivisionError"),
        (unhashable_at_four, "what it reads can't be hashed: "),
        (too_few_at_four, "it reads 0 values of 1 states"),
    ],
)
KINDS: list[Any] = [
    lambda name, reads: always(name, lambda _: True, reads=reads),
    lambda name, reads: sometimes(name, lambda _: False, reads=reads),
    lambda name, reads: can_always_reach(name, lambda _: True, reads=reads),
    lambda name, reads: leads_to(name, lambda _: True, lambda _: True, reads=reads),
]


@BROKEN
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"strategy": "depth"}, {"workers": 2}], ids=str)
def test_what_can_not_be_read_of_a_state_names_the_first_property_the_state_and_the_step(
    reads: Any, text: str, kind: Any, options: dict[str, Any]
) -> None:
    both = [kind("one", reads), kind("two", reads)]
    with pytest.raises(PropertyRaised, match=f"the property 'one' .*{text}") as caught:
        check(Grid(both), **options)
    assert sum(caught.value.state) == 4
    assert caught.value.action in ("x", "y")
    assert caught.value.__cause__ is not None


@BROKEN
@pytest.mark.parametrize("options", [{}, {"strategy": "depth"}, {"workers": 2}], ids=str)
def test_what_can_not_be_read_after_a_step_names_the_step(reads: Any, text: str, options: dict[str, Any]) -> None:
    both = [always_step(name, lambda *_: True, reads=reads) for name in ("one", "two")]
    with pytest.raises(PropertyRaised, match=f"the property 'one' .*{text}") as caught:
        check(Grid(both), **options)
    assert sum(caught.value.state) == 3
    assert caught.value.action in ("x", "y")


def test_what_can_not_be_read_of_an_initial_state_names_the_step_from_it_or_none() -> None:
    def never(states: Sequence[Any]) -> Sequence[Hashable]:
        raise LookupError("nothing there")

    for claim, action in (
        (always("it", bool, reads=never), None),
        (always_step("it", lambda *_: True, reads=never), "x"),
    ):
        with pytest.raises(PropertyRaised, match="'it' raised LookupError") as caught:
            check(Grid([claim]))
        assert (caught.value.state, caught.value.action) == ((0, 0), action)


def test_what_can_only_not_be_read_of_many_states_says_so() -> None:
    def one(states: Sequence[Any]) -> Sequence[Hashable]:
        (state,) = states
        return [state]

    with pytest.raises(PropertyRaised, match="when it read many states, and did not for any of them alone"):
        check(Grid([always("it", lambda _: True, reads=one)]))


def test_what_is_read_may_come_from_a_generator() -> None:
    def lazily(states: Sequence[Any]) -> Any:
        return (sum(state) for state in states)

    assert told(lazily) == told(None)
