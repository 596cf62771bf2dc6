"""edge: the embedded shard, in the words of the port; its points lie in a child process, see `edge_child`.

Qdrant never runs in this process: it keeps the GIL while it works.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from msgspec.structs import replace

from residency.errors import SiteError
from residency.outlets.passing import passing
from residency.outlets.shards import edge_wire as wire
from residency.outlets.shards.edge_child import EdgeChild
from residency.ports import Found, Hit, Point, PointFilter, ShardQuery
from residency.route import Action, Route

PUT_BLOCK: Final = 256
"""Points in one message and one flush; larger puts are cut."""
READ_BLOCK: Final = 1000
"""Ids in one message of a retrieve or delete."""
PROBE_WITHIN: Final = 10.0
WRITE_WITHIN: Final = 60.0
PURGE_WITHIN: Final = 600.0


class EdgeShard:
    """A shard at one Site, held by a child process in `folder`; lives on the event loop that started it.

    `free_share` of the volume must stay free after a put. `on_closed(site, cause)` is called once when the Site is
    given up, so that the Fleet can be told.
    """

    def __init__(
        self,
        site: str,
        folder: Path,
        *,
        dimension: int,
        free_share: float = 0.10,
        on_closed: Callable[[str, str], None] | None = None,
    ) -> None:
        self.site = site
        self._child = EdgeChild(site, folder, dimension=dimension, free_share=free_share, on_closed=on_closed)

    async def start(self) -> None:
        """Start the child and wait until it holds the shard. Raises `SiteError`, naming who holds the lock if any."""
        await self._child.start()

    @property
    def cause(self) -> str:
        """Why the Site is closed; empty while it serves."""
        return self._child.cause

    async def put(self, route: Route, points: Sequence[Point]) -> None:
        """Write points durably, `PUT_BLOCK` to a flush. Raises `StorageFullError` and `SiteError`; then replay all."""
        async with passing(
            route, site=self.site, action=Action.STORE, kind="shard", within=WRITE_WITHIN, count=len(points)
        ) as touch:
            for first in range(0, len(points), PUT_BLOCK):
                block = [_packed(point) for point in points[first : first + PUT_BLOCK]]
                await self._child.ask(wire.Put(block), int, within=WRITE_WITHIN, again=False)
                touch.bytes += sum(len(point.vector) + 8 * len(point.tokens) for point in block)

    async def search(self, route: Route, query: ShardQuery) -> Found:
        """Ask both legs in two rounds; about 1 ms on 1,000 points of 384, see `edge_store.Store.search`.

        While the vector is being made the words are looked for, and their IDFs.
        """
        async with passing(route, site=self.site, action=Action.SEARCH, kind="shard") as touch:
            if query.where.matches_nothing:
                return Found(self.site, ())
            tokens = list(query.tokens)
            counts = [float(query.tokens[token]) for token in tokens]
            op = wire.Search(_where(query.where), None, tokens, counts, query.limit)
            vector = query.vector
            if callable(vector):
                held = await self._child.ask(wire.Words(op.where, tokens, counts, query.limit), list[str])
                vector = await vector()
                op = replace(op, held=held)
            if vector is not None:
                op = replace(op, vector=_bytes(vector))
            found = await self._child.ask(op, wire.WireFound)
            touch.count = len(found.hits)
            hits = tuple(Hit(hit.id, hit.dense, hit.lexical, hit.payload) for hit in found.hits)
            return Found(self.site, hits, dict(zip(tokens, found.idf, strict=True)))

    async def retrieve(self, route: Route, ids: Sequence[str], *, vectors: bool = False) -> list[Point]:
        """Give the points that exist."""
        async with passing(
            route, site=self.site, action=Action.SEARCH, kind="shard", within=WRITE_WITHIN, count=len(ids)
        ):
            points: list[Point] = []
            for first in range(0, len(ids), READ_BLOCK):
                op = wire.Retrieve(list(ids[first : first + READ_BLOCK]), vectors)
                points += [_unpacked(point) for point in await self._child.ask(op, list[wire.WirePoint])]
            return points

    async def count(self, route: Route, where: PointFilter) -> int:
        """Count exactly."""
        async with passing(route, site=self.site, action=Action.SEARCH, kind="shard"):
            return 0 if where.matches_nothing else await self._child.ask(wire.Count(_where(where)), int)

    async def ids(self, route: Route, where: PointFilter) -> list[str]:
        """List the ids of all matching points."""
        async with passing(route, site=self.site, action=Action.SEARCH, kind="shard", within=WRITE_WITHIN):
            if where.matches_nothing:
                return []
            return await self._child.ask(wire.Ids(_where(where)), list[str], within=WRITE_WITHIN)

    async def delete(self, route: Route, ids: Sequence[str]) -> int:
        """Delete durably and give how many existed; their bytes stay on disk until `purge`."""
        async with passing(
            route, site=self.site, action=Action.ERASE, kind="shard", within=WRITE_WITHIN, count=len(ids)
        ):
            existed = 0
            for first in range(0, len(ids), READ_BLOCK):
                op = wire.Delete(list(ids[first : first + READ_BLOCK]))
                existed += await self._child.ask(op, int, within=WRITE_WITHIN, again=False)
            return existed

    async def purge(self, route: Route) -> dict[str, Any]:
        """Copy what lives into a new generation and remove the old one; searches are served meanwhile.

        Gives method, generation, points, bytes_removed, bytes_kept, seconds. Asked again after a death: harmless.
        """
        async with passing(route, site=self.site, action=Action.ERASE, kind="shard", within=PURGE_WITHIN) as touch:
            facts = await self._child.ask(wire.Purge(), dict[str, Any], within=PURGE_WITHIN)
            touch.count = int(facts["points"])
            return facts

    async def probe(self) -> dict[str, Any]:
        """Ask the child what it is: kind, pid, points, generation, rss and free in bytes. Raises `SiteError`."""
        try:
            async with asyncio.timeout(PROBE_WITHIN):
                info = await self._child.ask(wire.Info(), wire.HostInfo, within=PROBE_WITHIN)
        except TimeoutError as error:
            raise SiteError(f"the shard at {self.site} does not answer", site=self.site, hint="try again") from error
        return {"kind": "embedded", **msgspec.structs.asdict(info)}

    async def aclose(self) -> None:
        """End the child, which flushes what it holds. Calls under way get `SiteError`."""
        await self._child.aclose()


def _where(where: PointFilter) -> wire.Where:
    return wire.Where(
        owners=list(where.owners),
        classes=None if where.classes is None else list(where.classes),
        collections=None if where.collections is None else list(where.collections),
        documents=None if where.documents is None else list(where.documents),
        groups=None if where.groups is None else list(where.groups),
    )


def _bytes(vector: Any) -> bytes:
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def _packed(point: Point) -> wire.WirePoint:
    return wire.WirePoint(
        id=point.id,
        vector=_bytes(point.vector),
        tokens=list(point.sparse),
        weights=[float(weight) for weight in point.sparse.values()],
        payload=point.payload,
    )


def _unpacked(point: wire.WirePoint) -> Point:
    return Point(
        id=point.id,
        vector=np.frombuffer(point.vector, dtype="<f4").astype(np.float32),
        sparse=dict(zip(point.tokens, point.weights, strict=True)),
        payload=point.payload,
    )
