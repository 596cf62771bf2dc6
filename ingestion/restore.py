"""Restore: an archive of a Zone comes back, into this home or a new one that has the same keys.

Rules kept here: before anything is written every byte was compared with the signed manifest, and the engine has ruled
that each Tag may be stored at the Site it comes to; what was erased here, says row or Ledger, is not brought back and
is erased again by name; what is there already stays as it is; files and points come first and the row last, so that a
restore that was cut off is begun again and nobody saw half of it.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import numpy as np
import sqlalchemy as sa

from ingestion import collections
from ingestion.archive import Archive, Progress
from ingestion.documents import Document, of_row
from ingestion.erasure import Erasure
from ingestion.errors import BackupError
from ingestion.leases import ACTIVITY, worker_principal
from ingestion.rows import document
from ingestion.states import State
from residency import receipt
from residency.database import metadata
from residency.decision import Ask, Permit, Refusal
from residency.engine import Engine
from residency.journal import Touch, recording
from residency.keytables import kek, search_keyset
from residency.ledger import Ledger
from residency.notes import Verifier
from residency.ports import Point, Shard, Vault
from residency.receipt import Draft
from residency.route import Action, Route
from residency.tag import Tag

_GONE: Final = (State.ERASING, State.ERASED)
_RESTING: Final = (State.LIVE, State.QUARANTINED, State.FAILED, State.ARCHIVED)
_EVER: Final = (datetime(2000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC))


class Restore:
    """Reads archives. Without `shards` points are left out, and Documents that had them are indexed anew."""

    def __init__(
        self,
        *,
        engine: Engine,
        ledger: Ledger,
        erasure: Erasure,
        shards: Mapping[str, Shard],
        vaults: Mapping[str, Vault],
    ) -> None:
        self.engine = engine
        self.ledger = ledger
        self.erasure = erasure
        self.keyring = erasure.keyring
        self.database = erasure.database
        self.shards = shards
        self.vaults = vaults

    async def read(
        self, archive: Archive, keys: Iterable[Verifier], *, site: str = "", progress: Progress = lambda _done: None
    ) -> dict[str, Any] | Refusal:
        """Bring an archive back, each Site's part to the Site of that name, or a single one's to `site`.

        Gives counts; a Refusal when a Tag does not permit the Site. Raises `BackupError` for an archive that must not
        be believed, or does not fit what is here; then nothing was written.
        """
        # 1. Every byte compared.
        manifest = archive.verify(keys, progress=progress)
        sites = self._sites(manifest, site)
        # 2. Nothing is put where its Tag does not permit it. Tenants that nobody knows here come with their ceilings.
        shared = self._shared(archive, sites)
        refusal = await self._ruled(archive, shared, sites)
        if refusal is not None:
            return refusal
        # 3. Rows that several Documents need.
        strange = await self.database.run(self._insert_shared, shared)
        gone = await self.database.run(self._tombstones, sorted(manifest["tenants"]))
        # 4. Version by version.
        done = {"restored": 0, "there": 0, "erased_again": 0, "indexing": 0, "unopened": 0}
        told: dict[str, tuple[list[Touch], dict[bytes, Tag], dict[str, int]]] = {}
        for facts, files, points in _documents(archive):
            if facts.get("erased"):
                continue
            row = facts["document"][0] | {"site_id": sites[facts["document"][0]["site_id"]]}
            touches, tags, counts = told.setdefault(row["tenant_id"], ([], {}, dict.fromkeys(done, 0)))
            if row["id"] in gone:
                outcome = "erased_again"
                await self.erasure.shred([row["id"]])
            else:
                with recording() as touched:
                    outcome = await self._one(row, facts, files, points, strange)
                touches += touched
                tag = of_row(_Row(row)).tag
                tags[tag.digest] = tag
            counts[outcome] += 1
            done[outcome] += 1
        for tenant, (touches, tags, counts) in told.items():
            steps = receipt.steps(touches, self.engine.fleet, now=datetime.now(UTC))
            said = {"event": "restore", "archive": manifest["digest"], "made": manifest["made"]} | counts
            await self.ledger.record(
                Draft("admin", tenant, ACTIVITY, tags=tuple(tags.values()), steps=steps, facts=said)
            )
        return {"zone": manifest["zone"], "sites": sites, "made": manifest["made"]} | done

    def _sites(self, manifest: dict[str, Any], site: str) -> dict[str, str]:
        sites: dict[str, str] = {each: each for each in manifest["sites"]}
        if site:
            if len(sites) != 1:
                raise BackupError("the archive is of several sites", hint=f"restore without --site: {', '.join(sites)}")
            sites = dict.fromkeys(sites, site)
        for each in sites.values():
            if each not in self.vaults:
                raise BackupError(f"there is no vault at {each} here", hint="name it in fleet.toml, or use --site")
        return sites

    @staticmethod
    def _shared(archive: Archive, sites: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for name, data in archive.members():
            if not name.startswith("shared/"):
                break
            for table, row in msgspec.msgpack.decode(data):
                if "site_id" in row:
                    row["site_id"] = sites[row["site_id"]]
                found.setdefault(table, []).append(row)
        return found

    async def _ruled(
        self, archive: Archive, shared: dict[str, list[dict[str, Any]]], sites: dict[str, str]
    ) -> Refusal | None:
        known = {row["id"]: frozenset(row["ceiling"]) for row in await self.database.run(self._tenants)}
        for row in shared.get("tenant", []):
            self.engine.admit(row["id"], known.get(row["id"], frozenset(row["ceiling"])))
        asked: set[tuple[str, str, str]] = set()
        for name, data in archive.members():
            if not name.endswith("/rows") or not (rows := msgspec.msgpack.decode(data).get("document")):
                continue
            row = rows[0]
            key = (row["tenant_id"], sites[row["site_id"]], row["tag"])
            if key in asked:
                continue
            asked.add(key)
            version = of_row(_Row(row | {"site_id": key[1]}))
            for action in (Action.STORE, Action.SEARCH):
                if isinstance(decision := self._decide(action, version), Refusal):
                    return decision
        return None

    def _decide(self, action: Action, version: Document) -> Permit | Refusal:
        who = worker_principal(version.site, version.tenant)
        return self.engine.decide(Ask(who, action, version.site, (version.tag,), activity=ACTIVITY))

    def _route(self, action: Action, version: Document) -> Route:
        decision = self._decide(action, version)
        if isinstance(decision, Refusal):
            raise BackupError("the policy changed during the restore", hint="begin again: what is there stays")
        return decision.route

    async def _one(
        self,
        row: dict[str, Any],
        facts: dict[str, Any],
        files: Mapping[str, bytes],
        points: list[Point],
        strange: set[Any],
    ) -> str:
        version = of_row(_Row(row))
        there = await self.database.run(self._there, version)
        if there is not None and there != version.dek_id:
            raise BackupError(
                f"document {version.id} is here with another key", hint="the archive is of another life of this home"
            )
        # files and points first: both may be written again, with equal bytes
        vault, store, search = (
            self.vaults[version.site],
            self._route(Action.STORE, version),
            self._route(Action.SEARCH, version),
        )
        held = set(await vault.names(search, f"{version.id}.{version.version}."))
        for name, sealed in files.items():
            if name not in held:
                await vault.put(store, name, [sealed])
        place = (version.tenant, version.jurisdiction, version.site, version.search_epoch)
        indexed = version.state is State.LIVE and bool(points) and place not in strange and version.site in self.shards
        if indexed:
            await self.shards[version.site].put(store, points)
        if there is not None:
            return "there"
        state = version.state if version.state in _RESTING else State.SEALED
        if version.state is State.REPLACED:
            state = State.ARCHIVED
        if state is State.LIVE and not indexed:
            state = State.SEALED
        await self.database.run(self._insert, row, facts, state)
        opened = await self._opens(version)
        return "unopened" if not opened else "restored" if indexed or state is not State.SEALED else "indexing"

    async def _opens(self, version: Document) -> bool:
        decision = self._decide(Action.OPEN, version)
        if isinstance(decision, Refusal):
            return True  # not for us to look
        wanted = [(version.dek_id, version.tag.digest)]
        return bool(await self.keyring.open_deks(decision.route, version.site, wanted))

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _tenants(self) -> list[dict[str, Any]]:
        with self.database.reading() as connection:
            return [dict(row) for row in connection.execute(sa.select(metadata.tables["tenant"])).mappings()]

    def _there(self, version: Document) -> bytes | None:
        c = document.c
        with self.database.reading() as connection:
            mine = sa.select(c.dek_id).where(c.id == version.id, c.version == version.version)
            found = connection.execute(mine).scalar()
        return None if found is None else bytes(found)

    def _tombstones(self, tenants: list[str]) -> set[str]:
        """Give what was erased here: by its row, or by its entry in the Ledger where the row is lost."""
        c = document.c
        with self.database.reading() as connection:
            found = {row.id for row in connection.execute(sa.select(c.id).where(c.state.in_(_GONE)))}
        for tenant in tenants:
            for entry in self.ledger.entries(tenant, *_EVER, ["erase"]):
                if entry.get("facts", {}).get("format"):
                    found.add(entry["subject"])
        return found

    def _insert_shared(self, shared: dict[str, list[dict[str, Any]]]) -> set[Any]:
        """Insert what is not there; gives the places whose search keys differ here, so that no point of theirs fits.

        Raises `BackupError` where a number or a name means something else here.
        """
        strange: set[Any] = set()
        with self.database.transaction() as connection:
            for name, rows in shared.items():
                if name not in _SHARED:
                    raise BackupError(
                        "the archive holds rows of an unknown table", hint="use the version that wrote it"
                    )
                table = metadata.tables[name]
                for row in rows:
                    if name == "search_keyset" and _keyset(connection, row) not in (None, row["vectors_dek"]):
                        strange.add((row["tenant"], row["jurisdiction"], row["site_id"], row["epoch"]))
                        continue
                    if name == "kek" and row["state"] == "active" and _active(connection, row):
                        row = row | {"state": "retiring"}  # noqa: PLW2901 - a newer one wraps here
                    collections.insert_missing(connection, table, row)
                    _fits(connection, name, row)
        return strange

    def _insert(self, row: dict[str, Any], facts: dict[str, Any], state: State) -> None:
        rest: dict[str, Any] = {
            "lease_owner": None,
            "lease_until": None,
            "not_before": 0.0,
            "order_id": None,
            "attempts": 0,
            "retries": 0,
        }
        rest |= {"cause": row["cause"] if state in (State.FAILED, State.QUARANTINED) else "", "state": str(state)}
        if state is State.SEALED:
            rest |= {"passages_total": 0, "passages_done": 0}
        with self.database.transaction() as connection:
            for name in ("dek", "dek_wrapped", "document_points", "document_attributes"):
                for each in facts[name]:
                    collections.insert_missing(connection, metadata.tables[name], each)
            connection.execute(sa.insert(document).values(row | rest))
            collections.turn(connection, row["tenant_id"])
            collections.changed(connection, row["tenant_id"])


class _Row:
    """A row of the archive, as the database gives one."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)


_SHARED: Final = ("tenant", "collection", "tag_class", "tenant_turn", "kek", "dek", "dek_wrapped", "search_keyset")


def _keyset(connection: sa.Connection, row: dict[str, Any]) -> bytes | None:
    c = search_keyset.c
    mine = (c.tenant == row["tenant"], c.jurisdiction == row["jurisdiction"], c.site_id == row["site_id"])
    found = connection.execute(sa.select(c.vectors_dek, c.epoch).where(*mine).order_by(c.epoch == row["epoch"])).all()
    return bytes(found[-1].vectors_dek) if found else None  # of that epoch, else of the one that followed it here


def _active(connection: sa.Connection, row: dict[str, Any]) -> bool:
    c = kek.c
    mine = (c.tenant == row["tenant"], c.jurisdiction == row["jurisdiction"], c.site_id == row["site_id"])
    other = sa.or_(c.id != row["id"], c.version != row["version"])
    return connection.execute(sa.select(c.id).where(*mine, c.state == "active", other)).first() is not None


def _fits(connection: sa.Connection, name: str, row: dict[str, Any]) -> None:
    """Raise `BackupError` where what is here by the same key is something else."""
    told = {
        "collection": ("id", "name"),
        "tag_class": ("tenant_id", "number", "digest"),
        "kek": ("id", "version", "site_id"),
    }
    if (columns := told.get(name)) is None:
        return
    c = metadata.tables[name].c
    if connection.execute(sa.select(sa.literal(1)).where(*(c[each] == row[each] for each in columns))).first() is None:
        raise BackupError(
            f"the archive's {name} rows do not fit those of this home",
            hint="restore into a new home with the same keys, or into the home that it came from",
        )


def _documents(archive: Archive) -> Iterable[tuple[dict[str, Any], dict[str, bytes], list[Point]]]:
    """Give each version with its files and points; one of them is in memory at a time."""
    facts: dict[str, Any] | None = None
    files: dict[str, bytes] = {}
    points: list[Point] = []
    for name, data in archive.members():
        if name.startswith("shared/"):
            continue
        kind = name.split("/")[2]
        if kind == "rows":
            if facts is not None:
                yield facts, files, points
            facts, files, points = msgspec.msgpack.decode(data), {}, []
        elif kind == "file":
            files[name.split("/")[3]] = data
        else:
            points += [
                Point(id_, np.frombuffer(vector, np.float32), {int(word): weight for word, weight in words}, payload)
                for id_, vector, words, payload in msgspec.msgpack.decode(data)
            ]
    if facts is not None:
        yield facts, files, points
