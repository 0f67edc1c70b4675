"""What the API takes and gives, as models: frozen, with examples, and with no field but those named here.

A view holds nothing of the inside of the server: no path of a file, no owner, no secret.
"""

from datetime import datetime
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from agentos.core.communication.voice.gateway.problems import Problem
from agentos.core.communication.voice.request import MAX_PROJECT_ID
from machines.audio import AudioFormat
from machines.communication import PolicyVerdict, RiskLevel
from machines.events import VoiceEvent
from machines.evidence import EvidenceRecord, Verification
from machines.session import (
    EndReason,
    FrameAccount,
    Quality,
    RecordingInfo,
    SessionResult,
    STTProvider,
    VoiceProvider,
    VoiceSession,
    VoiceSessionState,
)

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
}
_SESSION: Final = {
    "session_id": _ID,
    "project_id": "demo",
    "provider": "local",
    "stt_provider": "pocketsphinx",
    "stt_engine": "pocketsphinx",
    "state": "stopped",
    "created_at": _AT,
    "last_activity_at": "2026-03-01T12:00:03.125Z",
    "risk_tier": "low",
    "audit_trace_id": "audit-0a1b2c3d4e5f6071",
    "metadata": {"recording_enabled": True},
    "audio_format": {"encoding": "pcm_s16le", "sample_rate": 16000, "channels": 1},
    "recording_enabled": True,
    "resumable": False,
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


def _like(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [example]})


class PolicyQuestion(BaseModel):
    """A session that is asked for, as far as the policy looks at it."""

    model_config = _like({"project_id": "demo", "provider": "local", "metadata": {"recording_enabled": True}})

    project_id: str = Field(min_length=1, max_length=MAX_PROJECT_ID, description="Whose session it is.")
    provider: VoiceProvider = Field(default=VoiceProvider.LOCAL, description="How the call reaches the service.")
    stt_provider: STTProvider = Field(default=STTProvider.POCKETSPHINX, description="The speech-to-text engine.")
    metadata: dict[str, Any] = Field(
        default_factory=dict,
        description="Anything, kept with the session. `sensitive_data`, `international_call`, `recording_enabled` and "
        "`requires_data_access` (true or false) and `from_number` mean something to the policy.",
    )
    admin_token: SecretStr | None = Field(
        default=None, description="An admin's token, for a request of a high risk tier; checked, and never stored."
    )


class NewSession(PolicyQuestion):
    """A session that is asked for."""

    model_config = _like({"project_id": "demo", "metadata": {"recording_enabled": True}})

    audio_format: AudioFormat | None = Field(
        default=None, description="What the audio will be; 16 kHz mono, 16 bit, if not given."
    )
    resumable: bool = Field(default=False, description="Whether its caller comes back when the process dies.")


class RecordingView(BaseModel):
    """A recording: what the file at `/recording` of its session holds."""

    model_config = _like(_RECORDING)

    sample_rate: int
    channels: int
    samples: int
    seconds: float
    segments: int
    gaps: tuple[tuple[int, int], ...] = Field(
        description="Silence put in for audio that was lost, as first sample and number of samples."
    )

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
        )


class ResultView(BaseModel):
    """What a stopped session leaves behind."""

    model_config = _like(_RESULT)

    reason: EndReason = Field(description="Why it ended.")
    drained: bool = Field(description="Whether recorder and transcriber finished before the deadline.")
    stopped_at: datetime | None
    frames: FrameAccount = Field(description="Where every accepted 20 ms frame went.")
    transcript: str
    recording: RecordingView | None
    quality: Quality

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
        )


class SessionView(BaseModel):
    """A session as it was when it was asked for. `result` is there once it has stopped."""

    model_config = _like(_SESSION)

    session_id: str
    project_id: str
    provider: VoiceProvider
    stt_provider: STTProvider = Field(description="The engine that was asked for.")
    stt_engine: str = Field(description='The engine that runs; "none" when the session only records.')
    state: VoiceSessionState
    created_at: datetime
    last_activity_at: datetime
    risk_tier: RiskLevel
    audit_trace_id: str
    metadata: dict[str, Any]
    audio_format: AudioFormat
    recording_enabled: bool
    resumable: bool
    result: ResultView | None

    @classmethod
    def of(cls, session: VoiceSession) -> Self:
        """The view of a session."""
        same = {name: getattr(session, name) for name in cls.model_fields if name != "result"}
        return cls(**same, result=None if session.result is None else ResultView.of(session.result))


class SessionPageView(BaseModel):
    """Some sessions, newest first; `next_cursor` asks for those behind them, and is null at the end."""

    model_config = _like({"sessions": [_SESSION], "next_cursor": "MTc3MjM2NjQwMDEyNS52b2ljZS00ZjBj"})

    sessions: tuple[SessionView, ...]
    next_cursor: str | None


class StoppedView(BaseModel):
    """A session that has been stopped. Without `durable` its final record is not in the evidence store yet, and `problem` says
    where it waits."""

    model_config = _like({"session": _SESSION, "durable": True, "problem": None})

    session: SessionView
    durable: bool
    problem: Problem | None


class EventPageView(BaseModel):
    """Stored events of a session in order. Ask again behind `last_number` for those that follow; `more` says that there are."""

    model_config = _like({"session_id": _ID, "events": [_EVENT], "last_number": 3, "more": False})

    session_id: str
    events: tuple[VoiceEvent, ...]
    last_number: int
    more: bool


class WordView(BaseModel):
    """A word, when it was said (milliseconds of the session's audio), and how sure the engine is, from 0 to 1, if it tells."""

    model_config = _like({"text": "forward", "start_ms": 420, "end_ms": 840, "confidence": 0.93})

    text: str
    start_ms: int
    end_ms: int
    confidence: float | None


class UtteranceView(BaseModel):
    """A finished utterance, and when it was said, in milliseconds of the session's audio. `number` is that of its event."""

    model_config = _like({"number": 3, "text": "go forward ten meters", "start_ms": 240, "end_ms": 1980, "words": []})

    number: int
    text: str
    start_ms: int
    end_ms: int
    words: tuple[WordView, ...]


class TranscriptView(BaseModel):
    """What was said in a session: so far, and all of it once `complete`."""

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


class LinkView(BaseModel):
    """A record, and its place in the chain: `hash` is the SHA-256 of `previous`, a newline and the record as canonical JSON."""

    model_config = _like({"seq": 41, "previous": "5e1d…", "hash": "9f2c…", "record": _RECORD})

    seq: int
    previous: str
    hash: str
    record: EvidenceRecord


class EvidencePageView(BaseModel):
    """Evidence of one session, or of one refused request, in the order of the chain. Ask again behind `last_seq` for what
    follows; `more` says that there is."""

    model_config = _like(
        {
            "session_id": _ID,
            "links": [{"seq": 41, "previous": "5e1d…", "hash": "9f2c…", "record": _RECORD}],
            "last_seq": 41,
            "more": False,
        }
    )

    session_id: str
    links: tuple[LinkView, ...]
    last_seq: int
    more: bool


class VerificationView(BaseModel):
    """A walk along the whole evidence chain: how many `records` hold, the hash of the last of them, and the first fault.

    Note the `head` somewhere else: a chain whose end was cut off still holds, but has another head.
    """

    model_config = _like({"ok": True, "records": 1284, "head": "9f2c…", "fault": None, "at_seq": None})

    ok: bool
    records: int
    head: str
    fault: str | None
    at_seq: int | None

    @classmethod
    def of(cls, found: Verification) -> Self:
        """The view of a verification."""
        return cls(ok=found.ok, **found._asdict())


class VerdictView(BaseModel):
    """What the policy says of a request, and why: the tier, from which factors, and whether an admin's token is needed.

    `session_id` is the session; null for a request that was only explained.
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
    """The service takes no new calls; `sessions` still run."""

    model_config = _like({"draining": True, "sessions": 12})

    draining: bool
    sessions: int


class HealthView(BaseModel):
    """`status` is "ok" for a server that does its work."""

    model_config = _like({"status": "ok"})

    status: str
