"""What is stored, held against itself: sessions, their records in the chain, their events, and what became of their recordings
(`machines.cross_checks`).

One pass over the tables, each in the order of the session's id, in one view: what a running service stores meanwhile is not
seen.
"""

import heapq
import json
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from agentos.core.communication.voice.storage.chain import contents_at
from agentos.core.communication.voice.storage.database import Reading
from agentos.core.communication.voice.storage.tables import EVENTS, EVIDENCE, RECORDINGS, SESSIONS
from machines.cross_checks import TOLD_OF_AN_END, Mismatch, StoredSession, mismatches
from machines.sealing import unsealed

_SESSION, _RECORD, _EVENT, _RECORDING = range(4)
_TOLD: Final = tuple(f'"event_type":"{kind}"' for kind in TOLD_OF_AN_END)
_UNREADABLE: Final = (AttributeError, KeyError, RecursionError, TypeError, ValueError)


def cross_checked(reading: Reading, *, spilled: bool) -> Iterator[Mismatch]:
    """What disagrees, session by session. `spilled` says that final records may wait in spill files."""
    tables = (_sessions(reading), _records(reading), _events(reading), _recordings(reading))
    for about, group in groupby(heapq.merge(*tables, key=itemgetter(0)), itemgetter(0)):
        found = list(group)
        try:
            stored = _stored(reading, found)
            yield from list(mismatches(about, stored, spilled=spilled))
        except _UNREADABLE:
            yield Mismatch("unreadable", about, "what is stored of it can't be read")


_Row = tuple[str, int, Any]


def _stored(reading: Reading, rows: list[_Row]) -> StoredSession:
    session = next((json.loads(text) for _, kind, text in rows if kind == _SESSION), None)
    links = [link for _, kind, link in rows if kind == _RECORD]
    contents = contents_at(reading, [seq for seq, _ in links])
    records = [unsealed(json.loads(text), contents.get(seq, ())) for seq, text in links]
    events = [json.loads(text) for _, kind, text in rows if kind == _EVENT]
    recording = next((json.loads(text) for _, kind, text in rows if kind == _RECORDING), None)
    return StoredSession(session, records, events, recording)


def _sessions(reading: Reading) -> Iterator[_Row]:
    for row in reading.select(SESSIONS, order=("session_id",)):
        yield row.session_id, _SESSION, row.snapshot


def _records(reading: Reading) -> Iterator[_Row]:
    for row in reading.select(EVIDENCE, order=("request_id", "seq")):
        yield row.request_id, _RECORD, (row.seq, row.record)


def _events(reading: Reading) -> Iterator[_Row]:
    for row in reading.select(EVENTS, order=("session_id", "number")):
        if any(told in str(row.event) for told in _TOLD):
            yield row.session_id, _EVENT, row.event


def _recordings(reading: Reading) -> Iterator[_Row]:
    for row in reading.select(RECORDINGS, order=("session_id",)):
        yield row.session_id, _RECORDING, row.info
