"""Rekeying: the points of a tenant × jurisdiction at a Site brought under new search keys, without embedding again.

Rules kept here: the old epoch is searched until every live Document stands under the new one, then both change places
in one commit; whatever step a death interrupts is taken again by the next run, since new points have ids of their own;
texts are opened in memory only, under Routes for their own Tags; what does not open is counted and stays behind.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import numpy as np
import sqlalchemy as sa

from ingestion import collections, points
from ingestion.crash import crash_point
from ingestion.leases import ACTIVITY, worker_principal
from ingestion.points import document_points
from ingestion.rows import document
from ingestion.states import State
from residency import receipt
from residency.database import Database
from residency.decision import Ask, Permit
from residency.engine import Engine
from residency.envelope import PassageSealer, vector_digest
from residency.errors import KeyringError, SealedError, SiteError
from residency.journal import Touch, recording
from residency.keyring import Keyring
from residency.keytables import dek_wrapped, search_keyset
from residency.ledger import Ledger
from residency.ports import Point, PointFilter, Shard
from residency.protection import VectorMode
from residency.receipt import Draft
from residency.route import Action, Route
from residency.searchkeys import SearchKeys
from residency.tag import Tag

BLOCK: Final = 256
"""Points read, turned and put at a time."""
GRACE: Final = 15.0
"""Seconds between the switch and the deletion of old points: longer than a search that began before it."""
_EVERY_TRY: Final = 100


@dataclass(slots=True)
class Rekeyed:
    """What one run did."""

    epoch: int = 0
    documents: int = 0
    points: int = 0
    damaged: int = 0
    """Passages that did not open, or not with their vector; the drift watch names their Document."""
    removed: int = 0
    brought: set[tuple[str, int]] = field(default_factory=set)
    """Documents, by id and version, that stand under the new keys."""


class _NotYetError(Exception):
    """A Document became live under the old keys meanwhile."""


class Rekeying:
    """Rolls search keys. `grace` in seconds: how long old points stay after the switch."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        keyring: Keyring,
        ledger: Ledger,
        shards: Mapping[str, Shard],
        grace: float = GRACE,
    ) -> None:
        self._database = database
        self._engine = engine
        self._keyring = keyring
        self._ledger = ledger
        self._shards = shards
        self._grace = grace

    async def roll(
        self, tenant: str, jurisdiction: str, site: str, *, progress: Callable[[int, int], None] = lambda done, of: None
    ) -> Rekeyed:
        """Bring a place under new search keys, or finish what an earlier run began. Raises what outlets raise."""
        place, done = (tenant, jurisdiction, site), Rekeyed()
        if site not in self._shards:
            raise SiteError(f"no shard of {site} in this process", site=site, hint="see `domicile sites list`")
        states = await self._database.run(self._states, place)
        if "old" in states.values() and "coming" not in states.values():
            done.epoch = next(epoch for epoch, state in states.items() if state == "active")
        else:
            await self._change(place, done, progress)
        for epoch in [
            epoch for epoch, state in (await self._database.run(self._states, place)).items() if state == "old"
        ]:
            await self._leave(place, epoch, done)
        return done

    # --- from the old epoch to the new one ----------------------------------------------------------------------------

    async def _change(self, place: tuple[str, str, str], done: Rekeyed, progress: Callable[[int, int], None]) -> None:
        with recording() as touches:
            # (1) New keys, or those that an earlier run made.
            done.epoch = await self._keyring.following(self._at(place, Action.STORE), *place)
            crash_point("rekey-begun")
            old, new = await self._keys(place), await self._keys(place, done.epoch)
            where = PointFilter(owners=(new.owner,))
            there = set(await self._shards[place[2]].ids(self._at(place, Action.SEARCH), where))
            # (2) Every live Document, again until none is left: some become live meanwhile.
            for _ in range(_EVERY_TRY):
                rows = await self._database.run(self._live, place, done.epoch)
                rows = [row for row in rows if (row["id"], row["version"]) not in done.brought]
                for row in rows:
                    if not there.issuperset(points.expected(new, row)):
                        await self._bring(place, row, old, new, done)
                    done.brought.add((row["id"], row["version"]))
                    done.documents += 1
                    progress(done.documents, len(rows) + done.documents)
                crash_point("rekey-brought")
                # (3) Both epochs change places, and the rows with them, in the commit of the Ledger's entry.
                try:
                    await self._database.run(self._switch, place, old.epoch, done, touches)
                except _NotYetError:
                    continue
                self._keyring.empty()
                crash_point("rekey-switched")
                return
        raise KeyringError("documents become live faster than they are rekeyed", hint="pause their collection")

    async def _bring(
        self, place: tuple[str, str, str], row: Mapping[str, Any], old: SearchKeys, new: SearchKeys, done: Rekeyed
    ) -> None:
        tenant, _, site = place
        tag, shard = Tag.of(json.loads(row["tag"])), self._shards[site]
        before, after = points.expected(old, row), points.expected(new, row)
        if not await self._database.run(self._noted, row, new.epoch, after):
            return  # it is being erased or replaced
        dek = await self._keyring.open_dek(self._pass(Action.OPEN, tenant, site, tag), site, row["dek_id"], tag.digest)
        sealer = PassageSealer(
            dek,
            collection=bytes.fromhex(row["collection_id"]),
            document=bytes.fromhex(row["id"]),
            version=row["version"],
            classification=tag.classification,
        )
        protection = (await self._database.run(self._collection, row["collection_id"])).protection(tag)
        for first in range(0, len(before), BLOCK):
            block = before[first : first + BLOCK]
            held = {
                point.id: point
                for point in await shard.retrieve(self._pass(Action.SEARCH, tenant, site, tag), block, vectors=True)
            }
            await self._keyring.reserve(dek, len(held) * (2 if protection.vectors is VectorMode.SEALED else 1))

            def turned(first: int = first, block: list[str] = block, held: dict[str, Point] = held) -> list[Point]:
                made = []
                for number, identifier in enumerate(block, first):
                    try:
                        body, vector = points.opened(sealer, number, held[identifier])
                    except (SealedError, KeyError):
                        continue
                    if protection.vectors in (VectorMode.ROTATED, VectorMode.NOISY):
                        vector = new.rotation.rotate(old.rotation.unrotate(vector))
                    body = msgspec.structs.replace(body, vd=vector_digest(vector))
                    made.append(points.point(row, sealer, new, number, body, np.asarray(vector), protection))
                return made

            moved = await asyncio.to_thread(turned)
            await shard.put(self._pass(Action.STORE, tenant, site, tag), moved)
            crash_point("rekey-put")
            done.points += len(moved)
            done.damaged += len(block) - len(moved)
        if not await self._database.run(self._noted, row, new.epoch, after):
            # It went meanwhile, and whoever took it away may have looked before these were put.
            await shard.delete(self._pass(Action.ERASE, tenant, site, tag), after)

    # --- leaving the old one ------------------------------------------------------------------------------------------

    async def _leave(self, place: tuple[str, str, str], epoch: int, done: Rekeyed) -> None:
        """Delete the old points, rebuild the index without them, and shred the old keys."""
        await asyncio.sleep(self._grace)  # searches that began before the switch still ask the old ones
        shard = self._shards[place[2]]
        deks, whole = await self._database.run(self._deks, place, epoch)
        with recording() as touches:
            if whole:  # else an earlier run shredded them, after everything that needs them
                old = await self._keys(place, epoch)
                where = PointFilter(owners=(old.owner,))
                ids = await shard.ids(self._at(place, Action.SEARCH), where)
                if ids:
                    done.removed = await shard.delete(self._at(place, Action.ERASE), ids)
                crash_point("rekey-deleted")
                await shard.purge(self._at(place, Action.ERASE))
                await self._database.run(self._forget, place, epoch)
                crash_point("rekey-forgotten")
        await self._keyring.shred_all(deks)
        crash_point("rekey-shredded")
        draft = self._draft(place, touches, "ended", epoch=epoch, removed=done.removed)
        await self._database.run(self._dropped, place, epoch, draft)

    # --- passes -------------------------------------------------------------------------------------------------------

    async def _keys(self, place: tuple[str, str, str], epoch: int | None = None) -> SearchKeys:
        tenant, jurisdiction, site = place
        found = await self._keyring.search_keys(
            self._at(place, Action.OPEN), tenant=tenant, jurisdiction=jurisdiction, site=site, epoch=epoch
        )
        if found is None:
            raise KeyringError(f"there are no search keys of {jurisdiction} at {site}", hint="see `domicile keys list`")
        return found

    def _at(self, place: tuple[str, str, str], action: Action) -> Route:
        return self._pass(action, place[0], place[2], self._tag(place))

    def _tag(self, place: tuple[str, str, str]) -> Tag:
        return Tag(frozenset(place[1].split("+")), frozenset({self._engine.fleet.site(place[2]).zone}))

    def _pass(self, action: Action, tenant: str, site: str, tag: Tag) -> Route:
        decision = self._engine.decide(Ask(worker_principal(site, tenant), action, site, (tag,), activity=ACTIVITY))
        if isinstance(decision, Permit):
            return decision.route
        raise SiteError(f"rekeying at {site} is refused at present", site=site, hint="see `domicile policy explain`")

    def _draft(self, place: tuple[str, str, str], touches: Sequence[Touch], stage: str, **facts: Any) -> Draft:
        steps = receipt.steps(list(touches), self._engine.fleet, datetime.now(UTC), reason="rewrap")
        named = {"event": "search", "stage": stage, "site": place[2], "jurisdiction": place[1]}
        return Draft("key", place[0], ACTIVITY, tags=(self._tag(place),), steps=steps, facts=named | facts)

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _states(self, place: tuple[str, str, str]) -> dict[int, str]:
        with self._database.reading() as connection:
            c = search_keyset.c
            found = connection.execute(sa.select(c.epoch, c.state).where(_of(place)).order_by(c.epoch))
            return {row.epoch: row.state for row in found}

    def _collection(self, identifier: str) -> collections.Collection:
        with self._database.reading() as connection:
            mine = sa.select(collections.collection).where(collections.collection.c.id == identifier)
            return collections.of_row(connection.execute(mine).one())

    def _live(self, place: tuple[str, str, str], epoch: int) -> list[dict[str, Any]]:
        with self._database.reading() as connection:
            found = connection.execute(sa.select(document).where(*_standing(place, epoch)).order_by(document.c.id))
            return [dict(row._mapping) for row in found]  # noqa: SLF001 - SQLAlchemy's public name for it

    def _noted(self, row: Mapping[str, Any], epoch: int, ids: Sequence[str]) -> bool:
        c = document.c
        with self._database.transaction() as connection:
            mine = sa.select(c.id).where(c.id == row["id"], c.version == row["version"], c.state == State.LIVE)
            if connection.execute(mine.with_for_update()).first() is None:
                return False
            points.write_down(connection, row, epoch, ids)
            return True

    def _switch(self, place: tuple[str, str, str], old: int, done: Rekeyed, touches: Sequence[Touch]) -> None:
        c, k = document.c, search_keyset.c
        with self._database.transaction() as connection:
            # The keysets' rows first: whoever makes a Document live asks for them too, and waits here or is seen below.
            for epoch, state in ((old, "old"), (done.epoch, "active")):
                connection.execute(sa.update(search_keyset).where(_of(place), k.epoch == epoch).values(state=state))
            rows = connection.execute(sa.select(c.id, c.version).where(*_standing(place, done.epoch))).all()
            if any((row.id, row.version) not in done.brought for row in rows):
                raise _NotYetError
            connection.execute(sa.update(document).where(*_standing(place, done.epoch)).values(search_epoch=done.epoch))
            facts = {"epoch": done.epoch, "documents": len(rows), "points": done.points, "damaged": done.damaged}
            self._ledger.append(self._draft(place, touches, "switched", **facts), connection)
            collections.changed(connection, place[0])

    def _deks(self, place: tuple[str, str, str], epoch: int) -> tuple[list[bytes], bool]:
        """Give the keys of an epoch, and whether all of them can still be opened."""
        k = search_keyset.c
        with self._database.reading() as connection:
            query = sa.select(k.vectors_dek, k.lexicon_dek, k.tags_dek).where(_of(place), k.epoch == epoch)
            deks = [bytes(each) for each in connection.execute(query).one()]
            living = sa.select(sa.func.count()).where(dek_wrapped.c.dek_id.in_(deks))
            return deks, connection.execute(living).scalar_one() == len(deks)

    def _forget(self, place: tuple[str, str, str], epoch: int) -> None:
        """Strike the ids of old points of live Documents; those of others stay, to be deleted with them."""
        c, d = document_points.c, document.c
        ours = (d.tenant_id == place[0], d.jurisdiction == place[1], d.site_id == place[2], d.state == State.LIVE)
        live = sa.exists().where(d.id == c.id, d.version == c.version, *ours)
        with self._database.transaction() as connection:
            connection.execute(sa.delete(document_points).where(c.epoch == epoch, live))

    def _dropped(self, place: tuple[str, str, str], epoch: int, draft: Draft) -> None:
        with self._database.transaction() as connection:
            self._ledger.append(draft, connection)
            connection.execute(sa.delete(search_keyset).where(_of(place), search_keyset.c.epoch == epoch))


def _of(place: tuple[str, str, str]) -> sa.ColumnElement[bool]:
    k = search_keyset.c
    return sa.and_(k.tenant == place[0], k.jurisdiction == place[1], k.site_id == place[2])


def _standing(place: tuple[str, str, str], epoch: int) -> tuple[sa.ColumnElement[bool], ...]:
    """Live Documents of a place that do not stand under this epoch yet."""
    c = document.c
    mine = (c.tenant_id == place[0], c.jurisdiction == place[1], c.site_id == place[2])
    return *mine, c.state == State.LIVE, c.search_epoch != epoch
