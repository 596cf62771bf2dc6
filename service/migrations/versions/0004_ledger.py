"""The Ledger in less room: leaves packed against models, openings and touches by number; cosignatures."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

PAGE = 1000


def upgrade() -> None:
    op.create_table(
        "ledger_models",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_ledger_models")),
    )
    op.create_table(
        "cosignatures",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.Column("time", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("size", "name", name=op.f("pk_cosignatures")),
    )
    op.add_column("ledger_heads", sa.Column("time", sa.String(length=24), nullable=False, server_default=""))
    op.execute(
        "UPDATE ledger_heads SET time = coalesce("
        "(SELECT max(time) FROM leaves WHERE leaves.tenant = ledger_heads.tenant), '')"
    )
    op.drop_index("ix_leaves_tenant_time", table_name="leaves")
    op.rename_table("openings", "openings_by_id")
    op.rename_table("touches", "touches_by_id")
    if op.get_bind().dialect.name == "postgresql":  # there the names of constraints are the schema's, not the table's
        op.execute("ALTER TABLE openings_by_id RENAME CONSTRAINT pk_openings TO pk_openings_by_id")
        op.execute("ALTER TABLE touches_by_id RENAME CONSTRAINT pk_touches TO pk_touches_by_id")
    op.create_table(
        "openings",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("r", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "seq", name=op.f("pk_openings")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "touches",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("document", sa.LargeBinary(length=16), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "document", "seq", name=op.f("pk_touches")),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO openings (tenant, seq, r) SELECT old.tenant, leaves.seq, old.r "
        "FROM openings_by_id AS old JOIN leaves ON leaves.id = old.id"
    )
    connection = op.get_bind()
    rows = connection.execute(
        sa.text(
            "SELECT old.tenant, old.document, leaves.seq FROM touches_by_id AS old JOIN leaves ON leaves.id = old.receipt"
        )
    )
    for page in rows.partitions(PAGE):
        found = [{"tenant": row.tenant, "document": bytes.fromhex(row.document), "seq": row.seq} for row in page]
        connection.execute(sa.text("INSERT INTO touches VALUES (:tenant, :document, :seq)"), found)
    op.drop_table("openings_by_id")
    op.drop_table("touches_by_id")
