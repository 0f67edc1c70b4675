"""The graphs on which simpler searches go wrong: circles, joins, and who is treated fairly."""

from typing import Any

import pytest

from machines.checker import Outcome, Verdict, can_always_reach, check, leads_to, no_deadlock
from tests.machines.checker.examples.graphs import Drawn, Steps

LEADS = leads_to("from 1 to 9", lambda state: state == 1, lambda state: state == 9)


def verdict(steps: Steps, claim: Any = LEADS, **options: Any) -> Verdict:
    return check(Drawn(steps, [claim]), **options).verdicts[0]


def test_a_circle_without_the_effect_is_shown_as_a_lasso() -> None:
    found = verdict({0: [("a", 1)], 1: [("b", 2)], 2: [("c", 1)]})
    assert found.outcome is Outcome.FAILS
    assert found.path is not None
    assert found.path.actions == ("a", "b", "c")
    assert found.path.loop == 1
    assert found.path.last == found.path.steps[0].state


def test_a_run_that_ends_without_the_effect_is_shown_as_a_path() -> None:
    found = verdict({0: [("a", 1)], 1: [("b", 2)], 2: []})
    assert found.outcome is Outcome.FAILS
    assert found.path is not None
    assert (found.path.actions, found.path.loop) == (("a", "b"), None)


def test_a_lasso_through_a_join_is_found() -> None:
    """State 3 is first met on the way by 9, where the effect was already seen: a bit kept for each path would be lost there."""
    found = verdict(
        {0: [("a", 9), ("b", 1)], 9: [("a", 3)], 1: [("a", 2)], 2: [("a", 3)], 3: [("a", 4)], 4: [("a", 3)]}
    )
    assert found.outcome is Outcome.FAILS
    assert found.path is not None
    assert [step.state for step in found.path.steps] == [1, 2, 3, 4, 3]


def test_the_run_that_is_shown_is_the_one_that_fails_first() -> None:
    """State 5, where the cause is and the run ends, is farther away than what comes of the cause at 1."""
    causes = leads_to("never", lambda state: state in (1, 5), lambda _: False)
    found = verdict({0: [("a", 1), ("b", 3)], 1: [("a", 2)], 2: [], 3: [("a", 4)], 4: [("a", 5)], 5: []}, causes)
    assert found.path is not None
    assert [step.state for step in found.path.steps] == [1, 2]


def test_an_effect_before_the_cause_does_not_count_and_one_at_the_cause_does() -> None:
    assert verdict({0: [("a", 9)], 9: [("a", 1)], 1: []}).outcome is Outcome.FAILS
    at_once = leads_to("at once", lambda state: state == 1, lambda state: state == 1)
    assert verdict({0: [("a", 1)], 1: []}, at_once).outcome is Outcome.HOLDS


def test_a_fair_action_that_stays_enabled_is_taken_in_the_end() -> None:
    assert verdict({0: [("a", 1)], 1: [("b", 1), ("c", 9)], 9: []}).outcome is Outcome.HOLDS


def test_an_action_that_is_not_fair_may_never_be_taken() -> None:
    assert verdict({0: [("a", 1)], 1: [("b", 1), ("X", 9)], 9: []}).outcome is Outcome.FAILS


def test_an_action_that_is_enabled_only_now_and_then_may_never_be_taken() -> None:
    """Weak fairness: strong fairness would take c."""
    found = verdict({0: [("a", 1)], 1: [("b", 2), ("c", 9)], 2: [("b", 1)], 9: []})
    assert found.outcome is Outcome.FAILS


def test_a_strongly_fair_action_is_taken_if_it_is_enabled_now_and_then() -> None:
    assert verdict({0: [("a", 1)], 1: [("b", 2), ("S", 9)], 2: [("b", 1)], 9: []}).outcome is Outcome.HOLDS
    avoided = verdict({0: [("a", 1)], 1: [("b", 2), ("S", 9)], 2: [("b", 1), ("X", 3)], 3: [("b", 3)], 9: []})
    assert avoided.path is not None
    assert [step.state for step in avoided.path.steps] == [1, 2, 3, 3]


@pytest.mark.parametrize("fair", "aS")
@pytest.mark.parametrize("options", [{}, {"visited": "fingerprint"}, {"strategy": "depth"}, {"workers": 2}])
def test_an_action_that_is_begun_anew_for_ever_need_never_be_taken(fair: str, options: dict[str, Any]) -> None:
    """R renews it in state 2; X, which goes the same way, does not."""
    found = verdict({0: [("a", 1)], 1: [("b", 2), (fair, 9)], 2: [("R", 1), (fair, 9)], 9: []}, **options)
    assert found.outcome is Outcome.FAILS
    assert found.path is not None
    assert [step.state for step in found.path.steps] == [1, 2, 1]
    assert found.path.actions == ("a", "b", "R")
    kept: Steps = {0: [("a", 1)], 1: [("b", 2), (fair, 9)], 2: [("X", 1), (fair, 9)], 9: []}
    assert verdict(kept, **options).outcome is Outcome.HOLDS


def test_what_renews_depends_on_the_state() -> None:
    """In state 3 it is another action that R renews."""
    steps: Steps = {0: [("a", 1)], 1: [("b", 3), ("S", 9)], 3: [("R", 1), ("b", 1)], 9: []}
    assert verdict(steps).outcome is Outcome.HOLDS


def test_the_lasso_is_led_through_the_step_that_renews() -> None:
    """Going round 1 and 5 alone is not fair, since S is enabled there; the way round by 2 renews it."""
    found = verdict({0: [("a", 1)], 1: [("X", 5), ("X", 2), ("S", 9)], 5: [("X", 1)], 2: [("R", 1)], 9: []})
    assert found.outcome is Outcome.FAILS
    assert found.path is not None
    assert found.path.loop is not None
    assert "R" in found.path.actions[found.path.loop :]


def test_the_lasso_goes_through_what_makes_it_fair() -> None:
    """Going round 1 and 2 alone is not fair, since c is enabled in both; in 3 it is not."""
    steps: Steps = {0: [("a", 1)], 1: [("b", 2), ("c", 9)], 2: [("b", 1), ("a", 3), ("c", 9)], 3: [("a", 1)], 9: []}
    found = verdict(steps)
    assert found.outcome is Outcome.FAILS
    assert found.path is not None
    assert found.path.loop is not None
    assert 3 in [step.state for step in found.path.steps[found.path.loop :]]


def test_the_lasso_takes_what_is_enabled_everywhere_even_if_it_leads_nowhere_new() -> None:
    found = verdict({0: [("a", 1)], 1: [("b", 2), ("c", 1)], 2: [("b", 1), ("c", 2)]})
    assert found.outcome is Outcome.FAILS
    assert found.path is not None
    assert found.path.loop is not None
    assert {"b", "c"} == set(found.path.actions[found.path.loop :]) or len(found.path.steps) == found.path.loop + 1


def test_a_circle_that_can_be_left_is_no_wedge_and_one_that_can_not_is() -> None:
    home = can_always_reach("home", lambda state: state == 0)
    assert verdict({0: [("a", 1)], 1: [("a", 2)], 2: [("a", 1), ("b", 0)]}, home).outcome is Outcome.HOLDS
    lost = verdict({0: [("a", 1), ("b", 3)], 1: [("a", 0)], 3: [("a", 4)], 4: [("a", 3)]}, home)
    assert lost.outcome is Outcome.FAILS
    assert lost.path is not None
    assert lost.path.last == 3


def test_a_goal_that_no_run_reaches_is_a_wedge_from_the_beginning() -> None:
    lost = verdict({0: [("a", 0)]}, can_always_reach("nowhere", lambda state: state == 7))
    assert lost.path is not None
    assert lost.path.steps == ()


def test_a_deadlock_is_a_state_without_actions_where_a_run_may_not_end() -> None:
    steps: Steps = {0: [("a", 1), ("b", 2)], 1: [], 2: [("a", 3)], 3: []}
    assert verdict(steps, no_deadlock("ends", lambda state: state in (1, 3))).outcome is Outcome.HOLDS
    found = verdict(steps, no_deadlock("ends at 1", lambda state: state == 1))
    assert found.outcome is Outcome.FAILS
    assert found.path is not None
    assert found.path.last == 3


@pytest.mark.parametrize("options", [{"max_depth": 3}, {"max_states": 6}, {"strategy": "depth", "max_depth": 3}])
def test_a_search_that_was_cut_off_shows_only_what_lies_wholly_inside(options: dict[str, Any]) -> None:
    """A way home leads from the states that were not seen; the circle of 1 and 2 is seen whole."""
    long: Steps = {state: [("a", state + 1)] for state in range(1, 20)} | {0: [("a", 1)], 20: [("a", 0)]}
    home = can_always_reach("home", lambda state: state == 0)
    assert verdict(long, home, **options).outcome is Outcome.NOT_DECIDED
    assert verdict(long, **options).outcome is Outcome.NOT_DECIDED
    circle: Steps = {**long, 0: [("a", 1), ("b", 3)], 1: [("a", 2)], 2: [("a", 1)]}
    assert verdict(circle, **options).outcome is Outcome.FAILS
    assert verdict(circle, home, **options).outcome is Outcome.FAILS


def test_a_long_chain_is_no_deeper_than_the_stack() -> None:
    size = 20_000
    steps: Steps = {state: [("a", state + 1)] for state in range(size)} | {size: [("a", 10)]}
    report = check(Drawn(steps, [LEADS, can_always_reach("end", lambda state: state == size)]))
    assert [one.outcome for one in report.verdicts] == [Outcome.HOLDS, Outcome.HOLDS]
    late = leads_to("late", lambda state: state == 10, lambda state: False)
    found = verdict(steps, late)
    assert found.path is not None
    assert len(found.path.steps) - (found.path.loop or 0) == size - 9
