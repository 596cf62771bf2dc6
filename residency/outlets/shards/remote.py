"""remote: a shard at a Qdrant server, in the words of the port; see `remote_calls` for the rules of the line.

A write counts when the server says `completed`: `acknowledged` would mean its WAL alone.
The name of the collection is an alias; a purge copies the points into the next generation and moves the alias, since
the server's WAL and its vacuum's least size would keep what was deleted.
"""

import asyncio
import ssl
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Final

from qdrant_client import models

from residency.errors import SiteError
from residency.outlets.passing import passing
from residency.outlets.shards import remote_terms as terms
from residency.outlets.shards.remote_calls import Calls, calling
from residency.outlets.shards.remote_terms import DENSE, WORDS
from residency.ports import Found, Hit, Point, PointFilter, ShardQuery
from residency.route import Action, Route

BLOCK: Final = 256
"""Points in one call; about 1 MB at a width of 384."""
PROBE_WITHIN: Final = 10.0
WRITE_WITHIN: Final = 60.0
PURGE_WITHIN: Final = 3600.0


class RemoteShard:
    """A shard at one Site, in the collection that the alias `collection` names at a Qdrant server.

    `api_key` is demanded of every server; `ssl_context` holds the trust root of the Site's Zone (None: loopback only).
    `peers` are the addresses of the cluster's peers that the fleet file names; `snapshots` is `forbidden` where the
    probe shall close a server that lets our key make some. The first good probe makes the collection where it is
    missing, unless this object `only_looks`.
    """

    def __init__(
        self,
        site: str,
        url: str,
        *,
        api_key: str,
        ssl_context: ssl.SSLContext | None,
        collection: str,
        dimension: int,
        shard_key: str | None = None,
        peers: Collection[str] = (),
        snapshots: str = "",
        only_looks: bool = False,
    ) -> None:
        self.site = site
        self._peers = tuple(peers)
        self._no_snapshots = snapshots == "forbidden"
        self._secure = terms.check_url(site, url, api_key, ssl_context)
        self._calls = Calls(site, url, api_key=api_key, ssl_context=ssl_context, key=shard_key)
        self._name = collection
        self._dimension = dimension
        self._writing = asyncio.Lock()
        self._next = ""
        self._started = only_looks

    async def start(self) -> None:
        """Make the collection and its alias when they are missing; no data passes, so it needs no Route."""
        try:
            async with asyncio.timeout(WRITE_WITHIN):
                if await self._calls.generation(self._name) is None:
                    first = terms.following(f"{self._name}-g0000")
                    await self._calls.create(first, self._dimension)
                    await self._calls.point(self._name, first)
                info = await self._calls.info(self._name)
        except TimeoutError as error:
            raise SiteError(f"the shard at {self.site} does not answer", site=self.site, hint="try again") from error
        terms.check_collection(self.site, info, self._dimension)
        self._started = True

    # --- the port ---

    async def put(self, route: Route, points: Sequence[Point]) -> None:
        """Write points, a block at a time; a block counts when every replica that must have it has completed."""
        async with passing(
            route, site=self.site, action=Action.STORE, kind="shard", within=WRITE_WITHIN, count=len(points)
        ) as touch:
            with calling(touch):
                for first in range(0, len(points), BLOCK):
                    block = [terms.stored(point) for point in points[first : first + BLOCK]]
                    async with self._writing:
                        await self._calls.upsert(self._name, block)
                        if self._next:
                            await self._calls.upsert(self._next, block)
                    touch.bytes += len(block) * 4 * self._dimension

    async def search(self, route: Route, query: ShardQuery) -> Found:
        """Ask both legs in two rounds, as `edge_store.Store.search` does; IDF counts what the filter lets through."""
        async with passing(route, site=self.site, action=Action.SEARCH, kind="shard") as touch:
            if query.where.matches_nothing:
                return Found(self.site, ())
            if callable(query.vector):
                query = replace(query, vector=await query.vector())
            with calling(touch):
                found = await self._search(query, terms.condition(query.where))
            touch.count = len(found.hits)
            return found

    async def retrieve(self, route: Route, ids: Sequence[str], *, vectors: bool = False) -> list[Point]:
        """Give the points that exist."""
        async with passing(
            route, site=self.site, action=Action.SEARCH, kind="shard", within=WRITE_WITHIN, count=len(ids)
        ) as touch:
            points: list[Point] = []
            with calling(touch):
                for first in range(0, len(ids), BLOCK):
                    block = list(ids[first : first + BLOCK])
                    records = await self._calls.retrieve(self._name, block, payload=True, vectors=vectors)
                    points += [terms.unpacked(record) for record in records]
            return points

    async def count(self, route: Route, where: PointFilter) -> int:
        """Count exactly."""
        async with passing(route, site=self.site, action=Action.SEARCH, kind="shard") as touch:
            if where.matches_nothing:
                return 0
            with calling(touch):
                return await self._calls.count(self._name, terms.condition(where))

    async def ids(self, route: Route, where: PointFilter) -> list[str]:
        """List the ids of all matching points."""
        async with passing(route, site=self.site, action=Action.SEARCH, kind="shard", within=WRITE_WITHIN) as touch:
            found: list[str] = []
            if where.matches_nothing:
                return found
            condition, offset = terms.condition(where), None
            with calling(touch):
                while True:
                    records, offset = await self._calls.page(
                        self._name, condition, offset=offset, limit=4 * BLOCK, whole=False
                    )
                    found += [str(record.id) for record in records]
                    if offset is None:
                        return found

    async def delete(self, route: Route, ids: Sequence[str]) -> int:
        """Delete with strong ordering and give how many existed; their bytes stay on disk until `purge`."""
        async with passing(
            route, site=self.site, action=Action.ERASE, kind="shard", within=WRITE_WITHIN, count=len(ids)
        ) as touch:
            existed = 0
            with calling(touch):
                for first in range(0, len(ids), BLOCK):
                    block = list(ids[first : first + BLOCK])
                    async with self._writing:
                        existing = await self._calls.retrieve(self._name, block, payload=False, vectors=False)
                        await self._calls.delete(self._name, block)
                        if self._next:
                            await self._calls.delete(self._next, block)
                    existed += len(existing)
            return existed

    async def purge(self, route: Route) -> dict[str, Any]:
        """Copy what lives into the next generation, move the alias, drop the old one with its snapshots.

        Needs the right to make collections. Writes through this object go to both generations meanwhile; those of
        another process are noticed by count, then `SiteError` is raised and nothing is dropped.
        """
        async with passing(route, site=self.site, action=Action.ERASE, kind="shard", within=PURGE_WITHIN) as touch:
            began = time.monotonic()
            with calling(touch):
                old = await self._calls.generation(self._name)
                if old is None:
                    raise SiteError(
                        f"the shard at {self.site} has no collection", site=self.site, hint="start it first"
                    )
                new = terms.following(old)
                await self._calls.create(new, self._dimension)
                try:
                    touch.count = await self._copy(old, new)
                finally:
                    self._next = ""
                removed = await self._calls.drop(old)
            return {
                "method": "copy",
                "generation": new,
                "points": touch.count,
                "snapshots_removed": removed,
                "seconds": round(time.monotonic() - began, 3),
            }

    async def probe(self) -> dict[str, Any]:
        """Say what the server is; refuse one that answers without the key, is too old, or keeps copies elsewhere.

        Whether it sends telemetry home cannot be seen over REST (qdrant/qdrant: src/common/telemetry.rs), so
        `telemetry` is None: the Fleet needs evidence of `telemetry_disabled` from the server's settings.
        Raises `SiteError`.
        """
        try:
            async with asyncio.timeout(PROBE_WITHIN):
                return await self._look()
        except TimeoutError as error:
            raise SiteError(f"the shard at {self.site} does not answer", site=self.site, hint="try again") from error

    async def _look(self) -> dict[str, Any]:
        calls = self._calls
        # 1. The server itself.
        refuses = await calls.refuses_strangers()
        told, cluster = await calls.told()
        facts = terms.check_server(self.site, refuses=refuses, told=told, cluster=cluster, secure=self._secure)
        # 2. Where it keeps copies: peers of its cluster, shards of our collection, snapshots.
        terms.check_peers(self.site, facts["peers"], self._peers)
        if not self._started:  # it was away when we started: what is missing is made now that it is believed
            await self.start()
        there = await calls.generation(self._name)
        if there is not None:
            facts["collection"] = there
        if facts["peers"] and there is not None:
            facts["placement"] = terms.placed(self.site, cluster, await calls.placement(there))
        may, copies = await calls.may_snapshot(), 0 if there is None else await calls.snapshots(there)
        return facts | terms.check_snapshots(self.site, may=may, there=copies, demanded=self._no_snapshots)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._calls.aclose()

    # --- in parts ---

    async def _search(self, query: ShardQuery, where: models.Filter) -> Found:
        calls, legs = self._calls, terms.legs(query, where)

        # 1. The best of each leg.
        first = await calls.batch(self._name, [calls.question(leg, where, query.limit) for leg in legs])
        found = list(dict.fromkeys(str(hit.id) for hits in first for hit in hits))

        # 2. Both legs for these ids, and one question per token for its IDF, in one batch.
        chosen = models.Filter(must=[models.HasIdCondition(has_id=list(found)), where])
        second = [
            calls.question(leg, chosen, len(found), payload=number == 0) for number, leg in enumerate(legs) if found
        ]
        tokens = list(query.tokens)
        single = [calls.question(terms.words({token: 1.0}, where), where, 1, vector=[WORDS]) for token in tokens]
        answers = await calls.batch(self._name, second + single)

        # 3. Join; a point without one of the scores has 0 there. The first leg brings the payloads.
        payloads = {str(hit.id): hit.payload or {} for hit in answers[0]} if second else {}
        scores = {leg.using: {str(hit.id): hit.score for hit in hits} for leg, hits in zip(legs, answers, strict=False)}
        dense, words = scores.get(DENSE, {}), scores.get(WORDS, {})
        hits = tuple(Hit(id_, dense.get(id_, 0.0), words.get(id_, 0.0), payload) for id_, payload in payloads.items())
        masses = answers[len(second) :]
        points = 0 if all(masses) else await calls.count(self._name, where)
        return Found(self.site, hits, terms.idf(tokens, masses, points))

    async def _copy(self, old: str, new: str) -> int:
        offset: Any = None
        self._next = new  # from here on writes go to both
        while True:
            async with self._writing:
                records, offset = await self._calls.page(old, None, offset=offset, limit=BLOCK, whole=True)
                if records:
                    await self._calls.upsert(new, [terms.again(record) for record in records])
            if offset is None:
                break
        async with self._writing:
            count = await self._calls.count(new, None)
            if count != await self._calls.count(old, None):
                await self._calls.drop(new)
                raise SiteError(
                    f"somebody else wrote to the shard at {self.site} during its purge",
                    site=self.site,
                    hint="purge again while one process alone writes",
                )
            await self._calls.point(self._name, new)
            return count
