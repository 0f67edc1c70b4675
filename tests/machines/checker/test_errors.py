"""A model that can't be checked is refused with the state and the step; a search that ends early decides nothing unseen."""

import itertools
import random
import time
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from machines.checker import (
    Model,
    ModelError,
    NoInitialState,
    NotRepeatable,
    Outcome,
    Progress,
    PropertyRaised,
    UnhashableState,
    always,
    always_step,
    can_always_reach,
    check,
    leads_to,
    no_deadlock,
    sometimes,
)
from tests.machines.checker.examples.graphs import Drawn
from tests.machines.checker.examples.two_phase_commit import TwoPhaseCommit

SEARCHES: list[dict[str, Any]] = [{}, {"strategy": "depth"}, {"strategy": "walk"}, {"strategy": "pct"}, {"workers": 2}]
searches = pytest.mark.parametrize("options", SEARCHES, ids=str)


class Counter(Model[Any, str]):
    """Counts up to a bound, by one and by two."""

    name = "counter"
    bound = 10
    claims: Sequence[Any] = ()

    def initial(self) -> Iterable[Any]:
        return [0]

    def actions(self, state: Any) -> Iterable[Any]:
        return ["one", "two"]

    def step(self, state: Any, action: Any) -> Any:
        after = state + (1 if action == "one" else 2)
        return after if after <= self.bound else None

    def properties(self) -> Sequence[Any]:
        return self.claims


@searches
def test_a_model_without_an_initial_state(options: dict[str, Any]) -> None:
    class Nowhere(Counter):
        def initial(self) -> Iterable[Any]:
            return []

    with pytest.raises(NoInitialState, match="counter has no initial state"):
        check(Nowhere(), **options)


@searches
def test_a_state_that_can_not_be_hashed_is_named_with_the_step_to_it(options: dict[str, Any]) -> None:
    class Listed(Counter):
        def step(self, state: Any, action: Any) -> Any:
            return [state] if state == 3 else super().step(state, action)

    with pytest.raises(UnhashableState) as caught:
        check(Listed(), **options)
    assert caught.value.state == [3]
    assert caught.value.action in ("one", "two")
    assert "[3]" in str(caught.value)


@searches
def test_an_initial_state_that_can_not_be_hashed_is_named(options: dict[str, Any]) -> None:
    class Listed(Counter):
        def initial(self) -> Iterable[Any]:
            return [[1]]

    with pytest.raises(UnhashableState) as caught:
        check(Listed(), **options)
    assert caught.value.state == [1]


def test_an_error_of_the_model_itself_is_passed_on() -> None:
    class Broken(Counter):
        def step(self, state: Any, action: Any) -> Any:
            return super().step("x" if state == 5 else state, action)

    with pytest.raises(TypeError, match="can only concatenate"):
        check(Broken())


@searches
@pytest.mark.parametrize("kind", [always, sometimes, can_always_reach, no_deadlock])
def test_a_property_that_raises_is_named_with_the_state(options: dict[str, Any], kind: Any) -> None:
    def raises(state: int) -> bool:
        if state == 10:
            raise RuntimeError("no idea")
        return kind is not sometimes

    model = Counter()
    model.claims = [kind("asked", raises)]
    with pytest.raises(PropertyRaised, match=r"'asked' raised RuntimeError\('no idea'\)") as caught:
        check(model, **options)
    assert caught.value.state == 10
    assert caught.value.action in ("one", "two")
    assert isinstance(caught.value.__cause__, RuntimeError)


@searches
def test_a_property_of_steps_that_raises_is_named_with_the_step(options: dict[str, Any]) -> None:
    def raises(before: int, action: str, after: int) -> bool:
        if before == 4:
            raise RuntimeError("no idea")
        return True

    model = Counter()
    model.claims = [always_step("asked", raises)]
    with pytest.raises(PropertyRaised) as caught:
        check(model, strategy=options.get("strategy", "breadth"), walks=500)
    assert (caught.value.state, caught.value.action) in ((4, "one"), (4, "two"))


@searches
def test_a_cause_or_effect_that_raises_is_named(options: dict[str, Any]) -> None:
    model = Counter()
    model.claims = [leads_to("asked", lambda _: True, lambda state: 1 // (10 - state) >= 0)]
    with pytest.raises(PropertyRaised) as caught:
        check(model, **options)
    assert caught.value.state == 10


def test_an_action_that_can_not_be_hashed_is_named_where_it_must_be_known_again() -> None:
    class Listed(Counter):
        def successors(self, state: Any) -> Any:
            return [([action], after) for action, after in super().successors(state)]

    assert check(Listed()).complete
    model = Listed()
    model.claims = [leads_to("end", lambda _: True, lambda state: state == 10)]
    with pytest.raises(ModelError, match="an action can't be hashed") as caught:
        check(model)
    assert caught.value.action == ["one"]


def test_a_kind_of_property_that_there_is_not_is_refused() -> None:
    model = Counter()
    model.claims = [always("x", lambda _: True)._replace(kind="maybe")]
    with pytest.raises(ValueError, match="'maybe'"):
        check(model)


def test_two_properties_of_one_name_are_refused() -> None:
    model = Counter()
    model.claims = [always("same", lambda _: True), sometimes("same", lambda _: True)]
    with pytest.raises(ValueError, match="same name: same, same"):
        check(model)


# ------------------------------------------------------------------------------------------------------- not repeatable


@searches
def test_chance_in_a_model_is_found_and_called_by_its_name(options: dict[str, Any]) -> None:
    class Chancy(Counter):
        def step(self, state: Any, action: Any) -> Any:
            return min(state + random.randrange(10), self.bound)

    with pytest.raises(NotRepeatable, match="chance") as caught:
        check(Chancy(), **options)
    assert caught.value.state is not None


def test_a_clock_in_a_model_is_found() -> None:
    class Timed(Counter):
        def step(self, state: Any, action: Any) -> Any:
            return time.perf_counter_ns()

    with pytest.raises(NotRepeatable, match="a clock"):
        check(Timed())


def test_a_model_that_remembers_is_found() -> None:
    class Remembers(Counter):
        ticket = itertools.count()

        def step(self, state: Any, action: Any) -> Any:
            return next(self.ticket)

    with pytest.raises(NotRepeatable, match="remembers"):
        check(Remembers())


def test_the_order_of_a_set_in_a_state_is_found() -> None:
    class InOrderOfASet(Model[Any, Any]):
        """0, 8 and 16 fall into the same place of a small set, so that their order is that in which they came."""

        def initial(self) -> Iterable[Any]:
            return [frozenset([0, 8, 16])]

        def actions(self, state: Any) -> Iterable[Any]:
            return list(state)

        def step(self, state: Any, action: Any) -> Any:
            return state - {action}

    with pytest.raises(NotRepeatable, match="the order of a set"):
        check(InOrderOfASet())


def test_an_identity_in_a_step_is_found() -> None:
    class ById(Model[Any, Any]):
        def initial(self) -> Iterable[Any]:
            return [(1000, 2000)]

        def actions(self, state: Any) -> Iterable[Any]:
            return ["swap"]

        def step(self, state: Any, action: Any) -> Any:
            return (id(state),)

    with pytest.raises(NotRepeatable, match=r"`id\(\)`"):
        check(ById())


def test_initial_states_by_chance_are_found() -> None:
    class Anywhere(Counter):
        def initial(self) -> Iterable[Any]:
            return [random.random()]

    with pytest.raises(NotRepeatable, match="initial states"):
        check(Anywhere())


@pytest.mark.parametrize("strategy", ["breadth", "depth", "walk"])
def test_chance_far_from_the_beginning_is_found_by_the_sample(strategy: str) -> None:
    class Late(Counter):
        bound = 3_000

        def step(self, state: Any, action: Any) -> Any:
            after = super().step(state, action)
            return min(after + random.randrange(2), self.bound) if after is not None and state > 2_000 else after

    with pytest.raises(NotRepeatable):
        check(Late(), strategy=strategy, max_depth=3_000 if strategy == "walk" else None)


def test_the_self_check_leaves_chance_outside_as_it_was() -> None:
    random.seed(5)
    before = random.getstate()
    check(Counter(), strategy="walk", seed=7)
    assert random.getstate() == before


# ------------------------------------------------------------------------------------------------------------- not decided


@pytest.mark.parametrize(
    ("options", "stopped_by"),
    [({"max_states": 5}, "max_states"), ({"max_depth": 2}, "max_depth"), ({"seconds": 0}, "seconds")],
)
@pytest.mark.parametrize("strategy", ["breadth", "depth"])
def test_a_bound_decides_nothing_but_failures_and_witnesses(
    options: dict[str, Any], stopped_by: str, strategy: str
) -> None:
    model = TwoPhaseCommit(5)
    report = check(model, strategy=strategy, **options)
    assert report.stopped_by == stopped_by
    assert report.outcome is Outcome.NOT_DECIDED
    assert report.verdict("consistent").outcome is Outcome.NOT_DECIDED
    assert stopped_by in report.verdict("consistent").why


def test_a_bound_that_is_just_reached_ends_nothing() -> None:
    assert check(Counter(), max_states=11).complete
    assert check(Counter(), max_states=10).stopped_by == "max_states"


def test_a_model_without_properties_holds_when_all_of_it_was_seen() -> None:
    assert check(Counter()).outcome is Outcome.HOLDS
    assert check(Counter(), max_states=3).outcome is Outcome.NOT_DECIDED


def test_the_first_failure_ends_the_search_if_that_is_wanted() -> None:
    model = Counter()
    model.bound = 10_000
    model.claims = [always("small", lambda state: state < 5), sometimes("large", lambda state: state == 10_000)]
    report = check(model, stop_at_first=True)
    assert report.stopped_by == "failure"
    assert report.states < 10_000
    assert report.verdict("large").outcome is Outcome.NOT_DECIDED
    whole = check(model)
    assert whole.verdict("large").outcome is Outcome.HOLDS
    assert whole.verdict("small").path == report.verdict("small").path


def test_the_search_ends_when_nothing_more_can_be_learned() -> None:
    model = Counter()
    model.bound = 100_000
    model.claims = [always("small", lambda state: state < 5)]
    report = check(model)
    assert (report.stopped_by, report.complete) == ("failure", False)
    assert report.states < 10_000


@searches
def test_an_interrupted_check_reports_what_it_knows(options: dict[str, Any]) -> None:
    class Interrupted(Counter):
        bound = 100_000

        def step(self, state: Any, action: Any) -> Any:
            if state == 200:
                raise KeyboardInterrupt
            return super().step(state, action)

    model = Interrupted()
    model.claims = [
        always("small", lambda state: state < 5),
        sometimes("seven", lambda state: state == 7),
        always("fine", lambda state: state >= 0),
        can_always_reach("end", lambda state: state == 100_000),
    ]
    report = check(model, max_depth=2_000 if "strategy" in options else None, **options)
    assert report.stopped_by == "interrupted"
    assert not report.complete
    assert report.verdict("small").outcome is Outcome.FAILS
    assert report.verdict("seven").outcome in (Outcome.HOLDS, Outcome.NOT_DECIDED)
    assert report.verdict("fine").outcome is Outcome.NOT_DECIDED
    assert report.verdict("end").outcome is Outcome.NOT_DECIDED


@searches
def test_progress_is_told_while_a_check_goes_on(options: dict[str, Any]) -> None:
    class Slow(Counter):
        bound = 40

        def step(self, state: Any, action: Any) -> Any:
            time.sleep(0.005)
            return super().step(state, action)

    told: list[Progress] = []
    report = check(Slow(), progress=told.append, walks=5, **options)
    assert told
    assert all(one.states <= two.states for one, two in itertools.pairwise(told))
    assert told[-1].states <= report.states
    assert told[-1].seconds <= report.seconds
    assert any(one.rate > 0 for one in told)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"strategy": "best"}, "strategy is one of"),
        ({"visited": "none"}, "visited is one of"),
        ({"max_states": 0}, "max_states is at least 1"),
        ({"max_depth": -1}, "max_depth is at least 0"),
        ({"workers": 0}, "workers is at least 1"),
        ({"walks": 0}, "walks is at least 1"),
        ({"workers": 2, "strategy": "depth"}, "several workers"),
    ],
)
def test_options_that_can_not_be_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check(Counter(), **options)


def test_the_report_says_how_it_was_searched() -> None:
    report = check(Drawn({0: [("a", 1)], 1: []}), visited="fingerprint", max_states=10)
    assert report.configuration["visited"] == "fingerprint"
    assert report.configuration["max_states"] == 10
    bound = next(value for name, value in report.configuration.items() if "probability" in name)
    assert bound == pytest.approx(2 * 1 / 2 / 2**64)


# ------------------------------------------------------------------------------------------------------------- doubts


class Doubtful(Counter):
    """Says of its properties that they were about nothing."""

    claims = (always("good", lambda state: state >= 0), always("bad", lambda state: state < 5), sometimes("at", bool))

    def doubts(self) -> dict[str, str]:
        return dict.fromkeys(["good", "bad", "at"], "there is no such thing")


@pytest.mark.parametrize("options", [{}, {"strategy": "depth"}, {"workers": 2}], ids=str)
def test_a_property_that_was_about_nothing_is_not_decided_though_every_state_was_seen(options: dict[str, Any]) -> None:
    report = check(Doubtful(), **options)

    assert report.complete
    said = {verdict.name: (verdict.outcome, verdict.why, verdict.path is None) for verdict in report.verdicts}
    assert said == {
        "good": (Outcome.NOT_DECIDED, "there is no such thing", True),
        "bad": (Outcome.FAILS, "the last state breaks it; and there is no such thing", False),
        "at": (Outcome.NOT_DECIDED, "there is no such thing", True),
    }


def test_what_was_not_met_in_a_part_of_the_states_is_no_doubt() -> None:
    report = check(Doubtful(), max_states=8)

    assert report.verdict("at").outcome is Outcome.HOLDS
    assert report.verdict("bad").why == "the last state breaks it"


@searches
def test_a_model_that_finds_its_states_not_to_be_trusted_is_no_model(options: dict[str, Any]) -> None:
    class Spoilt(Counter):
        def doubts(self) -> dict[str, str]:
            raise NotRepeatable("a value was changed")

    with pytest.raises(NotRepeatable, match="a value was changed"):
        check(Spoilt(), **options)
