"""Evidence first: records go out one at a time, and what waits for one is released when it is durable."""

from collections.abc import Callable
from typing import Any

import pytest

from actors.runtime.actor import TELL, Actor, Out
from actors.runtime.mailbox import Ref
from actors.voice import messages as m
from actors.voice.outbox import Outbox
from machines.communication import RequestStatus
from machines.operations import RECORD_REFUSED
from machines.session import EndReason, SessionResult

EVIDENCE = Ref(Actor(), "evidence", None)
ME = Ref(Actor(), "me", None)


@pytest.fixture
def out() -> Out:
    """The effects of one step of `ME`."""
    out = Out(Ref)
    out.me = ME
    return out


@pytest.fixture
def draft(facts: Callable[..., m.Facts]) -> Callable[[int], m.Draft]:
    """The record with a number."""
    return lambda number: m.Draft(facts(), number, f"operation {number}", RequestStatus.SUCCESS)


def news(number: int) -> Any:
    """What waits for the record with this number."""
    return (TELL, ME, f"news {number}")


def filled(draft: Callable[[int], m.Draft], out: Out, count: int) -> Outbox:
    """An outbox with `count` records, the effects of filling it forgotten."""
    outbox = Outbox()
    for number in range(1, count + 1):
        outbox = outbox.commit(out, EVIDENCE, draft(number), (news(number),))
    out.effects.clear()
    return outbox


def test_the_first_record_is_sent_at_once_and_the_next_ones_wait(draft: Any, out: Out) -> None:
    outbox = Outbox().commit(out, EVIDENCE, draft(1)).commit(out, EVIDENCE, draft(2))
    assert out.effects == [(TELL, EVIDENCE, m.Commit(ME, draft(1)))]
    assert (outbox.drafts(), outbox.next_number) == ((draft(1), draft(2)), 3)


def test_an_acknowledgement_releases_what_waited_and_then_sends_the_next(draft: Any, out: Out) -> None:
    outbox = filled(draft, out, 2).acknowledged(1, out, EVIDENCE)
    assert out.effects == [news(1), (TELL, EVIDENCE, m.Commit(ME, draft(2)))]
    assert outbox.drafts() == (draft(2),)


@pytest.mark.parametrize("number", [0, 2, 3])
def test_an_acknowledgement_of_another_record_is_old_and_changes_nothing(draft: Any, out: Out, number: int) -> None:
    outbox = filled(draft, out, 2)
    assert outbox.acknowledged(number, out, EVIDENCE) is outbox
    assert out.effects == []


def test_two_acknowledgements_of_one_record_release_it_once(draft: Any, out: Out) -> None:
    outbox = filled(draft, out, 1).acknowledged(1, out, EVIDENCE).acknowledged(1, out, EVIDENCE)
    assert out.effects == [news(1)]
    assert outbox.drafts() == ()


def test_sending_again_sends_only_the_record_under_way(draft: Any, out: Out) -> None:
    filled(draft, out, 3).send_again(out, EVIDENCE)
    assert out.effects == [(TELL, EVIDENCE, m.Commit(ME, draft(1)))]


def test_sending_again_with_nothing_waiting_sends_nothing(out: Out) -> None:
    Outbox().send_again(out, EVIDENCE)
    assert out.effects == []


def test_a_dropped_record_releases_nothing_and_makes_way(draft: Any, out: Out) -> None:
    outbox = filled(draft, out, 2).dropped(out, EVIDENCE)
    assert out.effects == [(TELL, EVIDENCE, m.Commit(ME, draft(2)))]
    assert outbox.is_under_way(2)
    assert not outbox.is_under_way(1)


@pytest.mark.parametrize(("but_last", "released"), [(False, []), (True, [news(2)])])
def test_a_silenced_outbox_keeps_its_records_and_tells_nobody(
    draft: Any, out: Out, but_last: bool, released: list[Any]
) -> None:
    outbox = filled(draft, out, 2).silenced(but_last=but_last)
    assert outbox.drafts() == (draft(1), draft(2))
    outbox = outbox.acknowledged(1, out, EVIDENCE)
    out.effects.clear()
    outbox.acknowledged(2, out, EVIDENCE)
    assert out.effects == released


def test_a_session_has_one_final_record_by_its_id_whatever_its_number(facts: Callable[..., m.Facts]) -> None:
    result = SessionResult(reason=EndReason.STOPPED)
    finals = [m.Draft(facts(), number, "session_stopped", RequestStatus.SUCCESS, result=result) for number in (4, 9)]
    assert {final.record_id for final in finals} == {"ev-secret-voice-1-final"}
    assert m.Draft(facts(), 4, "session_active", RequestStatus.SUCCESS).record_id == "ev-secret-voice-1-4"


def test_a_record_that_can_not_be_written_is_replaced_by_one_that_says_so_with_the_same_effects(
    draft: Any, out: Out
) -> None:
    outbox = filled(draft, out, 3).refused("no JSON", out, EVIDENCE)
    trace = outbox.drafts()[0]
    assert out.effects == [(TELL, EVIDENCE, m.Commit(ME, trace))]
    assert (trace.number, trace.operation, trace.refusal) == (2, RECORD_REFUSED, "no JSON")
    assert dict(trace.detail) == {"refused_number": 1, "refused_operation": "operation 1"}
    assert trace.status is RequestStatus.FAILED
    assert [one.number for one in outbox.drafts()] == [2, 3, 4], "its own number is left out"
    assert [waiting.then for waiting in outbox.waiting] == [(news(number),) for number in (1, 2, 3)]
    assert outbox.next_number == 5


def test_the_last_record_keeps_its_name_and_its_result(draft: Any, out: Out) -> None:
    result = SessionResult(reason=EndReason.STOPPED)
    last = m.Draft(draft(1).facts, 1, "session_stopped", RequestStatus.SUCCESS, result=result)
    (trace,) = Outbox().commit(out, EVIDENCE, last).refused("no JSON", out, EVIDENCE).drafts()
    assert (trace.operation, trace.result, trace.record_id) == ("session_stopped", result, last.record_id)


def test_when_nothing_can_stand_for_a_record_the_next_one_goes_and_its_effects_never_do(draft: Any, out: Out) -> None:
    outbox = filled(draft, out, 2).refused("no JSON", out, EVIDENCE)
    out.effects.clear()
    outbox = outbox.refused("not even that", out, EVIDENCE)
    (left,) = outbox.drafts()
    assert out.effects == [(TELL, EVIDENCE, m.Commit(ME, left))]
    assert (left.number, left.operation) == (3, "operation 2")
