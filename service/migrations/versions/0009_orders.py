"""Erasure by the many: orders and legal holds; keys are found by what they are for."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "hold",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("tenant_id", sa.String(63), nullable=False),
        sa.Column("document_id", sa.String(32), nullable=True),
        sa.Column("collection_id", sa.String(32), nullable=True),
        sa.Column("reason", sa.String(200), nullable=False),
        sa.Column("placed", sa.Float(), nullable=False),
        sa.Column("lifted", sa.Float(), nullable=True),
        sa.Column("receipt", sa.String(40), nullable=False),
        sa.CheckConstraint("(document_id IS NULL) <> (collection_id IS NULL)", name=op.f("ck_hold_subject")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hold")),
    )
    op.create_index("ix_hold_tenant_id", "hold", ["tenant_id", "lifted"])
    op.create_table(
        "erasure_order",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("tenant_id", sa.String(63), nullable=False),
        sa.Column("scope", sa.String(12), nullable=False),
        sa.Column("collection_id", sa.String(32), nullable=True),
        sa.Column("rule", sa.String(63), nullable=False),
        sa.Column("documents", sa.Integer(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("done", sa.Float(), nullable=True),
        sa.Column("receipt", sa.String(40), nullable=False),
        sa.Column("completion", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasure_order")),
    )
    op.create_index("ix_erasure_order_tenant_id", "erasure_order", ["tenant_id", "created"])
    op.add_column("document", sa.Column("order_id", sa.String(32), nullable=True))
    ordered = sa.text("order_id IS NOT NULL")
    op.create_index("ix_document_order", "document", ["order_id"], sqlite_where=ordered, postgresql_where=ordered)
    op.create_index("ix_dek_subject_id", "dek", ["subject_id"])
