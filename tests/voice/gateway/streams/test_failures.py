"""Each task of the server raises, one after the other, on a real server: the error stays where it came up."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from agentos.core.communication.voice.gateway.access.refusals import Refusal
from agentos.core.communication.voice.gateway.streams import connection
from agentos.core.communication.voice.gateway.streams.connection import StreamConnection
from agentos.core.communication.voice.gateway.streams.endpoint import BrowserStreams
from agentos.core.communication.voice.running import admission
from machines.events import VoiceEvent, VoiceEventType
from machines.stream.messages import Bye, End, Hello, StreamCode
from tests.voice.gateway.streaming import PCM, Closed, RawSocket, Server, audio, message, recorded, server

pytestmark = pytest.mark.anyio

FAULT = "a planted fault"


async def opened(at: Server, session: Any) -> RawSocket:
    socket = await RawSocket.open(at.port)
    await socket.send(Hello((PCM,), 1, ticket=at.ticket(session)))
    return socket


async def a_good_call(at: Server) -> None:
    """A call from its first frame to its recording."""
    session, said = await at.session(), audio(10)
    socket = await opened(at, session)
    await socket.send(message(0, said))
    await socket.send(End(10))
    with anyio.fail_after(30):
        await socket.until(Bye)
        assert recorded(await at.stopped(session.session_id)) == said


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(30):
        while not condition():
            await anyio.sleep(0.01)


class Fault:
    """Stands for a method and raises, once it is `on`; `raised` counts."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: Any, name: str, *, asynchronous: bool = False) -> None:
        self.on = False
        self.raised = 0
        real = getattr(owner, name)

        def raising(*arguments: Any, **named: Any) -> Any:
            if self.on:
                self.raised += 1
                raise RuntimeError(FAULT)
            return real(*arguments, **named)

        async def raising_later(*arguments: Any, **named: Any) -> Any:
            return await raising(*arguments, **named)

        patch.setattr(owner, name, raising_later if asynchronous else raising)


OF_ONE_CONNECTION = {  # what is done for one connection, and in which task
    "hello": (StreamConnection, "hello", True),
    "admission": (BrowserStreams, "_admitted", True),
    "session": (BrowserStreams, "_session", True),
    "run": (StreamConnection, "run", True),
    "reading": (StreamConnection, "_read_messages", True),
    "a message": (connection, "read_audio", False),
    "events": (connection, "tell_events", True),
    "visit": (StreamConnection, "visit", False),
    "news": (StreamConnection, "_has_news", False),
    "acknowledging": (StreamConnection, "_acknowledge", True),
}


@pytest.mark.parametrize("what", OF_ONE_CONNECTION)
async def test_an_error_of_one_connection_ends_that_one(
    what: str, anyio_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, asynchronous = OF_ONE_CONNECTION[what]
    fault = Fault(monkeypatch, owner, name, asynchronous=asynchronous)
    async with server(anyio_backend) as at:
        fault.on = True
        socket = await opened(at, await at.session())
        with anyio.fail_after(30):
            try:
                await socket.send(message(0, audio(10)))  # which has to be acknowledged
                closed = await socket.closed()
            except Closed as found:
                closed = found
        assert fault.raised
        assert closed.code == StreamCode.FAULT
        fault.on = False
        await a_good_call(at)


OF_ALL = {  # what is done for all connections and calls, again and again
    "the absent": (BrowserStreams, "_look_for_the_absent"),
    "memory": (admission, "memory_bytes"),
    "queues": (admission.Meter, "_queue_ages"),
}


@pytest.mark.parametrize("what", OF_ALL)
async def test_a_look_that_raises_is_said_once_and_taken_again(
    what: str, anyio_backend: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fault = Fault(monkeypatch, *OF_ALL[what])
    with caplog.at_level("INFO"):
        async with server(anyio_backend) as at:
            fault.on = True
            await until(lambda: fault.raised >= 3)
            await a_good_call(at)
    assert len([line for line in caplog.records if line.getMessage().startswith("look_failed")]) == 1


async def test_the_inspector_goes_on(anyio_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentos.core.communication.voice.running import inspection  # noqa: PLC0415 - only this one looks into it

    monkeypatch.setattr(inspection, "LOOK_SECONDS", 0.01)
    fault = Fault(monkeypatch, inspection.ServiceInspector, "_ports")
    async with server(anyio_backend) as at:
        fault.on = True
        await until(lambda: fault.raised >= 3)
        await a_good_call(at)


async def test_a_stop_that_raises_leaves_the_other_streams(anyio_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with server(anyio_backend) as at:
        fault = Fault(monkeypatch, at.service, "stop_session", asynchronous=True)
        fault.on = True
        socket = await opened(at, await at.session())
        await socket.send(message(0, audio(10)))
        await socket.send(End(10))
        await until(lambda: fault.raised)
        fault.on = False
        await a_good_call(at)
        await socket.abort()


async def test_a_refusal_that_cannot_be_recorded_ends_nothing(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentos.core.communication.voice.gateway.access import refusals  # noqa: PLC0415

    monkeypatch.setattr(refusals, "WINDOW_SECONDS", 0)
    async with server(anyio_backend) as at:
        fault = Fault(monkeypatch, at.app.state.access.refusals, "_note")
        fault.on = True
        for _ in range(3):
            at.app.state.access.refusals.add(Refusal("no_token", "10.0.0.1", "GET", "/v1/sessions"))
        await until(lambda: fault.raised >= 3)
        fault.on = False
        await a_good_call(at)


async def test_a_client_that_comes_back_to_a_stopped_session_and_reads_nothing_ends_its_connection_alone(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SEND_MS", 500)

    async def many(session_id: str, after: int = 0) -> AsyncIterator[VoiceEvent]:
        for number in range(after + 1, 20_000):
            said = {"text": "word " * 200}
            yield VoiceEvent(
                event_id=f"evt-{number}",
                session_id=session_id,
                event_type=VoiceEventType.STT_FINAL,
                payload=said,
                timestamp_ms=0,
                number=number,
            )

    async with server(anyio_backend) as at:
        session = await at.session()
        await at.service.stop_session(session.session_id)
        monkeypatch.setattr(at.service, "events", many)
        deaf = await opened(at, session)
        await until(lambda: at.app.state.streams.open == 1)
        await until(lambda: at.app.state.streams.open == 0)
        monkeypatch.undo()
        await a_good_call(at)
        await deaf.abort()


async def test_the_lifespan_ends_streams_at_every_moment_of_their_life(anyio_backend: Any) -> None:
    """Those that have said nothing yet, those that were welcomed."""
    async with server(anyio_backend) as at:
        silent = await RawSocket.open(at.port)
        welcomed = await opened(at, await at.session())
        await until(lambda: at.app.state.streams.open == 2)
        await welcomed.receive()
        await at.service.aclose()
        for socket in (silent, welcomed):
            with anyio.fail_after(30):
                await socket.closed()
