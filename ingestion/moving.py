"""Moving: a Document goes to another Site as a new version of itself, and the old Site forgets it.

Rules kept here: nothing is asked for that the policy does not permit at both Sites; until the copy is live and checked
the old version answers; the copy is sealed under a key of its own, at home at the new Site; then points, files and keys
at the old Site go, of earlier versions too. Each step leaves a Receipt and may be repeated: a worker that dies leaves a
row that the next one goes on with. A copy that cannot be made is given up, and the Document stays where it is.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from ingestion import collections, points, rulings
from ingestion.artefacts import Artefacts
from ingestion.certificates import stamp, store
from ingestion.clearing import Clearing
from ingestion.crash import crash_point
from ingestion.documents import Document, Documents, names_of, of_row
from ingestion.errors import DocumentError, LeaseLostError, NotFoundError
from ingestion.intake import Refused
from ingestion.leases import ACTIVITY, Leases, worker_principal
from ingestion.records import Records
from ingestion.rows import document
from ingestion.states import COMING, RETAGGING, State
from ingestion.work import Work
from residency import receipt
from residency.database import Database
from residency.decision import Ask, Decision, Permit, Principal, Refusal
from residency.engine import Engine
from residency.envelope import open_field, seal_field
from residency.errors import SealedError, SiteError
from residency.frames import FrameWriter
from residency.keyring import Keyring
from residency.keytables import dek
from residency.ledger import Ledger
from residency.ports import Embedder, Shard, Vault
from residency.receipt import Draft
from residency.route import Action, Route
from residency.seal import OpenDek
from residency.tag import Tag

_KEPT = (
    "id", "tenant_id", "collection_id", "name_mac", "jurisdiction", "tag", "tag_digest", "tag_class", "claim_digest",
    "groups", "content_mac", "media_type", "language", "languages", "bytes_total", "bytes_done", "pages", "receipt",
)  # fmt: skip
"""Columns that a copy has from the version it is made of."""
_EMPTY: dict[str, Any] = {
    "name_sealed": b"", "name_mac": b"", "content_mac": b"", "claim_digest": b"", "artefact_id": b"",
    "error_sealed": None, "evidence_sealed": None, "passages_total": 0, "passages_done": 0, "bytes_total": 0,
}  # fmt: skip
"""What is left in the row of a version whose bytes are gone."""


def begin_copy(connection: sa.Connection, row: Any, version: int, site: str, **changed: Any) -> None:
    """Write the row of a copy of `row` that is to be made at `site`; a worker does the rest."""
    kept = {name: getattr(row, name) for name in _KEPT}
    blank = {"name_sealed": b"", "dek_id": b"", "artefact_id": b"", "cause": ""}
    zeros = ("state_seq", "attempts", "retries", "lease_epoch", "not_before", "search_epoch")
    counters = dict.fromkeys((*zeros, "passages_total", "passages_done"), 0)
    placed = {"site_id": site, "state": State.MOVING, "version": version, "moved_from": row.version}
    times = {"created": row.created}
    connection.execute(sa.insert(document).values(kept | blank | counters | placed | times | changed))


@dataclass(frozen=True, slots=True)
class Moved:
    """Where a move stands: copying, indexing, erasing (at the old Site), done, or failed with its cause."""

    document: str
    version: int
    source: str
    target: str
    state: str
    cause: str = ""

    def facts(self) -> dict[str, Any]:
        """Give the wire form."""
        ends = {"from": self.source, "to": self.target}
        return {"id": self.document, "version": self.version, **ends, "state": self.state, "cause": self.cause}


class Moving:
    """Moves Documents between Sites of this process."""

    def __init__(
        self,
        *,
        database: Database,
        leases: Leases,
        engine: Engine,
        keyring: Keyring,
        ledger: Ledger,
        records: Records,
        shards: Mapping[str, Shard],
        vaults: Mapping[str, Vault],
        embedders: Mapping[str, Embedder],
    ) -> None:
        self.database = database
        self.leases = leases
        self.engine = engine
        self.keyring = keyring
        self.ledger = ledger
        self.records = records
        self.shards = shards
        self.vaults = vaults
        self.embedders = embedders
        self.clearing = Clearing(engine, shards, vaults)
        self.documents = Documents(database)

    # --- asking for it ------------------------------------------------------------------------------------------------

    async def move(self, principal: Principal, document_id: str, site: str) -> Moved | Refused:
        """Begin; a worker does the rest. Asked again for the same Site it says where the move stands.

        Raises `NotFoundError`, `DocumentError` for one that is not live, `SiteError` for a Site that cannot hold it.
        """
        target = self.engine.fleet.site(site)
        known = await self.database.run(self._known, principal.tenant, document_id)
        if known is not None and known.state not in ("done", "failed"):
            if known.target == site:
                return known
            raise DocumentError(f"the document is on its way to {known.target}", hint="wait until it is there")
        held = await self.database.run(self.documents.get, principal.tenant, document_id)
        if held.site == site:
            return known or Moved(held.id, held.version, site, site, "done")
        if held.state is not State.LIVE:
            raise DocumentError(f"the document is {held.state}", hint="only a live document can be moved")
        if site not in self.vaults or site not in self.shards or not target.holding("keys"):
            raise SiteError(f"{site} holds no vault, shard and keys here", site=site, hint="see fleet.toml")
        if against := self.against(principal, held, site, held.tag):
            draft = self._draft(held, "move-refused", held.site, site)
            draft.kind, draft.refused = "refusal", [refusal.facts() for refusal in against]
            stored = await self.ledger.record(draft)
            return Refused(against[0], tuple(against), stored.id)
        version = await self.database.run(self._begin, held, site)
        crash_point("move-asked")
        return Moved(held.id, version, held.site, site, "copying")

    async def status(self, tenant: str, document_id: str) -> Moved:
        """Say where the last move of a Document stands. Raises `NotFoundError` where there was none."""
        known = await self.database.run(self._known, tenant, document_id)
        if known is None:
            await self.database.run(self.documents.get, tenant, document_id)
            raise NotFoundError("this document was not moved", hint="`domicile move` begins it; its receipts say more")
        return known

    def against(self, principal: Principal, held: Document, site: str, tag: Tag) -> list[Refusal]:
        """Ask for everything that a copy at `site` under `tag` needs, of who asks and of the workers, at both Sites."""
        activity = ACTIVITY if ACTIVITY in principal.activities else min(principal.activities, default="")
        decisions: list[Decision | rulings.Passes | Route] = [
            self.engine.decide(Ask(principal, Action.OPEN, held.site, (held.tag,), activity)),
            self.engine.decide(Ask(principal, Action.STORE, site, (tag,), activity)),
            self._open_at_source(held),
            rulings.rule(self.engine, self.embedders, tenant=held.tenant, site=site, tag=tag),
        ]
        return [each for each in decisions if isinstance(each, Refusal)]

    def _open_at_source(self, held: Document) -> Decision:
        worker = worker_principal(held.site, held.tenant)
        return self.engine.decide(Ask(worker, Action.OPEN, held.site, (held.tag,), activity=ACTIVITY))

    def _begin(self, held: Document, site: str) -> int:
        c, clock = document.c, self.database.clock()
        mine = sa.and_(c.id == held.id, c.tenant_id == held.tenant)
        with self.database.transaction() as connection:
            rows = connection.execute(sa.select(document).where(mine).order_by(c.version).with_for_update()).all()
            row = next(each for each in rows if each.version == held.version)
            if row.state != State.LIVE:
                raise DocumentError("the document changed just now", hint="try again")
            version = int(rows[-1].version) + 1
            self.ledger.append(self._draft(held, "move-asked", held.site, site), connection)
            begin_copy(connection, row, version, site, updated=clock)
        return version

    def _known(self, tenant: str, document_id: str) -> Moved | None:
        c = document.c
        mine = sa.and_(c.id == document_id, c.tenant_id == tenant)
        with self.database.reading() as connection:
            rows = {row.version: row for row in connection.execute(sa.select(document).where(mine))}
        copies = [row for row in rows.values() if row.moved_from is not None]
        if not copies:
            return None
        copy = max(copies, key=lambda row: row.version)
        source = rows[copy.moved_from]
        if copy.state == State.MOVING:
            state = "copying"
        elif copy.state in COMING:
            state = "indexing"
        elif copy.state in (State.FAILED, State.QUARANTINED):
            state = "failed"
        else:
            state = "done" if source.state in (State.ERASED, State.ERASING) else "erasing"
        cause = copy.cause or (source.cause if state == "erasing" else "")
        return Moved(document_id, copy.version, source.site_id, copy.site_id, state, cause)

    # --- the copy -----------------------------------------------------------------------------------------------------

    async def copy(self, work: Work) -> None:
        """Seal original and text anew at the new Site; from then on the version is like any other that was read.

        Raises `SealedError` and `DocumentError` when no copy can be made, and what outlets raise.
        """
        source = await self.database.run(self._source, work)
        may_open = self._open_at_source(source)
        passes = rulings.rule(self.engine, self.embedders, tenant=source.tenant, site=work["site_id"], tag=work.tag)
        for decision in (may_open, passes):
            if isinstance(decision, Refusal):
                await self.database.run(self.records.wait, work, decision)
                return
        assert isinstance(may_open, Permit) and isinstance(passes, rulings.Passes)  # noqa: S101 - no Refusal is left
        if source.site not in self.vaults:
            raise SiteError(f"the vault of {source.site} is not in this process", site=source.site)
        # (1) Open at the old Site.
        for left in await self.database.run(self._keys_of, work):  # of a try that died
            await self.keyring.shred(left)
        old = await self.keyring.open_dek(may_open.route, source.site, source.dek_id, source.tag.digest)
        there = Artefacts(self.vaults[source.site], old, source.id, source.version)
        row = await self.database.run(self._row, source)
        data = await there.original(may_open.route, row.artefact_id)
        reading = await there.text(may_open.route)
        mac = self.keyring.content_mac(source.tenant)
        mac.update(data)
        if mac.digest() != row.content_mac:
            raise SealedError("the sealed original is not what was taken in")
        # (2) Seal at the new one, under a key that lives there.
        new = await self.keyring.new_dek(
            passes.store,
            purpose="document",
            tenant=source.tenant,
            jurisdiction=work["jurisdiction"],
            subject=work.subject,
            version=work["version"],
            tag_digest=work.tag.digest,
            site=work["site_id"],
        )
        vault, name = self.vaults[work["site_id"]], names_of(work["id"], work["version"]) + "original"
        writer = FrameWriter(new, "original", work.subject, work["version"])
        parts = await asyncio.to_thread(lambda: [writer.header(), *writer.feed(data), *writer.finish()])
        await vault.put(passes.store, name, parts)
        await Artefacts(vault, new, work["id"], work["version"]).write_text(passes.store, reading)
        crash_point("move-copied")
        # (3) Row and entry in one commit; the worker goes on from here.
        values = self._resealed(old, new, row, work)
        values |= {"dek_id": new.dek_id, "artefact_id": writer.artefact_id}
        await self.database.run(self._sealed, work, source, values)
        crash_point("move-sealed")

    @staticmethod
    def _resealed(old: OpenDek, new: OpenDek, row: Any, work: Work) -> dict[str, Any]:
        fields = {"name": row.name_sealed, "evidence": row.evidence_sealed}
        return {
            f"{field}_sealed": seal_field(new, field, work.subject, open_field(old, field, work.subject, sealed))
            for field, sealed in fields.items()
            if sealed
        }

    def _source(self, work: Work) -> Document:
        found = self.documents.get(work["tenant_id"], work["id"], work["moved_from"])
        if found.state is not State.LIVE and found.cause != RETAGGING:
            raise DocumentError("a newer version came in while it was moved", hint="move that one")
        return found

    def _row(self, source: Document) -> Any:
        c = document.c
        with self.database.reading() as connection:
            mine = sa.and_(c.id == source.id, c.version == source.version)
            return connection.execute(sa.select(document).where(mine)).one()

    def _sealed(self, work: Work, source: Document, values: dict[str, Any]) -> None:
        c = document.c
        mine = sa.and_(c.id == source.id, c.version == source.version, c.state == source.state)
        with self.database.transaction() as connection:
            if connection.execute(sa.select(c.id).where(mine).with_for_update()).first() is None:
                raise DocumentError("a newer version came in while it was moved", hint="move that one")
            draft = self._draft(source, "moved-copy", source.site, work["site_id"])
            draft.tags = tuple(sorted({source.tag, work.tag}, key=lambda tag: tag.digest))
            draft.steps = receipt.steps(work.touches, self.engine.fleet, datetime.now(UTC), reason="moving")
            stored = self.ledger.append(draft, connection)
            self.leases.move(work.lease, State.TAGGED, connection=connection, receipt=stored.id, **values)
        work.touches.clear()

    def _keys_of(self, work: Work) -> list[bytes]:
        mine = sa.and_(dek.c.subject_id == work.subject, dek.c.subject_version == work["version"])
        with self.database.reading() as connection:
            return [bytes(each.id) for each in connection.execute(sa.select(dek.c.id).where(mine))]

    async def give_up(self, work: Work, cause: str) -> None:
        """Take back a copy that cannot be made: its key, its files, its row. The Document stays where it is."""
        for left in await self.database.run(self._keys_of, work):
            await self.keyring.shred(left)
        route = rulings.erasing(self.engine, tenant=work["tenant_id"], site=work["site_id"], tag=work.tag)
        if not isinstance(route, Refusal):
            prefix = names_of(work["id"], work["version"])
            await self.vaults[work["site_id"]].delete(route, [prefix + "original", prefix + "text"])
        await self.database.run(self._dropped, work, cause)

    def _dropped(self, work: Work, cause: str) -> None:
        c = document.c
        held = sa.and_(c.id == work["id"], c.version == work["version"], c.state == State.MOVING)
        with self.database.transaction() as connection:
            source = connection.execute(
                sa.select(document).where(c.id == work["id"], c.version == work["moved_from"])
            ).one()
            draft = self._draft(of_row(source), "move-failed", source.site_id, work["site_id"])
            draft.facts["cause"] = cause
            self.ledger.append(draft, connection)
            again = {"cause": "retag_failed", "state_seq": c.state_seq + 1, "updated": self.database.clock()}
            mine = sa.and_(c.id == work["id"], c.version == work["moved_from"], c.cause == RETAGGING)
            connection.execute(sa.update(document).where(mine).values(again))
            collections.spend(connection, work["tenant_id"], 1.0)
            done = connection.execute(sa.delete(document).where(held, c.lease_epoch == work.lease.epoch))
            if done.rowcount != 1:
                raise LeaseLostError("another worker has the document now", hint="it goes on there")
        self.leases.forget(work.lease)

    # --- leaving the old Site -----------------------------------------------------------------------------------------

    def moved_away(self, work: Work) -> bool:
        """Say whether a replaced version has its copy at another Site, sealed and on its way or live."""
        c = document.c
        mine = sa.and_(c.id == work["id"], c.moved_from == work["version"], c.state != State.MOVING)
        with self.database.reading() as connection:
            return connection.execute(sa.select(c.id).where(mine)).first() is not None

    async def leave(self, work: Work) -> None:
        """Forget the version, and the originals of earlier ones beside it: keys first, then points and files."""
        site, tag = work["site_id"], work.tag
        route = rulings.erasing(self.engine, tenant=work["tenant_id"], site=site, tag=tag)
        if isinstance(route, Refusal):
            await self.database.run(self.records.wait, work, route)
            return
        versions = await self.database.run(self._beside, work)
        work.tags.update(version.tag for version in versions)
        gone = [await self.keyring.shred(version.dek_id) for version in versions if version.dek_id]
        stores = [store("keys", site, "wrapped keys deleted", f"{len(gone)} keys of it, 0 still wrapped")]
        crash_point("move-shredded")
        ids = await self.database.run(self._points, work)
        if ids:
            existed = await self.clearing.unindex(site, route, ids)
            crash_point("points-deleted")
            purged = await self.clearing.purge(site, route)
            crash_point("purged")
            stores += await self.clearing.look(site, route, tag, work["tenant_id"], ids, existed, purged)
        stores.append(await self.clearing.unfile(site, route, tag, work["tenant_id"], versions))
        crash_point("move-cleared")
        await self.database.run(self._left, work, versions, stores)
        crash_point("moved")

    def _beside(self, work: Work) -> list[Document]:
        c = document.c
        here = sa.and_(c.id == work["id"], c.site_id == work["site_id"], c.version <= work["version"])
        with self.database.reading() as connection:
            rows = connection.execute(sa.select(document).where(here, c.state.in_([State.REPLACED, State.ARCHIVED])))
            return [of_row(row) for row in rows]

    def _points(self, work: Work) -> list[str]:
        with self.database.reading() as connection:
            return points.written(connection, work["id"], work["version"])

    def _left(self, work: Work, versions: list[Document], stores: list[dict[str, Any]]) -> None:
        c, numbers = document.c, [version.version for version in versions]
        with self.database.transaction() as connection:
            copy = connection.execute(
                sa.select(c.site_id).where(c.id == work["id"], c.moved_from == work["version"])
            ).scalar_one()
            draft = self._draft(versions[0], "moved-away", work["site_id"], copy)
            draft.kind, draft.tags = "erase", tuple(work.tags)
            draft.steps = receipt.steps(work.touches, self.engine.fleet, datetime.now(UTC))
            draft.facts |= {"versions": numbers, "completed": stamp(), "stores": stores}
            self.ledger.append(draft, connection)
            for number in numbers:
                points.strike(connection, work["id"], number)
            older = sa.and_(c.id == work["id"], c.version.in_(numbers), c.version != work["version"])
            erased = _EMPTY | {"state": State.ERASED, "state_seq": c.state_seq + 1, "updated": self.database.clock()}
            connection.execute(sa.update(document).where(older).values(erased))
            self.leases.move(work.lease, State.ERASED, connection=connection, release=True, **_EMPTY)

    # --- records ------------------------------------------------------------------------------------------------------

    def _draft(self, held: Document, stage: str, source: str, target: str) -> Draft:
        facts = {"stage": stage, "version": held.version, "from": source, "to": target}
        return Draft(
            kind="ingest",
            tenant=held.tenant,
            activity=ACTIVITY,
            tags=(held.tag,),
            commits={"documents": [bytes.fromhex(held.id)]},
            facts=facts,
        )
