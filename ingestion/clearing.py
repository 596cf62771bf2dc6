"""Clearing: what erasing does at one Site, and the probes that look whether anything is left.

Erasing asks for nothing but the Action erase; where the policy lets the worker search as well, it looks once more.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ingestion.artefacts import work_names
from ingestion.crash import crash_point
from ingestion.documents import Document, names_of
from ingestion.errors import ErasureError
from ingestion.leases import ACTIVITY, worker_principal
from residency import receipt
from residency.decision import Ask, Permit
from residency.engine import Engine
from residency.ports import Shard, Vault
from residency.route import Action, Route
from residency.tag import Tag


class Clearing:
    """Deletes points and sealed files and asks again; both methods may be repeated."""

    def __init__(self, engine: Engine, shards: Mapping[str, Shard], vaults: Mapping[str, Vault]) -> None:
        self.engine = engine
        self.shards = shards
        self.vaults = vaults

    async def unindex(
        self, site: str, route: Route, tag: Tag, tenant: str, identifier: str, ids: list[str]
    ) -> list[dict[str, Any]]:
        """Delete points by id, rebuild the index without them, ask again. Raises `ErasureError` for what is left."""
        shard = self.shards[site]
        existed = await shard.delete(route, ids)
        crash_point("points-deleted")
        purged = await shard.purge(route)
        crash_point("purged")
        again = await shard.delete(route, ids)
        if again:
            raise ErasureError(f"{again} points came back at {site}", hint="they are deleted again")
        check = f"asked again: 0 of {len(ids)} points"
        search = self._search(site, tenant, tag)
        if search is not None:
            seen = await shard.retrieve(search, ids)
            if seen:
                raise ErasureError(f"{len(seen)} points are left at {site}", hint="they are deleted again")
            check += "; retrieved by id: 0"
        return [
            store("points", site, "deleted by id", check) | {"count": existed},
            store("index files", site, str(purged.get("method", "rebuilt")), "rebuilt without the deleted points")
            | {"result": {k: v if isinstance(v, int | str | bool) else str(v) for k, v in purged.items()}},
        ]

    async def unfile(self, site: str, route: Route, tag: Tag, tenant: str, versions: list[Document]) -> dict[str, Any]:
        """Delete every sealed file of these versions and list again. Raises `ErasureError` for what is left."""
        vault, search = self.vaults[site], self._search(site, tenant, tag)
        names: set[str] = set()
        for version in versions:
            prefix = names_of(version.id, version.version)
            names |= {prefix + "original", prefix + "text", *work_names(version.id, version.version, version.passages)}
            if search is not None:
                names |= set(await vault.names(search, prefix))
        existed = await vault.delete(route, sorted(names))
        again = await vault.delete(route, sorted(names))
        left = 0
        if search is not None:
            left = sum([len(await vault.names(search, names_of(v.id, v.version))) for v in versions])
        if again or left:
            raise ErasureError(f"{again + left} sealed files are left at {site}", hint="they are deleted again")
        return store("sealed files", site, "unlinked", "listed again: 0") | {"count": existed}

    def _search(self, site: str, tenant: str, tag: Tag) -> Route | None:
        """The probes look once more where the policy lets them; erasing itself does not depend on it."""
        ask = Ask(worker_principal(site, tenant), Action.SEARCH, site, (tag,), activity=ACTIVITY)
        decision = self.engine.decide(ask)
        return decision.route if isinstance(decision, Permit) else None


def store(kind: str, site: str, method: str, check: str) -> dict[str, Any]:
    """Give one line of a certificate: what was done, where, when, and how it was checked."""
    return {"store": kind, "site": site, "method": method, "time": stamp(), "check": check}


def stamp(moment: datetime | None = None) -> str:
    """Write an instant, now unless one is given."""
    return receipt.stamp(moment or datetime.now(UTC))
