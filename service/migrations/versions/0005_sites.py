"""Sites: what the last probe of each found; Documents: which version a moved one came from."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "site_state",
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("remedy", sa.Text(), nullable=False),
        sa.Column("since", sa.String(length=24), nullable=False),
        sa.Column("probed", sa.String(length=24), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("site", name=op.f("pk_site_state")),
    )
    op.add_column("document", sa.Column("moved_from", sa.Integer(), nullable=True))
    op.drop_index("ix_document_ready", table_name="document")
    ready = sa.text(
        "state IN ('sealed', 'parsed', 'tagged', 'split', 'embedded', 'indexed', 'replaced', 'erasing', 'moving')"
    )
    op.create_index(
        "ix_document_ready",
        "document",
        ["tenant_id", "not_before"],
        unique=False,
        sqlite_where=ready,
        postgresql_where=ready,
    )
