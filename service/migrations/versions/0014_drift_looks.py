"""When the drift watch last looked at each Site, so that no finding and no look are told apart."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "drift_look",
        sa.Column("site", sa.String(63), primary_key=True),
        sa.Column("looked", sa.String(24), nullable=False),
    )
