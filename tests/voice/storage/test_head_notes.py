"""Heads that the service notes outside the database: what is cut is seen at the next start, and by who runs on."""

import errno
import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from agentos.core.communication.evidence import EvidenceLogger
from agentos.core.communication.voice import doctor
from agentos.core.communication.voice.async_service import AsyncVoiceService
from agentos.core.communication.voice.cli import main
from agentos.core.communication.voice.doctor import Level
from agentos.core.communication.voice.errors import ChainNotContinued, EvidenceUnavailable, StoreError
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage import head_notes
from agentos.core.communication.voice.storage.head_notes import (
    REQUEST,
    SPARE_INTERVAL_SECONDS,
    HeadFile,
    HeadNotes,
    check_heads,
    file_older,
)
from agentos.core.communication.voice.storage.opening import open_store, open_to_read
from agentos.core.communication.voice.storage.store import Entry, VoiceStore
from machines.communication import ConnectorType
from machines.evidence import EvidenceRecord
from machines.heads import Head, is_torn
from machines.session import STTProvider, VoiceProvider

MakeSettings = Callable[..., VoiceSettings]


def record(number: int) -> EvidenceRecord:
    return EvidenceRecord(
        id=f"ev-{number}",
        request_id="req-1",
        connector_type=ConnectorType.CUSTOM,
        operation="test",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder / "heads"


@pytest.fixture
def store(tmp_path: Path) -> VoiceStore:
    return open_store(tmp_path / "voice.db", busy_timeout_seconds=5)


def noted(path: Path) -> list[Head]:
    heads, others = HeadFile(path).read()
    assert others == []
    return heads


def waits_for(condition: Callable[[], bool]) -> None:
    while not condition():  # the test's own limit ends it
        threading.Event().wait(0.005)


def cut(database: Path, from_place: int) -> None:
    with closing(sqlite3.connect(database)) as connection:
        for table in ("evidence", "evidence_content"):
            connection.execute(f"DELETE FROM {table} WHERE seq >= ?", [from_place])
        connection.commit()


async def called(service: AsyncVoiceService) -> None:
    session = await service.create_session("p", VoiceProvider.LOCAL, STTProvider.WHISPER)
    await service.stop_session(session.session_id)


@pytest.mark.anyio
async def test_a_service_notes_where_its_chain_ends_and_finds_it_so_again(
    make_settings: MakeSettings, elsewhere: Path
) -> None:
    settings = make_settings(heads=elsewhere)
    for calls in (1, 2):
        async with AsyncVoiceService(settings) as service:
            await called(service)
        with open_to_read(settings.database) as store:
            assert noted(elsewhere)[-1] == store.head()
            assert len([record for record in store.evidence() if record.request_id != REQUEST]) == 3 * calls
            last = store.last_evidence(REQUEST)
            assert last is not None
            assert last.request_summary == {
                "place": store.head().seq - 1,
                "head": noted(elsewhere)[-2].hash,
                "fault": None,
            }
            assert {check.state.value for check in store.examine(noted(elsewhere)).heads} == {"holds"}
    assert elsewhere.stat().st_mode & 0o777 == 0o600


@pytest.mark.anyio
async def test_a_service_whose_chain_was_cut_does_not_start(make_settings: MakeSettings, elsewhere: Path) -> None:
    settings = make_settings(heads=elsewhere)
    async with AsyncVoiceService(settings) as service:
        await called(service)
    cut(settings.database, noted(elsewhere)[-1].seq)
    with pytest.raises(ChainNotContinued, match="records were cut off") as caught:
        async with AsyncVoiceService(settings):
            pass
    assert (caught.value.heads, caught.value.head) == (elsewhere, noted(elsewhere)[-1].text)
    elsewhere.rename(elsewhere.with_name("kept"))
    async with AsyncVoiceService(settings) as service:  # whoever means it begins another file
        await called(service)


@pytest.mark.anyio
async def test_what_is_cut_under_a_running_service_ends_its_taking_of_calls(
    make_settings: MakeSettings, elsewhere: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(heads=elsewhere)
    async with AsyncVoiceService(settings) as service:
        await called(service)
        while not noted(elsewhere) or noted(elsewhere)[-1].seq < 4:  # the call, and that heads are noted
            await anyio.sleep(0.01)
        cut(settings.database, 1)
        await called(service)
        with anyio.fail_after(60):
            while service.statistics().heads.problem is None:  # type: ignore[union-attr]
                await anyio.sleep(0.01)
        with pytest.raises(EvidenceUnavailable, match="does not go on from the head"):
            service.check_room()
        with pytest.raises(EvidenceUnavailable):
            await called(service)
    assert noted(elsewhere)[-1].seq == 4
    assert [message for message in caplog.messages if message.startswith("evidence_cut")]


@pytest.mark.anyio
async def test_a_file_that_can_not_be_written_is_said_once_and_loses_no_evidence(
    make_settings: MakeSettings, elsewhere: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        head_notes, "LOOK_SECONDS", 3_600
    )  # it does not wait for its next look, nor for the next record
    elsewhere.parent.rmdir()
    async with AsyncVoiceService(make_settings(heads=elsewhere)) as service:
        await called(service)
        with anyio.fail_after(60):
            while service.statistics().heads.failed < 2:  # type: ignore[union-attr]
                await anyio.sleep(0.01)
        assert "can't be noted" in (service.statistics().heads.problem or "")  # type: ignore[union-attr]
        service.check_room()
        elsewhere.parent.mkdir()
        with anyio.fail_after(60):
            while service.statistics().heads.problem is not None:  # type: ignore[union-attr]
                await anyio.sleep(0.01)
        assert noted(elsewhere)[-1].seq == 3
    assert len([message for message in caplog.messages if message.startswith("head_not_noted")]) == 1


def test_a_file_of_heads_that_never_were_is_found(store: VoiceStore, elsewhere: Path) -> None:
    with store:
        store.append([Entry(record(1)), Entry(record(2))])
        elsewhere.write_text(f"2:{'ab' * 32}\n")
        with pytest.raises(ChainNotContinued, match="another record stands in its place"):
            check_heads(store, elsewhere)


def test_another_database_in_the_place_of_the_first_is_found(
    store: VoiceStore, elsewhere: Path, tmp_path: Path
) -> None:
    with store:
        store.append([Entry(record(1))])
        HeadFile(elsewhere).append(store.head())
    with open_store(tmp_path / "other.db", busy_timeout_seconds=5) as other:
        other.append([Entry(record(number)) for number in (7, 8, 9)])
        with pytest.raises(ChainNotContinued, match=r"other\.db"):
            check_heads(other, elsewhere)


def test_that_nothing_was_noted_before_is_said(
    store: VoiceStore, elsewhere: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with store:
        check_heads(store, elsewhere)
        assert caplog.messages == []
        store.append([Entry(record(1))])
        check_heads(store, elsewhere)
    assert [message.partition(":")[0] for message in caplog.messages] == ["no_head_noted_before"]


def test_heads_of_an_older_chain_are_no_fault(tmp_path: Path, elsewhere: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(Path(__file__).with_name("revision_0002.sql").read_text())
    with open_to_read(path) as old:
        HeadFile(elsewhere).append(old.head())
    with open_store(path, busy_timeout_seconds=60) as store:
        check_heads(store, elsewhere)
        notes = HeadNotes(store, elsewhere, interval_seconds=0)
        notes.start()
        assert notes.close(60)
        assert noted(elsewhere)[-1] == store.head()


def test_what_a_crash_tore_off_is_no_head_and_harms_none(
    store: VoiceStore, elsewhere: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with store:
        store.append([Entry(record(1)), Entry(record(2))])
        elsewhere.write_text(store.head().text[:20])
        check_heads(store, elsewhere)
        HeadFile(elsewhere).append(store.head())
        assert HeadFile(elsewhere).read() == ([store.head()], [store.head().text[:20]])
        check_heads(store, elsewhere)
    assert "heads_with_other_lines" in caplog.text


def test_verification_goes_on_behind_a_line_that_a_crash_tore_off(
    store: VoiceStore, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with store:
        store.append([Entry(record(1)), Entry(record(2))])
        verify = ["evidence", "verify", store.place, "--heads", str(elsewhere)]
        elsewhere.write_text(store.head().text[:20])
        assert main(verify) == 2  # there is no other
        HeadFile(elsewhere).append(store.head())
        capsys.readouterr()
        assert main(verify) == 0
        assert "1 of the lines" in capsys.readouterr().out
        with elsewhere.open("a") as file:
            file.write(store.head().text[:-1])  # and the last one, with no end
        assert main(verify) == 0
        elsewhere.write_text(f"{store.head().text}\n{store.head().text[:-1]}g\n")
        assert main(verify) == 2


def test_a_full_disk_leaves_no_part_of_a_head(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = HeadFile(elsewhere)
    file.append(Head(1, "a" * 64))
    whole = elsewhere.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:9]))
    with pytest.raises(OSError, match="not written whole"):
        file.append(Head(2, "b" * 64))
    assert elsewhere.read_bytes() == whole
    monkeypatch.setattr(os, "write", write)
    file.append(Head(2, "b" * 64))
    assert [head.seq for head in noted(elsewhere)] == [1, 2]


def test_a_head_is_on_the_disk_once_it_is_noted(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[os.stat_result] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor)))
    file = HeadFile(elsewhere, max_bytes=200)
    folder, was = elsewhere.parent.stat().st_ino, 0
    for number in range(1, 8):
        file.append(Head(number, f"{number:064x}"))
        now = elsewhere.stat()
        assert now.st_size > 0
        assert synced[0].st_size == now.st_size
        assert [one.st_ino for one in synced[1:]] == ([folder] if now.st_ino != was else []), "a new file's name"
        was = now.st_ino
        synced.clear()


def test_a_file_that_another_process_has_just_made_smaller_is_opened_again(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = [Head(place, f"{place:064x}") for place in (1, 2)]
    file, lock = HeadFile(elsewhere), fcntl.flock
    file.append(heads[0])
    smaller = elsewhere.with_name("smaller")
    smaller.write_bytes(elsewhere.read_bytes())

    def late(descriptor: int, how: int) -> None:
        if smaller.exists():
            smaller.replace(elsewhere)
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    file.append(heads[1])
    assert noted(elsewhere) == heads


def test_the_file_stays_small_and_keeps_the_newest_heads(elsewhere: Path) -> None:
    heads = [Head(place, f"{place:064x}") for place in range(1, 500)]
    file = HeadFile(elsewhere, max_bytes=2000)
    for head in heads:
        file.append(head)
        assert elsewhere.stat().st_size < 2200
    kept = noted(elsewhere)
    assert kept == heads[-len(kept) :]
    assert len(kept) > 5
    assert list(elsewhere.parent.iterdir()) == [elsewhere]


@pytest.mark.parametrize("append_only", [False, True])
def test_a_head_that_a_full_disk_took_half_of_is_not_noted(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, *, append_only: bool
) -> None:
    def refuse(descriptor: int, size: int) -> None:
        raise PermissionError(errno.EPERM, "it may only be appended to")

    file, head, write = HeadFile(elsewhere), Head(1, f"{1:064x}"), os.write
    with monkeypatch.context() as patched, pytest.raises(OSError, match="not written whole"):
        patched.setattr(os, "write", lambda descriptor, line: write(descriptor, line[: len(line) // 2]))
        if append_only:
            patched.setattr(os, "ftruncate", refuse)
        file.append(head)
    assert file.newest() == 0
    file.append(head)
    assert file.newest() == 1
    heads, torn = file.read()
    assert heads == [head]
    assert [is_torn(line) for line in torn] == [True] * append_only


def test_who_may_read_the_file_may_read_it_when_it_was_made_smaller(elsewhere: Path) -> None:
    file = HeadFile(elsewhere, max_bytes=500)
    file.append(Head(1, f"{1:064x}"))
    elsewhere.chmod(0o640)
    first = elsewhere.stat()
    for number in range(2, 12):
        file.append(Head(number, f"{number:064x}"))
    assert elsewhere.stat().st_ino != first.st_ino
    assert elsewhere.stat().st_mode == first.st_mode


def test_a_file_that_can_only_grow_gets_few_heads(
    store: VoiceStore, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = HeadNotes(store, elsewhere, interval_seconds=0.01)
    waited: list[float | None] = []
    wait = notes._closing.wait

    def until_the_next(seconds: float | None = None) -> bool:
        waited.append(seconds)
        return wait(0.01)

    monkeypatch.setattr(notes._closing, "wait", until_the_next)
    with store:
        notes.start()
        waits_for(lambda: waited == [0.01])
        notes._file.spare = True
        notes.stored()
        waits_for(lambda: len(waited) > 1)
        assert notes.close(10)
    assert waited[1] == SPARE_INTERVAL_SECONDS


def test_a_file_that_may_only_be_appended_to_is_not_made_smaller(elsewhere: Path) -> None:
    heads = [Head(place, f"{place:064x}") for place in range(1, 100)]
    with elsewhere.open("wb") as opened:
        file = HeadFile(
            Path(f"/proc/self/fd/{opened.fileno()}"), max_bytes=2000
        )  # no folder for another file beside it
        for head in heads:
            file.append(head)
    assert file.spare
    assert noted(elsewhere) == heads


def test_several_that_note_in_one_file_lose_none_of_the_newest(elsewhere: Path) -> None:
    def note(first: int) -> None:
        file = HeadFile(elsewhere, max_bytes=3000)
        for place in range(first, first + 200):
            file.append(Head(place, f"{place:064x}"))

    threads = [threading.Thread(target=note, args=[first]) for first in (1000, 2000, 3000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    places = [head.seq for head in noted(elsewhere)]
    assert len(places) == len(set(places))
    assert places[-1] in {1199, 2199, 3199}


def test_a_file_that_can_not_be_read_is_said(
    store: VoiceStore, elsewhere: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere.mkdir()
    with store:
        check_heads(store, elsewhere)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_notes_of_a_store_that_is_closed_end(store: VoiceStore, elsewhere: Path) -> None:
    notes = HeadNotes(store, elsewhere, interval_seconds=0)
    store.close()
    notes.start()
    assert notes.close(60)
    assert not elsewhere.exists()
    assert HeadNotes(store, elsewhere).close(60)  # one that never began


# --- a file that is not the one that it was ---------------------------------------------------------------------------


def faults(database: Path) -> list[str]:
    with open_to_read(database) as store:
        found = [record.request_summary["fault"] for record in store.evidence(REQUEST)]
    return [fault for fault in found if fault is not None]


@pytest.mark.anyio
@pytest.mark.parametrize("removed", [True, False], ids=["removed", "an older copy"])
async def test_a_file_that_was_removed_or_is_older_is_said_and_put_on_record(
    make_settings: MakeSettings,
    elsewhere: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    *,
    removed: bool,
) -> None:
    settings = make_settings(heads=elsewhere)
    kept = b""
    for _ in range(2):
        kept = elsewhere.read_bytes() if elsewhere.exists() else b""
        async with AsyncVoiceService(settings) as service:
            await called(service)
    monkeypatch.setenv("AGENTOS_VOICE_HEADS", str(elsewhere))
    if removed:
        elsewhere.unlink()
    else:
        elsewhere.write_bytes(kept)
    (check,) = doctor._heads(settings.home)
    assert check.level is Level.FAIL
    assert "heads up to record" in check.found
    assert faults(settings.database) == []
    caplog.clear()
    async with AsyncVoiceService(settings) as service:  # as with a file that can't be read: calls go on
        await called(service)
    assert next(message.partition(":")[0] for message in caplog.messages) == "heads_file_older"
    (fault,) = faults(settings.database)
    assert ("has no head, or is not there" if removed else "ends at record") in fault
    async with AsyncVoiceService(settings) as service:
        await called(service)
    assert len(faults(settings.database)) == 1


def test_a_file_that_is_removed_under_a_service_is_said_once(
    store: VoiceStore, elsewhere: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.append([Entry(record(1))])
    notes = HeadNotes(store, elsewhere, interval_seconds=0.01)
    notes.start()
    waits_for(lambda: len(noted(elsewhere)) == 2)
    elsewhere.unlink()
    store.append([Entry(record(2))])
    notes.stored()
    waits_for(lambda: len(noted(elsewhere)) == 2)
    assert notes.close(10)
    assert [message.partition(":")[0] for message in caplog.messages] == ["heads_file_older"]
    assert len(faults(Path(store.place))) == 1
    assert file_older(store, elsewhere) is None
    store.close()


def test_a_fault_that_the_store_did_not_take_is_put_on_record_later(
    store: VoiceStore, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append([Entry(record(1))])
    notes = HeadNotes(store, elsewhere, interval_seconds=0.01)
    notes.start()
    waits_for(lambda: len(noted(elsewhere)) == 2)
    elsewhere.unlink()
    append = store.append
    append([Entry(record(2))])
    failed = threading.Event()

    def failing(entries: object) -> None:
        failed.set()
        raise StoreError("the disk is full", kind="full")

    monkeypatch.setattr(store, "append", failing)
    notes.stored()
    assert failed.wait(20)
    monkeypatch.setattr(store, "append", append)
    append([Entry(record(3))])
    assert notes.close(10)
    assert len(faults(Path(store.place))) == 1
    store.close()


def test_verification_says_that_the_file_of_the_setting_is_older(
    store: VoiceStore, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.append([Entry(record(1))])
    noted_by_hand = elsewhere.with_name("by hand")
    HeadFile(noted_by_hand).append(store.head())
    for number in (2, 3):
        notes = HeadNotes(store, elsewhere)
        notes.start()
        assert notes.close(10)
        store.append([Entry(record(number))])
    monkeypatch.setenv("AGENTOS_VOICE_HEADS", str(elsewhere))
    verify = ["evidence", "verify", store.place, "--heads"]
    assert main([*verify, str(elsewhere)]) == 0
    elsewhere.write_bytes(noted_by_hand.read_bytes())
    capsys.readouterr()
    assert main([*verify, str(elsewhere)]) == 4
    assert "heads up to record" in capsys.readouterr().err
    assert main([*verify, str(noted_by_hand)]) == 0  # nobody said that it is to go on
    store.close()


@pytest.mark.anyio
async def test_that_heads_are_noted_no_longer_is_said(
    make_settings: MakeSettings, elsewhere: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncVoiceService(make_settings(heads=elsewhere)) as service:
        await called(service)
    async with AsyncVoiceService(make_settings()):
        pass
    assert "heads_no_longer_noted: setting='AGENTOS_VOICE_HEADS'" in caplog.messages


def test_others_that_write_to_a_chain_that_was_cut_are_refused(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("AGENTOS_VOICE_HOME", str(home))
    monkeypatch.setenv("AGENTOS_VOICE_HEADS", str(elsewhere))
    with EvidenceLogger() as log:
        for number in (1, 2, 3):
            log.log(record(number))
    with open_to_read(home / "voice.db") as store:
        HeadFile(elsewhere).append(store.head())
    EvidenceLogger().close()
    assert main(["recover"]) == 0
    cut(home / "voice.db", 3)
    for path in (None, home / "voice.db"):
        with pytest.raises(ChainNotContinued, match="records were cut off"):
            EvidenceLogger(path)
    capsys.readouterr()
    assert main(["recover"]) == 4
    assert "does not go on from the head 3:" in capsys.readouterr().err
    EvidenceLogger(tmp_path / "another.db").close()  # a chain of its own
