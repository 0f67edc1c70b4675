"""A session from the asking to the last record, with ports that do what a real one may do."""

from collections.abc import Callable
from typing import Any

import pytest

from actors import mailbox
from actors import messages as m
from machines.events import VoiceEventType
from machines.session import EndReason, VoiceSessionState

CREATED, ACTIVE, STOPPING, STOPPED = VoiceSessionState


def test_a_whole_call_is_evidenced_told_and_accounted_for(world: Any) -> None:
    world.open(recording=True)
    world.frames(3)
    world.frames(57)
    ended = world.stop()
    assert ended.value == m.Ended("voice-1", durable=True, spilled=False)
    assert world.changes() == [CREATED, ACTIVE, STOPPING, STOPPED]
    assert world.operations() == [
        "session_created",
        "session_active",
        "audio_accounted",
        "session_stopping",
        "session_stopped",
    ]
    result = world.check_ended()
    assert result.reason is EndReason.STOPPED
    assert result.drained
    assert result.transcript == "hello"
    assert (result.frames.accepted, result.frames.accounted, result.frames.recorded) == (60, 60, 60)
    assert (result.frames.transcribed, result.frames.bytes) == (60, 60 * 640)
    assert result.recording is not None
    assert result.quality.level_dbfs == -6.0
    assert not world.system.statistics().dead_letters


def test_all_that_was_heard_is_told_before_the_end(world: Any) -> None:
    world.open()
    world.frames(2)
    world.stop()
    told = [work for work in world.directory.log if not isinstance(work, m.Closed)]
    assert [told[0].state, told[-1].state] == [CREATED, STOPPED]
    assert {VoiceEventType.STT_FINAL, VoiceEventType.AUDIO_RECEIVED} <= set(world.events())


def test_nobody_is_told_of_a_session_before_its_creation_is_durable(world: Any, facts: Callable[..., m.Facts]) -> None:
    world.store = "silent"
    token = world.ask(facts())
    assert not token.answered
    assert world.directory.log == []


def recorded(world: Any, operation: str) -> list[dict[str, Any]]:
    """What the records of an operation say, in order."""
    return [dict(draft.detail) for draft in world.records.values() if draft.operation == operation]


def part(world: Any, name: str) -> Any:
    """The address of a part of the session."""
    return next(ref for ref, _ in world.system.refs() if ref.name == name)


def test_a_run_of_losses_is_one_record_when_it_is_over_or_the_call_ends(world: Any) -> None:
    world.open()
    world.frames(10)
    recorder, transcriber = part(world, "recorder"), part(world, "transcriber")
    for first in (10, 12, 20):
        world.tell(recorder, m.MediaLost(first, 2, "backlog"))
    world.frames(60)  # an account, and the run may go on
    assert recorded(world, "audio_lost") == []
    world.tell(recorder, m.MediaLost(60, 5, "backlog"))
    world.frames(60)  # it went on
    assert recorded(world, "audio_lost") == []
    world.frames(60)
    run = {"port": "media", "reason": "backlog", "first_frame": 10, "upto_frame": 65, "frames": 11}
    assert recorded(world, "audio_lost") == [run]
    world.tell(recorder, m.MediaLost(100, 1, "backlog"))
    world.tell(transcriber, m.Unheard(7, 3, "worker_died"))
    world.stop()
    again = run | {"first_frame": 100, "upto_frame": 101, "frames": 1}
    heard = {"port": "speech", "reason": "worker_died", "first_frame": 7, "upto_frame": 10, "frames": 3}
    assert recorded(world, "audio_lost") == [run, again, heard]
    assert world.operations()[-1] == "session_stopped"


def test_a_port_that_stops_answering_is_on_record_once_in_a_call_and_told(world: Any) -> None:
    world.open()
    world.frames(10)
    world.stt_answers = False
    for _ in range(2):
        world.tell(part(world, "transcriber"), m.SpeechSilent("speech_silent"))
        world.settle()
    assert recorded(world, "port_failed") == [{"port": "speech", "reason": "speech_silent"}]
    told = [
        work for work in world.directory.log if isinstance(work, m.Emit) and work.event_type is VoiceEventType.ERROR
    ]
    assert [dict(work.payload) for work in told] == [{"part": "speech", "reason": "speech_silent"}]


def test_a_call_that_ends_beside_a_silent_speech_port_does_not_wait_and_declares_what_was_not_heard(world: Any) -> None:
    world.open()
    world.frames(10)
    world.stt_answers = False
    world.frames(5)
    ended = world.stop()
    assert not ended.answered
    world.tell(part(world, "transcriber"), m.SpeechSilent("speech_silent"))
    world.settle()
    assert ended.value == m.Ended("voice-1", durable=True, spilled=False)
    assert world.stt.log[-1] == m.Abandon("voice-1")
    world.stt_answers = True
    world.settle()
    result = world.check_ended()
    assert result.drained
    assert (result.frames.transcribed, result.frames.untranscribed) == (10, {"speech_silent": 5})
    operations = ["session_created", "session_active", "session_stopping", "port_failed", "session_stopped"]
    assert world.operations() == operations


def test_without_an_engine_a_session_only_records_and_says_so(world: Any) -> None:
    world.open(stt_engine=None)
    world.frames(4)
    world.stop()
    frames = world.check_ended().frames
    assert (frames.accounted, frames.untranscribed) == (4, {"no_engine": 4})
    assert world.stt.log == []


def test_a_stop_before_any_audio_ends_a_session_that_never_had_parts(world: Any) -> None:
    world.open()
    ended = world.stop()
    assert ended.value.durable
    assert world.changes() == [CREATED, STOPPING, STOPPED]
    assert world.check_ended().frames.accepted == 0
    assert world.media.log == []


def test_two_stops_end_it_once_and_both_are_answered(world: Any) -> None:
    world.open()
    world.frames(2)
    first = world.stop(settle=False)
    second = world.stop(settle=False)
    world.settle()
    assert first.value == second.value == m.Ended("voice-1", durable=True, spilled=False)
    assert world.operations().count("session_stopping") == 1
    world.check_ended()


def test_a_stop_while_the_last_record_is_on_its_way_waits_for_it_too(world: Any) -> None:
    world.open()
    ref = world.routes["voice-1"]
    world.store = "silent"
    world.stop()
    late = world.stop()
    assert not late.answered
    world.store = "up"
    world.advance(2.5)
    assert late.answered
    assert ref.status == mailbox.STOPPED
    world.check_ended()


def test_a_stop_while_it_is_being_created_refuses_the_asker_and_still_ends_on_record(
    world: Any, facts: Callable[..., m.Facts]
) -> None:
    token = world.ask(facts(), settle=False)
    (created,) = world.store_port.waiting
    world.system.tell(created.owner, m.Stop(EndReason.SHUTDOWN, 0))
    assert isinstance(token.value, m.Unevidenced)
    world.settle()
    assert world.check_ended().reason is EndReason.SHUTDOWN
    assert world.operations() == ["session_created", "session_stopping", "session_stopped"]
    assert world.changes() == [CREATED, STOPPING, STOPPED]


def test_stopped_while_being_created_with_a_silent_store_it_is_gone_in_time_and_was_never_told(
    world: Any, facts: Callable[..., m.Facts]
) -> None:
    world.store = "silent"
    world.ask(facts())
    (created,) = world.store_port.log
    world.tell(created.owner, m.Stop(EndReason.SHUTDOWN, 0))
    world.advance(5)
    world.check_ended()
    assert set(world.spilled) == {"ev-secret-voice-1-1", "ev-secret-voice-1-2", "ev-secret-voice-1-final"}
    assert world.changes() == []


def test_an_end_that_is_half_on_record_when_the_store_goes_down_is_told_whole(
    world: Any, facts: Callable[..., m.Facts]
) -> None:
    world.ask(facts(), settle=False)
    (created,) = world.store_port.waiting
    world.system.tell(created.owner, m.Stop(EndReason.SHUTDOWN, 0))
    answer = world.store_answers(world.store_port.waiting.pop(0))
    world.store = "down"
    for ref, message in answer:
        world.tell(ref, message)
    world.settle()
    world.advance(5)
    world.check_ended()
    assert world.changes() == [CREATED, STOPPING, STOPPED]


@pytest.mark.parametrize(("seconds", "ended"), [(29.9, False), (30.1, True)])
def test_a_session_without_audio_ends_as_idle(world: Any, seconds: float, ended: bool) -> None:
    world.open()
    world.advance(seconds)
    assert (world.finals() != []) is ended
    if ended:
        assert world.check_ended().reason is EndReason.IDLE


def test_audio_puts_the_idle_end_off(world: Any) -> None:
    world.open()
    for _ in range(5):
        world.advance(20)
        world.frames(1)
    assert world.changes()[-1] is ACTIVE
    world.advance(61)
    assert world.check_ended().reason is EndReason.IDLE


def test_a_session_ends_at_its_longest_duration_however_much_is_said(world: Any) -> None:
    world.open()
    for _ in range(59):
        world.advance(10)
        world.frames(1)
    assert world.changes()[-1] is ACTIVE
    world.advance(11)
    result = world.check_ended()
    assert (result.reason, result.frames.accounted) == (EndReason.OVERRUN, 59)


def test_frames_accepted_before_the_stop_belong_to_the_session_although_they_come_after_it(world: Any) -> None:
    world.open()
    world.frames(2)
    ended = world.stop(upto=5)
    assert not ended.answered
    world.frames(3)
    assert ended.answered
    assert world.check_ended().frames.accounted == 5


def test_frames_before_the_stop_may_all_come_after_it(world: Any) -> None:
    world.open()
    world.stop(upto=3)
    world.frames(3)
    result = world.check_ended()
    assert (result.frames.accounted, result.drained, result.transcript) == (3, True, "hello")


def test_frames_behind_the_stop_are_declared_late(world: Any) -> None:
    world.open()
    world.frames(2)
    world.media_answers = False
    world.stop(upto=2)
    world.frames(4)
    world.advance(11)
    frames = world.check_ended().frames
    assert frames.accepted == 6
    assert frames.dropped["late"] == frames.untranscribed["late"] == 4


def test_frames_seen_before_are_old_and_change_nothing(world: Any) -> None:
    ref = world.open()
    world.frames(4)
    world.tell(ref, m.Frames(1, 2, 1280, 5))
    world.stop()
    world.tell(ref, m.Frames(0, 4, 2560, 5))
    assert world.check_ended().frames.accepted == 4
    assert world.accounts["voice-1"]["kept"] == [0, 1, 2, 3]


def test_a_hole_in_the_numbers_is_a_loss_that_is_declared(world: Any) -> None:
    ref = world.open()
    world.frames(2)
    world.tell(ref, m.Frames(5, 1, 640, 9))
    world.stop(upto=6)
    frames = world.check_ended().frames
    assert (frames.accepted, frames.accounted, frames.dropped) == (6, 3, {"lost_on_the_way": 3})
    assert (frames.transcribed, frames.untranscribed) == (3, {"lost_on_the_way": 3})


def test_frames_that_never_come_are_waited_for_half_the_drain_time_and_declared(world: Any) -> None:
    world.open(recording=True)
    world.frames(2)
    ended = world.stop(upto=10)
    world.advance(4.9)
    assert not ended.answered
    world.advance(0.2)
    assert ended.answered
    result = world.check_ended()
    assert (result.frames.accepted, result.frames.accounted) == (10, 2)
    assert result.frames.dropped == result.frames.untranscribed == {"lost_on_the_way": 8}
    assert (result.transcript, result.drained) == ("hello", True)
    assert result.recording is not None


@pytest.mark.parametrize("came", [0, 2])
def test_frames_of_which_it_is_known_that_they_never_come_are_not_waited_for(world: Any, came: int) -> None:
    world.open()
    if came:
        world.frames(came)
    assert world.stop(gap=8).answered
    frames = world.check_ended().frames
    assert (frames.accepted, frames.accounted, frames.transcribed) == (came + 8, came, came)
    assert frames.dropped == frames.untranscribed == {"lost_on_the_way": 8}


def test_the_drain_deadline_does_not_change_what_is_known_of_a_gap(world: Any) -> None:
    world.open()
    world.frames(2)
    world.stt_answers = False
    world.stop(gap=8)
    world.advance(10.1)
    result = world.check_ended()
    assert not result.drained
    assert result.frames.accepted == 10
    assert result.frames.dropped == {"lost_on_the_way": 8}
    assert result.frames.untranscribed == {"drain_expired": 2, "lost_on_the_way": 8}


def test_a_missing_frame_that_comes_after_all_is_not_counted_twice(world: Any) -> None:
    world.open()
    world.frames(2)
    world.stt_answers = False
    world.stop(upto=10)
    world.advance(5.1)
    world.frames(3)
    world.advance(5)
    assert world.check_ended().frames.accepted == 10


@pytest.mark.parametrize("silent", ["media_answers", "stt_answers"])
def test_a_silent_part_cannot_hold_up_the_end_beyond_the_drain_deadline(world: Any, silent: str) -> None:
    world.open()
    world.frames(3)
    setattr(world, silent, False)
    world.frames(4)
    ended = world.stop()
    world.advance(9.9)
    assert not ended.answered
    assert m.Closed("voice-1") not in world.directory.log
    world.advance(0.2)
    assert ended.value.durable
    result = world.check_ended()
    assert not result.drained
    lost = result.frames.dropped if silent == "media_answers" else result.frames.untranscribed
    assert sum(lost.values()) >= 4
    assert set(lost) == {"drain_expired"}


def test_a_part_that_does_not_answer_leaves_nothing_at_its_port(world: Any) -> None:
    world.open()
    world.frames(3)
    world.stt_answers = False
    world.stop()
    world.advance(11)
    assert m.Abandon("voice-1") in world.stt.log
    assert m.CloseMedia("voice-1") in world.media.log


def test_a_store_that_is_down_at_creation_refuses_and_leaves_nothing(world: Any, facts: Callable[..., m.Facts]) -> None:
    world.open("voice-0")
    world.stop("voice-0")
    world.store = "down"
    world.ask(facts("voice-1"))  # the one that finds out
    refused = world.ask(facts("voice-2"))
    assert isinstance(refused.value, m.Unevidenced)
    assert world.changes("voice-2") == []
    assert world.finals("voice-2") == []
    assert sorted(ref.name for ref, _ in world.system.refs()) == ["evidence", "policy", "supervisor"]


def test_a_creation_that_may_yet_turn_up_in_the_store_is_followed_by_its_end(
    world: Any, facts: Callable[..., m.Facts]
) -> None:
    world.store = "silent"
    refused = world.ask(facts())
    world.advance(2.1)
    assert isinstance(refused.value, m.Unevidenced)
    result = world.check_ended()
    assert result.reason is EndReason.UNEVIDENCED
    assert world.changes() == []


def test_a_store_that_answers_a_refused_creation_late_tells_nobody(world: Any, facts: Callable[..., m.Facts]) -> None:
    world.store = "silent"
    world.ask(facts())
    (created,) = world.store_port.log
    world.now = 2.1
    world.system.turn()  # refused; the spill is still on its way
    world.store = "up"
    world.tell(created.reply_to, m.Stored(((created.owner, 1),)))
    world.settle()
    world.check_ended()
    assert world.changes() == []
    assert world.events() == []


@pytest.mark.parametrize("store", ["down", "silent"])
@pytest.mark.parametrize("spill_ok", [True, False])
def test_a_stop_is_carried_out_whatever_the_store_does(world: Any, store: str, spill_ok: bool) -> None:
    world.open()
    world.frames(3)
    world.store, world.spill_ok = store, spill_ok
    ended = world.stop()
    assert m.Closed("voice-1") in world.directory.log, "what it held is released without the store"
    world.advance(5)
    assert ended.value == m.Ended("voice-1", durable=False, spilled=spill_ok)
    assert world.changes() == [CREATED, ACTIVE, STOPPING, STOPPED]
    if spill_ok:
        assert world.check_ended().frames.accounted == 3


def test_a_spill_that_is_not_answered_ends_too(world: Any) -> None:
    world.open()
    world.store = "silent"
    world.stop()
    world.now += 2.1
    world.system.turn()
    world.store_port.waiting.clear()
    world.advance(2.1)
    assert [ref.name for ref, _ in world.system.refs()] == ["supervisor", "policy", "evidence"]
    assert world.changes()[-1] is STOPPED


def test_a_call_goes_on_while_the_store_is_down_and_is_on_record_when_it_is_back(world: Any) -> None:
    world.open()
    world.store = "down"
    world.frames(120)
    assert world.operations() == ["session_created"]
    assert world.changes() == [CREATED], "nobody is told of a move that is not on record"
    world.store = "up"
    world.advance(1.5)
    assert world.changes() == [CREATED, ACTIVE]
    ended = world.stop()
    assert ended.value.durable
    assert world.check_ended().frames.accounted == 120
    assert world.operations() == [
        "session_created",
        "session_active",
        "audio_accounted",
        "session_stopping",
        "session_stopped",
    ]


def test_nothing_of_one_session_reaches_another(world: Any) -> None:
    world.open("voice-1")
    world.open("voice-2")
    world.frames(3, "voice-1")
    world.frames(5, "voice-2")
    world.stop("voice-1")
    assert world.result("voice-1").frames.accounted == 3
    assert world.changes("voice-2") == [CREATED, ACTIVE]
    world.stop("voice-2")
    assert world.check_ended("voice-2").frames.accounted == 5
    assert world.accounts["voice-1"]["kept"] == [0, 1, 2]


def test_one_script_run_inline_and_queued_has_the_same_effects_and_the_same_evidence(new_world: Any) -> None:
    seen = []
    for inline in (True, False):
        world = new_world(inline=inline)
        world.open()
        world.frames(3)
        world.frames(60)
        world.stop(upto=64)
        world.frames(1)
        world.check_ended()
        log = [
            [(type(work).__name__, getattr(work, "state", None), getattr(work, "payload", None)) for work in port.log]
            for port in (world.directory, world.media, world.stt)
        ]
        seen.append((log, list(world.records), world.result()))
    assert seen[0] == seen[1]
