"""Clearing: what erasing does at one Site, and the probes that look whether anything is left.

Erasing asks for nothing but the Action erase; where the policy lets the worker search as well, it looks once more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ingestion.artefacts import work_names
from ingestion.certificates import store
from ingestion.documents import Document, names_of
from ingestion.errors import ErasureError
from ingestion.leases import ACTIVITY, Lease, worker_principal
from residency.decision import Ask, Permit
from residency.engine import Engine
from residency.journal import Touch
from residency.ports import Shard, Vault
from residency.route import Action, Route
from residency.tag import Tag


@dataclass(slots=True, eq=False)
class Leaving:
    """One Document on its way out: what is known of it, and what each store reported."""

    lease: Lease
    versions: list[Document] = field(default_factory=list)
    routes: dict[str, tuple[Route, Tag]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    existed: dict[str, int] = field(default_factory=dict)
    stores: list[dict[str, Any]] = field(default_factory=list)
    touches: list[Touch] = field(default_factory=list)
    tags: set[Tag] = field(default_factory=set)


class Clearing:
    """Deletes points and sealed files and asks again; every method may be repeated."""

    def __init__(self, engine: Engine, shards: Mapping[str, Shard], vaults: Mapping[str, Vault]) -> None:
        self.engine = engine
        self.shards = shards
        self.vaults = vaults

    async def unindex(self, site: str, route: Route, ids: list[str]) -> int:
        """Delete points by id, and give how many there were."""
        return await self.shards[site].delete(route, ids)

    async def purge(self, site: str, route: Route) -> dict[str, Any]:
        """Rebuild the index without what was deleted; gives method and result."""
        found = await self.shards[site].purge(route)
        return {key: value if isinstance(value, int | str | bool) else str(value) for key, value in found.items()}

    async def look(
        self, site: str, route: Route, tag: Tag, tenant: str, ids: list[str], existed: int, purged: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Ask for deleted points again; gives two lines of a certificate. Raises `ErasureError` for what is left."""
        shard = self.shards[site]
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
        method = str(purged.get("method", "rebuilt"))
        return [
            store("points", site, "deleted by id", check) | {"count": existed},
            store("index files", site, method, "rebuilt without the deleted points") | {"result": purged},
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
