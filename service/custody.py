"""Custody: rolling the keys that wrap the keys; every call to a key provider under a Route of its own Site."""

from typing import Any

from residency.decision import Ask, Permit, Principal
from residency.engine import Engine
from residency.errors import KeyringError
from residency.keyring import Keyring
from residency.route import Action, Route
from residency.tag import Tag

ACTIVITY = "indexing"


class Custody:
    """Rotates and rewraps for a tenant's jurisdiction, at every Site that is home to such a key."""

    def __init__(self, *, engine: Engine, keyring: Keyring) -> None:
        self._engine = engine
        self._keyring = keyring

    async def listing(self) -> list[dict[str, Any]]:
        """List KEK versions; never their bytes."""
        return [
            {
                "tenant": state.ref.tenant,
                "jurisdiction": state.ref.jurisdiction,
                "site": state.ref.site,
                "version": state.ref.version,
                "state": state.state,
                "wrapped": state.left,
            }
            for state in await self._keyring.listing()
        ]

    async def rotate(self, tenant: str, jurisdiction: str) -> list[dict[str, Any]]:
        """Make the next version of each such KEK. Raises `KeyringError` when there is none, or no permit."""
        done = []
        for site in await self._homes(tenant, jurisdiction):
            route = self._route(tenant, jurisdiction, site, Action.STORE)
            made = await self._keyring.rotate(route, tenant=tenant, jurisdiction=jurisdiction, site=site)
            done.append({"site": site, "version": made.version})
        return done

    async def rewrap(self, tenant: str, jurisdiction: str) -> dict[str, int]:
        """Bring every key under the active version; safe to repeat. Counts `moved`, `left`, `refused`."""
        total = {"moved": 0, "left": 0, "refused": 0}
        for site in await self._homes(tenant, jurisdiction):
            store = self._route(tenant, jurisdiction, site, Action.STORE)
            opening = self._route(tenant, jurisdiction, site, Action.OPEN)
            result = await self._keyring.rewrap(store, opening)
            total = {name: total[name] + result[name] for name in total} | {"left": result["left"]}
        return total

    async def _homes(self, tenant: str, jurisdiction: str) -> list[str]:
        states = await self._keyring.listing(tenant=tenant)
        homes = sorted({state.ref.site for state in states if state.ref.jurisdiction == jurisdiction})
        if not homes:
            raise KeyringError(
                f"{tenant} has no key for {jurisdiction}", hint="`domicile keys list` shows the keys there are"
            )
        return homes

    def _route(self, tenant: str, jurisdiction: str, site: str, action: Action) -> Route:
        zone = self._engine.fleet.site(site).zone
        tag = Tag(jurisdictions=frozenset(jurisdiction.split("+")), residency=frozenset({zone}))
        principal = Principal(id="custody", tenant=tenant, activities=frozenset({ACTIVITY}))
        decision = self._engine.decide(Ask(principal, action, site, (tag,), ACTIVITY))
        if isinstance(decision, Permit):
            return decision.route
        raise KeyringError(
            f"the policy refuses {action} at {site}: {decision.remedy}", hint="see `domicile policy try`"
        )
