"""From support to confidence: numbers per collection, model and language."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "calibration",
        sa.Column("collection", sa.String(length=32), nullable=False),
        sa.Column("language", sa.String(length=8), nullable=False),
        sa.Column("model", sa.String(length=80), nullable=False),
        *(
            sa.Column(name, sa.Float(), nullable=False)
            for name in ("slope", "intercept", "threshold", "error", "answered", "falsely")
        ),
        sa.Column("pairs", sa.Integer(), nullable=False),
        sa.Column("passages", sa.Integer(), nullable=False),
        sa.Column("made", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("collection", "language", "model", name=op.f("pk_calibration")),
    )
