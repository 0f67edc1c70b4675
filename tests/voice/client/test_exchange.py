"""What goes over the wire between the Python client and the server is what the published JSON Schema says, and the audio may be
Opus."""

import json
from collections import defaultdict
from typing import Any

import anyio
import httpx2
import jsonschema_rs
import numpy as np
import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from agentos.core.communication.voice.client import connect_stream
from agentos.core.communication.voice.client.audio_ring import AudioRing
from machines.session import EndReason, VoiceSessionState
from machines.stream.ends import ClientStream, FrameRun
from machines.stream.messages import Gap, Welcome, read_audio
from tests.voice.gateway.streaming import FRAME, PCM, Tap, audio, proxy, recorded, server
from tests.voice.gateway.streams.test_opus import OPUS, level, packets, tone

pytestmark = pytest.mark.anyio


def messages(tap: Tap) -> dict[str, list[dict[str, Any]]]:
    """The text messages that a connection carried, by who said them."""
    said: dict[str, list[dict[str, Any]]] = {}
    for who, kind, data in (
        ("FromClient", ConnectionType.SERVER, tap.to_server),
        ("FromServer", ConnectionType.CLIENT, tap.to_client),
    ):
        reader = Connection(kind)
        reader.receive_data(bytes(data).partition(b"\r\n\r\n")[2])
        parts: list[str] = []
        said[who] = []
        for event in reader.events():
            if isinstance(event, TextMessage):
                parts.append(event.data)
                if event.message_finished:
                    said[who].append(json.loads("".join(parts)))
                    parts.clear()
    return said


async def test_all_that_is_said_is_in_the_schema(anyio_backend: Any) -> None:
    def lively(app: Any) -> None:
        app.state.streams._heartbeat_ms = 200

    async with server(anyio_backend, resume_window_seconds=60, change=lively) as at, proxy(at.port) as between:
        taps = between.taps = []
        session = await at.session(resumable=True)
        url = f"ws://127.0.0.1:{between.port}/v1/stream"
        with anyio.fail_after(60):
            async with connect_stream(url, ticket=at.ticket(session), ring_seconds=1) as stream:
                await stream.send(audio(50))
                await anyio.sleep(0.5)  # the server's clock: two heartbeats, with a ping each
                between.limits = lambda: 0
                between.cut()
                while stream.connected:
                    await anyio.sleep(0.01)
                stream.send_nowait(audio(40))
                stream.send_nowait(audio(40))  # more than the ring holds
                between.limits = lambda: None
                end = await stream.finish()
                told = [event async for event in stream.events()]
        assert end.reason == EndReason.STOPPED
        async with httpx2.AsyncClient(base_url=at.url) as http:
            schema = (await http.get("/v1/schemas/stream.json")).json()
    seen = defaultdict(set)
    events = 0
    for tap in taps:
        for who, said in messages(tap).items():
            validator = jsonschema_rs.Draft202012Validator({**schema, "anyOf": [{"$ref": f"#/$defs/{who}"}]})
            for message in said:
                validator.validate(message)
                assert not validator.is_valid({**message, "more": 1})
                seen[who].add(message["type"])
                events += message["type"] == "event"
    assert seen == {
        "FromClient": {"hello", "gap", "end", "pong"},
        "FromServer": {"welcome", "ack", "event", "ping", "bye"},
    }
    assert events >= len(told) > 0


@pytest.mark.parametrize("declares", [True, False], ids=["cut", "whole"])
async def test_what_a_program_did_not_capture_is_a_gap_in_the_recording(anyio_backend: Any, declares: bool) -> None:
    said = audio(150)
    async with server(anyio_backend, resume_window_seconds=60) as at, proxy(at.port) as between:
        session = await at.session(resumable=True)
        url = f"ws://127.0.0.1:{between.port}/v1/stream"
        with anyio.fail_after(60):
            async with connect_stream(url, ticket=at.ticket(session)) as stream:
                await stream.send(said[: 50 * FRAME], 10_000)
                await stream.send(said[50 * FRAME : 100 * FRAME + 100], 11_030)  # jitter
                if declares:
                    between.cut()
                await stream.send(said[101 * FRAME :], 15_020)
                await stream.finish(17_020)
                found = stream.statistics()
        session = await at.stopped(session.session_id)
    kept = said[: 100 * FRAME + 100] + bytes(FRAME - 100) + bytes(149 * FRAME) + said[101 * FRAME :]
    assert recorded(session) == kept + bytes(51 * FRAME), "it goes on to the end of the call"
    assert session.result is not None
    assert dict(session.result.frames.dropped) == {"capture": 200}
    assert session.result.frames.accepted == 350
    assert (found.captured, found.lost, found.waiting) == (150, 0, found.captured - (found.durable or 0))


@pytest.mark.parametrize("piece", [100, 640, 1_920, 32_000])
def test_a_ring_gives_each_frame_its_media_time_whatever_the_pieces(piece: int) -> None:
    stream = ClientStream(10_000, "")
    ring = AudioRing(stream, PCM)
    for begin in (0, 40_000):  # five seconds each
        for at in range(0, 160_000, piece):
            ring.put(bytes(min(piece, 160_000 - at)), 7_000 + begin + at / 32)
    stream.hello((PCM,))
    stream.receive(Welcome("s", "t", PCM, 0, 0, 9_999, VoiceSessionState.ACTIVE, {}, 1, 1))
    sent: list[Any] = []
    while (out := stream.to_send(1)) is not None:
        sent.append((read_audio(ring.message(out)).media_ms, out.first) if isinstance(out, FrameRun) else out)
    gaps = [one for one in sent if isinstance(one, Gap)]
    assert gaps == [Gap(250, 1_750, "capture")]
    assert all(media == 20 * number for media, number in (one for one in sent if not isinstance(one, Gap)))


async def test_packets_of_opus_that_a_program_sends_are_in_the_recording(anyio_backend: Any) -> None:
    sent = packets(tone(2.0))[:100]
    async with server(anyio_backend, resume_window_seconds=60) as at, proxy(at.port) as between:
        session = await at.session(resumable=True)
        url, formats = f"ws://127.0.0.1:{between.port}/v1/stream", (OPUS, PCM)
        with anyio.fail_after(60):
            async with connect_stream(url, ticket=at.ticket(session), formats=formats) as stream:
                assert stream.format == OPUS
                for number, packet in enumerate(sent):
                    await stream.send(packet)
                    if number == 50:
                        while stream.statistics().durable < 10:
                            await anyio.sleep(0.01)
                        between.cut()
                await stream.finish()
                found = stream.statistics()
        assert (found.captured, found.lost, found.connections) == (100, 0, 2)
        heard = np.frombuffer(recorded(await at.stopped(session.session_id)), "<i2")
    assert len(heard) == 100 * 320
    assert level(heard[4_000:-4_000], 440.0, 16_000) > 0.99
