"""A client of the server, for asyncio and trio: sessions over HTTP, and audio through a stream that survives cuts.

    async with VoiceClient("http://127.0.0.1:8080", token) as client:
        session = await client.create_session("shop", metadata={"recording_enabled": True})
        async with client.stream(session["session_id"]) as stream:
            await stream.send(pcm)
            end = await stream.finish()

It needs the extra `client`.
"""

try:
    from agentos.core.communication.voice.client.rest import VoiceClient
    from agentos.core.communication.voice.client.stream import (
        ClientStatistics,
        StreamEnd,
        VoiceStream,
        connect_stream,
    )
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in {"httpx2", "wsproto"}:
        raise
    raise ModuleNotFoundError(
        f"the client needs {missing}: in the checkout, pip install '.[client]'", name=missing
    ) from None
from machines.stream.messages import Event, StreamFormat

__all__ = [
    "ClientStatistics",
    "Event",
    "StreamEnd",
    "StreamFormat",
    "VoiceClient",
    "VoiceStream",
    "connect_stream",
]
