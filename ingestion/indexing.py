"""Indexing: how a worker puts points and looks whether they are there as they were put.

Rules kept here: a shard cannot see our fence, so no put starts on a lease that may end before it, and each has a
deadline; before a Document becomes live a few of its Passages are opened as a search would open them.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from ingestion import points
from ingestion.leases import Leases
from ingestion.rulings import Passes
from ingestion.states import State
from ingestion.work import Open, Work
from residency.database import Database
from residency.errors import SealedError, SiteError
from residency.ports import Point, Shard
from residency.route import Route
from residency.searchkeys import SearchKeys

PUT_WITHIN: Final = 10.0
"""Seconds a put may take; none starts on a lease with less left."""


class Indexing:
    """Points of the Documents in hand, at their shards and in the rows that name them."""

    def __init__(self, database: Database, leases: Leases, shards: Mapping[str, Shard]) -> None:
        self.database = database
        self.leases = leases
        self.shards = shards

    async def put(self, work: Work, route: Route, made: list[Point]) -> None:
        """Put points with a deadline that ends before the lease. Raises `SiteError`, `LeaseLostError`."""
        lease = work.lease
        if lease.left() < PUT_WITHIN:
            await self.database.run(self.leases.keep, lease)
            lease.check()
        try:
            async with asyncio.timeout(min(PUT_WITHIN, lease.left())):
                await self.shards[work["site_id"]].put(route, made)
        except TimeoutError as error:
            raise SiteError("a put took too long", site=work["site_id"], hint="it is tried again") from error

    async def sample_opens(self, work: Work, held: Open, passes: Passes, shard: Shard, wanted: list[str]) -> bool:
        """Open a few Passages as a search would, and compare the stored vector with what was sealed beside the text."""
        sample = sorted({0, len(wanted) // 2, len(wanted) - 1})
        got = {p.id: p for p in await shard.retrieve(passes.search, [wanted[n] for n in sample], vectors=True)}
        sealer = held.sealer(work)
        for number in sample:
            point = got.get(wanted[number])
            if point is None:
                return False
            try:
                points.opened(sealer, number, point)
            except (SealedError, KeyError):
                return False
        return True

    def embedded(self, work: Work, keys: SearchKeys) -> None:
        """End the step of vectors: the ids of the points that will be put are kept in the same commit."""
        ids = points.expected(keys, work.lease.row)
        with self.database.transaction() as connection:
            points.write_down(connection, work.lease.row, keys.epoch, ids)
            self.leases.move(
                work.lease, State.EMBEDDED, connection=connection, passages_done=0, search_epoch=keys.epoch
            )

    def written(self, document_id: str, version: int | None = None) -> list[str]:
        """Give the ids of every point that a version, or all of them, may have put."""
        with self.database.reading() as connection:
            return points.written(connection, document_id, version)

    def archived(self, work: Work) -> None:
        """Strike the points of a replaced version and give its row its last state."""
        with self.database.transaction() as connection:
            points.strike(connection, work["id"], work["version"])
            self.leases.move(work.lease, State.ARCHIVED, connection=connection, release=True)
