"""One WebSocket of a stream, on asyncio and trio: text and binary messages, and the close code."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import Final

import anyio
import httpx2
import wsproto.events
from httpx2.websockets import AsyncWebSocketSession, HTTPXWSException, WebSocketDisconnect, WebSocketUpgradeError
from wsproto.utilities import ProtocolError

from machines.stream.messages import SUBPROTOCOL, FromClient, FromServer, StreamCode, encode, read_from_server

CLOSE_SECONDS: Final = 1.0  # for the close frame, which a peer that reads nothing does not get
LARGEST_MESSAGE_BYTES: Final = 1_048_576  # a long utterance with all its words has a tenth of that
BROKEN: Final = (HTTPXWSException, httpx2.TransportError, ProtocolError, OSError)
BUSY: Final = frozenset(
    {408, 425, 429, 500, 502, 503, 504}
)  # HTTP statuses after which the same request may work later


class SocketClosed(Exception):
    """The connection is over. `code` is its close code, `LOST` if it broke."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class StreamSocket:
    """A connection of the stream's sub-protocol. Every method may raise `SocketClosed`."""

    def __init__(self, session: AsyncWebSocketSession) -> None:
        self._session = session

    async def send(self, message: FromClient) -> None:
        """Send a text message."""
        try:
            await self._session.send_text(encode(message).decode())
        except BROKEN as error:
            raise SocketClosed(StreamCode.LOST, str(error)) from None

    async def send_audio(self, message: bytes) -> None:
        """Send a binary message."""
        try:
            await self._session.send_bytes(message)
        except BROKEN as error:
            raise SocketClosed(StreamCode.LOST, str(error)) from None

    async def receive(self) -> FromServer:
        """The next message of the server. Raises `StreamViolation` for a message that the protocol does not have."""
        try:
            event = await self._session.receive()
        except WebSocketDisconnect as error:
            raise SocketClosed(error.code, error.reason) from None
        except BROKEN as error:
            raise SocketClosed(StreamCode.LOST, str(error)) from None
        data = event.data if isinstance(event, wsproto.events.Message) else b""
        return read_from_server(data if isinstance(data, str) else bytes(data))


@asynccontextmanager
async def opened(http: httpx2.AsyncClient, url: str, timeout_seconds: float) -> AsyncGenerator[StreamSocket]:
    """A connection to the stream at `url` (`ws:` or `wss:`). Raises `SocketClosed` if it can't be opened within
    `timeout_seconds`, or breaks."""
    try:
        with anyio.move_on_after(timeout_seconds) as opening:
            async with http.websocket(
                url,
                subprotocols=[SUBPROTOCOL],
                max_message_size_bytes=LARGEST_MESSAGE_BYTES,
                keepalive_ping_interval_seconds=None,  # the stream has heartbeats of its own
                timeout=None,
            ) as session:
                opening.deadline = inf
                try:
                    yield StreamSocket(session)
                finally:
                    with suppress(*BROKEN), anyio.move_on_after(CLOSE_SECONDS, shield=True):
                        await session.close()
        if opening.cancelled_caught:
            raise SocketClosed(StreamCode.LOST, f"the server did not answer within {timeout_seconds:g} s")
    except WebSocketUpgradeError as error:
        status = error.response.status_code
        code = StreamCode.UNAVAILABLE if status in BUSY else StreamCode.UNAUTHENTICATED
        raise SocketClosed(code, f"the server answered {status} instead of opening a WebSocket") from None
    except BROKEN as error:
        raise SocketClosed(StreamCode.LOST, str(error) or type(error).__name__) from None
    except ExceptionGroup as group:  # from the WebSocket library's own tasks
        if group.split(BROKEN)[1] is not None:
            raise
        raise SocketClosed(StreamCode.LOST, "the connection broke") from None
