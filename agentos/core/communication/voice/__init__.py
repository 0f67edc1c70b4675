"""Voice communication for agent runtimes: sessions with live transcripts, recordings and verifiable evidence.

The names are imported when they are first used, so that a worker process or a command that needs only a part does not load
the database and the audio libraries. It imports nothing of ours itself: `agentos-voice doctor` must start where another
package hides one of them, to say so.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentos.core.communication.voice.models import (
        AudioEncoding,
        AudioFormat,
        STTProvider,
        VoiceEvent,
        VoiceEventType,
        VoiceProvider,
        VoiceSession,
        VoiceSessionState,
    )
    from agentos.core.communication.voice.policy import VoicePolicy
    from agentos.core.communication.voice.running.blocking_calls import BlockingCall
    from agentos.core.communication.voice.running.calls import Call
    from agentos.core.communication.voice.running.part_ports import ThreadPort
    from agentos.core.communication.voice.service import AsyncVoiceService, VoiceService

_HOMES = {
    "AsyncVoiceService": "service",
    "AudioEncoding": "models",
    "AudioFormat": "models",
    "BlockingCall": "running.blocking_calls",
    "Call": "running.calls",
    "STTProvider": "models",
    "ThreadPort": "running.part_ports",
    "VoiceEvent": "models",
    "VoiceEventType": "models",
    "VoicePolicy": "policy",
    "VoiceProvider": "models",
    "VoiceService": "service",
    "VoiceSession": "models",
    "VoiceSessionState": "models",
}

__all__ = [
    "AsyncVoiceService",
    "AudioEncoding",
    "AudioFormat",
    "BlockingCall",
    "Call",
    "STTProvider",
    "ThreadPort",
    "VoiceEvent",
    "VoiceEventType",
    "VoicePolicy",
    "VoiceProvider",
    "VoiceService",
    "VoiceSession",
    "VoiceSessionState",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
