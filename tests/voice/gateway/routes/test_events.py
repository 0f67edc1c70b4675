"""Events over HTTP: page by page, and live; and what was said."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
import soundfile  # type: ignore[import-untyped]
from anyio.streams.memory import MemoryObjectReceiveStream
from starlette.types import ASGIApp

from agentos.core.communication.voice.gateway.routes import event_stream
from agentos.core.communication.voice.gateway.routes.event_stream import EventStream
from agentos.core.communication.voice.samples import SAMPLE, SAMPLE_TEXT
from tests.voice.gateway.asking import LOCALHOST
from tests.voice.gateway.conftest import Run, Running
from tests.voice.gateway.test_problems import is_problem

LIVE = {"accept": "text/event-stream"}
PATIENCE = 30

pytestmark = pytest.mark.anyio


def parsed(text: str) -> list[dict[str, str]]:
    """The events in a stream, without comments."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block]
    found = [dict(line.split(": ", 1) for line in block if not line.startswith(":")) for block in blocks]
    return [event for event in found if "data" in event]


@asynccontextmanager
async def following(app: ASGIApp, path: str, **headers: str) -> AsyncIterator[MemoryObjectReceiveStream[bytes]]:
    """The pieces of a reply as they come; the reader goes away at the end."""
    pieces, coming = anyio.create_memory_object_stream[bytes](1000)
    gone = anyio.Event()
    asked = [False]

    async def receive() -> Any:
        if not asked[0]:
            asked[0] = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message.get("body"):
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # nobody reads any more
                await pieces.send(message["body"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), *((name.encode(), value.encode()) for name, value in headers.items())],
        "client": LOCALHOST,
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    async with anyio.create_task_group() as group, pieces, coming:
        group.start_soon(app, scope, receive, send)
        with anyio.fail_after(PATIENCE):
            yield coming
            gone.set()


async def numbers(running: Running, session_id: str) -> list[int]:
    page = (await running.client.get(f"/v1/sessions/{session_id}/events")).json()
    return [event["number"] for event in page["events"]]


async def test_pages_have_every_event_once_in_order(run: Run) -> None:
    async with run() as running:
        session_id = await running.recorded(bytes(32_000))
        known = await numbers(running, session_id)
        assert len(known) > 4
        seen, after, more = [], 0, True
        while more:
            path = f"/v1/sessions/{session_id}/events?after={after}&limit=2"
            page = (await running.client.get(path)).json()
            assert len(page["events"]) <= 2
            seen += [event["number"] for event in page["events"]]
            after, more = page["last_number"], page["more"]
        assert seen == known
        page = (await running.client.get(f"/v1/sessions/{session_id}/events?after={after}")).json()
        assert (page["events"], page["last_number"], page["more"]) == ([], after, False)


async def test_the_events_of_a_stopped_session_come_as_a_stream_and_end(run: Run) -> None:
    async with run() as running:
        session_id = await running.recorded(bytes(32_000))
        reply = await running.client.get(f"/v1/sessions/{session_id}/events", headers=LIVE)
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.text.startswith("retry: 1000\n\n")
        events = parsed(reply.text)
        assert [int(event["id"]) for event in events] == await numbers(running, session_id)
        assert events[0]["event"] == "session_started"
        assert events[-1]["event"] == "session_stopped"
        assert json.loads(events[-1]["data"])["payload"] == {"reason": "stopped"}


async def test_a_reader_goes_on_behind_the_last_event_that_it_saw(run: Run) -> None:
    async with run() as running:
        session_id = await running.recorded(bytes(32_000))
        known = await numbers(running, session_id)
        path = f"/v1/sessions/{session_id}/events"
        for query, headers in ((f"?after={known[2]}", {}), ("?after=0", {"last-event-id": str(known[2])})):
            reply = await running.client.get(path + query, headers={**LIVE, **headers})
            assert [int(event["id"]) for event in parsed(reply.text)] == known[3:]
        reply = await running.client.get(path, headers={**LIVE, "last-event-id": str(known[-1])})
        assert (reply.status_code, reply.content) == (204, b"")


async def test_a_live_stream_tells_what_happens_and_ends_with_the_session(run: Run) -> None:
    async with run() as running:
        session_id = await running.create()
        path = f"/v1/sessions/{session_id}/events"
        async with following(running.app, path, **LIVE) as coming:
            assert await coming.receive() == b"retry: 1000\n\n"
            assert b"event: session_started\n" in await coming.receive()
            assert b"event: stt_fallback\n" in await coming.receive()
            await running.service.dispatch_audio_chunk(session_id, bytes(6400))
            while b'"active"' not in (told := await coming.receive()):
                pass
            assert b"event: state_changed\n" in told
            assert running.service._runtime.resources().directory.listing(session_id).listeners  # type: ignore[union-attr]
            await running.client.post(f"/v1/sessions/{session_id}/stop")
            while b"event: session_stopped\n" not in await coming.receive():
                pass


async def test_a_reader_that_goes_away_is_forgotten(run: Run) -> None:
    async with run() as running:
        session_id = await running.create()
        listing = running.service._runtime.resources().directory.listing(session_id)
        assert listing is not None
        async with following(running.app, f"/v1/sessions/{session_id}/events", **LIVE) as coming:
            while b"session_started" not in await coming.receive():
                pass
            assert len(listing.listeners) == 1
        assert listing.listeners == []


async def test_a_silent_stream_says_that_it_is_still_there() -> None:
    async def nothing() -> Any:
        await anyio.sleep_forever()
        yield b""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await EventStream(nothing(), heartbeat_seconds=0.01)(scope, receive, send)

    async with following(app, "/") as coming:
        assert (await coming.receive()).startswith(b"retry")
        assert [await coming.receive() for _ in range(3)] == [b": still here\n\n"] * 3


async def test_a_reader_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "SEND_SECONDS", 0.01)
    ended, taken = [], []

    async def many() -> Any:
        try:
            while True:
                yield b"data: x\n\n"
        finally:
            ended.append(True)

    async def send(message: Any) -> None:
        taken.append(message)
        if len(taken) > 3:
            await anyio.sleep_forever()

    with anyio.fail_after(PATIENCE):
        await EventStream(many())({"type": "http"}, anyio.sleep_forever, send)  # type: ignore[arg-type]
    assert ended == [True]


@pytest.mark.parametrize("bad", ["-1", "x", "1.5", "99999999999999999", " ", "²"])
async def test_a_last_event_id_that_is_no_number(run: Run, bad: str) -> None:
    async with run() as running:
        session_id = await running.create()
        headers = [(b"accept", b"text/event-stream"), (b"last-event-id", bad.encode())]
        reply = await running.client.get(f"/v1/sessions/{session_id}/events", headers=headers)
        assert is_problem(reply, 422, "invalid-request").field == "Last-Event-ID"


@pytest.mark.parametrize("query", ["after=-1", "after=x", "limit=0", "limit=1001", "before=3"])
async def test_a_question_that_makes_no_sense(run: Run, query: str) -> None:
    async with run() as running:
        session_id = await running.create()
        reply = await running.client.get(f"/v1/sessions/{session_id}/events?{query}")
        assert is_problem(reply, 422, "invalid-request").field == query.partition("=")[0]


async def test_what_was_said_with_its_times(run: Run) -> None:
    sound, rate = soundfile.read(SAMPLE, dtype="int16")
    assert rate == 16_000
    async with run(stop_timeout_seconds=60, stt_workers=1) as running:
        session_id = await running.create(stt_provider="pocketsphinx")
        empty = (await running.client.get(f"/v1/sessions/{session_id}/transcript")).json()
        assert empty == {"session_id": session_id, "complete": False, "text": "", "utterances": []}
        await running.service.dispatch_audio_chunk(session_id, sound.tobytes())
        await running.client.post(f"/v1/sessions/{session_id}/stop")
        said = (await running.client.get(f"/v1/sessions/{session_id}/transcript")).json()
        statistics = (await running.client.get("/v1/statistics")).json()
    assert (said["complete"], said["text"]) == (True, SAMPLE_TEXT)
    (utterance,) = said["utterances"]
    assert utterance["text"] == SAMPLE_TEXT
    assert 0 <= utterance["start_ms"] < utterance["end_ms"] <= len(sound) / 16
    assert [word["text"] for word in utterance["words"]] == SAMPLE_TEXT.split()
    latencies = statistics["speech"]["latencies"]
    assert latencies["count"] >= 1
    assert 0 <= latencies["sum_seconds"] / latencies["count"] < 60
