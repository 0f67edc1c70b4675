"""The server: HTTP, the browser stream and the console in front of a voice service. It needs the extra `server`."""

from agentos.core.communication.voice.gateway.app import voice_app

__all__ = ["voice_app"]
