"""A drain: no new calls, time for those that run, then a stop with its deadlines, and everything is durable."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from agentos.core.communication.voice import (
    AsyncVoiceService,
    STTProvider,
    VoiceProvider,
    VoiceService,
    VoiceSession,
    VoiceSessionState,
)
from agentos.core.communication.voice.errors import Draining, ServiceClosed
from agentos.core.communication.voice.models import EndReason
from agentos.core.communication.voice.settings import VoiceSettings, load_settings
from agentos.core.communication.voice.signals import drain_on_signals, draining_on_signals
from agentos.core.communication.voice.storage.opening import open_to_read

NEVER = 500  # seconds, for deadlines that must not be waited for; the test's own limit is far below
PATIENCE = 60
SECOND = bytes(32_000)

MakeSettings = Callable[..., VoiceSettings]
Verified = Callable[[], int]


async def create(service: AsyncVoiceService) -> str:
    session = await service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER)
    return session.session_id


def stopped(settings: VoiceSettings, session_id: str) -> VoiceSession:
    """The session as it stands in the store, where it must have stopped."""
    with open_to_read(settings.database) as store:
        session = store.session(session_id)
    assert session is not None
    assert session.state is VoiceSessionState.STOPPED
    assert session.result is not None
    return session


def reason(settings: VoiceSettings, session_id: str) -> EndReason:
    result = stopped(settings, session_id).result
    assert result is not None
    assert result.drained
    return result.reason


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE):
        while not condition():
            await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
class TestTheAsyncService:
    async def test_new_calls_are_refused_and_running_ones_go_on_to_their_end(
        self, make_settings: MakeSettings, verified: Verified
    ) -> None:
        settings = make_settings(drain_timeout_seconds=NEVER)
        service = AsyncVoiceService(settings)
        assert not service.ready
        with anyio.fail_after(PATIENCE):
            async with service, anyio.create_task_group() as group:
                assert service.ready
                running = await create(service)
                assert not service.inspect().closing
                group.start_soon(service.drain)
                await until(lambda: not service.ready)
                assert service.inspect().closing
                with pytest.raises(Draining, match="another process"):
                    await create(service)
                await service.dispatch_audio_chunk(running, SECOND)
                assert await service.stop_session(running)
                await service.wait_closed()
                with pytest.raises(ServiceClosed):
                    await create(service)
        assert reason(settings, running) is EndReason.STOPPED
        assert verified() == 4

    async def test_calls_that_do_not_end_are_stopped_when_their_time_is_over(
        self, make_settings: MakeSettings, verified: Verified
    ) -> None:
        settings = make_settings(drain_timeout_seconds=0.1)
        with anyio.fail_after(PATIENCE):
            async with AsyncVoiceService(settings) as service:
                spoken, silent = await create(service), await create(service)
                await service.dispatch_audio_chunk(spoken, SECOND)
                await service.drain()
                await service.wait_closed()
        assert reason(settings, spoken) is reason(settings, silent) is EndReason.SHUTDOWN
        assert verified() == 7

    async def test_a_second_drain_does_not_wait_for_running_calls(self, make_settings: MakeSettings) -> None:
        settings = make_settings(drain_timeout_seconds=NEVER)
        with anyio.fail_after(PATIENCE):
            async with AsyncVoiceService(settings) as service, anyio.create_task_group() as group:
                session_id = await create(service)
                group.start_soon(service.drain)
                await until(lambda: not service.ready)
                await service.drain()
        assert reason(settings, session_id) is EndReason.SHUTDOWN

    async def test_a_drain_that_is_cancelled_goes_on(self, make_settings: MakeSettings) -> None:
        settings = make_settings(drain_timeout_seconds=NEVER)
        with anyio.fail_after(PATIENCE):
            async with AsyncVoiceService(settings) as service:
                session_id = await create(service)
                with anyio.move_on_after(0.05):
                    await service.drain()
                with pytest.raises(Draining):
                    await create(service)
                await service.stop_session(session_id)
                await service.wait_closed()

    async def test_a_call_that_is_being_created_is_not_lost(self, make_settings: MakeSettings) -> None:
        settings = make_settings(drain_timeout_seconds=NEVER)
        made: list[str] = []

        async def creating() -> None:
            made.append(await create(service))

        with anyio.fail_after(PATIENCE):
            async with AsyncVoiceService(settings) as service, anyio.create_task_group() as group:
                group.start_soon(creating)
                await until(lambda: service.statistics().sessions == 1)
                group.start_soon(service.drain)
                await until(lambda: bool(made))
                await service.stop_session(made[0])
                await service.wait_closed()
        assert reason(settings, made[0]) is EndReason.STOPPED

    async def test_a_service_that_never_ran_is_closed(self, make_settings: MakeSettings) -> None:
        service = AsyncVoiceService(make_settings())
        with anyio.fail_after(PATIENCE):
            await service.drain()
        with pytest.raises(ServiceClosed):
            await service.run()

    async def test_signals_drain_it_and_are_given_back(self, make_settings: MakeSettings) -> None:
        settings = make_settings(drain_timeout_seconds=NEVER)
        with anyio.fail_after(PATIENCE):
            async with AsyncVoiceService(settings) as service, anyio.create_task_group() as group:
                await group.start(drain_on_signals, service)
                session_id = await create(service)
                os.kill(os.getpid(), signal.SIGTERM)
                await until(lambda: not service.ready)
                assert (await service.get_session(session_id)) is not None  # it is given its time
                os.kill(os.getpid(), signal.SIGINT)
                await service.wait_closed()
        assert reason(settings, session_id) is EndReason.SHUTDOWN
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


class TestTheBlockingService:
    def test_a_drain_waits_for_running_calls(self, make_settings: MakeSettings, verified: Verified) -> None:
        settings = make_settings(drain_timeout_seconds=NEVER)
        service = VoiceService(settings)
        assert service.ready
        running = service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER).session_id
        draining = threading.Thread(target=service.drain)
        draining.start()
        while service.ready:
            pass
        with pytest.raises(Draining):
            service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER)
        service.dispatch_audio_chunk(running, SECOND)
        assert service.stop_session(running)
        draining.join(PATIENCE)
        assert not draining.is_alive()
        with pytest.raises(ServiceClosed):
            service.get_session(running)
        assert reason(settings, running) is EndReason.STOPPED
        verified()
        service.drain()  # once more is nothing

    def test_one_that_was_never_used_is_closed(self, make_settings: MakeSettings) -> None:
        service = VoiceService(make_settings())
        service.drain()
        assert not service.ready
        with pytest.raises(ServiceClosed):
            service.list_sessions()

    def test_signals_drain_it_and_are_given_back(self, make_settings: MakeSettings) -> None:
        settings = make_settings(drain_timeout_seconds=NEVER)
        before = signal.getsignal(signal.SIGTERM)
        with VoiceService(settings) as service, draining_on_signals(service) as drained:
            session = service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER)
            os.kill(os.getpid(), signal.SIGTERM)
            while service.ready:
                pass
            assert not drained.is_set()
            os.kill(os.getpid(), signal.SIGTERM)
            assert drained.wait(PATIENCE)
        assert reason(settings, session.session_id) is EndReason.SHUTDOWN
        assert signal.getsignal(signal.SIGTERM) is before

    def test_without_a_signal_nothing_is_drained(self, make_settings: MakeSettings) -> None:
        with VoiceService(make_settings()) as service:
            with draining_on_signals(service) as drained:
                service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER)
            assert not drained.is_set()
            assert service.ready


# A hundred calls that are spoken in real time; every second one hangs up when it learns that the service drains.
ASYNC_HOST = """
import sys
import anyio
from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceProvider
from agentos.core.communication.voice.errors import Draining, InvalidState, ServiceClosed
from agentos.core.communication.voice.signals import drain_on_signals

async def call(service, number, spoken):
    session = await service.create_session("p", VoiceProvider.LOCAL, STTProvider.WHISPER, {"recording_enabled": True})
    try:
        while service.ready or number % 2:
            await service.dispatch_audio_chunk(session.session_id, bytes(640 * 5))
            spoken.add(number)
            await anyio.sleep(0.1)
        await service.stop_session(session.session_id)
    except (InvalidState, ServiceClosed):
        pass

async def main():
    spoken = set()
    async with AsyncVoiceService() as service, anyio.create_task_group() as group:
        await group.start(drain_on_signals, service)
        for number in range(100):
            group.start_soon(call, service, number, spoken)
        while len(spoken) < 100:
            await anyio.sleep(0.01)
        print("speaking", flush=True)
        while service.ready:
            await anyio.sleep(0.01)
        try:
            await service.create_session("p", VoiceProvider.LOCAL, STTProvider.WHISPER)
        except Draining:
            print("draining", flush=True)

anyio.run(main, backend=sys.argv[1])
print("ended", flush=True)
"""
BLOCKING_HOST = """
import sys, threading, time
from agentos.core.communication.voice import STTProvider, VoiceProvider, VoiceService
from agentos.core.communication.voice.errors import Draining, InvalidState, ServiceClosed
from agentos.core.communication.voice.settings import load_settings
from agentos.core.communication.voice.signals import draining_on_signals
from tests.loops import ASYNCIO, TRIO, loops

anyio_backend = loops(ASYNCIO, TRIO)

def call(service, number, spoken):
    session = service.create_session("p", VoiceProvider.LOCAL, STTProvider.WHISPER, {"recording_enabled": True})
    try:
        while service.ready or number % 2:
            service.dispatch_audio_chunk(session.session_id, bytes(640 * 5))
            spoken.add(number)
            time.sleep(0.1)
        service.stop_session(session.session_id)
    except (InvalidState, ServiceClosed):
        pass

spoken = set()
with VoiceService(load_settings(loop=sys.argv[1])) as service, draining_on_signals(service) as drained:
    calls = [threading.Thread(target=call, args=(service, number, spoken)) for number in range(100)]
    for thread in calls:
        thread.start()
    while len(spoken) < 100:
        time.sleep(0.01)
    print("speaking", flush=True)
    while service.ready:
        time.sleep(0.01)
    try:
        service.create_session("p", VoiceProvider.LOCAL, STTProvider.WHISPER)
    except Draining:
        print("draining", flush=True)
    drained.wait()
    for thread in calls:
        thread.join()
print("ended", flush=True)
"""


@pytest.mark.parametrize(
    ("host", "loop"),
    [
        pytest.param(ASYNC_HOST, "asyncio", id="async-asyncio"),
        pytest.param(ASYNC_HOST, "trio", id="async-trio", marks=pytest.mark.slow),
        pytest.param(BLOCKING_HOST, "asyncio", id="blocking-asyncio", marks=pytest.mark.slow),
        pytest.param(BLOCKING_HOST, "trio", id="blocking-trio"),
    ],
)
def test_sigterm_in_the_middle_of_a_hundred_calls(host: str, loop: str, verified: Verified) -> None:
    environment: dict[str, Any] = {
        **os.environ,
        "AGENTOS_VOICE_ON_STT_UNAVAILABLE": "record_only",
        "AGENTOS_VOICE_DRAIN_TIMEOUT_SECONDS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", host, loop],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "speaking\n"
            process.send_signal(signal.SIGTERM)
            told, complaints = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, told, complaints) == (0, "draining\nended\n", "")

    verified()
    settings = load_settings()
    with open_to_read(settings.database) as store:
        sessions = store.sessions()
    assert len(sessions) == 100
    reasons = [reason(settings, session.session_id) for session in sessions]
    assert reasons.count(EndReason.STOPPED) == reasons.count(EndReason.SHUTDOWN) == 50
    for session in sessions:
        assert session.result is not None
        assert session.result.frames.accepted == session.result.frames.recorded > 0
        assert session.result.frames.dropped == {}
