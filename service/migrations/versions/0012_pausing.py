"""Pausing a tenant's work; Passages' size and overlap by collection."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tenant_turn", sa.Column("paused", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("collection", sa.Column("passage_words", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("collection", sa.Column("overlap_words", sa.Integer(), nullable=False, server_default="0"))
