"""The small actors: recorder, transcriber, quality and policy, step by step."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from actors.runtime.actor import PORT, TELL, Actor, Out
from actors.runtime.mailbox import Ref
from actors.voice import messages as m
from actors.voice.policy import PolicyActor
from actors.voice.quality import QualityActor, dbfs, level_fields, quality_of
from actors.voice.recorder import CLOSED, DRAINING, RecorderActor
from actors.voice.transcriber import DONE, OPEN, TranscriberActor
from machines.communication import PolicyVerdict, RequestStatus
from machines.events import VoiceEventType
from machines.frozen import FrozenDict
from machines.losses import counted
from machines.policy import VoicePolicy
from machines.recording import RecordingInfo
from machines.session import Quality

SESSION, QUALITY, ME = Ref(Actor(), "session", None), Ref(Actor(), "quality", None), Ref(Actor(), "me", None)
MEDIA, STT, DIRECTORY = "media", "speech", "directory"


@pytest.fixture
def recorder(facts: Callable[..., m.Facts]) -> RecorderActor:
    """A recorder that tells its account every ten frames."""
    return RecorderActor(SESSION, 1, QUALITY, MEDIA, facts(recording=True), 10)


@pytest.fixture
def transcriber(facts: Callable[..., m.Facts]) -> TranscriberActor:
    """A transcriber with an engine."""
    return TranscriberActor(SESSION, 2, STT, DIRECTORY, facts())


@pytest.fixture
def quality() -> QualityActor:
    """A quality actor that has heard nothing."""
    return QualityActor(SESSION, 0, "voice-1")


def effects(actor: Any, *messages: Any) -> list[Any]:
    """The effects of the last of these messages."""
    out = Out(Ref)
    out.me = ME
    for message in messages:
        out.effects.clear()
        actor.receive(message, out)
    return out.effects


def after_crash(actor: Any) -> tuple[Any, list[Any]]:
    """The actor that begins again from the journal, and the effects of its first step."""
    fresh = actor.recover(type(actor).journal_of(actor))
    out = Out(Ref)
    out.me = ME
    fresh.restarted(out)
    return fresh, out.effects


def accounted(account: m.Account) -> m.PartRecord:
    """The record of an account that is due."""
    detail = (("upto_frame", account.upto), ("accounted", account.kept), ("bytes", account.n_bytes))
    more = (("digest", account.digest), ("dropped", FrozenDict(account.lost)))
    return m.PartRecord("audio_accounted", (*detail, *more), interim=True)


def kept(upto: int, frames: int, digest: str = "d", lost: int = 0) -> m.Kept:
    """A report of the media port, which has so many `lost` below `upto`."""
    whole = upto - lost
    return m.Kept(upto, frames, 0.25, 0.5, 1, 2, whole, whole * 640, digest)


# --- recorder ----------------------------------------------------------------------------------------------------------


def test_the_recorder_hands_runs_over_by_number(recorder: RecorderActor) -> None:
    assert effects(recorder, m.Frames(0, 3, 1920, 1)) == [(PORT, MEDIA, m.Keep("voice-1", 0, 3))]
    assert effects(recorder, m.Frames(3, 1, 640, 2)) == [(PORT, MEDIA, m.Keep("voice-1", 3, 1))]


def test_a_hole_is_counted_and_an_old_run_is_not_handed_over(recorder: RecorderActor) -> None:
    hole = (TELL, SESSION, m.AudioLost("media", 0, 2, "lost_on_the_way"))
    counted_so_far = (TELL, SESSION, m.PartReport(1, m.Account(0, 0, 0, "", (("lost_on_the_way", 2),))))
    done = effects(recorder, m.Frames(2, 3, 1920, 1))
    assert done == [counted_so_far, hole, (PORT, MEDIA, m.Keep("voice-1", 2, 3))]
    assert recorder.account.lost == (("lost_on_the_way", 2),)
    assert effects(recorder, m.Frames(0, 2, 1280, 1)) == []
    assert recorder.expected == 5


@pytest.mark.parametrize("part", ["media", "speech"])
def test_what_was_skipped_has_its_reason_and_the_rest_of_a_hole_was_lost_inside(
    part: str, recorder: RecorderActor, transcriber: TranscriberActor
) -> None:
    skipped = m.Frames(9, 1, 640, 1, (("capture", 4), ("ring", 2)))
    told = effects(recorder if part == "media" else transcriber, skipped)
    assert [message for *_, message in told if isinstance(message, m.AudioLost)] == [
        m.AudioLost(part, 0, 3, "lost_on_the_way"),
        m.AudioLost(part, 3, 4, "capture"),
        m.AudioLost(part, 7, 2, "ring"),
    ]
    by_reason = (("capture", 4), ("lost_on_the_way", 3), ("ring", 2))
    assert (recorder.account.lost if part == "media" else transcriber.unheard) == by_reason


def test_the_recorder_tells_the_session_its_account_before_it_passes_measures_on(recorder: RecorderActor) -> None:
    account = m.Account(6, 6, 6 * 640, "d", ())
    assert effects(recorder, kept(6, 6)) == [
        (TELL, SESSION, m.PartReport(1, account)),
        (TELL, QUALITY, kept(6, 6)),
    ]
    done = effects(recorder, m.MediaLost(6, 1, "disk_full"), kept(12, 5, "e", lost=1))
    account = m.Account(12, 11, 11 * 640, "e", (("disk_full", 1),))
    assert done == [
        (TELL, SESSION, m.PartReport(1, account, (), accounted(account))),
        (TELL, QUALITY, kept(12, 5, "e", lost=1)),
    ]
    assert effects(recorder, kept(13, 1))[0][2].record is None


def test_a_report_that_was_set_aside_is_missed_in_no_account(recorder: RecorderActor) -> None:
    effects(recorder, kept(12, 6))
    assert recorder.account == m.Account(12, 12, 12 * 640, "d", ())


def test_the_recorder_closes_once_and_tells_the_whole_account(recorder: RecorderActor) -> None:
    info = RecordingInfo(path="x", sample_rate=16_000, channels=1, samples=3, seconds=0.1, segments=1)
    assert effects(recorder, m.Frames(0, 3, 1920, 1), m.Drain()) == [(PORT, MEDIA, m.CloseMedia("voice-1"))]
    assert effects(recorder, m.Drain()) == []
    assert effects(recorder, m.Frames(3, 1, 640, 1)) == []
    done = effects(recorder, kept(3, 3), m.MediaClosed(info, "end"))
    assert done == [(TELL, SESSION, m.PartAnswer(1, m.Account(3, 3, 1920, "end", (), info)))]
    assert recorder.phase == CLOSED
    assert effects(recorder, m.MediaClosed(None, "again")) == []
    assert effects(recorder, m.Drain()) == done, "the session may have been restarted without the answer"


def test_a_recorder_that_closes_gives_a_silent_port_up_and_declares_what_it_has_not_dealt_with(
    recorder: RecorderActor,
) -> None:
    effects(
        recorder,
        m.Frames(2, 3, 1920, 1),
        m.Frames(5, 4, 2560, 1),
        kept(5, 2, lost=3),
        m.MediaLost(4, 1, "disk_full"),
        m.Drain(),
    )
    done = effects(recorder, m.MediaSilent())
    lost = (("disk_full", 1), ("lost_on_the_way", 2), ("media_silent", 4))
    failed = (TELL, SESSION, m.PortFailed("media", "media_silent"))
    assert done == [failed, (TELL, SESSION, m.PartAnswer(1, m.Account(5, 2, 1280, "d", lost)))]
    assert recorder.phase == CLOSED
    for late in (kept(9, 4), m.MediaClosed(None, "late"), m.MediaSilent()):
        assert effects(recorder, late) == []
    assert recorder.account.lost == lost


def test_a_silent_port_that_has_dealt_with_everything_costs_no_frame(recorder: RecorderActor) -> None:
    done = effects(recorder, m.Frames(0, 3, 1920, 1), kept(3, 3), m.Drain(), m.MediaSilent())
    assert done[1:] == [(TELL, SESSION, m.PartAnswer(1, m.Account(3, 3, 1920, "d", ())))]


def test_a_recorder_that_goes_on_waits_for_a_silent_port_and_says_that_it_failed(recorder: RecorderActor) -> None:
    before = recorder.freeze()
    assert effects(recorder, m.MediaSilent()) == [(TELL, SESSION, m.PortFailed("media", "media_silent"))]
    assert recorder.freeze() == before


def test_what_the_media_port_lost_is_told_to_the_session(recorder: RecorderActor) -> None:
    done = effects(recorder, m.Frames(0, 3, 1920, 1), m.MediaLost(1, 2, "disk_full"))
    assert done == [
        (TELL, SESSION, m.PartReport(1, m.Account(0, 0, 0, "", (("disk_full", 2),)))),
        (TELL, SESSION, m.AudioLost("media", 1, 2, "disk_full")),
    ]


def test_after_a_crash_the_recorder_opens_and_hands_its_last_run_over_again(recorder: RecorderActor) -> None:
    effects(recorder, m.Frames(0, 3, 1920, 1), m.Frames(3, 2, 1280, 1), kept(3, 3))
    fresh, done = after_crash(recorder)
    assert done == [
        (TELL, SESSION, m.PartReport(1, m.Account(3, 3, 1920, "d", ()))),
        (PORT, MEDIA, m.OpenMedia("voice-1", recorder.facts.audio_format, True, ME)),
        (PORT, MEDIA, m.Keep("voice-1", 3, 2)),
    ]
    assert (fresh.account.kept, fresh.expected) == (3, 5)


def test_after_a_crash_while_closing_the_recorder_only_asks_to_close_again(recorder: RecorderActor) -> None:
    effects(recorder, m.Frames(0, 3, 1920, 1), m.Drain())
    fresh, done = after_crash(recorder)
    assert done[:-1] == [(PORT, MEDIA, m.CloseMedia("voice-1"))], "an opening now would begin a second recording"
    assert fresh.phase == DRAINING
    told = effects(fresh, m.MediaClosed(None, "end"))
    assert after_crash(fresh)[1] == told, "the account may not have gone out"


def test_counts_by_reason_are_sorted_and_added_up() -> None:
    counts = counted(counted(counted((), "b", 1), "a", 2), "b", 3)
    assert counts == (("a", 2), ("b", 4))


# --- transcriber -------------------------------------------------------------------------------------------------------


def test_the_transcriber_listens_only_where_there_is_an_engine(
    transcriber: TranscriberActor, facts: Callable[..., m.Facts]
) -> None:
    out = Out(Ref)
    out.me = ME
    transcriber.start(out)
    known = transcriber.facts
    assert out.effects == [(PORT, STT, m.Listen("voice-1", known.stt_engine, known.audio_format, ME))]
    out.effects.clear()
    TranscriberActor(SESSION, 2, STT, DIRECTORY, facts(stt_engine=None)).start(out)
    assert out.effects == []


def test_finished_utterances_are_told_and_joined(transcriber: TranscriberActor) -> None:
    word = m.Word("go", 0, 300, 0.9)
    ((_, to, settled),) = effects(transcriber, m.Frames(0, 9, 5760, 1), m.Utterance("go forward", 0, 900, (word,)))
    assert to is SESSION, "which tells who listens, once it has it in its account"
    assert settled.account == m.Transcribed("go forward", 0, ())
    (news,) = settled.news
    assert news.event_type is VoiceEventType.STT_FINAL
    assert dict(news.payload)["words"] == ({"text": "go", "start_ms": 0, "end_ms": 300, "confidence": 0.9},)
    effects(transcriber, m.Utterance("", 900, 1000), m.Utterance("ten meters", 1000, 1500))
    done = effects(transcriber, m.Drain(), m.Finished())
    assert done == [(TELL, SESSION, m.PartAnswer(2, m.Transcribed("go forward ten meters", 9, ())))]


def test_a_preview_is_told_and_kept_nowhere(transcriber: TranscriberActor) -> None:
    (event,) = effects(transcriber, m.Partial("go fo"))
    assert event[2].event_type is VoiceEventType.STT_PARTIAL
    assert transcriber.texts == ()


def test_what_no_engine_will_hear_is_declared(transcriber: TranscriberActor) -> None:
    settled, told = effects(transcriber, m.Frames(1, 9, 5760, 1), m.Unheard(4, 2, "worker_died"))
    assert settled[2].account == m.Transcribed("", 0, (("lost_on_the_way", 1), ("worker_died", 2)))
    assert settled[2].news[0].event_type is VoiceEventType.ERROR
    assert told == (TELL, SESSION, m.AudioLost("speech", 4, 2, "worker_died"))
    done = effects(transcriber, m.Drain(), m.Finished())
    assert done == [
        (TELL, SESSION, m.PartAnswer(2, m.Transcribed("", 7, (("lost_on_the_way", 1), ("worker_died", 2)))))
    ]


def test_a_transcriber_that_finishes_gives_a_silent_port_up_and_declares_what_was_not_heard(
    transcriber: TranscriberActor,
) -> None:
    effects(
        transcriber,
        m.Frames(1, 9, 5760, 1),
        m.Utterance("go", 0, 40),
        m.Heard(4, 3),
        m.Unheard(6, 2, "worker_died"),
        m.Drain(),
    )
    done = effects(transcriber, m.SpeechSilent("speech_silent"))
    unheard = (("lost_on_the_way", 1), ("speech_silent", 4), ("worker_died", 2))
    told = (TELL, SESSION, m.PartAnswer(2, m.Transcribed("go", 3, unheard)))
    assert done == [
        (PORT, STT, m.Abandon("voice-1")),
        (TELL, SESSION, m.PortFailed("speech", "speech_silent")),
        told,
    ]
    for late in (m.Heard(10, 4), m.Utterance("on", 40, 60), m.Finished(), m.SpeechSilent("speech_silent")):
        assert effects(transcriber, late) == []
    assert effects(transcriber, m.Drain()) == [told]


def test_a_silent_port_that_has_heard_everything_costs_no_frame(transcriber: TranscriberActor) -> None:
    done = effects(transcriber, m.Frames(0, 3, 1920, 1), m.Heard(3, 3), m.Drain(), m.SpeechSilent("worker_silent"))
    assert done[-1] == (TELL, SESSION, m.PartAnswer(2, m.Transcribed("", 3, ())))


def test_a_transcriber_that_goes_on_waits_for_a_silent_port_and_says_that_it_failed(
    transcriber: TranscriberActor,
) -> None:
    before = transcriber.freeze()
    assert effects(transcriber, m.SpeechSilent("speech_silent")) == [
        (TELL, SESSION, m.PortFailed("speech", "speech_silent"))
    ]
    assert transcriber.freeze() == before


def test_a_session_that_asks_again_is_told_again(transcriber: TranscriberActor) -> None:
    effects(transcriber, m.Frames(0, 2, 1280, 1), m.Utterance("yes", 0, 40), m.Drain())
    told = effects(transcriber, m.Finished())
    assert transcriber.phase == DONE
    assert effects(transcriber, m.Drain()) == told == [(TELL, SESSION, m.PartAnswer(2, m.Transcribed("yes", 2, ())))]


def test_an_end_that_nobody_asked_for_is_none(transcriber: TranscriberActor) -> None:
    assert effects(transcriber, m.Finished()) == []
    assert transcriber.phase == OPEN


def test_after_a_crash_the_transcriber_listens_and_hands_its_last_run_over_again(transcriber: TranscriberActor) -> None:
    effects(transcriber, m.Frames(0, 3, 1920, 1), m.Frames(3, 2, 1280, 1))
    _, done = after_crash(transcriber)
    assert [type(work).__name__ for _, _, work in done] == ["PartReport", "Listen", "Hear"]
    assert done[2][2] == m.Hear("voice-1", 3, 2)
    effects(transcriber, m.Drain())
    fresh, done = after_crash(transcriber)
    assert done == [
        (PORT, STT, m.Finish("voice-1")),
        (TELL, SESSION, m.PartReport(2, m.Transcribed("", 0, ()))),
    ]
    told = effects(fresh, m.Finished())
    assert after_crash(fresh)[1] == told, "the text may not have gone out"


# --- quality -----------------------------------------------------------------------------------------------------------


def test_levels_are_means_over_frames_and_shares_over_all(quality: QualityActor) -> None:
    effects(quality, kept(1, 1), m.Kept(4, 3, 0.0, 0.25, 0, 3, 4, 2560, "d"))
    (told,) = effects(quality, m.Drain())
    assert told == (TELL, SESSION, m.PartAnswer(0, m.Levels(4, 0.25, 0.5, 1, 5, 0, 4, 4, 2560, "d")))
    assert quality_of(told[2].account) == Quality(
        level_dbfs=-12.0, peak_dbfs=-6.0, clipped_share=0.25, silent_share=1.25, longest_pause_ms=0
    )
    assert effects(quality, m.Drain()) == [told], "the session may have been restarted without the answer"


def test_the_longest_pause_is_between_arrivals_and_not_before_the_first(quality: QualityActor) -> None:
    for at_ms in (5_000, 5_020, 5_500, 5_520):
        effects(quality, m.Frames(0, 1, 640, at_ms))
    (told,) = effects(quality, m.Drain())
    assert quality_of(told[2].account).longest_pause_ms == 480
    assert quality_of(told[2].account).level_dbfs is None


def test_each_measure_is_told_also_of_frames_that_were_all_lost(quality: QualityActor) -> None:
    levels = m.Levels(6, 1.5, 0.5, 1, 2, 0, 6, 6, 6 * 640, "d")
    news = (m.Metered("voice-1", kept(6, 6)),)
    assert effects(quality, kept(6, 6)) == [(TELL, SESSION, m.PartReport(0, levels, news))]
    lost = m.Kept(9, 0, 0.0, 0.0, 0, 0, 6, 6 * 640, "d")
    told = m.PartReport(0, replace(levels, upto=9), (m.Metered("voice-1", lost),))
    assert effects(quality, lost) == [(TELL, SESSION, told)]


def test_a_measure_is_shown_in_decibels() -> None:
    assert dict(level_fields(kept(6, 6))) == {"frames": 6, "upto_frame": 6, "level_dbfs": -6.0, "peak_dbfs": -6.0}


@pytest.mark.parametrize(("mean_square", "level"), [(1.0, 0.0), (0.25, -6.0), (1e-6, -60.0), (0.0, None)])
def test_decibels_are_relative_to_full_scale(mean_square: float, level: float | None) -> None:
    assert dbfs(mean_square) == level


# --- policy ------------------------------------------------------------------------------------------------------------


def verdict(actor: PolicyActor, facts: m.Facts) -> PolicyVerdict:
    """What the policy actor tells of a request."""
    ((op, to, judged),) = effects(actor, m.Evaluate(facts, SESSION))
    assert (op, to, judged.session_id) == (TELL, SESSION, facts.session_id)
    found: PolicyVerdict = judged.verdict
    return found


def test_the_policy_actor_tells_the_verdict_of_the_pure_policy(facts: Callable[..., m.Facts]) -> None:
    actor = PolicyActor(VoicePolicy())
    assert verdict(actor, facts()).status is RequestStatus.APPROVED
    risky = {"requires_data_access": True}
    assert verdict(actor, facts(metadata=risky)).status is RequestStatus.REQUIRE_ADMIN
    assert verdict(actor, facts(metadata=risky, admin_token_valid=True)).status is RequestStatus.APPROVED


def test_a_request_that_the_policy_cannot_read_is_denied_and_nothing_crashes(facts: Callable[..., m.Facts]) -> None:
    denied = verdict(PolicyActor(VoicePolicy()), facts(metadata={"sensitive_data": "yes"}))
    assert (denied.status, denied.reason_code) == (RequestStatus.DENIED, "INVALID_REQUEST")
    assert "sensitive_data" in denied.hint


@pytest.mark.parametrize(
    ("verdict", "wrong"),
    [
        (None, "not a PolicyVerdict"),
        (PolicyVerdict(status=RequestStatus.APPROVED, reason_code="X"), "names no risk level"),
        (PolicyVerdict(status=RequestStatus.APPROVED, reason_code="X", metadata={"risk_level": "odd"}), "'odd'"),
        (PolicyVerdict(status=RequestStatus.DENIED, reason_code="X", metadata={"a": object()}), "put on record"),
        (PolicyVerdict(status=RequestStatus.DENIED, reason_code="\ud800"), "put on record"),
    ],
)
def test_a_verdict_that_can_not_be_used_is_a_denial(
    verdict: PolicyVerdict | None, wrong: str, facts: Callable[..., m.Facts]
) -> None:
    class Odd(VoicePolicy):
        def evaluate_session_request(self, *_: Any, **__: Any) -> Any:
            return verdict

    ((_, _, judged),) = effects(PolicyActor(Odd()), m.Evaluate(facts(), SESSION))
    assert (judged.verdict.status, judged.verdict.reason_code) == (RequestStatus.DENIED, "POLICY_FAILED")
    assert wrong in judged.verdict.hint
