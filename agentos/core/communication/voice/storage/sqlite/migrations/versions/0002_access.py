"""Roles and projects on tokens, tokens that streams go on with, idempotency keys, and pages of sessions.

Tokens move to a table of another name: a process of the version before would take each of them for an admin's, and finds none
instead.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEPT = "id, hash, name, created_at_ms, expires_at_ms, revoked_at_ms"


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("role IN ('admin', 'operator', 'auditor', 'project')", name="ck_tokens_role"),
        sa.CheckConstraint("(role = 'project') = (project IS NOT NULL)", name="ck_tokens_project"),
        sa.UniqueConstraint("hash"),
    )
    op.execute(f"INSERT INTO tokens ({KEPT}, role) SELECT {KEPT}, 'admin' FROM admin_tokens")  # noqa: S608 - a constant
    op.drop_table("admin_tokens")
    op.create_table(
        "streams",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("token_id", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("session_id"),
        sa.UniqueConstraint("hash"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Text(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("headers", sa.Text(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("principal", "key"),
    )
    op.create_index("ix_idempotency_keys_expires_at_ms", "idempotency_keys", ["expires_at_ms"])
    op.create_index("ix_sessions_created_at", "sessions", ["created_at", "session_id"])


def downgrade() -> None:
    op.drop_index("ix_sessions_created_at", "sessions")
    op.create_table(
        "admin_tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
    )
    # Tokens of other roles are gone: the version before knows admins only.
    op.execute(f"INSERT INTO admin_tokens ({KEPT}) SELECT {KEPT} FROM tokens WHERE role = 'admin'")  # noqa: S608
    for table in ("tokens", "streams", "idempotency_keys"):
        op.drop_table(table)
