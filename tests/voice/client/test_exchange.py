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
from machines.session import EndReason
from tests.voice.gateway.streaming import PCM, Tap, audio, proxy, recorded, server
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
