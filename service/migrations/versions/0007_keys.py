"""KEKs: when a version retired, and by when it is to be destroyed; keys lie in the order that a rewrap walks them."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

MONTH = 30 * 86_400.0


def upgrade() -> None:
    op.add_column("kek", sa.Column("retired_at", sa.Float(), nullable=True))
    op.add_column("kek", sa.Column("due", sa.Float(), nullable=True))
    kek = sa.table("kek", *(sa.column(name) for name in ("id", "state", "retired_at", "due")))
    dek = sa.table("dek", *(sa.column(name) for name in ("kek_id", "state")))
    # Nobody wrote down when these retired: their term begins now.
    now = time.time()
    op.execute(kek.update().where(kek.c.state == "retired").values(retired_at=now, due=now + MONTH))
    # Nor when keys were shredded: every version that held one is held to the promise of an erasure from now on.
    shredded = sa.select(dek.c.kek_id).where(dek.c.state == "shredded")
    waiting = (kek.c.state.in_(["active", "retiring"]), kek.c.id.in_(shredded))
    op.execute(kek.update().where(*waiting).values(due=now + MONTH))
    if op.get_bind().dialect.name == "sqlite":
        op.execute("PRAGMA secure_delete=ON")  # wrapped keys move: no copy may stay on a free page
        for table in ("dek", "dek_wrapped"):
            _cluster(table)


def _cluster(table: str) -> None:
    """Lay a SQLite table anew without rowids, so that its rows stand in the order of its primary key."""
    connection = op.get_bind()
    known = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name = ? AND type = ?"
    [[shape]] = connection.exec_driver_sql(known, (table, "table")).all()
    indexes = connection.exec_driver_sql(known, (table, "index")).scalars().all()
    op.execute(shape.replace(f"CREATE TABLE {table} ", f"CREATE TABLE {table}_anew ", 1) + " WITHOUT ROWID")
    op.execute(f"INSERT INTO {table}_anew SELECT * FROM {table} ORDER BY 1")  # noqa: S608 - names of our own
    op.execute(f"DROP TABLE {table}")
    op.execute(f"ALTER TABLE {table}_anew RENAME TO {table}")
    for index in indexes:
        op.execute(index)
