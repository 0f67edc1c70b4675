"""The store: the evidence chain, sessions, events and recordings, made of the rows that a `Database` keeps.

What is to be stored is encoded before a transaction begins. The head of the chain is read and moved in one transaction, so that
several processes append to one chain.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeVar

from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from agentos.core.communication.voice.errors import StoreError, VoiceError
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
from agentos.core.communication.voice.storage.database import Database, Reading, Writing
from agentos.core.communication.voice.storage.failures import failures
from agentos.core.communication.voice.storage.ownership import Owners
from agentos.core.communication.voice.storage.tables import (
    EVENTS,
    EVIDENCE,
    EVIDENCE_CONTENT,
    RECORDINGS,
    SESSIONS,
    ContentRow,
    EventRow,
    RecordingRow,
    SessionRow,
)
from agentos.core.time import to_ms
from machines.cross_checks import Disagreements, Mismatch
from machines.events import VoiceEvent
from machines.evidence import ChainRow, EvidenceRecord
from machines.heads import Head, HeadCheck
from machines.ledger import Written, deciding_ids, links
from machines.recording import RecordingInfo, RecordingState
from machines.sealing import Content
from machines.session import VoiceSession, VoiceSessionState
from machines.verification import Examination, Verification

M = TypeVar("M", bound=BaseModel)

_RECORDING: Final = TypeAdapter(RecordingInfo, config=ConfigDict(cache_strings="keys"))
_SOUND: Final = (".flac", ".wav")
INTEGER_LIMIT = 2**63  # a stored integer is signed, 64 bit


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
    """How the store is: `records` evidence records in the chain, `sessions` and `events` stored."""

    records: int
    sessions: int
    events: int


class _Encoded(NamedTuple):
    """An entry as its rows, made before the transaction begins."""

    record: EvidenceRecord
    text: str
    contents: Sequence[Content]
    session: SessionRow | None
    events: list[EventRow]
    takes_over: bool
    brought: RecordingRow | None
    became: RecordingRow | None


_PLACES: Final = {
    state.value: place for place, state in enumerate(VoiceSessionState)
}  # in the order a session has them
_STOPPED: Final = VoiceSessionState.STOPPED.value
_OPEN_STATES: Final = [state for state in _PLACES if state != _STOPPED]


class VoiceStore:
    """The store of one home, made of a `database` and of its `owners` (`opening.py` opens both).

    `home` is the folder beside it, where spill files are. `owner` is written beside the sessions that this store makes, so that
    another process can tell whose they are (`ownership.py`). All methods block and may be called from any thread. Every failure
    of the database is a `StoreError`; nothing else leaks. A failed write changed nothing.
    """

    def __init__(self, database: Database, owners: Owners, home: Path, owner: str = "") -> None:
        self._database = database
        self.owners = owners
        self.home = home
        self.owner = owner

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return self._database.place

    def reading(self) -> AbstractContextManager[Reading]:
        """A block with one view of the tables."""
        return self._database.reading()

    def transaction(self) -> AbstractContextManager[Writing]:
        """A block that writes all or nothing."""
        return self._database.transaction()

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
        ids = [known for record in records for known in deciding_ids(record.id)]
        with self.transaction() as writing:
            known = [row.id for row in writing.select(EVIDENCE, {"id": ids})]
            rows = zip(encoded, links(records, known, head_of(writing)), strict=True)
            kept = [(item, row) for item, row in rows if row is not None]
            self._add_links(writing, kept)
            items = [item for item, _ in kept]
            _put_sessions(writing, items)
            _put_recordings(writing, items)
            events = [event for item in items for event in item.events]
            if events:
                writing.add(EVENTS, events)

    def _add_links(self, writing: Writing, kept: Sequence[tuple[_Encoded, ChainRow]]) -> None:
        if not kept:
            return
        if writing.add(EVIDENCE, [row for _, row in kept]) != len(kept):
            raise StoreError(f"{self.place} has a record behind the end of its chain", kind="corrupt")
        contents = [ContentRow(row.seq, *content) for item, row in kept for content in item.contents]
        if contents and writing.add(EVIDENCE_CONTENT, contents) != len(contents):
            raise StoreError(f"{self.place} has a content behind the end of its chain", kind="corrupt")

    def add_recording(self, session_id: str, recording: RecordingInfo) -> bool:
        """Name a recording that the result of its session, which has stopped, does not name; False when it is named already."""
        with self.transaction() as writing:
            if writing.count(RECORDINGS, {"session_id": [session_id]}):
                return False
            return bool(writing.add(RECORDINGS, [_recording_row(session_id, recording)]))

    def unfinished_recordings(self) -> list[tuple[str, RecordingInfo]]:
        """The recordings that are to be packed, each behind the id of its session."""
        return self._recordings(RecordingState.FINISHING)

    def failed_recordings(self) -> list[tuple[str, RecordingInfo]]:
        """The recordings that are damaged, as above."""
        return self._recordings(RecordingState.FAILED)

    def _recordings(self, state: RecordingState) -> list[tuple[str, RecordingInfo]]:
        with self.reading() as reading:
            rows = list(reading.select(RECORDINGS, {"state": [state.value]}, order=("recording_id",)))
        return [(row.session_id, self._info(row.info)) for row in rows]

    def unnamed_recordings(self, session_ids: Collection[str]) -> dict[str, str | None]:
        """Of these sessions those that have no recording to their name: each with its owner once it has stopped, and None for
        one that is not stored at all."""
        wanted = {"session_id": sorted(map(_key, session_ids))}
        with self.reading() as reading:
            known = {row.session_id for row in reading.select(RECORDINGS, wanted)}
            found: dict[str, str | None] = dict.fromkeys(session_ids)
            for row in reading.select(SESSIONS, wanted):
                if row.session_id in known or row.state != _STOPPED or _names_recording(row.snapshot):
                    del found[row.session_id]
                else:
                    found[row.session_id] = row.owner
        return found

    def add_events(self, events: Sequence[VoiceEvent]) -> None:
        """Store events that need no evidence of their own. One whose (session, number) is stored already is skipped."""
        rows = [event_row(event) for event in events]
        if rows:
            with self.transaction() as writing:
                writing.add(EVENTS, rows)

    def session(self, session_id: str) -> VoiceSession | None:
        """The last stored snapshot of a session, or None."""
        with self.reading() as reading:
            found = self._snapshots(reading, reading.select(SESSIONS, {"session_id": [_key(session_id)]}))
        return found[0] if found else None

    def sessions(
        self,
        project_id: str | None = None,
        state: VoiceSessionState | None = None,
    ) -> list[VoiceSession]:
        """Stored snapshots, newest first (by creation, then id); those of one project or in one state when given."""
        return self._sessions(project_id, state)

    def session_page(
        self, project_id: str | None, state: VoiceSessionState | None, limit: int, below: tuple[int, str] | None
    ) -> list[VoiceSession]:
        """At most `limit` stored snapshots in the order of `sessions`, from behind the creation time and id in `below` on."""
        return self._sessions(project_id, state, limit, None if below is None else (below[0], _key(below[1])))

    def _sessions(
        self,
        project_id: str | None,
        state: VoiceSessionState | None,
        limit: int | None = None,
        below: tuple[int, str] | None = None,
    ) -> list[VoiceSession]:
        where: dict[str, list[str]] = {}
        if project_id is not None:
            where["project_id"] = [_key(project_id)]
        if state is not None:
            where["state"] = [state.value]
        order = ("created_at", "session_id")
        with self.reading() as reading:
            rows = reading.select(SESSIONS, where, order=order, descending=True, after=below, limit=limit)
            return self._snapshots(reading, rows)

    def _snapshots(self, reading: Reading, rows: Iterable[SessionRow]) -> list[VoiceSession]:
        """Snapshots, each with what became of the recording."""
        stored = list(rows)
        stopped = [row.session_id for row in stored if row.state == _STOPPED]
        recordings = reading.select(RECORDINGS, {"session_id": stopped}) if stopped else ()
        became = {row.session_id: row.info for row in recordings}
        return [self._snapshot(row.snapshot, became.get(row.session_id)) for row in stored]

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
        found: dict[str, list[VoiceSession]] = {}
        with self.reading() as reading:
            rows = list(reading.select(SESSIONS, {"state": _OPEN_STATES}, order=("created_at", "session_id")))
        for row in rows:
            found.setdefault(row.owner, []).append(self._parsed(VoiceSession, row.snapshot))
        return found

    def sessions_of_the_dead(self) -> list[VoiceSession]:
        """The sessions that are not STOPPED and that nobody owns."""
        return self._sessions_of(dead=True)

    def sessions_of_the_living(self) -> list[VoiceSession]:
        """The sessions that are not STOPPED and run in a process that lives."""
        return self._sessions_of(dead=False)

    def _sessions_of(self, *, dead: bool) -> list[VoiceSession]:
        by_owner = self.unfinished().items()
        return [one for owner, sessions in by_owner if self.owners.is_dead(owner) is dead for one in sessions]

    def events(self, session_id: str, after: int = 0, limit: int | None = None) -> list[VoiceEvent]:
        """The stored events of a session whose number is above `after`, in order; at most `limit`, if given."""
        where = {"session_id": [_key(session_id)]}
        with self.reading() as reading:
            rows = list(reading.select(EVENTS, where, order=("number",), after=(after,), limit=limit))
        return [self._parsed(VoiceEvent, row.event) for row in rows]

    def evidence(self, request_id: str | None = None) -> list[EvidenceRecord]:
        """Evidence records in chain order, those of one request (a session) when given."""
        where = None if request_id is None else {"request_id": [_key(request_id)]}
        with self.reading() as reading:
            found = self._links(reading, reading.select(EVIDENCE, where, order=("seq",)))
        return [link.record for link in found]

    def evidence_page(self, request_id: str, after: int, limit: int) -> list[StoredLink]:
        """At most `limit` links of one request's records behind place `after` of the chain, in order."""
        where = {"request_id": [_key(request_id)]}
        with self.reading() as reading:
            return self._links(reading, reading.select(EVIDENCE, where, order=("seq",), after=(after,), limit=limit))

    def newest_evidence(self, limit: int) -> list[EvidenceRecord]:
        """The last records of the chain, at most `limit`, newest first."""
        with self.reading() as reading:
            found = self._links(reading, reading.select(EVIDENCE, order=("seq",), descending=True, limit=limit))
        return [link.record for link in found]

    def last_evidence(self, request_id: str) -> EvidenceRecord | None:
        """The last record of one request, or None."""
        where = {"request_id": [_key(request_id)]}
        with self.reading() as reading:
            found = self._links(reading, reading.select(EVIDENCE, where, order=("seq",), descending=True, limit=1))
        return found[0].record if found else None

    def evidence_record(self, record_id: str) -> EvidenceRecord | None:
        """The evidence record with this id, or None."""
        with self.reading() as reading:
            found = self._links(reading, reading.select(EVIDENCE, {"id": [_key(record_id)]}))
        return found[0].record if found else None

    def _links(self, reading: Reading, rows: Iterable[ChainRow]) -> list[StoredLink]:
        try:
            return links_of(reading, rows)
        except DAMAGED as error:
            problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise StoreError(f"{self.place} holds a damaged EvidenceRecord: {problem}", kind="corrupt") from error

    def head(self) -> Head:
        """Where the evidence chain ends; to be noted somewhere else."""
        with self.reading() as reading:
            return head_of(reading)

    def states_of(self, heads: Collection[Head]) -> list[HeadCheck]:
        """What became of noted heads, by the hashes at their places alone; whether the links hold takes a walk."""
        with self.reading() as reading:
            return states_of(reading, heads)

    def verify(self) -> Verification:
        """Walk the whole evidence chain, and say where it first breaks, if it does."""
        return self.examine().chain

    def examine(self, heads: Collection[Head] = ()) -> Examination:
        """Walk the whole evidence chain, and hold it against `heads` that were noted elsewhere."""
        self._database.check()
        with self._database.reading(damaged=True) as reading:
            return walk(reading, heads)

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
        self._database.check()
        with failures(self.home):
            spilled = any(self.home.glob("*.spill"))
        with self.reading() as reading:
            yield from cross_checked(reading, spilled=spilled)

    def probe(self) -> None:
        """Make durable a row that is gone again when the transaction ends; raises `StoreError` as any write would."""
        row = EventRow("", 0, "")
        with self.transaction() as writing:
            writing.add(EVENTS, [row])
            writing.delete(EVENTS, [(row.session_id, row.number)])

    def check_in_place(self) -> None:
        """Whether the database is still where others find it. Raises `StoreError` "gone" when nobody would find what is
        written."""
        self._database.check()

    def statistics(self) -> StoreStatistics:
        """How much is stored; counts the rows, so it is for people and scrapes, not for each call."""
        with self.reading() as reading:
            return StoreStatistics(head_of(reading).seq, reading.count(SESSIONS), reading.count(EVENTS))

    def close(self) -> None:
        """Close the database. Later calls raise `StoreError`; a second close does nothing."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

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
            problem = f"{self.place} holds a damaged recording: {error.errors()[0]['msg']}"
            raise StoreError(problem, kind="corrupt") from error

    def _parsed(self, model: type[M], text: str) -> M:
        try:
            return model.model_validate_json(text)
        except ValidationError as error:
            problem = f"{self.place} holds a damaged {model.__name__}: {error.errors()[0]['msg']}"
            raise StoreError(problem, kind="corrupt") from error


def _put_sessions(writing: Writing, items: Sequence[_Encoded]) -> None:
    """Store the snapshots of these entries, in order: each unless its session is further on."""
    wanted = {item.session.session_id for item in items if item.session is not None}
    if not wanted:
        return
    rows = {row.session_id: row for row in writing.select(SESSIONS, {"session_id": sorted(wanted)})}
    for item in items:
        new = item.session
        if new is None:
            continue
        stored = rows.get(new.session_id, new)
        owner = new.owner if item.takes_over else stored.owner
        further_on = _PLACES[new.state] >= _PLACES.get(stored.state, len(_PLACES))
        rows[new.session_id] = (new if further_on else stored)._replace(owner=owner)
    writing.put(SESSIONS, list(rows.values()))


def _put_recordings(writing: Writing, items: Sequence[_Encoded]) -> None:
    brought = {item.brought.session_id: item.brought for item in items if item.brought is not None}
    if brought:
        named = {row.session_id for row in writing.select(RECORDINGS, {"session_id": list(brought)})}
        writing.add(RECORDINGS, [row for session_id, row in brought.items() if session_id not in named])
    became = {item.became.recording_id: item.became for item in items if item.became is not None}
    if became:
        stored = writing.select(RECORDINGS, {"recording_id": list(became)})
        changed = [(row, became[row.recording_id]) for row in stored]
        writing.put(RECORDINGS, [row._replace(state=new.state, info=new.info) for row, new in changed])


def _names_recording(snapshot: str) -> bool:
    """Whether the result of a session names its recording, as a file."""
    try:
        path = json.loads(snapshot)["result"]["recording"]["path"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return False
    return isinstance(path, str) and Path(path).suffix in _SOUND


def _brought(session: VoiceSession) -> RecordingRow | None:
    """The row of the recording that a stopped session brings with it."""
    recording = None if session.result is None else session.result.recording
    if recording is None or recording.state is not RecordingState.FINISHING:
        return None
    return _recording_row(session.session_id, recording)


def _recording_row(session_id: str, recording: RecordingInfo) -> RecordingRow:
    info = _RECORDING.dump_json(recording).decode()
    return RecordingRow(recording.recording_id, session_id, recording.state.value, info)


def _session_row(session: VoiceSession, owner: str) -> SessionRow:
    return SessionRow(
        session.session_id,
        session.project_id,
        session.state.value,
        to_ms(session.created_at),
        session.model_dump_json(),
        owner,
    )


def event_row(event: VoiceEvent) -> EventRow:
    """An event as its row. Raises `BadEntry` for one that can't be written."""
    if not -INTEGER_LIMIT <= event.number < INTEGER_LIMIT:
        raise BadEntry("", f"the event number {event.number} is out of range")
    try:
        return EventRow(event.session_id, event.number, event.model_dump_json())
    except (TypeError, ValueError, RecursionError) as error:
        raise BadEntry("", f"the event {event.event_id!r} is not JSON: {error}") from error


def _key(text: str) -> str:
    """The text to look for: a lone surrogate is in no stored text, and can't be looked for."""
    return text.encode("utf-8", "backslashreplace").decode()
