"""edge_terms: how a shard's words become Qdrant's: settings, filters, points; runs in the child process alone."""

import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import qdrant_edge as qdrant

from residency.outlets.shards import edge_wire as wire

DENSE: Final = "dense"
WORDS: Final = "words"
KEYWORDS: Final = ("t", "c", "d", "a")
"""Payload fields with a keyword index; `k` has an integer one. Unindexed, a filter over 20,000 points takes 6 ms."""


def settings(dimension: int) -> Any:
    """Give the settings of a generation; see sealing page section 9 for the vacuum's, reliability page for the WAL."""
    return qdrant.EdgeConfig(
        vectors={DENSE: qdrant.EdgeVectorParams(size=dimension, distance=qdrant.Distance.Dot)},
        sparse_vectors={WORDS: qdrant.EdgeSparseVectorParams(modifier=qdrant.Modifier.Idf)},
        hnsw_config=qdrant.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000, payload_m=16),
        optimizers=qdrant.EdgeOptimizersConfig(deleted_threshold=0.0, vacuum_min_vector_number=1),
        max_search_threads=1,
        wal_enabled=False,
    )


def create(folder: Path, dimension: int) -> Any:
    """Make an empty generation with its payload indexes."""
    folder.mkdir(mode=0o700)
    store = qdrant.EdgeShard.create(str(folder), settings(dimension))
    for field in KEYWORDS:
        index = qdrant.KeywordIndexParams(is_tenant=field == "t")
        store.update(qdrant.UpdateOperation.create_field_index(field, index))
    store.update(qdrant.UpdateOperation.create_field_index("k", qdrant.PayloadSchemaType.Integer))
    store.flush()
    return store


def condition(where: wire.Where) -> Any:
    """Translate a filter; a point without `a` is open to everyone who may see its owner's points."""
    must: list[Any] = [qdrant.FieldCondition("t", match=qdrant.MatchAny(where.owners))]
    for field, values in (("k", where.classes), ("c", where.collections), ("d", where.documents)):
        if values is not None:
            must.append(qdrant.FieldCondition(field, match=qdrant.MatchAny(values)))
    if where.groups is not None:
        open_to: list[Any] = [qdrant.IsEmptyCondition("a")]
        if where.groups:
            open_to.append(qdrant.FieldCondition("a", match=qdrant.MatchAny(where.groups)))
        must.append(qdrant.Filter(should=open_to))
    return qdrant.Filter(must=must)


class Filters:
    """Filters that let through the very same points with fewer conditions, where there are such.

    A condition is left out when the exact count stays the same without it: a wider filter that counts the same is the
    same. Each condition is looked at anew for every word of a question, 1 ms over 20,000 points; so a Site that holds
    one class of one collection searches five times as fast. Remembered until `forget`, which every write calls.
    """

    MOST: Final = 1_000
    """Filters kept at most."""

    def __init__(self, count: Callable[[wire.Where], int]) -> None:
        self._count = count
        self._known: dict[bytes, Any] = {}

    def fewest(self, where: wire.Where) -> Any:
        """Give the filter; one that names documents stays as it is, its points are few."""
        if where.documents is not None:
            return condition(where)
        key = wire.packed(where)
        if key not in self._known:
            if len(self._known) >= self.MOST:
                self._known.clear()
            wanted = self._count(where)
            for field in ("groups", "classes", "collections"):
                wider = msgspec.structs.replace(where, **{field: None})
                if wider != where and self._count(wider) == wanted:
                    where = wider
            self._known[key] = condition(where)
        return self._known[key]

    def forget(self) -> None:
        """Drop what was worked out about points as they were."""
        self._known.clear()


def floats(vector: bytes) -> list[float]:
    """Read float32 LE bytes."""
    values = array.array("f")
    values.frombytes(vector)
    return values.tolist()


def stored(point: wire.WirePoint) -> Any:
    """Translate a point; one without words has no sparse vector at all, one whose vector is sealed no dense one."""
    vector: dict[str, Any] = {DENSE: floats(point.vector)} if point.vector else {}
    if point.tokens:
        vector[WORDS] = qdrant.SparseVector(point.tokens, point.weights)
    return qdrant.Point(point.id, vector, point.payload)
