"""A model as a hypothesis state machine: real walks by hypothesis, with what it finds and what it does not."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from machines.checker import Model, Property, PropertyRaised, always, always_step, no_deadlock
from machines.checker.stateful import state_machine
from tests.machines.checker.examples.courier import Courier, State

EAGER = settings(
    max_examples=200, derandomize=True, database=None, suppress_health_check=list(HealthCheck), deadline=None
)


class Countdown(Model[int, int]):
    """From 5 or 3 down to 0 by ones and twos, never below 0."""

    def __init__(self, *claims: Property) -> None:
        self.claims = claims
        self.seen: set[int] = set()

    def initial(self) -> Sequence[int]:
        return [5, 3]

    def actions(self, state: int) -> Sequence[int]:
        self.seen.add(state)
        return [down for down in (1, 2) if down <= state]

    def step(self, state: int, action: int) -> int:
        return state - action

    def properties(self) -> Sequence[Property]:
        return self.claims


def walk(model: Model[Any, Any]) -> None:
    run_state_machine_as_test(state_machine(model), settings=EAGER)


def test_what_holds_passes_and_the_walks_go_everywhere() -> None:
    model = Countdown(
        always("never negative", lambda state: state >= 0), no_deadlock("ends at 0", lambda state: state == 0)
    )
    walk(model)
    assert model.seen == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    "claim",
    [
        always("not one", lambda state: state != 1),
        always("not five", lambda state: state != 5),
        always_step("by ones", lambda before, action, after: before - after == 1),
        no_deadlock("goes on"),
    ],
    ids=lambda claim: claim.name,
)
def test_what_fails_is_found_and_named(claim: Property) -> None:
    with pytest.raises(AssertionError, match=f"{claim.kind} '{claim.name}' does not hold"):
        walk(Countdown(claim))


def test_the_walk_tells_its_actions() -> None:
    with pytest.raises(AssertionError, match="each comes once") as failure:
        walk(Courier(frozenset({"double"})))
    told = [line.removeprefix("action: ") for line in failure.value.__notes__ if line.startswith("action: ")]
    courier, state, doubles = Courier(frozenset({"double"})), State(), []
    for action in told:
        assert action in courier.actions(state)
        state = courier.step(state, action)
        doubles.append(len(set(state.got)) < len(state.got))
    assert doubles == [False] * (len(told) - 1) + [True]  # its last action is the one that breaks the promise


def test_a_property_that_raises_is_told_as_that() -> None:
    def broken(state: int) -> bool:
        return 1 // (state - 4) < 2

    with pytest.raises(PropertyRaised, match=r"'odd' raised ZeroDivisionError.*in the state 4"):
        walk(Countdown(always("odd", broken)))


def test_it_is_a_test_case_of_its_own() -> None:
    machine: Callable[..., Any] = state_machine(Courier())
    assert machine.__name__ == "CourierMachine"
    assert hasattr(machine, "TestCase")
