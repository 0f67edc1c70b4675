"""When the actor system itself fails, the service ends at once: every session is ended and told, nobody goes on waiting."""

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors.runtime.system import TOP_INTENSITY, SystemFailed
from actors.voice.messages import Judged
from actors.voice.session import SessionActor
from agentos.core.communication.models import PolicyVerdict, RequestStatus
from agentos.core.communication.voice import (
    AsyncVoiceService,
    STTProvider,
    VoiceEvent,
    VoiceEventType,
    VoiceProvider,
    VoiceService,
    VoiceSession,
    VoiceSessionState,
)
from agentos.core.communication.voice.cli.exits import first_error
from agentos.core.communication.voice.errors import ServiceClosed
from agentos.core.communication.voice.models import EndReason
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage.opening import open_store, open_to_read

pytestmark = pytest.mark.anyio

NEVER = 500  # seconds, for deadlines that must not be waited for; the test's own limit is far below

VERDICT = PolicyVerdict(status=RequestStatus.APPROVED, reason_code="NONE")

MakeSettings = Callable[..., VoiceSettings]
Records = Callable[..., list[dict[str, Any]]]


def wreck(service: AsyncVoiceService) -> None:
    """Crash the supervisor of a service until its system gives it up."""
    unreadable: Any = []  # no id of a session: it can't even be looked up
    for _ in range(TOP_INTENSITY.limit + 1):
        service._runtime.system.tell(service._runtime.supervisor, Judged(unreadable, VERDICT))


async def create(service: AsyncVoiceService) -> VoiceSession:
    return await service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER)


def patient(make_settings: MakeSettings) -> VoiceSettings:
    return make_settings(stop_timeout_seconds=NEVER, evidence_timeout_seconds=NEVER, create_timeout_seconds=NEVER)


async def test_every_session_is_ended_and_told(
    make_settings: MakeSettings, records: Records, verified: Callable[[], int]
) -> None:
    settings = patient(make_settings)
    service = AsyncVoiceService(settings)
    told: dict[str, list[VoiceEvent]] = {}

    async def listen(session_id: str) -> None:
        told[session_id] = [event async for event in service.events(session_id)]

    with pytest.raises(BaseExceptionGroup) as caught, anyio.fail_after(60):
        async with anyio.create_task_group() as listeners, service:
            sessions = [await create(service) for _ in range(3)]
            await service.dispatch_audio_chunk(sessions[0].session_id, bytes(6_400))
            for session in sessions:
                listeners.start_soon(listen, session.session_id)
            await anyio.wait_all_tasks_blocked()
            wreck(service)
            await anyio.sleep(NEVER)
    assert isinstance(first_error(caught.value), SystemFailed)

    with pytest.raises(ServiceClosed, match="failed, and its sessions were ended"):
        await create(service)
    with open_to_read(settings.database) as store:
        for session in sessions:
            ended = store.session(session.session_id)
            assert ended is not None
            assert ended.result is not None
            assert ended.result.reason is EndReason.FAILED
            assert told[session.session_id][-1].event_type is VoiceEventType.SESSION_STOPPED
            (final,) = [item for item in records(session.session_id) if item["operation"] == "session_stopped"]
            assert final["response_summary"]["error"]
        first = store.session(sessions[0].session_id)
    assert first is not None
    assert first.result is not None
    assert (first.result.frames.accepted, first.result.frames.dropped) == (10, {"session_failed": 10})
    assert verified() == len(records())
    assert list(settings.home.glob("*.spill")) == []


async def test_a_session_that_was_being_created_has_a_final_record_too(
    make_settings: MakeSettings, records: Records, verified: Callable[[], int]
) -> None:
    service = AsyncVoiceService(patient(make_settings))
    refused: list[ServiceClosed] = []
    stopped: list[str] = []

    async def creating() -> None:
        try:
            await create(service)
        except ServiceClosed as error:
            refused.append(error)

    with pytest.raises(BaseExceptionGroup), anyio.fail_after(60):
        async with anyio.create_task_group() as group, service:
            service.get_provider(VoiceProvider.LOCAL).on_session_stopped = stopped.append  # type: ignore[method-assign]
            group.start_soon(creating)
            resources = service._runtime.resources()
            while not any(
                resources.store_port.writer.unstored(listing.facts.session_id)
                for listing in resources.directory.being_created()
            ):
                await anyio.lowlevel.checkpoint()  # until its first record is on its way
            wreck(service)
            await anyio.sleep(NEVER)
    assert len(refused) == 1
    assert [record["operation"] for record in records()] == ["session_created", "session_stopped"]
    with open_to_read(service.settings.database) as store:
        (session,) = store.sessions()
    assert session.state is VoiceSessionState.STOPPED
    assert session.result is not None
    assert session.result.reason is EndReason.FAILED
    assert stopped == []  # nobody had been told that it started
    verified()


async def test_nobody_goes_on_waiting(make_settings: MakeSettings) -> None:
    service = AsyncVoiceService(patient(make_settings))
    refused: list[str] = []

    async def refusal(call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(ServiceClosed) as caught:
            await call()
        refused.append(str(caught.value))

    with pytest.raises(BaseExceptionGroup), anyio.fail_after(60):
        async with anyio.create_task_group() as waiting, service:
            session = await create(service)
            waiting.start_soon(refusal, partial(create, service))
            waiting.start_soon(refusal, partial(service.stop_session, session.session_id))
            waiting.start_soon(refusal, partial(service.stop_session, session.session_id))
            await anyio.lowlevel.checkpoint()
            wreck(service)
            await anyio.sleep(NEVER)
    assert len(refused) == 3
    assert all("failed, and its sessions were ended" in text for text in refused)


async def test_a_failure_while_the_service_is_closing_ends_the_wait(make_settings: MakeSettings) -> None:
    service = AsyncVoiceService(patient(make_settings))
    with pytest.raises(BaseExceptionGroup) as caught, anyio.fail_after(60):
        async with service:
            session = await create(service)
            listing = service._runtime.resources().directory.listing(session.session_id)
            assert listing is not None
            assert listing.ref is not None
            assert isinstance(listing.ref.actor, SessionActor)
            del listing.ref.actor.ports  # its steps fail, and so does the supervisor that is told of it
            wreck(service)
    assert isinstance(first_error(caught.value), SystemFailed)
    with open_to_read(service.settings.database) as store:
        ended = store.session(session.session_id)
    assert ended is not None
    assert ended.state is VoiceSessionState.STOPPED


def test_the_blocking_service_ends_as_well(make_settings: MakeSettings) -> None:
    with VoiceService(patient(make_settings)) as service:
        session = service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER)
        service._start(_wrecked).result(60)
        assert service._thread is not None
        service._thread.join(60)
        assert not service._thread.is_alive()
        with pytest.raises(ServiceClosed):
            service.dispatch_audio_chunk(session.session_id, bytes(640))
        with pytest.raises(ServiceClosed):
            service.stop_session(session.session_id)


async def _wrecked(service: AsyncVoiceService) -> None:
    wreck(service)


async def test_with_the_store_locked_too_the_final_record_is_spilled_and_goes_in_at_the_next_start(
    make_settings: MakeSettings, records: Records
) -> None:
    settings = make_settings(evidence_timeout_seconds=0.5, store_busy_timeout_seconds=0.1)
    service = AsyncVoiceService(settings)
    open_store(settings.database, busy_timeout_seconds=5).close()
    with closing(sqlite3.connect(settings.database, isolation_level=None)) as locker:
        with pytest.raises(BaseExceptionGroup), anyio.fail_after(60):
            async with service:
                session = await create(service)
                locker.execute("BEGIN IMMEDIATE")
                wreck(service)
                await anyio.sleep(NEVER)
        assert len(list(settings.home.glob("*.spill"))) == 1
        locker.execute("ROLLBACK")
    async with AsyncVoiceService(settings) as again:
        with anyio.fail_after(60):
            while [record["operation"] for record in records(session.session_id)][-1:] != ["session_stopped"]:
                await anyio.sleep(0.01)
        ended = await again.get_session(session.session_id)
    assert ended is not None
    assert ended.state is VoiceSessionState.STOPPED
