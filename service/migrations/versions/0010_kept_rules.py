"""Keep whatever was in force, Zones and rules, under the digests that Receipts name.

What was activated before this version is kept at the next start: telling the rules of a set needs the service's code.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "kept_rules",
        sa.Column("digest", sa.String(71), primary_key=True),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("files", sa.Text, nullable=False),
        sa.Column("since", sa.Float, nullable=False),
    )
