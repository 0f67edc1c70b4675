"""Floods of frames that are no audio, on a real server: who sends them is cut off, and the others don't notice."""

import contextlib
from typing import Any

import anyio
import pytest

from machines.stream.messages import Bye, End, Hello, StreamCode, Welcome
from tests.voice.gateway.streaming import (
    BINARY,
    FRAME,
    PCM,
    PING,
    PONG,
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

UNITS = {
    "pings": framed(PING, b""),
    "full pings": framed(PING, bytes(125)),
    "pongs": framed(PONG, b""),
    "parts": framed(0, b"", fin=False),
}


async def opened(at: Server, session: Any) -> RawSocket:
    socket = await RawSocket.open(at.port)
    await socket.send(Hello((PCM,), 1, ticket=at.ticket(session)))
    await socket.until(Welcome)
    return socket


async def a_good_call(at: Server) -> None:
    session, said = await at.session(), audio(10)
    socket = await opened(at, session)
    await socket.send(message(0, said))
    await socket.send(End(10))
    await socket.until(Bye)
    assert recorded(await at.stopped(session.session_id)) == said


async def flooded(socket: RawSocket, unit: bytes) -> Closed:
    """Send it again and again until the server has had enough; how it said so."""
    async with anyio.create_task_group() as group:

        async def send() -> None:
            with contextlib.suppress(Closed):
                while True:
                    await socket.send_raw(unit * 500)

        group.start_soon(send)
        closed = await socket.closed()
        group.cancel_scope.cancel()
    return closed


@pytest.mark.parametrize("kind", UNITS)
async def test_a_flood_before_the_hello_is_ended_after_a_few_frames(kind: str, anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        socket = await RawSocket.open(at.port)
        if kind == "parts":
            await socket.send_raw(framed(TEXT, b"{", fin=False))
        with anyio.fail_after(60):
            closed = await flooded(socket, UNITS[kind])
            assert (closed.code, closed.reason) == (StreamCode.TOO_MANY, "too many frames before the hello")
            await a_good_call(at)


@pytest.mark.parametrize("kind", UNITS)
async def test_a_flood_after_it_counts_as_messages_do(kind: str, anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        socket = await opened(at, await at.session())
        if kind == "parts":
            await socket.send_raw(framed(TEXT, b"{", fin=False))
        with anyio.fail_after(60):
            await flooded(socket, UNITS[kind])  # 4429, unless the flood hides it: it is aborted then
            while at.app.state.streams.open:
                await anyio.sleep(0.01)
            await a_good_call(at)


async def test_chunks_of_a_byte_hold_up_nobody_and_end_at_the_bound_of_a_body(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        head = f"POST /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1:{at.port}\r\nContent-Type: application/json\r\n"
        async with await anyio.connect_tcp("127.0.0.1", at.port) as stream, anyio.create_task_group() as group:
            await stream.send(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")

            async def send() -> None:
                with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    while True:
                        await stream.send(b"1\r\n1\r\n" * 5_000)

            group.start_soon(send)
            with anyio.fail_after(60):
                await a_good_call(at)
                with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    while True:
                        await stream.receive()
            group.cancel_scope.cancel()


async def test_good_frames_in_one_piece_with_a_violation_are_in(anyio_backend: Any) -> None:
    said = audio(4)
    async with server(anyio_backend) as at:
        session = await at.session()
        socket = await opened(at, session)
        good = b"".join(framed(BINARY, message(first, said[first * FRAME : (first + 1) * FRAME])) for first in range(4))
        await socket.send_raw(good + framed(3, b"unknown"))
        with anyio.fail_after(60):
            assert (await socket.closed()).code in {1002, None}
            while at.app.state.streams.open:
                await anyio.sleep(0.01)
            await at.service.stop_session(session.session_id)
            assert recorded(await at.stopped(session.session_id)) == said


async def test_a_large_body_and_two_requests_in_one_piece_are_read_whole(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        body = b'{"project_id": "shop", "metadata": {"note": "' + b"x" * 9_000 + b'"}}'
        head = f"POST /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1:{at.port}\r\nContent-Type: application/json\r\n"
        one = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        last = f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{at.port}\r\nConnection: close\r\n\r\n".encode()
        said = b""
        with anyio.fail_after(60):
            async with await anyio.connect_tcp("127.0.0.1", at.port) as stream:
                await stream.send(one * 2 + last)
                with contextlib.suppress(anyio.EndOfStream):
                    while True:
                        said += await stream.receive()
        assert said.count(b"HTTP/1.1 201") == 2
        assert said.count(b"HTTP/1.1 200") == 1
