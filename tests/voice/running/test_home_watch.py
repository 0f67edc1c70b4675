"""A home that is deleted, moved or replaced under a running service: no new calls, not ready, said once, nothing forgotten."""

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from agentos.core.communication.voice import AsyncVoiceService
from agentos.core.communication.voice.errors import EvidenceNotDurable, EvidenceUnavailable, StoreError
from agentos.core.communication.voice.running import home_watch
from agentos.core.communication.voice.running.home_watch import HomeWatch
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage import port
from agentos.core.communication.voice.storage.file_locks import FileLocks
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.spill import SpillFile
from machines.session import STTProvider, VoiceProvider, VoiceSession, VoiceSessionState
from tests.loops import ASYNCIO, TRIO, loops

anyio_backend = loops(ASYNCIO, TRIO)

pytestmark = pytest.mark.anyio

MakeSettings = Callable[..., VoiceSettings]
DATABASE = ("voice.db", "voice.db-wal", "voice.db-shm")


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home_watch, "LOOK_SECONDS", 0.02)


def delete_database(home: Path) -> None:
    for name in DATABASE:
        (home / name).unlink()


def replace_database(home: Path) -> None:
    """By a copy, as a backup is brought back."""
    for name in DATABASE:
        shutil.copy(home / name, home / f"{name}.copy")
    for name in DATABASE:
        (home / f"{name}.copy").replace(home / name)


def move_home(home: Path) -> None:
    home.rename(home.with_name("elsewhere"))


def replace_home(home: Path) -> None:
    """By a copy, with all locks in it as files that nobody holds."""
    shutil.copytree(home, home.with_name("copy"), ignore=shutil.ignore_patterns("*.sock"))
    move_home(home)
    home.with_name("copy").rename(home)


def delete_home(home: Path) -> None:
    shutil.rmtree(home)


def delete_lock(home: Path) -> None:
    next(home.glob("*.owner")).unlink()


def replace_recordings(home: Path) -> None:
    shutil.rmtree(home / "recordings", ignore_errors=True)
    (home / "recordings").write_text("not a folder")


WAYS = [delete_database, replace_database, move_home, replace_home, delete_home]
NOT_OF_THE_DATABASE = [delete_lock, replace_recordings]


async def create(service: AsyncVoiceService, **metadata: Any) -> VoiceSession:
    return await service.create_session("shop", VoiceProvider.LOCAL, STTProvider.WHISPER, metadata)


async def noticed(service: AsyncVoiceService) -> None:
    with anyio.fail_after(20):
        while service._runtime.resources().home.problem is None:
            await anyio.sleep(0.01)


@pytest.mark.parametrize("way", WAYS + NOT_OF_THE_DATABASE)
async def test_no_call_is_let_in_and_it_is_said_once(
    way: Callable[[Path], None], make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    settings = make_settings(on_stt_unavailable="record_only")
    async with AsyncVoiceService(settings) as service:
        session = await create(service)
        await service.check_ready()
        way(settings.home)
        with pytest.raises(EvidenceUnavailable):
            with anyio.fail_after(20):
                while True:  # a look may be under way that saw it as it was
                    await create(service)
        await noticed(service)
        for _ in range(3):
            with pytest.raises(EvidenceUnavailable):
                await service.check_ready()
            with pytest.raises(EvidenceUnavailable):
                service.check_room()
            with pytest.raises(EvidenceUnavailable):
                await create(service)
        found = await service.get_session(session.session_id)
        assert found is not None
        assert found.state is VoiceSessionState.CREATED  # it runs on
        if way in NOT_OF_THE_DATABASE:
            assert await service.stop_session(session.session_id)
        else:
            with pytest.raises(StoreError, match="start again"):
                await anyio.to_thread.run_sync(service.voice_store().verify)
            with pytest.raises(EvidenceNotDurable):
                await service.stop_session(session.session_id)
    assert sum("home_lost" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_what_ends_meanwhile_is_in_the_spill_file_and_goes_into_the_next_database(
    way: Callable[[Path], None], make_settings: MakeSettings
) -> None:
    settings = make_settings(on_stt_unavailable="record_only")
    async with AsyncVoiceService(settings) as service:
        ended, running = await create(service), await create(service)
        way(settings.home)
        with pytest.raises(EvidenceNotDurable) as error:
            await service.stop_session(ended.session_id)
        assert error.value.spilled
    home = settings.home.with_name("elsewhere") if way in (move_home, replace_home) else settings.home
    with SpillFile.orphans(home)[0] as spill:
        assert {entry.record.request_id for entry in spill.entries()} == {ended.session_id, running.session_id}
    async with AsyncVoiceService(settings.model_copy(update={"home": home})) as service:
        for session in (ended, running):
            with anyio.fail_after(20):  # it is taken in, though a copy of the database has it as it was
                while True:
                    found = await service.get_session(session.session_id)
                    if found is not None and found.state is VoiceSessionState.STOPPED:
                        break
                    await anyio.sleep(0.01)


async def test_a_home_that_is_put_back_takes_calls_again(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(on_stt_unavailable="record_only")
    async with AsyncVoiceService(settings) as service:
        move_home(settings.home)
        await noticed(service)
        with pytest.raises(EvidenceUnavailable):
            await create(service)
        settings.home.with_name("elsewhere").rename(settings.home)
        with anyio.fail_after(20):
            while True:
                try:
                    await service.check_ready()
                    await create(service)
                    break
                except EvidenceUnavailable:
                    await anyio.sleep(0.02)
        assert (await anyio.to_thread.run_sync(service.voice_store().verify)).ok
    assert sum("home_back" in record.getMessage() for record in caplog.records) == 1


async def test_a_store_that_can_not_be_written_is_not_ready_before_somebody_calls(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process holds the database: nothing here has failed yet, and yet a call would."""
    monkeypatch.setattr(port, "FRESH_MS", 0)
    settings = make_settings(on_stt_unavailable="record_only", store_busy_timeout_seconds=0.1)
    async with AsyncVoiceService(settings) as service:
        await service.check_ready()
        other = sqlite3.connect(settings.database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(EvidenceUnavailable):
            await service.check_ready()
        other.close()
        await service.check_ready()
        await create(service)


async def test_a_store_that_hangs_is_not_ready(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "FRESH_MS", 0)
    monkeypatch.setattr("agentos.core.communication.voice.async_service.READY_SECONDS", 0.05)
    async with AsyncVoiceService(make_settings(store_busy_timeout_seconds=30)) as service:
        other = sqlite3.connect(service.settings.database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        writer, asked = service._runtime.resources().store_port.writer, list[object]()
        real = writer.probe

        def probe(ticket: object) -> None:
            if isinstance(ticket, Future):  # not of the evidence actor's own
                asked.append(ticket)
            real(ticket)

        monkeypatch.setattr(writer, "probe", probe)
        for _ in range(3):
            with pytest.raises(EvidenceUnavailable, match="does not answer"):
                await service.check_ready()
        assert len(set(map(id, asked))) == 1, "they all ask the same question"
        other.close()


async def test_the_store_is_asked_once_for_all_who_ask_and_not_while_it_works(make_settings: MakeSettings) -> None:
    async with AsyncVoiceService(make_settings()) as service:
        store, probes = service.voice_store(), list[None]()
        real = store.probe

        def probe() -> None:
            probes.append(None)
            real()

        store.probe = probe  # type: ignore[method-assign]
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(service.check_ready)
        assert len(probes) == 1
        await service.check_ready()
        assert len(probes) == 1


def test_a_disk_that_does_not_answer_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr(home_watch, "monotonic_ms", lambda: now[0])
    with open_store(tmp_path / "voice.db", busy_timeout_seconds=5) as store:
        ownership = FileLocks(tmp_path).take("me")
        watch = HomeWatch(store, ownership, tmp_path / "recordings")
        assert watch.problem is None
        watch._looking_since_ms = 0
        now[0] = home_watch.LATE_MS
        assert watch.problem is None
        now[0] += 1
        assert "does not answer" in str(watch.problem)
        ownership.release()


@pytest.mark.parametrize("recordings", [True, False])
def test_a_folder_that_can_not_be_written_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, recordings: bool
) -> None:
    with open_store(tmp_path / "voice.db", busy_timeout_seconds=5) as store:
        ownership = FileLocks(tmp_path).take("me")
        folder = tmp_path / "recordings" if recordings else tmp_path
        folder.mkdir(exist_ok=True)
        allowed = os.access  # root may write everywhere, so the system's answer is made up
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder and allowed(path, mode))
        try:
            assert "can't be written" in str(HomeWatch(store, ownership, tmp_path / "recordings")._look())
        finally:
            ownership.release()


def test_a_link_to_a_folder_that_is_gone_is_a_problem(tmp_path: Path) -> None:
    with open_store(tmp_path / "voice.db", busy_timeout_seconds=5) as store:
        ownership = FileLocks(tmp_path).take("me")
        (tmp_path / "recordings").symlink_to(tmp_path / "a disk that is not mounted")
        try:
            assert "is no folder" in str(HomeWatch(store, ownership, tmp_path / "recordings")._look())
        finally:
            ownership.release()


async def test_the_end_does_not_wait_for_a_disk_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, answers, answered = threading.Event(), threading.Event(), threading.Event()

    def hangs() -> None:
        looking.set()
        answers.wait(30)
        answered.set()

    with open_store(tmp_path / "voice.db", busy_timeout_seconds=5) as store:
        ownership = FileLocks(tmp_path).take("me")
        monkeypatch.setattr(ownership, "check", hangs)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(HomeWatch(store, ownership, tmp_path / "recordings").run)
                await anyio.to_thread.run_sync(looking.wait)
                group.cancel_scope.cancel()
            assert not answered.is_set()
        finally:
            answers.set()
            await anyio.to_thread.run_sync(answered.wait)
            ownership.release()


def test_another_store_of_one_process_does_not_let_go_of_the_locks(tmp_path: Path) -> None:
    """Closing any file of the database frees a process's locks on it; then another process removes the WAL under it."""
    path = tmp_path / "voice.db"
    with open_store(path, busy_timeout_seconds=5) as store:
        store.probe()
        open_store(path, busy_timeout_seconds=5).close()
        script = f"import sqlite3; sqlite3.connect({str(path)!r}).execute('PRAGMA user_version').fetchall()"
        subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
        assert (tmp_path / "voice.db-wal").exists()
        store.probe()
