"""The Python client against a real server: what a program sees of calls, cuts, and servers that are slow, silent or gone."""

import fcntl
import io
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from wave import open as open_wave

import anyio
import anyio.abc
import pytest
import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.voice.client import VoiceClient, VoiceStream, connect_stream, rest
from agentos.core.communication.voice.client import stream as client_stream
from agentos.core.communication.voice.errors import RequestRefused, StreamClosed
from agentos.core.communication.voice.recording.segments import make_private_folder
from agentos.core.communication.voice.samples import SAMPLE
from machines.session import EndReason, VoiceSession, VoiceSessionState
from machines.stream.messages import StreamCode
from tests.voice.gateway.serving import ROOT
from tests.voice.gateway.streaming import FRAME, Proxy, Server, audio, proxy, recorded, server

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def streaming(
    backend: Any, *, heartbeat_ms: int = 10_000, **options: Any
) -> AsyncIterator[tuple[Server, Proxy, VoiceSession, VoiceStream]]:
    """A stream to a new session through a proxy."""

    def change(app: Any) -> None:
        app.state.streams._heartbeat_ms = heartbeat_ms

    async with server(backend, change=change) as at, proxy(at.port) as between:
        session = await at.session()
        with anyio.fail_after(60):
            async with (
                VoiceClient(f"http://127.0.0.1:{between.port}") as client,
                client.stream(session.session_id, **options) as stream,
            ):
                yield at, between, session, stream


async def cut(between: Proxy, stream: VoiceStream) -> None:
    """Cut the connection, and let none through until `between.limits` says otherwise."""
    between.limits = lambda: 0
    between.cut()
    while stream.connected:
        await anyio.sleep(0.01)


# --- calls -----------------------------------------------------------------------------------------------------------


async def test_a_call_with_words(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at, VoiceClient(at.url) as client:
        session = await client.create_session("shop", metadata={"recording_enabled": True}, idempotency_key="once")
        again = await client.create_session("shop", metadata={"recording_enabled": True}, idempotency_key="once")
        session_id = session["session_id"]
        assert again["session_id"] == session_id
        with anyio.fail_after(60):
            async with client.stream(session_id) as stream:
                assert (stream.session_id, stream.format.sample_rate) == (session_id, 16_000)
                assert stream.verdict["status"] == "approved"
                await stream.send(soundfile.read(SAMPLE, dtype="int16")[0].tobytes())
                end = await stream.finish()
                told = [event async for event in stream.events()]
        assert (end.state, end.reason) == (VoiceSessionState.STOPPED, EndReason.STOPPED.value)
        assert (
            " ".join(event.payload["text"] for event in told if event.event == "stt_final") == "go forward ten meters"
        )
        assert (await client.get_session(session_id))["state"] == "stopped"


async def test_a_recording_is_waited_for_until_it_is_one_file(anyio_backend: Any) -> None:
    async with streaming(anyio_backend) as (at, _, session, stream), VoiceClient(at.url) as client:
        await stream.send(audio(50))
        folder = at.service.settings.recordings / session.session_id
        make_private_folder(folder)  # the audio may not have come so far
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # another process finishes it
        try:
            await stream.finish()
            with anyio.fail_after(20):
                while (await client.get_session(session.session_id))["state"] != "stopped":
                    await anyio.sleep(0.01)
            with pytest.raises(RequestRefused) as refused:
                _ = [piece async for piece in client.recording(session.session_id, patience_seconds=0)]
            assert (refused.value.status, refused.value.name) == (503, "recording-finishing")
            assert refused.value.retry_after_seconds == 1
        finally:
            os.close(descriptor)
        with anyio.fail_after(20):
            file = b"".join([piece async for piece in client.recording(session.session_id)])
        with open_wave(io.BytesIO(file), "rb") as sound:
            assert sound.readframes(50 * 320) == audio(50)
        with pytest.raises(RequestRefused) as refused:
            _ = [piece async for piece in client.recording("voice-0")]
        assert refused.value.name == "session-not-found"


async def test_a_session_can_have_a_silence_timeout(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at, VoiceClient(at.url) as client:
        session = await client.create_session("shop", silence_timeout_seconds=0.2)
        with anyio.fail_after(30):
            async with client.stream(session["session_id"]) as stream:
                async for _ in stream.events():
                    pass
                end = await stream.finish()
        assert (session["silence_timeout_seconds"], end.reason) == (0.2, EndReason.SILENCE.value)


async def test_a_session_that_others_stop_ends_the_stream(anyio_backend: Any) -> None:
    async with streaming(anyio_backend) as (at, _, session, stream):
        await stream.send(audio(10))
        await at.service.stop_session(session.session_id)
        numbers = [event.number async for event in stream.events()]
        assert numbers == sorted(set(numbers))
        with pytest.raises(StreamClosed) as raised:
            await stream.send(audio(1))
        assert raised.value.code == StreamCode.ENDED
        assert (await stream.finish()).reason == EndReason.STOPPED.value


async def test_what_a_program_must_not_do(anyio_backend: Any) -> None:
    async with streaming(anyio_backend, ring_seconds=1) as (_, _, _, stream):
        with pytest.raises(ValueError, match="longer than the ring"):
            await stream.send(audio(51))
        await stream.finish()
        with pytest.raises(ValueError, match="no more audio"):
            stream.send_nowait(audio(1))
    with pytest.raises(ValueError, match="a ticket, or with a source"):
        async with connect_stream("ws://127.0.0.1:9"):
            pytest.fail("it was opened")


async def test_all_that_the_server_knows_of_its_sessions(anyio_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "PAGE", 2)
    async with server(anyio_backend) as at, VoiceClient(at.url) as client:
        verdict = await client.evaluate_request("shop", "twilio", metadata={"international_call": True})
        assert (verdict["allowed"], verdict["risk_level"]) == (False, "high")
        made = [(await client.create_session("shop", stt_provider="google"))["session_id"] for _ in range(3)]
        other = (await client.create_session("bank", stt_provider="google"))["session_id"]
        assert [one["session_id"] for one in await client.list_sessions("shop")] == made[::-1]
        assert [one["session_id"] for one in await client.list_sessions(state="created")] == [other, *made[::-1]]
        page = await client.session_page("shop", limit=1)
        following = await client.session_page("shop", limit=1, below=page["next_cursor"])
        assert [one["session_id"] for one in (*page["sessions"], *following["sessions"])] == made[:0:-1]

        told: list[dict[str, Any]] = []

        async def follow() -> None:
            told.extend([event async for event in client.events(made[0])])

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(follow)
                await at.service.dispatch_audio_chunk(made[0], audio(10))
                assert (await client.stop_session(made[0]))["durable"]
        kept = await client.kept_events(made[0])
        assert [event for event in told if event["event_type"] != "audio_received"] == kept
        assert kept[-1]["event_type"] == "session_stopped"
        assert await client.kept_events(made[0], after=kept[0]["number"], limit=3) == kept[1:4]
        assert [event async for event in client.events(made[0], after=kept[-1]["number"])] == []
        assert (await client.transcript(made[0]))["utterances"] == []
        links = await client.evidence(made[0])
        assert [link["seq"] for link in links] == sorted(link["seq"] for link in links)
        assert await client.evidence(made[0], after=links[0]["seq"], limit=1) == links[1:2]
        assert (await client.examine_evidence())["ok"]
        assert (await client.statistics())["sessions"] == 3
        with pytest.raises(RequestRefused) as refused:
            _ = [event async for event in client.events("voice-0")]
        assert refused.value.name == "session-not-found"
        assert (await client.begin_drain())["draining"]
        await at.service.drain()


async def test_a_host_lets_a_stream_in_by_a_ticket_of_its_own(anyio_backend: Any) -> None:
    async with server(anyio_backend, authentication=True) as at:
        calls = at.service.calls()
        session = await at.session()
        call = await anext(calls)
        issued = await at.service.create_stream_ticket(call.session_id)
        with anyio.fail_after(60):
            async with connect_stream(f"ws://127.0.0.1:{at.port}/v1/stream", ticket=issued.ticket) as stream:
                assert stream.session_id == session.session_id
                await stream.send(audio(10))
                await stream.finish()
            ended = await call.wait_ended()
        assert ended.result is not None
        assert ended.result.frames.accepted == 10


# --- refused ---------------------------------------------------------------------------------------------------------


async def test_a_refusal_is_an_error_that_says_why(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at, VoiceClient(at.url) as client:
        with pytest.raises(StreamClosed) as closed:
            async with connect_stream(f"ws://127.0.0.1:{at.port}/v1/stream", ticket="avs_nobody"):
                pytest.fail("it was let in")
        assert closed.value.code == StreamCode.UNAUTHENTICATED
        with pytest.raises(StreamClosed) as closed:
            async with connect_stream(f"ws://127.0.0.1:{at.port}/v1/nothing", ticket="avs_nobody"):
                pytest.fail("it was let in")
        assert closed.value.code == StreamCode.UNAUTHENTICATED
        with pytest.raises(RequestRefused) as refused:
            async with client.stream("voice-unknown"):
                pytest.fail("it was let in")
        assert (refused.value.status, refused.value.name) == (404, "session-not-found")
        with pytest.raises(RequestRefused) as refused:
            await client.create_session("")
        assert (refused.value.status, refused.value.problem["field"]) == (422, "project_id")


async def test_a_used_ticket_without_a_source_of_others_ends_the_stream(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at, proxy(at.port) as between:
        between.limits = lambda: 900  # not as far as the welcome
        ticket = at.ticket(await at.session())
        with anyio.fail_after(30), pytest.raises(StreamClosed, match="no source of another"):
            async with connect_stream(f"ws://127.0.0.1:{between.port}/v1/stream", ticket=ticket):
                pytest.fail("it was let in")


async def test_what_the_source_of_tickets_raises_comes_as_it_is(anyio_backend: Any) -> None:
    async def none() -> str:
        raise KeyError("no ticket")

    with pytest.raises(KeyError, match="no ticket"):
        async with connect_stream("ws://127.0.0.1:9/v1/stream", ticket_source=none):
            pytest.fail("it was let in")


async def test_no_secret_is_in_a_url_and_no_token_in_a_stream(anyio_backend: Any) -> None:
    heads: list[bytes] = []

    async def answer(socket: anyio.abc.SocketStream) -> None:
        async with socket:
            head = b""
            while b"\r\n\r\n" not in head:
                head += await socket.receive()
            heads.append(head)
            if head.startswith(b"POST"):
                body = b'{"ticket": "avs_secret", "expires_at": "", "url": ""}'
                await socket.send(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}/voice"
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer)
        async with VoiceClient(url, "avt_secret") as client:
            with pytest.raises(StreamClosed) as raised:
                async with client.stream("voice-1", patience_seconds=0):
                    pytest.fail("it was let in")
        assert raised.value.code == StreamCode.LOST
        group.cancel_scope.cancel()
    asked, streamed = heads[0], heads[-1]
    assert asked.startswith(b"POST /voice/v1/sessions/voice-1/stream-tickets HTTP/1.1\r\n")
    assert b"\r\nauthorization: bearer avt_secret\r\n" in asked.lower()
    assert streamed.startswith(b"GET /voice/v1/stream HTTP/1.1\r\n")
    assert b"secret" not in streamed


# --- servers that are slow, silent or gone ---------------------------------------------------------------------------


async def test_a_slow_way_slows_the_sender(anyio_backend: Any) -> None:
    said = audio(200)
    async with streaming(anyio_backend, ring_seconds=1) as (at, between, session, stream):
        between.delay_seconds = 0.01
        for frame in range(0, 200, 10):
            await stream.send(said[frame * FRAME : (frame + 10) * FRAME])
            assert stream.statistics().waiting <= 50
        await stream.finish()
        assert stream.statistics().lost == 0
        assert recorded(await at.stopped(session.session_id)) == said


async def test_a_server_that_falls_silent_is_left_and_found_again(anyio_backend: Any) -> None:
    said = audio(100)
    async with streaming(anyio_backend, heartbeat_ms=100) as (at, between, session, stream):
        await stream.send(said[: 50 * FRAME])
        between.silent = True
        await stream.send(said[50 * FRAME :])
        while stream.connected:
            await anyio.sleep(0.01)
        between.silent = False
        between.cut()  # whoever was swallowed meanwhile
        await stream.finish()
        assert stream.statistics().connections >= 2
        assert recorded(await at.stopped(session.session_id)) == said


async def test_a_server_that_never_answers_is_given_up(anyio_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_stream, "CONNECT_SECONDS", 0.1)
    async with server(anyio_backend) as at, proxy(at.port) as between:
        between.silent = True
        with anyio.fail_after(20), pytest.raises(StreamClosed, match="did not answer within"):
            async with connect_stream(f"ws://127.0.0.1:{between.port}", ticket="avs_x", patience_seconds=0.3):
                pytest.fail("it was let in")
    assert between.connections > 1


async def test_a_server_that_is_gone_for_good_is_told_once_patience_is_over(anyio_backend: Any) -> None:
    async with streaming(anyio_backend, patience_seconds=0.3) as (_, between, _, stream):
        await stream.send(audio(10))
        await cut(between, stream)
        with pytest.raises(StreamClosed) as raised:
            async for _ in stream.events():
                pass
        assert raised.value.code == StreamCode.LOST
        for step in (stream.send(b"\0\0"), stream.finish()):
            with pytest.raises(StreamClosed):
                await step


async def test_patience_begins_with_the_cut_however_long_nothing_was_said(anyio_backend: Any) -> None:
    async with streaming(anyio_backend, heartbeat_ms=300, patience_seconds=0.5) as (_, between, _, stream):
        for _ in range(2):  # the first connection has brought events
            await cut(between, stream)
            between.limits = lambda: None
            while not stream.connected:
                await anyio.sleep(0.01)
            await anyio.sleep(1)
        await cut(between, stream)
        between.limits = lambda: None
        assert (await stream.finish()).reason == EndReason.STOPPED.value
        assert stream.statistics().connections >= 4


async def test_a_ticket_is_asked_for_again_while_there_is_no_way_to_the_server(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at, proxy(at.port) as between:
        session = await at.session()
        between.limits = lambda: 0 if between.connections < 4 else None
        with anyio.fail_after(20):
            async with (
                VoiceClient(f"http://127.0.0.1:{between.port}") as client,
                client.stream(session.session_id) as stream,
            ):
                assert (await stream.finish()).state is VoiceSessionState.STOPPED
        assert between.connections >= 4


# --- cancellation ----------------------------------------------------------------------------------------------------


async def test_finish_that_was_cancelled_can_be_called_again(anyio_backend: Any) -> None:
    said = audio(30) + b"\1\2"
    async with streaming(anyio_backend) as (at, between, session, stream):
        await cut(between, stream)
        await stream.send(said)
        with anyio.move_on_after(0.1) as scope:
            await stream.finish()
        assert scope.cancelled_caught
        between.limits = lambda: None
        assert (await stream.finish()).reason == EndReason.STOPPED.value
        assert recorded(await at.stopped(session.session_id)) == said


async def test_send_that_was_cancelled_has_taken_nothing(anyio_backend: Any) -> None:
    said = audio(60)
    async with streaming(anyio_backend, ring_seconds=1) as (at, between, session, stream):
        await cut(between, stream)
        await stream.send(said[: 50 * FRAME])
        with anyio.move_on_after(0.1) as scope:
            await stream.send(said[50 * FRAME :])
        assert scope.cancelled_caught
        assert stream.statistics().captured == 50
        between.limits = lambda: None
        await stream.send(said[50 * FRAME :])
        await stream.finish()
        assert recorded(await at.stopped(session.session_id)) == said


async def test_a_stream_that_is_left_lets_its_session_go_on(anyio_backend: Any) -> None:
    async with server(anyio_backend) as at, VoiceClient(at.url) as client:
        session = await at.session()
        async with client.stream(session.session_id) as stream:
            await stream.send(audio(10))
            while stream.statistics().durable < 10:
                await anyio.sleep(0.01)
        assert (await client.get_session(session.session_id))["state"] == "active"
        async with client.stream(session.session_id) as stream:
            assert stream.statistics().captured == 0
            await stream.send(audio(10, seed=1))
            await stream.finish()
        assert recorded(await at.stopped(session.session_id)) == audio(10) + audio(10, seed=1)


async def test_a_peer_that_takes_nothing_does_not_hold_who_leaves(anyio_backend: Any) -> None:
    async with server(anyio_backend, backlog_seconds=600) as at, proxy(at.port) as between:
        session = await at.session()
        url = f"ws://127.0.0.1:{between.port}/v1/stream"
        with anyio.fail_after(20):
            async with connect_stream(url, ticket=at.ticket(session), ring_seconds=600) as stream:
                between.delay_seconds = 3600
                stream.send_nowait(bytes(30_000 * FRAME))
                sent = -1
                while stream._stream.sent > sent:  # until the kernel has no room left
                    sent = stream._stream.sent
                    await anyio.sleep(0.3)
                assert sent < 30_000


# --- installed without the extra -------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["httpx2", "wsproto"])
def test_without_the_extra_one_line_says_what_to_install(package: str) -> None:
    program = f"import sys; sys.modules[{package!r}] = None; import agentos.core.communication.voice.client"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    said = f"the client needs {package}: in the checkout, pip install '.[client]'"
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: {said}"
    assert done.stderr.count("Traceback") == 1
