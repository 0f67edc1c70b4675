"""The voice models, under the name that the specification gives them; they live in `machines`."""

from machines.audio import AudioEncoding, AudioFormat
from machines.events import VoiceEvent, VoiceEventType
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

__all__ = [
    "AudioEncoding",
    "AudioFormat",
    "EndReason",
    "FrameAccount",
    "Quality",
    "RecordingInfo",
    "STTProvider",
    "SessionResult",
    "VoiceEvent",
    "VoiceEventType",
    "VoiceProvider",
    "VoiceSession",
    "VoiceSessionState",
]
