"""Every strategy says of a drawn graph what is found out about it the long way."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machines.checker import (
    Model,
    Outcome,
    Path,
    Report,
    always,
    always_step,
    can_always_reach,
    check,
    leads_to,
    no_deadlock,
    sometimes,
)
from machines.checker.on_path import holds_on
from tests.machines.checker.examples.graphs import Drawn, Steps, graphs, has_unfair_end, reachable, wedged

SEARCHES: list[dict[str, Any]] = [
    {},
    {"strategy": "depth"},
    {"strategy": "depth", "max_depth": 50},
    {"visited": "fingerprint"},
    {"workers": 1, "self_check": False},
]
searches = pytest.mark.parametrize("options", SEARCHES, ids=str)
some_states = st.frozensets(st.integers(0, 5))


def assert_outcome(report: Report, name: str, *, holds: bool, model: Model[Any, Any]) -> Path | None:
    """The verdict, and that its path is one of the model that breaks the property by itself."""
    verdict = report.verdict(name)
    assert verdict.outcome is (Outcome.HOLDS if holds else Outcome.FAILS)
    if not holds and verdict.kind != "sometimes":
        assert verdict.path is not None
        assert_is_run(model, verdict.path)
        assert not holds_on(model, name, verdict.path)
    return verdict.path


def assert_is_run(model: Model[Any, Any], path: Path) -> None:
    assert path.initial in model.initial()
    before = path.initial
    for action, after in path.steps:
        assert (action, after) in model.successors(before)
        before = after


@searches
@given(graphs(), some_states, some_states)
@settings(max_examples=60)
def test_properties_of_states_are_decided_and_their_paths_are_shortest(
    options: dict[str, Any], steps: Steps, bad: frozenset[int], wanted: frozenset[int]
) -> None:
    model = Drawn(steps)
    model.claims = [
        always("never", lambda state: state not in bad),
        sometimes("once", lambda state: state in wanted),
        no_deadlock("goes on", lambda state: state in wanted),
    ]
    far = reachable(steps)
    report = check(model, **options)
    ends = {state for state in far if not steps[state] and state not in wanted}
    never = assert_outcome(report, "never", holds=not bad & set(far), model=model)
    once = assert_outcome(report, "once", holds=bool(wanted & set(far)), model=model)
    stuck = assert_outcome(report, "goes on", holds=not ends, model=model)
    if report.complete:
        assert report.states == len(far)
        assert report.transitions == sum(len(steps[state]) for state in far)
    if "strategy" not in options:
        assert report.depth == max(far.values()) or not report.complete
        for path, states in ((never, bad), (once, wanted), (stuck, ends)):
            if path is not None:
                assert len(path.steps) == min(far[state] for state in states if state in far)


@searches
@given(graphs(), st.sets(st.tuples(st.integers(0, 5), st.sampled_from("abXSR"))))
@settings(max_examples=60)
def test_properties_of_steps_see_every_step_also_to_known_states(
    options: dict[str, Any], steps: Steps, bad: set[tuple[int, str]]
) -> None:
    model = Drawn(steps)
    model.claims = [always_step("no such step", lambda before, action, after: (before, action) not in bad)]
    far = reachable(steps)
    broken = [far[state] + 1 for state in far for action, _ in steps[state] if (state, action) in bad]
    path = assert_outcome(check(model, **options), "no such step", holds=not broken, model=model)
    if path is not None and "strategy" not in options:
        assert len(path.steps) == min(broken)


@searches
@given(graphs(), some_states)
@settings(max_examples=60)
def test_a_goal_stays_within_reach_or_the_nearest_wedge_is_shown(
    options: dict[str, Any], steps: Steps, goals: frozenset[int]
) -> None:
    model = Drawn(steps)
    model.claims = [can_always_reach("goal", lambda state: state in goals)]
    lost = wedged(steps, lambda state: state in goals)
    path = assert_outcome(check(model, **options), "goal", holds=not lost, model=model)
    if path is not None:
        assert len(path.steps) == min(reachable(steps)[state] for state in lost)


@searches
@given(graphs(), some_states, some_states)
@settings(max_examples=150)
def test_a_cause_leads_to_its_effect_on_every_fair_run_or_one_is_shown_that_does_not(
    options: dict[str, Any], steps: Steps, causes: frozenset[int], effects: frozenset[int]
) -> None:
    model = Drawn(steps)
    model.claims = [leads_to("effect", lambda state: state in causes, lambda state: state in effects)]
    fails = has_unfair_end(steps, lambda state: state in causes, lambda state: state in effects)
    assert_outcome(check(model, **options), "effect", holds=not fails, model=model)


@given(graphs(), some_states, some_states, st.integers(1, 6), st.integers(0, 5), st.sampled_from(["breadth", "depth"]))
@settings(max_examples=300)
def test_a_search_that_ends_early_never_says_that_a_property_holds_and_its_failures_are_real(
    steps: Steps, one: frozenset[int], two: frozenset[int], states: int, depth: int, strategy: str
) -> None:
    model = Drawn(steps)
    model.claims = [
        always("never", lambda state: state not in one),
        can_always_reach("goal", lambda state: state in two),
        leads_to("effect", lambda state: state in one, lambda state: state in two),
        no_deadlock("goes on"),
        sometimes("once", lambda state: state in one and state in two),
    ]
    whole = check(model)
    part = check(model, strategy=strategy, max_states=states, max_depth=depth)
    far = reachable(steps)
    assert part.states <= min(states, len(far))
    for verdict in part.verdicts:
        if verdict.outcome is not Outcome.NOT_DECIDED:
            assert verdict.outcome is whole.verdict(verdict.name).outcome
        if verdict.outcome is Outcome.FAILS and verdict.path is not None:
            assert_is_run(model, verdict.path)
            assert not holds_on(model, verdict.name, verdict.path)
    if part.stopped_by in ("max_states", "max_depth"):
        assert part.outcome is not Outcome.HOLDS
        assert not part.complete
    if part.stopped_by == "max_states":
        assert part.states == states
    if part.complete:
        assert part.states == len(far)


@given(graphs(), st.integers(0, 5))
@settings(max_examples=100)
def test_a_search_with_a_bound_sees_all_that_is_that_near(steps: Steps, bound: int) -> None:
    far = reachable(steps).values()
    for strategy in ("breadth", "depth"):
        report = check(Drawn(steps), strategy=strategy, max_depth=bound)
        assert report.states == sum(distance <= bound for distance in far)
        assert report.complete == (bound > max(far))


def test_depth_first_goes_again_through_a_state_that_it_first_met_too_deep() -> None:
    """State 3 is met at the bound by way of 1 and 2, and nearer by way of 5."""
    steps: Steps = {0: [("a", 1), ("b", 5)], 1: [("a", 2)], 2: [("a", 3)], 3: [("a", 4)], 4: [], 5: [("a", 3)]}
    model = Drawn(steps, [always("never 4", lambda state: state != 4)])
    path = check(model, strategy="depth", max_depth=3).verdict("never 4").path
    assert path is not None
    assert [step.state for step in path.steps] == [5, 3, 4]
    steps[3] = [("a", 0)]
    assert check(Drawn(steps), strategy="depth", max_depth=3).complete


@pytest.mark.parametrize("strategy", ["walk", "pct"])
@given(graphs(), some_states, some_states, st.integers(0, 3))
@settings(max_examples=60)
def test_a_walk_decides_only_what_is_so(
    strategy: str, steps: Steps, one: frozenset[int], two: frozenset[int], seed: int
) -> None:
    model = Drawn(steps)
    model.claims = [
        always("never", lambda state: state not in one),
        sometimes("once", lambda state: state in two),
        can_always_reach("goal", lambda state: state in two),
        leads_to("effect", lambda state: state in one, lambda state: state in two),
        no_deadlock("goes on"),
        always_step("no such step", lambda before, action, after: before not in one or after not in two),
    ]
    whole = check(model)
    drawn = check(model, strategy=strategy, seed=seed, walks=5, max_depth=20)
    assert drawn.verdicts == check(model, strategy=strategy, seed=seed, walks=5, max_depth=20).verdicts
    assert drawn.outcome is not Outcome.HOLDS
    for verdict in drawn.verdicts:
        if verdict.outcome is not Outcome.NOT_DECIDED:
            assert verdict.outcome is whole.verdict(verdict.name).outcome
            assert verdict.path is not None
            assert_is_run(model, verdict.path)
            assert holds_on(model, verdict.name, verdict.path) == (verdict.outcome is Outcome.HOLDS)
