"""A service from its start to its end: however it is left, every session is STOPPED with its final record, once."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import numpy as np
import pytest

from actors.runtime.actor import Out
from actors.runtime.mailbox import HELD
from actors.voice.messages import OpenSession
from actors.voice.supervisor import Supervisor
from agentos.core.communication.voice import (
    AsyncVoiceService,
    STTProvider,
    VoiceProvider,
    VoiceSession,
    VoiceSessionState,
)
from agentos.core.communication.voice.errors import (
    EvidenceUnavailable,
    InvalidRequest,
    InvalidState,
    Overloaded,
    ServiceClosed,
    SessionNotFound,
    SettingsError,
    StoreError,
)
from agentos.core.communication.voice.models import EndReason
from agentos.core.communication.voice.running import runtime
from agentos.core.communication.voice.running.resources import ServiceResources
from agentos.core.communication.voice.settings import VoiceSettings, load_settings

pytestmark = pytest.mark.anyio
CREATED, ACTIVE, STOPPING, STOPPED = VoiceSessionState
SECOND = bytes(32_000)
PATIENCE = 30  # seconds, for what must come; no test waits so long

MakeSettings = Callable[..., VoiceSettings]
Records = Callable[..., list[dict[str, Any]]]
Verified = Callable[[], int]


async def create(service: AsyncVoiceService, metadata: dict[str, Any] | None = None) -> VoiceSession:
    return await service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER, metadata)


async def stopped_session(service: AsyncVoiceService, session_id: str) -> VoiceSession:
    """The session once it has stopped by itself."""
    with anyio.fail_after(PATIENCE):
        async for _ in service.events(session_id):
            pass
        session = await service.get_session(session_id)
    assert session is not None
    return session


async def its_sessions(service: AsyncVoiceService, *, there: bool) -> None:
    """Wait until the service has sessions, also such as are being created, or none."""
    with anyio.fail_after(PATIENCE):
        while bool(service.statistics().sessions) is not there:
            await anyio.lowlevel.checkpoint()


def operations(records: list[dict[str, Any]]) -> list[str]:
    return [record["operation"] for record in records]


async def test_a_session_goes_from_created_to_stopped(make_settings: MakeSettings, records: Records) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service, {"user_id": "u1", "recording_enabled": True})
        assert session.state is CREATED
        assert operations(records(session.session_id)) == ["session_created"]  # durable before anybody is told
        await service.dispatch_audio_chunk(session.session_id, SECOND)
        assert await service.stop_session(session.session_id)
        ended = await service.get_session(session.session_id)
    assert ended is not None
    assert ended.state is STOPPED
    assert ended.metadata == {"user_id": "u1", "recording_enabled": True}
    assert ended.result is not None
    assert ended.result.reason is EndReason.STOPPED
    assert ended.result.drained
    assert ended.result.frames.accepted == ended.result.frames.recorded == 50
    assert operations(records(session.session_id)) == [
        "session_created",
        "session_active",
        "session_stopping",
        "session_stopped",
    ]


async def test_every_record_carries_trace_tier_and_connector(
    make_settings: MakeSettings, records: Records, verified: Verified
) -> None:
    async with AsyncVoiceService(make_settings(account_seconds=1)) as service:
        session = await create(service, {"sensitive_data": True})
        for _ in range(4):
            await service.dispatch_audio_chunk(session.session_id, SECOND)
            await anyio.sleep(
                0.1
            )  # longer than the port gathers frames, so that they are accounted while the call runs
        await service.stop_session(session.session_id)
    found = records(session.session_id)
    assert "audio_accounted" in operations(found)
    for record in found:
        assert record["connector_type"] == "custom"
        assert record["metadata"]["audit_trace_id"] == session.audit_trace_id
        assert record["metadata"]["risk_tier"] == session.risk_tier.value == "medium"
        assert record["request_summary"]["project_id"] == "project"
    accounted = [record["response_summary"] for record in found if record["operation"] == "audio_accounted"]
    assert [part["accounted"] for part in accounted] == sorted(part["accounted"] for part in accounted)
    assert all(part["bytes"] == part["accounted"] * 640 and len(part["digest"]) == 64 for part in accounted)
    assert found[-1]["operation"] == "session_stopped"
    assert found[-1]["response_summary"]["result"]["frames"]["accepted"] == 200
    assert verified() == len(found)


async def test_stop_before_any_audio(make_settings: MakeSettings, records: Records) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        assert await service.stop_session(session.session_id)
        ended = await service.get_session(session.session_id)
    assert ended is not None
    assert ended.result is not None
    assert (ended.state, ended.result.frames.accepted) == (STOPPED, 0)
    assert operations(records()) == ["session_created", "session_stopping", "session_stopped"]


async def test_a_second_stop_returns_true_and_changes_nothing(make_settings: MakeSettings, records: Records) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        assert await service.stop_session(session.session_id)
        first = await service.get_session(session.session_id)
        before = records()
        assert await service.stop_session(session.session_id)
        assert await service.get_session(session.session_id) == first
    assert records() == before


async def test_stops_at_once_are_all_true_with_one_final_record(make_settings: MakeSettings, records: Records) -> None:
    answers: list[bool] = []
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        await service.dispatch_audio_chunk(session.session_id, SECOND)

        async def stop() -> None:
            answers.append(await service.stop_session(session.session_id))

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(stop)
    assert answers == [True] * 5
    assert operations(records()).count("session_stopped") == 1
    assert operations(records()).count("session_stopping") == 1


async def test_an_unknown_session_is_none_false_and_an_error(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        for unknown in ("voice-unknown", "x" * 100_000, "\ud800", "a\0b", "%"):
            assert await service.get_session(unknown) is None
            assert await service.stop_session(unknown) is False
            with pytest.raises(SessionNotFound) as caught:
                await service.dispatch_audio_chunk(unknown, b"ab")
            assert isinstance(caught.value, ValueError)
            assert caught.value.session_id == unknown


async def test_an_id_that_is_no_text_is_an_error_by_name(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        wrong: list[Any] = ["", None, 5, b"voice", [], {}]
        for strange in wrong:
            with pytest.raises(InvalidRequest, match="session_id"):
                await service.stop_session(strange)
            assert await service.get_session(strange) is None
            with pytest.raises(ValueError, match="no session"):
                await service.dispatch_audio_chunk(strange, b"ab")


async def test_audio_after_the_stop_names_the_state(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        session = await create(service)
        await service.stop_session(session.session_id)
        with pytest.raises(InvalidState, match="STOPPED") as caught:
            await service.dispatch_audio_chunk(session.session_id, b"ab")
    assert isinstance(caught.value, ValueError)
    assert caught.value.state is STOPPED


async def test_a_snapshot_is_frozen_and_the_present_one_is_asked_for(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        created = await create(service, {"nested": {"list": [1]}})
        with pytest.raises(ValueError, match="frozen"):
            created.state = STOPPED
        with pytest.raises(TypeError, match="frozen"):
            created.metadata["more"] = 1
        with pytest.raises(TypeError, match="frozen"):
            created.metadata["nested"]["more"] = 1
        await anyio.sleep(0.005)  # timestamps have milliseconds
        await service.dispatch_audio_chunk(created.session_id, SECOND)
        with anyio.fail_after(PATIENCE):
            while (present := await service.get_session(created.session_id)) is None or present.state is CREATED:
                await anyio.lowlevel.checkpoint()
        assert created.state is CREATED
        assert present.state is ACTIVE
        assert present.last_activity_at > created.last_activity_at
        assert present.created_at == created.created_at
        assert present.created_at.tzinfo is not None
        assert present.created_at.isoformat().endswith("+00:00")


async def test_lists_are_filtered_and_newest_first(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        made = []
        for project in ("a", "b", "a"):
            made.append(await service.create_session(project, VoiceProvider.LOCAL, STTProvider.WHISPER))
            await anyio.sleep(0.002)  # the order is by creation, in milliseconds
        first, second, third = (session.session_id for session in made)
        await service.stop_session(first)

        def ids(sessions: list[VoiceSession]) -> list[str]:
            return [session.session_id for session in sessions]

        assert ids(await service.list_sessions()) == [third, second, first]
        assert ids(await service.list_sessions("a")) == [third, first]
        assert ids(await service.list_sessions(project_id="b")) == [second]
        assert ids(await service.list_sessions(project_id="c")) == []
        assert ids(await service.list_sessions(state=STOPPED)) == [first]
        assert ids(await service.list_sessions("a", CREATED)) == [third]
        assert ids(await service.list_active_sessions()) == [third, second]
        assert ids(await service.list_active_sessions("b")) == [second]


async def test_no_more_sessions_than_may_run(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings(max_sessions=2)) as service:
        session = await create(service)
        await create(service)
        with pytest.raises(Overloaded, match="2 sessions"):
            await create(service)
        await service.stop_session(session.session_id)
        await create(service)


@pytest.mark.parametrize("gone", [False, True], ids=["until it is over", "not at all"])
async def test_a_request_that_kills_the_supervisor_twice_keeps_no_room(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    def poison(supervisor: Supervisor, message: OpenSession, out: Out) -> None:
        raise RuntimeError("poison")

    tables = {phase: {**table, OpenSession: poison} for phase, table in Supervisor.compiled.items()}
    monkeypatch.setattr(Supervisor, "compiled", tables)
    async with AsyncVoiceService(make_settings(create_timeout_seconds=500 if gone else 0.1)) as service:
        if gone:
            with anyio.move_on_after(0.1):
                await create(service)
        else:
            with pytest.raises(EvidenceUnavailable, match="in time"):
                await create(service)
        assert service.statistics().sessions == 0
        assert service.statistics().actors.dead_letters == {"killed its actor twice": 1}


async def test_an_idle_session_ends_by_itself(make_settings: MakeSettings, records: Records) -> None:
    # Real time: the clock under the timer is the loop's own.
    async with AsyncVoiceService(make_settings(idle_timeout_seconds=0.2)) as service:
        silent = await create(service)
        spoken = await create(service)
        await service.dispatch_audio_chunk(spoken.session_id, bytes(640 + 101))
        for session in (silent, spoken):
            ended = await stopped_session(service, session.session_id)
            assert ended.result is not None
            assert ended.result.reason is EndReason.IDLE
            frames = ended.result.frames
        assert frames.accepted == 1
        assert frames.leftover_bytes == 101  # nothing that came in is forgotten
        assert await service.stop_session(spoken.session_id)
    assert operations(records()).count("session_stopped") == 2


async def noise_until_it_ends(service: AsyncVoiceService, session_id: str) -> VoiceSession:
    """The session once it has stopped, under comfort noise at -60 dBFS that does."""
    noise = np.random.default_rng(1).normal(0, 33, 320).astype("<i2").tobytes()

    async def hiss() -> None:
        while True:
            await service.dispatch_audio_chunk(session_id, noise)
            await anyio.sleep(0.02)

    async with anyio.create_task_group() as group:
        group.start_soon(_until_it_ends, hiss)
        ended = await stopped_session(service, session_id)
        group.cancel_scope.cancel()
    return ended


async def test_a_muted_line_with_comfort_noise_ends_by_its_silence(
    make_settings: MakeSettings, records: Records
) -> None:
    async with AsyncVoiceService(make_settings(silence_timeout_seconds=0.3)) as service:
        session = await create(service)
        ended = await noise_until_it_ends(service, session.session_id)
        assert ended.result is not None
        assert ended.result.reason is EndReason.SILENCE
        assert ended.silence_timeout_seconds == session.silence_timeout_seconds == 0.3
        assert ended.result.frames.accepted > 1
        last = [event async for event in service.events(session.session_id)][-1]
        assert last.payload["reason"] == "silence"
        assert service.statistics().calls.ended == {"silence": 1}
    final = records(session.session_id)[-1]
    assert final["response_summary"]["result"]["reason"] == "silence"
    assert final["request_summary"]["silence_timeout_seconds"] == 0.3


async def test_a_call_may_have_a_silence_timeout_of_its_own(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        open_ended = await create(service)
        session = await service.create_session(
            "project", VoiceProvider.LOCAL, STTProvider.WHISPER, silence_timeout_seconds=0.2
        )
        ended = await stopped_session(service, session.session_id)
        assert ended.result is not None
        assert ended.result.reason is EndReason.SILENCE
        still = await service.get_session(open_ended.session_id)
        assert still is not None
        assert (still.state, still.silence_timeout_seconds) == (CREATED, None)


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_muted_line_that_an_engine_listens_to_ends_by_its_silence(home: Path) -> None:
    # An engine has to load, and to hear what came: seconds.
    async with AsyncVoiceService(load_settings(home=home)) as service:
        session = await service.create_session(
            "project", VoiceProvider.LOCAL, STTProvider.POCKETSPHINX, silence_timeout_seconds=0.3
        )
        ended = await noise_until_it_ends(service, session.session_id)
        assert ended.result is not None
        assert (ended.result.reason, ended.result.transcript) == (EndReason.SILENCE, "")
        assert ended.result.frames.transcribed == ended.result.frames.accounted > 0


async def test_a_session_that_nobody_ends_still_ends(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings(max_session_seconds=0.3, idle_timeout_seconds=100)) as service:
        session = await create(service)

        async def talk() -> None:
            while True:
                await service.dispatch_audio_chunk(session.session_id, bytes(640))
                await anyio.sleep(0.02)

        async with anyio.create_task_group() as group:
            group.start_soon(_until_it_ends, talk)
            ended = await stopped_session(service, session.session_id)
            group.cancel_scope.cancel()
        assert ended.result is not None
        assert ended.result.reason is EndReason.OVERRUN
        frames = ended.result.frames
        assert frames.accepted == frames.accounted + sum(frames.dropped.values())


async def _until_it_ends(talk: Callable[[], Any]) -> None:
    with pytest.raises(InvalidState):
        await talk()


class TestRunning:
    async def test_in_a_task_group_of_the_host(self, make_settings: MakeSettings, records: Records) -> None:
        service = AsyncVoiceService(make_settings())
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                await group.start(service.run)
                session = await create(service)
                await service.aclose()
                await service.aclose()
        assert operations(records(session.session_id))[-1] == "session_stopped"

    async def test_before_the_start_and_after_the_end_it_takes_no_calls(self, make_settings: MakeSettings) -> None:
        service = AsyncVoiceService(make_settings())
        with pytest.raises(ServiceClosed, match="not running yet"):
            await create(service)
        async with service:
            session = await create(service)
        for call in (
            lambda: create(service),
            lambda: service.stop_session(session.session_id),
            lambda: service.get_session(session.session_id),
            lambda: service.dispatch_audio_chunk(session.session_id, b"ab"),
            service.list_sessions,
            service.list_active_sessions,
        ):
            with pytest.raises(ServiceClosed):
                await call()
        with pytest.raises(ServiceClosed):
            service.statistics()
        with pytest.raises(ServiceClosed):
            _ = [event async for event in service.events(session.session_id)]

    async def test_a_service_runs_once(self, make_settings: MakeSettings) -> None:
        service = AsyncVoiceService(make_settings())
        async with service:
            with pytest.raises(ServiceClosed, match="runs once"):
                await service.run()
            await create(service)
        with pytest.raises(ServiceClosed, match="runs once"):
            async with service:
                pass

    async def test_a_store_that_can_not_be_opened_is_told_at_the_start(self, make_settings: MakeSettings) -> None:
        settings = make_settings()
        settings.home.mkdir()
        (settings.home / "voice.db").write_text("this is no database at all, but it is long enough to be read as one")
        with pytest.raises(StoreError) as caught:
            async with AsyncVoiceService(settings):
                pass
        assert caught.value.kind == "corrupt"

    async def test_a_wrong_setting_is_told_before_the_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AGENTOS_VOICE_DRAIN_TIMEOUT_SECONDS", "soon")
        with pytest.raises(SettingsError, match="AGENTOS_VOICE_DRAIN_TIMEOUT_SECONDS") as caught:
            AsyncVoiceService()
        assert caught.value.variable == "AGENTOS_VOICE_DRAIN_TIMEOUT_SECONDS"

    async def test_statistics_say_how_it_is(self, make_settings: MakeSettings) -> None:
        async with AsyncVoiceService(make_settings()) as service:
            session = await create(service)
            await service.dispatch_audio_chunk(session.session_id, SECOND)
            running = service.statistics()
            await service.stop_session(session.session_id)
            after = service.statistics()
        assert (running.sessions, after.sessions) == (1, 0)
        assert after.media.frames == 50
        assert after.media.queued_frames == 0
        assert after.store.stored == 4
        assert after.store.failed == after.store.spilled == 0
        assert after.actors.actors < running.actors.actors
        assert after.actors.crashes == 0
        assert after.actors.dead_letters == {}

    async def test_a_new_service_knows_the_sessions_of_the_one_before(self, make_settings: MakeSettings) -> None:
        async with AsyncVoiceService(make_settings()) as service:
            session = await create(service)
            await service.stop_session(session.session_id)
            before = await service.get_session(session.session_id)
        async with AsyncVoiceService(make_settings()) as service:
            assert await service.get_session(session.session_id) == before
            assert await service.stop_session(session.session_id)
            with pytest.raises(InvalidState, match="STOPPED"):
                await service.dispatch_audio_chunk(session.session_id, b"ab")


class TestEnding:
    """However the host leaves, the sessions are stopped and their evidence is whole."""

    @staticmethod
    def all_is_ended(records: Records, verified: Verified, sessions: list[VoiceSession], reason: str) -> None:
        for session in sessions:
            found = records(session.session_id)
            assert operations(found).count("session_stopped") == 1
            assert operations(found)[-1] == "session_stopped"
            assert found[-1]["response_summary"]["result"]["reason"] == reason
        verified()

    async def test_at_the_end_of_the_block(
        self, make_settings: MakeSettings, records: Records, verified: Verified
    ) -> None:
        async with AsyncVoiceService(make_settings()) as service:
            sessions = [await create(service, {"recording_enabled": True}) for _ in range(3)]
            await service.dispatch_audio_chunk(sessions[0].session_id, SECOND)
        self.all_is_ended(records, verified, sessions, "shutdown")
        assert records(sessions[0].session_id)[-1]["response_summary"]["result"]["frames"]["recorded"] == 50

    async def test_by_an_error_in_the_block_which_goes_on_as_it_is(
        self, make_settings: MakeSettings, records: Records, verified: Verified
    ) -> None:
        error = KeyError("the host's own")
        with pytest.raises(KeyError) as caught:
            async with AsyncVoiceService(make_settings()) as service:
                session = await create(service)
                raise error
        assert caught.value is error
        self.all_is_ended(records, verified, [session], "shutdown")

    @pytest.mark.parametrize("way", ["block", "task group"])
    async def test_by_a_cancelled_task_group(
        self, make_settings: MakeSettings, records: Records, verified: Verified, way: str
    ) -> None:
        sessions: list[VoiceSession] = []
        left = anyio.Event()
        created = anyio.Event()

        async def in_a_block() -> None:
            try:
                async with AsyncVoiceService(make_settings()) as service:
                    sessions.append(await create(service))
                    await service.dispatch_audio_chunk(sessions[0].session_id, SECOND)
                    created.set()
                    await anyio.sleep_forever()
            finally:
                left.set()

        async def in_a_group() -> None:
            service = AsyncVoiceService(make_settings())
            try:
                async with anyio.create_task_group() as own:
                    await own.start(service.run)
                    sessions.append(await create(service))
                    created.set()
                    await anyio.sleep_forever()
            finally:
                left.set()

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                group.start_soon(in_a_block if way == "block" else in_a_group)
                await created.wait()
                group.cancel_scope.cancel()
        assert left.is_set()
        self.all_is_ended(records, verified, sessions, "shutdown")

    async def test_by_a_time_limit_of_the_host(
        self, make_settings: MakeSettings, records: Records, verified: Verified
    ) -> None:
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.5):
                async with AsyncVoiceService(make_settings()) as service:
                    session = await create(service)
                    await anyio.sleep_forever()
        self.all_is_ended(records, verified, [session], "shutdown")

    async def test_of_a_session_that_never_answers(
        self, make_settings: MakeSettings, records: Records, verified: Verified, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runtime, "CLOSING_GRACE_SECONDS", 0.1)
        settings = make_settings(stop_timeout_seconds=0.1, evidence_timeout_seconds=0.2)
        with anyio.fail_after(PATIENCE):
            async with AsyncVoiceService(settings) as service:
                hung, sound = await create(service), await create(service)
                listing = service._runtime.resources().directory.listing(hung.session_id)
                assert listing is not None
                assert listing.ref is not None
                listing.ref.status = HELD  # as if its supervisor never decided
        self.all_is_ended(records, verified, [sound], "shutdown")
        self.all_is_ended(records, verified, [hung], "failed")

    async def test_while_a_session_is_being_created(
        self, make_settings: MakeSettings, records: Records, verified: Verified
    ) -> None:
        errors: list[BaseException] = []
        async with anyio.create_task_group() as group:

            async def creating() -> None:
                try:
                    await create(service)
                except ServiceClosed as error:
                    errors.append(error)

            with anyio.fail_after(PATIENCE):
                async with AsyncVoiceService(make_settings()) as service:
                    group.start_soon(creating)
                    await its_sessions(service, there=True)
        assert len(errors) == 1
        self._created_is_stopped(records)
        verified()

    async def test_nobody_goes_on_waiting_for_an_actor_that_never_answers(
        self, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runtime, "CLOSING_GRACE_SECONDS", 0.1)
        settings = make_settings(stop_timeout_seconds=0.1, evidence_timeout_seconds=0.1, create_timeout_seconds=500)

        async def creating() -> None:
            with pytest.raises(ServiceClosed):
                await create(service)

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group, AsyncVoiceService(settings) as service:
                service._runtime.supervisor.status = HELD
                group.start_soon(creating)
                await its_sessions(service, there=True)

    async def test_by_whoever_asked_for_the_session_going_away(
        self, make_settings: MakeSettings, records: Records, verified: Verified
    ) -> None:
        async with AsyncVoiceService(make_settings()) as service:
            async with anyio.create_task_group() as group:
                group.start_soon(create, service)
                await its_sessions(service, there=True)
                group.cancel_scope.cancel()
            await its_sessions(service, there=False)
            assert await service.list_active_sessions() == []
            stopped = await service.list_sessions()
            assert [session.state for session in stopped] == [STOPPED]
        self._created_is_stopped(records)
        verified()

    async def test_by_whoever_asked_going_away_before_a_denial(
        self, make_settings: MakeSettings, records: Records
    ) -> None:
        async with AsyncVoiceService(make_settings()) as service:
            async with anyio.create_task_group() as group:
                group.start_soon(create, service, {"requires_data_access": True})
                await its_sessions(service, there=True)
                group.cancel_scope.cancel()
            await its_sessions(service, there=False)
        assert operations(records()) == ["session_denied"]

    @staticmethod
    def _created_is_stopped(records: Records) -> None:
        found = operations(records())
        assert found[0] == "session_created"
        assert found[-1] == "session_stopped"
        assert found.count("session_stopped") == 1

    async def test_a_stop_that_is_cancelled_goes_on(self, make_settings: MakeSettings, records: Records) -> None:
        async with AsyncVoiceService(make_settings()) as service:
            session = await create(service)
            await service.dispatch_audio_chunk(session.session_id, SECOND)
            async with anyio.create_task_group() as group:
                group.start_soon(service.stop_session, session.session_id)
                await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            ended = await stopped_session(service, session.session_id)
            assert ended.state is STOPPED
            assert ended.result is not None
            assert ended.result.reason is EndReason.STOPPED
        assert operations(records()).count("session_stopped") == 1


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})])
class TestNativeAsyncio:
    """Hosts that know nothing of anyio."""

    async def test_a_cancelled_task(self, make_settings: MakeSettings, records: Records, verified: Verified) -> None:
        sessions: list[VoiceSession] = []

        async def host() -> None:
            async with AsyncVoiceService(make_settings()) as service:
                sessions.append(await create(service))
                await service.dispatch_audio_chunk(sessions[0].session_id, SECOND)
                await asyncio.sleep(3600)

        task = asyncio.create_task(host())
        while not sessions:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, PATIENCE)
        assert task.cancelled()
        TestEnding.all_is_ended(records, verified, sessions, "shutdown")

    async def test_a_time_limit(self, make_settings: MakeSettings, records: Records, verified: Verified) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                async with AsyncVoiceService(make_settings()) as service:
                    session = await create(service)
                    await asyncio.sleep(3600)
        TestEnding.all_is_ended(records, verified, [session], "shutdown")

    async def test_a_cancelled_run(self, make_settings: MakeSettings, records: Records, verified: Verified) -> None:
        service = AsyncVoiceService(make_settings())
        running = asyncio.create_task(service.run())
        while service._runtime._resources is None:
            await asyncio.sleep(0.001)
        session = await create(service)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, PATIENCE)
        TestEnding.all_is_ended(records, verified, [session], "shutdown")

    async def test_cancelled_again_while_it_stops(
        self, make_settings: MakeSettings, records: Records, verified: Verified
    ) -> None:
        service = AsyncVoiceService(make_settings())
        running = asyncio.create_task(service.run())
        while service._runtime._resources is None:
            await asyncio.sleep(0.001)
        session = await create(service)
        await service.dispatch_audio_chunk(session.session_id, SECOND)
        for _ in range(3):
            running.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, PATIENCE)
        TestEnding.all_is_ended(records, verified, [session], "shutdown")


def open_files() -> set[str]:
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(descriptor.readlink()))
        except OSError:
            continue
    return found


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())


@pytest.mark.parametrize("engine", [STTProvider.WHISPER, STTProvider.POCKETSPHINX])
async def test_nothing_is_left_behind(make_settings: MakeSettings, anyio_backend: Any, engine: STTProvider) -> None:
    def run() -> tuple[set[str], list[str]]:
        async def main() -> None:
            async with AsyncVoiceService(make_settings(stt_workers=1)) as service:
                for _ in range(2):
                    session = await service.create_session(
                        "p", VoiceProvider.LOCAL, engine, {"recording_enabled": True}
                    )
                    await service.dispatch_audio_chunk(session.session_id, SECOND)
                    await service.stop_session(session.session_id)
                await service.create_session("p", VoiceProvider.LOCAL, engine)

        anyio.run(main, backend=anyio_backend[0], backend_options=anyio_backend[1])
        ours = [thread.name for thread in threading.enumerate() if "voice" in thread.name]
        return children(), ours

    files = open_files()
    left, threads = await anyio.to_thread.run_sync(run)
    assert left == set()
    assert threads == []
    assert {name for name in open_files() - files if "voice" in name or "recording" in name or "pipe" in name} == set()


async def test_a_start_that_fails_half_way_leaves_nothing_running(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no watch")

    settings = make_settings()
    wrapped = pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="no watch"), flatten_subgroups=True)
    with monkeypatch.context() as patch, wrapped:
        patch.setattr(ServiceResources, "spawn_health_watch", fail)
        async with AsyncVoiceService(settings):
            pass
    async with AsyncVoiceService(settings) as service:
        assert service.ready
