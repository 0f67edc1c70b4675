"""The database held against itself: sessions, their records in the chain, their events, and what became of their recordings
(`machines.cross_checks`).

One pass over the tables, each in the order of the session's id, in one transaction: what a running service stores
meanwhile is not seen.
"""

import heapq
import json
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from agentos.core.communication.voice.storage import schema
from agentos.core.communication.voice.storage.chain import READ_BATCH_ROWS, contents_at
from machines.cross_checks import TOLD_OF_AN_END, Mismatch, Stored, mismatches
from machines.sealing import unsealed

_SESSION, _RECORD, _EVENT, _RECORDING = range(4)
_UNREADABLE: Final = (AttributeError, KeyError, RecursionError, TypeError, ValueError)


def cross_checked(connection: Connection, revision: str, *, spilled: bool) -> Iterator[Mismatch]:
    """What disagrees in a database of this revision, session by session. `spilled` says that final records may wait in spill
    files."""
    sealed = revision not in schema.UNSEALED
    tables = [_sessions(connection), _records(connection), _events(connection)]
    if revision not in schema.WITHOUT_RECORDINGS:
        tables.append(_recordings(connection))
    rows = heapq.merge(*tables, key=itemgetter(0))
    for about, group in groupby(rows, itemgetter(0)):
        found = list(group)
        try:
            stored = _stored(connection, found, sealed=sealed)
            yield from list(mismatches(about, stored, spilled=spilled))
        except _UNREADABLE:
            yield Mismatch("unreadable", about, "what is stored of it can't be read")


_Row = tuple[str, int, Any]


def _stored(connection: Connection, rows: list[_Row], *, sealed: bool) -> Stored:
    session = next((json.loads(text) for _, kind, text in rows if kind == _SESSION), None)
    links = [link for _, kind, link in rows if kind == _RECORD]
    contents = contents_at(connection, [seq for seq, _ in links]) if sealed else {}
    records = [unsealed(json.loads(text), contents.get(seq, ())) for seq, text in links]
    events = [json.loads(text) for _, kind, text in rows if kind == _EVENT]
    recording = next((json.loads(text) for _, kind, text in rows if kind == _RECORDING), None)
    return Stored(session, records, events, recording)


def _sessions(connection: Connection) -> Iterator[_Row]:
    table = schema.sessions.c
    for row in _read(connection, sa.select(table.session_id, table.snapshot).order_by(table.session_id)):
        yield row.session_id, _SESSION, row.snapshot


def _records(connection: Connection) -> Iterator[_Row]:
    table = schema.evidence.c
    query = sa.select(table.request_id, table.seq, table.record).order_by(table.request_id, table.seq)
    for row in _read(connection, query):
        yield row.request_id, _RECORD, (row.seq, row.record)


def _events(connection: Connection) -> Iterator[_Row]:
    table = schema.events.c
    told = [table.event.contains(f'"event_type":"{kind}"') for kind in TOLD_OF_AN_END]
    query = sa.select(table.session_id, table.event).where(sa.or_(*told)).order_by(table.session_id, table.number)
    for row in _read(connection, query):
        yield row.session_id, _EVENT, row.event


def _recordings(connection: Connection) -> Iterator[_Row]:
    table = schema.recordings.c
    for row in _read(connection, sa.select(table.session_id, table.info).order_by(table.session_id)):
        yield row.session_id, _RECORDING, row.info


def _read(connection: Connection, query: sa.Select[Any]) -> Iterator[Any]:
    yield from connection.execution_options(yield_per=READ_BATCH_ROWS).execute(query)
