"""A service as an asyncio fixture is used: one task enters it, others call it, another one leaves it."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from actors.runtime.system import TOP_INTENSITY
from actors.voice.messages import Judged
from agentos.core.communication.models import PolicyVerdict, RequestStatus
from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceProvider, VoiceSessionState
from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.settings import VoiceSettings

MakeSettings = Callable[..., VoiceSettings]
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


async def call(service: AsyncVoiceService) -> str:
    session = await service.create_session("p", VoiceProvider.LOCAL, STTProvider.WHISPER)
    await service.dispatch_audio_chunk(session.session_id, bytes(640))
    return session.session_id


async def wreck(service: AsyncVoiceService) -> None:
    """Crash the supervisor of a service until its system gives it up."""
    unreadable: Any = []  # no id of a session: it can't even be looked up
    verdict = PolicyVerdict(status=RequestStatus.APPROVED, reason_code="NONE")
    for _ in range(TOP_INTENSITY.limit + 1):
        service._runtime.system.tell(service._runtime.supervisor, Judged(unreadable, verdict))


@LOOPS
def test_each_step_in_a_task_of_its_own(loop: Any, make_settings: MakeSettings, verified: Callable[[], int]) -> None:
    service = AsyncVoiceService(make_settings())
    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(service.__aenter__()) is service
        session_id = runner.run(call(service))
        runner.run(service.__aexit__(None, None, None))
        assert asyncio.all_tasks(runner.get_loop()) == set()
    assert verified() > 0
    assert session_id
    assert [thread.name for thread in threading.enumerate() if "voice" in thread.name] == []


@LOOPS
def test_several_in_any_order(loop: Any, make_settings: MakeSettings) -> None:
    services = [AsyncVoiceService(make_settings()) for _ in range(3)]
    with asyncio.Runner(loop_factory=loop) as runner:
        for service in services:
            runner.run(service.__aenter__())
        for service in services:  # the first that came leaves first
            runner.run(call(service))
            runner.run(service.__aexit__(None, None, None))


@LOOPS
def test_the_task_that_leaves_may_be_cancelled_and_the_service_ends_all_the_same(
    loop: Any, make_settings: MakeSettings
) -> None:
    service = AsyncVoiceService(make_settings())

    async def leave() -> None:
        leaving = asyncio.ensure_future(service.__aexit__(None, None, None))
        for _ in range(3):
            await asyncio.sleep(0)
            leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await service.wait_closed()

    async def look(session_id: str) -> Any:
        async with AsyncVoiceService(make_settings()) as later:
            return await later.get_session(session_id)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(service.__aenter__())
        session_id = runner.run(call(service))
        runner.run(leave())
        assert runner.run(look(session_id)).state is VoiceSessionState.STOPPED


@LOOPS
def test_a_service_that_can_not_start_says_so(loop: Any, make_settings: MakeSettings) -> None:
    settings = make_settings()
    settings.home.parent.mkdir(parents=True, exist_ok=True)
    settings.home.write_text("in the way")
    with asyncio.Runner(loop_factory=loop) as runner, pytest.raises(StoreError):
        runner.run(AsyncVoiceService(settings).__aenter__())


@LOOPS
def test_a_host_that_stands_in_the_block_is_interrupted_when_the_service_fails(
    loop: Any, make_settings: MakeSettings
) -> None:
    async def host() -> None:
        async with AsyncVoiceService(make_settings()) as service:
            await wreck(service)
            await asyncio.sleep(60)

    async def around() -> str:
        try:
            await host()
        except BaseExceptionGroup as group:
            assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
            return repr(group)
        return "nothing"

    with asyncio.Runner(loop_factory=loop) as runner:
        assert "SystemFailed" in runner.run(around())


@LOOPS
def test_whoever_leaves_a_service_that_failed_meanwhile_is_told(loop: Any, make_settings: MakeSettings) -> None:
    service = AsyncVoiceService(make_settings())
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(service.__aenter__())
        runner.run(wreck(service))
        runner.run(service.wait_closed())
        with pytest.raises(BaseExceptionGroup, match="the voice service failed"):
            runner.run(service.__aexit__(None, None, None))


@LOOPS
def test_the_hosts_own_error_goes_on_as_it_is(loop: Any, make_settings: MakeSettings) -> None:
    async def host() -> None:
        async with AsyncVoiceService(make_settings()) as service:
            await call(service)
            raise KeyError("the host's")

    with asyncio.Runner(loop_factory=loop) as runner, pytest.raises(KeyError, match="the host's"):
        runner.run(host())


@LOOPS
def test_a_time_limit_around_the_block_is_one(loop: Any, make_settings: MakeSettings) -> None:
    async def host() -> None:
        async with asyncio.timeout(0.1), AsyncVoiceService(make_settings()) as service:
            await call(service)
            await asyncio.sleep(60)

    with asyncio.Runner(loop_factory=loop) as runner, pytest.raises(TimeoutError):
        runner.run(host())
