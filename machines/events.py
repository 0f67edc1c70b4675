"""The events that a session tells its listeners, in order."""

from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from machines.frozen import frozen


class VoiceEventType(str, Enum):
    """The kinds of event.

    SESSION_STARTED and SESSION_STOPPED frame a session; STATE_CHANGED tells each move between them. AUDIO_RECEIVED sums up the
    audio since the AUDIO_RECEIVED before, with its level. STT_PARTIAL is a preview that may change, STT_FINAL a finished
    utterance, TRANSCRIPT_READY the whole transcript, once, before SESSION_STOPPED. ERROR tells of a failed part or of lost
    audio; STT_FALLBACK says that another engine runs than the requested one. PART_REPORTED is what a further part of the call
    found.
    """

    SESSION_STARTED = "session_started"
    SESSION_STOPPED = "session_stopped"
    STATE_CHANGED = "state_changed"
    ERROR = "error"
    AUDIO_RECEIVED = "audio_received"
    TRANSCRIPT_READY = "transcript_ready"
    STT_PARTIAL = "stt_partial"
    STT_FINAL = "stt_final"
    STT_FALLBACK = "stt_fallback"
    PART_REPORTED = "part_reported"


class VoiceEvent(BaseModel):
    """A frozen record of something that happened in a session.

    `timestamp_ms` is epoch milliseconds; `number` counts the session's events from 1, so that a listener can go on behind
    the last event that it saw.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: str
    session_id: str
    event_type: VoiceEventType
    payload: dict[str, Any] = Field(default_factory=dict)
    timestamp_ms: int
    metadata: dict[str, Any] = Field(default_factory=dict)
    number: int = 0

    @field_validator("payload", "metadata", mode="after")
    @classmethod
    def _read_only(cls, value: dict[str, Any]) -> dict[str, Any]:
        copy: dict[str, Any] = frozen(value)
        return copy
