"""The provider and the engine of the page are short, and carry a real call: by a real server, and in a real worker process."""

import re
import sys
from array import array
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import httpx2
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from agentos.core.communication.voice import AsyncVoiceService
from agentos.core.communication.voice.errors import InvalidRequest, InvalidState
from agentos.core.communication.voice.gateway.app import voice_app
from agentos.core.communication.voice.gateway.server import listening, serve
from agentos.core.communication.voice.settings import load_settings
from machines.communication import RiskLevel
from machines.session import EndReason, VoiceSessionState
from tests.loops import ASYNCIO, TRIO, loops

pytestmark = pytest.mark.anyio
anyio_backend = loops(ASYNCIO, TRIO)

PAGE = (Path(__file__).parents[2] / "docs" / "extend.md").read_text()
PROGRAMS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE, re.DOTALL))
SECRET = {"X-Secret": "open sesame"}
SECOND = array("h", [8_000, -8_000] * 8_000).tobytes()
PATIENCE = 60.0


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """A program of the page, as a module of its own."""
    names = []

    def load(name: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(PROGRAMS[f"{name}.py"])
        monkeypatch.syspath_prepend(str(tmp_path))
        names.append(name)
        return import_module(name)

    yield load
    for name in names:
        sys.modules.pop(name)


@pytest.fixture
def intercom(module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("INTERCOM_SECRET", SECRET["X-Secret"])
    return module("intercom").Intercom(None)


def test_they_are_short() -> None:
    assert sorted(PROGRAMS) == ["intercom.py", "shout.py"]
    assert {name: len(text.splitlines()) for name, text in PROGRAMS.items() if len(text.splitlines()) >= 80} == {}


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """A call of the blocking WebSocket client."""
    with anyio.fail_after(PATIENCE):
        return await anyio.to_thread.run_sync(function, *arguments)


class Door:
    """A server with the intercom, and somebody at the door."""

    def __init__(self, url: str, service: AsyncVoiceService) -> None:
        self.url = url
        self.service = service

    async def ring(self, **headers: str) -> httpx2.Response:
        async with httpx2.AsyncClient(base_url=self.url) as client:
            return await client.post("/v1/providers/intercom/ring", headers=headers)

    async def connected(self, session_id: str, headers: dict[str, str]) -> ClientConnection:
        url = f"{self.url.replace('http', 'ws')}/v1/providers/intercom/audio/{session_id}"
        answer: ClientConnection = await in_thread(lambda: connect(url, additional_headers=headers, legacy=True))
        return answer

    async def stopped(self, session_id: str) -> Any:
        with anyio.fail_after(PATIENCE):
            while True:
                session = await self.service.get_session(session_id)
                if session is not None and session.state is VoiceSessionState.STOPPED:
                    return session
                await anyio.sleep(0.01)


async def at_the_door(backend: str, provider: Any, visit: Callable[[Door], Any]) -> None:
    settings = load_settings(stt_workers=1, stop_timeout_seconds=PATIENCE)
    with listening("127.0.0.1", 0) as taken:
        async with AsyncVoiceService(settings, providers=[provider]) as service, anyio.create_task_group() as group:
            await group.start(
                serve, voice_app(service), taken, service, backend
            )  # with tokens, which its routes need not
            await visit(Door(f"http://127.0.0.1:{taken.getsockname()[1]}", service))
            await service.aclose()


async def test_a_call_of_the_provider(anyio_backend: Any, intercom: Any) -> None:
    async def visit(door: Door) -> None:
        assert (await door.ring()).status_code == 403
        answer = await door.ring(**SECRET)
        assert answer.status_code == 201
        session_id = answer.json()["session_id"]
        begun = await door.service.get_session(session_id)
        assert begun is not None
        assert (begun.provider, begun.risk_tier) == ("intercom", RiskLevel.MEDIUM)
        with pytest.raises(InvalidState, match="can't send audio"):  # nobody is there yet
            await door.service.audio_sink(session_id)
        with pytest.raises(InvalidStatus, match="403"):
            await door.connected(session_id, {})
        socket = await door.connected(session_id, SECRET)
        await in_thread(socket.send, SECOND)
        sink = await door.service.audio_sink(session_id)
        assert sink.sample_rate == 16_000
        await sink.send(SECOND[:640])
        await sink.clear()
        assert [await in_thread(socket.recv), await in_thread(socket.recv)] == [SECOND[:640], "clear"]
        with pytest.raises(InvalidRequest, match="whole samples"):
            await sink.send(b"\0")
        await in_thread(socket.close)
        ended = await door.stopped(session_id)
        assert ended.result.reason is EndReason.CALLER_GONE
        assert ended.result.frames.accepted == 50
        with pytest.raises(InvalidState, match="STOPPED"):
            await sink.send(SECOND[:640])

    await at_the_door(anyio_backend[0], intercom, visit)
    assert intercom.transport.legs == {}


async def test_a_session_that_ends_hangs_up(anyio_backend: Any, intercom: Any) -> None:
    async def visit(door: Door) -> None:
        session_id = (await door.ring(**SECRET)).json()["session_id"]
        socket = await door.connected(session_id, SECRET)
        assert await door.service.stop_session(session_id)
        assert [message async for message in _rest(socket)] == []
        assert (socket.close_code, socket.close_reason) == (1000, "stopped")

    await at_the_door(anyio_backend[0], intercom, visit)


async def _rest(socket: ClientConnection) -> Any:
    for message in await in_thread(list, socket):
        yield message


async def test_without_its_secret_nobody_gets_in(
    anyio_backend: Any, intercom: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    intercom.transport.secret = ""

    async def visit(door: Door) -> None:
        answer = await door.ring(**SECRET)
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:agentos-voice:problem:provider-not-configured")
        with pytest.raises(InvalidStatus, match="403"):
            await door.connected("voice-1", SECRET)

    await at_the_door(anyio_backend[0], intercom, visit)


async def test_a_call_of_the_engine(module: Callable[[str], ModuleType]) -> None:
    settings = load_settings(stt_workers=1, stop_timeout_seconds=PATIENCE)
    async with AsyncVoiceService(settings, engines=[module("shout").ENGINE]) as service:
        plain = await service.create_session("p", "local", "shout")
        assert (plain.stt_provider, plain.stt_engine) == ("shout", "shout")
        assert plain.stt_options == {"word": "shout", "level": 5_000}
        own = await service.create_session("p", "local", "shout", stt_options={"word": "hey"})
        for session in (plain, own):
            await service.dispatch_audio_chunk(session.session_id, SECOND + bytes(32_000))
        words = []
        for session in (plain, own):
            assert await service.stop_session(session.session_id)
            ended = await service.get_session(session.session_id)
            assert ended is not None
            assert ended.result is not None
            assert ended.result.frames.transcribed == ended.result.frames.accepted == 100
            words.append(ended.result.transcript)
        assert words == ["shout shout", "hey hey"]
        for options, field in (({"words": "hey"}, "words"), ({"word": "x" * 21}, "word"), ({"level": "loud"}, "level")):
            with pytest.raises(
                InvalidRequest, match=rf"stt_options\.{field} can't be had from the engine 'shout'"
            ) as no:
                await service.create_session("p", "local", "shout", stt_options=options)
            assert no.value.field == f"stt_options.{field}"
