"""Vectors that lie sealed: opened into memory and searched there, exactly, since a shard cannot compare what it cannot
read.

Rules kept here: what a shard hands over is believed only where it opens under the row's key and in its own place; a
matrix is kept until anything of its tenant changes, and never longer than the oldest must go to make room; above the
limit a search is refused with what to do, never cut short.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ingestion import collections
from ingestion.documents import Document, Documents
from residency.envelope import PassageSealer
from residency.errors import SealedError
from residency.keyring import Keyring
from residency.ports import Found, Hit, Point, PointFilter, Shard, ShardQuery, Vectors
from residency.route import Action, Route
from residency.seal import OpenDek
from residency.searchkeys import SearchKeys
from service.errors import InvalidRequestError
from service.groups import Group

BLOCK: Final = 500
"""Points fetched and opened at a time."""
MOST: Final = 100_000
"""Sealed vectors that this process holds open at most, if no setting says otherwise; 1.5 KB each at a width of 384."""

Pass = Callable[[Action], Route]
_Key = tuple[PointFilter, int]


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """Opened vectors of everything that one filter lets through, float32 (n, d), with their points and Documents."""

    ids: tuple[str, ...]
    documents: tuple[str, ...]
    vectors: Vectors
    damaged: int
    """Points whose vector did not open."""

    def best(self, vector: Vectors, limit: int, documents: Sequence[str] | None) -> dict[str, float]:
        """Give the inner product of every vector by point, the best `limit` of the named Documents only."""
        scores = self.vectors @ vector
        if documents is not None:
            named = frozenset(documents)
            scores = np.where([each in named for each in self.documents], scores, -np.inf)
        order = np.argsort(-scores, kind="stable")[:limit]
        return {self.ids[at]: float(scores[at]) for at in order if np.isfinite(scores[at])}


class Matrices:
    """Searches sealed vectors; holds at most `most` of them open."""

    def __init__(self, documents: Documents, keyring: Keyring, most: int = MOST) -> None:
        self._documents = documents
        self._keyring = keyring
        self._most = most
        self._held: dict[_Key, tuple[str, int, asyncio.Task[Matrix]]] = {}

    def forget(self, tenant: str) -> None:
        """Drop every opened vector of a tenant."""
        for key in [key for key, (whose, _, _) in self._held.items() if whose == tenant]:
            self._held.pop(key)

    async def search(
        self, shard: Shard, query: ShardQuery, *, tenant: str, group: Group, keys: SearchKeys, may: Pass
    ) -> tuple[Found, int]:
        """Find as a shard would, by words there and by vectors here; gives how many vectors did not open beside it.

        Raises `InvalidRequestError` above the limit, and what outlets raise.
        """
        matrix = await self._matrix(shard, query.where, tenant, group, keys, may)
        found = Found(shard.site, ())
        if query.tokens:
            found = await shard.search(may(Action.SEARCH), replace(query, vector=None))
        vector = await query.vector() if callable(query.vector) else query.vector
        assert vector is not None  # noqa: S101 - a search always has one
        near = await asyncio.to_thread(matrix.best, vector, query.limit, query.where.documents)
        every = dict(zip(matrix.ids, range(len(matrix.ids)), strict=True))
        hits = [
            Hit(
                hit.id,
                float(matrix.vectors[every[hit.id]] @ vector) if hit.id in every else 0.0,
                hit.lexical,
                hit.payload,
            )
            for hit in found.hits
        ]
        missing = sorted(near.keys() - {hit.id for hit in hits})
        rest = await shard.retrieve(may(Action.SEARCH), missing, vectors=bool(query.tokens)) if missing else []
        hits += [Hit(point.id, near[point.id], _lexical(point, query, found), point.payload) for point in rest]
        return Found(shard.site, tuple(hits), found.idf), matrix.damaged

    async def _matrix(
        self, shard: Shard, where: PointFilter, tenant: str, group: Group, keys: SearchKeys, may: Pass
    ) -> Matrix:
        wide = replace(where, documents=None)
        generation = await self._documents.database.look(self._generation, tenant)
        key, rows = (wide, generation), sum(each.passages for each in group.classes)
        if rows > self._most:
            raise InvalidRequestError(
                f"{rows} passages lie under sealed vectors, of which {self._most} can be searched at once",
                param="collection",
                hint="spread them over more collections, or raise answers.sealed_passages: 1.5 KB of memory each",
            )
        held = self._held.pop(key, None)
        if held is None or (held[2].done() and (held[2].cancelled() or held[2].exception() is not None)):
            for old in [old for old in self._held if old[0] == wide]:
                self._held.pop(old)
            held = tenant, rows, asyncio.create_task(self._open(shard, wide, tenant, keys, may))
        self._held[key] = held  # the one used last stands last
        while sum(size for _, size, _ in self._held.values()) > self._most:
            self._held.pop(next(iter(self._held)))
        # Whoever gives up leaves the work to those who come after.
        return await asyncio.shield(held[2])

    def _generation(self, tenant: str) -> int:
        with self._documents.database.glance() as rows:
            return collections.generation(rows, tenant)

    async def _open(self, shard: Shard, where: PointFilter, tenant: str, keys: SearchKeys, may: Pass) -> Matrix:
        ids: list[str] = []
        documents: list[str] = []
        parts: list[Vectors] = []
        listed = await shard.ids(may(Action.SEARCH), where)
        for first in range(0, len(listed), BLOCK):
            points = await shard.retrieve(may(Action.SEARCH), listed[first : first + BLOCK])
            wanted = sorted({str(point.payload["d"]) for point in points})
            rows = await self._documents.database.look(self._documents.live, tenant, wanted)
            pairs = [(row.dek_id, row.tag.digest) for row in rows.values() if row.site == shard.site]
            deks = await self._keyring.open_deks(may(Action.OPEN), shard.site, pairs)
            for point, vector in await asyncio.to_thread(_opened, points, rows, deks, keys):
                ids.append(point.id)
                documents.append(str(point.payload["d"]))
                parts.append(vector)
        vectors = np.stack(parts) if parts else np.empty((0, keys.rotation.dimension), dtype=np.float32)
        return Matrix(tuple(ids), tuple(documents), vectors, len(listed) - len(ids))


def _opened(
    points: Sequence[Point], rows: dict[str, Document], deks: dict[bytes, OpenDek], keys: SearchKeys
) -> list[tuple[Point, Vectors]]:
    sealers: dict[str, PassageSealer] = {}
    found: list[tuple[Point, Vectors]] = []
    for point in points:
        row = rows.get(str(point.payload["d"]))
        if row is None or row.dek_id not in deks:
            continue
        number = int(point.payload["n"])
        if point.id != keys.point_id(row.id, row.version, number):
            continue  # of a version that was replaced
        sealer = sealers.get(row.id)
        if sealer is None:
            sealer = sealers[row.id] = PassageSealer(
                deks[row.dek_id],
                collection=bytes.fromhex(row.collection),
                document=bytes.fromhex(row.id),
                version=row.version,
                classification=row.tag.classification,
            )
        try:
            vector = sealer.open_vector(number, point.id, str(point.payload["x"]))
        except (SealedError, KeyError):
            continue
        if vector.shape == (keys.rotation.dimension,):
            found.append((point, vector))
    return found


def _lexical(point: Point, query: ShardQuery, found: Found) -> float:
    return sum(
        count * found.idf.get(token, 0.0) * point.sparse.get(token, 0.0) for token, count in query.tokens.items()
    )
