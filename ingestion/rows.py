"""Rows: the table of Document versions, which is the workers' queue as well.

Rules kept here: a row holds ids, counters, codes, keyed MACs and sealed fields, never content, a name in clear, or an
exception's text. `jurisdiction` is the origin that keys and AAD were made for; `tag_pending` a narrower Tag that the
key may already be wrapped for; `claim_digest` tells two claims apart; `artefact_id` names the original's write run;
`moved_from` is the version at another Site that this one is a copy of; `order_id` the order by which it is erased.
"""

import sqlalchemy as sa

from ingestion.states import READY
from residency.database import metadata

document = sa.Table(
    "document",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("tenant_id", sa.String(63), nullable=False),
    sa.Column("collection_id", sa.String(32), nullable=False),
    sa.Column("name_mac", sa.LargeBinary, nullable=False),
    sa.Column("name_sealed", sa.LargeBinary, nullable=False),
    sa.Column("jurisdiction", sa.String(200), nullable=False),
    sa.Column("tag", sa.Text, nullable=False),
    sa.Column("tag_pending", sa.Text),
    sa.Column("tag_digest", sa.String(64), nullable=False),
    sa.Column("tag_class", sa.Integer, nullable=False),
    sa.Column("claim_digest", sa.LargeBinary, nullable=False),
    sa.Column("groups", sa.Text, nullable=False),
    sa.Column("site_id", sa.String(63), nullable=False),
    sa.Column("state", sa.String(12), nullable=False),
    sa.Column("state_seq", sa.Integer, nullable=False),
    sa.Column("cause", sa.String(40), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("retries", sa.Integer, nullable=False),
    sa.Column("lease_owner", sa.String(80)),
    sa.Column("lease_epoch", sa.Integer, nullable=False),
    sa.Column("lease_until", sa.Float),
    sa.Column("not_before", sa.Float, nullable=False),
    sa.Column("search_epoch", sa.Integer, nullable=False),
    sa.Column("dek_id", sa.LargeBinary, nullable=False),
    sa.Column("artefact_id", sa.LargeBinary, nullable=False),
    sa.Column("content_mac", sa.LargeBinary, nullable=False),
    sa.Column("media_type", sa.String(100), nullable=False),
    sa.Column("language", sa.String(8), nullable=False),
    sa.Column("languages", sa.Text, nullable=False),
    sa.Column("bytes_total", sa.BigInteger, nullable=False),
    sa.Column("bytes_done", sa.BigInteger, nullable=False),
    sa.Column("pages", sa.Integer, nullable=False),
    sa.Column("passages_total", sa.Integer, nullable=False),
    sa.Column("passages_done", sa.Integer, nullable=False),
    sa.Column("receipt", sa.String(40), nullable=False),
    sa.Column("error_sealed", sa.LargeBinary),
    sa.Column("evidence_sealed", sa.LargeBinary),
    sa.Column("certificate", sa.Text),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("updated", sa.Float, nullable=False),
    sa.Column("moved_from", sa.Integer),  # the last two as migrations add them: the workers' take reads rows by place
    sa.Column("order_id", sa.String(32)),
    # With the lease the row says who works on it and until when; one without the other would look free.
    sa.CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name="lease"),
)
_ready = document.c.state.in_([str(state) for state in READY])
sa.Index("ix_document_ready", document.c.tenant_id, document.c.not_before, sqlite_where=_ready, postgresql_where=_ready)
sa.Index("ix_document_name", document.c.collection_id, document.c.name_mac)
sa.Index("ix_document_listed", document.c.tenant_id, document.c.created)
_ordered = document.c.order_id.is_not(None)
sa.Index("ix_document_order", document.c.order_id, sqlite_where=_ordered, postgresql_where=_ordered)
sa.Index("ix_document_state", document.c.tenant_id, document.c.state)
