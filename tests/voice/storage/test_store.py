"""The store: one chain for all processes, all or nothing, and a typed error for whatever fails."""

import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.storage.opening import open_store, open_to_read
from agentos.core.communication.voice.storage.sqlite import schema
from agentos.core.communication.voice.storage.sqlite.opening import migrate, migrations_folder
from agentos.core.communication.voice.storage.store import BadEntry, Entry, VoiceStore
from agentos.core.communication.voice.storage.tables import EVIDENCE, SESSIONS, TABLES
from agentos.core.time import to_ms
from machines.communication import ConnectorType, PolicyVerdict, RequestStatus, RiskLevel
from machines.events import VoiceEvent, VoiceEventType
from machines.evidence import EvidenceRecord
from machines.heads import GENESIS
from machines.recording import RecordingInfo, RecordingState
from machines.session import STTProvider, VoiceProvider, VoiceSession, VoiceSessionState
from machines.verification import Verification

PATIENCE_SECONDS = 30.0
BORN = datetime(2026, 11, 22, 12, 0, 0, 123_456, tzinfo=UTC)


def record(name: str = "ev-1", request: str = "voice-1", **fields: object) -> EvidenceRecord:
    return EvidenceRecord.model_validate(
        {
            "id": name,
            "request_id": request,
            "connector_type": ConnectorType.CUSTOM,
            "operation": "voice.session.created",
            "request_summary": {"project_id": "p", "grüße": ["ß", 1, None]},
            "created_at": BORN,
            **fields,
        }
    )


def session(
    name: str = "voice-1",
    state: VoiceSessionState = VoiceSessionState.CREATED,
    *,
    project: str = "p",
    born: datetime = BORN,
) -> VoiceSession:
    return VoiceSession(
        session_id=name,
        project_id=project,
        provider=VoiceProvider.LOCAL,
        stt_provider=STTProvider.POCKETSPHINX,
        state=state,
        created_at=born,
        last_activity_at=born,
        risk_tier=RiskLevel.LOW,
        policy_verdict=PolicyVerdict(status=RequestStatus.APPROVED, reason_code="OK"),
        audit_trace_id="audit-1",
        metadata={"user": {"tags": ["a", "b"]}},
    )


def event(number: int, name: str = "voice-1") -> VoiceEvent:
    return VoiceEvent(
        event_id=f"evt-{number}",
        session_id=name,
        event_type=VoiceEventType.STATE_CHANGED,
        payload={"to": ["active"]},
        timestamp_ms=1,
        number=number,
    )


def packed_later(name: str) -> RecordingInfo:
    return RecordingInfo(
        path=name,
        sample_rate=16_000,
        channels=1,
        samples=3,
        seconds=0.1,
        segments=1,
        state=RecordingState.FINISHING,
        recording_id=name,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "voice.db"


@pytest.fixture
def store(path: Path) -> Iterator[VoiceStore]:
    with open_store(path, busy_timeout_seconds=5.0) as store:
        yield store


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """Every connection that is made, held on to so that none is closed by being forgotten."""
    connections: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def remembered(*args: Any, **options: Any) -> sqlite3.Connection:
        connections.append(connect(*args, **options))
        return connections[-1]

    monkeypatch.setattr(sqlite3, "connect", remembered)
    return connections


def assert_all_closed(connections: list[sqlite3.Connection]) -> None:
    assert connections
    for connection in connections:
        with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
            connection.execute("SELECT 1")


def tables(path: Path) -> list[tuple[str, ...]]:
    database = sqlite3.connect(path)
    try:
        rows = database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()
    finally:
        database.close()
    return [tuple(" ".join(str(column).split()) for column in row) for row in rows]


def change(path: Path, *statements: str) -> None:
    """What somebody with write access to the file could do to it."""
    database = sqlite3.connect(path)
    try:
        for statement in statements:
            database.execute(statement)
        database.commit()
    finally:
        database.close()


# What is stored


def test_what_was_read_is_forgotten_with_its_reader(store: VoiceStore) -> None:
    """pydantic keeps strings of the JSON that it parses, thousands of them, unless it is told to keep the keys alone."""
    names = [f"voice-{number}" for number in range(600)]
    store.append([Entry(record(f"ev-{name}", name), session(name), ()) for name in names])

    def read(some: list[str]) -> int:
        for name in some:
            assert store.add_recording(name, packed_later(f"rec-{name}"))
            found = store.session(name)
            assert found is not None
            assert found.session_id == name
            assert store.evidence_record(f"ev-{name}") is not None
        assert len(store.unfinished_recordings()) >= len(some)
        gc.collect()
        return sys.getallocatedblocks()

    before = read(names[:100])
    assert read(names[100:]) - before < len(names) / 4


def test_an_entry_is_read_back_as_it_was_put(store: VoiceStore) -> None:
    store.append([Entry(record(), session(), (event(1), event(2)))])
    assert store.evidence() == [record()]
    assert store.evidence_record("ev-1") == record()
    assert store.session("voice-1") == session()
    assert store.events("voice-1") == [event(1), event(2)]
    assert store.events("voice-1", after=1) == [event(2)]


def test_what_is_not_there_is_none_or_empty(store: VoiceStore) -> None:
    for unknown in ("voice-?", "", "\ud800", "x' OR 1 = 1 --"):
        assert store.session(unknown) is None
        assert store.evidence_record(unknown) is None
        assert store.events(unknown) == []
        assert store.evidence(unknown) == []
        assert store.sessions(unknown) == []
    assert store.sessions() == []
    assert store.verify() == Verification(0, GENESIS, None, None)
    store.append([])
    store.add_events([])
    assert store.statistics().records == 0


def test_the_chain_goes_on_after_reopening(path: Path) -> None:
    for name in ("ev-1", "ev-2", "ev-3"):
        with open_store(path, busy_timeout_seconds=5.0) as store:
            store.append([Entry(record(name))])
    with open_store(path, busy_timeout_seconds=5.0) as store:
        found = store.verify()
        assert (found.ok, found.records) == (True, 3)
        assert [item.id for item in store.evidence()] == ["ev-1", "ev-2", "ev-3"]
        assert [item.id for item in store.newest_evidence(2)] == ["ev-3", "ev-2"]
        assert [item.id for item in store.newest_evidence(9)] == ["ev-3", "ev-2", "ev-1"]


def test_an_entry_whose_record_is_stored_is_skipped_as_a_whole(store: VoiceStore) -> None:
    store.append([Entry(record("ev-1"), session())])
    again = Entry(record("ev-1"), session(state=VoiceSessionState.ACTIVE), (event(7),))
    store.append([again, Entry(record("ev-2")), Entry(record("ev-2"))])
    assert [item.id for item in store.evidence()] == ["ev-1", "ev-2"]
    assert store.session("voice-1") == session()
    assert store.events("voice-1") == []
    assert store.verify().ok


@pytest.mark.parametrize("in_one_batch", [True, False])
def test_a_stopped_session_stays_stopped(store: VoiceStore, *, in_one_batch: bool) -> None:
    entries = [
        Entry(record(f"ev-{at}"), session(state=state))
        for at, state in enumerate([*VoiceSessionState, VoiceSessionState.ACTIVE])
    ]
    for batch in [entries] if in_one_batch else [[entry] for entry in entries]:
        store.append(batch)
    stored = store.session("voice-1")
    assert stored is not None
    assert stored.state is VoiceSessionState.STOPPED


def test_sessions_are_listed_newest_first_with_ids_as_tie_break(store: VoiceStore) -> None:
    later = BORN + timedelta(milliseconds=1)
    made = [
        session("voice-a", born=BORN),
        session("voice-b", VoiceSessionState.ACTIVE, born=later),
        session("voice-c", project="q", born=BORN),
    ]
    store.append([Entry(record(f"ev-{item.session_id}"), item) for item in made])

    def names(**where: object) -> list[str]:
        return [item.session_id for item in store.sessions(**where)]  # type: ignore[arg-type]

    assert names() == ["voice-b", "voice-c", "voice-a"]
    assert names(project_id="p") == ["voice-b", "voice-a"]
    assert names(state=VoiceSessionState.CREATED) == ["voice-c", "voice-a"]
    assert names(project_id="q", state=VoiceSessionState.ACTIVE) == []


def test_sessions_are_known_by_the_owner_that_wrote_them(path: Path) -> None:
    for owner in ("one", "two"):
        with open_store(path, busy_timeout_seconds=5.0, owner=owner) as store:
            store.append([Entry(record(f"ev-{owner}"), session(f"voice-{owner}"))])
    with open_store(path, busy_timeout_seconds=5.0) as store:
        with store.reading() as reading:
            owners = sorted((row.session_id, row.owner) for row in reading.select(SESSIONS))
        assert owners == [("voice-one", "one"), ("voice-two", "two")]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from("pq"), st.sampled_from(list(VoiceSessionState))), max_size=12
    ),
    st.integers(1, 5),
)
@settings(max_examples=30)
def test_pages_are_the_list_cut_into_pieces(rows: list[tuple[int, str, VoiceSessionState]], limit: int) -> None:
    with TemporaryDirectory() as folder, open_store(Path(folder) / "voice.db", busy_timeout_seconds=5.0) as store:
        made = [
            session(f"voice-{at}", state, project=project, born=BORN + timedelta(milliseconds=late))
            for at, (late, project, state) in enumerate(rows)
        ]
        store.append([Entry(record(f"ev-{at}"), one) for at, one in enumerate(made)])
        for project in (None, "p"):
            for state in (None, VoiceSessionState.ACTIVE):
                found: list[VoiceSession] = []
                below = None
                while page := store.session_page(project, state, limit, below):
                    assert len(page) <= limit
                    found += page
                    below = (to_ms(page[-1].created_at), page[-1].session_id)
                assert found == store.sessions(project, state)


def test_evidence_comes_in_pages_with_its_place_in_the_chain(store: VoiceStore) -> None:
    store.append([Entry(record(f"ev-{at}", f"voice-{at % 2}")) for at in range(7)])
    first = store.evidence_page("voice-0", 0, 2)
    assert [(link.seq, link.record.id) for link in first] == [(1, "ev-0"), (3, "ev-2")]
    rest = store.evidence_page("voice-0", first[-1].seq, 100)
    assert [link.seq for link in rest] == [5, 7]
    assert first[0].previous == GENESIS
    assert rest[-1].hash == store.verify().head
    assert store.evidence_page("voice-2", 0, 10) == []


def test_events_can_be_asked_for_some_at_a_time(store: VoiceStore) -> None:
    store.add_events([event(number) for number in range(1, 6)])
    assert [found.number for found in store.events("voice-1", 1, 2)] == [2, 3]
    assert [found.number for found in store.events("voice-1", 4, 2)] == [5]


def test_a_session_keeps_the_owner_that_made_it_whoever_writes_it(path: Path) -> None:
    created, active = VoiceSessionState.CREATED, VoiceSessionState.ACTIVE
    with open_store(path, busy_timeout_seconds=5.0, owner="writer") as store:
        store.append([Entry(record("ev-1"), session(state=created))], owner="maker")
        store.append([Entry(record("ev-2"), session(state=active))])
        store.append([Entry(record("ev-3"), session("voice-2", state=created))])
        found = store.unfinished()
    assert {owner: [one.session_id for one in sessions] for owner, sessions in found.items()} == {
        "maker": ["voice-1"],
        "writer": ["voice-2"],
    }
    assert found["maker"][0].state is active


def test_an_event_is_stored_once(store: VoiceStore) -> None:
    store.add_events([event(2), event(1)])
    store.add_events([event(2), event(3)])
    assert [item.number for item in store.events("voice-1")] == [1, 2, 3]


@pytest.mark.parametrize(
    "bad",
    [
        Entry(record("ev-bad", request_summary={"text": "\ud800"})),
        Entry(record("ev-bad", request_summary={"thing": object()})),
        Entry(record("ev-bad"), None, (event(2**63),)),
    ],
    ids=["lone surrogate", "not JSON", "number out of range"],
)
def test_a_bad_entry_is_named_and_nothing_of_its_batch_is_stored(store: VoiceStore, bad: Entry) -> None:
    with pytest.raises(BadEntry, match="ev-bad") as caught:
        store.append([Entry(record("ev-1"), session()), bad])
    assert caught.value.record_id == "ev-bad"
    assert isinstance(caught.value, ValueError)
    assert store.evidence() == []
    assert store.session("voice-1") is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(summaries=st.lists(st.dictionaries(st.text(max_size=8), json_values, max_size=4), max_size=4))
@settings(max_examples=40, deadline=None)
def test_any_json_makes_a_chain_that_verifies(
    tmp_path_factory: pytest.TempPathFactory, summaries: list[dict[str, object]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "voice.db"
    with open_store(path, busy_timeout_seconds=5.0) as store:
        records = [record(f"ev-{at}", request_summary=summary) for at, summary in enumerate(summaries)]
        store.append([Entry(item) for item in records])
        assert store.verify()[2:] == (None, None)
        assert store.evidence() == records


# Tampering

FORGED = """
INSERT INTO evidence SELECT 4, 'ev-forged', request_id, replace(record, 'ev-3', 'ev-forged'), hash, 'f00d'
FROM evidence WHERE seq = 3
"""


@pytest.fixture
def filled(path: Path) -> Path:
    with open_store(path, busy_timeout_seconds=5.0) as store:
        store.append([Entry(record(f"ev-{at}")) for at in range(1, 8)])
    return path


@pytest.mark.parametrize(
    ("statements", "seq", "fault"),
    [
        (["UPDATE evidence SET record = replace(record, 'created', 'deleted') WHERE seq = 3"], 3, "its text"),
        (["UPDATE evidence SET record = X'FF' || record WHERE seq = 3"], 3, "its text"),
        (["UPDATE evidence SET record = CAST(record AS BLOB) WHERE seq = 3"], 3, "its text"),
        (["DELETE FROM evidence WHERE seq = 4"], 5, "record 4 is missing"),
        (["DELETE FROM evidence WHERE seq = 1"], 2, "record 1 is missing"),
        (
            [
                "UPDATE evidence SET seq = -3 WHERE seq = 3",
                "UPDATE evidence SET seq = 3 WHERE seq = 5",
                "UPDATE evidence SET seq = 5 WHERE seq = -3",
            ],
            3,
            "its link",
        ),
        (
            [
                "UPDATE evidence SET seq = -seq WHERE seq >= 4",
                "UPDATE evidence SET seq = 1 - seq WHERE seq < 0",
                FORGED,
            ],
            4,
            "its text",
        ),
        (["UPDATE evidence SET id = 'ev-other' WHERE seq = 6"], 6, "its columns"),
        (["UPDATE evidence SET request_id = 'voice-other' WHERE seq = 2"], 2, "its columns"),
        (["UPDATE evidence SET hash = upper(hash) WHERE seq = 7"], 7, "its text"),
    ],
    ids=["text", "undecodable", "blob", "removed", "first", "swapped", "inserted", "id", "request", "hash"],
)
def test_tampering_is_found_at_its_place(filled: Path, statements: list[str], seq: int, fault: str) -> None:
    change(filled, *statements)
    with open_to_read(filled) as store:
        found = store.verify()
    assert not found.ok
    assert found.at_seq == seq
    assert fault in str(found.fault)
    assert found.records == min(seq, int(str(found.fault).split()[1]) if "missing" in str(found.fault) else seq) - 1


def test_an_end_that_was_cut_off_shows_in_the_head(filled: Path) -> None:
    with open_to_read(filled) as store:
        noted = store.verify().head
    change(filled, "DELETE FROM evidence WHERE seq = 7")
    change(filled, "DELETE FROM evidence_content WHERE seq = 7")
    with open_to_read(filled) as store:
        found = store.verify()
    assert found.ok
    assert found.head != noted


# Opening


def test_files_and_folder_are_private(store: VoiceStore, path: Path) -> None:
    store.append([Entry(record())])
    modes = {item.name: item.stat().st_mode & 0o777 for item in path.parent.iterdir()}
    assert modes == dict.fromkeys(["voice.db", "voice.db-wal", "voice.db-shm", "voice.db.lock"], 0o600)
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_database_that_others_could_read_is_made_private(filled: Path) -> None:
    filled.chmod(0o644)
    open_store(filled, busy_timeout_seconds=5.0).close()
    assert filled.stat().st_mode & 0o777 == 0o600


def test_commits_are_synced_and_the_journal_is_a_wal(path: Path, opened: list[sqlite3.Connection]) -> None:
    with open_store(path, busy_timeout_seconds=1.0):
        for connection in opened:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
            assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
    assert opened


def test_the_tables_of_the_file_have_the_columns_and_keys_of_the_rows() -> None:
    for table in TABLES:
        stored = schema.metadata.tables[table.name]
        assert tuple(stored.c.keys()) == table.columns
        assert tuple(stored.primary_key.c.keys()) == table.key
    assert len(schema.metadata.tables) == len(TABLES)


def test_the_known_revisions_are_those_of_the_scripts() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_current_head() == schema.HEAD
    assert tuple(script.revision for script in reversed(list(scripts.walk_revisions()))) == schema.REVISIONS


def test_a_new_database_has_the_schema_of_the_migrations(store: VoiceStore, tmp_path: Path) -> None:
    migrated = tmp_path / "migrated.db"
    engine = sa.create_engine(f"sqlite:///{migrated}")
    with engine.begin() as connection:
        migrate(connection)
    engine.dispose()
    assert tables(migrated) == tables(Path(store.place))
    with open_store(migrated, busy_timeout_seconds=5.0) as other:
        other.append([Entry(record(), session(), (event(1),))])
        assert other.verify().records == 1


def test_a_migration_goes_down_to_nothing_and_up_again(tmp_path: Path) -> None:
    path = tmp_path / "there and back.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        before = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        command.downgrade(config, "base")
        assert connection.scalars(sa.text("SELECT name FROM sqlite_master WHERE type = 'table'")).all() == [
            "alembic_version"
        ]
        command.upgrade(config, "head")
        assert connection.exec_driver_sql("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall() == before
    engine.dispose()


@pytest.mark.parametrize("times", [1, 2], ids=["new", "up to date"])
def test_alembic_is_not_imported_to_open_a_database(path: Path, times: int) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom agentos.core.communication.voice.storage.opening import open_store\n"
        f"for _ in range({times}): open_store(Path({str(path)!r}), busy_timeout_seconds=5.0).close()\n"
        "assert 'alembic' not in sys.modules, 'alembic was imported'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_database_of_a_newer_version_is_refused(filled: Path) -> None:
    change(filled, "UPDATE alembic_version SET version_num = '9999'")
    before = filled.read_bytes()
    for opened in (
        lambda: open_store(filled, busy_timeout_seconds=1.0),
        lambda: open_to_read(filled),
    ):
        with pytest.raises(StoreError, match="newer version") as caught:
            opened()
        assert caught.value.kind == "schema"
    assert filled.read_bytes() == before


def test_a_database_of_something_else_is_refused(path: Path) -> None:
    path.parent.mkdir()
    change(path, "CREATE TABLE theirs (x)")
    with pytest.raises(StoreError, match="something else") as caught:
        open_store(path, busy_timeout_seconds=1.0)
    assert caught.value.kind == "schema"


def test_a_file_that_is_no_database_is_refused_and_kept(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("dear diary, " * 500)
    with pytest.raises(StoreError, match="no SQLite database") as caught:
        open_store(path, busy_timeout_seconds=1.0)
    assert caught.value.kind == "corrupt"
    assert path.read_text() == "dear diary, " * 500


def test_a_damaged_database_is_a_store_error(filled: Path) -> None:
    data = bytearray(filled.read_bytes())
    data[4096:] = b"\x55" * (len(data) - 4096)
    filled.write_bytes(data)
    with pytest.raises(StoreError) as caught, open_store(filled, busy_timeout_seconds=1.0) as store:
        store.evidence()
    assert caught.value.kind == "corrupt"


def test_a_damaged_snapshot_is_a_store_error(store: VoiceStore) -> None:
    store.append([Entry(record(), session())])
    change(Path(store.place), "UPDATE sessions SET snapshot = '{}'")
    with pytest.raises(StoreError, match="damaged VoiceSession") as caught:
        store.session("voice-1")
    assert caught.value.kind == "corrupt"


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError) as caught:
        open_store(tmp_path / "file" / "voice.db", busy_timeout_seconds=1.0)
    assert caught.value.kind == "io"


def test_a_closed_store_says_so(path: Path) -> None:
    store = open_store(path, busy_timeout_seconds=1.0)
    store.close()
    store.close()
    for call in (store.probe, store.verify, store.statistics, lambda: store.append([Entry(record())])):
        with pytest.raises(StoreError, match="closed"):
            call()


def test_a_close_under_a_running_call_leaves_no_connection_open(path: Path, opened: list[sqlite3.Connection]) -> None:
    store = open_store(path, busy_timeout_seconds=1.0)
    store.append([Entry(record())])
    with ThreadPoolExecutor(1) as other, store.reading() as reading:
        assert reading.count(EVIDENCE) == 1
        other.submit(store.close).result(PATIENCE_SECONDS)
        assert reading.count(EVIDENCE) == 1
    assert_all_closed(opened)


def test_a_failed_opening_leaves_no_connection_open(path: Path, opened: list[sqlite3.Connection]) -> None:
    path.parent.mkdir()
    path.write_text("dear diary, " * 500)
    with pytest.raises(StoreError):
        open_store(path, busy_timeout_seconds=1.0)
    assert_all_closed(opened)


# Reading a copy


def test_reading_only_changes_nothing(filled: Path) -> None:
    before = {item.name: item.read_bytes() for item in filled.parent.iterdir()}
    with open_to_read(filled) as store:
        assert store.verify().records == 7
        with pytest.raises(StoreError) as caught:
            store.append([Entry(record("ev-8"))])
        assert caught.value.kind == "readonly"
    assert {item.name: item.read_bytes() for item in filled.parent.iterdir()} == before


def test_reading_only_sees_what_is_in_the_wal(path: Path, tmp_path: Path) -> None:
    with open_store(path, busy_timeout_seconds=5.0) as store:
        store.append([Entry(record())])
        copy = tmp_path / "copy"
        copy.mkdir()
        for name in ("voice.db", "voice.db-wal"):
            (copy / name).write_bytes((path.parent / name).read_bytes())
    before = (copy / "voice.db-wal").read_bytes()
    with open_to_read(copy / "voice.db") as reader:
        assert reader.verify().records == 1
    assert (copy / "voice.db-wal").read_bytes() == before


def test_reading_only_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no database at"):
        open_to_read(tmp_path / "missing.db")
    assert list(tmp_path.iterdir()) == []


def test_reading_only_an_empty_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreError, match="empty database"):
        open_to_read(tmp_path / "empty.db")


# Faults


def test_a_locked_database_is_a_store_error_and_works_again_after(path: Path) -> None:
    with open_store(path, busy_timeout_seconds=0.05) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for call in (store.probe, lambda: store.append([Entry(record())])):
            with pytest.raises(StoreError, match="lock") as caught:
                call()
            assert caught.value.kind == "locked"
            assert isinstance(caught.value, OSError)
        assert store.evidence() == []  # readers are not held up
        other.execute("ROLLBACK")
        other.close()
        store.probe()
        store.append([Entry(record())])
        assert store.verify().records == 1


def test_the_probe_leaves_no_trace(store: VoiceStore) -> None:
    store.append([Entry(record())])
    wal = Path(f"{store.place}-wal")
    before, wal_bytes = store.verify(), wal.stat().st_size
    store.probe()
    assert wal.stat().st_size > wal_bytes  # it did write
    assert store.verify() == before
    assert (store.statistics().records, store.statistics().sessions, store.statistics().events) == (1, 0, 0)


def test_a_full_disk_is_a_store_error_and_nothing_is_half_stored(
    small_disk: Path, fill_disk: Callable[[], Path]
) -> None:
    with open_store(small_disk / "voice.db", busy_timeout_seconds=1.0) as store:
        store.append([Entry(record("ev-0"), session())])
        stuffing = fill_disk()
        stored, failure = 1, None
        while failure is None:
            entries = [Entry(record(f"ev-{stored + at}", request_summary={"text": "x" * 50_000})) for at in range(2)]
            try:
                store.append(entries)
            except StoreError as error:
                failure = error
            else:
                stored += 2
        assert failure.kind == "full"
        assert "disk is full" in str(failure)
        assert store.verify()[:1] + store.verify()[2:] == (stored, None, None)
        stuffing.unlink()
        store.append([Entry(record("ev-after"))])
        assert store.verify().records == stored + 1


APPENDING = """
import sys
from pathlib import Path
from agentos.core.communication.voice.storage.opening import open_store, open_to_read
from agentos.core.communication.voice.storage.tables import EVIDENCE, SESSIONS, TABLES
from agentos.core.communication.voice.storage.store import Entry, VoiceStore
from machines.evidence import EvidenceRecord

store = open_store(Path(sys.argv[1]), busy_timeout_seconds=30.0)
for number in range(int(sys.argv[3])):
    name = f"ev-{sys.argv[2]}-{number}"
    store.append([Entry(EvidenceRecord(id=name, request_id="voice-1", connector_type="custom", operation="test",
                                       created_at="2026-11-22T12:00:00Z"))])
    print(name, flush=True)
"""


def appending(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", APPENDING, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_what_was_acknowledged_survives_a_kill(path: Path) -> None:
    process = appending(path, "victim", 1_000_000)
    assert process.stdout is not None
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    with process.stdout as told:
        lines = [told.readline() for _ in range(30)]
        os.kill(process.pid, signal.SIGKILL)
        lines += told.readlines()
    process.wait(30)
    watchdog.cancel()
    acknowledged = [line.strip() for line in lines if line.endswith("\n")]
    with open_store(path, busy_timeout_seconds=5.0) as store:
        found = store.verify()
        assert found.ok
        ids = [item.id for item in store.evidence()]
        assert ids[: len(acknowledged)] == acknowledged
        assert len(acknowledged) >= 30
        assert found.records - len(acknowledged) in (0, 1)  # the one that was stored but not told yet
        store.append([Entry(record("ev-after"))])
        assert store.verify().records == found.records + 1


def test_two_processes_open_a_new_home_and_append_to_one_chain(path: Path) -> None:
    processes = [appending(path, name, 100) for name in ("one", "two")]
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0]
    with open_store(path, busy_timeout_seconds=5.0) as store:
        found = store.verify()
        assert (found.ok, found.records) == (True, 200)
        for name in ("one", "two"):
            own = [item.id for item in store.evidence() if f"-{name}-" in item.id]
            assert own == [f"ev-{name}-{number}" for number in range(100)]


def test_threads_read_while_one_writes(store: VoiceStore) -> None:
    failures: list[Exception] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                assert store.verify().ok
        except Exception as error:  # noqa: BLE001 - handed to the test's own thread
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(50):
        store.append([Entry(record(f"ev-{number}"))])
    done.set()
    for reader in readers:
        reader.join(30)
    assert failures == []
    assert store.statistics().records == 50
