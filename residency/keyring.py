"""Keyring: makes, opens, retags, rolls and shreds the keys that everything is sealed under.

Rules kept here: a KEK belongs to one tenant × jurisdiction × home Site; a key provider is called with a Route only; the
rows decide and never the cache, which is bounded, short and emptied on shred and roll; a Tag that is not the one the
key was wrapped for does not open it, and neither does a Route that was not judged for that Tag.
A key that does not open is absent from what `open_deks` gives (its Passages are withheld and counted); a provider that
does not answer is `KeyringError`. Nothing falls back to plaintext.
"""

import hmac
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from residency.database import Database
from residency.errors import KeyRefusedError, KeyringError, SealedError
from residency.journal import Touch, note
from residency.keks import HORIZON, Also, Keks, Providers, Stride, demand, nothing
from residency.keyrows import DekRow, KekState
from residency.keysets import Keysets
from residency.keystore import Keystore
from residency.ports import KekRef
from residency.route import Action, Route
from residency.seal import (
    NO_TAG,
    SEAL_STEP,
    KeyContext,
    OpenDek,
    Purpose,
    bind,
    expand,
    new_key,
    tenant_bytes,
)
from residency.searchkeys import SearchKeys

__all__ = ["KekState", "Keyring", "SearchKeys"]

CACHED: Final = 4096
"""Open keys held at most."""
CACHE_SECONDS: Final = 60.0
"""Seconds that one is held at most."""
REFILL: Final = 256
"""Messages reserved when an opened key seals beyond what was reserved ahead."""
_Held = tuple[OpenDek, bytes, float]


class Keyring:
    """All keys of this house. `providers` by Site id; `mac_key` is 32 bytes and keys the MACs of names and contents.

    `horizon` is how long, in seconds, a KEK version is kept once it is retired, or once a key under it was shredded.
    """

    def __init__(
        self, database: Database, providers: Providers, *, mac_key: bytes = b"", horizon: float = HORIZON
    ) -> None:
        self._database = database
        self._store = Keystore(database)
        self._keks = Keks(database, self._store, providers, horizon)
        self._keysets = Keysets(database, self._store, self._keks)
        self._mac_key = mac_key
        self._horizon = horizon
        self._open: dict[bytes, _Held] = {}
        self._searching: dict[tuple[str, str, str, int], tuple[SearchKeys, tuple[bytes, ...], float]] = {}
        self._spare: dict[bytes, int] = {}
        self.forgetting: list[Callable[[], None]] = []  # called whenever every open key is forgotten

    # --- keys of documents and conversations ------------------------------------------------------------------------

    async def new_dek(
        self,
        route_store: Route,
        *,
        purpose: str,
        tenant: str,
        jurisdiction: str,
        subject: bytes,
        version: int,
        tag_digest: bytes,
        site: str,
    ) -> OpenDek:
        """Make a key for one subject, wrap it under the KEK at `site` and enter it.

        `subject` is 16 raw bytes, `jurisdiction` as `Tag.origin`, `tag_digest` as `Tag.digest` (`NO_TAG` for keys of
        no document). 4,096 messages are reserved from the start. Raises `RouteError`, `KeyringError`.
        """
        demand(route_store, tenant, tag_digest)
        context = KeyContext(Purpose(purpose), tenant_bytes(tenant), jurisdiction, subject, version, new_key()[:16])
        key = new_key()
        for _ in range(3):  # a rotation may come in between
            ref = await self._keks.active(route_store, tenant, jurisdiction, site)
            row = await self._keks.wrapped(route_store, ref, context, key, tag_digest)
            if await self._database.run(self._store.add, [row]):
                return OpenDek(context, key, tenant=tenant, left=SEAL_STEP, reserve=self._refill)
        raise KeyringError("the KEK is being rolled again and again", hint="try again later")

    async def open_deks(
        self, route_open: Route, site: str, wanted: Sequence[tuple[bytes, bytes]]
    ) -> dict[bytes, OpenDek]:
        """Open the keys of (dek_id, Tag digest) pairs whose KEK lives at `site`: one query, one unwrap per KEK version.

        The digest comes from the Tag's own row. Absent from the result: keys shredded, of another tenant or Site, with
        a Tag the Route was not judged for, and keys that do not open. Raises `KeyringError` when the provider is down.
        """
        route_open.check(site=site, action=Action.OPEN)
        tags = {dek_id: tag for dek_id, tag in wanted if tag == NO_TAG or tag.hex() in route_open.tags}
        rows = await self._database.look(self._store.rows, tags)
        rows = [row for row in rows if row.tenant == route_open.tenant and row.kek.site == site]
        now = self._sweep()
        opened: dict[bytes, OpenDek] = {}
        cold: list[DekRow] = []
        for row in rows:
            held = self._open.get(row.id)
            if held is not None and hmac.compare_digest(held[1], tags[row.id]):
                opened[row.id] = held[0]
            else:
                cold.append(row)
        self._note_warm(route_open, site, len(opened))
        keys = await self._keks.unwrap(route_open, [(row, tags[row.id]) for row in cold])
        for row in cold:
            if row.id not in keys:
                continue
            try:
                dek = OpenDek.proven(row.context, keys[row.id], row.commitment, tenant=row.tenant, reserve=self._refill)
            except SealedError:
                continue  # the provider gave a key that is not the committed one
            dek.allow(self._spare.pop(row.id, 0))
            opened[row.id] = dek
            if len(self._open) >= CACHED:
                self._forget(next(iter(self._open)))
            self._open.pop(row.id, None)  # so that the order stays that of expiry
            self._open[row.id] = (dek, tags[row.id], now + CACHE_SECONDS)
        return opened

    async def open_dek(self, route_open: Route, site: str, dek_id: bytes, tag_digest: bytes) -> OpenDek:
        """Open one key; `KeyringError` when it is shredded or does not open, `RouteError` for a Tag not judged."""
        demand(route_open, route_open.tenant, tag_digest)
        opened = await self.open_deks(route_open, site, [(dek_id, tag_digest)])
        if dek_id not in opened:
            raise KeyRefusedError(f"key {dek_id.hex()} is shredded or does not open for this Tag")
        return opened[dek_id]

    async def reserve(self, dek: OpenDek, count: int) -> None:
        """See to it that `count` messages may be sealed without waiting; call it before a run of sealing."""
        missing = count - dek.left
        if missing > 0:
            dek.allow(await self._database.run(self._store.reserve, dek.dek_id, missing))

    async def retag(self, route_store: Route, route_open: Route, dek_id: bytes, *, old: bytes, new: bytes) -> None:
        """Wrap a key anew for a changed Tag (same jurisdictions). Raises `KeyringError` when it does not open as `old`.

        `old` and `new` are Tag digests; the open Route was judged for the old Tag, the store Route for the new one.
        """
        demand(route_open, route_open.tenant, old)
        demand(route_store, route_open.tenant, new)
        rows = [row for row in await self._database.run(self._store.rows, [dek_id]) if row.tenant == route_open.tenant]
        keys = await self._keks.unwrap(route_open, [(row, old) for row in rows])
        if dek_id not in keys:
            raise KeyRefusedError(f"key {dek_id.hex()} is shredded or does not open for this Tag")
        if not await self._keks.move(route_store, [(rows[0], keys[dek_id], new)]):
            raise KeyringError(f"key {dek_id.hex()} changed while it was retagged", hint="try again")
        self._forget(dek_id)

    async def shred(self, dek_id: bytes) -> bool:
        """Shred one, see `shred_all`; False when it was gone already."""
        return await self.shred_all([dek_id]) == 1

    async def shred_all(self, dek_ids: Sequence[bytes]) -> int:
        """Delete wrapped keys: what they sealed is unreadable from these commits on. Gives how many were there.

        Old pages may hold them until `Database.checkpoint`, backups until their KEK's versions go, a horizon from now.
        """
        starts = range(0, len(dek_ids), 400)
        gone = sum(
            [await self._database.run(self._store.shred, dek_ids[at : at + 400], self._horizon) for at in starts]
        )
        self.empty()
        return gone

    def empty(self) -> None:
        """Forget every open key of this process, and what others keep as long as keys stand."""
        for dek_id in list(self._open):
            self._forget(dek_id)
        self._searching.clear()
        for forget in self.forgetting:
            forget()

    # --- keys of search ---------------------------------------------------------------------------------------------

    async def search_keys(
        self,
        route_open: Route,
        *,
        tenant: str,
        jurisdiction: str,
        site: str,
        dimension: int | None = None,
        create: Route | Literal[False] = False,
        epoch: int | None = None,
    ) -> SearchKeys | None:
        """Open the search keys of tenant × jurisdiction × Site; None when there are none and `create` is False.

        To make them on first use, give the store Route as `create`, and `dimension`, the width of the vectors; another
        width than the keyset's is `KeyringError`. `epoch` asks for one that is not, or no longer, in use.
        """
        route_open.check(site=site, action=Action.OPEN)
        demand(route_open, tenant, NO_TAG)
        place = (tenant, jurisdiction, site)
        found = await self._database.look(self._store.keyset, *place, epoch)
        if found is None:
            if create is False or dimension is None:
                return None
            await self._keysets.make(create, place, dimension)
            found = await self._database.run(self._store.keyset, *place)
        if found is None:
            raise KeyringError("the search keys vanished while they were made", hint="try again")
        keyset, rows = found
        if dimension is not None and keyset.dimension != dimension:
            raise KeyringError(
                f"the search keys of {jurisdiction} at {site} take width {keyset.dimension}, not {dimension}",
                hint="build a new epoch for the new embedder",
            )
        if len(rows) < len(keyset.deks):
            raise KeyringError(f"the search keys of {jurisdiction} at {site} are shredded", hint="index anew")
        self._sweep()
        held = self._searching.get((*place, keyset.epoch))
        if held is not None and held[1] == keyset.deks:
            self._note_warm(route_open, site, len(rows))
            return held[0]
        opened = await self._keysets.open(route_open, place, keyset, rows)
        self._searching[(*place, keyset.epoch)] = (opened, keyset.deks, time.monotonic() + CACHE_SECONDS)
        return opened

    async def following(self, route_store: Route, tenant: str, jurisdiction: str, site: str) -> int:
        """Give the epoch of search keys that is to follow, made now unless it was begun before."""
        return await self._keysets.following(route_store, (tenant, jurisdiction, site))

    # --- KEKs -------------------------------------------------------------------------------------------------------

    async def rotate(self, route_store: Route, *, tenant: str, jurisdiction: str, site: str) -> KekRef:
        """Make the next KEK version and use it from now on; the old one still opens until `rewrap` is done."""
        made = await self._keks.rotate(route_store, tenant=tenant, jurisdiction=jurisdiction, site=site)
        self.empty()
        return made

    async def rewrap(self, route_store: Route, route_open: Route, *, limit: int | None = None) -> dict[str, int]:
        """Bring keys of the Routes' tenant and Site under the active KEK version; gives `moved`, `left`, `refused`."""
        result = await self._keks.rewrap(route_store, route_open, limit=limit)
        self.empty()
        return result

    async def stride(self, route_store: Route, route_open: Route, ref: KekRef, after: bytes = b"") -> Stride:
        """Take one step of a rewrap of one retiring KEK version; whoever walks shows fresh Routes in time."""
        return await self._keks.stride(route_store, route_open, ref, after)

    async def destroy(self, route_erase: Route, kek_id: bytes, version: int, also: Also = nothing) -> None:
        """Destroy a retired KEK version for ever once its time has come; `also` is done in the commit that notes it."""
        await self._keks.destroy(route_erase, kek_id, version, also)

    async def roll(self, site: str) -> dict[str, Any]:
        """Give the key provider of a Site a new root, so that copies of destroyed KEKs open no more."""
        return await self._keks.roll(site)

    async def listing(self, *, tenant: str | None = None) -> list[KekState]:
        """List KEK versions, of one tenant or of all, with what is left under each."""
        return await self._keks.listing(tenant=tenant)

    async def status(self) -> dict[str, dict[str, Any]]:
        """Ask every provider how it is; one that does not answer is named with its error's text."""
        return await self._keks.status()

    # --- MACs of names and contents ---------------------------------------------------------------------------------

    def name_mac(self, tenant: str, collection: str, name: str) -> bytes:
        """Give 32 bytes by which a document's name is found again in any jurisdiction; `collection` in hex."""
        return hmac.digest(self._mac(tenant), bind("domicile/v1/name", bytes.fromhex(collection), name), "sha256")

    def content_mac(self, tenant: str) -> hmac.HMAC:
        """Give an HMAC to be fed with a file's bytes, by which the same bytes are known again."""
        return hmac.new(self._mac(tenant), bind("domicile/v1/content"), "sha256")

    def _mac(self, tenant: str) -> bytes:
        if len(self._mac_key) < 32:
            raise KeyringError("the Keyring was given no MAC key of 32 bytes", hint="check keys/service.key")
        return expand(self._mac_key, bind("domicile/v1/mac", tenant_bytes(tenant)))

    # --- within -----------------------------------------------------------------------------------------------------

    def _refill(self, dek_id: bytes) -> int:
        return self._store.reserve(dek_id, REFILL)

    def _forget(self, dek_id: bytes) -> None:
        held = self._open.pop(dek_id, None)
        if held is not None:
            if len(self._spare) >= CACHED:
                self._spare.clear()
            self._spare[dek_id] = held[0].surrender()

    def _sweep(self) -> float:
        # Entries stand in the order of their making, so the expired ones come first.
        now = time.monotonic()
        while self._open:
            if self._open[first := next(iter(self._open))][2] > now:
                break
            self._forget(first)
        self._searching = {place: held for place, held in self._searching.items() if held[2] > now}
        return now

    def _note_warm(self, route: Route, site: str, count: int) -> None:
        # The Receipt names every opening, whether the provider was asked again or not.
        if count:
            note(Touch(Action.OPEN, site, "keys", route.tags, route.policies, count=count))
