"""What clients may ask us to keep: attributes of Documents, and replies to be given again."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "document_attributes",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", "version", name=op.f("pk_document_attributes")),
    )
    op.create_table(
        "kept_reply",
        sa.Column("id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("payload", sa.LargeBinary(length=32), nullable=False),
        sa.Column("rules", sa.LargeBinary(length=32), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("created", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_kept_reply")),
    )
    op.create_index("ix_kept_reply_created", "kept_reply", ["created"], unique=False)
    op.create_table(
        "kept_reply_document",
        sa.Column("reply", sa.LargeBinary(length=32), nullable=False),
        sa.Column("document", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("reply", "document", name=op.f("pk_kept_reply_document")),
    )
    op.create_index("ix_kept_reply_document_document", "kept_reply_document", ["document"], unique=False)
