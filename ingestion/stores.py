"""Stores: Collections as clients of OpenAI's vector stores see them, and the files in them.

Rule kept here: a file that was uploaded for no Collection waits sealed in one that no worker takes from, and moves on
only before it was indexed, since its Passages are bound to their Collection.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from ingestion import collections
from ingestion.documents import Document, of_row
from ingestion.errors import DocumentError, NotFoundError
from ingestion.rows import document
from ingestion.states import LIVING, State
from residency.database import Database, through

UNATTACHED: Final = "files.unattached"
"""The Collection of files that nobody has put anywhere yet; paused from its first day."""


@dataclass(frozen=True, slots=True)
class Store:
    """A Collection with what its listing shows: counts of Documents by state, bytes of originals."""

    id: str
    name: str
    created: float
    states: dict[State, int]
    size: int
    vectors: str = ""
    words: str = ""


class Stores:
    """Lookups and changes, all synchronous; callers go through `database.run`."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # --- Collections ------------------------------------------------------------------------------------------------

    def listing(self, tenant: str) -> list[Store]:
        """List a tenant's Collections, newest first, without the waiting one."""
        c, d = collections.collection.c, document.c
        counts = sa.select(
            d.collection_id, d.state, sa.func.count().label("n"), sa.func.sum(d.bytes_total).label("size")
        )
        counts = counts.where(d.tenant_id == tenant, _newest()).group_by(d.collection_id, d.state)
        with self.database.reading() as connection:
            rows = connection.execute(
                sa.select(c.id, c.name, c.created, c.vectors, c.words)
                .where(c.tenant_id == tenant, c.name != UNATTACHED)
                .order_by(c.created.desc(), c.id.desc())
            ).all()
            held: dict[str, list[Any]] = {}
            for row in connection.execute(counts):
                held.setdefault(row.collection_id, []).append(row)
        return [
            Store(
                row.id,
                row.name,
                row.created,
                {State(each.state): each.n for each in held.get(row.id, ())},
                sum(int(each.size or 0) for each in held.get(row.id, ())),
                row.vectors,
                row.words,
            )
            for row in rows
        ]

    def get(self, tenant: str, store_id: str) -> Store:
        """Give one. Raises `NotFoundError`, the same for a foreign id as for an unknown one."""
        found = next((each for each in self.listing(tenant) if each.id == store_id), None)
        if found is None:
            raise NotFoundError("there is no such vector store", hint="list your vector stores to see their ids")
        return found

    def drop(self, tenant: str, store_id: str) -> None:
        """Remove an empty Collection. Raises `NotFoundError`, and `DocumentError` while it holds Documents."""
        store = self.get(tenant, store_id)
        c = collections.collection.c
        with self.database.transaction() as connection:
            held = connection.execute(
                sa.select(sa.func.count())
                .select_from(document)
                .where(document.c.collection_id == store.id, document.c.state.not_in([State.ERASING, State.ERASED]))
            ).scalar_one()
            if held:
                raise DocumentError(
                    "the vector store holds files", hint="delete its files first, each is a certificate"
                )
            connection.execute(sa.delete(collections.collection).where(c.tenant_id == tenant, c.id == store.id))

    # --- files ------------------------------------------------------------------------------------------------------

    def files(
        self,
        tenant: str,
        *,
        store_id: str | None = None,
        states: Sequence[State] | None = None,
        after: str = "",
        before: str = "",
        newest_first: bool = True,
        limit: int = 20,
    ) -> tuple[list[Document], bool]:
        """List the newest version of each Document by age; `after` and `before` are ids. Says whether there is more.

        Raises `NotFoundError` for an unknown `after` or `before`.
        """
        c = document.c
        query = sa.select(document).where(
            c.tenant_id == tenant, _newest(), c.state.not_in([State.ERASED, State.ERASING])
        )
        if store_id is not None:
            query = query.where(c.collection_id == store_id)
        if states is not None:
            query = query.where(c.state.in_([str(state) for state in states]))
        backward = bool(before) and not after
        descending = newest_first != backward
        with self.database.reading() as connection:
            if edge := after or before:
                created = connection.execute(
                    sa.select(c.created).where(c.tenant_id == tenant, c.id == edge, _newest())
                ).scalar()
                if created is None:
                    raise NotFoundError("there is no such file", hint="list again from the start")
                beyond = (c.created < created, c.id < edge) if descending else (c.created > created, c.id > edge)
                query = query.where(sa.or_(beyond[0], sa.and_(c.created == created, beyond[1])))
            order = (c.created.desc(), c.id.desc()) if descending else (c.created, c.id)
            rows = connection.execute(query.order_by(*order).limit(limit + 1)).all()
        items = [of_row(row) for row in rows[:limit]]
        return (items[::-1] if backward else items), len(rows) > limit

    def live(self, tenant: str, store_id: str, limit: int) -> list[Document]:
        """Give the live Documents of a Collection, at most `limit` of them."""
        c = document.c
        query = sa.select(document).where(c.tenant_id == tenant, c.collection_id == store_id, c.state == State.LIVE)
        with self.database.reading() as connection:
            return [of_row(row) for row in connection.execute(query.limit(limit))]

    def standing(self, tenant: str, collection_id: str) -> set[str]:
        """Give the ids of the Documents of a Collection that are in, or failed: the same bytes add nothing."""
        c = document.c
        stands = c.state.in_([str(state) for state in (*LIVING, State.FAILED)])
        query = sa.select(c.id).where(c.tenant_id == tenant, c.collection_id == collection_id, stands)
        with self.database.reading() as connection:
            return set(connection.execute(query).scalars())

    def artefact(self, document_id: str, version: int) -> bytes:
        """Give the id of the write run that an original must be of."""
        c = document.c
        with self.database.reading() as connection:
            found = connection.execute(sa.select(c.artefact_id).where(c.id == document_id, c.version == version))
            return bytes(found.scalar_one())

    def attach(self, tenant: str, document_id: str, store_id: str, name_mac: bytes) -> None:
        """Put a waiting file into a Collection. Raises `DocumentError` if it lies in another, or its name is taken."""
        c = document.c
        with self.database.transaction() as connection:
            mine = sa.and_(c.tenant_id == tenant, c.id == document_id)
            rows = connection.execute(sa.select(document).where(mine).with_for_update()).all()
            if any(row.collection_id == store_id for row in rows):
                return
            waiting = collections.named(through(connection), tenant, UNATTACHED)
            if waiting is None or any(row.collection_id != waiting.id or row.state != State.SEALED for row in rows):
                raise DocumentError(
                    "the file lies in another vector store; a document lies in one collection",
                    hint="upload it again with the header Domicile-Collection",
                )
            taken = sa.select(c.id).where(
                c.collection_id == store_id, c.name_mac == name_mac, c.state.not_in([State.ERASING, State.ERASED])
            )
            if connection.execute(taken.limit(1)).first():
                raise DocumentError(
                    "the vector store holds a file of that name",
                    hint="upload with the header Domicile-Collection: that makes a new version of it",
                )
            connection.execute(
                sa.update(document)
                .where(mine)
                .values(
                    collection_id=store_id,
                    name_mac=name_mac,
                    state_seq=c.state_seq + 1,
                    not_before=self.database.clock(),
                    updated=self.database.clock(),
                )
            )
            collections.turn(connection, tenant)


def _newest() -> sa.ColumnElement[bool]:
    unborn = (State.RECEIVING, State.MOVING)
    newer, c = document.alias("newer"), document.c
    beyond = sa.exists().where(newer.c.id == c.id, newer.c.version > c.version, newer.c.state.not_in(unborn))
    return sa.and_(c.state.not_in(unborn), ~beyond)
