"""The tables of `voice.db`, and the revisions that they went through.

`evidence` is the chain: one row a record, `seq` its place from 1. `sessions` has the last snapshot of each session,
`events` what its listeners were told, `admin_tokens` the hashes of the tokens that raise what may be asked for.

The tables here are those of the last revision. A migration never imports this module: it must mean the same for ever.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, PrimaryKeyConstraint, String, Table, Text

REVISIONS = ("0001",)
"""Every revision, oldest first. It stands here so that an up-to-date database opens without importing alembic."""

HEAD = REVISIONS[-1]

metadata = MetaData()

evidence = Table(
    "evidence",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False, unique=True),
    Column("request_id", Text, nullable=False),
    Column("record", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index("ix_evidence_request_id", "request_id"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("snapshot", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Index("ix_sessions_project_id", "project_id", "created_at"),
    Index("ix_sessions_state", "state", "created_at"),
)

events = Table(
    "events",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("event", Text, nullable=False),
)

admin_tokens = Table(
    "admin_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("revoked_at_ms", BigInteger),
)

alembic_version = Table(
    "alembic_version",
    MetaData(),  # alembic's own table: its migrations must not find it among ours
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
