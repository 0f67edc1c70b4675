"""A session from the asking to the last record, with ports that do what a real one may do."""

from collections.abc import Callable
from typing import Any

import pytest

from actors.runtime import mailbox
from actors.runtime.system import Token
from actors.voice import messages as m
from actors.voice.quality import QualityActor
from actors.voice.recorder import NOTHING_YET
from actors.voice.session import SessionActor
from actors.voice.transcriber import NOTHING_HEARD
from machines.communication import PolicyVerdict, RequestStatus
from machines.events import VoiceEventType
from machines.session import AudioMismatch, EndReason, VoiceSessionState

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
    assert world.speech.log[-1] == m.Abandon("voice-1")
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
    assert world.speech.log == []


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


# --- silence ------------------------------------------------------------------------------------------------------------


def open_with_silence(world: Any, **changes: Any) -> None:
    """A call that ends when nobody speaks for ten seconds."""
    world.open(silence_seconds=10.0, **changes)


def pass_time(world: Any, seconds: int) -> None:
    """So many seconds, with a second of audio in each."""
    for _ in range(seconds):
        world.advance(1)
        world.frames(50)


NO_ENGINE: dict[str, Any] = {"stt_engine": None}


@pytest.mark.parametrize("engine", [{}, NO_ENGINE])
def test_a_muted_line_that_sends_noise_ends_by_its_silence(world: Any, engine: dict[str, Any]) -> None:
    open_with_silence(world, **engine)
    world.speaks = False
    pass_time(world, 9)
    assert world.changes()[-1] is ACTIVE
    pass_time(world, 2)
    result = world.check_ended()
    assert (result.reason, result.drained, result.frames.accounted) == (EndReason.SILENCE, True, 9 * 50)
    assert [draft.detail for draft in world.records.values() if draft.operation == "session_stopping"] == [
        (("reason", "silence"),)
    ]


@pytest.mark.parametrize("engine", [{}, NO_ENGINE])
def test_speech_begins_a_silence_anew(world: Any, engine: dict[str, Any]) -> None:
    open_with_silence(world, **engine)
    pass_time(world, 35)
    assert world.changes()[-1] is ACTIVE
    world.speaks = False
    pass_time(world, 9)
    assert world.changes()[-1] is ACTIVE
    pass_time(world, 2)
    assert world.check_ended().reason is EndReason.SILENCE


def test_a_call_in_which_nothing_comes_at_all_ends_by_its_silence(world: Any) -> None:
    open_with_silence(world)
    world.advance(10.1)
    assert world.check_ended().reason is EndReason.SILENCE


def test_without_a_silence_timeout_noise_ends_no_call(world: Any) -> None:
    world.open()
    world.speaks = False
    pass_time(world, 100)
    assert world.changes()[-1] is ACTIVE


def test_a_voice_that_an_engine_takes_for_noise_is_no_speech(world: Any) -> None:
    open_with_silence(world)
    answers = world.stt_facts
    world.stt_facts = lambda work: [(to, fact) for to, fact in answers(work) if not isinstance(fact, m.Partial)]
    pass_time(world, 11)
    assert world.check_ended().reason is EndReason.SILENCE


def test_an_engine_that_is_behind_puts_the_end_off_until_it_has_heard_what_came(world: Any) -> None:
    open_with_silence(world)
    world.frames(1)
    world.stt_answers = False
    pass_time(world, 30)
    assert world.changes()[-1] is ACTIVE, "somebody may be speaking"
    world.speaks, world.stt_answers = False, True
    pass_time(world, 2)
    assert world.check_ended().reason is EndReason.SILENCE


def test_sound_that_nobody_has_measured_yet_puts_the_end_off(world: Any) -> None:
    open_with_silence(world, **NO_ENGINE)
    world.frames(1)
    world.media_answers = False
    pass_time(world, 30)
    assert world.changes()[-1] is ACTIVE, "somebody may be speaking"
    world.media_answers = True
    pass_time(world, 9)
    assert world.changes()[-1] is ACTIVE, "somebody spoke"
    world.speaks = False
    pass_time(world, 11)
    assert world.check_ended().reason is EndReason.SILENCE


def test_words_that_an_engine_finds_late_keep_the_call(world: Any) -> None:
    open_with_silence(world)
    world.stt_answers = False
    pass_time(world, 30)
    world.stt_answers = True
    pass_time(world, 9)
    assert world.changes()[-1] is ACTIVE


def test_what_an_engine_did_not_hear_may_be_speech_and_voice_counts_from_then_on(world: Any) -> None:
    open_with_silence(world)
    answers = world.stt_facts
    world.stt_facts = lambda work: [
        (to, m.Unheard(fact.upto - fact.frames, fact.frames, "engine_failed") if isinstance(fact, m.Heard) else fact)
        for to, fact in answers(work)
        if not isinstance(fact, m.Partial)
    ]
    pass_time(world, 40)
    assert world.changes()[-1] is ACTIVE
    world.speaks = False
    pass_time(world, 11)
    assert world.check_ended().reason is EndReason.SILENCE


@pytest.mark.parametrize("step", [3, 8, 20, 30])
def test_a_crash_of_the_session_keeps_its_silence_timeout(world: Any, step: int) -> None:
    with world.crashing(SessionActor, frozenset({step})) as steps:
        open_with_silence(world)
        world.speaks = False
        pass_time(world, 9)
        assert world.changes()[-1] is ACTIVE
        pass_time(world, 11)  # timers begin anew with a crash
    assert len(steps) > step
    assert world.check_ended().reason is EndReason.SILENCE


def test_a_stop_ends_a_silence(world: Any) -> None:
    open_with_silence(world)
    world.frames(5)
    world.stop()
    world.advance(60)
    assert world.check_ended().reason is EndReason.STOPPED


# --- how long a call may last ------------------------------------------------------------------------------------------


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
    assert world.stop(skipped=(("capture", 6), ("ring", 2))).answered
    frames = world.check_ended().frames
    assert (frames.accepted, frames.accounted, frames.transcribed) == (came + 8, came, came)
    assert frames.dropped == frames.untranscribed == {"capture": 6, "ring": 2}


def test_the_drain_deadline_does_not_change_what_is_known_of_a_gap(world: Any) -> None:
    world.open()
    world.frames(2)
    world.stt_answers = False
    world.stop(skipped=(("capture", 8),))
    world.advance(10.1)
    result = world.check_ended()
    assert not result.drained
    assert result.frames.accepted == 10
    assert result.frames.dropped == {"capture": 8}
    assert result.frames.transcribed == 2, "they were settled, though the engine never said that it has finished"
    assert result.frames.untranscribed == {"capture": 8}


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
    assert m.Abandon("voice-1") in world.speech.log
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
            for port in (world.directory, world.media, world.speech)
        ]
        seen.append((log, list(world.records), world.result()))
    assert seen[0] == seen[1]


def test_frames_that_never_come_are_not_waited_for_any_longer_by_a_session_that_crashed_meanwhile(world: Any) -> None:
    world.open(recording=True)
    world.frames(2)
    ended = world.stop(upto=10, settle=False)
    world.break_at = frozenset({world.submitted + 1})  # the news that it is stopping
    world.settle()
    assert world.system.statistics().crashes == 1
    world.advance(4.9)
    assert not ended.answered
    world.advance(0.2)
    assert ended.answered
    assert world.check_ended().drained


def test_an_account_that_comes_while_it_stops_is_in_the_result_of_a_port_that_says_no_more(world: Any) -> None:
    world.open(recording=True)
    world.media_answers = False
    world.frames(60)
    world.stop()
    for _ in range(2):  # it opens, and keeps the frames
        for ref, fact in world.answers("media", world.media.waiting.pop(0)):
            world.tell(ref, fact)
    world.advance(11)
    result = world.check_ended()
    assert (result.drained, result.frames.accounted, result.frames.dropped) == (False, 60, {})


def test_listeners_hear_whether_a_part_that_crashed_was_restarted(new_world: Any) -> None:
    with new_world().crashing(QualityActor, frozenset(range(1, 100))):
        world = new_world()
        world.open()
        for _ in range(4):
            world.frames(1)
        world.advance(30)
    emitted = [work for work in world.directory.log if isinstance(work, m.Emit)]
    told = [dict(work.payload) for work in emitted if work.event_type is VoiceEventType.ERROR]
    restarted = [one["restarted"] for one in told if one["part"] == "quality"]
    assert restarted[:4] == [True, True, True, False]
    assert not any(restarted[3:])
    assert [one["restarted"] for one in told if one["part"] == "session"] == [False]


def resumed(world: Any, facts: m.Facts, age_seconds: float = 0.0, **known: Any) -> Token:
    """Ask for a session that another process left when it was so old."""
    token = Token()
    left = m.Resumption(ACTIVE, 3, NOTHING_YET, NOTHING_HEARD, age_seconds, **known)
    verdict = PolicyVerdict(status=RequestStatus.APPROVED, reason_code="OK")
    world.tell(world.supervisor, m.ResumeSession(token, facts, verdict, left))
    return token


def test_audio_that_does_not_fit_its_clock_stands_in_the_result_once_of_each_kind(
    world: Any, facts: Callable[..., m.Facts]
) -> None:
    before = AudioMismatch("too_much_audio", 2_000, 1_000)
    resumed(world, facts(), mismatches=(before,))
    world.settle()
    world.frames(3)
    for mismatched in (
        ("too_much_audio", 9_000, 1_000),
        ("too_little_audio", 1_000, 4_000),
        ("too_little_audio", 2, 3),
    ):
        world.tell(world.routes["voice-1"], m.Mismatched(*mismatched))
    world.stop()
    assert world.check_ended().mismatches == (before, AudioMismatch("too_little_audio", 1_000, 4_000))
    assert world.operations().count("audio_mismatched") == 1


def test_a_session_is_resumed_once(world: Any, facts: Callable[..., m.Facts]) -> None:
    first, second = resumed(world, facts()), resumed(world, facts())
    world.settle()
    third = resumed(world, facts())
    world.settle()
    assert [type(token.value) for token in (first, second, third)] == [m.Opened, m.Unevidenced, m.Unevidenced]
    assert world.operations() == ["session_resumed"]
    world.frames(1)
    world.stop()
    assert world.check_ended().frames.accounted == 1


@pytest.mark.parametrize(("age", "left"), [(590.0, 10.0), (599.5, 0.5), (700.0, 0.0)])
def test_the_longest_duration_of_a_resumed_session_counts_from_its_beginning(
    world: Any, facts: Callable[..., m.Facts], age: float, left: float
) -> None:
    token = resumed(world, facts(), age)
    world.settle()
    assert isinstance(token.value, m.Opened)
    if left:
        world.advance(left - 0.1)
        assert not world.finals()
    world.advance(0.2)
    assert world.check_ended().reason is EndReason.OVERRUN
