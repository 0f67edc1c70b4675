"""A session whose process died, and the end that another process writes for it.

The session's records, its stored events and its recording are known. From these come the records, the events and the result
that end it. Of files, this module only reads the recording's samples.
"""

import hashlib
import secrets
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from actors.voice.account import NOTHING_TOLD, PartAccounts, frame_account, session_result
from actors.voice.messages import Account, Transcribed
from agentos.core.communication.voice.recording.segments import sounding
from agentos.core.communication.voice.storage.store import Entry
from agentos.core.time import utc_now, utc_now_ms
from machines.audio import FRAME_MS, AudioEncoding, AudioFormat
from machines.communication import ConnectorType, RequestStatus
from machines.events import VoiceEvent, VoiceEventType
from machines.evidence import EvidenceRecord, record_id, secret_of
from machines.operations import AUDIO_ACCOUNTED, AUDIO_MISMATCHED, SESSION_RESUMED
from machines.reasons import PROCESS_DIED
from machines.recording import RecordingInfo
from machines.recovery import EndMove, end_of_dead_session
from machines.session import (
    AudioMismatch,
    EndReason,
    FrameAccount,
    SessionResult,
    VoiceSession,
    VoiceSessionState,
)

PASSED_EVENTS: Final = (
    1_000_000_000  # more event numbers than the dead process can have used for events it did not store
)
_REASON: Final = EndReason.RECOVERED


@dataclass(frozen=True, slots=True)
class RecordingOnDisk:
    """The recording of a session as it is on the disk.

    `state` is "none" (nothing was recorded), "whole", "differs" (the recording does not begin with the audio that evidence
    says was recorded) or "unreadable" (the disk refused; the segments stay where they are). `digest` is the SHA-256 of the
    received bytes in the recording, empty if unknown; `samples_digest` is that of its samples without gaps.
    """

    state: str
    info: RecordingInfo | None = None
    digest: str = ""
    samples_digest: str = ""


@dataclass(frozen=True, slots=True)
class DeadSession:
    """A session of the dead process `owner`, with its records and stored events in order."""

    session: VoiceSession
    owner: str
    records: Sequence[EvidenceRecord]
    events: Sequence[VoiceEvent]

    @property
    def account(self) -> dict[str, Any] | None:
        """The last account of the session's audio in evidence; None if there is none."""
        for record in reversed(self.records):
            if record.operation in _ACCOUNTS and record.response_summary is not None:
                return {name: record.response_summary[name] for name in _ACCOUNT if name in record.response_summary}
        return None

    def end(self, recording: RecordingOnDisk) -> list[Entry]:
        """The entries that move the session to STOPPED by its state machine, each with the events for its listeners."""
        result = self._result(recording)
        entries: list[Entry] = []
        session, told, number = self.session, _EndEvents(self), self.next_number
        for move in end_of_dead_session(session.state):
            detail: dict[str, Any] = {"reason": _REASON.value}
            if move.final:
                session = session.model_copy(update={"result": result})
                detail["recovered"] = {
                    "owner": self.owner,
                    "state": self.session.state.value,
                    "last_account": self.account,
                    "recording": recording.state,
                }
                detail["result"] = result.model_dump(mode="json")
            session = session.model_copy(update={"state": move.state})
            record = self._record(move.operation, number, session, detail)
            entries.append(Entry(record, session, tuple(told.of(move, result))))
            number += 1
        entries[0] = Entry(entries[0].record, entries[0].session, (*told.missed, *entries[0].events))
        return entries

    @property
    def next_number(self) -> int:
        """The number of the session's next record."""
        numbers = [number for record in self.records if isinstance(number := record.metadata.get("number"), int)]
        return max(numbers, default=0) + 1

    @property
    def secret(self) -> str:
        """The secret that the ids of the session's records are made from."""
        known = next((secret for record in self.records if (secret := secret_of(record.id)) is not None), None)
        return known or self.session.session_id

    @property
    def transcript(self) -> str:
        """The finished utterances that were stored."""
        return " ".join(filter(None, [str(said["text"]) for said in self._finals()]))

    @property
    def spoken(self) -> int:
        """How many frames the stored utterances cover: these were transcribed."""
        return sum((int(said["end_ms"]) - int(said["start_ms"])) // FRAME_MS for said in self._finals())

    @property
    def heard_upto(self) -> int:
        """The frame behind the last stored utterance: at least so many frames were accepted."""
        return max([0, *[int(said["end_ms"]) // FRAME_MS for said in self._finals()]])

    @property
    def mismatches(self) -> tuple[AudioMismatch, ...]:
        """The recorded mismatches of audio and clock, except those of older versions whose values were erased."""
        said = [one.response_summary or {} for one in self.records if one.operation == AUDIO_MISMATCHED]
        fields = [(one.get("reason"), one.get("audio_ms"), one.get("media_ms")) for one in said]
        return tuple(
            [AudioMismatch(str(why), int(audio), int(media)) for why, audio, media in fields if audio and media]
        )

    def _finals(self) -> list[dict[str, Any]]:
        return [event.payload for event in self.events if event.event_type is VoiceEventType.STT_FINAL]

    def untold(self) -> tuple[tuple[VoiceEvent, ...], int]:
        """The events that the dead process did not store though their moves are in evidence, and the number for the next
        event, above all that listeners were told."""
        events = _EndEvents(self)
        return tuple(events.missed), events.next_number

    def _record(self, operation: str, number: int, session: VoiceSession, detail: dict[str, Any]) -> EvidenceRecord:
        latest = self.records[-1] if self.records else None
        return EvidenceRecord(
            id=record_id(self.secret, None if session.result is not None else number),
            request_id=session.session_id,
            connector_type=ConnectorType.CUSTOM,
            operation=operation,
            request_summary={"session_id": session.session_id} if latest is None else latest.request_summary,
            response_summary={"state": session.state.value, **detail},
            status=RequestStatus.FAILED,
            metadata={
                "audit_trace_id": session.audit_trace_id,
                "risk_tier": session.risk_tier.value,
                "verdict": session.policy_verdict.reason_code,
                "number": number,
            },
            created_at=utc_now(),
        )

    def _result(self, recording: RecordingOnDisk) -> SessionResult:
        frames = frames_of(self.session, self.account or {}, recording, self.spoken, self.heard_upto)
        told = PartAccounts(
            recorder=replace(NOTHING_TOLD.recorder, recording=recording.info),
            transcriber=replace(NOTHING_TOLD.transcriber, text=self.transcript),
        )
        result = session_result(_REASON, told, frames, drained=False, mismatches=self.mismatches)
        return replace(result, stopped_at=utc_now())


_ACCOUNTS: Final = (AUDIO_ACCOUNTED, SESSION_RESUMED)
_ACCOUNT: Final = ("upto_frame", "accounted", "bytes", "digest", "dropped")


class _EndEvents:
    """The events that end a session, numbered above all that the dead process can have told, and in `missed` the events of
    recorded moves that it did not store."""

    def __init__(self, dead: DeadSession) -> None:
        self._session = dead.session
        self._active = any(_state(record) == VoiceSessionState.ACTIVE.value for record in dead.records)
        self._told = {(event.event_type, event.payload.get("state")) for event in dead.events}
        self._number = max((event.number for event in dead.events), default=0) + PASSED_EVENTS
        self.missed: list[VoiceEvent] = []
        self._catch_up()

    @property
    def next_number(self) -> int:
        return self._number + 1

    def _catch_up(self) -> None:
        """Make the events of the moves that are in evidence and in no stored event."""
        if all(kind is not VoiceEventType.SESSION_STARTED for kind, _ in self._told):
            created, engine = VoiceSessionState.CREATED.value, self._session.stt_engine
            self.missed.append(self.event(VoiceEventType.SESSION_STARTED, state=created, stt_engine=engine))
        moves = [VoiceSessionState.ACTIVE] if self._active else []
        if self._session.state is VoiceSessionState.STOPPING:
            moves.append(VoiceSessionState.STOPPING)
        for state in moves:
            if (VoiceEventType.STATE_CHANGED, state.value) not in self._told:
                self.missed.append(self.event(VoiceEventType.STATE_CHANGED, state=state.value))

    def of(self, move: EndMove, result: SessionResult) -> Iterator[VoiceEvent]:
        """The events that tell listeners of one move of the end."""
        if move.final:
            yield self.event(VoiceEventType.TRANSCRIPT_READY, text=result.transcript)
            yield self.event(VoiceEventType.SESSION_STOPPED, reason=_REASON.value)
        else:
            yield self.event(VoiceEventType.STATE_CHANGED, state=move.state.value)

    def event(self, kind: VoiceEventType, **payload: str) -> VoiceEvent:
        self._number += 1
        return VoiceEvent(
            event_id=f"evt-{secrets.token_hex(8)}",
            session_id=self._session.session_id,
            event_type=kind,
            payload=payload,
            timestamp_ms=utc_now_ms(),
            metadata={"audit_trace_id": self._session.audit_trace_id},
            number=self._number,
        )


def _state(record: EvidenceRecord) -> Any:
    return None if record.response_summary is None else record.response_summary.get("state")


def frames_of(
    session: VoiceSession, account: dict[str, Any], recording: RecordingOnDisk, spoken: int = 0, heard_upto: int = 0
) -> FrameAccount:
    """The account of all frames that are known to have been accepted: by the last `account`, by the recording, or because
    they are below `heard_upto`.

    Accepted frames of a recorded call that are not on the disk are dropped as `process_died`. The progress of speech to text
    died with the process, so only the `spoken` frames of the stored utterances count as transcribed.
    """
    dropped: dict[str, int] = dict(account.get("dropped", {}))
    accounted = int(account.get("accounted", 0))
    # The account may have frames that were lost on their way to the media port before the port reaches them.
    accepted = max(int(account.get("upto_frame", 0)), accounted + sum(dropped.values()), heard_upto)
    n_bytes, digest = int(account.get("bytes", 0)), str(account.get("digest", ""))
    recorded = 0
    if session.recording_enabled and recording.state != "unreadable":
        there, written, samples = _on_disk(session.audio_format, recording.info)
        accepted = max(accepted, there)
        recorded = max(0, min(written, accepted - sum(dropped.values())))
        exact = recorded == written
        if recording.digest or recorded != accounted:  # otherwise the account's bytes and digest fit to the frame
            digest = recording.digest if exact else ""
            a_sample, a_frame = session.audio_format.sample_bytes, session.audio_format.frame_bytes
            n_bytes = samples * a_sample if exact else recorded * a_frame
        accounted = recorded
    told = PartAccounts(
        recorder=Account(accepted, accounted, n_bytes, digest, tuple(sorted(dropped.items()))),
        transcriber=Transcribed("", min(spoken, accepted), ()),
    )
    on_disk, transcribed = bool(recorded), session.stt_engine != "none"
    return frame_account(told, accepted, PROCESS_DIED, recorded=on_disk, transcribed=transcribed)


def _on_disk(audio_format: AudioFormat, info: RecordingInfo | None) -> tuple[int, int, int]:
    """The recording's frames up to its end, its frames without the gaps, and its sample instants without the gaps."""
    if info is None:
        return 0, 0, 0
    silent = sum(count for _, count in info.gaps)
    frame = audio_format.frame_samples
    there = -(-info.samples // frame)
    # A gap may begin within a short frame: that frame is there.
    lost = sum((first + count) // frame - -(-first // frame) for first, count in info.gaps)
    return there, there - lost, info.samples - silent


def recording_steps(
    dead: DeadSession, info: RecordingInfo, files: Sequence[Path], digest: "hashlib._Hash | None" = None
) -> Generator[None, None, RecordingOnDisk]:
    """Read the recording in `files`, a block a step, and compare it with the last account.

    The samples without gaps are also fed to `digest`, if given. A mu-law call can't be compared with its account, because
    two mu-law codes decode to one sample. Raises `RecordingError`.
    """
    account = dead.account or {}
    whole, begin = digest or hashlib.sha256(), hashlib.sha256()
    left = known = int(account.get("bytes", 0))
    for block in sounding(files, info.gaps):
        whole.update(block)
        begin.update(block[:left])
        left -= min(left, len(block))
        yield
    samples = whole.hexdigest()
    if dead.session.audio_format.encoding is not AudioEncoding.PCM_S16LE:
        return RecordingOnDisk("whole", info, samples_digest=samples)
    same = not known or begin.hexdigest() == account.get("digest")
    return RecordingOnDisk("whole" if same or left else "differs", info, samples, samples)
