"""Keysets: the three search keys of one epoch made, sealed and opened, and one epoch following another.

Rules kept here: a place (tenant × jurisdiction × Site) has one epoch in use, and at most one that is being made; an
epoch is in use only when everything searchable stands under it, and what went before is shredded after that.
"""

import asyncio

import sqlalchemy as sa

from residency.database import Database
from residency.errors import KeyRefusedError, KeyringError
from residency.frames import open_file, seal_file
from residency.keks import Keks, committed, demand
from residency.keyrows import DekRow, Keyset
from residency.keystore import Keystore
from residency.rotation import Rotation, digest, make
from residency.route import Route
from residency.seal import NO_SUBJECT, NO_TAG, SEAL_STEP, KeyContext, OpenDek, Purpose, new_key, tenant_bytes
from residency.searchkeys import SearchKeys

Place = tuple[str, str, str]
"""Tenant, jurisdiction, Site."""


class Keysets:
    """Makes and opens keysets; which is in use is the rows' to say."""

    def __init__(self, database: Database, store: Keystore, keks: Keks) -> None:
        self._database = database
        self._store = store
        self._keks = keks

    async def make(self, route: Route, place: Place, dimension: int, *, epoch: int = 1, state: str = "active") -> None:
        """Make the keys of an epoch; harmless when another process made them first."""
        tenant, jurisdiction, site = place
        demand(route, tenant, NO_TAG)
        ref = await self._keks.active(route, *place)
        rows: list[DekRow] = []
        sealed = b""
        rotation = Rotation(await asyncio.to_thread(make, dimension))
        for purpose in (Purpose.VECTORS, Purpose.LEXICON, Purpose.TAGS):
            key = new_key()
            context = KeyContext(purpose, tenant_bytes(tenant), jurisdiction, NO_SUBJECT, epoch, new_key()[:16])
            rows.append(await self._keks.wrapped(route, ref, context, key, NO_TAG))
            if purpose is Purpose.VECTORS:
                dek = OpenDek(context, key, tenant=tenant, left=SEAL_STEP)
                sealed = b"".join(seal_file(dek, "rotation", NO_SUBJECT, epoch, rotation.encoded()))
        keyset = {
            "tenant": tenant,
            "jurisdiction": jurisdiction,
            "site_id": site,
            "epoch": epoch,
            "state": state,
            "dimension": dimension,
            **{f"{row.context.purpose}_dek": row.id for row in rows},
            "matrix": sealed,
            "matrix_digest": digest(rotation.matrix),
        }
        try:
            entered = await self._database.run(self._store.add, rows, keyset)
        except sa.exc.IntegrityError:
            return  # another process made them first; its rows stand, ours were rolled back
        if not entered:
            raise KeyringError("the KEK was rolled while search keys were made", hint="try again")

    async def open(self, route: Route, place: Place, keyset: Keyset, rows: list[DekRow]) -> SearchKeys:
        """Open the keys that a keyset's rows hold. Raises `KeyRefusedError` where they are not what was made."""
        tenant, jurisdiction, site = place
        keys = await self._keks.unwrap(route, [(row, NO_TAG) for row in rows])
        if len(keys) < len(rows) or not all(committed(row, keys[row.id]) for row in rows):
            raise KeyRefusedError(f"the search keys of {jurisdiction} at {site} do not open")
        vectors, words, tags = (keys[dek_id] for dek_id in keyset.deks)
        context = next(row.context for row in rows if row.id == keyset.deks[0])
        sealed = await self._database.run(self._store.matrix, context.dek_id)
        matrix = open_file(OpenDek(context, vectors, tenant=tenant), "rotation", NO_SUBJECT, keyset.epoch, sealed)
        rotation = Rotation.decoded(matrix, keyset.dimension, keyset.matrix_digest)
        return SearchKeys.of(*place, keyset.epoch, rotation=rotation, vectors=vectors, words=words, tags=tags)

    async def following(self, route: Route, place: Place) -> int:
        """Give the epoch that is being made for a place, begun here unless it was before."""
        states = await self._database.run(self._store.epochs, *place)
        coming = next((epoch for epoch, state, _ in states if state == "coming"), None)
        if coming is not None:
            return coming
        now = next(((epoch, width) for epoch, state, width in states if state == "active"), None)
        if now is None:
            raise KeyringError(f"there are no search keys of {place[1]} at {place[2]}", hint="see `domicile keys list`")
        await self.make(route, place, now[1], epoch=states[-1][0] + 1, state="coming")
        return states[-1][0] + 1
