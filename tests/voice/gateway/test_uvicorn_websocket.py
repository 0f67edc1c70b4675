"""The WebSocket protocol on asyncio against uvicorn's own, which it takes the place of: the same messages, answers and ends,
however what comes is cut; and a budget for each connection."""

import asyncio
import random
import struct
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from agentos.core.communication.voice.gateway.access.connections import GUEST, Connections
from agentos.core.communication.voice.gateway.streams.connection import AT_ONCE
from agentos.core.communication.voice.gateway.turns import TURNS, CallbackTurns
from agentos.core.communication.voice.gateway.uvicorn_websocket import UvicornWebSocket
from agentos.core.communication.voice.gateway.websocket_frames import BEFORE_HELLO, UNITS, UNITS_OF_OTHERS
from machines.stream.messages import StreamCode

HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MOST = 2_000
SCRIPTS = 400


class Transport(asyncio.Transport):
    """Keeps what is written; `deaf` while nothing is read. `full` answers to each write that no more can be taken."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = b""
        self.closing = self.deaf = self.full = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in {"peername", "sockname"} else default

    def write(self, data: Any) -> None:
        if not self.closing:
            self.written += data
            if self.full:
                self.protocol.pause_writing()

    def pause_reading(self) -> None:
        self.deaf = True

    def resume_reading(self) -> None:
        self.deaf = False

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close


class App:
    """Collects the messages. Where the server can give them at once, it takes those of which `takes` says so."""

    def __init__(self, takes: random.Random | None = None) -> None:
        self.takes = takes
        self.found: list[Any] = []
        self.counted = 0
        self.waiting = False
        self.gives = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if self.gives and AT_ONCE in scope["extensions"]:
            scope["extensions"][AT_ONCE](self.take, self.count)
        while True:
            self.waiting = True
            message = await receive()
            self.waiting = False
            self.found.append({name: value for name, value in message.items() if value is not None})
            if message["type"] == "websocket.disconnect":
                return
            if self.takes is not None and self.takes.random() < 0.3:
                await asyncio.sleep(0)

    def take(self, data: bytes) -> bool:
        if self.takes is None or not self.waiting or self.takes.random() < 0.3:
            return False
        self.found.append({"type": "websocket.receive", "bytes": data})
        return True

    def count(self) -> None:
        self.counted += 1


async def connected(kind: type[WebSocketsSansIOProtocol], app: App, turns: CallbackTurns | None = None) -> Any:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        ws_max_size=MOST,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        log_config=None,
    )
    config.load()
    state = {
        GUEST: Connections(total=9, per_client=9, strangers=9).admit(None, 3),
        TURNS: turns or CallbackTurns(asyncio.get_running_loop()),
    }
    protocol = kind(config, ServerState(), state)
    protocol.connection_made(Transport(protocol))
    protocol.data_received(HANDSHAKE)
    while b"\r\n\r\n" not in protocol.transport.written:  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    protocol.transport.written = b""  # type: ignore[attr-defined]
    return protocol


async def idle(protocol: Any) -> None:
    """Until nothing more happens by itself."""
    for _ in range(5):
        await asyncio.sleep(0)
    while protocol.transport.deaf and not protocol.transport.closing:
        await asyncio.sleep(0.001)


async def played(kind: type[WebSocketsSansIOProtocol], app: App, pieces: list[bytes]) -> tuple[list[Any], bytes]:
    """What the app got, and what was answered."""
    protocol = await connected(kind, app)
    for piece in pieces:
        while protocol.transport.deaf and not protocol.transport.closing:
            await asyncio.sleep(0)
        if protocol.transport.closing:
            break
        protocol.data_received(piece)
    await idle(protocol)
    if not protocol.transport.closing:
        protocol.transport.close()
    while protocol.tasks:
        await asyncio.sleep(0)
    return app.found, protocol.transport.written


def framed(rng: random.Random, first: int, payload: bytes, *, masked: bool = True, size: int | None = None) -> bytes:
    size = len(payload) if size is None else size
    bit, mask = (0x80, rng.randbytes(4)) if masked else (0, b"")
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 65_536:
        head = struct.pack(">BBH", first, bit | 126, size)
    else:
        head = struct.pack(">BBQ", first, bit | 127, size)
    return head + mask + (bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) if masked else payload)


def script(rng: random.Random) -> bytes:
    """Good frames of every kind, and perhaps, at last, one that is none, with more behind it."""
    parts = []
    for _ in range(rng.randrange(12)):
        data = rng.randbytes(rng.choice((0, 1, 125, 126, 640, MOST)))
        match rng.randrange(9):
            case 0 | 1 | 2 | 3:
                parts.append(framed(rng, 0x82, data))
            case 4:
                parts.append(framed(rng, 0x81, data.hex()[:MOST].encode()))
            case 5:
                parts.append(framed(rng, rng.choice((0x89, 0x8A)), data[:125]))
            case 6:
                cut = len(data) // 3
                parts += [framed(rng, 0x02, data[:cut]), framed(rng, 0x89, b"within"), framed(rng, 0x80, data[cut:])]
            case 7:
                text = "grüße".encode() * 3
                parts += [framed(rng, 0x01, text[:4]), framed(rng, 0x00, text[4:9]), framed(rng, 0x80, text[9:])]
            case _:
                parts.append(framed(rng, 0x82, b""))
    wrong = (
        framed(rng, 0xF2, b"reserved bits"),
        framed(rng, 0x83, b"unknown"),
        framed(rng, 0x82, b"no mask", masked=False),
        framed(rng, 0x09, b"a control frame in parts"),
        framed(rng, 0x89, bytes(126)),
        framed(rng, 0x80, b"of nothing"),
        framed(rng, 0x02, b"x") + framed(rng, 0x82, b"within a message"),
        framed(rng, 0x02, bytes(1500)) + framed(rng, 0x80, bytes(1500)),
        framed(rng, 0x82, b"", size=MOST + 1),
        framed(rng, 0x82, b"", size=2**63),
        framed(rng, 0x81, b"\xff"),
        framed(rng, 0x88, b"x"),
        framed(rng, 0x88, b"\x03\xe8bye"),
        framed(rng, 0x88, b""),
        framed(rng, 0x88, struct.pack(">H", 4000) + b"\xff"),
        framed(rng, 0x82, b"", size=600),
    )
    if rng.random() < 0.7:
        parts.append(rng.choice(wrong))
        parts += [framed(rng, 0x82, b"behind")] * rng.randrange(3)
    return b"".join(parts)


def pieces_of(rng: random.Random, data: bytes) -> list[bytes]:
    if rng.random() < 0.3:
        return [data]
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 12)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


@pytest.mark.parametrize("part", range(4))
def test_the_same_messages_answers_and_ends_as_uvicorns_own(part: int) -> None:
    """uvicorn's own gets each byte alone: what came in one read with a violation it would lose."""

    async def compare() -> None:
        for seed in range(part, SCRIPTS, 4):
            rng = random.Random(seed)
            data = script(rng)
            expected = await played(WebSocketsSansIOProtocol, App(), [bytes([byte]) for byte in data])
            for takes in (None, random.Random(seed)):
                found = await played(UvicornWebSocket, App(takes), pieces_of(rng, data))
                assert found == expected, seed

    asyncio.run(asyncio.wait_for(compare(), 100))


def test_good_frames_of_one_read_are_taken_before_the_violation_behind_them() -> None:
    async def violate() -> None:
        rng, app = random.Random(1), App(random.Random(1))
        data = [framed(rng, 0x82, bytes([number])) for number in range(5)]
        found, _ = await played(UvicornWebSocket, app, [b"".join([*data, b"\xf2\x80\0\0\0\0"])])
        assert [message["bytes"] for message in found[:-1]] == [bytes([number]) for number in range(5)]
        assert found[-1]["code"] == 1002

    asyncio.run(violate())


@pytest.mark.parametrize("first", [0x89, 0x8A, 0x80, 0x00, 0x81, 0x82])
def test_before_the_hello_hardly_anything_is_taken(first: int) -> None:
    async def flood() -> None:
        app = App()
        app.gives = False
        rng = random.Random(2)
        begin = framed(rng, 0x02, b"") if first in {0, 0x80} else b""
        found, _ = await played(UvicornWebSocket, app, [begin + framed(rng, first, b"") * 3000])
        assert len(found) <= BEFORE_HELLO + 1
        assert found[-1]["type"] == "websocket.disconnect"
        assert found[-1]["code"] in {StreamCode.TOO_MANY, 1002}  # a continuation of nothing

    asyncio.run(flood())


def test_a_flood_gets_its_share_of_each_turn_and_waits_behind_the_others() -> None:
    async def flood() -> None:
        rng, apps = random.Random(3), [App() for _ in range(3)]
        turns = CallbackTurns(asyncio.get_running_loop())
        protocols = [await connected(UvicornWebSocket, app, turns) for app in apps]
        for protocol in protocols:
            protocol.data_received(framed(rng, 0x89, b"") * 1000)
            assert protocol.transport.deaf  # nothing more is read meanwhile
        before = sum(app.counted for app in apps)
        assert before <= 3 * UNITS // UNITS_OF_OTHERS
        for turn in range(1, 30):
            await asyncio.sleep(0)
            assert sum(app.counted for app in apps) <= before + turn * UNITS // UNITS_OF_OTHERS
        while any(protocol.transport.deaf for protocol in protocols):
            await asyncio.sleep(0)
        assert [app.counted for app in apps] == [1000] * 3
        assert [len(protocol.transport.written) for protocol in protocols] == [2000] * 3

    asyncio.run(flood())


def test_who_does_not_take_its_answers_gets_no_more_of_them() -> None:
    async def flood() -> None:
        rng, app = random.Random(4), App()
        protocol = await connected(UvicornWebSocket, app)
        protocol.transport.full = True
        protocol.data_received(framed(rng, 0x89, bytes(125)) * 1000)
        for _ in range(50):
            await asyncio.sleep(0)
        assert app.counted <= UNITS // UNITS_OF_OTHERS
        assert protocol.transport.deaf
        protocol.transport.full = False
        protocol.resume_writing()
        while protocol.transport.deaf:
            await asyncio.sleep(0)
        assert app.counted == 1000

    asyncio.run(flood())


def test_behind_the_end_not_much_is_let_pass() -> None:
    async def flood() -> None:
        rng, app = random.Random(5), App(random.Random(5))
        protocol = await connected(UvicornWebSocket, app)
        await protocol.send({"type": "websocket.close", "code": 4429})
        sent = framed(rng, 0x89, b"") * 500
        while not protocol.transport.closing:
            while protocol.transport.deaf and not protocol.transport.closing:
                await asyncio.sleep(0)
            protocol.data_received(sent)
        assert not app.counted > 6_000

    asyncio.run(flood())


def test_what_came_before_a_connection_was_lost_is_taken_first() -> None:
    async def lose() -> None:
        rng, app = random.Random(6), App()
        protocol = await connected(UvicornWebSocket, app)
        protocol.data_received(b"".join(framed(rng, 0x82, bytes([number])) for number in range(200)))
        protocol.transport.closing = True
        protocol.connection_lost(ConnectionResetError())
        while protocol.tasks:
            await asyncio.sleep(0)
        assert [message["bytes"] for message in app.found[:-1]] == [bytes([number]) for number in range(200)]
        assert app.found[-1]["type"] == "websocket.disconnect"
        assert not protocol.connections

    asyncio.run(lose())
