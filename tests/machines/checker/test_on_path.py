"""Whether one run breaks a property: the same answer as the search gave, and the runs that are no counterexamples."""

from collections.abc import Sequence

import pytest

from machines.checker import (
    Model,
    Outcome,
    Path,
    Property,
    PropertyRaised,
    Step,
    always,
    always_step,
    can_always_reach,
    check,
    leads_to,
    no_deadlock,
    sometimes,
)
from machines.checker.on_path import holds_on, property_named
from tests.machines.checker.examples.courier import Courier


class Ring(Model[int, str]):
    """Round through 0, 1 and 2, with a way out from 1 to 3, which is the end."""

    def __init__(self, *, fair: bool = False, strongly: bool = False) -> None:
        self.fair = fair
        self.strongly = strongly

    def initial(self) -> Sequence[int]:
        return [0]

    def actions(self, state: int) -> Sequence[str]:
        return {0: ["on"], 1: ["on", "out"], 2: ["back"], 3: []}[state]

    def step(self, state: int, action: str) -> int:
        return {"on": state + 1, "back": 0, "out": 3}[action]

    def is_fair(self, action: str) -> bool:
        return self.fair

    def is_strongly_fair(self, action: str) -> bool:
        return self.strongly and action == "out"

    def properties(self) -> Sequence[Property]:
        return [
            always("below two", lambda state: state != 2),
            always_step("never out", lambda before, action, after: action != "out"),
            sometimes("two", lambda state: state == 2),
            no_deadlock("no end"),
            can_always_reach("start", lambda state: state == 0),
            leads_to("one, then three", lambda state: state == 1, lambda state: state == 3),
            leads_to("three, then zero", lambda state: state == 3, lambda state: state == 0),
        ]


def run(*actions: str, loop: int | None = None) -> Path:
    model, state, steps = Ring(), 0, []
    for action in actions:
        state = model.step(state, action)
        steps.append(Step(action, state))
    return Path(0, tuple(steps), loop)


def test_a_run_does_not_end_where_something_fair_goes_on() -> None:
    assert holds_on(Ring(fair=True), "one, then three", run("on"))
    assert holds_on(Ring(strongly=True), "one, then three", run("on"))
    assert not holds_on(Ring(fair=True), "three, then zero", run("on", "out"))


@pytest.mark.parametrize(
    ("name", "path", "holds"),
    [
        ("below two", run("on"), True),
        ("below two", run("on", "on", "back"), False),
        ("never out", run("on", "on"), True),
        ("never out", run("on", "out"), False),
        ("two", run("on"), False),
        ("two", run("on", "on"), True),
        ("no end", run("on"), True),
        ("no end", run("on", "out"), False),
        ("start", run("on"), True),
        ("start", run("on", "out"), False),
        ("one, then three", run(), True),
        ("one, then three", run("on"), False),  # it may end there, since nothing that is fair goes on
        ("one, then three", run("on", "out"), True),
        ("one, then three", run("on", "on", "back", loop=0), False),
        ("one, then three", run("on", "on", loop=0), True),  # it does not close
        ("three, then zero", run("on", "out"), False),  # it ends there
    ],
)
def test_each_kind_of_property_on_a_run(name: str, path: Path, holds: bool) -> None:
    assert holds_on(Ring(), name, path) is holds


def test_a_circle_that_leaves_out_what_is_fair_is_no_counterexample() -> None:
    circle = run("on", "on", "back", loop=0)
    assert not holds_on(Ring(fair=True), "one, then three", circle)  # "out" is not enabled all the way
    assert holds_on(Ring(strongly=True), "one, then three", circle)


def test_the_search_and_the_path_agree() -> None:
    for model in (Ring(), Ring(fair=True), Courier(frozenset({"double", "lose", "crash"})), Courier(lazy=True)):
        verdicts = check(model).verdicts
        assert any(verdict.outcome is Outcome.FAILS for verdict in verdicts)
        for verdict in verdicts:
            if verdict.path is not None:
                assert holds_on(model, verdict.name, verdict.path) is (verdict.outcome is Outcome.HOLDS)


def test_an_unknown_property_is_named_with_those_there_are() -> None:
    with pytest.raises(KeyError, match="no property 'all'; it has: below two, never out"):
        property_named(Ring(), "all")


class Asked(Ring):
    def __init__(self, claim: Property) -> None:
        super().__init__()
        self.claim = claim

    def properties(self) -> Sequence[Property]:
        return [self.claim]


def raises_at_two(*of: object) -> bool:
    if of[-1] == 2:
        raise RuntimeError("no idea")
    return False


@pytest.mark.parametrize(
    ("claim", "state", "action"),
    [
        (always("it", lambda state: not raises_at_two(state)), 2, "on"),
        (always_step("it", lambda *step: not raises_at_two(*step)), 1, "on"),
        (sometimes("it", raises_at_two), 2, "on"),
        (can_always_reach("it", raises_at_two), 2, None),
        (leads_to("it", lambda _: True, raises_at_two), 2, "on"),
        (leads_to("it", raises_at_two, lambda _: True), 2, "on"),
    ],
    ids=lambda it: getattr(it, "kind", str(it)),
)
def test_a_property_that_raises_on_a_path_is_named_with_the_state_and_the_step(
    claim: Property, state: int, action: str | None
) -> None:
    with pytest.raises(PropertyRaised, match="'it' raised RuntimeError") as caught:
        holds_on(Asked(claim), "it", Path(0 if action else 2, (Step("on", 1), Step("on", 2)) if action else ()))
    assert (caught.value.state, caught.value.action) == (state, action)
