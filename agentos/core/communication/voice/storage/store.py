"""The store: evidence, sessions and events in one SQLite file that all processes of one home share.

Every write is one `BEGIN IMMEDIATE` transaction, so the head of the evidence chain is read and moved under the
database's own write lock and several processes append to one chain. `synchronous=FULL` with WAL makes a return mean
durable.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar

import sqlalchemy as sa
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.engine import Connection, Engine

from agentos.core.communication.voice.errors import StoreError, VoiceError
from agentos.core.communication.voice.storage import schema
from agentos.core.communication.voice.storage.chain import (
    DAMAGED,
    StoredLink,
    chained,
    head_of,
    links_of,
    states_of,
    walk,
)
from agentos.core.communication.voice.storage.cross_checks import cross_checked
from agentos.core.communication.voice.storage.failures import failed, failures, gone
from agentos.core.communication.voice.storage.opening import beside, open_database, open_to_read
from agentos.core.time import to_ms
from machines.cross_checks import Disagreements, Mismatch
from machines.events import VoiceEvent
from machines.evidence import EvidenceRecord
from machines.heads import Head, HeadCheck
from machines.ledger import Written, deciding_ids, links
from machines.recording import RecordingInfo, RecordingState
from machines.sealing import Content
from machines.session import VoiceSession, VoiceSessionState
from machines.verification import Examination, Verification

M = TypeVar("M", bound=BaseModel)

_RECORDING: Final = TypeAdapter(RecordingInfo, config=ConfigDict(cache_strings="keys"))
_SOUND: Final = (".flac", ".wav")
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

    With `takes_over` the session belongs to whoever stores it from then on. A session that has stopped brings its recording
    with it, while that is not ready. `recording` is what became of one that was brought so.
    """

    record: EvidenceRecord
    session: VoiceSession | None = None
    events: tuple[VoiceEvent, ...] = ()
    takes_over: bool = False
    recording: RecordingInfo | None = None


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


class _Encoded(NamedTuple):
    """An entry as its rows, made before the write lock is taken."""

    record: EvidenceRecord
    text: str
    contents: Sequence[Content]
    session: dict[str, Any] | None
    events: list[dict[str, Any]]
    takes_over: bool
    brought: dict[str, Any] | None
    became: dict[str, Any] | None


_STATES = [state.value for state in VoiceSessionState]  # in the order a session goes through them
_STORED_IDS = sa.select(schema.evidence.c.id).where(
    schema.evidence.c.id.in_(sa.select(sa.func.json_each(sa.bindparam("ids")).table_valued("value").c.value))
)


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
_ADD_CONTENT = _compiled(sqlite.insert(schema.evidence_content))
_ADD_EVENT = _compiled(sqlite.insert(schema.events).on_conflict_do_nothing())
_UPSERT_SESSION = _compiled(_session_upsert())
_ADD_RECORDING = _compiled(sqlite.insert(schema.recordings).on_conflict_do_nothing())
_SET_RECORDING = "UPDATE recordings SET state = :state, info = :info WHERE recording_id = :recording_id"
_TAKE_OVER = "UPDATE sessions SET owner = :owner WHERE session_id = :session_id"


class VoiceStore:
    """The database of one home. Made by `open` or `open_read_only`.

    All methods block, for at most the busy timeout plus the time of the disk, and may be called from any thread. Every
    failure of SQLite or the file system is a `StoreError`; nothing else leaks. A failed write changed nothing.
    """

    def __init__(self, engine: Engine, path: Path, owner: str, revision: str = schema.HEAD) -> None:
        self._engine = engine
        self._revision = revision
        self._sealed = revision not in schema.UNSEALED
        self._recordings_apart = revision not in schema.WITHOUT_RECORDINGS
        self._pool = engine.pool
        self._writing = engine.execution_options(immediate=True)
        self._closed = False
        self.owner = owner
        self.path = path
        self._file = _file_at(path)

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
        engine, revision = open_to_read(path, busy_timeout_seconds)
        return cls(engine, path, "", revision)

    def append(self, entries: Sequence[Entry], owner: str | None = None) -> None:
        """Make `entries` durable, in order, in one transaction: all of them or none.

        Each record is linked to the chain, its personal content sealed and stored beside it; its session snapshot replaces an
        earlier one, never a later one (a STOPPED session stays STOPPED); its events are added. What `machines.ledger` keeps out
        is skipped as a whole: an entry whose record id is already stored, so that a retry is harmless, and one behind its
        session's final record. New sessions belong to `owner`, if given, and keep it until an entry takes them over. Raises
        `BadEntry` (naming the record) before anything is written, or `StoreError`.
        """
        encoded = [self._encoded(entry, self.owner if owner is None else owner) for entry in entries]
        if not encoded:
            return
        records = [Written(item.record.id, item.record.request_id, item.text) for item in encoded]
        ids = json.dumps([known for record in records for known in deciding_ids(record.id)])
        with self.transaction() as connection:
            known = connection.scalars(_STORED_IDS, {"ids": ids})
            rows = zip(encoded, links(records, known, head_of(connection)), strict=True)
            kept = [(item, row) for item, row in rows if row is not None]
            items = [item for item, _ in kept]
            contents = [{"seq": row.seq, **content._asdict()} for item, row in kept for content in item.contents]
            for statement, values in (
                (_ADD_RECORD, [row._asdict() for _, row in kept]),
                (_ADD_CONTENT, contents),
                (_UPSERT_SESSION, [item.session for item in items if item.session is not None]),
                (_TAKE_OVER, [_owned(item.session) for item in items if item.session is not None and item.takes_over]),
                (_ADD_RECORDING, [item.brought for item in items if item.brought is not None]),
                (_SET_RECORDING, [item.became for item in items if item.became is not None]),
                (_ADD_EVENT, [event for item in items for event in item.events]),
            ):
                if values:
                    connection.exec_driver_sql(statement, values)

    def add_recording(self, session_id: str, recording: RecordingInfo) -> bool:
        """Name a recording that the result of its session, which has stopped, does not name; False when it is named already."""
        with self.transaction() as connection:
            added = connection.exec_driver_sql(_ADD_RECORDING, _recording_row(session_id, recording))
            return bool(added.rowcount)

    def unfinished_recordings(self) -> list[tuple[str, RecordingInfo]]:
        """The recordings that are to be packed, each behind the id of its session."""
        return self._recordings(RecordingState.FINISHING)

    def failed_recordings(self) -> list[tuple[str, RecordingInfo]]:
        """The recordings that are damaged, as above."""
        return self._recordings(RecordingState.FAILED)

    def _recordings(self, state: RecordingState) -> list[tuple[str, RecordingInfo]]:
        if not self._recordings_apart:
            return []
        table = schema.recordings.c
        query = sa.select(table.session_id, table.info).where(table.state == state.value)
        with self.reading() as connection:
            rows = connection.execute(query.order_by(table.recording_id)).all()
        return [(session_id, self._info(text)) for session_id, text in rows]

    def unnamed_recordings(self, session_ids: Collection[str]) -> dict[str, str | None]:
        """Of these sessions those that have no recording to their name: each with its owner once it has stopped, and None for
        one that is not stored at all."""
        wanted = sa.select(sa.func.json_each(json.dumps(sorted(session_ids))).table_valued("value").c.value)
        table = schema.sessions.c
        path = sa.func.json_extract(table.snapshot, "$.result.recording.path")
        query = sa.select(table.session_id, table.state, table.owner, path).where(table.session_id.in_(wanted))
        with self.reading() as connection:
            rows = connection.execute(query).all()
            known: set[str] = set()
            if self._recordings_apart:
                known.update(connection.scalars(sa.select(schema.recordings.c.session_id)))
        found: dict[str, str | None] = dict.fromkeys(session_ids)
        for session_id, state, owner, file in rows:
            named = file is not None and Path(file).suffix in _SOUND
            if named or session_id in known or state != VoiceSessionState.STOPPED.value:
                del found[session_id]
            else:
                found[session_id] = owner
        return found

    def add_events(self, events: Sequence[VoiceEvent]) -> None:
        """Store events that need no evidence of their own. One whose (session, number) is stored already is skipped."""
        rows = [event_row(event) for event in events]
        if rows:
            with self.transaction() as connection:
                connection.exec_driver_sql(_ADD_EVENT, rows)

    def session(self, session_id: str) -> VoiceSession | None:
        """The last stored snapshot of a session, or None."""
        found = self._snapshots(self._of_sessions().where(schema.sessions.c.session_id == _key(session_id)))
        return found[0] if found else None

    def sessions(
        self,
        project_id: str | None = None,
        state: VoiceSessionState | None = None,
    ) -> list[VoiceSession]:
        """Stored snapshots, newest first (by creation, then id); those of one project or in one state when given."""
        table = schema.sessions.c
        query = self._of_sessions().order_by(table.created_at.desc(), table.session_id.desc())
        if project_id is not None:
            query = query.where(table.project_id == _key(project_id))
        if state is not None:
            query = query.where(table.state == state.value)
        return self._snapshots(query)

    def session_page(
        self, project_id: str | None, state: VoiceSessionState | None, limit: int, below: tuple[int, str] | None
    ) -> list[VoiceSession]:
        """At most `limit` stored snapshots in the order of `sessions`, from behind the creation time and id in `below` on."""
        table = schema.sessions.c
        query = self._of_sessions().order_by(table.created_at.desc(), table.session_id.desc()).limit(limit)
        if project_id is not None:
            query = query.where(table.project_id == _key(project_id))
        if state is not None:
            query = query.where(table.state == state.value)
        if below is not None:
            query = query.where(sa.tuple_(table.created_at, table.session_id) < (below[0], _key(below[1])))
        return self._snapshots(query)

    def _of_sessions(self) -> sa.Select[Any]:
        """Snapshots, each with what became of the recording."""
        sessions, recordings = schema.sessions, schema.recordings
        if not self._recordings_apart:
            return sa.select(sessions.c.snapshot, sa.null())
        both = sessions.outerjoin(recordings, sessions.c.session_id == recordings.c.session_id)
        return sa.select(sessions.c.snapshot, recordings.c.info).select_from(both)

    def _snapshots(self, query: sa.Select[Any]) -> list[VoiceSession]:
        with self.reading() as connection:
            rows = connection.execute(query).all()
        return [self._snapshot(text, recording) for text, recording in rows]

    def _snapshot(self, text: str, recording: str | None) -> VoiceSession:
        session = self._parsed(VoiceSession, text)
        if recording is None or session.result is None:
            return session
        info, named = self._info(recording), session.result.recording
        if named is not None and named.recording_id:  # what it is stands in the final record
            info = replace(named, state=info.state)
        result = replace(session.result, recording=info)
        return session.model_copy(update={"result": result})

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
        query = sa.select(schema.evidence).order_by(schema.evidence.c.seq)
        if request_id is not None:
            query = query.where(schema.evidence.c.request_id == _key(request_id))
        return [link.record for link in self._links(query)]

    def evidence_page(self, request_id: str, after: int, limit: int) -> list[StoredLink]:
        """At most `limit` links of one request's records behind place `after` of the chain, in order."""
        table = schema.evidence.c
        query = sa.select(schema.evidence).where(table.request_id == _key(request_id), table.seq > after)
        return self._links(query.order_by(table.seq).limit(limit))

    def newest_evidence(self, limit: int) -> list[EvidenceRecord]:
        """The last records of the chain, at most `limit`, newest first."""
        query = sa.select(schema.evidence).order_by(schema.evidence.c.seq.desc()).limit(limit)
        return [link.record for link in self._links(query)]

    def last_evidence(self, request_id: str) -> EvidenceRecord | None:
        """The last record of one request, or None."""
        table = schema.evidence.c
        query = (
            sa.select(schema.evidence).where(table.request_id == _key(request_id)).order_by(table.seq.desc()).limit(1)
        )
        found = self._links(query)
        return found[0].record if found else None

    def evidence_record(self, record_id: str) -> EvidenceRecord | None:
        """The evidence record with this id, or None."""
        found = self._links(sa.select(schema.evidence).where(schema.evidence.c.id == _key(record_id)))
        return found[0].record if found else None

    def _links(self, query: sa.Select[Any]) -> list[StoredLink]:
        with self.reading() as connection:
            try:
                return links_of(connection, query, sealed=self._sealed)
            except DAMAGED as error:
                problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
                raise StoreError(f"{self.path} holds a damaged EvidenceRecord: {problem}", kind="corrupt") from error

    def head(self) -> Head:
        """Where the evidence chain ends; to be noted somewhere else."""
        with self.reading() as connection:
            return head_of(connection)

    def states_of(self, heads: Collection[Head]) -> list[HeadCheck]:
        """What became of noted heads, by the hashes at their places alone; whether the links hold takes a walk."""
        with self.reading() as connection:
            return states_of(connection, heads, sealed=self._sealed)

    def verify(self) -> Verification:
        """Walk the whole evidence chain, and say where it first breaks, if it does."""
        return self.examine().chain

    def examine(self, heads: Collection[Head] = ()) -> Examination:
        """Walk the whole evidence chain, and hold it against `heads` that were noted elsewhere."""
        self.check_in_place()
        with self.reading() as connection:
            return walk(connection, heads, sealed=self._sealed)

    def cross_check(self) -> list[Mismatch]:
        """Hold sessions, events and the chain against each other: what disagrees. Whether the chain holds is `examine`."""
        return list(self._disagreeing())

    def disagreements(self, most: int) -> Disagreements:
        """The same, of which at most so many are kept."""
        first: list[Mismatch] = []
        total = 0
        for mismatch in self._disagreeing():
            total += 1
            if total <= most:
                first.append(mismatch)
        return Disagreements(tuple(first), total)

    def _disagreeing(self) -> Iterator[Mismatch]:
        self.check_in_place()
        with failures(self.path):
            spilled = any(self.path.parent.glob("*.spill"))
        with self.reading() as connection:
            yield from cross_checked(connection, self._revision, spilled=spilled)

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

    def check_in_place(self) -> None:
        """Whether the database is still the file that was opened. Raises `StoreError` "gone" when it was deleted, moved or
        replaced: what is written to it then is nowhere."""
        found = _file_at(self.path)
        if found != self._file:
            raise gone(self.path, "was deleted or moved" if found is None else "was replaced by another file")

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One `BEGIN IMMEDIATE` transaction: committed at the end of the block, rolled back when it raises. Raises as
        `check_in_place` does, also when the file went meanwhile."""
        with self._opened():
            self.check_in_place()
            with self._writing.begin() as connection:
                yield connection
            self.check_in_place()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection with one consistent view of the database, for reading.

        What was there can be read also after the file has gone, as long as this store is open: calls that run are to be seen
        and stopped.
        """
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
            text, contents = chained(record)
            session = None if entry.session is None else _session_row(entry.session, owner)
            events = [event_row(event) for event in entry.events]
            brought = None if entry.session is None else _brought(entry.session)
            became = None if entry.recording is None else _recording_row("", entry.recording)
            return _Encoded(record, text, contents, session, events, entry.takes_over, brought, became)
        except BadEntry as error:
            raise BadEntry(record.id, error.problem) from error
        except (TypeError, ValueError, RecursionError) as error:
            raise BadEntry(record.id, str(error)) from error

    def _info(self, text: str) -> RecordingInfo:
        try:
            return _RECORDING.validate_json(text)
        except ValidationError as error:
            problem = f"{self.path} holds a damaged recording: {error.errors()[0]['msg']}"
            raise StoreError(problem, kind="corrupt") from error

    def _parsed(self, model: type[M], text: str) -> M:
        try:
            return model.model_validate_json(text)
        except ValidationError as error:
            problem = f"{self.path} holds a damaged {model.__name__}: {error.errors()[0]['msg']}"
            raise StoreError(problem, kind="corrupt") from error


def _owned(session: dict[str, Any]) -> dict[str, Any]:
    return {name: session[name] for name in ("owner", "session_id")}


def _brought(session: VoiceSession) -> dict[str, Any] | None:
    """The row of the recording that a stopped session brings with it."""
    recording = None if session.result is None else session.result.recording
    if recording is None or recording.state is not RecordingState.FINISHING:
        return None
    return _recording_row(session.session_id, recording)


def _recording_row(session_id: str, recording: RecordingInfo) -> dict[str, Any]:
    return {
        "recording_id": recording.recording_id,
        "session_id": session_id,
        "state": recording.state.value,
        "info": _RECORDING.dump_json(recording).decode(),
    }


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file is at `path`, None if none is. Raises `StoreError` when that can't be told."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise failed(path, error) from error
    return found.st_dev, found.st_ino


def _session_row(session: VoiceSession, owner: str) -> dict[str, Any]:
    return {
        "session_id": session.session_id,
        "project_id": session.project_id,
        "state": session.state.value,
        "created_at": to_ms(session.created_at),
        "snapshot": session.model_dump_json(),
        "owner": owner,
    }


def event_row(event: VoiceEvent) -> dict[str, Any]:
    """An event as its row. Raises `BadEntry` for one that can't be written."""
    if not -INTEGER_LIMIT <= event.number < INTEGER_LIMIT:
        raise BadEntry("", f"the event number {event.number} is out of range")
    try:
        return {"session_id": event.session_id, "number": event.number, "event": event.model_dump_json()}
    except (TypeError, ValueError, RecursionError) as error:
        raise BadEntry("", f"the event {event.event_id!r} is not JSON: {error}") from error


def _key(text: str) -> str:
    """The text to look for: a lone surrogate is in no stored text, and SQLite would refuse to look for it."""
    return text.encode("utf-8", "backslashreplace").decode()
