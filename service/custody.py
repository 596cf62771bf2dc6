"""Custody: rolling the keys that wrap the keys; every call to a key provider under a Route of its own Site.

Rules kept here: whatever is done to a KEK is in the Ledger of its tenant, kind `key`, with what was touched; a version
is destroyed only when nothing is left under it and its time has come; a walk over many keys asks for fresh Routes on
the way and goes on where it stopped, whoever stopped it.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from residency import receipt
from residency.database import Database
from residency.decision import Ask, Permit, Principal
from residency.engine import Engine
from residency.errors import KeyringError
from residency.journal import Touch, recording
from residency.keyring import Keyring
from residency.keyrows import KekState
from residency.ledger import Ledger
from residency.ports import KekRef
from residency.receipt import Draft
from residency.route import Action, Route
from residency.tag import Tag

ACTIVITY = "indexing"
STRIDES: Final = 8
"""Steps of a rewrap under one pair of Routes and in one entry of the Ledger; a Route lives for a minute."""


class Custody:
    """Rotates, rewraps and destroys for a tenant's jurisdiction, at every Site that is home to such a key."""

    def __init__(self, *, engine: Engine, keyring: Keyring, ledger: Ledger, database: Database, steward: str) -> None:
        self._engine = engine
        self._keyring = keyring
        self._ledger = ledger
        self._database = database
        self._steward = steward

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
                "wraps": state.wraps,
                "created": _day(state.created),
                "destroy_by": _day(state.due) if state.state != "destroyed" else "",
                "destroyed": _day(state.destroyed_at),
            }
            for state in await self._keyring.listing()
        ]

    async def rotate(self, tenant: str, jurisdiction: str) -> list[dict[str, Any]]:
        """Make the next version of each such KEK. Raises `KeyringError` when there is none, or no permit."""
        states = await self._states(tenant, jurisdiction)
        done = []
        for site in sorted({state.ref.site for state in states}):
            made = await self.rotate_at(tenant, jurisdiction, site)
            done.append({"site": site, "version": made.version})
        return done

    async def rotate_at(self, tenant: str, jurisdiction: str, site: str) -> KekRef:
        """Make the next version of the KEK whose home is this Site, and record it."""
        with recording() as touches:
            route = self._route(tenant, jurisdiction, site, Action.STORE)
            made = await self._keyring.rotate(route, tenant=tenant, jurisdiction=jurisdiction, site=site)
        await self._ledger.record(self._draft(made, touches, "rotate"))
        return made

    async def rewrap(
        self,
        tenant: str,
        jurisdiction: str,
        *,
        site: str | None = None,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> dict[str, int]:
        """Bring every key under the active version; safe to stop and repeat. Counts `moved`, `left`, `refused`.

        Of one Site, or of all; `progress` is told how many keys were looked at, and of how many.
        """

        async def retiring() -> list[KekState]:
            found = [each for each in await self._states(tenant, jurisdiction) if each.state == "retiring"]
            return [each for each in found if site in {None, each.ref.site}]

        waiting = await retiring()
        total, seen = {"moved": 0, "refused": 0}, 0
        whole = sum(state.left for state in waiting)
        for state in waiting:
            after: bytes | None = b""
            while after is not None:
                after, moved, refused = await self._stretch(state.ref, after)
                total["moved"] += moved
                total["refused"] += refused
                seen += moved + refused
                progress(seen, max(seen, whole))  # some may have been made meanwhile
        return total | {"left": sum(state.left for state in await retiring())}

    async def _stretch(self, ref: KekRef, after: bytes | None) -> tuple[bytes | None, int, int]:
        """Take a few steps under one pair of Routes and record them; gives where to go on, moved and refused."""
        moved = refused = 0
        with recording() as touches:
            store = self._route(ref.tenant, ref.jurisdiction, ref.site, Action.STORE)
            opening = self._route(ref.tenant, ref.jurisdiction, ref.site, Action.OPEN)
            for _ in range(STRIDES):
                done = await self._keyring.stride(store, opening, ref, after or b"")
                moved, refused, after = moved + done.moved, refused + done.refused, done.after
                if after is None:
                    break
        self._keyring.empty()
        if moved or refused or after is None:
            ended = {"ended": True} if after is None else {}
            facts = {"moved": moved, "refused": refused, **ended}
            await self._ledger.record(self._draft(ref, touches, "rewrap", **facts))
        return after, moved, refused

    async def destroy(self, tenant: str, jurisdiction: str, version: int | None = None) -> list[dict[str, Any]]:
        """Destroy retired versions whose time has come, the oldest first; or the one named.

        Raises `KeyringError` saying what the named one waits for.
        """
        chosen = [
            state
            for state in await self._states(tenant, jurisdiction)
            if (state.ripe if version is None else state.ref.version == version and state.state != "destroyed")
        ]
        if version is not None and not chosen:
            raise KeyringError(f"{tenant} has no living version {version} for {jurisdiction}", hint="see `keys list`")
        for state in sorted(chosen, key=lambda each: each.ref.version):
            await self.destroy_one(state.ref)
        return [{"site": state.ref.site, "version": state.ref.version} for state in chosen]

    async def destroy_one(self, ref: KekRef) -> None:
        """Destroy this version and record it in the commit that notes it. Raises `KeyringError` before its time."""
        with recording() as touches:
            route = self._route(ref.tenant, ref.jurisdiction, ref.site, Action.ERASE)

            def also(connection: sa.Connection) -> None:
                self._ledger.append(self._draft(ref, touches, "destroy"), connection)

            await self._keyring.destroy(route, ref.id, ref.version, also)

    async def roll(self, site: str) -> dict[str, Any]:
        """Give the Site's key provider a new root, so that copies of destroyed KEKs open no more; recorded.

        Empty where the root is the provider's own.
        """
        self._engine.fleet.site(site)
        done = await self._keyring.roll(site)
        if done:
            facts = {"event": "root", "site": site, "keks": done.get("keks", 0)}
            await self._ledger.record(Draft("key", self._steward, ACTIVITY, facts=facts))
        return done

    # --- within -----------------------------------------------------------------------------------------------------

    async def _states(self, tenant: str, jurisdiction: str) -> list[KekState]:
        found = [each for each in await self._keyring.listing(tenant=tenant) if each.ref.jurisdiction == jurisdiction]
        if not found:
            raise KeyringError(
                f"{tenant} has no key for {jurisdiction}", hint="`domicile keys list` shows the keys there are"
            )
        return found

    def _draft(self, ref: KekRef, touches: list[Touch], event: str, **facts: Any) -> Draft:
        named = {"kek": ref.id.hex(), "version": ref.version, "site": ref.site, "jurisdiction": ref.jurisdiction}
        return Draft(
            kind="key",
            tenant=ref.tenant,
            activity=ACTIVITY,
            tags=(self._tag(ref.jurisdiction, ref.site),),
            steps=receipt.steps(touches, self._engine.fleet, datetime.now(UTC), reason="rewrap"),
            facts={"event": event, **named, **facts},
        )

    def _tag(self, jurisdiction: str, site: str) -> Tag:
        zone = self._engine.fleet.site(site).zone
        return Tag(jurisdictions=frozenset(jurisdiction.split("+")), residency=frozenset({zone}))

    def _route(self, tenant: str, jurisdiction: str, site: str, action: Action) -> Route:
        tag = self._tag(jurisdiction, site)
        principal = Principal(id="custody", tenant=tenant, activities=frozenset({ACTIVITY}))
        decision = self._engine.decide(Ask(principal, action, site, (tag,), ACTIVITY))
        if isinstance(decision, Permit):
            return decision.route
        raise KeyringError(
            f"the policy refuses {action} at {site}: {decision.remedy}", hint="see `domicile policy try`"
        )


def _day(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
