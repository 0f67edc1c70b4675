"""The evidence actor: UP it hands records to the store, DOWN it refuses at once, and a silent store counts as down."""

from collections.abc import Callable
from typing import Any

import pytest

from actors.runtime.actor import CANCEL_TIMER, PORT, SET_TIMER, TELL, Actor, Out
from actors.runtime.mailbox import Ref
from actors.voice import messages as m
from actors.voice.evidence import DOWN, UP, EvidenceActor
from machines.communication import RequestStatus

SUPERVISOR, ME, STORE = Ref(Actor(), "supervisor", None), Ref(Actor(), "evidence", None), "store"
A, B = Ref(Actor(), "a", None), Ref(Actor(), "b", None)
TIMEOUT, PROBE = 2.0, 1.0


@pytest.fixture
def evidence() -> EvidenceActor:
    """An evidence actor with nothing to do."""
    return EvidenceActor(SUPERVISOR, STORE, TIMEOUT, PROBE)


@pytest.fixture
def commit(facts: Callable[..., m.Facts]) -> Callable[[Ref, int], m.Commit]:
    """The record of an owner with a number."""
    return lambda owner, number: m.Commit(owner, m.Draft(facts(), number, "operation", RequestStatus.SUCCESS))


def effects(evidence: EvidenceActor, *messages: Any) -> list[Any]:
    """The effects of the last of these messages; a string is a timer."""
    out = Out(Ref)
    out.me = ME
    for message in messages:
        out.effects.clear()
        if isinstance(message, str):
            evidence.timeout(message, out)
        else:
            evidence.receive(message, out)
    return out.effects


def test_a_record_goes_to_the_store_and_is_waited_for(evidence: EvidenceActor, commit: Any) -> None:
    record = commit(A, 1)
    assert effects(evidence, record) == [(SET_TIMER, "hang", TIMEOUT), (PORT, STORE, m.Append(A, record.draft, ME))]


def test_the_hang_timer_is_not_put_off_by_new_records(evidence: EvidenceActor, commit: Any) -> None:
    record = commit(B, 1)
    assert effects(evidence, commit(A, 1), record) == [(PORT, STORE, m.Append(B, record.draft, ME))]


def test_a_stored_record_is_told_to_its_owner_and_the_waiting_ends(evidence: EvidenceActor, commit: Any) -> None:
    assert effects(evidence, commit(A, 1), m.Stored(((A, 1),))) == [
        (TELL, A, m.Durable(1)),
        (CANCEL_TIMER, "hang", None),
    ]
    assert len(evidence.waiting) == 0


def test_an_answer_for_one_gives_the_others_new_time(evidence: EvidenceActor, commit: Any) -> None:
    done = effects(evidence, commit(A, 1), commit(B, 1), m.Stored(((A, 1),)))
    assert done == [(TELL, A, m.Durable(1)), (SET_TIMER, "hang", TIMEOUT)]
    assert evidence.waiting.get(B) == 1


def test_an_old_answer_is_told_but_does_not_end_the_wait_for_a_newer_record(
    evidence: EvidenceActor, commit: Any
) -> None:
    assert effects(evidence, commit(A, 2), m.Stored(((A, 1),)))[0] == (TELL, A, m.Durable(1))
    assert evidence.waiting.get(A) == 2


def test_a_record_that_is_refused_is_no_reason_to_refuse_others(evidence: EvidenceActor, commit: Any) -> None:
    refused = effects(evidence, commit(A, 1), m.NotStored(((A, 1),), "too large", store_down=False))
    assert refused[0] == (TELL, A, m.NotDurable(1, "too large", perhaps=False, refused=True))
    assert evidence.phase == UP


def test_a_store_that_fails_is_down_and_is_probed(evidence: EvidenceActor, commit: Any) -> None:
    failed = effects(evidence, commit(A, 1), m.NotStored(((A, 1),), "disk full", store_down=True))
    assert failed == [
        (TELL, A, m.NotDurable(1, "disk full", perhaps=True)),
        (CANCEL_TIMER, "hang", None),
        (SET_TIMER, "probe", PROBE),
    ]
    assert evidence.phase == DOWN


def test_while_it_is_down_records_are_refused_at_once_and_never_reach_the_store(
    evidence: EvidenceActor, commit: Any
) -> None:
    down = m.NotStored((), "disk full", store_down=True)
    refused = effects(evidence, down, commit(A, 1))
    assert refused == [(TELL, A, m.NotDurable(1, "the evidence store is down", perhaps=False))]


def test_a_store_that_does_not_answer_is_down_for_everyone_who_waits(evidence: EvidenceActor, commit: Any) -> None:
    told = effects(evidence, commit(B, 7), commit(A, 1), "hang")
    error = "the evidence store does not answer"
    assert told == [
        (TELL, A, m.NotDurable(1, error, perhaps=True)),
        (TELL, B, m.NotDurable(7, error, perhaps=True)),
        (SET_TIMER, "probe", PROBE),
    ]
    assert (evidence.phase, len(evidence.waiting)) == (DOWN, 0)


def test_one_probe_is_sent_at_a_time_and_the_next_when_it_failed(evidence: EvidenceActor) -> None:
    down = m.NotStored((), "disk full", store_down=True)
    assert effects(evidence, down, "probe") == [(PORT, STORE, m.Probe(ME))]
    assert effects(evidence, m.Probed(ok=False)) == [(SET_TIMER, "probe", PROBE)]


@pytest.mark.parametrize("answer", [m.Probed(ok=True), m.Stored(())])
def test_a_store_that_answers_again_is_up_and_the_supervisor_is_told_once(evidence: EvidenceActor, answer: Any) -> None:
    up = effects(evidence, m.NotStored((), "disk full", store_down=True), answer)
    assert (CANCEL_TIMER, "probe", None) in up
    assert (TELL, SUPERVISOR, m.EvidenceBack()) in up
    assert evidence.phase == UP
    assert effects(evidence, m.Probed(ok=True)) == []


@pytest.mark.parametrize("down", [False, True])
def test_final_records_are_spilled_whether_the_store_is_up_or_down(
    evidence: EvidenceActor, commit: Any, down: bool
) -> None:
    drafts = (commit(A, 1).draft, commit(A, 2).draft)
    if down:
        effects(evidence, m.NotStored((), "disk full", store_down=True))
    else:
        effects(evidence, commit(A, 1))
    assert effects(evidence, m.Spill(A, drafts)) == [(PORT, STORE, m.SpillWork(A, drafts, ME))]
    assert len(evidence.waiting) == 0, "nobody waits for the store any more"
    assert effects(evidence, m.SpillDone(A, ok=True)) == [(TELL, A, m.Spilled(ok=True))]
    assert effects(evidence, m.SpillDone(A, ok=False)) == [(TELL, A, m.Spilled(ok=False))]
