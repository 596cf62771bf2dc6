"""Erasure: forgetting a Document, in an order that makes it unreadable first and traceless afterwards.

Rules kept here: from the first commit on no search sees it; its keys are gone before anything else; it never counts as
erased before the probes found nothing; every step may be repeated; erasing needs no permission to read. What stays for
a while (backups that hold wrapped keys) is named in the certificate with its due date, not left out.
"""

import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from ingestion import attributes, certificates, collections, holds, orders, points, rulings
from ingestion.certificates import HORIZON, stamp, store
from ingestion.clearing import Clearing, Leaving
from ingestion.crash import crash_point
from ingestion.documents import Document, of_row
from ingestion.errors import ErasureError, NotFoundError
from ingestion.leases import ACTIVITY, Lease, Leases
from ingestion.rows import document
from ingestion.states import NEVER, State
from residency import receipt
from residency.database import Database
from residency.decision import Principal, Refusal
from residency.engine import Engine
from residency.errors import DomicileError
from residency.journal import Touch, recording
from residency.keyring import Keyring
from residency.keytables import dek, dek_wrapped
from residency.ledger import Ledger
from residency.ports import Shard, Vault
from residency.receipt import Draft
from residency.route import Route
from residency.tag import Tag

TOGETHER: Final = 64
"""Documents whose points are cleared from an index with one rebuild of it; a heartbeat keeps as many leases."""


Also = Callable[[sa.Connection, list[Any]], None]
"""What is done in the commit that begins an erasure."""


def nothing(_connection: sa.Connection, _rows: list[Any]) -> None:
    """Do nothing more."""


class Erasure:
    """Forgets Documents. `arrived` wakes the workers; `horizon` is how long backups of keys may live."""

    def __init__(
        self,
        *,
        database: Database,
        leases: Leases,
        engine: Engine,
        keyring: Keyring,
        ledger: Ledger,
        shards: Mapping[str, Shard],
        vaults: Mapping[str, Vault],
        horizon: timedelta = HORIZON,
        arrived: Callable[[], None] = lambda: None,
    ) -> None:
        self.database = database
        self.leases = leases
        self.engine = engine
        self.keyring = keyring
        self.ledger = ledger
        self.clearing = Clearing(engine, shards, vaults)
        self.horizon = horizon
        self.arrived = arrived
        self.listeners: list[Callable[[str], None]] = []
        """Called with a tenant whose Documents begin to be, or were, erased in this process: caches drop what they hold
        of it. Other processes see `collections.generation` move in the same commit."""

    async def erase(self, principal: Principal, document_id: str, also: Also = nothing) -> Document:
        """Begin: out of every search and without keys on return; a worker does the rest. Again is harmless.

        `also` is done in the commit that begins it, with the versions' rows, the newest first, as they were.

        Raises `NotFoundError`, the same for a foreign id as for an unknown one.
        """
        # (1) `erasing`: searches leave it out from this commit on, and whoever works on it loses the row.
        newest = await self.database.run(self._begin, principal, document_id, also)
        crash_point("erasing")
        self.told([principal.tenant])
        if newest.state is not State.ERASED:
            # (2) The keys: text, names and quotes are unreadable from here on.
            await self.shred([document_id])
            self.arrived()
        return newest

    def _begin(self, principal: Principal, document_id: str, also: Also) -> Document:
        c, tenant = document.c, principal.tenant
        mine = sa.and_(c.id == document_id, c.tenant_id == tenant)
        with self.database.transaction() as connection:
            rows = self.rows_of(connection, mine)
            if not rows:
                raise NotFoundError("there is no such document", hint="list your documents to see their ids")
            if any(row.state not in (State.ERASING, State.ERASED) for row in rows):
                holds.refuse_held(connection, tenant, [(document_id, rows[0].collection_id)])
            also(connection, list(rows))
            self.mark(connection, rows, by="app" if principal.id.startswith("key:") else "person")
            return of_row(connection.execute(sa.select(document).where(mine).order_by(c.version.desc())).first())

    @staticmethod
    def rows_of(connection: sa.Connection, which: sa.ColumnElement[bool]) -> Sequence[sa.Row[Any]]:
        """Lock and give every version of these Documents, one Document after the other, the newest version first."""
        c = document.c
        query = sa.select(document).where(which).order_by(c.id, c.version.desc()).with_for_update()
        return connection.execute(query).all()

    def mark(
        self, connection: sa.Connection, rows: Sequence[sa.Row[Any]], *, by: str, order: str | None = None
    ) -> None:
        """Let these versions, as `rows_of` gives them, be `erasing` from this commit on."""
        c, clock, newest = document.c, self.database.clock(), ""
        now = float(connection.execute(sa.select(clock)).scalar_one())
        for row in rows:
            first, newest = row.id != newest, row.id
            if row.state in (State.ERASING, State.ERASED):
                continue
            # A worker that was stopped and replaced may still have a put under way: let it run out first.
            doubt = row.lease_owner is not None or (row.lease_epoch > 1 and row.updated > now - 2 * self.leases.seconds)
            pause = 2 * self.leases.seconds if doubt else 0.0
            connection.execute(
                sa.update(document)
                .where(c.id == row.id, c.version == row.version)
                .values(
                    state=State.ERASING,
                    state_seq=c.state_seq + 1,
                    cause="",
                    attempts=0,
                    retries=0,
                    lease_owner=None,
                    lease_until=None,
                    lease_epoch=c.lease_epoch + 1,
                    not_before=now + pause if first else NEVER,
                    certificate=json.dumps({"requested": stamp(), "by": by}) if first else None,
                    order_id=order,
                    updated=clock,
                )
            )
        for tenant in {row.tenant_id for row in rows}:
            collections.turn(connection, tenant)
            collections.changed(connection, tenant)

    async def proceed(self, leases: Sequence[Lease]) -> list[tuple[Lease, DomicileError]]:
        """Do everything after the keys, for all versions of each Document; `leases` are on the newest ones, of one
        tenant at one Site, so that an index is rebuilt once for all of them.

        Gives those that are not done, each with what held it up, such as an `ErasureError` for something that is left
        and should be gone; they are tried again.
        """
        works, left = [Leaving(lease) for lease in leases], list[tuple[Lease, DomicileError]]()

        async def each(step: Callable[[Leaving], Awaitable[None]]) -> None:
            for work in list(works):
                try:
                    with recording() as touches:
                        work.lease.check()
                        await step(work)
                    work.touches += touches
                except DomicileError as error:
                    works.remove(work)
                    left.append((work.lease, error))

        # (2) Again the keys, in case the process died between the first commit and this. (3) Points at every Site.
        await each(self._unreadable)
        await each(self._unindex)
        # (3b) The bytes they leave behind, once for all.
        for site in sorted({site for work in works if work.ids for site in work.routes}):
            await self._purge(site, [work for work in works if work.ids and site in work.routes], each)
        # (4) Asked again; then sealed files.
        await each(self._unfile)
        if not works:
            return left
        # (5) The bytes of deleted rows.
        clean, how = await self.database.run(self._checkpoint)
        method = "deleted rows overwritten, log folded in" if self.database.sqlite else "rows deleted"
        for work in works:
            work.stores.append(store("database", "", method, how if clean else f"not complete yet: {how}"))
        crash_point("checkpointed")
        # (6) Row and entry in one commit.
        await each(self._finish)
        await self.database.run(self._checkpoint)
        self.told({work.lease.row["tenant_id"] for work in works})
        return left

    async def _unreadable(self, work: Leaving) -> None:
        identifier, site = work.lease.row["id"], work.lease.row["site_id"]
        work.versions = await self.database.run(self._versions, identifier)
        gone = await self.shred([identifier])
        work.stores.append(store("keys", site, "wrapped keys deleted", f"{gone} keys of it, 0 still wrapped"))
        crash_point("shredded")
        routes = self._routes(work.versions)
        if isinstance(routes, Refusal):
            raise ErasureError("the policy refuses to erase", hint="no policy may forbid erasing; check yours")
        work.routes, work.ids = routes, await self.database.run(self._points, identifier)

    async def _unindex(self, work: Leaving) -> None:
        for site, (route, _) in work.routes.items() if work.ids else ():
            work.existed[site] = await self.clearing.unindex(site, route, work.ids)
        crash_point("points-deleted")

    async def _purge(self, site: str, works: list[Leaving], each: Any) -> None:
        route, tag = works[0].routes[site]
        result: dict[str, Any] = {}
        failed: DomicileError | None = None
        with recording() as touches:
            try:
                result = await self.clearing.purge(site, route)
            except DomicileError as error:
                failed = error
        crash_point("purged")

        async def told(work: Leaving) -> None:
            if work in works:
                if failed is not None:
                    raise failed
                work.touches += touches
                work.tags.add(tag)
                checked, tenant = work.routes[site], work.lease.row["tenant_id"]
                work.stores += await self.clearing.look(site, *checked, tenant, work.ids, work.existed[site], result)

        await each(told)

    async def _unfile(self, work: Leaving) -> None:
        for site, (route, tag) in work.routes.items():
            tenant = work.lease.row["tenant_id"]
            work.stores.append(await self.clearing.unfile(site, route, tag, tenant, work.versions))
        crash_point("files-deleted")

    async def _finish(self, work: Leaving) -> None:
        tags = tuple({version.tag for version in work.versions} | work.tags)
        facts = certificates.facts(work.lease.row, work.versions, len(work.ids), work.stores, self.horizon)
        await self.database.run(self._commit, work.lease, facts, tags, work.touches, [v.receipt for v in work.versions])
        crash_point("erased")

    def told(self, tenants: Iterable[str]) -> None:
        """Tell the listeners whose Documents are going, or gone."""
        for tenant in tenants:
            for listener in self.listeners:
                listener(tenant)

    async def certificate(self, tenant: str, document_id: str) -> dict[str, Any]:
        """Give the certificate as far as it stands, see `certificates.of`."""

        def find() -> dict[str, Any]:
            with self.database.reading() as connection:
                return certificates.of(connection, tenant, document_id)

        return await self.database.run(find)

    # --- the steps ----------------------------------------------------------------------------------------------------

    async def shred(self, identifiers: Sequence[str]) -> int:
        """Destroy the key of every version of these; gives how many there were, and proves that none is left."""
        found = await self.database.run(self._deks, identifiers)
        await self.keyring.shred_all(found)
        if await self.database.run(self._deks, identifiers, wrapped=True):
            raise ErasureError("a key of the document is still there", hint="it is tried again")
        return len(found)

    def _deks(self, identifiers: Sequence[str], *, wrapped: bool = False) -> list[bytes]:
        query, found = sa.select(dek.c.id), list[bytes]()
        if wrapped:
            query = query.join_from(dek, dek_wrapped, dek_wrapped.c.dek_id == dek.c.id)
        with self.database.reading() as connection:
            for at in range(0, len(identifiers), 500):
                subjects = [bytes.fromhex(each) for each in identifiers[at : at + 500]]
                found += [bytes(row.id) for row in connection.execute(query.where(dek.c.subject_id.in_(subjects)))]
        return found

    def _routes(self, versions: list[Document]) -> dict[str, tuple[Route, Tag]] | Refusal:
        routes: dict[str, tuple[Route, Tag]] = {}
        for version in versions:
            route = rulings.erasing(self.engine, tenant=version.tenant, site=version.site, tag=version.tag)
            if isinstance(route, Refusal):
                return route
            routes[version.site] = (route, version.tag)
        return routes

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _versions(self, identifier: str) -> list[Document]:
        c = document.c
        with self.database.reading() as connection:
            # a version that was moved away left nothing behind, and its Site may be gone from the Fleet
            query = sa.select(document).where(c.id == identifier, c.state != State.ERASED).order_by(c.version.desc())
            return [of_row(row) for row in connection.execute(query)]

    def _points(self, identifier: str) -> list[str]:
        with self.database.reading() as connection:
            return points.written(connection, identifier)

    def _commit(
        self, lease: Lease, facts: dict[str, Any], tags: tuple[Tag, ...], touches: list[Touch], receipts: list[str]
    ) -> None:
        identifier, tenant, c = lease.row["id"], lease.row["tenant_id"], document.c
        draft = Draft(
            kind="erase",
            tenant=tenant,
            activity=ACTIVITY,
            tags=tags,
            steps=receipt.steps(touches, self.engine.fleet, now=datetime.now(UTC)),
            subject=identifier,
            facts=facts,
        )
        nothing = {"name_sealed": b"", "name_mac": b"", "content_mac": b"", "claim_digest": b"", "artefact_id": b""}
        empty = nothing | {"error_sealed": None, "evidence_sealed": None, "passages_total": 0, "passages_done": 0}
        with self.database.transaction() as connection:
            stored = self.ledger.append(draft, connection)
            known = facts | {"policy": self.engine.digests()["policy"], "receipt": stored.id}
            self.ledger.forget(tenant, identifier, connection)
            for each in filter(None, receipts):
                self.ledger.destroy(tenant, each, connection)
            points.strike(connection, identifier)
            attributes.strike(connection, identifier)
            connection.execute(
                sa.update(document)
                .where(c.id == identifier, c.version != lease.row["version"])
                .values(empty | {"state": State.ERASED, "state_seq": c.state_seq + 1, "updated": self.database.clock()})
            )
            certificate = json.dumps(known)
            self.leases.move(lease, State.ERASED, connection=connection, release=True, certificate=certificate, **empty)
            if lease.row["order_id"]:
                orders.settle(connection, self.ledger, lease.row["order_id"], self.database.clock())

    def _checkpoint(self) -> tuple[bool, str]:
        """Fold SQLite's log away; a reader at that moment prevents it, so try a few times."""
        clean, how = self.database.checkpoint()
        for _ in range(5):
            if clean or not self.database.sqlite:
                break
            time.sleep(0.05)
            clean, how = self.database.checkpoint()
        return clean, how
