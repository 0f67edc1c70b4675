"""Whatever is cut when: what was recorded is what was said, bit for bit, or the gap is declared."""

import random
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from agentos.core.communication.voice.client import connect_stream
from agentos.core.communication.voice.client import stream as client_stream
from machines.restart import Backoff
from machines.stream.ends import ENDED, ClientStream, FrameRun
from machines.stream.messages import Audio, Welcome, write_audio
from tests.voice.gateway.streaming import FRAME, PCM, RawSocket, Server, audio, proxy, recorded, server

CLIP = 3_000  # frames: a minute


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that comes back at once, also when nothing of what it sent has arrived."""
    monkeypatch.setattr(client_stream, "WAITS", Backoff(first=0.001, factor=1.0, most=0.001))


async def check_cuts(backend: Any, boundaries: range) -> None:
    """Say a minute, with the connection cut behind each of these frames as soon as it was sent, wherever it is then."""
    said = audio(CLIP)
    async with server(backend, resume_window_seconds=60) as at, proxy(at.port) as between:
        session = await at.session(resumable=True)
        url = f"ws://127.0.0.1:{between.port}/v1/stream"
        async with connect_stream(url, ticket=at.ticket(session)) as stream:
            begun = 0
            for connections, boundary in enumerate(boundaries, 1):
                stream.send_nowait(said[begun * FRAME : boundary * FRAME])
                begun = boundary
                while stream.statistics().connections < connections or stream._stream.sent < boundary:
                    await anyio.lowlevel.checkpoint()
                between.cut()
            stream.send_nowait(said[begun * FRAME :])
            await stream.finish()
            found = stream.statistics()
        assert found.connections == between.connections == len(boundaries) + 1
        assert (found.captured, found.lost) == (CLIP, 0)
        assert recorded(await at.stopped(session.session_id)) == said


@pytest.mark.anyio
async def test_a_cut_at_every_twentieth_frame_of_a_minute_loses_nothing(anyio_backend: Any, hasty: None) -> None:
    offset = 1 if anyio_backend[0] == "trio" else 4 if anyio_backend[1]["use_uvloop"] else 7
    await check_cuts(anyio_backend, range(offset, CLIP, 20))


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_cut_at_every_frame_of_a_minute_loses_nothing(anyio_backend: Any, hasty: None) -> None:
    await check_cuts(anyio_backend, range(CLIP))


@pytest.mark.anyio
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
async def test_cuts_at_random_bytes_of_both_directions_lose_nothing(anyio_backend: Any, seed: int) -> None:
    drawn = random.Random(seed)
    said = audio(CLIP, seed) + b"\1\0" * 50
    async with server(anyio_backend, resume_window_seconds=60) as at, proxy(at.port) as between:
        # A hello, its welcome and one message of a second take 35 kB: many connections do not get so far.
        between.limits = lambda: drawn.randrange(2_000) if drawn.random() < 0.2 else drawn.randrange(200_000)
        session = await at.session(resumable=True)

        async def ticket() -> str:
            return at.ticket(session)

        with anyio.fail_after(90):
            async with connect_stream(f"ws://127.0.0.1:{between.port}/v1/stream", ticket_source=ticket) as stream:
                numbers = []

                async def listen() -> None:
                    numbers.extend([event.number async for event in stream.events()])

                async with anyio.create_task_group() as group:
                    group.start_soon(listen)
                    at_byte = 0
                    while at_byte < len(said):
                        piece = drawn.randrange(1, 20_000)
                        await stream.send(said[at_byte : at_byte + piece])
                        at_byte += piece
                    end = await stream.finish()
                found = stream.statistics()
        assert end.reason == "stopped"
        assert between.connections > 10  # how many it takes is a matter of timing
        assert (found.captured, found.lost) == (CLIP + 1, 0)
        assert numbers == sorted(set(numbers))
        assert recorded(await at.stopped(session.session_id)) == said


@pytest.mark.anyio
async def test_what_falls_off_the_ring_is_a_gap_that_is_declared(anyio_backend: Any) -> None:
    said = audio(400)
    async with server(anyio_backend, resume_window_seconds=60) as at, proxy(at.port) as between:
        session = await at.session(resumable=True)
        url = f"ws://127.0.0.1:{between.port}/v1/stream"
        with anyio.fail_after(60):
            async with connect_stream(url, ticket=at.ticket(session), ring_seconds=2) as stream:
                stream.send_nowait(said[: 50 * FRAME])
                while stream.statistics().durable < 50:
                    await anyio.sleep(0.01)
                between.limits = lambda: 0
                between.cut()
                while stream.connected:
                    await anyio.sleep(0.01)
                for frame in range(50, 400):
                    stream.send_nowait(said[frame * FRAME : (frame + 1) * FRAME])
                between.limits = lambda: None
                await stream.finish()
                assert stream.statistics().lost == 250
        session = await at.stopped(session.session_id)
        assert recorded(session) == said[: 50 * FRAME] + bytes(250 * FRAME) + said[300 * FRAME :]
        assert session.result is not None
        assert dict(session.result.frames.dropped) == {"ring": 250}


async def welcomed(at: Server, client: ClientStream) -> tuple[RawSocket, Welcome]:
    socket = await RawSocket.open(at.port)
    await socket.send(client.hello((PCM,)))
    welcome = await socket.until(Welcome)
    client.receive(welcome)
    return socket, welcome


@pytest.mark.anyio
async def test_nothing_that_the_older_connection_still_has_gets_in_behind_the_newer(anyio_backend: Any) -> None:
    said = audio(1_200)
    async with server(anyio_backend) as at:
        session = await at.session()
        client = ClientStream(2_000, at.ticket(session))
        sockets = []
        socket, _ = await welcomed(at, client)
        client.capture(1_200)
        for _ in range(20):
            # All of it, one frame a message, on a connection that is left open; the next one comes while it is under way.
            while isinstance(run := client.to_send(1), FrameRun):
                payload = said[run.first * FRAME : (run.first + 1) * FRAME]
                await socket.send(write_audio(Audio(run.first, 1, run.first * 20, last=False, payload=payload)))
            sockets.append(socket)
            client.closed(1006)
            socket, welcome = await welcomed(at, client)
            if welcome.expected == 1_200:
                break
        client.finish()
        while client.phase != ENDED:
            while (out := client.to_send(50)) is not None:
                payload = (
                    said[out.first * FRAME : (out.first + out.count) * FRAME] if isinstance(out, FrameRun) else b""
                )
                await socket.send(
                    write_audio(Audio(out.first, out.count, out.first * 20, last=False, payload=payload))
                    if isinstance(out, FrameRun)
                    else out
                )
            client.receive(await socket.receive())
        assert recorded(await at.stopped(session.session_id)) == said
