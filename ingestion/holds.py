"""Holds: what a court or an authority wants kept is not erased, by nobody and by no rule, until the hold is lifted.

Rules kept here: a hold stands on one Document or on a whole Collection; placing, lifting and every refusal that it
causes name its reason; the Ledger has an entry for each placing and lifting, which commits to the reason and does not
quote it. The reason is for a file reference: it stands in the database in clear and is shown to whoever is refused.
"""

import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from ingestion import collections
from ingestion.errors import DocumentError, HoldError, NotFoundError
from ingestion.leases import ACTIVITY
from ingestion.rows import document
from ingestion.states import State
from residency.database import Database, metadata
from residency.decision import Principal
from residency.ledger import Ledger
from residency.receipt import Draft

LONGEST: Final = 200
"""Characters of a reason."""

hold = sa.Table(
    "hold",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("tenant_id", sa.String(63), nullable=False),
    sa.Column("document_id", sa.String(32)),
    sa.Column("collection_id", sa.String(32)),
    sa.Column("reason", sa.String(LONGEST), nullable=False),
    sa.Column("placed", sa.Float, nullable=False),
    sa.Column("lifted", sa.Float),
    sa.Column("receipt", sa.String(40), nullable=False),
    sa.CheckConstraint("(document_id IS NULL) <> (collection_id IS NULL)", name="subject"),
)
sa.Index("ix_hold_tenant_id", hold.c.tenant_id, hold.c.lifted)


@dataclass(frozen=True, slots=True)
class Hold:
    """One hold; `collection` is a slug, empty for a hold on one Document."""

    id: str
    document: str
    collection: str
    reason: str
    placed: float
    lifted: float | None
    receipt: str

    def facts(self) -> dict[str, Any]:
        """Give it as JSON-able data."""
        return {name: getattr(self, name) for name in self.__slots__}


class Holds:
    """Places and lifts holds; synchronous, callers go through `database.run`."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self.database = database
        self.ledger = ledger

    def add(self, principal: Principal, *, document_id: str = "", collection: str = "", reason: str) -> Hold:
        """Place a hold on one Document or one Collection.

        Raises `NotFoundError` for what is not the tenant's, `DocumentError` for what is being erased already, and
        `HoldError` for a reason that is none.
        """
        said = " ".join(reason.split())
        if not said or len(said) > LONGEST or not said.isprintable():
            raise DocumentError(
                "a hold needs a reason", hint=f"1 to {LONGEST} characters, such as the court's file reference"
            )
        tenant, identifier = principal.tenant, secrets.token_hex(16)
        with self.database.transaction() as connection:
            subject = self._subject(connection, tenant, document_id, collection)
            stored = self._record(connection, principal, identifier, subject, "held", said)
            values = {"id": identifier, "tenant_id": tenant, "reason": said, "receipt": stored} | subject
            connection.execute(sa.insert(hold).values(values | {"placed": self.database.clock()}))
        return next(each for each in self.listing(tenant) if each.id == identifier)

    def _subject(self, connection: sa.Connection, tenant: str, document_id: str, name: str) -> dict[str, str]:
        if bool(document_id) == bool(name):
            raise DocumentError("a hold stands on a document or on a collection", hint="name one of the two")
        if name:
            held = collections.collection.c
            mine = sa.select(held.id).where(held.tenant_id == tenant, held.name == name).with_for_update()
            found = connection.execute(mine).scalar()
            if found is None:
                raise NotFoundError("there is no such collection", hint="list your documents to see where they are")
            return {"collection_id": found}
        c = document.c
        query = sa.select(c.state).where(c.tenant_id == tenant, c.id == document_id).order_by(c.version.desc())
        row = connection.execute(query.with_for_update()).first()
        if row is None:
            raise NotFoundError("there is no such document", hint="list your documents to see their ids")
        if row.state in (State.ERASING, State.ERASED):
            raise DocumentError("the document is erased already", hint="its key is gone: nothing can keep it")
        return {"document_id": document_id}

    def lift(self, principal: Principal, hold_id: str) -> Hold:
        """End a hold; what it kept may be erased from now on. Raises `NotFoundError`; again changes nothing."""
        with self.database.transaction() as connection:
            mine = sa.and_(hold.c.id == hold_id, hold.c.tenant_id == principal.tenant)
            row = connection.execute(sa.select(hold).where(mine).with_for_update()).first()
            if row is None:
                raise NotFoundError("there is no such hold", hint="domicile hold list")
            if row.lifted is None:
                subject = {"document_id": row.document_id, "collection_id": row.collection_id}
                self._record(connection, principal, hold_id, subject, "lifted", row.reason)
                connection.execute(sa.update(hold).where(mine).values(lifted=self.database.clock()))
        return next(each for each in self.listing(principal.tenant, lifted=True) if each.id == hold_id)

    def listing(self, tenant: str, *, lifted: bool = False) -> list[Hold]:
        """List a tenant's holds, oldest first; those that were lifted only if asked for."""
        with self.database.reading() as connection:
            return _listed(connection, tenant, lifted=lifted)

    def on(self, tenant: str, documents: Iterable[tuple[str, str]]) -> dict[str, Hold]:
        """Give the oldest hold on each of these (Document id, Collection id) that has one."""
        with self.database.reading() as connection:
            return standing(connection, tenant, documents)

    def _record(
        self,
        connection: sa.Connection,
        principal: Principal,
        identifier: str,
        subject: dict[str, Any],
        stage: str,
        why: str,
    ) -> str:
        facts = {
            "stage": stage,
            "hold": identifier,
            "scope": "document" if subject.get("document_id") else "collection",
        }
        draft = Draft(
            kind="erase",
            tenant=principal.tenant,
            activity=ACTIVITY,
            subject=subject.get("document_id") or subject["collection_id"],
            commits={"principal": principal.id.encode(), "reason": why.encode()},
            facts=facts,
        )
        return self.ledger.append(draft, connection).id


def standing(connection: sa.Connection, tenant: str, documents: Iterable[tuple[str, str]]) -> dict[str, Hold]:
    """Give the oldest standing hold on each of these (Document id, Collection id) that has one."""
    held = _listed(connection, tenant, lifted=False)
    if not held:
        return {}
    slugs = {each.collection: each for each in reversed(held) if each.collection}
    names = {row.id: row.name for row in connection.execute(_NAMES, {"tenant": tenant})}
    singly = {each.document: each for each in reversed(held) if each.document}
    found: dict[str, Hold] = {}
    for identifier, collection_id in documents:
        either = [each for each in (singly.get(identifier), slugs.get(names.get(collection_id, ""))) if each]
        if either:
            found[identifier] = min(either, key=lambda each: each.placed)
    return found


def refuse_held(connection: sa.Connection, tenant: str, documents: Collection[tuple[str, str]]) -> None:
    """Raise `HoldError`, with the reason, when one of these (Document id, Collection id) is on hold."""
    held = standing(connection, tenant, documents)
    if held:
        first = min(held.values(), key=lambda each: each.placed)
        what = "the document is" if len(documents) == 1 else f"{len(held)} of {len(documents)} documents are"
        raise HoldError(
            f"{what} on legal hold: {first.reason}",
            hint=f"who may lift it does so with `domicile hold lift` or DELETE /v1/holds/{first.id}",
        )


_NAMES: Final = sa.select(collections.collection.c.id, collections.collection.c.name).where(
    collections.collection.c.tenant_id == sa.bindparam("tenant")
)


def _listed(connection: sa.Connection, tenant: str, *, lifted: bool) -> list[Hold]:
    held = collections.collection.c
    query = (
        sa.select(hold, held.name.label("slug"))
        .join_from(hold, collections.collection, held.id == hold.c.collection_id, isouter=True)
        .where(hold.c.tenant_id == tenant)
        .order_by(hold.c.placed, hold.c.id)
    )
    if not lifted:
        query = query.where(hold.c.lifted.is_(None))
    return [
        Hold(row.id, row.document_id or "", row.slug or "", row.reason, row.placed, row.lifted, row.receipt)
        for row in connection.execute(query)
    ]
