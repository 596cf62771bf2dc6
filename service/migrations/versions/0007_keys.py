"""KEKs: when a version retired, and by when it is to be destroyed."""

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
