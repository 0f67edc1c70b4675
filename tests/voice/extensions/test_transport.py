"""Legs: opened when a session's creation is durable, hung up once when it has stopped; whatever they do, the session ends."""

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import httpx2
import pytest

from agentos.core.communication.voice import AsyncVoiceService, VoiceService, VoiceSession
from agentos.core.communication.voice.errors import InvalidState, PolicyDenied, SessionNotFound
from agentos.core.communication.voice.gateway.app import voice_app
from agentos.core.communication.voice.providers.transport import Transport
from agentos.core.communication.voice.settings import VoiceSettings
from machines.session import EndReason
from tests.loops import ASYNCIO, TRIO, loops
from tests.voice.extensions.test_providers import Own

anyio_backend = loops(ASYNCIO, TRIO)

MakeSettings = Callable[..., VoiceSettings]
Records = Callable[..., list[dict[str, Any]]]
PATIENCE_SECONDS = 30


class Line(Transport):
    """Notes what it is asked for, and does with it what a test says."""

    def __init__(self, dial: Callable[[], Any] | None = None, drop: Callable[[], Any] | None = None) -> None:
        self.told: list[tuple[str, ...]] = []
        self._dial, self._drop = dial, drop

    async def open_leg(self, session: VoiceSession) -> None:
        self.told.append(("open", session.session_id, session.state.value))
        try:
            if self._dial is not None:
                await self._dial()
        except anyio.get_cancelled_exc_class():
            self.told.append(("cut short", session.session_id))
            raise

    async def hang_up(self, session: VoiceSession, reason: EndReason) -> None:
        self.told.append(("hang up", session.session_id, session.state.value, reason.value))
        if self._drop is not None:
            await self._drop()


def over(line: Line) -> Own:
    own = Own({"provider": "line"})
    own.transport = line
    return own


async def until(enough: Callable[[], object]) -> None:
    with anyio.fail_after(PATIENCE_SECONDS):
        while not enough():
            await anyio.sleep(0.002)


async def refuse() -> None:
    raise LookupError("no such number")


@pytest.mark.anyio
async def test_a_leg_is_opened_and_hung_up_once(make_settings: MakeSettings, records: Records) -> None:
    line = Line()
    async with AsyncVoiceService(make_settings(), providers=[over(line)]) as service:
        session = await service.create_session("p", "line", "whisper_local")
        await until(lambda: line.told)
        assert await service.stop_session(session.session_id)
        assert await service.stop_session(session.session_id)
        await until(lambda: len(line.told) > 1)
        with pytest.raises(PolicyDenied):
            await service.create_session("p", "line", "whisper_local", {"requires_data_access": True})
    opened, hung_up = ("open", session.session_id, "created"), ("hang up", session.session_id, "stopped", "stopped")
    assert line.told == [opened, hung_up]
    assert all(record["operation"] != "leg_failed" for record in records())


@pytest.mark.anyio
async def test_the_end_of_the_service_waits_for_the_last_hang_up(make_settings: MakeSettings) -> None:
    ended = []

    async def slowly() -> None:
        await anyio.sleep(0.05)
        ended.append(None)

    line = Line(drop=slowly)
    async with AsyncVoiceService(make_settings(), providers=[over(line)]) as service:
        for _ in range(3):
            await service.create_session("p", "line", "whisper_local")
        await until(lambda: len(line.told) == 3)
    assert len(ended) == 3
    assert {told[3] for told in line.told[3:]} == {"shutdown"}


@pytest.mark.anyio
@pytest.mark.parametrize("hangs", [False, True], ids=["raises", "hangs"])
async def test_a_leg_that_can_not_be_opened_ends_its_session_as_failed(
    make_settings: MakeSettings, records: Records, hangs: bool
) -> None:
    line = Line(dial=anyio.sleep_forever if hangs else refuse)
    async with AsyncVoiceService(make_settings(leg_timeout_seconds=0.05), providers=[over(line)]) as service:
        other = await service.create_session("p", "local", "whisper_local")
        session = await service.create_session("p", "line", "whisper_local")
        await until(lambda: len(line.told) > 1 + hangs)
        ended = await service.get_session(session.session_id)
        assert ended is not None
        assert ended.result is not None
        assert ended.result.reason is EndReason.FAILED
        await service.dispatch_audio_chunk(other.session_id, bytes(640))  # no other call is touched
    (record,) = [record for record in records() if record["operation"] == "leg_failed"]
    assert record["request_id"].startswith("leg-")
    assert record["request_summary"]["session_id"] == session.session_id
    problem = "it took more than 0.05 s" if hangs else "LookupError: no such number"
    assert record["response_summary"] == {"step": "open", "error": problem}


@pytest.mark.anyio
@pytest.mark.parametrize("hangs", [False, True], ids=["raises", "hangs"])
async def test_a_hang_up_that_fails_is_said_and_holds_up_nothing(
    make_settings: MakeSettings, records: Records, verified: Callable[[], int], hangs: bool
) -> None:
    line = Line(drop=anyio.sleep_forever if hangs else refuse)
    async with AsyncVoiceService(make_settings(leg_timeout_seconds=0.05), providers=[over(line)]) as service:
        session = await service.create_session("p", "line", "whisper_local")
        await until(lambda: line.told)
        assert await service.stop_session(session.session_id)
    (failed,) = [record for record in records() if record["operation"] == "leg_failed"]
    assert (failed["status"], failed["response_summary"]["step"]) == ("failed", "hang_up")
    assert [told[0] for told in line.told] == ["open", "hang up"]
    assert records(session.session_id)[-1]["operation"] == "session_stopped"  # its final record is its last
    assert verified() == len(records())


@pytest.mark.anyio
async def test_a_session_that_ends_while_its_leg_is_opened_cuts_that_short(make_settings: MakeSettings) -> None:
    line = Line(dial=anyio.sleep_forever)
    async with AsyncVoiceService(make_settings(), providers=[over(line)]) as service:
        session = await service.create_session("p", "line", "whisper_local")
        await until(lambda: line.told)
        assert await service.stop_session(session.session_id)
        await until(lambda: len(line.told) == 3)
    assert [told[0] for told in line.told] == ["open", "cut short", "hang up"]


@pytest.mark.anyio
async def test_a_provider_without_a_sink_can_not_be_heard(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings(), providers=[over(Line())]) as service:
        for provider in ("local", "line"):
            session = await service.create_session("p", provider, "whisper_local")
            with pytest.raises(InvalidState, match="can't send audio to its caller"):
                await service.audio_sink(session.session_id)
        assert await service.stop_session(session.session_id)
        with pytest.raises(InvalidState, match="STOPPED"):
            await service.audio_sink(session.session_id)
        with pytest.raises(SessionNotFound):
            await service.audio_sink("voice-unknown")


async def wait_for_a_cancelled_task() -> None:
    waiting = asyncio.create_task(asyncio.sleep(60))
    waiting.cancel()
    await waiting


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
@pytest.mark.parametrize("step", ["open", "hang_up"])
async def test_a_leg_whose_own_task_was_cancelled_touches_no_other(
    make_settings: MakeSettings, records: Records, step: str
) -> None:
    line = Line(**{"dial" if step == "open" else "drop": wait_for_a_cancelled_task})
    async with AsyncVoiceService(make_settings(), providers=[over(line)]) as service:
        for _ in range(2):  # the second session has a leg too
            line.told.clear()
            session = await service.create_session("p", "line", "whisper_local")
            await until(lambda: len(line.told) >= (2 if step == "open" else 1))
            assert await service.stop_session(session.session_id)
            await until(lambda: line.told[-1][0] == "hang up")
    failed = [record["response_summary"] for record in records() if record["operation"] == "leg_failed"]
    assert failed == [{"step": step, "error": "RuntimeError: a task that it waited for was cancelled"}] * 2


class Ear(Line):
    """A line whose far end can be heard."""

    sample_rate = 8_000

    def audio_sink(self, session_id: str) -> "Ear":
        return self

    async def send(self, pcm: bytes) -> None:
        self.told.append(("send", str(len(pcm))))

    async def clear(self) -> None:
        self.told.append(("clear",))


def test_the_blocking_service_has_the_sink_too(make_settings: MakeSettings) -> None:
    ear = Ear()
    with VoiceService(make_settings(), providers=[over(ear)]) as service:
        session = service.create_session("p", "line", "whisper_local")
        sink = service.audio_sink(session.session_id)
        assert sink.sample_rate == 8_000
        sink.send(bytes(320))
        sink.clear()
        service.stop_session(session.session_id)
        with pytest.raises(InvalidState, match="nothing is played"):
            sink.clear()
    assert [told for told in ear.told if told[0] in ("send", "clear")] == [("send", "320"), ("clear",)]


@pytest.mark.anyio
async def test_there_are_no_routes_below_a_name_that_brings_none(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings(), providers=[over(Line())]) as service:
        transport = httpx2.ASGITransport(app=voice_app(service, authentication=False))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for path in ("local/ring", "line/ring", "nobody/ring", "line", "", "line%2Fring"):
                reply = await client.post(f"/v1/providers/{path}")
                assert (reply.status_code, reply.json()["type"]) == (404, "urn:agentos-voice:problem:not-found"), path
