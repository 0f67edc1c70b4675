"""A disk that is full: what is acknowledged as durable is there, or was declared to the client as lost."""

import errno
from typing import Any

import anyio
import pytest

from agentos.core.communication.voice.client import connect_stream
from agentos.core.communication.voice.recording.segments import LiveSegment
from machines.losses import Lost
from machines.stream.messages import Ack, End, Hello, Ping, Pong, Welcome
from tests.voice.gateway.streaming import FRAME, PCM, RawSocket, Server, audio, message, server

pytestmark = pytest.mark.anyio


class Disk:
    """Refuses samples while it is `full`."""

    full = False


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found, write = Disk(), LiveSegment.write

    def written(self: LiveSegment, offset: int, data: Any) -> None:
        if found.full:
            raise OSError(errno.ENOSPC, "the disk is full")
        write(self, offset, data)

    monkeypatch.setattr(LiveSegment, "write", written)
    return found


async def opened(at: Server, session: Any) -> tuple[RawSocket, Welcome]:
    socket = await RawSocket.open(at.port)
    await socket.send(Hello((PCM,), 1, ticket=at.ticket(session)))
    return socket, await socket.until(Welcome)


async def durable(socket: RawSocket, frames: int) -> Ack:
    """The acknowledgement that calls so many frames durable; pings are answered meanwhile."""
    with anyio.fail_after(20):
        while True:
            found = await socket.receive()
            if isinstance(found, Ping):
                await socket.send(Pong(found.id))
            elif isinstance(found, Ack) and found.durable is not None and found.durable >= frames:
                return found


async def test_what_a_full_disk_refuses_is_declared_and_repeated_to_who_comes_back(
    anyio_backend: Any, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    said = audio(90)
    async with server(anyio_backend, resume_window_seconds=60) as at:
        session = await at.session(resumable=True)
        socket, welcome = await opened(at, session)
        await socket.send(message(0, said[: 30 * FRAME]))
        assert (await durable(socket, 30)).lost == ()
        disk.full = True
        for first in (30, 40, 50):
            await socket.send(message(first, said[first * FRAME : (first + 10) * FRAME]))
            ack = await durable(socket, first + 10)
            assert ack.lost == (Lost(30, first - 20, "disk_full"),)
        disk.full = False
        await socket.abort()
        socket = await RawSocket.open(at.port)
        await socket.send(Hello((PCM,), 2, resume=welcome.resume, first=30, next=90, durable=30))
        again = await socket.until(Welcome)
        assert (again.expected, again.durable, again.lost) == (60, 60, (Lost(30, 30, "disk_full"),))
        await socket.send(message(60, said[60 * FRAME :]))
        await socket.send(End(90))
        result = (await at.stopped(session.session_id)).result
        assert result is not None
        assert dict(result.frames.dropped) == {"disk_full": 30}
        assert result.frames.accounted == 60
    assert sum("audio_lost" in record.getMessage() for record in caplog.records) == 1


async def test_it_is_not_repeated_to_who_has_shown_that_it_knows(anyio_backend: Any, disk: Disk) -> None:
    async with server(anyio_backend, change=hasten) as at:
        session = await at.session()
        socket, _ = await opened(at, session)
        disk.full = True
        await socket.send(message(0, audio(10)))
        assert (await durable(socket, 10)).lost == (Lost(0, 10, "disk_full"),)
        disk.full = False
        asked = 0
        while asked < 2:  # the first may have been on its way before the loss was told
            if isinstance(found := await socket.receive(), Ping):
                await socket.send(Pong(found.id))
                asked += 1
        await socket.send(message(10, audio(10)))
        assert (await durable(socket, 20)).lost == ()


def hasten(app: Any) -> None:
    app.state.streams._heartbeat_ms = 1000


async def test_the_clients_count_what_the_server_lost(anyio_backend: Any, disk: Disk) -> None:
    async with server(anyio_backend) as at:
        session = await at.session()
        url = f"ws://127.0.0.1:{at.port}/v1/stream"
        async with connect_stream(url, ticket=at.ticket(session)) as stream:
            disk.full = True
            await stream.send(audio(25))
            with anyio.fail_after(20):
                while not stream.statistics().missed:
                    await anyio.sleep(0.01)
            disk.full = False
            await stream.finish()
            found = stream.statistics()
        assert (found.captured, found.lost, found.missed) == (25, 0, 25)


async def test_a_session_that_keeps_no_audio_says_so(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at:
        session = await at.session(recording=False)
        socket, welcome = await opened(at, session)
        assert welcome.durable is None
        await socket.send(message(0, audio(25)))
        ack = await socket.until(Ack)
        assert (ack.received, ack.durable) == (25, None)
