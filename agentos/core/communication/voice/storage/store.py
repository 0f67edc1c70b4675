"""The store: evidence, sessions and events in one SQLite file that all processes of one home share.

Every write is one `BEGIN IMMEDIATE` transaction, so the head of the evidence chain is read and moved under the
database's own write lock and several processes append to one chain. `synchronous=FULL` with WAL makes a return mean
durable.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import sqlalchemy as sa
from pydantic import BaseModel, ValidationError
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.engine import Connection, Engine

from agentos.core.communication.voice.errors import StoreError, VoiceError
from agentos.core.communication.voice.storage import schema
from agentos.core.communication.voice.storage.failures import failures
from agentos.core.communication.voice.storage.opening import beside, open_database, open_to_read
from agentos.core.time import to_ms
from machines.events import VoiceEvent
from machines.evidence import ChainRow, EvidenceRecord, Verification, canonical_json, verify
from machines.ledger import Head, Written, deciding_ids, links
from machines.session import VoiceSession, VoiceSessionState

M = TypeVar("M", bound=BaseModel)

READ_BATCH_ROWS = 500  # a walk along the chain holds this many rows at once
INTEGER_LIMIT = 2**63  # SQLite's integers are signed, 64 bit


class BadEntry(VoiceError, ValueError):
    """An entry that can never be stored: it can't be written as JSON, or a number is out of range. Nothing was stored.

    `record_id` is the id of its evidence record, empty for an event that was added on its own; `problem` says what can't be.
    """

    def __init__(self, record_id: str, problem: str) -> None:
        super().__init__(f"the entry {record_id!r} can't be stored: {problem}")
        self.record_id = record_id
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Entry:
    """What becomes durable together: one evidence record, the session as it then was, and the events that tell of it.

    With `takes_over` the session belongs to whoever stores it from then on.
    """

    record: EvidenceRecord
    session: VoiceSession | None = None
    events: tuple[VoiceEvent, ...] = ()
    takes_over: bool = False


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """How the store is.

    `records` evidence records in the chain; `sessions` and `events` stored; `database_bytes` and `wal_bytes` on disk.
    """

    records: int
    sessions: int
    events: int
    database_bytes: int
    wal_bytes: int


class StoredLink(NamedTuple):
    """A link of the evidence chain as it is stored: its place, the hash of the one before it, its own, and its record."""

    seq: int
    previous: str
    hash: str
    record: EvidenceRecord


class _Encoded(NamedTuple):
    """An entry as its rows, made before the write lock is taken."""

    record: EvidenceRecord
    text: str
    session: dict[str, Any] | None
    events: list[dict[str, Any]]
    takes_over: bool


_STATES = [state.value for state in VoiceSessionState]  # in the order a session goes through them
_STORED_IDS = sa.select(schema.evidence.c.id).where(
    schema.evidence.c.id.in_(sa.select(sa.func.json_each(sa.bindparam("ids")).table_valued("value").c.value))
)
_HEAD = sa.select(schema.evidence.c.seq, schema.evidence.c.hash).order_by(schema.evidence.c.seq.desc()).limit(1)


def _compiled(statement: Insert) -> str:
    """The SQL of an insert with named parameters: binding rows through a statement object costs 7 us each."""
    return str(statement.compile(dialect=sqlite.dialect(paramstyle="named")))


def _session_upsert() -> Insert:
    def place(state: Any) -> Any:
        return sa.case(
            *((state == sa.literal_column(f"'{name}'"), sa.literal_column(str(at))) for at, name in enumerate(_STATES))
        )

    statement = sqlite.insert(schema.sessions)
    new, stored = statement.excluded, schema.sessions.c
    return statement.on_conflict_do_update(
        index_elements=[stored.session_id],
        set_={name: new[name] for name in ("project_id", "state", "created_at", "snapshot")},
        where=place(new.state) >= place(stored.state),
    )


_ADD_RECORD = _compiled(sqlite.insert(schema.evidence))
_ADD_EVENT = _compiled(sqlite.insert(schema.events).on_conflict_do_nothing())
_UPSERT_SESSION = _compiled(_session_upsert())
_TAKE_OVER = "UPDATE sessions SET owner = :owner WHERE session_id = :session_id"


class VoiceStore:
    """The database of one home. Made by `open` or `open_read_only`.

    All methods block, for at most the busy timeout plus the time of the disk, and may be called from any thread. Every
    failure of SQLite or the file system is a `StoreError`; nothing else leaks. A failed write changed nothing.
    """

    def __init__(self, engine: Engine, path: Path, owner: str) -> None:
        self._engine = engine
        self._pool = engine.pool
        self._writing = engine.execution_options(immediate=True)
        self._closed = False
        self.owner = owner
        self.path = path

    @classmethod
    def open(cls, path: Path, *, busy_timeout_seconds: float, owner: str = "") -> Self:
        """Open the database at `path`, making the folder (mode 0700) and the file (0600) when they are missing.

        A new database gets the newest schema, an older one is migrated; two processes that open one home at once both
        succeed. `busy_timeout_seconds` bounds each wait for another process's lock. `owner` is written beside the
        sessions that this store makes, so that another process can tell whose they are (`ownership.py`). Raises
        `StoreError`: "schema" for a database of a newer version or of something else, "corrupt" for a file that is no
        database.
        """
        path = Path(path).absolute()
        return cls(open_database(path, busy_timeout_seconds), path, owner)

    @classmethod
    def open_read_only(cls, path: Path, *, busy_timeout_seconds: float = 5.0) -> Self:
        """Open a database, or a copy of one, only to look at it: nothing is created, migrated or changed.

        With a `-wal` file beside it that file is read too; SQLite may then make the `-shm` file that it shares with
        other readers. Raises `StoreError` when there is no such file, or it is not a database of this or an older
        version.
        """
        path = Path(path).absolute()
        return cls(open_to_read(path, busy_timeout_seconds), path, owner="")

    def append(self, entries: Sequence[Entry], owner: str | None = None) -> None:
        """Make `entries` durable, in order, in one transaction: all of them or none.

        Each record is linked to the chain; its session snapshot replaces an earlier one, never a later one (a STOPPED
        session stays STOPPED); its events are added. What `machines.ledger` keeps out is skipped as a whole: an entry whose
        record id is already stored, so that a retry is harmless, and one behind its session's final record. New sessions
        belong to `owner`, if given, and keep it until an entry takes them over. Raises `BadEntry` (naming the record) before
        anything is written, or `StoreError`.
        """
        encoded = [self._encoded(entry, self.owner if owner is None else owner) for entry in entries]
        if not encoded:
            return
        records = [Written(item.record.id, item.record.request_id, item.text) for item in encoded]
        ids = json.dumps([known for record in records for known in deciding_ids(record.id)])
        with self.transaction() as connection:
            known = connection.scalars(_STORED_IDS, {"ids": ids})
            head = connection.execute(_HEAD).first()
            rows: list[dict[str, Any]] = []
            snapshots: list[dict[str, Any]] = []
            events: list[dict[str, Any]] = []
            taken: list[dict[str, Any]] = []
            found = links(records, known, Head() if head is None else Head(head.seq, head.hash))
            for item, row in zip(encoded, found, strict=True):
                if row is None:
                    continue
                rows.append(row._asdict())
                if item.session is not None:
                    snapshots.append(item.session)
                    if item.takes_over:
                        taken.append({name: item.session[name] for name in ("owner", "session_id")})
                events += item.events
            if rows:
                connection.exec_driver_sql(_ADD_RECORD, rows)
            if snapshots:
                connection.exec_driver_sql(_UPSERT_SESSION, snapshots)
            if taken:
                connection.exec_driver_sql(_TAKE_OVER, taken)
            if events:
                connection.exec_driver_sql(_ADD_EVENT, events)

    def add_events(self, events: Sequence[VoiceEvent]) -> None:
        """Store events that need no evidence of their own. One whose (session, number) is stored already is skipped."""
        rows = [_event_row(event) for event in events]
        if rows:
            with self.transaction() as connection:
                connection.exec_driver_sql(_ADD_EVENT, rows)

    def session(self, session_id: str) -> VoiceSession | None:
        """The last stored snapshot of a session, or None."""
        query = sa.select(schema.sessions.c.snapshot).where(schema.sessions.c.session_id == _key(session_id))
        with self.reading() as connection:
            text = connection.scalar(query)
        return None if text is None else self._parsed(VoiceSession, text)

    def sessions(
        self,
        project_id: str | None = None,
        state: VoiceSessionState | None = None,
    ) -> list[VoiceSession]:
        """Stored snapshots, newest first (by creation, then id); those of one project or in one state when given."""
        table = schema.sessions.c
        query = sa.select(table.snapshot).order_by(table.created_at.desc(), table.session_id.desc())
        if project_id is not None:
            query = query.where(table.project_id == _key(project_id))
        if state is not None:
            query = query.where(table.state == state.value)
        with self.reading() as connection:
            texts = connection.scalars(query).all()
        return [self._parsed(VoiceSession, text) for text in texts]

    def session_page(
        self, project_id: str | None, state: VoiceSessionState | None, limit: int, below: tuple[int, str] | None
    ) -> list[VoiceSession]:
        """At most `limit` stored snapshots in the order of `sessions`, from behind the creation time and id in `below` on."""
        table = schema.sessions.c
        query = sa.select(table.snapshot).order_by(table.created_at.desc(), table.session_id.desc()).limit(limit)
        if project_id is not None:
            query = query.where(table.project_id == _key(project_id))
        if state is not None:
            query = query.where(table.state == state.value)
        if below is not None:
            query = query.where(sa.tuple_(table.created_at, table.session_id) < (below[0], _key(below[1])))
        with self.reading() as connection:
            texts = connection.scalars(query).all()
        return [self._parsed(VoiceSession, text) for text in texts]

    def unfinished(self) -> dict[str, list[VoiceSession]]:
        """The stored sessions that are not STOPPED, by their owner, oldest first."""
        table = schema.sessions.c
        open_states = [state for state in _STATES if state != VoiceSessionState.STOPPED.value]
        query = sa.select(table.owner, table.snapshot).where(table.state.in_(open_states))
        found: dict[str, list[VoiceSession]] = {}
        with self.reading() as connection:
            rows = connection.execute(query.order_by(table.created_at, table.session_id)).all()
        for owner, text in rows:
            found.setdefault(owner, []).append(self._parsed(VoiceSession, text))
        return found

    def events(self, session_id: str, after: int = 0, limit: int | None = None) -> list[VoiceEvent]:
        """The stored events of a session whose number is above `after`, in order; at most `limit`, if given."""
        table = schema.events.c
        query = sa.select(table.event).where(table.session_id == _key(session_id), table.number > after)
        with self.reading() as connection:
            texts = connection.scalars(query.order_by(table.number).limit(limit)).all()
        return [self._parsed(VoiceEvent, text) for text in texts]

    def evidence(self, request_id: str | None = None) -> list[EvidenceRecord]:
        """Evidence records in chain order, those of one request (a session) when given."""
        table = schema.evidence.c
        query = sa.select(table.record).order_by(table.seq)
        if request_id is not None:
            query = query.where(table.request_id == _key(request_id))
        return self._records(query)

    def evidence_page(self, request_id: str, after: int, limit: int) -> list[StoredLink]:
        """At most `limit` links of one request's records behind place `after` of the chain, in order."""
        table = schema.evidence.c
        query = (
            sa.select(table.seq, table.previous, table.hash, table.record)
            .where(table.request_id == _key(request_id), table.seq > after)
            .order_by(table.seq)
            .limit(limit)
        )
        with self.reading() as connection:
            rows = connection.execute(query).all()
        return [StoredLink(seq, previous, own, self._parsed(EvidenceRecord, text)) for seq, previous, own, text in rows]

    def newest_evidence(self, limit: int) -> list[EvidenceRecord]:
        """The last records of the chain, at most `limit`, newest first."""
        table = schema.evidence.c
        return self._records(sa.select(table.record).order_by(table.seq.desc()).limit(limit))

    def _records(self, query: sa.Select[str]) -> list[EvidenceRecord]:
        with self.reading() as connection:
            texts = connection.scalars(query).all()
        return [self._parsed(EvidenceRecord, text) for text in texts]

    def evidence_record(self, record_id: str) -> EvidenceRecord | None:
        """The evidence record with this id, or None."""
        query = sa.select(schema.evidence.c.record).where(schema.evidence.c.id == _key(record_id))
        with self.reading() as connection:
            text = connection.scalar(query)
        return None if text is None else self._parsed(EvidenceRecord, text)

    def verify(self) -> Verification:
        """Walk the whole evidence chain, with bounded memory for rows, and say where it first breaks, if it does."""
        table = schema.evidence.c
        query = sa.select(table.seq, table.id, table.request_id, table.record, table.previous, table.hash)
        with self.reading() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - narrows the type
            # A text that was made undecodable is a broken link at its place, not a failure to read.
            driver.text_factory = _decoded
            try:
                rows = connection.execution_options(yield_per=READ_BATCH_ROWS).execute(query.order_by(table.seq))
                return verify(ChainRow(*row) for row in rows)
            finally:
                driver.text_factory = str

    def probe(self) -> None:
        """Write and sync something that leaves no trace; raises `StoreError` as a real write would.

        It commits the database's (unused) user version: a write that is rolled back stays in memory in WAL mode, and
        would not notice a full disk.
        """
        with self.transaction() as connection:
            connection.exec_driver_sql("PRAGMA user_version = 0")

    def statistics(self) -> StoreStatistics:
        """How much is stored; counts the rows, so it is for people and scrapes, not for each call."""
        with self.reading() as connection:
            records = connection.scalar(sa.select(sa.func.max(schema.evidence.c.seq))) or 0
            sessions = connection.scalar(sa.select(sa.func.count()).select_from(schema.sessions)) or 0
            events = connection.scalar(sa.select(sa.func.count()).select_from(schema.events)) or 0
        wal = beside(self.path, "-wal")
        with failures(self.path):
            return StoreStatistics(
                records=records,
                sessions=sessions,
                events=events,
                database_bytes=self.path.stat().st_size,
                wal_bytes=wal.stat().st_size if wal.exists() else 0,
            )

    def close(self) -> None:
        """Close the connections. Later calls raise `StoreError`; a second close does nothing.

        A call that is still running in another thread ends as it would have, and closes its connection itself.
        """
        self._closed = True
        with failures(self.path):
            self._pool.dispose()  # the engine's own dispose makes a new pool, which nobody would close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One `BEGIN IMMEDIATE` transaction: committed at the end of the block, rolled back when it raises."""
        with self._opened(), self._writing.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection with one consistent view of the database, for reading."""
        with self._opened(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _opened(self) -> Iterator[None]:
        if self._closed:
            raise StoreError(f"the store {self.path} is closed", kind="io")
        try:
            with failures(self.path):
                yield
        finally:
            if self._closed:  # meanwhile, by another thread: the pool has the connection back
                self._pool.dispose()

    def _encoded(self, entry: Entry, owner: str) -> _Encoded:
        record = entry.record
        try:
            text = canonical_json(record)
            text.encode()  # a lone surrogate is legal in str, but neither in UTF-8 nor in the chain
            session = None if entry.session is None else _session_row(entry.session, owner)
            return _Encoded(record, text, session, [_event_row(event) for event in entry.events], entry.takes_over)
        except BadEntry as error:
            raise BadEntry(record.id, error.problem) from error
        except (TypeError, ValueError, RecursionError) as error:
            raise BadEntry(record.id, str(error)) from error

    def _parsed(self, model: type[M], text: str) -> M:
        try:
            return model.model_validate_json(text)
        except ValidationError as error:
            problem = f"{self.path} holds a damaged {model.__name__}: {error.errors()[0]['msg']}"
            raise StoreError(problem, kind="corrupt") from error


def _session_row(session: VoiceSession, owner: str) -> dict[str, Any]:
    return {
        "session_id": session.session_id,
        "project_id": session.project_id,
        "state": session.state.value,
        "created_at": to_ms(session.created_at),
        "snapshot": session.model_dump_json(),
        "owner": owner,
    }


def _event_row(event: VoiceEvent) -> dict[str, Any]:
    if not -INTEGER_LIMIT <= event.number < INTEGER_LIMIT:
        raise BadEntry("", f"the event number {event.number} is out of range")
    try:
        return {"session_id": event.session_id, "number": event.number, "event": event.model_dump_json()}
    except (TypeError, ValueError, RecursionError) as error:
        raise BadEntry("", f"the event {event.event_id!r} is not JSON: {error}") from error


def _key(text: str) -> str:
    """The text to look for: a lone surrogate is in no stored text, and SQLite would refuse to look for it."""
    return text.encode("utf-8", "backslashreplace").decode()


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")
