"""What the tests of the browser stream share: a real server on loopback, a WebSocket client written by hand, so that
every byte of it can be wrong, and a proxy that cuts."""

import base64
import os
import random
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self
from wave import open as open_wave

import anyio
import anyio.abc
from fastapi import FastAPI

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.gateway.app import voice_app
from agentos.core.communication.voice.gateway.server import listening, serve
from agentos.core.communication.voice.sessions.stream_tickets import NO_TOKEN
from agentos.core.communication.voice.settings import load_settings
from machines.session import STTProvider, VoiceProvider, VoiceSession, VoiceSessionState
from machines.stream.messages import HEADER, SUBPROTOCOL, StreamFormat, encode, read_from_server

NO_ENGINE = STTProvider.GOOGLE  # an engine that is not installed: the session only records
PCM = StreamFormat("pcm_s16le", 16_000)
FRAME = 640
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def audio(frames: int, seed: int = 0) -> bytes:
    """Samples of which no two frames are alike."""
    return random.Random(seed).randbytes(frames * FRAME)


def message(
    first: int, payload: bytes, *, count: int | None = None, media_ms: int | None = None, flags: int = 0
) -> bytes:
    """A binary message."""
    count = -(-len(payload) // FRAME) if count is None else count
    return HEADER.pack(1, flags, count, first, first * 20 if media_ms is None else media_ms) + payload


class Closed(Exception):
    """The connection was closed: with a code, or without a word."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Refused(Exception):
    """The server answered with this instead of opening a WebSocket."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


_sockets: list[anyio.abc.SocketStream] = []  # of the server that runs


class RawSocket:
    """A WebSocket, byte by byte."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self.stream = stream
        self.buffer = b""

    @classmethod
    async def open(
        cls, port: int, *, protocol: str | None = SUBPROTOCOL, path: str = "/v1/stream", **headers: str
    ) -> Self:
        stream = await anyio.connect_tcp("127.0.0.1", port)
        self = cls(stream)
        _sockets.append(stream)
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}", "Sec-WebSocket-Version: 13"]
        lines += [f"Sec-WebSocket-Protocol: {protocol}"] * (protocol is not None)
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await stream.send("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in self.buffer:
            await self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if status != 101:
            try:
                while True:
                    await self._more()
            except Closed:
                raise Refused(status, self.buffer) from None
        return self

    async def _more(self) -> None:
        try:
            self.buffer += await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise Closed(None) from None

    async def _exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            await self._more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    async def send(self, data: str | bytes | Any, *, opcode: int | None = None, fin: bool = True) -> None:
        """Send a message: text, bytes, or one of the protocol's."""
        kind = opcode if opcode is not None else BINARY if isinstance(data, bytes) else TEXT
        payload = data if isinstance(data, bytes) else data.encode() if isinstance(data, str) else encode(data)
        await self.send_raw(framed(kind, payload, fin=fin))

    async def send_raw(self, data: bytes) -> None:
        try:
            await self.stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise Closed(None) from None

    async def receive(self) -> Any:
        """The next message of the protocol. Raises `Closed`."""
        while True:
            kind, size = await self._exactly(2)
            if size == 126:
                (size,) = struct.unpack(">H", await self._exactly(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", await self._exactly(8))
            payload = await self._exactly(size)
            if kind & 15 == CLOSE:
                code = int.from_bytes(payload[:2], "big") if payload else None
                raise Closed(code, payload[2:].decode())
            if kind & 15 == TEXT:
                return read_from_server(payload)

    async def until(self, kind: type[Any]) -> Any:
        """The next message of this kind."""
        while not isinstance(found := await self.receive(), kind):
            pass
        return found

    async def closed(self) -> Closed:
        """How the server closes the connection, whatever it says before."""
        try:
            while True:
                await self.receive()
        except Closed as closed:
            return closed

    async def abort(self) -> None:
        """Go away without a word."""
        with suppress(OSError, AttributeError):  # the server went first
            raw = self.stream.extra(anyio.abc.SocketAttribute.raw_socket)
            raw.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER: a reset
        await anyio.aclose_forcefully(self.stream)


def framed(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A frame of a client, with the masking key 0."""
    size = len(payload)
    head = bytes([opcode | (0x80 if fin else 0)])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65_536:
        head += struct.pack(">BH", 0xFE, size)
    else:
        head += struct.pack(">BQ", 0xFF, size)
    return head + b"\0\0\0\0" + payload


class Server(NamedTuple):
    """A server in this process."""

    port: int
    service: AsyncVoiceService
    app: FastAPI

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def session(self, *, resumable: bool = False, recording: bool = True, **options: Any) -> VoiceSession:
        return await self.service.create_session(
            "shop", VoiceProvider.LOCAL, NO_ENGINE, {"recording_enabled": recording}, resumable=resumable, **options
        )

    def ticket(self, session: VoiceSession) -> str:
        return self.service.stream_tickets.issue_for(session, NO_TOKEN).ticket

    async def stopped(self, session_id: str) -> VoiceSession:
        """The session, when it has stopped."""
        with anyio.fail_after(20):
            while True:
                found = await self.service.get_session(session_id)
                assert found is not None
                if found.state is VoiceSessionState.STOPPED:
                    await self.service.recording(session_id)
                    return found
                await anyio.sleep(0.01)


@asynccontextmanager
async def server(
    backend: Any,
    *,
    change: Callable[[FastAPI], None] = lambda _: None,
    authentication: bool = False,
    **settings: Any,
) -> AsyncIterator[Server]:
    """A server on a free port; `change` may alter its app before it begins."""
    options = {"on_stt_unavailable": "record_only", "recording_format": "wav", **settings}
    with listening("127.0.0.1", 0) as taken:
        async with AsyncVoiceService(load_settings(**options)) as service, anyio.create_task_group() as group:
            app = voice_app(service, authentication=authentication)
            change(app)
            await group.start(serve, app, taken, service, backend[0])
            try:
                yield Server(taken.getsockname()[1], service, app)
            finally:
                while _sockets:
                    await anyio.aclose_forcefully(_sockets.pop())
            await service.aclose()


def recorded(session: VoiceSession) -> bytes:
    """The samples of the recording of a stopped session."""
    assert session.result is not None
    assert session.result.recording is not None
    with open_wave(str(Path(session.result.recording.path)), "rb") as file:
        return file.readframes(file.getnframes())


@asynccontextmanager
async def proxy(port: int) -> AsyncIterator["Proxy"]:
    """A TCP proxy in front of `port`."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    one = Proxy(listener.extra(anyio.abc.SocketAttribute.local_port), port)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, one.handle)
        yield one
        group.cancel_scope.cancel()


class Tap(NamedTuple):
    """What passed through one connection of a proxy."""

    to_server: bytearray
    to_client: bytearray


class Proxy:
    """Forwards both ways. `limits` gives for each connection how many bytes pass before it is cut, both ways together;
    while `silent`, what comes is swallowed, and nobody is told. What comes is held for `delay_seconds`. `taps` keeps what
    passes, a tap a connection, once it is a list."""

    def __init__(self, own: int, port: int) -> None:
        self.port = own
        self._target = port
        self.connections = 0
        self.silent = False
        self.delay_seconds = 0.0
        self.taps: list[Tap] | None = None
        self.limits: Callable[[], int | None] = lambda: None
        self._open: set[anyio.CancelScope] = set()

    def cut(self) -> None:
        """Cut every connection."""
        for scope in self._open:
            scope.cancel()

    async def handle(self, client: anyio.abc.SocketStream) -> None:
        self.connections += 1
        left, tap = [self.limits()], Tap(bytearray(), bytearray())
        if self.taps is not None:
            self.taps.append(tap)
        with anyio.CancelScope() as scope:
            self._open.add(scope)
            try:
                async with (
                    client,
                    await anyio.connect_tcp("127.0.0.1", self._target) as target,
                    anyio.create_task_group() as group,
                ):
                    group.start_soon(self._pump, client, target, left, tap.to_server, scope)
                    group.start_soon(self._pump, target, client, left, tap.to_client, scope)
            except OSError:
                pass
            finally:
                self._open.discard(scope)

    async def _pump(
        self, source: Any, target: Any, left: list[int | None], tap: bytearray, scope: anyio.CancelScope
    ) -> None:
        try:
            while True:
                data = await source.receive(16_384)
                if self.silent:
                    continue
                await anyio.sleep(self.delay_seconds)
                if left[0] is not None:
                    data, left[0] = data[: left[0]], left[0] - len(data)
                await target.send(data)
                if self.taps is not None:
                    tap += data
                if left[0] is not None and left[0] <= 0:
                    break
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        scope.cancel()
