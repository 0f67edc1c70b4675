"""The store fails under running calls: nothing new begins, every stop is carried out, and nothing is lost.

The disk is really full, the database really locked by another process; only a hang has to be put in by hand.
"""

import contextlib
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import anyio
import pytest

from agentos.core.communication.voice import (
    AsyncVoiceService,
    STTProvider,
    VoiceProvider,
    VoiceSession,
    VoiceSessionState,
)
from agentos.core.communication.voice.errors import EvidenceNotDurable, EvidenceUnavailable
from agentos.core.communication.voice.models import SessionResult
from agentos.core.communication.voice.running import runtime as module
from agentos.core.communication.voice.settings import VoiceSettings, load_settings
from agentos.core.communication.voice.storage.opening import open_to_read
from agentos.core.communication.voice.storage.store import Entry, VoiceStore
from tests.loops import ASYNCIO_SLOW, TRIO, UVLOOP, loops

pytestmark = pytest.mark.anyio
anyio_backend = loops(ASYNCIO_SLOW, UVLOOP, TRIO)
PATIENCE = 30  # seconds, for everything that must end; far above what it takes
SMALL_DISK_BYTES = 4 << 20
HALF_SECOND = bytes(16_000)
LOCKER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


class Fault(Protocol):
    """Something that can be the matter with the store."""

    home: Path

    def begin(self) -> None: ...
    def end(self) -> None: ...


class FullDisk:
    """No space left on a real file system."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self._stuffing = folder / "stuffing"

    def begin(self) -> None:
        with self._stuffing.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def end(self) -> None:
        self._stuffing.unlink(missing_ok=True)


class Locked:
    """Another process holds the database's lock."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self._holder: subprocess.Popen[str] | None = None

    def begin(self) -> None:
        self._holder = subprocess.Popen(
            [sys.executable, "-c", LOCKER, str(self.home / "voice.db")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "locked\n"

    def end(self) -> None:
        if self._holder is not None:
            self._holder.communicate(timeout=PATIENCE)
            self._holder = None


class Hung:
    """Writing to the database does not return."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = folder / "home"
        self._goes = threading.Event()
        self._goes.set()
        append = VoiceStore.append

        def hangs(store: VoiceStore, entries: Sequence[Entry], owner: str | None = None) -> None:
            self._goes.wait()
            append(store, entries, owner)

        monkeypatch.setattr(VoiceStore, "append", hangs)

    def begin(self) -> None:
        self._goes.clear()

    def end(self) -> None:
        self._goes.set()


@pytest.fixture
def small_disk(new_file_system: Callable[[int], Path]) -> Path:
    return new_file_system(SMALL_DISK_BYTES)


@pytest.fixture(params=["full", "locked", "hung"])
def fault(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fault]:
    chosen: Fault
    if request.param == "full":
        chosen = FullDisk(request.getfixturevalue("small_disk"))
    elif request.param == "locked":
        chosen = Locked(tmp_path)
    else:
        chosen = Hung(tmp_path, monkeypatch)
    try:
        yield chosen
    finally:
        chosen.end()


def settings(fault: Fault, **overrides: Any) -> VoiceSettings:
    return load_settings(
        **{
            "home": fault.home,
            "on_stt_unavailable": "record_only",
            "spill_max_bytes": 65_536,
            "store_busy_timeout_seconds": 0.1,
            "evidence_timeout_seconds": 1.5,  # a busy machine syncs slowly, and a spill has to be done in this time
            "account_seconds": 0.5,
            **overrides,
        }
    )


def records(fault: Fault, session_id: str | None = None) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(fault.home / "voice.db")) as database:
        found = [json.loads(text) for (text,) in database.execute("SELECT record FROM evidence ORDER BY seq")]
    return [record for record in found if session_id in (None, record["request_id"])]


def verify(fault: Fault) -> None:
    with open_to_read(fault.home / "voice.db") as store:
        found = store.verify()
        assert store.cross_check() == []
    assert found.ok, found


async def create(service: AsyncVoiceService, metadata: dict[str, Any] | None = None) -> VoiceSession:
    return await service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER, metadata)


async def refused_creation(service: AsyncVoiceService) -> EvidenceUnavailable:
    """What creating says once the store can't any more; what a log had left as room is used up first."""
    for _ in range(500):
        try:
            await create(service)
        except EvidenceUnavailable as error:
            return error
    raise AssertionError("creation was never refused")


def result_of(session: VoiceSession | None) -> SessionResult:
    assert session is not None
    assert session.state is VoiceSessionState.STOPPED
    assert session.result is not None
    frames = session.result.frames
    assert frames.accepted == frames.accounted + sum(frames.dropped.values())
    assert frames.accepted == frames.transcribed + sum(frames.untranscribed.values())
    return session.result


async def test_nothing_begins_every_stop_is_done_and_all_goes_in_later(fault: Fault) -> None:
    with anyio.fail_after(2 * PATIENCE):
        async with AsyncVoiceService(settings(fault)) as service:
            ended, running = await create(service), await create(service)
            for session in (ended, running):
                await service.dispatch_audio_chunk(session.session_id, HALF_SECOND)
            fault.begin()

            error = await refused_creation(service)
            assert isinstance(error, OSError)
            assert "no session was made" in str(error)
            known = {session.session_id for session in await service.list_active_sessions()}
            for session in (ended, running):  # the calls go on
                assert session.session_id in known
                await service.dispatch_audio_chunk(session.session_id, HALF_SECOND)

            with pytest.raises(EvidenceNotDurable, match=ended.session_id) as caught:
                await service.stop_session(ended.session_id)
            assert isinstance(caught.value, OSError)
            assert caught.value.spilled
            result = result_of(await service.get_session(ended.session_id))
            assert (result.frames.accepted, result.frames.dropped) == (50, {})
            assert await service.stop_session(ended.session_id)  # a second stop changes nothing
            assert records(fault, ended.session_id)[-1]["operation"] != "session_stopped"
            assert ended.session_id in {session.session_id for session in await service.list_sessions()}
            await service.dispatch_audio_chunk(running.session_id, HALF_SECOND)

            fault.end()
            while service.statistics().store.waiting_in_spill:
                await anyio.sleep(0.01)
            while True:
                try:
                    after = await create(service)
                except EvidenceUnavailable:
                    await anyio.sleep(0.05)  # it is tried once a second
                    continue
                break
            assert await service.stop_session(after.session_id)
            assert await service.stop_session(running.session_id)
            result = result_of(await service.get_session(running.session_id))
            assert (result.frames.accepted, result.frames.accounted) == (75, 75)
    verify(fault)
    for session in (ended, running, after):
        operations = [record["operation"] for record in records(fault, session.session_id)]
        assert operations.count("session_stopped") == 1
        assert operations[0] == "session_created"
        assert operations[-1] == "session_stopped"
        numbers = [record["metadata"]["number"] for record in records(fault, session.session_id)]
        assert numbers == list(range(1, len(numbers) + 1))
    # What was refused either left no trace, or its trace has an end.
    for session_id in {record["request_id"] for record in records(fault)}:
        assert records(fault, session_id)[-1]["operation"] == "session_stopped"
    assert list(fault.home.glob("*.spill")) == []


async def test_closing_while_the_store_fails_ends_and_the_next_start_brings_it_in(
    fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSING_GRACE_SECONDS", 0.5)
    with anyio.fail_after(PATIENCE):
        async with AsyncVoiceService(settings(fault)) as service:
            session = await create(service)
            await service.dispatch_audio_chunk(session.session_id, HALF_SECOND)
            fault.begin()
            await refused_creation(service)
    fault.end()
    with anyio.fail_after(PATIENCE):
        async with AsyncVoiceService(settings(fault)) as service:
            while [record["operation"] for record in records(fault, session.session_id)][-1:] != ["session_stopped"]:
                await anyio.sleep(0.01)
            result = result_of(await service.get_session(session.session_id))
            assert result.frames.accepted == 25
    verify(fault)
    assert [record["operation"] for record in records(fault, session.session_id)].count("session_stopped") == 1


async def test_a_denial_that_can_not_be_put_on_record_is_still_no_session(fault: Fault) -> None:
    with anyio.fail_after(PATIENCE):
        async with AsyncVoiceService(settings(fault)) as service:
            fault.begin()
            await refused_creation(service)
            with pytest.raises((EvidenceUnavailable, PermissionError)):
                await create(service, {"requires_data_access": True})
            active = await service.list_active_sessions()
            assert all("requires_data_access" not in session.metadata for session in active)
            fault.end()
    verify(fault)


async def test_on_a_full_disk_a_recording_declares_what_it_lost(small_disk: Path) -> None:
    fault = FullDisk(small_disk)
    try:
        with anyio.fail_after(PATIENCE):
            async with AsyncVoiceService(settings(fault, recording_format="wav")) as service:
                session = await create(service, {"recording_enabled": True})
                await service.dispatch_audio_chunk(session.session_id, HALF_SECOND)
                while service.statistics().media.frames < 25:
                    await anyio.sleep(0.01)
                fault.begin()
                for _ in range(20):
                    await service.dispatch_audio_chunk(session.session_id, HALF_SECOND)
                while service.statistics().media.frames < 21 * 25:
                    await anyio.sleep(0.01)
                fault.end()
                await service.dispatch_audio_chunk(session.session_id, HALF_SECOND)
                with contextlib.suppress(EvidenceNotDurable):
                    await service.stop_session(session.session_id)
                result = result_of(await service.get_session(session.session_id))
    finally:
        fault.end()
    assert result.frames.accepted == 22 * 25
    assert set(result.frames.dropped) <= {"disk_full", "write_failed"}
    assert result.frames.dropped["disk_full"] > 0
    assert result.frames.recorded >= 2 * 25  # what came before and after
    assert result.recording is not None
    assert sum(samples for _, samples in result.recording.gaps) == 320 * sum(result.frames.dropped.values())
    assert result.recording.samples == 22 * 25 * 320


async def test_final_records_that_even_the_spill_file_can_not_hold_go_in_when_the_store_is_back(
    tmp_path: Path,
) -> None:
    fault = Locked(tmp_path)
    async with AsyncVoiceService(settings(fault, stop_timeout_seconds=2)) as service:
        metadata = {"note": "x" * 6_000}  # a dozen records fill the spill file
        sessions = [
            await service.create_session("project", VoiceProvider.LOCAL, STTProvider.WHISPER, metadata)
            for _ in range(30)
        ]
        fault.begin()
        told: list[EvidenceNotDurable] = []

        async def stop(session_id: str) -> None:
            try:
                await service.stop_session(session_id)
            except EvidenceNotDurable as error:
                told.append(error)

        async with anyio.create_task_group() as group:
            for session in sessions:
                group.start_soon(stop, session.session_id)
        assert len(told) == len(sessions)
        assert {error.spilled for error in told} == {True, False}
        fault.end()
        with anyio.fail_after(PATIENCE):
            while sum(record["operation"] == "session_stopped" for record in records(fault)) < len(sessions):
                await anyio.sleep(0.05)
        listed = await service.list_sessions(state=VoiceSessionState.STOPPED)
        assert {session.session_id for session in listed} == {session.session_id for session in sessions}
    verify(fault)
