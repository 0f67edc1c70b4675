"""Where the frames of a stream's client lie in its session: pauses that the client's media time told of, and nothing else."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stream_marks",
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("frame", sa.BigInteger(), nullable=False),
        sa.Column("media_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "number"),
    )


def downgrade() -> None:
    op.drop_table("stream_marks")
