"""The voice models, under the name that the specification gives them; they live in `machines`."""

from machines.audio import AudioEncoding, AudioFormat
from machines.events import VoiceEvent, VoiceEventType
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

__all__ = [
    "AudioEncoding",
    "AudioFormat",
    "AudioMismatch",
    "EndReason",
    "FrameAccount",
    "Quality",
    "RecordingInfo",
    "RecordingState",
    "STTProvider",
    "SessionResult",
    "VoiceEvent",
    "VoiceEventType",
    "VoiceProvider",
    "VoiceSession",
    "VoiceSessionState",
]
