"""A voice session: its data, its states and the only moves between them.

    CREATED -> ACTIVE -> STOPPING -> STOPPED

- CREATED: the session exists and its creation is evidenced; no audio has come.
- ACTIVE: the first audio has come; recorder, transcriber and quality are running.
- STOPPING: a caller stopped it, or it ends by failure, idleness, silence, the longest allowed duration or the death of its
  process. It accepts no audio any more; recorder and transcriber drain. This state has a deadline: it ends whether or not they
  answer.
- STOPPED: final. A second stop changes nothing.

A session can be stopped from every state before STOPPING, so CREATED -> STOPPING is legal: the caller hung up before any
audio. Only this module enforces the sequence.
"""

from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

from machines.audio import AudioFormat
from machines.communication import PolicyVerdict, RiskLevel
from machines.frozen import FrozenDict, frozen
from machines.lifecycle import Lifecycle, Move
from machines.recording import RecordingInfo
from machines.value import Value


class VoiceSessionState(str, Enum):
    """The state of a session; the module's docstring explains each."""

    CREATED = "created"
    ACTIVE = "active"
    STOPPING = "stopping"
    STOPPED = "stopped"


class VoiceProvider(str, Enum):
    """How a call reaches the service: over a browser's WebSocket, or by telephone through Twilio."""

    LOCAL = "local"
    TWILIO = "twilio"


class STTProvider(str, Enum):
    """Speech-to-text engines that a session can ask for. `POCKETSPHINX` is embedded and needs no model or network."""

    WHISPER = "whisper_local"
    GOOGLE = "google"
    AZURE = "azure"
    AWS = "aws"
    POCKETSPHINX = "pocketsphinx"


class EndReason(str, Enum):
    """Why a session left for STOPPING."""

    STOPPED = "stopped"  # a caller stopped it
    CALLER_GONE = "caller_gone"  # its caller vanished without a stop, and did not come back
    IDLE = "idle"  # no audio for too long
    SILENCE = "silence"  # nobody spoke for as long as its caller allowed
    OVERRUN = "overrun"  # the longest allowed duration is over
    FAILED = "failed"  # a part failed more often than it may be restarted
    UNEVIDENCED = "unevidenced"  # its creation could not be made durable, so it never began
    SHUTDOWN = "shutdown"  # the service was closed
    RECOVERED = "recovered"  # its process died; another one ended it


_S = VoiceSessionState

SESSION = Lifecycle(
    "session",
    states=_S,
    initial=_S.CREATED,
    final=[_S.STOPPED],
    moves=[
        Move("audio", _S.CREATED, _S.ACTIVE, "the first audio came"),
        Move("stop", _S.CREATED, _S.STOPPING, "asked to stop before any audio"),
        Move("fail", _S.CREATED, _S.STOPPING, "a part failed before any audio"),
        Move("idle", _S.CREATED, _S.STOPPING, "no audio ever came"),
        Move("silence", _S.CREATED, _S.STOPPING, "nobody spoke, and no audio ever came"),
        Move("overrun", _S.CREATED, _S.STOPPING, "the longest allowed duration is over"),
        Move("recover", _S.CREATED, _S.STOPPING, "its process died before any audio"),
        Move("resume", _S.CREATED, _S.ACTIVE, "its process died before any audio; another one goes on with it"),
        Move("stop", _S.ACTIVE, _S.STOPPING, "asked to stop"),
        Move("fail", _S.ACTIVE, _S.STOPPING, "a part failed more often than it may be restarted"),
        Move("idle", _S.ACTIVE, _S.STOPPING, "no audio for too long"),
        Move("silence", _S.ACTIVE, _S.STOPPING, "nobody spoke for too long"),
        Move("overrun", _S.ACTIVE, _S.STOPPING, "the longest allowed duration is over"),
        Move("recover", _S.ACTIVE, _S.STOPPING, "its process died"),
        Move("resume", _S.ACTIVE, _S.ACTIVE, "its process died; another one goes on with it"),
        Move("drained", _S.STOPPING, _S.STOPPED, "recorder and transcriber have drained"),
        Move("drain_expired", _S.STOPPING, _S.STOPPED, "the drain deadline has passed"),
    ],
    deadlines={_S.STOPPING: "drain_expired"},
)

END_TRIGGER = {
    EndReason.STOPPED: "stop",
    EndReason.CALLER_GONE: "stop",
    EndReason.SHUTDOWN: "stop",
    EndReason.IDLE: "idle",
    EndReason.SILENCE: "silence",
    EndReason.OVERRUN: "overrun",
    EndReason.FAILED: "fail",
    EndReason.UNEVIDENCED: "fail",
    EndReason.RECOVERED: "recover",
}


NO_COUNTS: Final[FrozenDict[int]] = FrozenDict()
NO_OUTCOMES: Final[FrozenDict[Any]] = FrozenDict()


class FrameAccount(Value, frozen=True):
    """Where every accepted 20 ms frame went. At the end of every session

    `accepted == accounted + sum(dropped)` and `accepted == transcribed + sum(untranscribed)`.

    `accounted` frames went into the digest and, with recording on, into the file (`recorded`). `dropped` and
    `untranscribed` count frames by reason. The last frame may be short; `leftover_bytes` counts the bytes of an unfinished
    sample at the very end. `digest` is the SHA-256 of all accounted bytes in order. If another process resumed the call
    without a recording to read, `digest` covers the digest in the `session_resumed` record and the bytes behind it.
    """

    accepted: int = 0
    accounted: int = 0
    recorded: int = 0
    transcribed: int = 0
    dropped: FrozenDict[int] = NO_COUNTS
    untranscribed: FrozenDict[int] = NO_COUNTS
    bytes: int = 0
    leftover_bytes: int = 0
    digest: str = ""


class Quality(Value, frozen=True):
    """The audio's quality: levels in dBFS, shares from 0 to 1, the longest pause between two arrivals in milliseconds."""

    level_dbfs: float | None = None
    peak_dbfs: float | None = None
    clipped_share: float = 0.0
    silent_share: float = 0.0
    longest_pause_ms: int = 0


class AudioMismatch(Value, frozen=True):
    """Audio whose length does not fit its time: `audio_ms` of audio in `media_ms` of the capture clock. `reason` is
    `too_much_audio` or `too_little_audio`; most likely the audio has another sample rate than the session."""

    reason: str
    audio_ms: int
    media_ms: int


class SessionResult(Value, frozen=True):
    """The account of a stopped session. `mismatches` has each kind once. `parts` has what further parts of the call found, by
    the part's name. Results of older versions have neither.
    """

    reason: EndReason
    drained: bool = True
    frames: FrameAccount = FrameAccount()
    transcript: str = ""
    recording: RecordingInfo | None = None
    quality: Quality = Quality()
    stopped_at: datetime | None = None
    mismatches: tuple[AudioMismatch, ...] = ()
    parts: FrozenDict[Any] = NO_OUTCOMES


class VoiceSession(BaseModel):
    """A frozen snapshot of one voice session.

    `created_at` and `last_activity_at` are aware UTC. `stt_provider` is the engine that was asked for, `stt_engine` the one
    that runs ("none" when the session only records), `stt_options` what it is asked for. Provider and engine are members of
    their enums, or names that somebody registered, perhaps no longer. `resumable` says that its caller comes back when the
    process dies.
    `silence_timeout_seconds` is how long nobody may speak before it ends, None when that ends it never.
    `result` is there once the session is STOPPED.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", cache_strings="keys")

    session_id: str
    project_id: str
    provider: Annotated[VoiceProvider | str, Field(union_mode="left_to_right")]
    stt_provider: Annotated[STTProvider | str, Field(union_mode="left_to_right")]
    state: VoiceSessionState
    created_at: datetime
    last_activity_at: datetime
    risk_tier: RiskLevel
    policy_verdict: PolicyVerdict
    audit_trace_id: str
    metadata: dict[str, Any] = Field(default_factory=FrozenDict)
    stt_engine: str = "none"
    stt_options: dict[str, Any] = Field(default_factory=FrozenDict)
    audio_format: AudioFormat = AudioFormat()
    recording_enabled: bool = False
    resumable: bool = False
    silence_timeout_seconds: float | None = None
    result: SessionResult | None = None

    @field_validator("metadata", "stt_options", mode="after")
    @classmethod
    def _read_only(cls, given: dict[str, Any]) -> dict[str, Any]:
        copy: dict[str, Any] = frozen(given)
        return copy
