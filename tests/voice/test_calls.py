"""A host is told of each call: by `calls()`, and by `on_call`, on every loop and without one."""

import asyncio
import gc
import logging
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import aclosing

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest

from actors.voice.messages import Emit
from agentos.core.communication.voice import (
    AsyncVoiceService,
    STTProvider,
    VoiceEventType,
    VoiceProvider,
    VoiceService,
    VoiceSession,
)
from agentos.core.communication.voice.errors import InvalidState, PolicyDenied, ServiceClosed, SessionNotFound
from agentos.core.communication.voice.running import calls as module
from agentos.core.communication.voice.running.blocking_calls import BlockingCall
from agentos.core.communication.voice.running.calls import Call, Calls
from agentos.core.communication.voice.sessions.listener import LISTENER_BOUND
from agentos.core.communication.voice.settings import VoiceSettings
from machines.session import EndReason, VoiceSessionState
from tests.loops import ASYNCIO, TRIO, loops
from tests.voice.test_entering import wreck

anyio_backend = loops(ASYNCIO, TRIO)

PATIENCE = 30
MakeSettings = Callable[..., VoiceSettings]


async def create(service: AsyncVoiceService, project: str = "project") -> VoiceSession:
    return await service.create_session(project, VoiceProvider.LOCAL, STTProvider.WHISPER)


async def short_call(service: AsyncVoiceService) -> str:
    session = await create(service)
    assert await service.stop_session(session.session_id)
    return session.session_id


async def fetched(calls: Calls, count: int) -> list[str]:
    with anyio.fail_after(PATIENCE):
        return [(await anext(calls)).session_id for _ in range(count)]


# --- the iterator ----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_calls_that_run_come_first_then_each_that_begins(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        ended = await short_call(service)
        running = await create(service)
        calls = service.calls()
        begins = await create(service)
        over = await short_call(service)
        told = await fetched(calls, 3)
        assert told == [running.session_id, begins.session_id, over]
        assert ended not in told
        assert calls.missed == 0


@pytest.mark.anyio
async def test_nobody_is_told_of_a_call_that_was_refused(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        calls = service.calls()
        with pytest.raises(PolicyDenied):
            await service.create_session(
                "p", VoiceProvider.LOCAL, STTProvider.WHISPER, {"sensitive_data": True, "international_call": True}
            )
        session = await create(service)
        assert await fetched(calls, 1) == [session.session_id]


@pytest.mark.anyio
async def test_every_iterator_has_every_call_and_tasks_share_those_of_one(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        alone, shared = service.calls(), service.calls()
        taken: list[str] = []

        async def take() -> None:
            taken.extend(await fetched(shared, 1))

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(take)
            await anyio.wait_all_tasks_blocked()
            made = [(await create(service)).session_id for _ in range(3)]
        assert sorted(taken) == sorted(made)
        assert await fetched(alone, 3) == made


@pytest.mark.anyio
async def test_it_ends_when_the_service_has_closed_and_has_handed_out_what_waited(make_settings: MakeSettings) -> None:
    service = AsyncVoiceService(make_settings())
    with pytest.raises(ServiceClosed):
        service.calls()
    async with service:
        calls, waiting = service.calls(), service.calls()
        session = await create(service)
        ends: list[list[Call]] = []

        async def follow() -> None:
            ends.append([call async for call in waiting])

        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            await service.aclose()
    assert [call.session_id for call in ends[0]] == [session.session_id]
    assert [call.session.state async for call in calls] == [VoiceSessionState.STOPPED]
    assert [call async for call in calls] == []
    with pytest.raises(ServiceClosed):
        service.calls()


@pytest.mark.anyio
async def test_a_cancelled_step_takes_no_call(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        calls = service.calls()
        with anyio.move_on_after(0.01) as waiting:
            await anext(calls)
        assert waiting.cancelled_caught
        session = await create(service)
        assert await fetched(calls, 1) == [session.session_id]


@pytest.mark.anyio
async def test_a_host_that_is_slow_misses_only_calls_that_have_ended_and_is_told(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "ENDED_CALLS_WAITING", 2)
    async with AsyncVoiceService(make_settings()) as service:
        calls = service.calls()
        running = [(await create(service)).session_id for _ in range(3)]
        over = [await short_call(service) for _ in range(3)]
        assert calls.missed == 2
        assert await fetched(calls, 4) == [*running, over[2]]
        assert [record.facts["session_id"] for record in caplog.records if record.event == "call_missed"] == over[:2]  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_an_iterator_that_is_dropped_is_forgotten(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        calls = service.calls()
        await create(service)
        assert len(service._host._iterators) == 1
        del calls
        gc.collect()
        assert len(service._host._iterators) == 0


# --- the handle ------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_call_is_followed_stopped_and_waited_for(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        calls = service.calls()
        session = await create(service)
        call = await anext(calls)
        assert (call.session_id, call.session.state) == (session.session_id, VoiceSessionState.CREATED)
        assert (call.resumed, call.ended) == (False, False)
        assert session.session_id in repr(call)
        seen: list[str] = []
        results: list[VoiceSession] = []

        async def wait() -> None:
            results.append(await call.wait_ended())

        async def follow() -> None:
            seen.extend([event.event_type.value async for event in call.events()])

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                group.start_soon(follow)
                group.start_soon(wait)
                await service.dispatch_audio_chunk(call.session_id, bytes(6400))
                assert (await call.transcript()).complete is False
                assert await call.stop(caller_gone=True)
        assert call.ended
        assert results == [call.session] == [await call.wait_ended()] == [await service.get_session(call.session_id)]
        assert call.session.result is not None
        assert call.session.result.reason is EndReason.CALLER_GONE
        assert call.session.result.frames.accepted == 10
        assert [kind for kind in seen if kind != "audio_received"][-1] == "session_stopped"
        assert call.resumed is False


@pytest.mark.anyio
async def test_whoever_waits_for_its_end_costs_the_call_nothing_and_may_give_up(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        calls = service.calls()
        await create(service)
        call = await anext(calls)
        for _ in range(3):
            with anyio.move_on_after(0.01):
                await call.wait_ended()
        assert call._listing.listeners == call._listing.on_over == []


@pytest.mark.anyio
async def test_a_reader_of_events_is_told_how_many_it_missed(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        calls = service.calls()
        await create(service)
        call = await anext(calls)
        async with aclosing(call.events()) as events:
            await anext(events)
            partial = Emit(call.session_id, VoiceEventType.STT_PARTIAL, (("text", "x"),))
            for _ in range(LISTENER_BOUND + 7):
                service._runtime.resources().directory.submit(partial)
            assert events.missed == 7
            assert await call.stop()  # nobody waited for the reader
            with anyio.fail_after(PATIENCE):
                told = [event async for event in events]
        assert told[-1].event_type is VoiceEventType.SESSION_STOPPED
        assert sum(event.event_type is VoiceEventType.STT_PARTIAL for event in told) == LISTENER_BOUND


# --- the handler -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_handler_runs_for_each_call_in_a_task_of_its_own(make_settings: MakeSettings) -> None:
    told: list[str] = []

    async def on_call(call: Call) -> None:
        assert (await call.wait_ended()).result is not None
        told.append(call.session_id)

    async with AsyncVoiceService(make_settings(), on_call=on_call) as service:
        first, second = await create(service), await create(service)
        for session in (second, first):
            await service.stop_session(session.session_id)
        await service.drain()
    assert told == [second.session_id, first.session_id]


@pytest.mark.anyio
async def test_a_handler_may_be_a_plain_function(make_settings: MakeSettings) -> None:
    told: list[str] = []

    def on_call(call: Call) -> None:
        told.append(call.session_id)

    async with AsyncVoiceService(make_settings(), on_call=on_call) as service:
        session_id = await short_call(service)
        await service.drain()
    assert told == [session_id]


@pytest.mark.anyio
async def test_what_a_handler_raises_is_logged_and_disturbs_nobody(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    async def on_call(call: Call) -> None:
        told.append(call.session_id)
        if len(told) == 1:
            raise RuntimeError("the host's own fault")

    async with AsyncVoiceService(make_settings(), on_call=on_call) as service:
        first = await create(service)
        second = await short_call(service)
        assert await service.stop_session(first.session_id)
        await service.drain()
    assert told == [first.session_id, second]
    failed = [record for record in caplog.records if getattr(record, "event", "") == "call_handler_failed"]
    assert [record.facts for record in failed] == [{"session_id": first.session_id}]  # type: ignore[attr-defined]
    assert failed[0].levelno == logging.ERROR


@pytest.mark.anyio
async def test_a_drain_waits_for_handlers_also_when_their_calls_have_ended(make_settings: MakeSettings) -> None:
    done: list[bool] = []
    go_on = anyio.Event()

    async def on_call(call: Call) -> None:
        await call.wait_ended()
        await go_on.wait()
        done.append((await call.transcript()).complete)  # the service answers

    async with AsyncVoiceService(make_settings(), on_call=on_call) as service:
        await short_call(service)
        service.begin_drain()
        await anyio.wait_all_tasks_blocked()
        assert done == []
        go_on.set()
        with anyio.fail_after(PATIENCE):
            await service.wait_closed()
    assert done == [True]


@pytest.mark.anyio
async def test_a_handler_that_does_not_end_is_cancelled_after_its_grace(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANDLER_GRACE_SECONDS", 0.05)
    ends: list[str] = []

    async def on_call(call: Call) -> None:
        session = await call.wait_ended()
        assert session.result is not None
        ends.append(session.result.reason.value)
        try:
            await anyio.sleep_forever()
        finally:
            ends.append("cancelled")

    with anyio.fail_after(PATIENCE):
        async with AsyncVoiceService(make_settings(), on_call=on_call) as service:
            await create(service)
    assert ends == ["shutdown", "cancelled"]


@pytest.mark.anyio
async def test_a_handler_that_asks_a_closed_service_is_cut_off(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    async def on_call(call: Call) -> None:
        await call.wait_ended()
        await call.transcript()

    async with AsyncVoiceService(make_settings(), on_call=on_call) as service:
        await create(service)
    assert "call_handler_cut_off" in [getattr(record, "event", "") for record in caplog.records]


@pytest.mark.anyio
async def test_a_handler_and_iterators_end_when_the_service_fails(make_settings: MakeSettings) -> None:
    ended: list[str] = []

    async def on_call(call: Call) -> None:
        result = (await call.wait_ended()).result
        assert result is not None
        ended.append(result.reason.value)

    with pytest.raises(BaseExceptionGroup):
        async with AsyncVoiceService(make_settings(), on_call=on_call) as service:
            calls = service.calls()
            await create(service)
            await wreck(service)
            with anyio.fail_after(PATIENCE):
                assert [call.ended async for call in calls] == [True]
                await anyio.sleep_forever()
    assert ended == ["failed"]


def test_on_asyncio_a_cancellation_that_a_handler_raises_is_its_own(make_settings: MakeSettings) -> None:
    told: list[str] = []

    async def on_call(call: Call) -> None:
        told.append(call.session_id)
        if len(told) == 1:
            other = asyncio.ensure_future(asyncio.sleep(60))
            other.cancel()
            await other

    async def main() -> None:
        async with AsyncVoiceService(make_settings(), on_call=on_call) as service:
            made = [await short_call(service), await short_call(service)]
            await service.drain()
        assert told == made

    asyncio.run(main())


def test_all_tasks_of_the_loop_may_be_cancelled(make_settings: MakeSettings) -> None:
    began = threading.Event()

    async def on_call(call: Call) -> None:
        began.set()
        await anyio.sleep_forever()

    async def main() -> None:
        async with AsyncVoiceService(make_settings(), on_call=on_call) as service:
            await create(service)
            while not began.is_set():
                await anyio.lowlevel.checkpoint()
            for task in asyncio.all_tasks():
                task.cancel()
            await anyio.sleep_forever()

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())


# --- without an event loop -------------------------------------------------------------------------------------------


def blocking_call(service: VoiceService) -> str:
    session = service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER)
    assert service.stop_session(session.session_id)
    return session.session_id


def test_a_thread_is_told_of_calls_until_the_service_has_closed(make_settings: MakeSettings) -> None:
    told: queue.Queue[str] = queue.Queue()
    with VoiceService(make_settings()) as service:
        running = service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER)
        calls = service.calls()

        def follow() -> None:
            for call in calls:
                told.put(call.session_id)

        thread = threading.Thread(target=follow)
        thread.start()
        begun = blocking_call(service)
        assert [told.get(timeout=PATIENCE) for _ in range(2)] == [running.session_id, begun]
        later = service.calls()
        assert next(later).session_id == running.session_id
        service.stop_session(running.session_id)
        over = blocking_call(service)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert [call.session_id for call in later] == [over]  # though the service has closed
    assert later.missed == 0


def test_a_blocking_call_is_followed_stopped_and_waited_for(make_settings: MakeSettings) -> None:
    with VoiceService(make_settings()) as service:
        calls = service.calls()
        session = service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER)
        call = next(calls)
        assert (call.session_id, call.resumed, call.ended) == (session.session_id, False, False)
        assert call.transcript().utterances == ()
        assert call.stop()
        assert call.wait_ended() == call.session
        assert [event.event_type for event in call.events()][-1] is VoiceEventType.SESSION_STOPPED
        assert call.ended
        assert session.session_id in repr(call)
    assert call.wait_ended() == call.session


def test_a_blocking_handler_runs_in_a_thread_of_its_own(make_settings: MakeSettings) -> None:
    told: queue.Queue[tuple[str, str, bool]] = queue.Queue()

    def on_call(call: BlockingCall) -> None:
        kinds = [event.event_type.value for event in call.events()]
        told.put((call.session_id, kinds[-1], threading.current_thread() is not threading.main_thread()))

    with VoiceService(make_settings(), on_call=on_call) as service:
        made = {blocking_call(service) for _ in range(3)}
        service.drain()
    assert {told.get_nowait() for _ in range(3)} == {(session_id, "session_stopped", True) for session_id in made}


def test_a_blocking_handler_that_leaves_its_thread_leaves_the_service_running(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    def on_call(_: BlockingCall) -> None:
        sys.exit(3)

    with VoiceService(make_settings(), on_call=on_call) as service:
        blocking_call(service)
        blocking_call(service)
        service.drain()
    assert caplog.text.count("call_handler_failed") == 2


def test_a_blocking_handler_that_does_not_end_is_left_alone(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANDLER_GRACE_SECONDS", 0.05)
    release, began = threading.Event(), threading.Event()

    def on_call(call: BlockingCall) -> None:
        began.set()
        release.wait(PATIENCE)

    with VoiceService(make_settings(), on_call=on_call) as service:
        blocking_call(service)
        assert began.wait(PATIENCE)
    release.set()


# --- tickets ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_host_gets_tickets_for_sessions_that_take_audio(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        issued = await service.create_stream_ticket(session.session_id)
        assert issued.ticket.startswith("avs_")
        assert issued.expires_at > session.created_at
        with pytest.raises(SessionNotFound):
            await service.create_stream_ticket("voice-0")
        await service.stop_session(session.session_id)
        with pytest.raises(InvalidState):
            await service.create_stream_ticket(session.session_id)
    with pytest.raises(ServiceClosed):
        await service.create_stream_ticket(session.session_id)


def test_the_blocking_service_gives_them_too(make_settings: MakeSettings) -> None:
    with VoiceService(make_settings()) as service:
        session = service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER)
        assert service.create_stream_ticket(session.session_id).ticket.startswith("avs_")
