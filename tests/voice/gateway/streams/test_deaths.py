"""The server's process is killed in the middle of a stream and begun again on the same home and port: the stream goes on."""

import random
from collections.abc import Callable
from io import BytesIO
from typing import Any
from wave import open as open_wave

import anyio
import anyio.to_thread
import pytest

from agentos.core.communication.voice.client import ClientStatistics, VoiceClient, VoiceStream
from tests.loops import ASYNCIO_SLOW, TRIO, UVLOOP, loops
from tests.voice.gateway.serving import Server, serving
from tests.voice.gateway.streaming import FRAME, audio

pytestmark = pytest.mark.anyio
anyio_backend = loops(ASYNCIO_SLOW, UVLOOP, TRIO)

SETTINGS = {"recording_format": "wav", "resume_window_seconds": "60", "account_seconds": "0.5"}


async def said_through_deaths(
    backend: Any, say: Callable[[VoiceStream, Server], Any], *, recording: bool, ring_seconds: float = 60
) -> tuple[dict[str, Any], ClientStatistics, bytes]:
    """A session, when all was said though its server was killed meanwhile; the client's counts; what was recorded."""
    with serving("--no-auth", "--backend", backend[0], **SETTINGS) as at:
        async with VoiceClient(at.url) as client:
            session = await client.create_session(
                "shop", stt_provider="whisper_local", metadata={"recording_enabled": recording}, resumable=True
            )
            session_id = session["session_id"]
            numbers: list[int] = []

            async def listen() -> None:
                numbers.extend([event.number async for event in stream.events()])

            with anyio.fail_after(80):
                async with client.stream(session_id, ring_seconds=ring_seconds) as stream:
                    async with anyio.create_task_group() as group:
                        group.start_soon(listen)
                        await say(stream, at)
                        end = await stream.finish()
                    found = stream.statistics()
            assert end.reason == "stopped"
            assert numbers == sorted(set(numbers))
            file = b"".join([piece async for piece in client.recording(session_id)]) if recording else b""
            session = await client.get_session(session_id)
        await anyio.to_thread.run_sync(at.end)
    if not recording:
        return session, found, b""
    with open_wave(BytesIO(file), "rb") as wave:
        return session, found, wave.readframes(wave.getnframes())


def in_pieces(said: bytes, deaths: int) -> Callable[[VoiceStream, Server], Any]:
    """Say it in pieces, with a death after each but the last, at some moment."""
    drawn = random.Random(deaths)
    part = len(said) // (deaths + 1) + 1

    async def say(stream: VoiceStream, at: Server) -> None:
        for piece in range(deaths + 1):
            await stream.send(said[piece * part : (piece + 1) * part])
            if piece < deaths:
                await anyio.sleep(drawn.random() * 0.1)
                await anyio.to_thread.run_sync(at.killed)

    return say


async def test_a_recording_is_bit_for_bit_what_was_said(anyio_backend: Any) -> None:
    said = audio(600) + b"\1\0" * 99
    session, found, recorded = await said_through_deaths(anyio_backend, in_pieces(said, 3), recording=True)
    assert recorded == said
    assert (found.captured, found.lost) == (601, 0)
    frames = session["result"]["frames"]
    assert (frames["accepted"], frames["dropped"]) == (601, {})


async def test_what_is_not_recorded_is_sent_again_from_the_last_account_on(anyio_backend: Any) -> None:
    said = audio(600)
    session, found, _ = await said_through_deaths(anyio_backend, in_pieces(said, 2), recording=False)
    assert found.lost == 0
    frames = session["result"]["frames"]
    assert (frames["accepted"], frames["accounted"], frames["dropped"]) == (600, 600, {})
    assert frames["bytes"] == 600 * FRAME


async def test_what_was_durable_is_there_and_what_the_ring_lost_is_declared(anyio_backend: Any) -> None:
    said = audio(400)
    durable = 0

    async def say(stream: VoiceStream, at: Server) -> None:
        nonlocal durable
        stream.send_nowait(said[: 100 * FRAME])
        while stream.statistics().durable < 50:
            await anyio.sleep(0.01)
        at.gone()
        durable = stream.statistics().durable
        while stream.connected:
            await anyio.sleep(0.01)
        stream.send_nowait(said[100 * FRAME :])  # the ring keeps the last two seconds
        await anyio.to_thread.run_sync(at.killed)

    session, found, recorded = await said_through_deaths(anyio_backend, say, recording=True, ring_seconds=2)
    (lost,) = session["result"]["frames"]["dropped"].values()  # declared by the new process, which missed them
    kept = 300 - lost
    assert durable <= kept <= 100
    assert (len(recorded), found.captured) == (400 * FRAME, 400)
    assert recorded == said[: kept * FRAME] + bytes(lost * FRAME) + said[300 * FRAME :]


async def test_a_gap_that_was_declared_before_a_death_is_one_after_it(anyio_backend: Any) -> None:
    said = audio(250)

    async def say(stream: VoiceStream, at: Server) -> None:
        stream.send_nowait(said[: 150 * FRAME])  # the ring keeps the last two seconds
        while stream.statistics().durable < 150:
            await anyio.sleep(0.01)
        at.gone()
        while stream.connected:
            await anyio.sleep(0.01)
        stream.send_nowait(said[150 * FRAME :])
        await anyio.to_thread.run_sync(at.killed)

    session, found, recorded = await said_through_deaths(anyio_backend, say, recording=True, ring_seconds=2)
    assert session["result"]["reason"] == "stopped"
    assert found.lost == sum(session["result"]["frames"]["dropped"].values()) == 50
    assert recorded == bytes(50 * FRAME) + said[50 * FRAME :]
