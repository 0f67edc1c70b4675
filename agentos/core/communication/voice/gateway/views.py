"""The models of the API's requests and replies: frozen, with examples, and without any field that is not declared.

A view shows nothing of the inside of the server: no path of a file, no owner, no secret.
"""

from datetime import datetime
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from agentos.core.communication.voice.gateway.problems import Problem
from agentos.core.communication.voice.running.request import MAX_PROJECT_ID
from agentos.core.communication.voice.settings import LONGEST_SILENCE_SECONDS
from agentos.core.communication.voice.storage.chain import StoredLink
from machines.audio import AudioFormat
from machines.communication import PolicyVerdict, RiskLevel
from machines.cross_checks import Disagreements
from machines.events import VoiceEvent
from machines.evidence import EvidenceRecord
from machines.heads import HeadState
from machines.names import MAX_NAME, text_of
from machines.recording import RecordingInfo, RecordingState
from machines.session import (
    AudioMismatch,
    EndReason,
    FrameAccount,
    Quality,
    SessionResult,
    STTProvider,
    VoiceProvider,
    VoiceSession,
    VoiceSessionState,
)
from machines.verification import Examination

_ID: Final = "voice-4f0c3a9d1e2b5c6d7e8f9a0b"
_AT: Final = "2026-03-01T12:00:00.125Z"
_VERDICT: Final = {
    "status": "approved",
    "reason_code": "VOICE_SESSION_APPROVED",
    "hint": "approved with risk tier low",
    "metadata": {
        "risk_level": "low",
        "factors": [],
        "provider": "local",
        "stt_provider": "pocketsphinx",
        "admin_token_required": False,
        "admin_token_valid": False,
    },
}
_RECORDING: Final = {
    "sample_rate": 16000,
    "channels": 1,
    "samples": 48000,
    "seconds": 3.0,
    "segments": 1,
    "gaps": [],
    "state": "ready",
    "digest": "7d5c8f0c0f6a1c0fbb3d0a4e9b1c2d3e4f5061728394a5b6c7d8e9f00112233f",
    "recording_id": "rec-9b1c2d3e4f506172",
}
_RESULT: Final = {
    "reason": "stopped",
    "drained": True,
    "stopped_at": "2026-03-01T12:00:03.500Z",
    "frames": {
        "accepted": 150,
        "accounted": 150,
        "recorded": 150,
        "transcribed": 150,
        "dropped": {},
        "untranscribed": {},
        "bytes": 96000,
        "leftover_bytes": 0,
        "digest": "7d5c8f0c0f6a1c0fbb3d0a4e9b1c2d3e4f5061728394a5b6c7d8e9f00112233f",
    },
    "transcript": "go forward ten meters",
    "recording": _RECORDING,
    "quality": {
        "level_dbfs": -21.5,
        "peak_dbfs": -3.1,
        "clipped_share": 0.0,
        "silent_share": 0.2,
        "longest_pause_ms": 24,
    },
    "mismatches": [],
    "parts": {},
}
_SESSION: Final = {
    "session_id": _ID,
    "project_id": "demo",
    "provider": "local",
    "stt_provider": "pocketsphinx",
    "stt_engine": "pocketsphinx",
    "stt_options": {},
    "state": "stopped",
    "created_at": _AT,
    "last_activity_at": "2026-03-01T12:00:03.125Z",
    "risk_tier": "low",
    "audit_trace_id": "audit-0a1b2c3d4e5f6071",
    "metadata": {"recording_enabled": True},
    "audio_format": {"encoding": "pcm_s16le", "sample_rate": 16000, "channels": 1},
    "recording_enabled": True,
    "resumable": False,
    "silence_timeout_seconds": None,
    "result": _RESULT,
}
_EVENT: Final = {
    "event_id": "evt-0a1b2c3d4e5f6071",
    "session_id": _ID,
    "event_type": "stt_final",
    "payload": {"text": "go forward ten meters", "start_ms": 240, "end_ms": 1980, "words": []},
    "timestamp_ms": 1772366402125,
    "metadata": {"audit_trace_id": "audit-0a1b2c3d4e5f6071"},
    "number": 3,
}
_RECORD: Final = {
    "id": "ev-8e2f6a1b0c9d7e5f4a3b2c1d-1",
    "request_id": _ID,
    "connector_type": "custom",
    "operation": "session_created",
    "request_summary": {"session_id": _ID, "project_id": "demo"},
    "response_summary": {"state": "created"},
    "status": "success",
    "metadata": {"audit_trace_id": "audit-0a1b2c3d4e5f6071", "risk_tier": "low"},
    "created_at": _AT,
}
_CONTENT: Final = {"part": "request_summary", "salt": "c0ff…", "value": '{"metadata":{"caller":"Ada"}}'}
_LINK: Final = {
    "seq": 41,
    "previous": "5e1d…",
    "hash": "9f2c…",
    "record": _RECORD,
    "text": '{"connector_type":"custom","created_at":"…',
    "contents": [_CONTENT],
}


def _like(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [example]})


class PolicyQuestion(BaseModel):
    """The part of a request for a session that the policy evaluates."""

    model_config = _like({"project_id": "demo", "provider": "local", "metadata": {"recording_enabled": True}})

    project_id: str = Field(min_length=1, max_length=MAX_PROJECT_ID, description="The project that owns the session.")
    provider: str = Field(
        default=VoiceProvider.LOCAL.value,
        max_length=MAX_NAME,
        description="How the call reaches the service: `local`, `twilio`, or a provider that is registered on the server.",
    )
    stt_provider: str = Field(
        default=STTProvider.POCKETSPHINX.value,
        max_length=MAX_NAME,
        description="The speech-to-text engine: `pocketsphinx`, `whisper_local`, `google`, `azure`, `aws`, or one that is "
        "registered on the server.",
    )
    metadata: dict[str, Any] = Field(
        default_factory=dict,
        description="Anything, kept with the session. `sensitive_data`, `international_call`, `recording_enabled` and "
        "`requires_data_access` (true or false) and `from_number` mean something to the policy.",
    )
    admin_token: SecretStr | None = Field(
        default=None, description="An admin's token, for a request of a high risk tier; checked, and never stored."
    )


class NewSession(PolicyQuestion):
    """A request for a session."""

    model_config = _like({"project_id": "demo", "metadata": {"recording_enabled": True}})

    audio_format: AudioFormat | None = Field(
        default=None, description="The format of the audio; by default 16 kHz mono, 16 bit."
    )
    stt_options: dict[str, Any] = Field(
        default_factory=dict, description="What is asked of the engine; each engine says which options it takes."
    )
    resumable: bool = Field(default=False, description="Whether the caller comes back if the process dies.")
    silence_timeout_seconds: float | None = Field(
        default=None,
        gt=0,
        le=LONGEST_SILENCE_SECONDS,
        strict=True,
        description="How long nobody may speak before it ends, with the reason `silence`; as the server's settings have it, "
        "if not given.",
    )


class RecordingView(BaseModel):
    """A recording, the file at `/recording` of its session."""

    model_config = _like(_RECORDING)

    sample_rate: int
    channels: int
    samples: int
    seconds: float
    segments: int
    gaps: tuple[tuple[int, int], ...] = Field(
        description="Silence put in for lost audio, as first sample and number of samples."
    )
    state: RecordingState = Field(
        description="Whether the file is there: `finishing` until the segments of the call are one file, then `ready`; "
        "`failed` when they are damaged."
    )
    digest: str = Field(
        description="SHA-256 of the samples without the gaps, as signed 16 bit little-endian; empty in recordings of older "
        "versions."
    )
    recording_id: str = Field(description="What the evidence of `ready` or `failed` goes under; empty as above.")

    @classmethod
    def of(cls, info: RecordingInfo) -> Self:
        """The view of a recording."""
        return cls(
            sample_rate=info.sample_rate,
            channels=info.channels,
            samples=info.samples,
            seconds=info.seconds,
            segments=info.segments,
            gaps=info.gaps,
            state=info.state,
            digest=info.digest,
            recording_id=info.recording_id,
        )


class ResultView(BaseModel):
    """The result of a stopped session."""

    model_config = _like(_RESULT)

    reason: EndReason = Field(description="Why it ended.")
    drained: bool = Field(description="Whether recorder and transcriber finished before the deadline.")
    stopped_at: datetime | None
    frames: FrameAccount = Field(description="Where every accepted 20 ms frame went.")
    transcript: str
    recording: RecordingView | None
    quality: Quality
    mismatches: tuple[AudioMismatch, ...] = Field(
        description="Far more or less audio than its media time has room for: most likely it has another sample rate."
    )
    parts: dict[str, Any] = Field(description="What further parts of the call found, by the name of the part.")

    @classmethod
    def of(cls, result: SessionResult) -> Self:
        """The view of a result."""
        return cls(
            reason=result.reason,
            drained=result.drained,
            stopped_at=result.stopped_at,
            frames=result.frames,
            transcript=result.transcript,
            recording=None if result.recording is None else RecordingView.of(result.recording),
            quality=result.quality,
            mismatches=result.mismatches,
            parts=result.parts,
        )


class SessionView(BaseModel):
    """A session at the time of the request. `result` is null until the session has stopped."""

    model_config = _like(_SESSION)

    session_id: str
    project_id: str
    provider: str = Field(description="`local`, `twilio`, or a provider that is, or was, registered on the server.")
    stt_provider: str = Field(description="The requested engine.")
    stt_engine: str = Field(description='The engine that runs; "none" when the session only records.')
    stt_options: dict[str, Any] = Field(description="What that engine is asked for, with its defaults.")
    state: VoiceSessionState
    created_at: datetime
    last_activity_at: datetime
    risk_tier: RiskLevel
    audit_trace_id: str
    metadata: dict[str, Any]
    audio_format: AudioFormat
    recording_enabled: bool
    resumable: bool
    silence_timeout_seconds: float | None = Field(
        description="How long nobody may speak before it ends; null when that never ends it."
    )
    result: ResultView | None

    @classmethod
    def of(cls, session: VoiceSession) -> Self:
        """The view of a session."""
        same: dict[str, Any] = {
            name: getattr(session, name)
            for name in cls.model_fields
            if name not in {"provider", "stt_provider", "result"}
        }
        return cls(
            **same,
            provider=text_of(session.provider),
            stt_provider=text_of(session.stt_provider),
            result=None if session.result is None else ResultView.of(session.result),
        )


class SessionPageView(BaseModel):
    """Some sessions, newest first; `next_cursor` asks for the next page, and is null at the end."""

    model_config = _like({"sessions": [_SESSION], "next_cursor": "MTc3MjM2NjQwMDEyNS52b2ljZS00ZjBj"})

    sessions: tuple[SessionView, ...]
    next_cursor: str | None


class StoppedView(BaseModel):
    """A stopped session. If `durable` is false, its final record is not in the evidence store yet, and `problem` says where it
    waits."""

    model_config = _like({"session": _SESSION, "durable": True, "problem": None})

    session: SessionView
    durable: bool
    problem: Problem | None


class EventPageView(BaseModel):
    """Stored events of a session in order. `more` says that more events follow: ask again with `last_number`."""

    model_config = _like({"session_id": _ID, "events": [_EVENT], "last_number": 3, "more": False})

    session_id: str
    events: tuple[VoiceEvent, ...]
    last_number: int
    more: bool


class WordView(BaseModel):
    """A word with its times, in milliseconds of the session's audio, and the engine's confidence from 0 to 1, if it has one."""

    model_config = _like({"text": "forward", "start_ms": 420, "end_ms": 840, "confidence": 0.93})

    text: str
    start_ms: int
    end_ms: int
    confidence: float | None


class UtteranceView(BaseModel):
    """A finished utterance with its times, in milliseconds of the session's audio. `number` is that of its event."""

    model_config = _like({"number": 3, "text": "go forward ten meters", "start_ms": 240, "end_ms": 1980, "words": []})

    number: int
    text: str
    start_ms: int
    end_ms: int
    words: tuple[WordView, ...]


class TranscriptView(BaseModel):
    """The transcript of a session so far. It is `complete` if the session has stopped and every frame was transcribed; the
    session's result counts the others under `frames.untranscribed`."""

    model_config = _like(
        {
            "session_id": _ID,
            "complete": True,
            "text": "go forward ten meters",
            "utterances": [
                {"number": 3, "text": "go forward ten meters", "start_ms": 240, "end_ms": 1980, "words": []}
            ],
        }
    )

    session_id: str
    complete: bool
    text: str
    utterances: tuple[UtteranceView, ...]


class ContentView(BaseModel):
    """Content of a record, stored beside the chain.

    Its seal, in that `part` of the record's text, is the SHA-256 of `salt`, which is hexadecimal here, and `value`.
    """

    model_config = _like(_CONTENT)

    part: str
    salt: str
    value: str


class LinkView(BaseModel):
    """A record, and its place in the chain: `hash` is the SHA-256 of `previous`, a newline and `text`.

    `text` has only the seals of personal content. `contents` are stored beside the chain; `record` shows each in its place, and
    for an erased content its seal.
    """

    model_config = _like(_LINK)

    seq: int
    previous: str
    hash: str
    record: EvidenceRecord
    text: str
    contents: tuple[ContentView, ...]

    @classmethod
    def of(cls, link: StoredLink) -> Self:
        """The view of a stored link."""
        contents = tuple(ContentView(part=part, salt=salt.hex(), value=value) for part, salt, value in link.contents)
        return cls(**{**link._asdict(), "contents": contents})


class EvidencePageView(BaseModel):
    """Evidence of one session, or of one refused request, in the order of the chain. `more` says that more records follow: ask
    again with `last_seq`."""

    model_config = _like(
        {
            "session_id": _ID,
            "links": [_LINK],
            "last_seq": 41,
            "more": False,
        }
    )

    session_id: str
    links: tuple[LinkView, ...]
    last_seq: int
    more: bool


class HeadView(BaseModel):
    """A noted head, and how it stands to the chain; `meaning` is the state in words."""

    model_config = _like(
        {"place": 1200, "hash": "77ab…", "state": "cut", "meaning": HeadState.CUT.meaning},
    )

    place: int
    hash: str
    state: HeadState
    meaning: str


class MismatchView(BaseModel):
    """Two stored facts that disagree: a `kind` for programs, the session concerned, and a sentence."""

    model_config = _like(
        {"kind": "final-record-missing", "about": _ID, "text": "it is stored as stopped, and has no …"}
    )

    kind: str
    about: str
    text: str


class VerificationView(BaseModel):
    """The result of a walk along the whole evidence chain: how many `records` hold, the hash of the last one, and the first
    fault.

    `ok` says that every link holds, that the chain goes on from each of the given `heads`, and that stored sessions, events and
    recordings agree with the chain. Note `records:head` where nobody who can write the database can change it: only such a head
    shows that the end was not cut off. `sealed` counts the contents that fit their seals, `erased` those that are gone.
    `mismatches` has the first hundred disagreements, `mismatches_total` their number; both are null if the chain is broken,
    since its records prove nothing then. Recordings are not read: the command `evidence verify` does that.
    """

    model_config = _like(
        {
            "ok": True,
            "records": 1284,
            "head": "9f2c…",
            "fault": None,
            "at_seq": None,
            "sealed": 2310,
            "erased": 0,
            "heads": [{"place": 1200, "hash": "77ab…", "state": "holds", "meaning": HeadState.HOLDS.meaning}],
            "mismatches": [],
            "mismatches_total": 0,
        }
    )

    ok: bool
    records: int
    head: str
    fault: str | None
    at_seq: int | None
    sealed: int
    erased: int
    heads: tuple[HeadView, ...]
    mismatches: tuple[MismatchView, ...] | None
    mismatches_total: int | None

    @classmethod
    def of(cls, found: Examination, beside: Disagreements | None) -> Self:
        """The view of a walk, and of the mismatches beside the chain."""
        heads = tuple(
            HeadView(place=check.head.seq, hash=check.head.hash, state=check.state, meaning=check.state.meaning)
            for check in found.heads
        )
        ok = found.chain.ok and all(head.state is HeadState.HOLDS for head in heads) and not (beside and beside.total)
        first = None if beside is None else tuple([MismatchView(**one._asdict()) for one in beside.first])
        return cls(
            ok=ok,
            **found.chain._asdict(),
            sealed=found.sealed,
            erased=found.erased,
            heads=heads,
            mismatches=first,
            mismatches_total=None if beside is None else beside.total,
        )


class VerdictView(BaseModel):
    """The policy's verdict on a request: the tier, the factors behind it, and whether an admin's token is needed.

    `session_id` is the session's id; null for a request that was only explained.
    """

    model_config = _like(
        {
            "session_id": _ID,
            "allowed": True,
            "risk_level": "low",
            "factors": [],
            "admin_token_required": False,
            "admin_token_valid": False,
            "explanation": "approved with risk tier low",
            "verdict": _VERDICT,
        }
    )

    session_id: str | None
    allowed: bool
    risk_level: RiskLevel | None
    factors: tuple[str, ...]
    admin_token_required: bool | None
    admin_token_valid: bool | None
    explanation: str
    verdict: PolicyVerdict


class TicketView(BaseModel):
    """A ticket that opens the browser stream of one session once, until it expires. Connect to `url` and send it in `hello`."""

    model_config = _like(
        {"ticket": "avs_Q2h…", "expires_at": "2026-03-01T12:01:00Z", "url": "ws://127.0.0.1:8080/v1/stream"}
    )

    ticket: str
    expires_at: datetime
    url: str


class DrainView(BaseModel):
    """The service takes no new calls; `sessions` counts the calls that still run."""

    model_config = _like({"draining": True, "sessions": 12})

    draining: bool
    sessions: int


class HealthView(BaseModel):
    """`status` is "ok" for a server that does its work."""

    model_config = _like({"status": "ok"})

    status: str
