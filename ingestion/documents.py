"""Documents: one row per version of every Document; the same table is the queue that workers take from.

Rules kept here: a row holds ids, counters, codes, keyed MACs and sealed fields, never content and never exception
text; a tenant is part of every lookup, and a foreign id looks exactly like an unknown one; each state has a code, and
nothing is stuck without a cause. Who may move a row is `leases.py`; what happens in between is `pipeline.py`.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa

from ingestion import collections
from ingestion.collections import Collection
from ingestion.errors import DocumentError, NotFoundError
from residency.database import Database, metadata
from residency.tag import Tag


class State(StrEnum):
    """Where a version stands; people meet three ends: live, quarantined, failed."""

    RECEIVING = "receiving"
    SEALED = "sealed"
    PARSED = "parsed"
    TAGGED = "tagged"
    SPLIT = "split"
    EMBEDDED = "embedded"
    INDEXED = "indexed"
    LIVE = "live"
    QUARANTINED = "quarantined"
    FAILED = "failed"
    REPLACED = "replaced"
    ARCHIVED = "archived"
    ERASING = "erasing"
    ERASED = "erased"


COMING: Final = (State.SEALED, State.PARSED, State.TAGGED, State.SPLIT, State.EMBEDDED, State.INDEXED)
"""On the way to live, a worker's business."""
READY: Final = (*COMING, State.REPLACED, State.ERASING)
"""What a worker may take."""
LIVING: Final = (*COMING, State.LIVE, State.QUARANTINED)
"""A version that stands for the Document: the same bytes again change nothing."""
NEVER: Final = 1e15
"""A `not_before` that does not come: another version's row carries the work."""

HINTS: Final[dict[str, str]] = {
    "encrypted_file": "remove the password and upload the file again",
    "broken_file": "the file does not open; save it again from its program and upload that",
    "empty_text": "there is no text in it; if it is a scan, run character recognition first",
    "unsupported_type": "upload it as PDF, DOCX, HTML, Markdown or plain text",
    "bomb": "the file unpacks to far more than it may; upload its parts singly",
    "parse_timeout": "reading took too long; split the file and upload the parts",
    "parse_memory": "reading took too much memory; split the file and upload the parts",
    "parse_crash": "the reader broke off on this file; save it in another format and upload that",
    "poison": "work on it broke off several times; ask your operator to look, then retry",
    "tag_disputed": "its text points to another jurisdiction than declared; a reviewer decides",
    "site_refused": "the Site that holds it is not permitted under its narrowed Tag; a reviewer decides",
    "residency_denied": "the policy refuses this step at present; it goes on when the policy permits it",
    "site_unavailable": "a Site does not answer; it goes on by itself",
    "storage_full": "a Site has no room left; it goes on when there is some",
    "key_provider_unavailable": "the key provider does not answer; it goes on by itself",
    "ledger_unavailable": "the Ledger cannot be written; it goes on by itself",
    "sealed_damaged": "its sealed file does not open; upload the original again",
    "model_refused": "the embedding model refused it; ask your operator to look",
    "model_changed": "its collection holds vectors of another model; use another collection",
    "internal": "something broke that should not; ask your operator to look, then retry",
}
"""What to do next, by cause."""

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
    # With the lease the row says who works on it and until when; one without the other would look free.
    sa.CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name="lease"),
)
_ready = document.c.state.in_([str(state) for state in READY])
sa.Index("ix_document_ready", document.c.tenant_id, document.c.not_before, sqlite_where=_ready, postgresql_where=_ready)
sa.Index("ix_document_name", document.c.collection_id, document.c.name_mac)
sa.Index("ix_document_listed", document.c.tenant_id, document.c.created)
sa.Index("ix_document_state", document.c.tenant_id, document.c.state)


@dataclass(frozen=True, slots=True)
class Document:
    """One version of a Document as the service shows it. `name_sealed` opens with the version's DEK alone."""

    id: str
    version: int
    tenant: str
    collection: str
    state: State
    tag: Tag
    tag_class: int
    groups: frozenset[str]
    site: str
    jurisdiction: str
    """The origin that keys and AAD were made for: as declared, also where the Tag was narrowed later."""
    cause: str
    media_type: str
    language: str
    pages: int
    passages: int
    passages_done: int
    size: int
    """Bytes of the original."""
    dek_id: bytes
    name_sealed: bytes
    search_epoch: int
    receipt: str
    created: float
    updated: float

    @property
    def progress(self) -> float:
        """How far the way to live is done, 0 to 1, from the row's counters."""
        share = self.passages_done / self.passages if self.passages else 0.0
        match self.state:
            case State.RECEIVING | State.FAILED | State.ERASED:
                return 0.0
            case State.SEALED:
                return 0.05
            case State.PARSED:
                return 0.1
            case State.TAGGED:
                return 0.12
            case State.SPLIT:
                return 0.15 + 0.65 * share
            case State.EMBEDDED:
                return 0.8 + 0.15 * share
            case State.INDEXED:
                return 0.97
            case _:
                return 1.0

    @property
    def error(self) -> dict[str, str] | None:
        """What holds it up or ended it: code and next step, never content."""
        if not self.cause:
            return None
        return {"code": self.cause, "hint": HINTS.get(self.cause, HINTS["internal"])}


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How much of one Tag lies at one Site for a tenant: what a search is ruled on, and counts as withheld."""

    tag_class: int
    tag: Tag
    site: str
    jurisdiction: str
    """Whose search keys its points are made with."""
    language: str
    documents: int
    passages: int


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a listing; `cursor` leads to the next, empty at the end."""

    items: tuple[Document, ...]
    cursor: str


def of_row(row: Any) -> Document:
    """Read a Document from a row of the table."""
    return Document(
        id=row.id,
        version=row.version,
        tenant=row.tenant_id,
        collection=row.collection_id,
        state=State(row.state),
        tag=Tag.of(json.loads(row.tag)),
        tag_class=row.tag_class,
        groups=frozenset(json.loads(row.groups)),
        site=row.site_id,
        jurisdiction=row.jurisdiction,
        cause=row.cause,
        media_type=row.media_type,
        language=row.language,
        pages=row.pages,
        passages=row.passages_total,
        passages_done=row.passages_done,
        size=row.bytes_total,
        dek_id=row.dek_id,
        name_sealed=row.name_sealed,
        search_epoch=row.search_epoch,
        receipt=row.receipt,
        created=row.created,
        updated=row.updated,
    )


def names_of(document_id: str, version: int) -> str:
    """Give the prefix that every vault file of one version has."""
    return f"{document_id}.{version}."


class Documents:
    """Lookups over the table, all synchronous; callers outside a transaction go through `database.run`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._counts: dict[tuple[str, tuple[str, ...] | None], tuple[int, list[tuple[ClassCount, frozenset[str]]]]] = {}

    def collection(self, tenant: str, name: str) -> Collection:
        """Give a tenant's Collection, made on first use. Raises `UploadError` for a name that is no slug."""
        with self.database.reading() as connection:
            found = collections.named(connection, tenant, name)
        if found:
            return found
        with self.database.transaction() as connection:
            return collections.ensure(connection, tenant, name, self.database.clock())

    def find_collection(self, tenant: str, name: str) -> Collection | None:
        """Find a tenant's Collection without making it."""
        with self.database.reading() as connection:
            return collections.named(connection, tenant, name)

    def collections(self, tenant: str) -> list[Collection]:
        """List a tenant's Collections by name."""
        c = collections.collection.c
        query = sa.select(c.id, c.name, c.paused, c.model).where(c.tenant_id == tenant).order_by(c.name)
        with self.database.reading() as connection:
            return [Collection(*row) for row in connection.execute(query)]

    def pause(self, tenant: str, name: str, *, paused: bool) -> None:
        """Stop or resume work on a Collection: a flag that the take query reads, no state of a Document."""
        c = collections.collection.c
        with self.database.transaction() as connection:
            connection.execute(
                sa.update(collections.collection).where(c.tenant_id == tenant, c.name == name).values(paused=paused)
            )

    def get(self, tenant: str, document_id: str, version: int | None = None) -> Document:
        """Give one version, else the newest. Raises `NotFoundError`, the same for a foreign id as for an unknown."""
        c = document.c
        query = sa.select(document).where(c.tenant_id == tenant, c.id == document_id, c.state != State.RECEIVING)
        if version is not None:
            query = query.where(c.version == version)
        with self.database.reading() as connection:
            row = connection.execute(query.order_by(c.version.desc()).limit(1)).first()
        if row is None:
            raise NotFoundError("there is no such document", hint="list your documents to see their ids")
        return of_row(row)

    def versions(self, tenant: str, document_id: str) -> list[Document]:
        """List every version of a Document, the newest first."""
        c = document.c
        query = sa.select(document).where(c.tenant_id == tenant, c.id == document_id).order_by(c.version.desc())
        with self.database.reading() as connection:
            return [of_row(row) for row in connection.execute(query)]

    def listing(
        self,
        tenant: str,
        *,
        collection_id: str | None = None,
        states: Sequence[State] | None = None,
        cursor: str = "",
        limit: int = 50,
    ) -> Listing:
        """List the newest version of each Document, newest first, a page at a time; erased ones are left out.

        Raises `DocumentError` for a cursor that did not come from here.
        """
        c, newer = document.c, document.alias("newer")
        query = sa.select(document).where(
            c.tenant_id == tenant,
            c.state.not_in([State.RECEIVING, State.ERASED]),
            ~sa.exists().where(
                newer.c.id == c.id, newer.c.version > c.version, newer.c.state.not_in([State.RECEIVING])
            ),
        )
        if collection_id is not None:
            query = query.where(c.collection_id == collection_id)
        if states is not None:
            query = query.where(c.state.in_([str(state) for state in states]))
        if cursor:
            created, last = _read_cursor(cursor)
            query = query.where(sa.or_(c.created < created, sa.and_(c.created == created, c.id < last)))
        with self.database.reading() as connection:
            rows = connection.execute(query.order_by(c.created.desc(), c.id.desc()).limit(limit + 1)).all()
        items = tuple(of_row(row) for row in rows[:limit])
        return Listing(items, _write_cursor(items[-1]) if len(rows) > limit else "")

    def live(self, tenant: str, ids: Iterable[str]) -> dict[str, Document]:
        """Give the live version of each of these Documents: what may open a winner, and with which key and AAD."""
        c = document.c
        query = sa.select(document).where(c.tenant_id == tenant, c.id.in_(list(ids)), c.state == State.LIVE)
        with self.database.reading() as connection:
            return {row.id: of_row(row) for row in connection.execute(query)}

    def counts(
        self, tenant: str, collection_ids: Sequence[str] | None = None, groups: frozenset[str] = frozenset()
    ) -> list[ClassCount]:
        """Count live Documents and Passages by Tag, Site and main language, as far as `groups` may see them.

        Cached until something becomes live, is replaced or erased.
        """
        key = (tenant, tuple(sorted(collection_ids)) if collection_ids is not None else None)
        with self.database.reading() as connection:
            generation = collections.generation(connection, tenant)
            cached = self._counts.get(key)
            if cached is None or cached[0] != generation:
                cached = (generation, self._count(connection, tenant, collection_ids))
                if len(self._counts) > 1024:
                    self._counts.clear()
                self._counts[key] = cached
        return [count for count, only in cached[1] if not only or only & groups]

    @staticmethod
    def _count(
        connection: sa.Connection, tenant: str, collection_ids: Sequence[str] | None
    ) -> list[tuple[ClassCount, frozenset[str]]]:
        c = document.c
        by = (c.tag_class, c.site_id, c.jurisdiction, c.language, c.groups)
        query = sa.select(*by, sa.func.count().label("documents"), sa.func.sum(c.passages_total).label("passages"))
        query = query.where(c.tenant_id == tenant, c.state == State.LIVE).group_by(*by)
        if collection_ids is not None:
            query = query.where(c.collection_id.in_(list(collection_ids)))
        tags = collections.tags(connection, tenant)
        return [
            (
                ClassCount(
                    tag_class=row.tag_class,
                    tag=tags[tenant, row.tag_class],
                    site=row.site_id,
                    jurisdiction=row.jurisdiction,
                    language=row.language,
                    documents=row.documents,
                    passages=int(row.passages),
                ),
                frozenset(json.loads(row.groups)),
            )
            for row in connection.execute(query)
        ]

    def placement(self, tenant: str) -> list[dict[str, Any]]:
        """Say what lies where: documents, passages and bytes by collection, Tag, Site and state, for reports."""
        c = document.c
        by = (collections.collection.c.name, c.tag_class, c.site_id, c.state)
        query = (
            sa.select(
                *by,
                sa.func.count().label("documents"),
                sa.func.sum(c.passages_total).label("passages"),
                sa.func.sum(c.bytes_total).label("bytes"),
            )
            .join_from(document, collections.collection, collections.collection.c.id == c.collection_id)
            .where(c.tenant_id == tenant, c.state.not_in([State.RECEIVING, State.ERASED]))
            .group_by(*by)
            .order_by(*by)
        )
        with self.database.reading() as connection:
            tags = collections.tags(connection, tenant)
            return [
                {
                    "collection": row.name,
                    "site": row.site_id,
                    "tag": tags[tenant, row.tag_class].facts(),
                    "state": row.state,
                    "documents": row.documents,
                    "passages": int(row.passages),
                    "bytes": int(row.bytes),
                }
                for row in connection.execute(query)
            ]


def _write_cursor(last: Document) -> str:
    return base64.urlsafe_b64encode(f"{last.created!r} {last.id}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[float, str]:
    try:
        created, last = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().split(" ")
        return float(created), last
    except (ValueError, binascii.Error) as error:
        raise DocumentError("that cursor is not one of ours", hint="start the list again without a cursor") from error
