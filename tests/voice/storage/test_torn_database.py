"""SQLite after a power cut: copies of database and WAL from a real run, cut and torn, then opened, verified and recovered.

The service runs, and after each commit of its writer the two files are copied with what is acknowledged by then. A commit syncs
the WAL before it returns (`synchronous=FULL`), so a power cut between two of them leaves the database as it was, and the WAL
with any part of what the later one wrote.
"""

import os
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy.engine import Connection

from agentos.core.communication.voice import STTProvider, VoiceProvider, VoiceService
from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.recovery.recovery import Recovery
from agentos.core.communication.voice.settings import load_settings
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.store import Entry, VoiceStore

CALLS = 40
CHECKPOINT_PAGES = 60  # a tenth of SQLite's own, so that there are many
SECTOR = 512


class Copy(NamedTuple):
    """Both files right after a commit, and how many records were in the chain by then."""

    database: bytes
    wal: bytes
    records: int


class Run(NamedTuple):
    copies: list[Copy]
    chain: list[tuple[int, str, str]]  # as it was in the end: number, id, text


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A service's run, with a copy after each commit."""
    home = tmp_path_factory.mktemp("run") / "home"
    settings = load_settings(home=home, on_stt_unavailable="record_only", account_seconds=0.02)
    copies: list[Copy] = []
    descriptors: list[int] = []
    records = 0
    transaction, append, connect = VoiceStore.transaction, VoiceStore.append, sqlite3.connect

    def content(descriptor: int) -> bytes:
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)

    @contextmanager
    def copying(store: VoiceStore) -> Iterator[Connection]:
        with transaction(store) as connection:
            yield connection
        if not descriptors:  # held open: to close a file would end SQLite's own locks on it
            descriptors.extend(os.open(f"{store.place}{suffix}", os.O_RDONLY) for suffix in ("", "-wal"))
        database, wal = map(content, descriptors)
        if copies and copies[-1].database == database:
            database = copies[-1].database
        copies.append(Copy(database, wal, records))

    def counting(store: VoiceStore, entries: Sequence[Entry], owner: str | None = None) -> None:
        nonlocal records
        records += len(entries)  # the copy is made within
        append(store, entries, owner)

    def connected(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        return connection

    def call(number: int) -> None:
        session = service.create_session("p", VoiceProvider.LOCAL, STTProvider.WHISPER, {"number": number})
        for _ in range(number % 4):
            service.dispatch_audio_chunk(session.session_id, bytes(6400))
        if number % 3:
            service.stop_session(session.session_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VoiceStore, "transaction", copying)
        patch.setattr(VoiceStore, "append", counting)
        patch.setattr(sqlite3, "connect", connected)
        with VoiceService(settings) as service, ThreadPoolExecutor(3) as pool:
            list(pool.map(call, range(CALLS)))
    for descriptor in descriptors:
        os.close(descriptor)
    return Run(copies, chain_of(home / "voice.db"))


def chain_of(path: Path) -> list[tuple[int, str, str]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT seq, id, record FROM evidence ORDER BY seq").fetchall()


def new(before: bytes, after: bytes) -> tuple[int, int]:
    """Where `after` differs from `before`: the first such byte, and the one behind the last."""
    padded = before.ljust(len(after), b"\0")[: len(after)]
    different = [at for at in range(0, len(after), SECTOR) if after[at : at + SECTOR] != padded[at : at + SECTOR]]
    return (different[0], min(len(after), different[-1] + SECTOR)) if different else (len(after), len(after))


def mixed(before: bytes, after: bytes, chance: random.Random) -> bytes:
    """`after`, of which some sectors have not reached the disk."""
    parts = []
    for at in range(0, max(len(before), len(after)), SECTOR):
        old, written = before[at : at + SECTOR], after[at : at + SECTOR]
        parts.append(written if chance.random() < 0.5 else old.ljust(len(written), b"\0"))
    return b"".join(parts)


class Case(NamedTuple):
    """What a power cut left; `least` records must be there, unless what had been synced was `damaged`."""

    database: bytes
    wal: bytes
    least: int
    damaged: bool = False


def cut_within_a_commit(before: Copy, after: Copy, chance: random.Random) -> Case:
    first, end = new(before.wal, after.wal)
    at = chance.randint(first, end)
    return Case(before.database, after.wal[:at] + before.wal[at:], before.records)


def torn_within_a_commit(before: Copy, after: Copy, chance: random.Random) -> Case:
    return Case(before.database, mixed(before.wal, after.wal, chance), before.records)


def cut_right_behind_the_sync(before: Copy, after: Copy, chance: random.Random) -> Case:
    garbage = chance.randbytes(chance.randrange(8192))
    return Case(before.database, after.wal + garbage, after.records)


def torn_within_a_checkpoint(before: Copy, after: Copy, chance: random.Random) -> Case:
    return Case(mixed(before.database, after.database, chance), after.wal, after.records)


def synced_wal_lost(before: Copy, after: Copy, chance: random.Random) -> Case:
    return Case(after.database, after.wal[: chance.randrange(len(after.wal) + 1)], 0, damaged=True)


def page_lost(before: Copy, after: Copy, chance: random.Random) -> Case:
    page = 4096 * chance.randrange(max(1, len(after.database) // 4096))
    put = chance.choice([before.database[page : page + 4096], bytes(4096), chance.randbytes(4096)])
    return Case(after.database[:page] + put + after.database[page + 4096 :], after.wal, 0, damaged=True)


CUTS: tuple[Callable[[Copy, Copy, random.Random], Case], ...] = (
    cut_within_a_commit,
    torn_within_a_commit,
    cut_right_behind_the_sync,
    torn_within_a_checkpoint,
    synced_wal_lost,
    page_lost,
)


def leave(folder: Path, case: Case) -> Path:
    folder.mkdir(parents=True)
    path = folder / "voice.db"
    path.write_bytes(case.database)
    path.with_name("voice.db-wal").write_bytes(case.wal)
    return path


def examine(path: Path, case: Case, chain: list[tuple[int, str, str]]) -> None:
    with open_store(path, busy_timeout_seconds=5) as store:
        found = store.verify()
        if case.damaged and not found.ok:
            return  # it says so
        assert found.ok, found
        assert found.records >= case.least
        assert chain_of(path) == chain[: found.records]
        report = Recovery(store, path.parent / "recordings", "flac").run()
        if case.damaged and report.problems:
            return
        assert not report.problems
        assert store.unfinished() == {}
        again = store.verify()
        assert again.ok, again
        finals = [record.request_id for record in store.evidence() if record.operation == "session_stopped"]
        assert sorted(finals) == sorted(session.session_id for session in store.sessions())


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.__name__)
@pytest.mark.parametrize(
    "times",
    [6, pytest.param(100, marks=pytest.mark.slow)],  # six hundred power cuts take a minute
)
def test_what_was_acknowledged_is_there_and_nothing_verifies_wrongly(
    run: Run, tmp_path: Path, cut: Callable[[Copy, Copy, random.Random], Case], times: int
) -> None:
    pairs = list(zip(run.copies, run.copies[1:], strict=False))
    if cut is torn_within_a_checkpoint:
        pairs = [(before, after) for before, after in pairs if before.database != after.database]
    assert len(pairs) >= 3
    for number in range(times):
        seed = f"{cut.__name__} {number}"
        chance = random.Random(seed)
        case = cut(*chance.choice(pairs), chance)
        try:
            examine(leave(tmp_path / str(number), case), case, run.chain)
        except Exception as error:
            if not (case.damaged and isinstance(error, StoreError)):
                error.add_note(f"the cut: {seed}")
                raise


def test_the_run_is_long_enough_to_be_cut(run: Run) -> None:
    assert len(run.copies) > 50
    assert len({copy.database for copy in run.copies}) > 3  # checkpoints
    shorter = [after.wal[:32] != before.wal[:32] for before, after in zip(run.copies, run.copies[1:], strict=False)]
    assert sum(shorter) > 2  # and a WAL that was begun again
    assert run.copies[-1].records == len(run.chain)
