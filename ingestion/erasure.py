"""Erasure: forgetting a Document, in an order that makes it unreadable first and traceless afterwards.

Rules kept here: from the first commit on no search sees it; its keys are gone before anything else; it never counts as
erased before the probes found nothing; every step may be repeated; erasing needs no permission to read. What stays for
a while (backups that hold wrapped keys) is named in the certificate with its due date, not left out.
"""

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from ingestion import attributes, collections, points, rulings
from ingestion.clearing import Clearing, stamp, store
from ingestion.crash import crash_point
from ingestion.documents import Document, of_row
from ingestion.errors import DocumentError, ErasureError, NotFoundError
from ingestion.leases import ACTIVITY, Lease, Leases
from ingestion.rows import document
from ingestion.states import NEVER, State
from residency import receipt
from residency.database import Database
from residency.decision import Principal, Refusal
from residency.engine import Engine
from residency.journal import Touch, recording
from residency.keyring import Keyring
from residency.keytables import dek, dek_wrapped
from residency.ledger import Ledger
from residency.ports import Shard, Vault
from residency.receipt import Draft
from residency.route import Route
from residency.tag import Tag

HORIZON: Final = timedelta(days=30)
"""Within this time the KEK version is rolled and old backups no longer open."""

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

    async def erase(self, principal: Principal, document_id: str, also: Also = nothing) -> Document:
        """Begin: out of every search and without keys on return; a worker does the rest. Again is harmless.

        `also` is done in the commit that begins it, with the versions' rows, the newest first, as they were.

        Raises `NotFoundError`, the same for a foreign id as for an unknown one.
        """
        # (1) `erasing`: searches leave it out from this commit on, and whoever works on it loses the row.
        newest = await self.database.run(self._begin, principal, document_id, also)
        crash_point("erasing")
        if newest.state is not State.ERASED:
            # (2) The keys: text, names and quotes are unreadable from here on.
            await self._shred(document_id)
            self.arrived()
        return newest

    def _begin(self, principal: Principal, document_id: str, also: Also) -> Document:
        c, tenant = document.c, principal.tenant
        mine = sa.and_(c.id == document_id, c.tenant_id == tenant)
        with self.database.transaction() as connection:
            rows = connection.execute(
                sa.select(document).where(mine).order_by(c.version.desc()).with_for_update()
            ).all()
            if not rows:
                raise NotFoundError("there is no such document", hint="list your documents to see their ids")
            also(connection, list(rows))
            clock = self.database.clock()
            now = float(connection.execute(sa.select(clock)).scalar_one())
            for row in rows:
                if row.state in (State.ERASING, State.ERASED):
                    continue
                newest = row.version == rows[0].version
                # A worker that was stopped and replaced may still have a put under way: let it run out first.
                doubt = row.lease_owner is not None or (
                    row.lease_epoch > 1 and row.updated > now - 2 * self.leases.seconds
                )
                pause = 2 * self.leases.seconds if doubt else 0.0
                begun = {"requested": stamp(), "by": "app" if principal.id.startswith("key:") else "person"}
                connection.execute(
                    sa.update(document)
                    .where(mine, c.version == row.version)
                    .values(
                        state=State.ERASING,
                        state_seq=c.state_seq + 1,
                        cause="",
                        attempts=0,
                        retries=0,
                        lease_owner=None,
                        lease_until=None,
                        lease_epoch=c.lease_epoch + 1,
                        not_before=now + pause if newest else NEVER,
                        certificate=json.dumps(begun) if newest else None,
                        updated=clock,
                    )
                )
            collections.turn(connection, tenant)
            collections.changed(connection, tenant)
            return of_row(connection.execute(sa.select(document).where(mine).order_by(c.version.desc())).first())

    async def proceed(self, lease: Lease) -> State:
        """Do everything after the keys, for all versions of a Document at once; `lease` is on the newest one.

        Raises `ErasureError` when something is left that should be gone, and what outlets raise; it is tried again.
        """
        identifier, tenant = lease.row["id"], lease.row["tenant_id"]
        with recording() as touches:
            versions = await self.database.run(self._versions, identifier)
            stores: list[dict[str, Any]] = []
            # (2) Again the keys, in case the process died between the first commit and this.
            gone = await self._shred(identifier)
            stores.append(
                store("keys", lease.row["site_id"], "wrapped keys deleted", f"{gone} keys of it, 0 still wrapped")
            )
            crash_point("shredded")
            routes = self._routes(versions)
            if isinstance(routes, Refusal):
                raise ErasureError("the policy refuses to erase", hint="no policy may forbid erasing; check yours")
            # (3) Points at every Site, then the bytes they leave behind.
            ids = await self.database.run(self._points, identifier)
            for site, (route, tag) in routes.items() if ids else ():
                lease.check()
                stores += await self.clearing.unindex(site, route, tag, tenant, identifier, ids)
            # (4) Sealed files.
            for site, (route, tag) in routes.items():
                lease.check()
                stores.append(await self.clearing.unfile(site, route, tag, tenant, versions))
            crash_point("files-deleted")
            # (5) The bytes of deleted rows.
            clean, how = await self.database.run(self._checkpoint)
            method = "deleted rows overwritten, log folded in" if self.database.sqlite else "rows deleted"
            stores.append(store("database", "", method, how if clean else f"not complete yet: {how}"))
            crash_point("checkpointed")
            # (6) Row and entry in one commit.
            facts = self._facts(lease, versions, len(ids), stores)
            tags = tuple({version.tag for version in versions})
            await self.database.run(self._commit, lease, facts, tags, touches, [v.receipt for v in versions])
            crash_point("erased")
        await self.database.run(self._checkpoint)
        return State.ERASED

    async def certificate(self, tenant: str, document_id: str) -> dict[str, Any]:
        """Give what each store reported; `state` is pending until every probe found nothing.

        Raises `NotFoundError` for an unknown id and `DocumentError` for a Document nobody asked to erase.
        """
        c = document.c
        query = sa.select(c.state, c.certificate).where(c.tenant_id == tenant, c.id == document_id)

        def find() -> Any:
            with self.database.reading() as connection:
                return connection.execute(query.order_by(c.version.desc()).limit(1)).first()

        row = await self.database.run(find)
        if row is None:
            raise NotFoundError("there is no such document", hint="list your documents to see their ids")
        if row.state not in (State.ERASING, State.ERASED):
            raise DocumentError("nobody asked to erase this document", hint="DELETE it first")
        known: dict[str, Any] = json.loads(row.certificate or "{}")
        state = "complete" if row.state == State.ERASED and known.get("receipt") else "pending"
        return {"document": document_id, "tenant": tenant, "state": state} | known

    # --- the steps ----------------------------------------------------------------------------------------------------

    async def _shred(self, identifier: str) -> int:
        """Destroy the key of every version; gives how many there were, and proves that none is left."""
        subject = bytes.fromhex(identifier)
        mine = sa.select(dek.c.id).where(dek.c.subject_id == subject)

        def find() -> list[bytes]:
            with self.database.reading() as connection:
                return [bytes(row.id) for row in connection.execute(mine)]

        found = await self.database.run(find)
        for dek_id in found:
            await self.keyring.shred(dek_id, within=self.horizon.total_seconds())

        def left() -> int:
            with self.database.reading() as connection:
                held = sa.select(sa.func.count()).select_from(dek_wrapped).where(dek_wrapped.c.dek_id.in_(mine))
                return int(connection.execute(held).scalar_one())

        if await self.database.run(left):
            raise ErasureError("a key of the document is still there", hint="it is tried again")
        return len(found)

    def _routes(self, versions: list[Document]) -> dict[str, tuple[Route, Tag]] | Refusal:
        routes: dict[str, tuple[Route, Tag]] = {}
        for version in versions:
            route = rulings.erasing(self.engine, tenant=version.tenant, site=version.site, tag=version.tag)
            if isinstance(route, Refusal):
                return route
            routes[version.site] = (route, version.tag)
        return routes

    def _facts(self, lease: Lease, versions: list[Document], put: int, stores: list[dict[str, Any]]) -> dict[str, Any]:
        begun = json.loads(lease.row["certificate"] or "{}")
        due = stamp(datetime.now(UTC) + self.horizon)
        backups = "backups of the database hold wrapped keys until the key version is rolled"
        return {
            "format": "domicile-erasure/v1",
            "ground": "GDPR 17(1)",
            "requested": begun.get("requested", stamp()),
            "by": begun.get("by", "app"),
            "completed": stamp(),
            "scope": {
                "versions": len(versions),
                "passages": sum(version.passages for version in versions),
                "points": put,
                "bytes": sum(version.size for version in versions),
            },
            "stores": stores,
            "residuals": [{"where": "backups", "what": backups, "due": due}],
        }

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

    def _checkpoint(self) -> tuple[bool, str]:
        """Fold SQLite's log away; a reader at that moment prevents it, so try a few times."""
        clean, how = self.database.checkpoint()
        for _ in range(5):
            if clean or not self.database.sqlite:
                break
            time.sleep(0.05)
            clean, how = self.database.checkpoint()
        return clean, how
