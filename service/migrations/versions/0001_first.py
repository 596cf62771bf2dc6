"""The first tables: documents, keys, Ledger, accounts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("time", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_checkpoints")),
    )
    op.create_table(
        "collection",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("model", sa.String(length=80), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_collection")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_collection_tenant_id")),
    )
    op.create_table(
        "document",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.String(length=63), nullable=False),
        sa.Column("collection_id", sa.String(length=32), nullable=False),
        sa.Column("name_mac", sa.LargeBinary(), nullable=False),
        sa.Column("name_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("jurisdiction", sa.String(length=200), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("tag_pending", sa.Text(), nullable=True),
        sa.Column("tag_digest", sa.String(length=64), nullable=False),
        sa.Column("tag_class", sa.Integer(), nullable=False),
        sa.Column("claim_digest", sa.LargeBinary(), nullable=False),
        sa.Column("groups", sa.Text(), nullable=False),
        sa.Column("site_id", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("state_seq", sa.Integer(), nullable=False),
        sa.Column("cause", sa.String(length=40), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(length=80), nullable=True),
        sa.Column("lease_epoch", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.Float(), nullable=True),
        sa.Column("not_before", sa.Float(), nullable=False),
        sa.Column("search_epoch", sa.Integer(), nullable=False),
        sa.Column("dek_id", sa.LargeBinary(), nullable=False),
        sa.Column("artefact_id", sa.LargeBinary(), nullable=False),
        sa.Column("content_mac", sa.LargeBinary(), nullable=False),
        sa.Column("media_type", sa.String(length=100), nullable=False),
        sa.Column("language", sa.String(length=8), nullable=False),
        sa.Column("languages", sa.Text(), nullable=False),
        sa.Column("bytes_total", sa.BigInteger(), nullable=False),
        sa.Column("bytes_done", sa.BigInteger(), nullable=False),
        sa.Column("pages", sa.Integer(), nullable=False),
        sa.Column("passages_total", sa.Integer(), nullable=False),
        sa.Column("passages_done", sa.Integer(), nullable=False),
        sa.Column("receipt", sa.String(length=40), nullable=False),
        sa.Column("error_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("evidence_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("certificate", sa.Text(), nullable=True),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name=op.f("ck_document_lease")),
        sa.PrimaryKeyConstraint("id", "version", name=op.f("pk_document")),
    )
    op.create_index("ix_document_listed", "document", ["tenant_id", "created"], unique=False)
    op.create_index("ix_document_name", "document", ["collection_id", "name_mac"], unique=False)
    op.create_index(
        "ix_document_ready",
        "document",
        ["tenant_id", "not_before"],
        unique=False,
        sqlite_where=sa.text(
            "state IN ('sealed', 'parsed', 'tagged', 'split', 'embedded', 'indexed', 'replaced', 'erasing')"
        ),
        postgresql_where=sa.text(
            "state IN ('sealed', 'parsed', 'tagged', 'split', 'embedded', 'indexed', 'replaced', 'erasing')"
        ),
    )
    op.create_index("ix_document_state", "document", ["tenant_id", "state"], unique=False)
    op.create_table(
        "document_points",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("points", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", "version", "epoch", name=op.f("pk_document_points")),
    )
    op.create_table(
        "kek",
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("jurisdiction", sa.String(length=255), nullable=False),
        sa.Column("site_id", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("wraps", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("destroyed_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", "version", name=op.f("pk_kek")),
    )
    op.create_index(
        "uq_kek_active",
        "kek",
        ["tenant", "jurisdiction", "site_id"],
        unique=True,
        sqlite_where=sa.text("state = 'active'"),
        postgresql_where=sa.text("state = 'active'"),
    )
    op.create_table(
        "leaves",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("time", sa.String(length=24), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leaves")),
        sa.UniqueConstraint("index", name=op.f("uq_leaves_index")),
        sa.UniqueConstraint("tenant", "seq", name=op.f("uq_leaves_tenant")),
    )
    op.create_index(
        "ix_leaves_pending",
        "leaves",
        ["tenant", "seq"],
        unique=False,
        sqlite_where=sa.text('"index" IS NULL'),
        postgresql_where=sa.text('"index" IS NULL'),
    )
    op.create_index("ix_leaves_tenant_time", "leaves", ["tenant", "time"], unique=False)
    op.create_table(
        "ledger_hashes",
        sa.Column("place", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("place", name=op.f("pk_ledger_hashes")),
    )
    op.create_table(
        "ledger_heads",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_ledger_heads")),
    )
    op.create_table(
        "openings",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("r", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_openings")),
    )
    op.create_table(
        "tag_class",
        sa.Column("tenant_id", sa.String(length=63), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "number", name=op.f("pk_tag_class")),
        sa.UniqueConstraint("tenant_id", "digest", name=op.f("uq_tag_class_tenant_id")),
    )
    op.create_table(
        "tenant",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("ceiling", sa.JSON(), nullable=False),
        sa.Column("zone", sa.String(length=16), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenant")),
    )
    op.create_table(
        "tenant_turn",
        sa.Column("tenant_id", sa.String(length=63), nullable=False),
        sa.Column("spent_ms", sa.Float(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_tenant_turn")),
    )
    op.create_table(
        "touches",
        sa.Column("receipt", sa.String(length=36), nullable=False),
        sa.Column("document", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("receipt", "document", name=op.f("pk_touches")),
    )
    op.create_index("ix_touches_tenant_document", "touches", ["tenant", "document"], unique=False)
    op.create_table(
        "api_key",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("groups", sa.JSON(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=True),
        sa.Column("revoked", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("fk_api_key_tenant_tenant")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_key_hash")),
    )
    op.create_index(op.f("ix_api_key_tenant"), "api_key", ["tenant"], unique=False)
    op.create_table(
        "dek",
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("purpose", sa.String(length=12), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("jurisdiction", sa.String(length=255), nullable=False),
        sa.Column("subject_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("subject_version", sa.BigInteger(), nullable=False),
        sa.Column("suite", sa.SmallInteger(), nullable=False),
        sa.Column("kek_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("kek_version", sa.Integer(), nullable=False),
        sa.Column("commitment", sa.LargeBinary(length=32), nullable=False),
        sa.Column("tag_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("seals", sa.Integer(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.ForeignKeyConstraint(["kek_id", "kek_version"], ["kek.id", "kek.version"], name=op.f("fk_dek_kek_id_kek")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dek")),
    )
    op.create_index("ix_dek_kek", "dek", ["kek_id", "kek_version", "id"], unique=False)
    op.create_table(
        "dek_wrapped",
        sa.Column("dek_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["dek_id"], ["dek.id"], name=op.f("fk_dek_wrapped_dek_id_dek")),
        sa.PrimaryKeyConstraint("dek_id", name=op.f("pk_dek_wrapped")),
    )
    op.create_table(
        "search_keyset",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("jurisdiction", sa.String(length=255), nullable=False),
        sa.Column("site_id", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column("vectors_dek", sa.LargeBinary(length=16), nullable=False),
        sa.Column("lexicon_dek", sa.LargeBinary(length=16), nullable=False),
        sa.Column("tags_dek", sa.LargeBinary(length=16), nullable=False),
        sa.Column("matrix", sa.LargeBinary(), nullable=False),
        sa.Column("matrix_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["lexicon_dek"], ["dek.id"], name=op.f("fk_search_keyset_lexicon_dek_dek")),
        sa.ForeignKeyConstraint(["tags_dek"], ["dek.id"], name=op.f("fk_search_keyset_tags_dek_dek")),
        sa.ForeignKeyConstraint(["vectors_dek"], ["dek.id"], name=op.f("fk_search_keyset_vectors_dek_dek")),
        sa.PrimaryKeyConstraint("tenant", "jurisdiction", "site_id", "epoch", name=op.f("pk_search_keyset")),
    )
