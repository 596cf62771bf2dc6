"""In what form vectors and words of a Collection lie, and which search keys are being made."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("collection", sa.Column("vectors", sa.String(16), nullable=False, server_default="rotated"))
    op.add_column("collection", sa.Column("words", sa.String(8), nullable=False, server_default="auto"))
    op.add_column("search_keyset", sa.Column("state", sa.String(8), nullable=False, server_default="active"))
