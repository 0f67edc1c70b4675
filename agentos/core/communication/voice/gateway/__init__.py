"""The server in front of a voice service: HTTP, the browser stream and the console. It needs the extra `server`."""

from agentos.core.communication.voice.gateway.app import voice_app

__all__ = ["voice_app"]
