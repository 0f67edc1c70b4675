"""One connection on trio: anycorn's protocols, with a budget for each turn of the loop, like `uvicorn_websocket.py` and
`uvicorn_http.py` on asyncio. There is no HTTP/2."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import anyio
import h11
from anycorn.events import Closed, RawData
from anycorn.protocol.events import Data, StreamClosed
from anycorn.protocol.h11 import STREAM_ID, H11Protocol
from anycorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from anycorn.sendfile import have_sendfile
from anycorn.task_group import TaskGroup
from anycorn.tcp_server import TCPServer
from anycorn.typing import ConnectionState
from anycorn.utils import parse_socket_addr
from anyio.abc import SocketAttribute
from websockets.speedups import apply_mask
from wsproto.events import CloseConnection
from wsproto.utilities import LocalProtocolError

from agentos.core.communication.voice.gateway.streams.connection import AT_ONCE
from agentos.core.communication.voice.gateway.turns import TURNS, TaskTurns
from agentos.core.communication.voice.gateway.uvicorn_http import SLICE_BYTES
from agentos.core.communication.voice.gateway.websocket_frames import (
    AFTER_CLOSE,
    BEFORE_HELLO,
    BINARY,
    BINARY_BEGINS,
    CONTINUATION_ENDS,
    MORE,
    PENALTY_SECONDS,
    STRANGE,
    TEXT,
    TEXT_BEGINS,
    TOO_MUCH,
    UNITS,
    UNITS_OF_OTHERS,
    frame_at,
    is_counted,
)
from machines.stream.messages import StreamCode

READ_BYTES: Final = 65_536


class TrioConnection(TCPServer):
    """anycorn's connection, without TLS."""

    protocol: "_Http"  # type: ignore[assignment]

    async def run(self) -> None:
        """Serve the connection until it is closed."""
        try:
            raw = self.stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - a stream's method, no database's
            self._sendfile_socket = raw if have_sendfile else None
            async with TaskGroup() as group:
                self._task_group = group
                self.protocol = _Http(
                    _Lane(self.state[TURNS], self.config.websocket_max_message_size),
                    self.app,
                    self.config,
                    self.context,
                    group,
                    ConnectionState(self.state.copy()),
                    parse_socket_addr(raw.family, raw.getpeername()),
                    parse_socket_addr(raw.family, raw.getsockname()),
                    self.protocol_send,
                    None,
                    zero_copy_send=have_sendfile,
                )
                await self.protocol.initiate()
                await self.idle_task.restart(group, self._idle_timeout)
                await self._read_data()
        except OSError:
            pass
        finally:
            await self._close()

    async def _read_data(self) -> None:
        turns: TaskTurns = self.state[TURNS]
        while True:
            try:
                data = await self.stream.receive(READ_BYTES)
            except (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream):
                break
            at = 0
            while at < len(data):
                if at:
                    await turns.next()
                size = self.protocol.slice_bytes
                await self.protocol.handle(RawData(data[at : at + size]))
                at += size
        await self.protocol.handle(Closed())


class _Http(H11Protocol):
    """anycorn's HTTP/1.1; the data of a WebSocket goes through its lane."""

    def __init__(self, lane: "_Lane", app: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(lane.of(app), *arguments, **named)
        self._lane = lane

    async def handle(self, event: Any) -> None:
        """Handle data, or the end of the connection."""
        stream = self.stream
        if isinstance(event, RawData) and isinstance(stream, WSStream):
            if self._lane.open and stream.handshake.accepted:
                await self._lane.take(stream, event.data)
                return
            self._lane.open = False  # a client that did not wait for the answer to its handshake
        await super().handle(event)

    async def _check_protocol(self, event: h11.Request) -> None:
        """Refuse to switch to any protocol but WebSocket."""

    async def _create_stream(self, request: h11.Request) -> None:
        if self.connection.trailing_data[0]:
            self._lane.open = False  # as above
        await super()._create_stream(request)

    async def stream_send(self, event: Any) -> None:
        """Send an event of a stream. A client that broke a rule of WebSocket gets a close frame that says which (RFC 6455)."""
        stream = self.stream
        if isinstance(event, StreamClosed) and isinstance(stream, WSStream) and stream.close_code is not None:
            with suppress(LocalProtocolError):  # the client closed first, or has the close frame already
                told = stream.connection.send(CloseConnection(stream.close_code))
                await super().stream_send(Data(stream.stream_id, told))
        await super().stream_send(event)

    @property
    def slice_bytes(self) -> int:
        """How many bytes to hand in at once: all of them if the lane applies its own budget."""
        return READ_BYTES if isinstance(self.stream, WSStream) and self._lane.open else SLICE_BYTES


class _Lane:
    """Cuts frames for one WebSocket, with the extension `AT_ONCE` of `UvicornWebSocket`. While the lane is not `open`, all data
    goes to anycorn."""

    def __init__(self, turns: TaskTurns, most: int) -> None:
        self.open = True
        self._turns = turns
        self._most = most
        self._taker: Callable[[bytes], bool] | None = None
        self._count: Callable[[], None] | None = None
        self._put = self._got = 0  # messages that went into and out of the app's queue
        self._pieces: list[bytes] = []
        self._held = 0
        self._need = 1
        self._in_parts = False  # a fragmented message has begun and is not whole
        self._spare = BEFORE_HELLO

    def of(self, app: Any) -> Any:
        """The app, with the extension."""

        async def extended(scope: Any, receive: Any, send: Any, *others: Any) -> None:
            if scope["type"] != "websocket":
                await app(scope, receive, send, *others)
                return

            async def counted() -> Any:
                message = await receive()
                self._got += message["type"] == "websocket.receive"
                return message

            scope["extensions"] = {**(scope.get("extensions") or {}), AT_ONCE: self._give_to}
            await app(scope, counted, send, *others)

        return extended

    def _give_to(self, taker: Callable[[bytes], bool], count: Callable[[], None]) -> None:
        self._taker, self._count = taker, count

    async def take(self, stream: WSStream, data: bytes) -> None:  # noqa: C901, PLR0912 - one loop, for every frame
        """Handle data, frame by frame and turn by turn; keep the beginning of a frame that is not whole yet."""
        if self._held:
            self._pieces.append(data)
            self._held += len(data)
            if self._held < self._need:
                return
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._held = 0
        at, units = 0, UNITS
        while not stream.closed:
            if units <= 0:
                await self._turns.next()
                units = UNITS
            kind, begins, ends = frame_at(data, at, self._most - stream.buffer.length * self._in_parts)
            if kind == MORE:
                self._need = ends
                if at < len(data):
                    self._pieces.append(data[at:])
                    self._held = len(data) - at
                return
            closing = stream.state is not ASGIWebsocketState.CONNECTED
            if kind == BINARY and self._taker is not None and not self._in_parts and not closing:
                payload = apply_mask(data[begins:ends], data[begins - 4 : begins])
                at, units = ends, units - 1
                if self._put != self._got or not self._taker(payload):
                    self._put += 1
                    await stream.app_put({"type": "websocket.receive", "bytes": payload})  # type: ignore[misc]
                continue
            if (self._taker is None or closing) and await self._is_too_much(stream, closing=closing):
                return
            if kind == STRANGE:
                self.open = False
                ends = len(data)
            units -= UNITS_OF_OTHERS
            if self._count is not None and is_counted(kind):
                self._count()
            if kind in {BINARY_BEGINS, TEXT_BEGINS}:
                self._in_parts = True
            elif kind in {BINARY, TEXT, CONTINUATION_ENDS}:
                self._in_parts = False
                self._put += 1
            stream.connection.receive_data(data[at:ends])
            await stream._handle_events()  # noqa: SLF001 - the only way to hand in a part of the data
            at = ends
            if kind == STRANGE:
                return

    async def _is_too_much(self, stream: WSStream, *, closing: bool) -> bool:
        """Whether more data came than is allowed before the hello or behind the end; then the connection is closed."""
        self._spare -= 1
        if closing and self._spare > -AFTER_CLOSE:
            return False
        if not closing and self._spare >= 0:
            return False
        if not closing:
            await stream._send_wsproto_event(CloseConnection(StreamCode.TOO_MANY, TOO_MUCH))  # noqa: SLF001
            await anyio.sleep(PENALTY_SECONDS)
        await stream.send(StreamClosed(stream_id=STREAM_ID))
        return True
