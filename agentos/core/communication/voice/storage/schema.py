"""The tables of `voice.db`, and the revisions that they went through.

`evidence` is the chain: one row a record, `seq` its place from 1. `sessions` has the last snapshot of each session,
`events` what its listeners were told. `tokens` has the hashes of access tokens, `streams` those of the tokens that streams
go on with, `idempotency_keys` what was answered to requests that may come again.

The tables here are those of the last revision. A migration never imports this module: it must mean the same for ever.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

REVISIONS = ("0001", "0002")
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
    Index("ix_sessions_created_at", "created_at", "session_id"),
)

events = Table(
    "events",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("event", Text, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("project", Text),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("revoked_at_ms", BigInteger),
    CheckConstraint("role IN ('admin', 'operator', 'auditor', 'project')", name="ck_tokens_role"),
    CheckConstraint("(role = 'project') = (project IS NOT NULL)", name="ck_tokens_project"),
)

streams = Table(
    "streams",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("token_id", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("principal", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("attempt", Text, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("status", Integer),
    Column("headers", Text),
    Column("body", LargeBinary),
    Index("ix_idempotency_keys_expires_at_ms", "expires_at_ms"),
)

alembic_version = Table(
    "alembic_version",
    MetaData(),  # alembic's own table: its migrations must not find it among ours
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
