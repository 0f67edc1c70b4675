"""Reductions give fewer states and the same verdicts, or refuse."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings

from machines.checker import (
    Model,
    ModelError,
    NotIndependent,
    NotSymmetric,
    Outcome,
    Property,
    always,
    always_step,
    can_always_reach,
    check,
    leads_to,
    no_deadlock,
    replay_actions,
    sometimes,
)
from machines.checker.comparison import compare, false_independence
from tests.machines.checker.examples.processes import Processes, Program, programs, shared_is
from tests.machines.checker.examples.two_phase_commit import ABORTED, State, TwoPhaseCommit

LOCAL: Program = (("own", 1), ("own", 1), ("own", 2))


# ------------------------------------------------------------------------------------------------- partial-order reduction


def test_what_processes_do_on_their_own_is_followed_in_one_order() -> None:
    model = Processes([LOCAL] * 4)
    assert check(model).states == 4**4
    assert check(model, reduction=True).states == 4 * 3 + 1


@given(programs)
@settings(max_examples=300)
def test_partial_order_reduction_changes_no_verdict(drawn: list[Program]) -> None:
    model = Processes(
        drawn,
        [
            always("never two", lambda state: state[2] != 2),
            sometimes("one", shared_is(1)),
            can_always_reach("two stays possible", shared_is(2)),
            no_deadlock("ends at nought", shared_is(0)),
        ],
    )
    assert not compare(model, reduction=True).differences
    assert false_independence(model) is None


def test_an_action_that_goes_round_does_not_put_others_off_for_ever() -> None:
    model = Processes([(("jump", 0),), (("add", 1),)], [sometimes("one", shared_is(1))])
    assert check(model, reduction=True).outcome is Outcome.HOLDS


def test_an_action_is_followed_alone_only_if_it_is_independent_of_every_other() -> None:
    """If the second process counts first, the first one waits in vain."""
    waits = Processes(
        [(("wait", 0), ("own", 1)), (("add", 1),)], [sometimes("goes on", lambda state: state[1][0] == 1)]
    )
    counts = Processes(waits.programs[::-1], [sometimes("goes on", lambda state: state[1][1] == 1)])
    assert check(waits, reduction=True).outcome is Outcome.HOLDS
    assert check(counts, reduction=True).outcome is Outcome.HOLDS


def test_both_self_tests_find_that_a_property_sees_what_was_called_independent() -> None:
    model = Processes([(("own", 1),), (("own", 1),)], [sometimes("only the first", lambda state: state[1] == (1, 0))])
    claim = false_independence(model)
    assert claim is not None
    assert claim.why == "a property sees the first one"
    assert compare(model, reduction=True).differences == ("only the first: holds in full, fails reduced",)


def test_the_self_tests_name_what_is_wrongly_called_independent() -> None:
    """One waits for nought; if the other counts first, it waits in vain."""
    dishonest = Processes(
        [(("add", 1),), (("wait", 0), ("own", 1))], [no_deadlock("all end", lambda s: s[0] == (1, 2))], honest=False
    )
    claim = false_independence(dishonest)
    assert claim is not None
    assert "disables" in claim.why
    assert (claim.action, claim.other) == ((0, 0), (1, 0))


def test_the_comparison_finds_a_verdict_that_a_false_claim_changed() -> None:
    """What `other` enables later does not commute with the action: no pair of enabled actions shows it."""
    dishonest = Processes(
        [(("add", 1), ("add", 2)), (("own", 1), ("wait", 0), ("own", 1))],
        [sometimes("goes on before one", lambda state: state[0] == (0, 2))],
        honest=False,
    )
    compared = compare(dishonest, reduction=True)
    assert compared.full.outcome is Outcome.HOLDS
    assert compared.differences == ("goes on before one: holds in full, fails reduced",)


@pytest.mark.parametrize(
    "claim",
    [leads_to("a", shared_is(0), shared_is(1)), always_step("b", lambda *_: True)],
    ids=lambda claim: claim.kind,
)
def test_partial_order_reduction_is_refused_for_what_it_does_not_preserve(claim: Property) -> None:
    with pytest.raises(ValueError, match=f"partial-order reduction does not preserve {claim.kind}"):
        check(Processes([LOCAL], [claim]), reduction=True)


# ---------------------------------------------------------------------------------------------------------------- symmetry


class Commit(TwoPhaseCommit):
    """With properties of every kind that symmetry preserves."""

    def properties(self) -> Sequence[Property]:
        return [
            *super().properties(),
            always("never two aborted", lambda state: state[0].count(ABORTED) < 2),
            can_always_reach("agreement", lambda state: len(set(state[0])) == 1),
            no_deadlock("goes on"),
            always_step("aborts one at a time", lambda before, _, after: after[0].count(ABORTED) < 2),
        ]


def test_symmetry_changes_no_verdict_and_its_paths_are_of_the_model() -> None:
    model = Commit(3)
    compared = compare(model, symmetry=True)
    assert not compared.differences
    assert compared.reduced.states < compared.full.states
    for verdict, other in zip(compared.full.verdicts, compared.reduced.verdicts, strict=True):
        if verdict.path is not None:
            assert other.path is not None
            assert replay_actions(model, other.path.actions) == other.path
            assert len(other.path.steps) == len(verdict.path.steps)


def test_symmetry_and_fingerprints_go_together() -> None:
    report = check(TwoPhaseCommit(3), symmetry=True, visited="fingerprint")
    assert report.states == 80
    assert report.outcome is Outcome.HOLDS


def test_symmetry_is_refused_for_fairness_which_it_does_not_preserve() -> None:
    class Fair(TwoPhaseCommit):
        def properties(self) -> Sequence[Property]:
            return [leads_to("ends", lambda _: True, lambda state: ABORTED in state[0])]

    with pytest.raises(ValueError, match="symmetry does not preserve leads_to"):
        check(Fair(3), symmetry=True)


def test_a_property_that_tells_symmetric_states_apart_is_named() -> None:
    class Partial(TwoPhaseCommit):
        def properties(self) -> Sequence[Property]:
            return [always("the first never aborts", lambda state: state[0][0] != ABORTED)]

    with pytest.raises(ModelError, match="'the first never aborts' tells a state from its canonical form"):
        check(Partial(2), symmetry=True)


def test_a_canonical_form_that_is_none_is_named() -> None:
    class Turning(TwoPhaseCommit):
        def canonical(self, state: State) -> State:
            return (state[0][1:] + state[0][:1], *state[1:])

    with pytest.raises(ModelError, match="the canonical form has another canonical form"):
        check(Turning(3), symmetry=True)


def test_a_canonical_form_that_puts_different_states_together_is_found_by_comparing() -> None:
    class Rough(TwoPhaseCommit):
        """It sorts the managers and forgets who it was that said what."""

        def canonical(self, state: State) -> State:
            return tuple(sorted(state[0])), state[1], tuple(sorted(state[2])), frozenset(x for x in state[3] if x < 0)

    compared = compare(Rough(3), symmetry=True)
    assert compared.differences
    with pytest.raises(NotSymmetric):
        check(Rough(3), symmetry=True)


class Desk(Model[Any, Any]):
    """Two clients ask, are put into a queue by their numbers, and the first in it is served, unless it was before: then the
    desk is shut. Sorting the clients is a symmetry only with the numbers in the queue sorted with them.

    A state: how often each client has asked, the queue, who was served, and whether it is open.
    """

    def initial(self) -> Sequence[Any]:
        return [((0, 0), (), (), True)]

    def successors(self, state: Any) -> Sequence[tuple[Any, Any]]:
        asked, queue, served, open_ = state
        found: list[tuple[Any, Any]] = []
        for at in range(2 if open_ else 0):
            if asked[at] <= at:  # the second one may ask twice
                more = tuple([times + (place == at) for place, times in enumerate(asked)])
                found.append((f"{at} asks", (more, (*queue, at), served, open_)))
        if queue and open_:
            found.append(("serve", (asked, queue[1:], (*served, queue[0]), queue[0] not in served)))
        return found

    def canonical(self, state: Any) -> Any:
        asked, queue, served, open_ = state
        return tuple(sorted(asked)), queue, served, open_

    def properties(self) -> Sequence[Property]:
        return [always("open", lambda state: state[3])]


@pytest.mark.parametrize("options", [{}, {"strategy": "depth"}, {"visited": "fingerprint"}, {"workers": 2}], ids=str)
def test_a_canonical_form_that_forgets_who_waits_in_a_queue_is_refused_with_the_pair(options: dict[str, Any]) -> None:
    """In full the desk is shut: the second client asks twice. The canonical form makes two of it that ask once."""
    model = Desk()
    assert check(model).outcome is Outcome.FAILS
    with pytest.raises(NotSymmetric, match="do not go on alike") as caught:
        check(model, symmetry=True, **options)
    state, other = caught.value.state, caught.value.other
    assert model.canonical(state) == other != state
    reached, from_other = ({model.canonical(after) for _, after in model.successors(of)} for of in (state, other))
    assert reached != from_other
    assert caught.value.action in {action for of in (state, other) for action, _ in model.successors(of)}
    assert all(repr(one) in str(caught.value) for one in (state, other, caught.value.action))


def test_a_beginning_that_is_not_like_its_canonical_form_is_refused() -> None:
    class Late(Desk):
        def initial(self) -> Sequence[Any]:
            return [((1, 0), (0,), (), True)]

    with pytest.raises(NotSymmetric) as caught:
        check(Late(), symmetry=True)
    assert caught.value.state == Late().initial()[0]


def test_actions_that_are_called_independent_and_disable_each_other_are_refused_with_the_pair() -> None:
    dishonest = Processes(
        [(("add", 1),), (("wait", 0), ("own", 1))], [no_deadlock("all end", lambda s: s[0] == (1, 2))], honest=False
    )
    with pytest.raises(NotIndependent, match="one disables the other") as caught:
        check(dishonest, reduction=True)
    assert {caught.value.action, caught.value.other} == {(0, 0), (1, 0)}
    assert str(caught.value).endswith(f"at the action {caught.value.action!r}, beside {caught.value.other!r}")


def test_reductions_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="together"):
        check(TwoPhaseCommit(2), symmetry=True, reduction=True)
    with pytest.raises(ValueError, match="exact visited set"):
        check(TwoPhaseCommit(2), visited="fingerprint", reduction=True)
    with pytest.raises(ValueError, match="nothing to do"):
        check(TwoPhaseCommit(2), strategy="walk", symmetry=True)


def test_a_comparison_wants_an_instance_that_is_small_enough() -> None:
    with pytest.raises(ValueError, match="smaller instance"):
        compare(TwoPhaseCommit(3), symmetry=True, max_states=100)


def test_a_model_without_symmetry_or_independence_is_searched_in_full() -> None:
    class Plain(Model[int, str]):
        def initial(self) -> Sequence[int]:
            return [0]

        def actions(self, state: int) -> Sequence[str]:
            return ["more", "less"]

        def step(self, state: int, action: str) -> int | None:
            after = state + (1 if action == "more" else -1)
            return after if 0 <= after < 5 else None

    for options in ({}, {"symmetry": True}, {"reduction": True}):
        report = check(Plain(), **options)
        assert (report.states, report.transitions, report.complete) == (5, 8, True)
