"""State counts and counterexamples that others have published, of the same models with the same semantics."""

import pytest

from machines.checker import Outcome, check
from machines.checker.linearizability import is_linearizable
from tests.machines.checker.examples.abd import Abd
from tests.machines.checker.examples.paxos import Paxos
from tests.machines.checker.examples.registers import SPEC, one_write_one_read
from tests.machines.checker.examples.two_phase_commit import TwoPhaseCommit


@pytest.mark.parametrize(("managers", "states"), [(3, 288), (5, 8_832)])
@pytest.mark.parametrize("strategy", ["breadth", "depth"])
def test_two_phase_commit(managers: int, states: int, strategy: str) -> None:
    report = check(TwoPhaseCommit(managers), strategy=strategy)
    assert report.states == states
    assert report.outcome is Outcome.HOLDS


@pytest.mark.slow
@pytest.mark.search
def test_two_phase_commit_with_seven_managers() -> None:
    report = check(TwoPhaseCommit(7))
    assert (report.states, report.transitions) == (296_448, 2_744_705)
    assert report.outcome is Outcome.HOLDS


@pytest.mark.parametrize(("managers", "classes"), [(3, 80), (5, 314)])
@pytest.mark.parametrize("strategy", ["breadth", "depth"])
def test_two_phase_commit_up_to_an_exchange_of_managers(managers: int, classes: int, strategy: str) -> None:
    """stateright publishes 665 for five managers. Its representative sorts by the managers' own states alone: two that are in
    the same one, of which the transaction manager has heard only from one, stay in the order in which they came. So
    a class has several representatives, and how many are met depends on the order of the search. There are 314 classes.
    """
    assert check(TwoPhaseCommit(managers), symmetry=True, strategy=strategy).states == classes


def test_the_classes_are_as_many_as_the_canonical_forms_of_all_states() -> None:
    model = TwoPhaseCommit(5)
    seen = set(model.initial())
    queue = list(seen)
    for state in queue:
        new = {after for _, after in model.successors(state)} - seen
        seen |= new
        queue += new
    assert len({model.canonical(state) for state in seen}) == 314


def test_the_abd_register_is_linearizable() -> None:
    report = check(Abd(2, one_write_one_read(2)))
    assert report.states == 544
    assert report.outcome is Outcome.HOLDS
    witness = report.verdict("value chosen").path
    assert witness is not None
    assert len(witness.steps) == 11


def test_the_abd_register_when_deliveries_that_do_nothing_are_not_pruned() -> None:
    report = check(Abd(2, one_write_one_read(2), pruned=False))
    assert report.states == 626
    assert report.outcome is Outcome.HOLDS


def test_an_abd_register_that_does_not_write_back_what_it_reads_is_not_linearizable() -> None:
    """Two reads of one client, the second older than the first, while a write is under way."""
    report = check(Abd(3, [["A"], [None, None]], writes_back=False), stop_at_first=True)
    assert report.stopped_by == "failure"
    path = report.verdict("linearizable").path
    assert path is not None
    assert len(path.steps) == 11
    assert [answer for _, done in path.last.history.completed for _, answer in done] == ["A", ""]
    assert not is_linearizable(path.last.history, SPEC)


def test_an_abd_register_that_does_is_within_the_same_distance() -> None:
    report = check(Abd(3, [["A"], [None, None]]), max_depth=11)
    assert report.verdict("linearizable").outcome is Outcome.NOT_DECIDED
    assert report.stopped_by == "max_depth"


def test_single_decree_paxos_is_linearizable() -> None:
    report = check(Paxos(3, one_write_one_read(2)))
    assert report.states == 16_668
    assert report.outcome is Outcome.HOLDS
    witness = report.verdict("value chosen").path
    assert witness is not None
    assert [step.action.message[0] for step in witness.steps][:5] == [
        "put",
        "prepare",
        "prepared",
        "accept",
        "accepted",
    ]
    assert witness.steps[-1].action.message[0] == "get"
    assert len(witness.steps) == 8


@pytest.mark.slow
@pytest.mark.search
def test_single_decree_paxos_when_deliveries_that_do_nothing_are_not_pruned() -> None:
    report = check(Paxos(3, one_write_one_read(2), pruned=False))
    assert report.states == 301_099
    assert report.outcome is Outcome.HOLDS
