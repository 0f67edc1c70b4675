"""Evidence without personal content: the chain is made anew, once, with the content of its records beside it.

The first record of the new chain names the head of the older one, whose hashes are kept. All is one transaction, so that
whoever dies over it leaves the older chain as it was.
"""

import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import chain

import sqlalchemy as sa
from alembic import op

from agentos.core.communication.voice.storage.chain import Chained, chained
from agentos.core.time import utc_now
from machines.carry_over import CarriedOver, Hashes, carried
from machines.evidence import ChainRow, canonical_json, link
from machines.heads import GENESIS
from machines.sealing import Content, unsealed
from machines.verification import verify

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BATCH_ROWS = 500
ROWS = (
    "SELECT seq, id, request_id, record, previous, hash FROM evidence WHERE ? IS NULL OR seq > ? ORDER BY seq LIMIT ?"
)


def upgrade() -> None:
    op.create_table(
        "evidence_content",
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", "part"),
    )
    op.create_table(
        "evidence_before",
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    database = _database()
    database.text_factory = _decoded  # a text that was made undecodable is carried over as it can be read
    try:
        older = _older_chain(database)
        if older is not None:
            op.execute("INSERT INTO evidence_before (seq, hash) SELECT seq, hash FROM evidence")
            at = utc_now()
            first = older.record(at, f"audit-{secrets.token_hex(8)}")
            records = chain([first.model_dump(mode="json")], (carried(row, at) for row in _rows(database)))
            _make_anew(database, map(chained, records))
    finally:
        database.text_factory = str


def downgrade() -> None:
    database = _database()
    _make_anew(database, (Chained(text, ()) for text in _whole_records(database)))
    for table in ("evidence_before", "evidence_content"):
        op.drop_table(table)


def _older_chain(database: sqlite3.Connection) -> CarriedOver | None:
    """What is to be said of the chain as it is; None when it has no records."""
    last = database.execute("SELECT seq, hash FROM evidence ORDER BY seq DESC LIMIT 1").fetchone()
    if last is None:
        return None
    found, hashes, count = verify(_rows(database)), Hashes(), 0
    for (own,) in database.execute("SELECT hash FROM evidence ORDER BY seq"):
        hashes.add(own)
        count += 1
    place, head = last
    return CarriedOver(count, found.records, place, head, hashes.text, found.fault, found.at_seq)


def _make_anew(database: sqlite3.Connection, records: Iterable[Chained]) -> None:
    """Put a chain of `records` in the place of the one that is there, which they may be read from meanwhile."""
    op.create_table(
        "evidence_anew",
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("previous", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
    )
    previous = GENESIS
    for seq, (text, contents) in enumerate(records, 1):
        record, own = json.loads(text), link(previous, text)
        row = (seq, record["id"], record["request_id"], text, previous, own)
        database.execute("INSERT INTO evidence_anew VALUES (?, ?, ?, ?, ?, ?)", row)
        beside = [(seq, *content) for content in contents]
        database.executemany("INSERT INTO evidence_content VALUES (?, ?, ?, ?)", beside)
        previous = own
    op.drop_table("evidence")
    op.rename_table("evidence_anew", "evidence")
    op.create_index("ix_evidence_request_id", "evidence", ["request_id"])


def _rows(database: sqlite3.Connection) -> Iterator[ChainRow]:
    at = None
    while True:
        rows = database.execute(ROWS, (at, at, BATCH_ROWS)).fetchall()
        if not rows:
            return
        yield from (ChainRow(*row) for row in rows)
        at = rows[-1][0]


def _whole_records(database: sqlite3.Connection) -> Iterator[str]:
    for row in _rows(database):
        query = "SELECT part, salt, value FROM evidence_content WHERE seq = ?"
        contents = [Content(*found) for found in database.execute(query, (row.seq,)).fetchall()]
        yield canonical_json(unsealed(json.loads(row.record), contents))


def _database() -> sqlite3.Connection:
    database = op.get_bind().connection.driver_connection
    assert isinstance(database, sqlite3.Connection)  # noqa: S101 - narrows the type
    return database


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")
