"""Tables of the Keyring: KEK versions, DEKs, wrapped DEKs, and the keysets of search; never a key in clear.

The wrapped key has a table of its own, so that shredding deletes one row and the facts stay.
"""

import sqlalchemy as sa

from residency.database import metadata

kek = sa.Table(
    "kek",
    metadata,
    sa.Column("id", sa.LargeBinary(16), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("jurisdiction", sa.String(255), nullable=False),
    sa.Column("site_id", sa.String(64), nullable=False),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("wraps", sa.BigInteger, nullable=False, default=0),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("destroyed_at", sa.Float),
    sa.Column("retired_at", sa.Float),
    sa.Column("due", sa.Float),
)
"""States: active (one per tenant × jurisdiction × Site), retiring (still opens), retired (nothing left), destroyed.

`due` is by when it is to be destroyed: the horizon after it retired, or sooner, after an erasure of what lay under it.
"""
sa.Index(
    "uq_kek_active",
    kek.c.tenant,
    kek.c.jurisdiction,
    kek.c.site_id,
    unique=True,
    sqlite_where=kek.c.state == "active",
    postgresql_where=kek.c.state == "active",
)

dek = sa.Table(
    "dek",
    metadata,
    sa.Column("id", sa.LargeBinary(16), primary_key=True),
    sa.Column("purpose", sa.String(12), nullable=False),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("jurisdiction", sa.String(255), nullable=False),
    sa.Column("subject_id", sa.LargeBinary(16), nullable=False),
    sa.Column("subject_version", sa.BigInteger, nullable=False),
    sa.Column("suite", sa.SmallInteger, nullable=False),
    sa.Column("kek_id", sa.LargeBinary(16), nullable=False),
    sa.Column("kek_version", sa.Integer, nullable=False),
    sa.Column("commitment", sa.LargeBinary(32), nullable=False),
    sa.Column("tag_digest", sa.LargeBinary(32), nullable=False),
    sa.Column("seals", sa.Integer, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.ForeignKeyConstraint(["kek_id", "kek_version"], ["kek.id", "kek.version"]),
    sa.Index("ix_dek_kek", "kek_id", "kek_version", "id"),
    sa.Index("ix_dek_subject_id", "subject_id"),
    sqlite_with_rowid=False,  # rows in id order, as a rewrap walks them: a twentieth of the bytes written
)
"""`seals` counts messages reserved; `tag_digest` helps diagnosis only, the Tag's row is what an unwrap binds."""

dek_wrapped = sa.Table(
    "dek_wrapped",
    metadata,
    sa.Column("dek_id", sa.LargeBinary(16), sa.ForeignKey("dek.id"), primary_key=True),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

search_keyset = sa.Table(
    "search_keyset",
    metadata,
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("jurisdiction", sa.String(255), primary_key=True),
    sa.Column("site_id", sa.String(64), primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("dimension", sa.Integer, nullable=False),
    sa.Column("vectors_dek", sa.LargeBinary(16), sa.ForeignKey("dek.id"), nullable=False),
    sa.Column("lexicon_dek", sa.LargeBinary(16), sa.ForeignKey("dek.id"), nullable=False),
    sa.Column("tags_dek", sa.LargeBinary(16), sa.ForeignKey("dek.id"), nullable=False),
    sa.Column("matrix", sa.LargeBinary, nullable=False),
    sa.Column("matrix_digest", sa.LargeBinary(32), nullable=False),
    sa.Column("state", sa.String(8), nullable=False, server_default="active"),
    sa.Column("created", sa.Float, nullable=False),
)
"""`matrix` is a sealed file (artefact `rotation`); of a place one epoch is `active`, and while keys are
rolled one more is `coming`, or one `old`: no longer asked, and not yet gone."""
