"""The tables of `voice.db`, and the revisions that they went through.

`evidence` is the chain: one row a record, `seq` its place from 1. `evidence_content` has what of a record is in the chain only
as a hash: `seq` is the record's place, `part` the part of it that was sealed, `value` canonical JSON, and
SHA-256(`salt` followed by `value`) stands in the record. `evidence_before` has the hashes of an older chain that this one was
made from. `sessions` has the last snapshot of each session, `events` what its listeners were told. `tokens` has the hashes of
access tokens, `streams` those of the tokens that streams go on with, and `stream_marks`, by that hash, where the frames of a
stream's client lie in the session. `idempotency_keys` has what was answered to requests that may come again. `recordings` has
what became of a session's recording since its end: its state, and `info`, all that is to be said of it.

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

REVISIONS = ("0001", "0002", "0003", "0004", "0005")
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

evidence_content = Table(
    "evidence_content",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("part", Text, primary_key=True),
    Column("salt", LargeBinary, nullable=False),
    Column("value", Text, nullable=False),
)

evidence_before = Table(
    "evidence_before",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("hash", Text, nullable=False),
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

recordings = Table(
    "recordings",
    metadata,
    Column("recording_id", Text, primary_key=True),
    Column("session_id", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("info", Text, nullable=False),
    Index("ix_recordings_state", "state"),
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

stream_marks = Table(
    "stream_marks",
    metadata,
    Column("stream", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("frame", BigInteger, nullable=False),
    Column("media_ms", BigInteger, nullable=False),
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
