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
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from ingestion import collections
from ingestion.collections import Collection
from ingestion.errors import CursorError, DocumentError, NotFoundError
from ingestion.inventory import ClassCount, Inventory
from ingestion.rows import document
from ingestion.states import HINTS, State
from residency.protection import VectorMode, WordMode
from residency.tag import Tag

__all__ = ["ClassCount", "Document", "Documents", "Listing", "State", "names_of", "of_row"]


_UNBORN = (State.RECEIVING, State.MOVING)
"""Not yet a version that anybody is told of."""


def way_done(state: State, share: float) -> float:
    """Say how far the way to live is done, 0 to 1; `share` of the Passages is done in the present state."""
    match state:
        case State.RECEIVING | State.MOVING | State.FAILED | State.ERASED:
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
        return way_done(self.state, self.passages_done / self.passages if self.passages else 0.0)

    @property
    def error(self) -> dict[str, str] | None:
        """What holds it up or ended it: code and next step, never content."""
        if not self.cause:
            return None
        return {"code": self.cause, "hint": HINTS.get(self.cause, HINTS["internal"])}


_LIVE: Final = sa.select(document).where(
    document.c.tenant_id == sa.bindparam("tenant"),
    document.c.id.in_(sa.bindparam("ids", expanding=True)),
    document.c.state == State.LIVE,
)


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
        tag=_tag(row.tag),
        tag_class=row.tag_class,
        groups=_groups(row.groups),
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


@lru_cache(maxsize=4096)  # rows by the thousand hold a handful of Tags
def _tag(facts: str) -> Tag:
    return Tag.of(json.loads(facts))


@lru_cache(maxsize=4096)
def _groups(listed: str) -> frozenset[str]:
    return frozenset(json.loads(listed))


def names_of(document_id: str, version: int) -> str:
    """Give the prefix that every vault file of one version has."""
    return f"{document_id}.{version}."


class Documents(Inventory):
    """Lookups over the table, all synchronous; callers outside a transaction go through `database.run`."""

    def collection(
        self, tenant: str, name: str, *, vectors: VectorMode | None = None, words: WordMode | None = None
    ) -> Collection:
        """Give a tenant's Collection, made on first use; None takes whatever modes it has.

        Raises `UploadError` for a name that is no slug, and `DocumentError` where it has other modes already.
        """
        found = self.find_collection(tenant, name)
        if found is None:
            wanted = vectors or VectorMode.ROTATED
            with self.database.transaction() as connection:
                clock = self.database.clock()
                found = collections.ensure(
                    connection, tenant, name, clock, vectors=wanted, words=words or WordMode.AUTO
                )
        if (vectors or found.vectors, words or found.words) != (found.vectors, found.words):
            raise DocumentError(
                f"the collection keeps vectors {found.vectors} and words {found.words}",
                hint="a collection's modes stay as it was made: make another and take the documents in there",
            )
        return found

    def find_collection(self, tenant: str, name: str) -> Collection | None:
        """Find a tenant's Collection without making it."""
        with self.database.glance() as rows:
            return collections.named(rows, tenant, name)

    def held(self, tenant: str, name: str, groups: frozenset[str]) -> tuple[Collection | None, list[ClassCount] | None]:
        """Find a Collection and what is remembered of its counts, at a glance; None where `counts` must be asked."""
        with self.database.glance() as rows:
            found = collections.named(rows, tenant, name)
            return found, self.remembered(rows, tenant, [found.id], groups) if found else []

    def collections(self, tenant: str) -> list[Collection]:
        """List a tenant's Collections by name."""
        c = collections.collection.c
        query = sa.select(collections.collection).where(c.tenant_id == tenant).order_by(c.name)
        with self.database.reading() as connection:
            return [collections.of_row(row) for row in connection.execute(query)]

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
        # a copy at another Site stands for the Document only once it is sealed there
        query = query.where(c.version == version if version is not None else c.state != State.MOVING)
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

    def retry(self, tenant: str, document_id: str) -> None:
        """Put a failed Document back to its sealed original, for a worker to begin again; each step may be repeated.

        Raises `NotFoundError`, and `DocumentError` for one that did not fail.
        """
        newest, c = self.get(tenant, document_id), document.c
        again = {"state": State.SEALED, "cause": "", "attempts": 0, "retries": 0, "passages_total": 0}
        with self.database.transaction() as connection:
            done = connection.execute(
                sa.update(document)
                .where(c.tenant_id == tenant, c.id == document_id, c.version == newest.version)
                .where(c.state == State.FAILED)
                .values(
                    again
                    | {
                        "state_seq": c.state_seq + 1,
                        "passages_done": 0,
                        "error_sealed": None,
                        "not_before": self.database.clock(),
                        "updated": self.database.clock(),
                    }
                )
            )
            if done.rowcount != 1:
                raise DocumentError("only a failed document can be tried again", hint="look at its state first")
            collections.turn(connection, tenant)

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

        Raises `CursorError` for a cursor that did not come from here.
        """
        c, newer = document.c, document.alias("newer")
        query = sa.select(document).where(
            c.tenant_id == tenant,
            c.state.not_in([*_UNBORN, State.ERASED]),
            ~sa.exists().where(newer.c.id == c.id, newer.c.version > c.version, newer.c.state.not_in(_UNBORN)),
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
        with self.database.glance() as rows:
            return {row.id: of_row(row) for row in rows(_LIVE, {"tenant": tenant, "ids": list(ids)})}


def _write_cursor(last: Document) -> str:
    return base64.urlsafe_b64encode(f"{last.created!r} {last.id}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[float, str]:
    try:
        created, last = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().split(" ")
        return float(created), last
    except (ValueError, binascii.Error) as error:
        raise CursorError("that cursor is not one of ours", hint="start the list again without a cursor") from error
