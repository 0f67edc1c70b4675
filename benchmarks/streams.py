"""What does a frame of a browser stream cost the server, beside a bare uvicorn + Starlette sink that only reads the frames?

Ours and the sink run at the same time, each in a process of its own, and are fed in turn by another one, fifty frames a second
and stream; ours in other turns with three frames a message. Ours on uvloop comes first, then ours on trio. It has recording and
evidence on and no speech to text; FLAC is made when a segment of a minute is full, so it is not in the figures. CPU is what the
kernel has counted, of the whole process and of the loop's thread. Lateness is the time from when a frame was due at the client
until its acknowledgement was there, for the frames that are acknowledged as they come; at the sink, in turns of their own,
until the pong to a ping that came with the frame.
"""

import asyncio
import json
import operator
import resource
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import anyio
import anyio.to_thread
import trio
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.gateway.app import voice_app
from agentos.core.communication.voice.gateway.server import address_of, listening, serve
from agentos.core.communication.voice.settings import load_settings
from machines.session import STTProvider, VoiceProvider
from machines.stream.messages import HEADER, SUBPROTOCOL, Hello, Pong, StreamFormat, encode

NO_ENGINE = STTProvider.GOOGLE  # an engine that is not installed: the session only records
STREAMS = 500
FRAME_BYTES = 640
FRAMES_A_SECOND = 50
FRAMES_A_PING = 5
PONG = 0x8A
SLOTS = 20  # of a millisecond each
BEGIN_SECONDS = 10.0  # calls don't all begin at once, nor come all their accounts, every ten seconds, at once
WARM_UP_SECONDS = 1.0
FORMATS = (StreamFormat("pcm_s16le", 16_000),)


# --- the servers -----------------------------------------------------------------------------------------------------


async def ours(streams: int, backend: str) -> None:
    """Serve sessions, and say where and with which tickets."""
    with tempfile.TemporaryDirectory() as home, listening("127.0.0.1", 0) as taken:
        settings = load_settings(home=Path(home), on_stt_unavailable="record_only", stop_timeout_seconds=60)
        async with AsyncVoiceService(settings) as service, anyio.create_task_group() as group:
            app = voice_app(service, authentication=False, streams_per_client=streams)
            await group.start(serve, app, taken, service, backend)
            tickets = []
            for _ in range(streams):
                session = await service.create_session(
                    "bench", VoiceProvider.LOCAL, NO_ENGINE, {"recording_enabled": True}
                )
                tickets.append((await service.create_stream_ticket(session.session_id)).ticket)
            print(json.dumps({"address": address_of(taken), "tickets": tickets}), flush=True)
            await anyio.to_thread.run_sync(sys.stdin.read)
            await service.aclose()


async def sink(streams: int) -> None:
    """Read what comes."""

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept(SUBPROTOCOL)
        try:
            while True:
                await socket.receive_bytes()
        except (WebSocketDisconnect, KeyError):
            return

    with listening("127.0.0.1", 0) as taken:
        config = uvicorn.Config(
            Starlette(routes=[WebSocketRoute("/v1/stream", endpoint)]),
            loop="none",
            log_config=None,
            ws="websockets-sansio",
            ws_ping_interval=None,
            ws_per_message_deflate=False,
            lifespan="off",
        )
        server = uvicorn.Server(config)
        print(json.dumps({"address": address_of(taken), "tickets": [""] * streams}), flush=True)
        serving = asyncio.ensure_future(server.serve(sockets=[taken]))
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = server.force_exit = True
        await serving


# --- the client ------------------------------------------------------------------------------------------------------


class Feed(asyncio.Protocol):
    """One stream, written by hand: what a client costs is not asked here. Its masking key is 0."""

    def __init__(self, ticket: str, late: list[float]) -> None:
        self.ticket = ticket
        self.late = late
        self.first = 0
        self.due: dict[int, float] = {}
        self.ready = asyncio.get_running_loop().create_future()
        self.transport: Any = None
        self.buffer = b""

    def connection_made(self, transport: Any) -> None:
        """Ask for the WebSocket."""
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, port = transport.get_extra_info("peername")
        transport.write(
            f"GET /v1/stream HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Take the answer, and then messages."""
        self.buffer += data
        if not self.ready.done() and b"\r\n\r\n" in self.buffer:
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            if b" 101 " not in head:
                sys.exit(f"the server refused a stream: {head!r}")
            if self.ticket:
                self.send(0x81, encode(Hello(FORMATS, 1, ticket=self.ticket)))
            self.ready.set_result(None)
        while len(self.buffer) >= 4:
            size, head = self.buffer[1], 2
            if size == 126:
                (size,), head = struct.unpack_from(">H", self.buffer, 2), 4
            if len(self.buffer) < head + size:
                return
            kind, message, self.buffer = self.buffer[0], self.buffer[head : head + size], self.buffer[head + size :]
            if kind == PONG:
                self.acknowledged(int.from_bytes(message))
            elif message.startswith(b'{"type":"ack"'):
                self.acknowledged(json.loads(message)["received"])
            elif message.startswith(b'{"type":"ping"'):
                self.send(0x81, encode(Pong(json.loads(message)["id"])))
            elif not message.startswith((b'{"type":"welcome"', b'{"type":"event"')):
                sys.exit(f"the server said {message!r}")

    def acknowledged(self, received: int) -> None:
        """Frames below this number are in."""
        due = self.due.pop(received, None)
        if due is not None:
            self.late.append(time.perf_counter() - due)

    def send(self, kind: int, payload: bytes) -> None:
        """Send a message."""
        size = len(payload)
        head = bytes((kind, 0x80 | size)) if size < 126 else struct.pack(">BBH", kind, 0xFE, size)
        self.transport.write(b"".join((head, b"\0\0\0\0", payload)))

    def frames(self, samples: bytes, due: float, count: int, *, ping: bool) -> None:
        """Send the next frames, `count` in one message, the last of which was due at `due`; a ping with some of them."""
        self.send(0x82, HEADER.pack(1, 0, count, self.first, self.first * 20) + samples)
        self.first += count
        if self.ticket or ping:
            self.due[self.first] = due
            self.due.pop(self.first - 100, None)
        if ping:
            self.send(0x89, self.first.to_bytes(8))


async def feed(
    streams: list[Feed],
    seconds: float,
    samples: bytes,
    *,
    together: int = 1,
    one_by_one: bool = False,
    pings: bool = False,
) -> None:
    """Fifty frames a second into each, spread over the 20 ms, so many `together`; where they come `one_by_one`, the last begins
    at the end; with `pings`, one with each fifth frame."""
    samples *= together
    slots = [streams[at::SLOTS] for at in range(SLOTS)]
    began = time.perf_counter()
    ticks = int(seconds * FRAMES_A_SECOND) * SLOTS
    for tick in range(ticks):
        due = began + tick / FRAMES_A_SECOND / SLOTS
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        slot = slots[tick % SLOTS]
        turn = tick // SLOTS
        for at, stream in enumerate(slot[: len(slot) * tick // ticks + 1] if one_by_one else slot):
            if (turn + at) % together == 0:
                stream.frames(samples, due, together, ping=pings and (turn + at) % FRAMES_A_PING == 0)


async def client(servers: list[dict[str, Any]], rounds: int, seconds: float) -> None:
    """Feed the servers in turn, and print for each turn what they have used: one by one frame, and those that take `together`
    more at once with so many; then those without tickets with pings."""
    samples = struct.pack(">320h", *(at * 97 % 20_000 - 10_000 for at in range(320)))
    loop = asyncio.get_running_loop()
    late: list[float] = []

    async def turn(server: dict[str, Any], group: list[Feed], seconds: float, samples: bytes, together: int) -> None:
        await feed(group, WARM_UP_SECONDS, samples, together=together)
        late.clear()
        before = cpu(server["pid"])
        await feed(group, seconds, samples, together=together)
        found = sorted(late)  # without the last frames: nothing comes behind them that would have them acknowledged
        await asyncio.sleep(0.3)  # what is gathered for a moment is done
        after = cpu(server["pid"])
        frames = int(seconds * FRAMES_A_SECOND) * len(group)
        used = [(b - a) / frames * 1e6 for a, b in zip(before, after, strict=True)]
        told = {"name": server["name"], "together": together, "process": used[0], "loop": used[1]}
        print(json.dumps({**told, "late": found if server["tickets"][0] else []}), flush=True)

    feeds: list[list[Feed]] = []
    for server in servers:
        host, port = server["address"].removeprefix("http://").split(":")
        group = []
        for ticket in server["tickets"]:
            _, stream = await loop.create_connection(lambda ticket=ticket: Feed(ticket, late), host, int(port))  # type: ignore[misc]
            await stream.ready
            group.append(stream)
        feeds.append(group)
    for group in feeds:
        await feed(group, BEGIN_SECONDS, samples, one_by_one=True)
    turns = [(server, group, together) for server, group in zip(servers, feeds, strict=True) for together in (1, 3)]
    for _ in range(rounds):
        for server, group, together in turns:
            if together == 1 or server["tickets"][0]:
                await turn(server, group, seconds, samples, together)
    for server, group in zip(servers, feeds, strict=True):
        if not server["tickets"][0]:
            late.clear()
            await feed(group, rounds * seconds, samples, pings=True)
            print(json.dumps({"name": server["name"], "together": 1, "late": sorted(late)}), flush=True)


def cpu(pid: int) -> tuple[float, float]:
    """Seconds of CPU that all threads of a process have used, and its main thread, where the loop runs."""
    used = {
        task.name: int((task / "schedstat").read_text().split()[0]) / 1e9
        for task in Path(f"/proc/{pid}/task").iterdir()
    }
    return sum(used.values()), used[str(pid)]


# --- the table -------------------------------------------------------------------------------------------------------


NAMES = {"ours": "agentos-voice, uvloop", "trio": "agentos-voice, trio", "sink": "sink, uvicorn + Starlette"}


def lines(*, quick: bool) -> Iterator[str]:
    """The figures: on each loop a row for each server, and how many times the sink ours is."""
    yield from _beside_the_sink("ours", (" (goal 1.3)", " (goal 1.0)", " (goal 0.7)", " (goal 20 ms)"), quick=quick)
    yield from _beside_the_sink("trio", ("", "", "", ""), quick=quick)


def _beside_the_sink(mine: str, goals: tuple[str, str, str, str], *, quick: bool) -> Iterator[str]:
    streams, rounds, seconds = (100, 3, 2.0) if quick else (STREAMS, 5, 4.0)
    processes = {role: _started(role, streams) for role in (mine, "sink")}
    try:
        servers = [
            {**json.loads(_out(one).readline()), "pid": one.pid, "name": role} for role, one in processes.items()
        ]
        feeder = _started("client", rounds, seconds, json.dumps(servers))
        turns = [json.loads(line) for line in _out(feeder)]
        if feeder.wait() or len(turns) != 3 * rounds + 1:
            raise RuntimeError(f"the client failed ({feeder.returncode})")
    finally:
        for one in processes.values():
            one.communicate(timeout=120)
    for role in (mine, "sink"):
        used = [statistics.median(_figures(turns, role, of)) for of in ("process", "loop")]
        p50, p99 = _late(turns, role)
        yield (
            f"{streams} streams, {NAMES[role]:<26} {used[0]:6.1f} us a frame, the loop's thread {used[1]:6.1f} us, "
            f"until acknowledged p50 {p50:.1f} ms, p99 {p99:.1f} ms{goals[3] if role == mine else ''}"
        )
    whole, loop = (_times(_figures(turns, mine, of), _figures(turns, "sink", of)) for of in ("process", "loop"))
    three = _times(_figures(turns, mine, "process", together=3), _figures(turns, mine, "process"))
    yield (
        f"{streams} streams, {NAMES[mine]}, times the sink: {whole:.2f}{goals[0]}, the loop's thread {loop:.2f}{goals[1]}; "
        f"a frame of three in a message, times one alone {three:.2f}{goals[2]}"
    )


def _late(turns: Sequence[dict[str, Any]], role: str) -> tuple[float, float]:
    late = [value for turn in turns if turn["name"] == role and turn["together"] == 1 for value in turn["late"]]
    quantiles = statistics.quantiles(late, n=100)
    return quantiles[49] * 1000, quantiles[98] * 1000


def _times(ours: Iterable[float], others: Iterable[float]) -> float:
    return statistics.median(map(operator.truediv, ours, others))


def _figures(turns: Sequence[dict[str, Any]], name: str, of: str, *, together: int = 1) -> list[float]:
    return [turn[of] for turn in turns if turn["name"] == name and turn["together"] == together and of in turn]


def _started(*arguments: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.streams", *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _out(process: "subprocess.Popen[str]") -> TextIO:
    assert process.stdout is not None
    return process.stdout  # type: ignore[return-value]


def main() -> None:
    """One of the processes."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    role, *arguments = sys.argv[1:]
    if role == "client":
        uvloop.run(client(json.loads(arguments[2]), int(arguments[0]), float(arguments[1])))
    elif role == "trio":
        trio.run(ours, int(arguments[0]), "trio")
    else:
        uvloop.run(sink(int(arguments[0])) if role == "sink" else ours(int(arguments[0]), "asyncio"))


if __name__ == "__main__":
    main()
