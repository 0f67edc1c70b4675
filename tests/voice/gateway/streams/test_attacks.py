"""The browser stream under attack, on a real server: whatever is sent, the connection ends with a documented code, the session
stays whole, and other calls don't notice."""

import contextlib
import logging
import random
import resource
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentos.core.communication.voice.gateway.access.limits import ConnectionLimit
from machines.stream.messages import (
    HEADER,
    Bye,
    End,
    Event,
    Gap,
    Hello,
    Pong,
    StreamCode,
    StreamViolation,
    Welcome,
    encode,
    read_audio,
    read_from_client,
)
from tests.voice.gateway.streaming import (
    BINARY,
    FRAME,
    PCM,
    TEXT,
    Closed,
    RawSocket,
    Server,
    audio,
    framed,
    message,
    recorded,
    server,
)

pytestmark = pytest.mark.anyio

CODES = {code for name, code in vars(StreamCode).items() if name.isupper()}
BELOW = {1002, 1007, 1009}  # of WebSocket itself
IDLE = 1000


async def opened(at: Server, session: Any, **hello: Any) -> tuple[RawSocket, Welcome]:
    """A socket that was welcomed."""
    socket = await RawSocket.open(at.port)
    if "resume" not in hello:
        hello["ticket"] = at.ticket(session)
    await socket.send(Hello((PCM,), hello.pop("attempt", 1), **hello))
    return socket, await socket.until(Welcome)


async def whole(at: Server, session: Any, resume: str, said: bytes, attempt: int) -> None:
    """A good client goes on with the session and ends it: the recording is bit for bit what was said."""
    frames = len(said) // FRAME
    socket, welcome = await opened(at, session, resume=resume, attempt=attempt, next=frames)
    await socket.send(message(welcome.expected, said[welcome.expected * FRAME :]))
    await socket.send(End(frames))
    await socket.until(Bye)
    assert recorded(await at.stopped(session.session_id)) == said


# --- generated messages ----------------------------------------------------------------------------------------------


GOOD = [message(0, audio(2)), message(2, audio(1)), encode(Gap(2, 3, "ring")), encode(End(2)), encode(Pong(1))]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3),
    max_leaves=8,
)
MUTATIONS = st.tuples(st.sampled_from(GOOD), st.integers(0, 60), st.binary(max_size=4), st.integers(0, 4)).map(
    lambda drawn: drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] + drawn[3] :]
)
HEADERS = st.tuples(
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 65_535),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
).map(lambda fields: HEADER.pack(*fields))
ANYTHING = st.one_of(
    st.tuples(
        st.just(BINARY), st.binary(max_size=200) | MUTATIONS | st.tuples(HEADERS, st.binary(max_size=700)).map(b"".join)
    ),
    st.tuples(st.just(TEXT), MUTATIONS | st.text(max_size=50).map(lambda text: text.encode("utf-8", "replace"))),
    st.tuples(st.just(TEXT), JSON.map(lambda value: repr(value).encode()) | st.binary(max_size=40)),
)


@given(st.binary(max_size=64) | MUTATIONS | HEADERS)
@settings(max_examples=2000, deadline=None)
def test_no_bytes_are_more_than_a_message_or_a_violation(data: bytes) -> None:
    for read in (read_audio, read_from_client):
        with contextlib.suppress(StreamViolation):
            read(data)


def ends(payload: bytes) -> bool:
    try:
        return isinstance(read_from_client(payload), End)
    except StreamViolation:
        return False


async def test_whatever_is_said_has_a_code_and_the_session_stays_whole(anyio_backend: Any) -> None:
    said, chance = audio(10), random.Random(7)
    drawn: list[list[tuple[int, bytes]]] = []

    @given(st.lists(ANYTHING, min_size=1, max_size=4))
    @settings(max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def draw(messages: list[tuple[int, bytes]]) -> None:
        drawn.append(messages)

    draw()
    async with server(anyio_backend) as at:
        for messages in drawn:
            session = await at.session()
            socket, welcome = await opened(at, session)
            await socket.send(message(0, said[: 2 * FRAME]))
            closed = None
            try:
                for kind, payload in messages:
                    await socket.send_raw(framed(kind, payload))
                await socket.send_raw(framed(BINARY, bytes(chance.randrange(1, 12))))  # a message that is surely wrong
                closed = await socket.closed()
            except Closed as error:
                closed = error
            # none when more was sent behind the violation: the connection is reset, and the answer may be lost with it
            assert closed.code in CODES | BELOW | {None}, messages
            taken, over = None, None
            try:
                again, now = await opened(at, session, resume=welcome.resume, attempt=2, next=2**31)
                taken = now.expected
                await again.send(End(taken))
                await again.until(Bye)
            except Closed as error:
                over = error.code
            if over is not None:  # it has ended: an `end` that was drawn was a good one
                assert over == StreamCode.DONE
                assert any(ends(payload) for _, payload in messages), messages
            stopped = await at.stopped(session.session_id)
            assert stopped.result is not None
            frames = stopped.result.frames
            assert frames.accepted == frames.accounted + sum(frames.dropped.values())
            assert frames.accepted >= 2
            assert taken in (None, frames.accepted)
            if frames.accounted:
                assert recorded(stopped)[: 2 * FRAME] == said[: 2 * FRAME]


WRONG = {
    "too short": message(1, bytes(100), count=1),
    "a frame again": message(0, audio(1)),
    "a hole": message(2, audio(1)),
    "beyond the limit": message(1, audio(1), count=60_000),
    "no audio": b"\0" * 20,
    "the clock falls": message(1, audio(1), media_ms=0),
}


@pytest.mark.parametrize("name", WRONG)
async def test_behind_a_violation_nothing_gets_in_though_it_came_with_it(anyio_backend: Any, name: str) -> None:
    said = audio(12)
    async with server(anyio_backend) as at:
        session = await at.session()
        socket, welcome = await opened(at, session)
        good = [message(frame, said[frame * FRAME : (frame + 1) * FRAME], media_ms=20) for frame in range(12)]
        first = message(0, said[:FRAME], media_ms=20)
        await socket.send_raw(b"".join(framed(BINARY, one) for one in (first, WRONG[name], *good[1:])))
        assert (await socket.closed()).code in CODES
        again, now = await opened(at, session, resume=welcome.resume, attempt=2, next=12)
        assert now.expected == 1
        await again.abort()
        await whole(at, session, welcome.resume, said, 3)


async def test_a_client_that_goes_before_its_welcome_is_no_fault(
    anyio_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with server(anyio_backend) as at:
        session = await at.session()
        with caplog.at_level("INFO"):
            for attempt in range(20):
                socket = await RawSocket.open(at.port)
                await socket.send(Hello((PCM,), attempt + 1, ticket=at.ticket(session)))
                await socket.abort()
            while at.app.state.streams.open:
                await anyio.sleep(0.01)
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# --- below the protocol ----------------------------------------------------------------------------------------------


MALFORMED = {
    "reserved bits": (b"\xf2\x80\0\0\0\0", 1002),
    "an unknown opcode": (b"\x83\x80\0\0\0\0", 1002),
    "no mask": (b"\x82\x01x", 1002),
    "a control frame in pieces": (b"\x09\x80\0\0\0\0", 1002),
    "a long control frame": (framed(9, bytes(126)), 1002),
    "a continuation of nothing": (framed(0, b"x"), 1002),
    "text within a message": (framed(BINARY, b"x", fin=False) + framed(TEXT, b"{}"), 1002),
    "no UTF-8": (framed(TEXT, b'{"type":"\xff"}'), 1007),
    "a size beyond everything": (
        b"\x82\xff" + b"\x7f" + b"\xff" * 7 + b"\0\0\0\0",
        1009,
        StreamCode.TOO_SLOW,
    ),  # or when no more comes
    "a close frame of one byte": (framed(8, b"x"), 1002),
    "compressed": (b"\xc2\x81\0\0\0\0x", 1002),
}


async def test_what_is_no_websocket_ends_the_connection_alone(anyio_backend: Any) -> None:
    def lively(app: Any) -> None:
        app.state.streams._heartbeat_ms = 1000  # a server that waits for the rest of a frame finds nobody there

    said = audio(10)
    async with server(anyio_backend, change=lively) as at:
        for wrong, (sent, *codes) in MALFORMED.items():
            session = await at.session()
            socket, welcome = await opened(at, session)
            await socket.send(message(0, said[: 3 * FRAME]))
            await socket.send_raw(sent)
            with anyio.fail_after(20):
                assert (await socket.closed()).code in codes, wrong
            await whole(at, session, welcome.resume, said, 2)


async def test_a_message_in_many_frames_is_one(anyio_backend: Any) -> None:
    said = audio(10)
    async with server(anyio_backend) as at:
        session = await at.session()
        socket, welcome = await opened(at, session)
        sent = message(0, said[: 3 * FRAME])
        await socket.send_raw(framed(BINARY, sent[:5], fin=False))
        await socket.send_raw(framed(9, b"in between") + framed(0, sent[5:700], fin=False))
        await socket.send_raw(framed(0, sent[700:]))
        await socket.abort()
        await whole(at, session, welcome.resume, said, 2)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# --- slow and many ---------------------------------------------------------------------------------------------------


async def drip(port: int, data: bytes, pause: float) -> float:
    """Send a byte now and then until the server has had enough; how many seconds that took."""
    began = anyio.current_time()
    with anyio.fail_after(60):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream, anyio.create_task_group() as group:

            async def speak() -> None:
                with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    for byte in data:
                        await stream.send(bytes([byte]))
                        await anyio.sleep(pause)

            group.start_soon(speak)
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    await stream.receive()
            group.cancel_scope.cancel()
    return anyio.current_time() - began


@pytest.mark.slow  # the server's patience is real: five to ten seconds each
async def test_who_speaks_slowly_is_cut_off(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at, anyio.create_task_group() as group:
        took: list[float] = []

        async def attack(data: bytes) -> None:
            took.append(await drip(at.port, data, 0.5))

        head = f"POST /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1:{at.port}\r\nContent-Type: application/json\r\n"
        group.start_soon(attack, head.encode())
        group.start_soon(attack, b"\x16\x03\x01" + bytes(100))
        socket, _ = await opened(at, await at.session())
        await socket.send(message(0, audio(10)))
        await socket.send(End(10))
        with anyio.fail_after(5):
            assert (await socket.until(Bye)).reason == "stopped"  # a good call beside them
    assert max(took) < 40


async def test_a_hello_that_never_comes_is_waited_for_in_bounds(anyio_backend: Any) -> None:
    def hasty(app: Any) -> None:
        app.state.streams._hello_seconds = 0.3

    async with server(anyio_backend, change=hasty) as at:
        sockets = [await RawSocket.open(at.port) for _ in range(20)]
        for socket in sockets[::2]:
            await socket.send_raw(framed(TEXT, b'{"type":"hello"', fin=False))  # half a message
        with anyio.fail_after(20):
            for socket in sockets:
                assert (await socket.closed()).code == StreamCode.TOO_SLOW
            while at.app.state.streams.open:
                await anyio.sleep(0.01)


async def test_a_thousand_idle_sockets_leave_room_for_a_call(anyio_backend: Any) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def patient(app: Any) -> None:
        app.state.streams._hello_seconds = 60.0
        app.state.streams._limit = ConnectionLimit(IDLE + 10, IDLE + 10)

    said = audio(20)
    try:
        async with server(anyio_backend, change=patient) as at:
            before = open_files()
            idle = []
            for number in range(IDLE):
                if number % 2:
                    idle.append(await RawSocket.open(at.port))
                else:
                    stream = await anyio.connect_tcp("127.0.0.1", at.port)  # and says nothing at all
                    idle.append(RawSocket(stream))
            assert at.app.state.streams.open == IDLE // 2
            session = await at.session()
            socket, _ = await opened(at, session)
            await socket.send(message(0, said))
            await socket.send(End(20))
            await socket.until(Bye)
            assert recorded(await at.stopped(session.session_id)) == said
            for one in [*idle, socket]:
                await one.abort()
            with anyio.fail_after(30):
                while at.app.state.streams.open or open_files() > before + 5:
                    await anyio.sleep(0.05)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_client_that_reads_nothing_holds_up_nobody(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        deaf, _ = await opened(at, await at.session())
        pings = framed(9, bytes(100)) * 2000  # each has its pong, which nobody takes
        with anyio.move_on_after(1), contextlib.suppress(Closed):
            while True:
                await deaf.send_raw(pings)
        session, said = await at.session(), audio(10)
        socket, _ = await opened(at, session)
        await socket.send(message(0, said))
        await socket.send(End(10))
        with anyio.fail_after(10):
            await socket.until(Event)
            await socket.until(Bye)
        assert recorded(await at.stopped(session.session_id)) == said
        await deaf.abort()
