"""A picture of a running service and a trace of a session: complete, frozen, and nothing private in either."""

import dataclasses
import json
import threading
from collections.abc import Callable
from typing import Any

import anyio
import msgspec
import pytest
import soundfile  # type: ignore[import-untyped]

from actors.runtime.tracing import TraceLine
from agentos.core.communication.voice import AsyncVoiceService, STTProvider, VoiceProvider, VoiceService, VoiceSession
from agentos.core.communication.voice.errors import InvalidState, ServiceClosed, SessionNotFound
from agentos.core.communication.voice.running import session_trace
from agentos.core.communication.voice.running.inspection import ServicePicture
from agentos.core.communication.voice.samples import SAMPLE
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.communication.voice.storage.tokens import TokenStore
from tests.loops import ASYNCIO, TRIO, loops

anyio_backend = loops(ASYNCIO, TRIO)

pytestmark = pytest.mark.anyio
MakeSettings = Callable[..., VoiceSettings]
PATIENCE = 30
SECOND = bytes(32_000)


async def create(service: AsyncVoiceService, **metadata: Any) -> VoiceSession:
    return await service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER, metadata)


async def wait_for(condition: Callable[[], object]) -> None:
    with anyio.fail_after(PATIENCE):
        while not condition():
            await anyio.sleep(0.01)


def paths(picture: ServicePicture) -> set[str]:
    return {actor.path for actor in picture.system.actors}


async def test_the_picture_has_every_part_of_the_service(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        first = await create(service)
        second = await create(service)
        await service.dispatch_audio_chunk(first.session_id, SECOND)
        await wait_for(lambda: service.inspect().ports.media.frames == 50)
        await wait_for(lambda: service.inspect().sessions == {"active": 1, "created": 1})
        await wait_for(lambda: service.inspect().loop_lag.samples)
        picture = service.inspect()
        top, here, there = "supervisor", f"supervisor/{first.session_id}", f"supervisor/{second.session_id}"
        assert paths(picture) == {
            top,
            f"{top}/policy",
            f"{top}/evidence",
            "health",
            here,
            f"{here}/recorder",
            f"{here}/quality",
            there,
        }
        (session,) = [actor for actor in picture.system.actors if actor.path == here]
        assert (session.kind, session.phase, session.status) == ("SessionActor", "active", "idle")
        assert {timer.key for timer in session.timers} == {"idle", "overrun"}
        assert all(0 < timer.seconds_left <= 3600 for timer in session.timers)
        assert picture.system.statistics == service.statistics().actors
        assert picture.ports.store.backlog == 0
        assert picture.ports.store.finished >= 3
        assert (picture.closing, picture.at >= picture.started_at) == (False, True)
        assert len(service.inspect(2).system.actors) == 2
        assert service.inspect(2).system.left_out == 6


async def test_the_picture_is_frozen_and_goes_through_json_whole(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        await create(service)
        picture = service.inspect()
        with pytest.raises(dataclasses.FrozenInstanceError):
            picture.pid = 1  # type: ignore[misc]
        assert msgspec.json.decode(msgspec.json.encode(picture), type=ServicePicture) == picture


async def test_a_service_that_does_not_run_has_no_picture_and_no_trace(make_settings: MakeSettings) -> None:
    service = AsyncVoiceService(make_settings())
    with pytest.raises(ServiceClosed):
        service.inspect()
    async with service:
        service.inspect()
    with pytest.raises(ServiceClosed):
        service.inspect()
    with pytest.raises(ServiceClosed):
        async with service.trace("voice-1"):
            pass


async def test_what_waits_for_a_store_that_hangs_is_seen_growing_old(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = threading.Event()
    append = VoiceStore.append

    def hang(self: VoiceStore, entries: Any) -> None:
        let_go.wait(PATIENCE)
        append(self, entries)

    async with AsyncVoiceService(make_settings(evidence_timeout_seconds=60)) as service:
        session = await create(service)
        monkeypatch.setattr(VoiceStore, "append", hang)
        await service.dispatch_audio_chunk(session.session_id, SECOND)
        await wait_for(lambda: service.inspect().ports.store_waiting_seconds > 0.05)
        assert service.inspect().ports.store.backlog >= 1
        let_go.set()
        await wait_for(lambda: service.inspect().ports.store_waiting_seconds == 0)


# --- the trace -----------------------------------------------------------------------------------------------------


async def test_a_trace_tells_a_call_to_its_end_and_leaves_nothing_behind(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        async with service.trace(session.session_id) as trace:
            await service.dispatch_audio_chunk(session.session_id, SECOND)
            await service.stop_session(session.session_id)
            with anyio.fail_after(PATIENCE):
                lines = [line async for line in trace]
            assert trace.lost == 0
            assert trace.started_at >= session.created_at
        moves = [(line.phase, line.next_phase) for line in lines if line.actor.endswith(session.session_id)]
        assert [move for move in moves if move[0] != move[1]] == [
            ("created", "active"),
            ("active", "stopping"),
            ("stopping", "stopped"),
        ]
        assert lines[0].message == "Frames"
        assert lines[0].fields["count"] == 50
        assert f"stop {session.session_id}" in lines[-1].effects
        assert paths(service.inspect()) == {"supervisor", "supervisor/policy", "supervisor/evidence", "health"}


async def test_a_trace_that_is_left_goes_no_further(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        before = paths(service.inspect())
        async with service.trace(session.session_id) as trace:
            assert paths(service.inspect()) == before | {"trace"}
            await service.dispatch_audio_chunk(session.session_id, SECOND)
            assert (await anext(trace)).message == "Frames"
        assert "trace" not in paths(service.inspect())
        await service.dispatch_audio_chunk(session.session_id, SECOND)
        assert all(line.fields.get("first") != 50 for line in await trace.batch())
        assert await trace.batch() == []


async def test_a_slow_reader_misses_the_oldest_steps_and_is_told_how_many(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_trace, "LINES_KEPT", 5)
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        async with service.trace(session.session_id) as trace:
            await service.dispatch_audio_chunk(session.session_id, SECOND)
            await service.stop_session(session.session_id)
            lines = await trace.batch()
            assert len(lines) == 5
            assert lines[0].number == trace.lost + 1 > 1
            assert [line.number for line in lines] == list(range(lines[0].number, lines[0].number + 5))


async def test_a_session_that_does_not_run_here_can_not_be_traced(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        await service.stop_session(session.session_id)
        with pytest.raises(SessionNotFound):
            async with service.trace("voice-of-nobody"):
                pass
        with pytest.raises(InvalidState, match="STOPPED"):
            async with service.trace(session.session_id):
                pass


async def test_the_end_of_the_service_ends_its_traces(make_settings: MakeSettings) -> None:
    ended = anyio.Event()
    lines: list[TraceLine] = []

    async def read(service: AsyncVoiceService, session_id: str, *, task_status: Any) -> None:
        async with service.trace(session_id) as trace:
            task_status.started()
            lines.extend([line async for line in trace])
        ended.set()

    async with anyio.create_task_group() as group:
        async with AsyncVoiceService(make_settings()) as service:
            session = await create(service)
            await group.start(read, service, session.session_id)
        with anyio.fail_after(PATIENCE):
            await ended.wait()
    assert lines[-1].next_phase == "stopped"


# --- nothing private -----------------------------------------------------------------------------------------------


async def test_no_secret_is_in_the_picture_or_the_trace(make_settings: MakeSettings) -> None:
    words = ["forward", "meters", "s3cr3t-metadata", "15551234567", "s3cr3t-sid", "s3cr3t-auth", "s3cr3t-project"]
    settings = make_settings(
        on_stt_unavailable="refuse", twilio_account_sid="s3cr3t-sid", twilio_auth_token="s3cr3t-auth"
    )
    told: list[str] = []
    async with AsyncVoiceService(settings) as service:
        with open_store(settings.database, busy_timeout_seconds=2) as store:
            token = TokenStore(store).create("test")
        words.append(token)
        metadata = {
            "note": "s3cr3t-metadata",
            "from_number": "+15551234567",
            "numbers": [15551234567],
            "sensitive_data": True,
            "international_call": True,
            "admin_token": token,
        }
        session = await service.create_session(
            "s3cr3t-project", VoiceProvider.LOCAL, STTProvider.POCKETSPHINX, metadata
        )
        listing = service._runtime.listing(session.session_id)
        assert listing is not None
        words += [listing.facts.secret, session.audit_trace_id]
        sound = soundfile.read(SAMPLE, dtype="int16")[0].tobytes()
        async with service.trace(session.session_id) as trace:
            for at in range(0, len(sound), 32_000):
                await service.dispatch_audio_chunk(session.session_id, sound[at : at + 32_000])
                told.append(repr(service.inspect()))
            assert listing.ref is not None
            service._runtime.system.tell(listing.ref, "s3cr3t-metadata")  # a dead letter with content
            await service.stop_session(session.session_id)
            picture = service.inspect()
            assert picture.system.dead_letters[-1].kind == "str"
            told += [repr(picture), msgspec.json.encode(picture).decode()]
            lines = [line async for line in trace]
            told += [repr(lines), json.dumps(msgspec.to_builtins(lines))]
        ended = await service.get_session(session.session_id)
    assert ended is not None
    assert ended.result is not None
    assert ended.result.transcript == "go forward ten meters"  # there was something to tell
    assert {line.message for line in lines} >= {"Utterance", "PartAnswer", "Frames"}
    for word in words:
        assert word
        assert not any(word in text for text in told), word


# --- the blocking service ------------------------------------------------------------------------------------------


def test_the_blocking_service_has_the_same_picture_and_trace(make_settings: MakeSettings) -> None:
    with VoiceService(make_settings()) as service:
        session = service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER)
        assert service.inspect().sessions == {"created": 1}
        assert service.inspect(1).system.left_out == 4
        with service.trace(session.session_id) as lines:
            service.dispatch_audio_chunk(session.session_id, SECOND)
            assert next(lines).message == "Frames"
            service.stop_session(session.session_id)
            assert list(lines)[-1].next_phase == "stopped"
        with pytest.raises(SessionNotFound), service.trace("voice-of-nobody"):
            pass


def test_a_trace_that_outlives_the_blocking_service_ends(make_settings: MakeSettings) -> None:
    with VoiceService(make_settings()) as service:
        session = service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER)
        with service.trace(session.session_id) as lines:
            service.close()
            with pytest.raises(ServiceClosed):
                next(lines)
