"""A run again, and a shorter one."""

from collections.abc import Sequence

import pytest

from machines.checker import NotRepeatable, Outcome, Path, Property, always, check, minimise, replay, replay_actions
from machines.checker.choices import choices
from tests.machines.checker.examples.graphs import Drawn
from tests.machines.checker.examples.two_phase_commit import ABORTED, COMMITTED, TwoPhaseCommit

FORK = Drawn({0: [("a", 1), ("b", 2)], 1: [("a", 1), ("c", 2)], 2: []}, initial=[0, 1])


def test_a_run_is_replayed_from_the_places_of_what_was_taken() -> None:
    path = replay(FORK, [0, 0, 0, 1])
    assert [(step.action, step.state) for step in path.steps] == [("a", 1), ("a", 1), ("c", 2)]
    assert replay(FORK, [1]) == Path(1)
    assert choices(FORK, path) == (0, 0, 0, 1)


@pytest.mark.parametrize(
    ("places", "text"),
    [([2], "no initial state 2"), ([0, 2], "step 1 takes action 2, and 2 are enabled"), ([0, 1, 0], "step 2")],
)
def test_a_place_that_there_is_not_is_named(places: list[int], text: str) -> None:
    with pytest.raises(NotRepeatable, match=text):
        replay(FORK, places)


def test_a_run_has_a_beginning() -> None:
    with pytest.raises(ValueError, match="choices is empty"):
        replay(FORK, [])


def test_a_run_is_replayed_from_its_actions_or_their_labels() -> None:
    model = TwoPhaseCommit(2)
    path = check(model).verdict("all commit").path
    assert path is not None
    assert replay_actions(model, path.actions) == path
    assert replay_actions(model, [model.label(action) for action in path.actions], by_label=True) == path
    assert replay_actions(FORK, ["c"], initial=1).last == 2


def test_an_action_that_is_not_enabled_is_named() -> None:
    with pytest.raises(NotRepeatable, match="step 2 is not enabled") as caught:
        replay_actions(FORK, ["a", "b"])
    assert (caught.value.state, caught.value.action) == (1, "b")


def test_a_run_is_made_shorter_until_nothing_can_be_left_out() -> None:
    model = TwoPhaseCommit(3)
    long = replay_actions(
        model,
        [
            ("prepare", 1),
            ("prepare", 0),
            ("told", 1),
            ("told", 1),
            ("abort", -1),
            ("give up", 2),
            ("hear abort", 1),
            ("hear abort", 2),
        ],
    )
    short = minimise(model, long, lambda path: path.last[0].count(ABORTED) == 2)
    assert short.actions == (("abort", -1), ("give up", 2), ("hear abort", 1))
    assert replay_actions(model, short.actions) == short


def test_a_run_that_goes_in_circles_goes_straight() -> None:
    path = replay_actions(FORK, ["a", "a", "a", "c"])
    assert minimise(FORK, path, lambda run: run.last == 2).actions == ("a", "c")


def test_a_walk_reports_a_run_from_which_nothing_can_be_left_out() -> None:
    class Careless(TwoPhaseCommit):
        def properties(self) -> Sequence[Property]:
            return [always("nobody commits", lambda state: COMMITTED not in state[0])]

    report = check(Careless(3), strategy="walk", walks=300)
    verdict = report.verdict("nobody commits")
    assert verdict.outcome is Outcome.FAILS
    assert report.stopped_by == "failure"
    assert verdict.path is not None
    assert len(verdict.path.steps) == 8
    assert verdict.path.last[0].count(COMMITTED) == 1


def test_the_seed_decides_the_walks() -> None:
    model = TwoPhaseCommit(4)
    one, same, other = (check(model, strategy="walk", seed=seed, walks=3, max_depth=10) for seed in (1, 1, 2))
    assert (one.states, one.verdicts) == (same.states, same.verdicts)
    assert one.states != other.states or one.verdicts != other.verdicts


class Racing(Drawn):
    """Two processes of twenty steps each, which share nothing; the state is the steps of the one by 100 and of the other."""

    size = 20

    def __init__(self, claim: Property) -> None:
        def steps(one: int, two: int) -> list[tuple[str, int]]:
            first = [(f"a{one}", (one + 1) * 100 + two)] if one < self.size else []
            return first + ([(f"b{two}", one * 100 + two + 1)] if two < self.size else [])

        every = range(self.size + 1)
        super().__init__({one * 100 + two: steps(one, two) for one in every for two in every}, [claim])

    def owner(self, action: str) -> str:
        return action[0]


def test_priorities_find_an_order_that_a_uniform_walk_hardly_does() -> None:
    """One process must take all its steps before the other takes its first: 1 in 2^20 for a uniform walk."""
    model = Racing(always("b is not that late", lambda state: state != 2_000))
    assert check(model, strategy="pct", walks=50, change_points=1).outcome is Outcome.FAILS
    assert check(model, strategy="walk", walks=50).outcome is Outcome.NOT_DECIDED


def test_priorities_change_in_the_middle_of_a_run() -> None:
    """One process must stop half way, and the other have come half way then."""
    model = Racing(always("a is not overtaken", lambda state: state != 1_010))
    assert check(model, strategy="pct", walks=300, change_points=1).outcome is Outcome.FAILS
    assert check(model, strategy="pct", walks=300, change_points=0).outcome is Outcome.NOT_DECIDED
