"""Sessions of a dead process are moved to STOPPED by another one, once, with all that is known of them."""

import errno
import hashlib
import threading
from array import array
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.voice.audio import mulaw
from agentos.core.communication.voice.errors import LocksUnavailable, StoreError
from agentos.core.communication.voice.recording.finishing import Finishing
from agentos.core.communication.voice.recording.recordings import RecordingWriter
from agentos.core.communication.voice.recording.segments import RecordingError
from agentos.core.communication.voice.recovery import recovery as module
from agentos.core.communication.voice.recovery.dead_session import PASSED_EVENTS
from agentos.core.communication.voice.recovery.recovery import Recovery
from agentos.core.communication.voice.recovery.recurring import RecurringRecovery
from agentos.core.communication.voice.storage.file_locks import FileLocks
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.spill import SpillFile
from agentos.core.communication.voice.storage.store import Entry, VoiceStore
from agentos.core.communication.voice.storage.tables import EVENTS, SESSIONS, EventRow
from machines.audio import AudioEncoding, AudioFormat
from machines.communication import ConnectorType, PolicyVerdict, RequestStatus, RiskLevel
from machines.events import VoiceEvent, VoiceEventType
from machines.evidence import EvidenceRecord, record_id
from machines.recording import RecordingState
from machines.session import (
    AudioMismatch,
    EndReason,
    FrameAccount,
    SessionResult,
    STTProvider,
    VoiceProvider,
    VoiceSession,
    VoiceSessionState,
)

BORN = datetime(2026, 11, 22, 12, 0, 0, 123_000, tzinfo=UTC)
CREATED, ACTIVE, STOPPING, STOPPED = VoiceSessionState
OPERATIONS = {
    CREATED: "session_created",
    ACTIVE: "session_active",
    STOPPING: "session_stopping",
    STOPPED: "session_stopped",
}
PHONE = AudioFormat(encoding=AudioEncoding.MULAW, sample_rate=8_000)


def session(name: str = "1", state: VoiceSessionState = CREATED, **changes: Any) -> VoiceSession:
    fields: dict[str, Any] = {
        "session_id": f"voice-{name}",
        "project_id": "p",
        "provider": VoiceProvider.LOCAL,
        "stt_provider": STTProvider.POCKETSPHINX,
        "stt_engine": "pocketsphinx",
        "state": state,
        "created_at": BORN,
        "last_activity_at": BORN,
        "risk_tier": RiskLevel.MEDIUM,
        "policy_verdict": PolicyVerdict(status=RequestStatus.APPROVED, reason_code="OK"),
        "audit_trace_id": "audit-1",
    }
    return VoiceSession(**{**fields, **changes})


def record(of: VoiceSession, number: int | None, operation: str = "", **response: Any) -> EvidenceRecord:
    return EvidenceRecord(
        id=record_id(f"secret{of.session_id}", number),
        request_id=of.session_id,
        connector_type=ConnectorType.CUSTOM,
        operation=operation or OPERATIONS[of.state],
        request_summary={"session_id": of.session_id, "metadata": {"a": 1}},
        response_summary={"state": of.state.value, **response},
        metadata={"audit_trace_id": "audit-1", "number": number},
        created_at=BORN,
    )


def event(of: VoiceSession, number: int, kind: VoiceEventType, **payload: Any) -> VoiceEvent:
    return VoiceEvent(
        event_id=f"evt-{number}",
        session_id=of.session_id,
        event_type=kind,
        payload=payload,
        timestamp_ms=1,
        number=number,
    )


def sound(frames: int) -> bytes:
    return array("h", [(at * 7919) % 60_000 - 30_000 for at in range(frames * 320)]).tobytes()


class Home:
    """A home in which a process that is dead has left sessions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recordings = folder / "recordings"
        self.store = open_store(folder / "voice.db", busy_timeout_seconds=5)

    def leave(self, of: VoiceSession, *more: EvidenceRecord, owner: str = "dead", events: Any = ()) -> VoiceSession:
        """Evidence of each move until its state, then `more`, and its kept events."""
        states = [CREATED, ACTIVE, STOPPING][: [CREATED, ACTIVE, STOPPING].index(of.state) + 1]
        snapshots = [of.model_copy(update={"state": state}) for state in states]
        entries = [Entry(record(snapshot, number), snapshot) for number, snapshot in enumerate(snapshots, 1)]
        self.store.append([*entries, *(Entry(one) for one in more)], owner)
        self.store.add_events(events)
        return of

    def write(self, of: VoiceSession, pcm: bytes, *, first: int = 0, segment_seconds: int = 1) -> RecordingWriter:
        """Record as the dead process did, and do not close."""
        writer = RecordingWriter(
            self.recordings / of.session_id, of.audio_format, kind="flac", segment_seconds=segment_seconds
        )
        writer.write(first, pcm)
        return writer

    def recover(self) -> list[VoiceSession]:
        report = Recovery(self.store, self.recordings, "flac").run()
        assert report.problems == ()
        return list(report.recovered)

    def result(self, of: VoiceSession) -> SessionResult:
        """Of the session, recovered."""
        assert [found.session_id for found in self.recover()] == [of.session_id]
        found = self.store.session(of.session_id)
        assert found is not None
        assert found.state is STOPPED
        assert found.result is not None
        if found.result.recording is not None:
            assert found.result.recording.state is RecordingState.FINISHING
            report = Finishing(self.store, self.recordings, "flac").run()
            assert [ready.path for ready in report.ready] == [found.result.recording.path]
        frames = found.result.frames
        assert frames.accepted == frames.accounted + sum(frames.dropped.values())
        assert frames.accepted == frames.transcribed + sum(frames.untranscribed.values())
        return found.result

    def operations(self, of: VoiceSession) -> list[str]:
        return [found.operation for found in self.store.evidence(of.session_id)]


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    with home.store:
        yield home
        assert home.store.verify().ok


# Moved to STOPPED, once


@pytest.mark.parametrize("state", [CREATED, ACTIVE, STOPPING])
def test_from_every_state_it_goes_to_stopped_by_legal_moves_with_evidence(left: Home, state: VoiceSessionState) -> None:
    of = left.leave(session(state=state))
    assert [found.session_id for found in left.store.sessions_of_the_dead()] == [of.session_id]
    result = left.result(of)
    assert (result.reason, result.drained) == (EndReason.RECOVERED, False)
    before = [OPERATIONS[known] for known in (CREATED, ACTIVE, STOPPING)][
        : [CREATED, ACTIVE, STOPPING].index(state) + 1
    ]
    added = ["session_stopped"] if state is STOPPING else ["session_stopping", "session_stopped"]
    assert left.operations(of) == [*before, *added]
    last = left.store.evidence(of.session_id)[-1]
    assert last.id == record_id("secretvoice-1", None)
    assert last.status is RequestStatus.FAILED
    assert last.request_summary == {"session_id": "voice-1", "metadata": {"a": 1}}
    assert last.metadata == {
        "audit_trace_id": "audit-1",
        "risk_tier": "medium",
        "verdict": "OK",
        "number": len(before) + len(added),
    }
    assert last.response_summary is not None
    assert last.response_summary["reason"] == "recovered"
    assert last.response_summary["recovered"] == {
        "owner": "dead",
        "state": state.value,
        "last_account": None,
        "recording": "none",
    }
    assert left.store.unfinished() == {}
    assert left.recover() == []
    assert list(left.folder.glob("*.owner")) == []


def test_what_somebody_owns_is_not_touched(left: Home) -> None:
    of = left.leave(session(), owner="living")
    mine = FileLocks(left.folder).take("living")
    report = Recovery(left.store, left.recordings, "flac").run()
    assert (report.recovered, report.owned) == ((), 1)
    assert left.store.sessions_of_the_dead() == []
    assert [found.session_id for found in left.store.sessions_of_the_living()] == [of.session_id]
    mine.release()
    assert left.result(of).reason is EndReason.RECOVERED


@pytest.mark.parametrize("owner", ["", "not a file's name"])
def test_what_nobody_ever_owned_is_ended_too(left: Home, owner: str) -> None:
    of = left.leave(session(), owner=owner)
    assert left.result(of).reason is EndReason.RECOVERED


def test_a_session_without_a_record_of_the_usual_form_is_ended_once(left: Home) -> None:
    of = session()
    left.store.append([Entry(record(of, 1).model_copy(update={"id": "imported", "metadata": {}}), of)], "dead")
    left.result(of)
    assert left.store.evidence(of.session_id)[-1].id == "ev-voice-1-final"


def test_two_that_recover_at_once_write_one_end(left: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if both believe that they hold the lock."""
    for number in range(20):
        left.leave(session(str(number)))
    monkeypatch.setattr(FileLocks, "take_over", lambda *_: FileLocks(left.folder).take(threading.current_thread().name))
    threads = [threading.Thread(target=left.recover) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(20):
        assert left.operations(session(str(number))) == ["session_created", "session_stopping", "session_stopped"]


def test_what_was_spilled_goes_in_first(left: Home) -> None:
    of = left.leave(session(state=STOPPING))
    result = SessionResult(reason=EndReason.STOPPED, frames=FrameAccount(accepted=7, accounted=7))
    ended = of.model_copy(update={"state": STOPPED, "result": result})
    other = session("2", state=STOPPING)
    with SpillFile.open(left.folder, "dead", 65_536) as spill:
        spill.add([Entry(record(ended, None), ended), Entry(record(other, 1), other)])
    assert [found.session_id for found in left.recover()] == ["voice-2"]  # its last record was torn
    assert left.store.session(of.session_id) == ended
    assert left.operations(of)[-1] == "session_stopped"
    assert list(left.folder.glob("*.spill")) == []


def test_a_spill_file_in_use_holds_the_recovery_back(left: Home) -> None:
    left.leave(session())
    with SpillFile.open(left.folder, "dead", 65_536):
        report = Recovery(left.store, left.recordings, "flac").run()
        assert report.recovered == ()
        assert "open in another process" in report.problems[0]
    assert len(left.recover()) == 1


def test_a_spill_file_that_can_not_be_read_stays_and_does_not_keep_sessions_open(left: Home) -> None:
    left.leave(session())
    (left.folder / "dead.spill").write_bytes(b"of another version")
    assert len(left.recover()) == 1
    assert (left.folder / "dead.spill").read_bytes() == b"of another version"


def test_nothing_comes_behind_the_final_record(left: Home) -> None:
    of = left.leave(session(state=ACTIVE))
    left.recover()
    late = of.model_copy(update={"state": STOPPED})
    for entry in (Entry(record(of, 9, "audio_accounted"), of), Entry(record(late, None), late)):
        left.store.append([entry])
    assert left.operations(of) == ["session_created", "session_active", "session_stopping", "session_stopped"]
    found = left.store.session(of.session_id)
    assert found is not None
    assert found.result is not None


# What is known of it


def test_without_a_recording_the_last_account_is_the_account(left: Home) -> None:
    of = session(state=ACTIVE)
    known = {"accounted": 90, "bytes": 57_600, "digest": "abc", "dropped": {"missing": 10}}
    left.leave(of, record(of, 3, "audio_accounted", upto_frame=50, accounted=50, bytes=3, digest="x", dropped={}))
    left.store.append([Entry(record(of, 4, "audio_accounted", upto_frame=100, **known))])
    assert left.result(of).frames == FrameAccount(
        accepted=100,
        accounted=90,
        dropped={"missing": 10},  # type: ignore[arg-type]
        untranscribed={"process_died": 100},  # type: ignore[arg-type]
        bytes=57_600,
        digest="abc",
    )
    detail = left.store.evidence(of.session_id)[-1].response_summary
    assert detail is not None
    assert detail["recovered"]["last_account"] == {"upto_frame": 100, **known}


@pytest.mark.parametrize("recording", [False, True])
def test_losses_beyond_what_the_port_had_dealt_with_make_no_negative_count(left: Home, recording: bool) -> None:
    of = session(state=ACTIVE, recording_enabled=recording)
    known = {"accounted": 60, "bytes": 60 * 640, "digest": "x", "dropped": {"lost_on_the_way": 40}}
    left.leave(of, record(of, 3, "audio_accounted", upto_frame=60, **known))
    if recording:
        left.write(of, sound(60))
    frames = left.result(of).frames
    assert (frames.accepted, frames.accounted, frames.dropped) == (100, 60, {"lost_on_the_way": 40})


def test_a_recording_is_finished_and_accounted_to_its_last_byte(left: Home) -> None:
    of = session(state=ACTIVE, recording_enabled=True, stt_engine="none")
    begin = hashlib.sha256(sound(100)).hexdigest()
    left.leave(
        of, record(of, 3, "audio_accounted", upto_frame=100, accounted=100, bytes=64_000, digest=begin, dropped={})
    )
    left.write(of, sound(130)[:-10])
    result = left.result(of)
    assert result.recording is not None
    samples, _ = soundfile.read(result.recording.path, dtype="int16")
    assert samples.tobytes() == sound(130)[:-10]
    assert (
        result.frames
        == FrameAccount(
            accepted=130,
            accounted=130,
            recorded=130,
            untranscribed={"no_engine": 130},  # type: ignore[arg-type]
            bytes=130 * 640 - 10,
            digest=hashlib.sha256(sound(130)[:-10]).hexdigest(),
        )
    )
    detail = left.store.evidence(of.session_id)[-1].response_summary
    assert detail is not None
    assert detail["recovered"]["recording"] == "whole"


def test_what_was_accounted_and_is_not_on_the_disk_is_declared_as_lost(left: Home) -> None:
    of = session(state=ACTIVE, recording_enabled=True)
    known = {"accounted": 98, "bytes": 98 * 640, "digest": "of all", "dropped": {"missing": 2}}
    mismatched = record(of, 4, "audio_mismatched", reason="too_much_audio", audio_ms=2_000, media_ms=1_000)
    left.leave(of, record(of, 3, "audio_accounted", upto_frame=100, **known), mismatched)
    left.write(of, sound(60))  # a power cut took the rest
    result = left.result(of)
    frames = result.frames
    assert (frames.accepted, frames.accounted, frames.recorded) == (100, 60, 60)
    assert frames.dropped == {"missing": 2, "process_died": 38}
    assert (frames.bytes, frames.digest) == (60 * 640, hashlib.sha256(sound(60)).hexdigest())
    assert result.recording is not None
    assert (result.recording.samples, result.recording.gaps) == (100 * 320, ((60 * 320, 40 * 320),))
    assert result.mismatches == (AudioMismatch("too_much_audio", 2_000, 1_000),)


def test_a_short_frame_before_a_pause_at_the_end_counts_as_recorded(left: Home) -> None:
    of = session(state=ACTIVE, recording_enabled=True)
    left.leave(of)
    left.write(of, sound(10)[:-100]).close(15)
    result = left.result(of)
    assert result.recording is not None
    assert result.recording.samples == 15 * 320
    assert (result.frames.accepted, result.frames.recorded, result.frames.dropped) == (15, 10, {"process_died": 5})
    assert result.frames.bytes == 10 * 640 - 100


def test_a_recording_of_which_nothing_is_left_is_all_lost(left: Home) -> None:
    of = session(state=ACTIVE, recording_enabled=True)
    left.leave(of, record(of, 3, "audio_accounted", upto_frame=9, accounted=9, bytes=9 * 640, digest="x", dropped={}))
    result = left.result(of)
    assert result.recording is None
    assert result.frames.dropped == {"process_died": 9}
    assert (result.frames.bytes, result.frames.digest) == (0, "")


def test_gaps_are_neither_recorded_nor_digested(left: Home) -> None:
    of = session(state=ACTIVE, recording_enabled=True)
    left.leave(of)
    writer = left.write(of, sound(10))
    writer.write(60, sound(50))
    result = left.result(of)
    assert result.recording is not None
    assert result.recording.gaps == ((10 * 320, 50 * 320),)
    frames = result.frames
    assert (frames.accepted, frames.accounted, frames.dropped) == (110, 60, {"process_died": 50})
    expected = sound(10) + sound(50)
    assert (frames.bytes, frames.digest) == (len(expected), hashlib.sha256(expected).hexdigest())


def test_losses_that_evidence_knows_are_not_counted_as_recorded_silence(left: Home) -> None:
    of = session(state=ACTIVE, recording_enabled=True)
    known = {"accounted": 30, "bytes": 30 * 640, "digest": "x", "dropped": {"missing": 5}}
    left.leave(of, record(of, 3, "audio_accounted", upto_frame=35, **known))
    left.write(of, sound(10)).write(15, sound(20))
    frames = left.result(of).frames
    assert (frames.accepted, frames.accounted, frames.recorded) == (35, 30, 30)
    assert frames.dropped == {"missing": 5}
    assert frames.bytes == 30 * 640


def test_a_recording_that_is_not_what_evidence_says_is_told_as_different(left: Home) -> None:
    of = session(state=ACTIVE, recording_enabled=True)
    left.leave(
        of, record(of, 3, "audio_accounted", upto_frame=5, accounted=5, bytes=5 * 640, digest="other", dropped={})
    )
    left.write(of, sound(10))
    left.result(of)
    detail = left.store.evidence(of.session_id)[-1].response_summary
    assert detail is not None
    assert detail["recovered"]["recording"] == "differs"


def test_telephone_audio_keeps_the_digest_of_what_was_accounted(left: Home) -> None:
    codes = bytes(range(256)) * 5
    digest = hashlib.sha256(codes[:1280]).hexdigest()
    for name, frames, expected in (("1", 8, digest), ("2", 7, "")):
        of = session(name, state=ACTIVE, recording_enabled=True, audio_format=PHONE)
        known = {"accounted": frames, "bytes": frames * 160, "digest": digest, "dropped": {}}
        left.leave(of, record(of, 3, "audio_accounted", upto_frame=frames, **known))
        left.write(of, codes)
        result = left.result(of)
        assert result.recording is not None
        samples, _ = soundfile.read(result.recording.path, dtype="int16")
        assert samples.tobytes() == mulaw.decode(codes).tobytes()
        assert (result.frames.accounted, result.frames.bytes, result.frames.digest) == (8, 1280, expected)


def test_a_recording_that_can_not_be_read_does_not_keep_its_session_open(left: Home) -> None:
    of = session(state=ACTIVE, recording_enabled=True)
    left.leave(of, record(of, 3, "audio_accounted", upto_frame=5, accounted=5, bytes=3_200, digest="x", dropped={}))
    left.write(of, sound(60))
    (left.recordings / of.session_id / "recording.json").write_text("{")
    result = left.result(of)
    assert result.recording is None
    assert (result.frames.accounted, result.frames.recorded, result.frames.digest) == (5, 0, "x")
    detail = left.store.evidence(of.session_id)[-1].response_summary
    assert detail is not None
    assert detail["recovered"]["recording"] == "unreadable"
    assert (left.recordings / of.session_id / "000000.flac").exists()


def test_a_full_disk_is_waited_for(left: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    of = session(state=ACTIVE, recording_enabled=True)
    left.leave(of)
    left.write(of, sound(60))
    with monkeypatch.context() as patch:

        def full(*_: Any) -> Any:
            raise RecordingError(errno.ENOSPC, "No space left on device", "recording.json")

        patch.setattr(module, "mended", full)
        report = Recovery(left.store, left.recordings, "flac").run()
        assert report.recovered == ()
        assert "the disk is full" in report.problems[0]
    assert left.result(of).frames.recorded == 60


# What a listener reads


def test_a_listener_reads_every_move_once_and_the_end_behind_all_it_can_have_seen(left: Home) -> None:
    of = session(state=ACTIVE)
    kept = [
        event(of, 1, VoiceEventType.SESSION_STARTED, state="created"),
        event(of, 9, VoiceEventType.STT_FINAL, text="go forward", start_ms=0, end_ms=40),
        event(of, 12, VoiceEventType.STT_FINAL, text="ten meters", start_ms=60, end_ms=90),
    ]
    left.leave(of, events=kept)
    assert left.result(of).transcript == "go forward ten meters"
    told = left.store.events(of.session_id)
    assert told[:3] == kept
    assert [(found.event_type.value, dict(found.payload)) for found in told[3:]] == [
        ("state_changed", {"state": "active"}),  # it had not come into the store
        ("state_changed", {"state": "stopping"}),
        ("transcript_ready", {"text": "go forward ten meters"}),
        ("session_stopped", {"reason": "recovered"}),
    ]
    numbers = [found.number for found in told]
    assert numbers == sorted(set(numbers))
    assert numbers[3] > 12 + PASSED_EVENTS
    assert {found.metadata.get("audit_trace_id") for found in told[3:]} == {"audit-1"}


def test_what_was_heard_was_accepted_though_no_account_and_no_recording_has_it(left: Home) -> None:
    of = session(state=ACTIVE)
    left.leave(of, events=[event(of, 2, VoiceEventType.STT_FINAL, text="go forward", start_ms=20, end_ms=60)])
    frames = left.result(of).frames
    assert (frames.accepted, frames.transcribed, frames.untranscribed) == (3, 2, {"process_died": 1})
    assert frames.accepted == frames.accounted + sum(frames.dropped.values())


def test_of_a_session_nobody_was_told_of_the_whole_course_is_told(left: Home) -> None:
    of = left.leave(session(state=STOPPING))
    left.recover()
    told = [(found.event_type.value, found.payload.get("state")) for found in left.store.events(of.session_id)]
    assert told == [
        ("session_started", "created"),
        ("state_changed", "active"),
        ("state_changed", "stopping"),
        ("transcript_ready", None),
        ("session_stopped", None),
    ]


# When it can't go on


def test_one_damaged_session_does_not_hold_up_the_others(left: Home) -> None:
    for name in ("1", "2", "3"):
        left.leave(session(name))
    with left.store.transaction() as writing:
        writing.add(EVENTS, [EventRow("voice-2", 1, "no event")])
    report = Recovery(left.store, left.recordings, "flac").run()
    assert [found.session_id for found in report.recovered] == ["voice-1", "voice-3"]
    assert "'voice-2'" in report.problems[0]
    with left.store.transaction() as writing:
        writing.delete(EVENTS, [("voice-2", 1)])
    assert [found.session_id for found in left.recover()] == ["voice-2"]


def test_one_that_is_stored_as_stopped_and_as_running_at_once_does_not_hold_up_the_others(left: Home) -> None:
    """A power cut may leave a page of the database older than the others."""
    for name in ("1", "2", "3"):
        left.leave(session(name, ACTIVE))
    with left.store.transaction() as writing:
        (row,) = writing.select(SESSIONS, {"session_id": ["voice-2"]})
        writing.put(SESSIONS, [row._replace(snapshot=session("2", STOPPED).model_dump_json())])
    report = Recovery(left.store, left.recordings, "flac").run()
    assert [ended.session_id for ended in report.recovered] == ["voice-1", "voice-3"]
    (problem,) = report.problems
    assert "'voice-2'" in problem
    assert "damaged" in problem
    assert left.store.verify().ok


def test_a_store_that_fails_is_a_problem_and_what_was_ended_before_is_told(
    left: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1", "2", "3"):
        left.leave(session(name))
    append, left_to_do = VoiceStore.append, [None]

    def fails(store: VoiceStore, *arguments: Any) -> None:
        if not left_to_do:
            raise StoreError("locked", kind="locked")
        left_to_do.pop()
        append(store, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(VoiceStore, "append", fails)
        report = Recovery(left.store, left.recordings, "flac").run()
        assert len(report.recovered) == 1
        assert report.problems == ("the sessions of 'dead' can't be ended yet: locked",)
    assert len(left.recover()) == 2


def test_it_is_given_up_between_two_steps_and_the_next_one_goes_on(left: Home) -> None:
    of = session(state=ACTIVE, recording_enabled=True)
    left.leave(of)
    left.write(of, sound(400))
    steps = 0
    for allowed in range(40):
        left_over = allowed

        def wanted() -> bool:
            nonlocal left_over
            left_over -= 1
            return left_over >= 0

        report = Recovery(left.store, left.recordings, "flac").run(wanted)
        if report.recovered:
            break
        steps += 1
    assert steps > 3
    found = left.store.session(of.session_id)
    assert found is not None
    assert found.result is not None
    assert found.result.frames.recorded == 400


# Again and again


def until(condition: Callable[[], bool]) -> None:
    done = threading.Event()
    for _ in range(3000):
        if condition():
            return
        done.wait(0.01)  # a thread is at it
    pytest.fail("it did not come to be in time")


def test_it_recurs_until_it_is_closed(left: Home, caplog: pytest.LogCaptureFixture) -> None:
    before: list[None] = []
    recurring = RecurringRecovery(
        Recovery(left.store, left.recordings, "flac"), 0.01, before=lambda: before.append(None)
    )
    recurring.start()
    try:
        for name in ("1", "2"):
            of = left.leave(session(name))
            until(lambda of=of: left.operations(of)[-1] == "session_stopped")  # type: ignore[misc]
    finally:
        assert recurring.close(30)
    count = len(before)
    assert count >= 2
    assert recurring.close(0)


def test_a_failure_does_not_end_it(left: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[Exception] = [ValueError("a bug"), LocksUnavailable(left.folder)]
    run = Recovery.run

    def fails(recovery: Recovery, *arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return run(recovery, *arguments)

    monkeypatch.setattr(Recovery, "run", fails)
    of = left.leave(session())
    recurring = RecurringRecovery(Recovery(left.store, left.recordings, "flac"), 0.01, before=lambda: None)
    recurring.start()
    try:
        until(lambda: left.operations(of)[-1] == "session_stopped")
    finally:
        assert recurring.close(30)


def test_one_that_was_never_started_has_nothing_to_close(left: Home) -> None:
    assert RecurringRecovery(Recovery(left.store, left.recordings, "flac"), 1, before=lambda: None).close(0)
