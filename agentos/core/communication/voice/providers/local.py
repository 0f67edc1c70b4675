"""Calls from a browser, or from the program that embeds the service."""

from typing import Any

from agentos.core.communication.voice.providers.base import IVoiceProvider
from machines.communication import RiskLevel


class LocalProvider(IVoiceProvider):
    """Voice over a WebSocket, or by `dispatch_audio_chunk`. It needs no configuration and nothing outside."""

    def get_session_metadata(self) -> dict[str, Any]:
        """What a local call is like."""
        return {
            "provider": "local",
            "transport": "websocket",
            "risk_level": RiskLevel.LOW.value,
            "external_dependencies": [],
            "supports_recording": True,
            "supports_transcription": True,
        }

    def validate_config(self) -> tuple[bool, str]:
        """There is nothing to configure."""
        return True, "the local provider needs no configuration"
