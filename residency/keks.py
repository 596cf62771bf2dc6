"""Keks: the KEKs of every tenant × jurisdiction × home Site; the one place that speaks to key providers.

Rules kept here: a provider is called with a Route of the KEK's own tenant only; a KEK version is destroyed when nothing
is left under it; rewrapping is unwrap and wrap, since no provider's own rewrap carries what a key is bound to; one that
does not open withholds only itself. Keys in clear pass through and are not kept.
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from residency.database import Database
from residency.errors import KeyRefusedError, KeyringError, RouteError, SiteError
from residency.keyrows import DekRow, KekState
from residency.keystore import WRAP_LIMIT, Keystore
from residency.ports import KekRef, KeyProvider
from residency.route import Route
from residency.seal import NO_TAG, KeyContext, new_key

BATCH: Final = 2048
"""Keys rewrapped in one step, and lost to a kill at most: they are then done again."""
HORIZON: Final = 30 * 86_400.0
"""Seconds that a retired version is kept at most, unless told otherwise; as long may backups of the database live."""

T = TypeVar("T")
Providers = Mapping[str, KeyProvider]
"""Key providers by Site id."""
Also = Callable[[sa.Connection], object]
"""What is done in the same commit."""


def nothing(_: sa.Connection) -> None:
    """Do nothing in the same commit."""


@dataclass(frozen=True, slots=True)
class Stride:
    """One step of a rewrap: keys moved, keys that do not open and stay, and where to go on; None at the end."""

    moved: int
    refused: int
    after: bytes | None


class Keks:
    """KEKs as rows and at their providers. `providers` by Site id."""

    def __init__(self, database: Database, store: Keystore, providers: Providers, horizon: float = HORIZON) -> None:
        self._database = database
        self._store = store
        self._providers = providers
        self._horizon = horizon

    async def rotate(self, route_store: Route, *, tenant: str, jurisdiction: str, site: str) -> KekRef:
        """Make the next KEK version and use it from now on; the old one still opens until `rewrap` is done."""
        demand(route_store, tenant, NO_TAG)
        old = await self.active(route_store, tenant, jurisdiction, site)
        new = KekRef(old.id, old.version + 1, tenant, jurisdiction, site)
        await self._call(self._provider(site).create(route_store, new))
        await self._database.run(self._store.succeed, old)  # False: another rotation came first, to the same version
        return new

    async def rewrap(self, route_store: Route, route_open: Route, *, limit: int | None = None) -> dict[str, int]:
        """Bring the keys of the Routes' tenant and Site under the active KEK version, in id order; safe to repeat.

        Gives `moved`, `left` and `refused` (keys that do not open and stay). A version with nothing left is retired.
        """
        site, tenant = route_open.site, route_open.tenant
        demand(route_store, tenant, NO_TAG)
        result = {"moved": 0, "left": 0, "refused": 0}
        for state in await self.listing(tenant=tenant):
            after: bytes | None = b"" if state.state == "retiring" and state.ref.site == site else None
            while after is not None and (limit is None or result["moved"] < limit):
                size = BATCH if limit is None else min(BATCH, limit - result["moved"])
                done = await self.stride(route_store, route_open, state.ref, after, size)
                result["moved"] += done.moved
                result["refused"] += done.refused
                after = done.after
        left = [each.left for each in await self.listing(tenant=tenant) if each.state == "retiring"]
        return result | {"left": sum(left)}

    async def stride(
        self, route_store: Route, route_open: Route, ref: KekRef, after: bytes = b"", size: int = BATCH
    ) -> Stride:
        """Bring at most `size` keys of a retiring version under the active one, from the id after `after`.

        At the end the version is retired, unless something is left under it.
        """
        demand(route_store, ref.tenant, NO_TAG)
        rows = await self._database.run(self._store.under, ref, after, size)
        # The stored Tag digest will do here: were it not the wrapped one, the key would not open.
        keys = await self.unwrap(route_open, [(row, row.tag_digest) for row in rows])
        moved = await self.move(route_store, [(row, keys[row.id], row.tag_digest) for row in rows if row.id in keys])
        refused = len(rows) - len(keys)
        if len(rows) == size:
            return Stride(moved, refused, rows[-1].id)
        await self._database.run(self._store.retire, ref, self._horizon)  # refused by the store while any is left
        return Stride(moved, refused, None)

    async def destroy(self, route_erase: Route, kek_id: bytes, version: int, also: Also = nothing) -> None:
        """Destroy a retired KEK version for ever, when its time has come: old copies of the database no longer open.

        `also` is done in the commit that notes it. Raises `KeyringError` saying what it waits for.
        """
        for state in await self.listing(tenant=route_erase.tenant):
            if (state.ref.id, state.ref.version) != (kek_id, version):
                continue
            if state.state not in {"retired", "destroyed"}:
                raise KeyringError(f"KEK version {version} is {state.state}", hint="rotate and rewrap first")
            if state.state == "retired" and not state.ripe:
                due = datetime.fromtimestamp(state.due or state.now + self._horizon, UTC)
                raise KeyringError(
                    f"KEK version {version} is kept until {due:%Y-%m-%d %H:%M} UTC",
                    hint="until then backups of the database open; keys.horizon_days says how long",
                )
            await self._call(self._provider(state.ref.site).destroy(route_erase, state.ref))
            await self._database.run(self._store.destroyed, state.ref, also)
            return
        raise KeyringError(f"KEK {kek_id.hex()} version {version} is unknown for this tenant")

    async def roll(self, site: str) -> dict[str, Any]:
        """Give the provider of this Site a new root, if its root is one of ours; what it holds stays."""
        held = [state.ref for state in await self.listing() if state.ref.site == site]
        return await self._call(self._provider(site).roll(held))

    async def listing(self, *, tenant: str | None = None) -> list[KekState]:
        """List KEK versions, of one tenant or of all, with what is left under each."""
        return await self._database.run(self._store.keks, tenant)

    async def status(self) -> dict[str, dict[str, Any]]:
        """Ask every provider how it is; one that does not answer is named with its error's text."""
        found: dict[str, dict[str, Any]] = {}
        for site, provider in self._providers.items():
            try:
                found[site] = await provider.status() | {"ok": True}
            except (KeyringError, SiteError) as error:
                found[site] = {"ok": False, "error": str(error)}
        return found

    # --- for the Keyring ---------------------------------------------------------------------------------------------

    def _provider(self, site: str) -> KeyProvider:
        try:
            return self._providers[site]
        except KeyError:
            raise KeyringError(f"no key provider at {site}", hint="give the Site `keys` in the fleet file") from None

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except SiteError as error:
            raise KeyringError(f"the key provider at {error.site} does not answer", hint="try again later") from error

    async def active(self, route_store: Route, tenant: str, jurisdiction: str, site: str) -> KekRef:
        """Give the KEK version that wraps now; made, row and key, on first use. Raises `KeyringError` at its limit."""
        ref, wraps = await self._database.run(self._store.active_kek, tenant, jurisdiction, site, new_key()[:16])
        if wraps >= WRAP_LIMIT:
            raise KeyringError(f"KEK {ref.id.hex()} version {ref.version} has wrapped enough", hint="rotate it")
        if wraps == 0:  # its row may stand without its key, if a process died in between: making it twice does no harm
            await self._call(self._provider(site).create(route_store, ref))
        return ref

    async def wrapped(self, route: Route, ref: KekRef, context: KeyContext, key: bytes, tag_digest: bytes) -> DekRow:
        """Wrap one key under this KEK version and give the row that would hold it."""
        aad = context.wrap_aad(ref.id, ref.version, tag_digest)
        [wrapped] = await self._call(self._provider(ref.site).wrap(route, ref, [(key, aad)]))
        return DekRow(context, ref.tenant, ref, context.commitment(key), tag_digest, wrapped)

    async def unwrap(self, route: Route, wanted: Sequence[tuple[DekRow, bytes]]) -> dict[bytes, bytes]:
        """Unwrap (row, Tag digest) pairs, one batch per KEK version; keys by dek_id, those that do not open absent."""
        batches: dict[KekRef, list[tuple[DekRow, bytes]]] = {}
        for row, tag in wanted:
            batches.setdefault(row.kek, []).append((row, tag))
        keys: dict[bytes, bytes] = {}
        for ref, batch in batches.items():
            items = [(row.wrapped, row.aad(tag)) for row, tag in batch]
            unwrap = self._provider(ref.site).unwrap
            try:
                opened = await self._call(unwrap(route, ref, items))
                keys |= {row.id: key for (row, _), key in zip(batch, opened, strict=True)}
                continue
            except KeyRefusedError:
                if len(batch) == 1:
                    continue
            # The batch was refused as a whole: try each alone, so that one damaged key withholds only itself.
            for (row, _), item in zip(batch, items, strict=True):
                try:
                    keys[row.id] = (await self._call(unwrap(route, ref, [item])))[0]
                except KeyRefusedError:
                    continue
        return keys

    async def move(self, route_store: Route, moves: Sequence[tuple[DekRow, bytes, bytes]]) -> int:
        """Wrap (row, key, Tag digest) under the active KEK of their tenant × jurisdiction × Site; gives how many."""
        good = [(row, key, tag) for row, key, tag in moves if committed(row, key)]
        if not good:
            return 0
        first = good[0][0]
        target = await self.active(route_store, first.tenant, first.context.jurisdiction, first.kek.site)
        items = [(key, row.aad(tag, target)) for row, key, tag in good]
        wrapped = await self._call(self._provider(target.site).wrap(route_store, target, items))
        swaps = [(row, tag, new) for (row, _, tag), new in zip(good, wrapped, strict=True)]
        return await self._database.run(self._store.rewrapped, swaps, target)


def committed(row: DekRow, key: bytes) -> bool:
    """Say, in constant time, whether this is the key that the row commits to."""
    return hmac.compare_digest(row.context.commitment(key), row.commitment)


def demand(route: Route, tenant: str, tag_digest: bytes) -> None:
    """Raise `RouteError` unless the Route is of this tenant and was judged for this Tag (or no Tag is involved)."""
    if route.tenant != tenant or (tag_digest != NO_TAG and tag_digest.hex() not in route.tags):
        raise RouteError("a Route was shown for another tenant or for a Tag it was not judged for")
