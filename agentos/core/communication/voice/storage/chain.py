"""The evidence chain as it stands in the database: records read with their contents in their places, and walks along it.

What is chained of a record has no personal content (`machines.sealing`); that stands in a table of its own, and is joined again
here. A database of a version before that, which is only read, has its records whole.
"""

import json
import secrets
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.engine import Connection

from agentos.core.communication.voice.storage import schema
from machines.evidence import ChainRow, EvidenceRecord, canonical_json
from machines.heads import GENESIS, Head, HeadCheck, HeadState
from machines.sealing import SALT_BYTES, Content, seal, split, unsealed
from machines.verification import Beside, Examination, examine

READ_BATCH_ROWS = 500  # a walk along the chain holds this many rows at once


class StoredLink(NamedTuple):
    """A link of the evidence chain as it is stored.

    `seq` is its place, `previous` the hash of the one before it, `hash` its own, made of that and `text`. `record` has the
    `contents` in their places again that stand beside the chain.
    """

    seq: int
    previous: str
    hash: str
    record: EvidenceRecord
    text: str
    contents: tuple[Content, ...] = ()


class Chained(NamedTuple):
    """A record as it is to be chained, and what is to stand beside it."""

    text: str
    contents: Sequence[Content]


def chained(record: EvidenceRecord | dict[str, Any]) -> Chained:
    """The text of a record with its content sealed. Raises `TypeError` or `ValueError` for what JSON or UTF-8 can't say."""
    whole = record.model_dump(mode="json") if isinstance(record, EvidenceRecord) else record
    plain, apart = split(whole)
    values = {part: canonical_json(members) for part, members in apart.items()}
    contents = seal(plain, values, [secrets.token_bytes(SALT_BYTES) for _ in values])
    text = canonical_json(plain)
    text.encode()  # a lone surrogate is legal in str, but neither in UTF-8 nor in the chain
    return Chained(text, contents)


def head_of(connection: Connection) -> Head:
    """Where the chain ends."""
    table = schema.evidence.c
    row = connection.execute(sa.select(table.seq, table.hash).order_by(table.seq.desc()).limit(1)).first()
    return Head() if row is None else Head(row.seq, row.hash)


def states_of(connection: Connection, heads: Collection[Head], *, sealed: bool) -> list[HeadCheck]:
    """What became of noted heads, by the hashes that stand at their places; that the links hold takes a walk."""
    end = head_of(connection)
    places = json.dumps([head.seq for head in heads])
    here, before = _hashes(connection, schema.evidence, places), {}
    if sealed:
        before = _hashes(connection, schema.evidence_before, places)
    here[0] = GENESIS
    return [HeadCheck(head, _state(head, end, here.get(head.seq), before.get(head.seq))) for head in heads]


def _hashes(connection: Connection, table: sa.Table, places: str) -> dict[int, str]:
    listed = sa.select(sa.func.json_each(places).table_valued("value").c.value)
    rows = connection.execute(sa.select(table.c.seq, table.c.hash).where(table.c.seq.in_(listed)))
    return {row.seq: row.hash for row in rows}


def _state(head: Head, end: Head, here: str | None, before: str | None) -> HeadState:
    if here == head.hash:
        return HeadState.HOLDS
    if before == head.hash:
        return HeadState.BEFORE_CARRY_OVER
    return HeadState.CUT if head.seq > end.seq else HeadState.DIFFERS


def links_of(connection: Connection, query: sa.Select[Any], *, sealed: bool) -> list[StoredLink]:
    """The links that `query` chooses of the table, in its order. Raises `ValidationError` or `ValueError` for a damaged one.

    The connection is in a transaction; `sealed` is false for a database of a version that sealed nothing.
    """
    table = schema.evidence.c
    chosen = query.with_only_columns(table.seq, table.previous, table.hash, table.record, maintain_column_froms=True)
    rows = connection.execute(chosen).all()
    contents = contents_at(connection, [row.seq for row in rows]) if sealed else {}
    return [_link(*row, tuple(contents.get(row.seq, ()))) for row in rows]


def _link(seq: int, previous: str, own: str, text: str, contents: tuple[Content, ...]) -> StoredLink:
    if not contents:
        return StoredLink(seq, previous, own, EvidenceRecord.model_validate_json(text), text)
    whole = json.dumps(unsealed(json.loads(text), contents))  # from JSON, as pydantic reads it there
    return StoredLink(seq, previous, own, EvidenceRecord.model_validate_json(whole), text, contents)


def contents_at(connection: Connection, places: list[int]) -> dict[int, list[Content]]:
    """The contents beside the records at these places that are not erased, by place."""
    table = schema.evidence_content.c
    listed = sa.select(sa.func.json_each(json.dumps(places)).table_valued("value").c.value)
    found: dict[int, list[Content]] = {}
    for seq, content in _read_contents(connection, sa.select(*table).where(table.seq.in_(listed))):
        found.setdefault(seq, []).append(content)
    return found


def _read_contents(connection: Connection, query: sa.Select[Any]) -> Iterator[tuple[int, Content]]:
    table = schema.evidence_content.c
    rows = connection.execution_options(yield_per=READ_BATCH_ROWS).execute(query.order_by(table.seq, table.part))
    for row in rows:
        yield row.seq, Content(row.part, row.salt, str(row.value))


def walk(connection: Connection, heads: Collection[Head], *, sealed: bool) -> Examination:
    """Walk the whole chain, with bounded memory for rows, and say where it first breaks, if it does."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - narrows the type
    # A text that was made undecodable is a broken link at its place, not a failure to read.
    driver.text_factory = _decoded
    try:
        beside = Beside(_read_contents(connection, sa.select(*schema.evidence_content.c)), _older(connection))
        return examine(_rows(connection), beside if sealed else None, heads)
    finally:
        driver.text_factory = str


def _rows(connection: Connection) -> Iterator[ChainRow]:
    table = schema.evidence.c
    query = sa.select(table.seq, table.id, table.request_id, table.record, table.previous, table.hash)
    for row in connection.execution_options(yield_per=READ_BATCH_ROWS).execute(query.order_by(table.seq)):
        yield ChainRow(*row)


def _older(connection: Connection) -> Iterator[Head]:
    table = schema.evidence_before.c
    query = sa.select(table.seq, table.hash).order_by(table.seq)
    for row in connection.execution_options(yield_per=READ_BATCH_ROWS).execute(query):
        yield Head(row.seq, row.hash)


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")


DAMAGED = (RecursionError, ValidationError, ValueError)
"""What reading a link of the chain raises that was altered."""
