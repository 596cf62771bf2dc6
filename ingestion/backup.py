"""Backup: what the Sites of a Zone hold, as one archive: ciphertext and wrapped keys, KEKs by reference only.

Rules kept here: what is read is ruled on like every reading, Document by Document, and what the policy refuses is left
out and counted; a Document that is erased meanwhile is left out as well; what was erased before goes in as a name
without content, so that a restore does not bring it back; the Ledger names the archive's digest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from ingestion import collections, points
from ingestion.archive import ArchiveWriter
from ingestion.attributes import table as attributes
from ingestion.collections import collection, tag_class
from ingestion.documents import Document, names_of, of_row
from ingestion.errors import BackupError
from ingestion.leases import ACTIVITY, worker_principal
from ingestion.points import document_points
from ingestion.rows import document
from ingestion.states import State
from residency import receipt
from residency.database import Database, metadata
from residency.decision import Ask, Permit
from residency.engine import Engine
from residency.errors import SealedError
from residency.journal import Touch, recording
from residency.keytables import dek, dek_wrapped, kek, search_keyset
from residency.ledger import Ledger
from residency.ports import Shard, Vault
from residency.receipt import Draft
from residency.route import Action, Route
from residency.tag import Tag

ROWS: Final = 500
"""Rows or points in one member."""
_GONE: Final = (State.ERASING, State.ERASED)
_UNBORN: Final = (State.RECEIVING, State.MOVING)


@dataclass(slots=True)
class _Told:
    """What was done for one tenant."""

    documents: int
    touches: list[Touch]
    tags: dict[bytes, Tag]


class Backup:
    """Writes archives. `shards` may be empty: then points are left out, and made anew after a restore."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        ledger: Ledger,
        shards: Mapping[str, Shard],
        vaults: Mapping[str, Vault],
    ) -> None:
        self.database = database
        self.engine = engine
        self.ledger = ledger
        self.shards = shards
        self.vaults = vaults

    async def write(self, zone: str, out: ArchiveWriter) -> dict[str, Any]:
        """Write what lies at the Sites in `zone`, record it, and give the manifest; on any error leave no file.

        Raises `BackupError` when no Site lies there, `SiteError` when one does not answer.
        """
        try:
            return await self._write(self.engine.zones.check(zone), out)
        except BaseException:
            out.abandon()
            raise

    async def _write(self, zone: str, out: ArchiveWriter) -> dict[str, Any]:
        fleet, zones = self.engine.fleet, self.engine.zones
        sites = sorted(s.id for s in fleet.sites.values() if s.id in self.vaults and zones.within(s.zone, zone))
        if not sites:
            raise BackupError(f"no site with a vault lies in {zone}", hint="domicile sites list")
        indexed = all(site in self.shards for site in sites)
        # 1. What several Documents need.
        number = 0
        for table, where in _shared(sites):
            rows = await self.database.run(self._rows, sa.select(table).where(where))
            for at in range(0, len(rows), ROWS):
                out.add_rows(f"shared/{number:06}", [[str(table.name), row] for row in rows[at : at + ROWS]])
                number += 1
        # 2. Version by version.
        told: dict[str, _Told] = {}
        left_out = erased = 0
        for key in await self.database.run(self._versions, sites):
            row = await self.database.run(self._row, *key)
            if row is None or row.state in _UNBORN:
                continue
            if row.state in _GONE:
                out.add_rows(f"document/{row.id}.{row.version}/rows", {"erased": True, "tenant": row.tenant_id})
                erased += 1
                continue
            if not await self._one(out, row, told, indexed=indexed):
                left_out += 1
        # 3. The manifest, signed; the Ledger says so.
        manifest = out.finish(
            {
                "zone": zone,
                "sites": {site: fleet.site(site).zone for site in sites},
                "made": receipt.stamp(datetime.now(UTC)),
                "origin": self.ledger.origin,
                "software": self.ledger.software,
                "indexed": indexed,
                "documents": sum(each.documents for each in told.values()),
                "erased": erased,
                "left_out": left_out,
                "tenants": {
                    tenant: {"documents": each.documents, "tags": [tag.facts() for tag in each.tags.values()]}
                    for tenant, each in sorted(told.items())
                },
            },
            self.ledger.sign,
        )
        for tenant, each in told.items():
            await self.ledger.record(
                Draft(
                    kind="admin",
                    tenant=tenant,
                    activity=ACTIVITY,
                    tags=tuple(each.tags.values()),
                    steps=receipt.steps(each.touches, fleet, now=datetime.now(UTC)),
                    facts={"event": "backup", "zone": zone, "documents": each.documents, "archive": manifest["digest"]},
                )
            )
        return manifest

    async def _one(self, out: ArchiveWriter, row: Any, told: dict[str, _Told], *, indexed: bool) -> bool:
        """Write one version; False when the policy refuses to read it, or it was erased meanwhile."""
        version = of_row(row)
        passes = [self._route(action, version) for action in (Action.OPEN, Action.SEARCH)]
        if not all(passes):
            return False
        may_open, search = passes[0], passes[1]
        assert may_open is not None and search is not None  # noqa: S101 - just looked
        place = f"document/{version.id}.{version.version}"
        vault = self.vaults[version.site]
        with recording() as touches:
            prefix = names_of(version.id, version.version)
            kept = [name for name in await vault.names(search, prefix) if name[len(prefix) :] in ("original", "text")]
            files = []
            for name in kept:
                try:
                    files.append((name, await vault.read(may_open, name)))
                except SealedError:
                    return False
            facts = await self.database.run(self._facts, version)
            if facts is None:
                return False
            out.add_rows(f"{place}/rows", facts)
            for name, sealed in files:
                out.add(f"{place}/file/{name}", sealed)
            if indexed and version.state is State.LIVE:
                await self._points(out, place, search, version)
        each = told.setdefault(version.tenant, _Told(0, [], {}))
        each.documents += 1
        each.touches += touches
        each.tags[version.tag.digest] = version.tag
        return True

    async def _points(self, out: ArchiveWriter, place: str, search: Route, version: Document) -> None:
        ids = await self.database.run(self._ids, version)
        for number, at in enumerate(range(0, len(ids), ROWS)):
            found = await self.shards[version.site].retrieve(search, ids[at : at + ROWS], vectors=True)
            rows = [[each.id, each.vector.tobytes(), list(each.sparse.items()), each.payload] for each in found]
            out.add_rows(f"{place}/points/{number:06}", rows)

    def _route(self, action: Action, version: Document) -> Route | None:
        who = worker_principal(version.site, version.tenant)
        decision = self.engine.decide(Ask(who, action, version.site, (version.tag,), activity=ACTIVITY))
        return decision.route if isinstance(decision, Permit) else None

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _rows(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        with self.database.reading() as connection:
            return _plain(connection, query)

    def _versions(self, sites: list[str]) -> list[tuple[str, int]]:
        c = document.c
        query = sa.select(c.id, c.version).where(c.site_id.in_(sites)).order_by(c.id, c.version)
        with self.database.reading() as connection:
            return [(row.id, row.version) for row in connection.execute(query)]

    def _row(self, identifier: str, version: int) -> Any:
        with self.database.reading() as connection:
            mine = sa.select(document).where(document.c.id == identifier, document.c.version == version)
            return connection.execute(mine).first()

    def _ids(self, version: Document) -> list[str]:
        c = document_points.c
        mine = sa.select(c.points).where(c.id == version.id, c.version == version.version)
        with self.database.reading() as connection:
            raw = connection.execute(mine.where(c.epoch == version.search_epoch)).scalar()
        return points.spelt(raw) if raw else []

    def _facts(self, version: Document) -> dict[str, Any] | None:
        """Give everything that the database holds of one version; None when its key is gone by now."""
        mine = (version.id, version.version)
        with self.database.reading() as connection:

            def all_of(table: sa.Table, where: Any) -> list[dict[str, Any]]:
                return _plain(connection, sa.select(table).where(where))

            key = all_of(dek, sa.and_(dek.c.id == version.dek_id, dek.c.state == "active"))
            wrapped = all_of(dek_wrapped, dek_wrapped.c.dek_id == version.dek_id)
            if not key or not wrapped:
                return None
            d, a, p = document.c, attributes.c, document_points.c
            return {
                "document": all_of(document, sa.and_(d.id == mine[0], d.version == mine[1])),
                "dek": key,
                "dek_wrapped": wrapped,
                "document_points": all_of(document_points, sa.and_(p.id == mine[0], p.version == mine[1])),
                "document_attributes": all_of(attributes, sa.and_(a.id == mine[0], a.version == mine[1])),
            }


def _shared(sites: list[str]) -> list[tuple[sa.Table, Any]]:
    """Give the tables that several Documents need, in the order in which their rows may be inserted."""
    here = sa.select(document.c.tenant_id).where(document.c.site_id.in_(sites))
    tenant = metadata.tables["tenant"]
    keys = sa.select(dek.c.id).where(dek.c.purpose.in_(["vectors", "lexicon", "tags"]), dek.c.state == "active")
    keys = keys.join_from(dek, kek, sa.and_(kek.c.id == dek.c.kek_id, kek.c.version == dek.c.kek_version))
    mine = keys.where(kek.c.site_id.in_(sites))
    return [
        (tenant, tenant.c.id.in_(here)),
        (collection, collection.c.tenant_id.in_(here)),
        (tag_class, tag_class.c.tenant_id.in_(here)),
        (collections.tenant_turn, collections.tenant_turn.c.tenant_id.in_(here)),
        (kek, kek.c.site_id.in_(sites)),
        (dek, dek.c.id.in_(mine)),
        (dek_wrapped, dek_wrapped.c.dek_id.in_(mine)),
        (search_keyset, search_keyset.c.site_id.in_(sites)),
    ]


def _plain(connection: sa.Connection, query: sa.Select[Any]) -> list[dict[str, Any]]:
    """Give rows by plain column names."""
    return [{str(name): value for name, value in row.items()} for row in connection.execute(query).mappings()]
