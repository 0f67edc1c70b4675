"""`events`: what happened in a session, in order, from a number on, until it has stopped."""

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors.voice.messages import Emit
from agentos.core.communication.voice import (
    AsyncVoiceService,
    STTProvider,
    VoiceEvent,
    VoiceEventType,
    VoiceProvider,
    VoiceSession,
)
from agentos.core.communication.voice.errors import SessionNotFound
from agentos.core.communication.voice.sessions.directory import KEPT_EVENTS
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage.past_sessions import EVENTS_AT_ONCE
from agentos.core.communication.voice.storage.store import VoiceStore
from tests.loops import ASYNCIO, TRIO, loops

anyio_backend = loops(ASYNCIO, TRIO)

pytestmark = pytest.mark.anyio
PATIENCE = 30
ERROR = (("part", "recorder"), ("error", "OSError"), ("restarted", True))
KINDS = ["session_started", "stt_fallback", "state_changed", "state_changed", "transcript_ready", "session_stopped"]

MakeSettings = Callable[..., VoiceSettings]


async def create(service: AsyncVoiceService) -> VoiceSession:
    return await service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER)


async def whole_call(service: AsyncVoiceService) -> str:
    session = await create(service)
    await service.dispatch_audio_chunk(session.session_id, bytes(6400))
    await service.stop_session(session.session_id)
    return session.session_id


async def heard(service: AsyncVoiceService, session_id: str, after: int = 0) -> list[VoiceEvent]:
    with anyio.fail_after(PATIENCE):
        return [event async for event in service.events(session_id, after)]


def kept(events: list[VoiceEvent]) -> list[VoiceEvent]:
    """Without those that only pass."""
    return [event for event in events if event.event_type is not VoiceEventType.AUDIO_RECEIVED]


def kinds(events: list[VoiceEvent]) -> list[str]:
    return [event.event_type.value for event in events]


async def test_after_the_stop_they_come_from_the_store_at_once(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        for _ in range(5):
            session_id = await whole_call(service)
            events = await heard(service, session_id)
            assert kinds(events) == KINDS
            assert [event.number for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event.payload.get("state") for event in events[2:4]] == ["active", "stopping"]
    assert events[-1].payload == {"reason": "stopped"}
    assert all(event.session_id == session_id for event in events)
    assert [event.timestamp_ms for event in events] == sorted(event.timestamp_ms for event in events)
    async with AsyncVoiceService(make_settings()) as service:
        assert await heard(service, session_id) == events


@pytest.mark.parametrize("after", [0, 1, 4, 5, 6, 100])
async def test_they_go_on_from_a_number(make_settings: MakeSettings, after: int) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session_id = await whole_call(service)
        assert [event.number for event in await heard(service, session_id, after)] == list(range(after + 1, 7))


async def test_live_they_come_as_it_happens_and_end_with_the_session(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        live: list[VoiceEvent] = []
        active = anyio.Event()
        ended = anyio.Event()

        async def listen() -> None:
            async for event in service.events(session.session_id):
                live.append(event)
                if event.payload.get("state") == "active":
                    active.set()
            ended.set()

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                group.start_soon(listen)
                await service.dispatch_audio_chunk(session.session_id, bytes(6400))
                await active.wait()  # told while the session runs
                await service.stop_session(session.session_id)
                await ended.wait()
        assert kinds(kept(live)) == KINDS
        assert await heard(service, session.session_id) == kept(live)


async def test_one_that_comes_late_gets_the_past_and_then_the_present_without_a_seam(
    make_settings: MakeSettings,
) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        await service.dispatch_audio_chunk(session.session_id, bytes(6400))
        live: list[VoiceEvent] = []

        async def listen(after: int) -> None:
            live.extend(await heard(service, session.session_id, after))

        async with anyio.create_task_group() as group:
            group.start_soon(listen, 1)
            await anyio.sleep(0.01)
            await service.stop_session(session.session_id)
        assert kinds(kept(live)) == KINDS[1:]
        numbers = [event.number for event in live]
        assert numbers == sorted(set(numbers))


async def test_two_listeners_hear_the_same(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        first: list[VoiceEvent] = []
        second: list[VoiceEvent] = []

        async def listen(into: list[VoiceEvent]) -> None:
            into.extend(await heard(service, session.session_id))

        async with anyio.create_task_group() as group:
            group.start_soon(listen, first)
            group.start_soon(listen, second)
            await anyio.lowlevel.checkpoint()
            await service.dispatch_audio_chunk(session.session_id, bytes(6400))
            await service.stop_session(session.session_id)
    assert kept(first) == kept(second)
    assert kinds(kept(first)) == KINDS


async def test_a_slow_listener_holds_nobody_up_and_misses_nothing_that_is_kept(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        told: list[VoiceEvent] = []
        events = service.events(session.session_id)
        told.append(await anext(events))
        await service.dispatch_audio_chunk(session.session_id, bytes(6400))
        with anyio.fail_after(PATIENCE):
            assert await service.stop_session(session.session_id)  # while the listener sits on its first event
            assert service.statistics().sessions == 0
            told += [event async for event in events]
    assert kinds(kept(told)) == KINDS


async def test_a_listener_that_goes_is_forgotten(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        events = service.events(session.session_id)
        await anext(events)
        await events.aclose()  # type: ignore[attr-defined]

        async def listen() -> None:
            async for _ in service.events(session.session_id):
                pass

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await anyio.sleep(0.01)
            group.cancel_scope.cancel()
        assert service._runtime._resources is not None
        listing = service._runtime._resources.directory.listing(session.session_id)
        assert listing is not None
        assert listing.listeners == []


async def test_more_events_than_are_held_in_memory_come_from_the_store(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        assert service._runtime._resources is not None
        for _ in range(KEPT_EVENTS + 50):
            service._runtime._resources.directory.submit(Emit(session.session_id, VoiceEventType.ERROR, ERROR))
        live: list[VoiceEvent] = []

        async def listen() -> None:
            live.extend(await heard(service, session.session_id))

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await anyio.sleep(0.05)
            await service.stop_session(session.session_id)
        assert [event.number for event in live] == list(range(1, KEPT_EVENTS + 50 + 2 + 3 + 1))
        assert live == await heard(service, session.session_id)


async def test_stored_events_are_read_a_part_at_a_time(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, and however slowly they are taken; of a call that runs, and of one that has stopped."""
    read: list[int] = []
    real = VoiceStore.events

    def events(store: VoiceStore, *arguments: Any) -> list[VoiceEvent]:
        found = real(store, *arguments)
        read.append(len(found))
        return found

    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        directory = service._runtime.resources().directory
        for _ in range(KEPT_EVENTS + 2 * EVENTS_AT_ONCE):
            directory.submit(Emit(session.session_id, VoiceEventType.ERROR, ERROR))
        monkeypatch.setattr(VoiceStore, "events", events)
        for running in (True, False):
            if not running:
                await service.stop_session(session.session_id)
            read.clear()
            async with aclosing(service.events(session.session_id)) as listened:  # type: ignore[type-var]
                assert (await anext(listened)).number == 1
                assert read == [EVENTS_AT_ONCE]
                told = [1]
                async for event in listened:
                    told.append(event.number)
                    if event.number == KEPT_EVENTS + 2 * EVENTS_AT_ONCE:
                        break
            assert told == list(range(1, told[-1] + 1))
            assert max(read) == EVENTS_AT_ONCE


async def test_the_events_of_an_unknown_session_are_an_error(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        wrong: list[Any] = ["voice-unknown", "", None, []]
        for unknown in wrong:
            with pytest.raises(SessionNotFound):
                await heard(service, unknown)


async def test_an_event_is_frozen(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        event: Any = (await heard(service, await whole_call(service)))[0]
    with pytest.raises(ValueError, match="frozen"):
        event.number = 7
    with pytest.raises(TypeError, match="frozen"):
        event.payload["more"] = 1


async def test_listeners_end_with_the_service(make_settings: MakeSettings) -> None:
    told: list[VoiceEvent] = []

    async def listen(service: AsyncVoiceService, session_id: str) -> None:
        told.extend(await heard(service, session_id))

    async with anyio.create_task_group() as group, AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        group.start_soon(listen, service, session.session_id)
        assert service._runtime._resources is not None
        listing = service._runtime._resources.directory.listing(session.session_id)
        assert listing is not None
        while not listing.listeners:
            await anyio.lowlevel.checkpoint()
    assert kinds(told)[-1] == "session_stopped"
    assert told[-1].payload == {"reason": "shutdown"}
