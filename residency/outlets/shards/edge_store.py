"""edge_store: one Qdrant Edge shard in its folder, with its generations.

Runs in the child process alone, see `edge_host`. Rules kept here:

- Without a WAL (its segments would outlive an erasure) only `flush()` makes a write durable: it returns before a put
  or a delete does.
- `optimize()` is never called; a purge copies the points into the next generation, a block at a time, and other calls
  are served between the blocks, their writes going to both generations. `CURRENT` names the generation that counts.
- An overwritten payload stays on disk like a deleted one, until the next purge: new content gets new ids.
"""

import array
import math
import os
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import qdrant_edge as qdrant

from residency.outlets.shards import edge_wire as wire
from residency.outlets.shards.edge_terms import DENSE, WORDS, Filters, condition, create, floats, settings, stored

BLOCK: Final = 500
"""Points copied between two calls during a purge; about 50 ms of work."""
REMEMBERED: Final = 50_000
"""IDFs kept at most, a few MB."""
SPARE: Final = 64 * 1024 * 1024
"""Bytes that must stay free beside what a write needs: a full volume ends in SIGBUS, not in an error."""


class HostFaultError(Exception):
    """A Fault to be sent instead of a result."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.fault = wire.Fault(kind, text)


def sync_folder(folder: Path) -> None:
    """Make the folder's names durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def used(folder: Path) -> int:
    """Count bytes in blocks: the files are sparse."""
    return sum(entry.stat().st_blocks * 512 for entry in folder.rglob("*") if entry.is_file())


class Store:
    """The shard in its folder, which must be locked: the live generation and, during a purge, the next one."""

    def __init__(self, folder: Path, *, dimension: int, free_share: float) -> None:
        self._folder = folder
        self._dimension = dimension
        self._free_share = free_share
        self._next: Any = None
        self._masses: dict[tuple[bytes, int], float] = {}
        self._filters = Filters(lambda where: self.count(wire.Count(where)))
        self._name, self._live = self._open()

    def _open(self) -> tuple[str, Any]:
        current = self._folder / "CURRENT"
        generations = sorted(path.name for path in self._folder.glob("g[0-9]*") if path.is_dir())
        if not current.exists():
            # 1. Nothing yet, or a first start that was cut off before CURRENT: only an empty g0001 may be replaced.
            if generations and (generations != ["g0001"] or not self._is_empty("g0001")):
                raise HostFaultError("broken", "CURRENT is missing beside generations that hold points")
            shutil.rmtree(self._folder / "g0001", ignore_errors=True)
            store = create(self._folder / "g0001", self._dimension)
            self._point_to("g0001")
            sync_folder(self._folder)
            return "g0001", store
        # 2. Load what CURRENT names; everything else is what a purge left when it was cut off.
        name = current.read_text().strip()
        if name not in generations:
            raise HostFaultError("broken", f"CURRENT names {name[:16]!r}, which is not there")
        for other in generations:
            if other != name:
                shutil.rmtree(self._folder / other)
        return name, self._load(name)

    def _load(self, name: str) -> Any:
        try:
            return qdrant.EdgeShard.load(str(self._folder / name), settings(self._dimension))
        except Exception as error:  # Qdrant's own errors have no common root
            raise HostFaultError("broken", f"generation {name} does not load: {error}") from error

    def _is_empty(self, name: str) -> bool:
        try:
            store = self._load(name)
        except HostFaultError:
            return True  # torn while it was made, before anything could be acknowledged
        points: int = store.info().points_count
        store.close()
        return points == 0

    def _point_to(self, name: str) -> None:
        aside = self._folder / "CURRENT.new"
        with aside.open("w") as file:
            file.write(name + "\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self._folder / name)
        sync_folder(self._folder)
        aside.replace(self._folder / "CURRENT")

    def _demand(self, size: int, *, share: float) -> None:
        volume = os.statvfs(self._folder)
        free = volume.f_bavail * volume.f_frsize
        if free < max(share * volume.f_blocks * volume.f_frsize, size + SPARE):
            raise HostFaultError("full", f"{free // 2**20} MiB are left on the volume")

    def info(self) -> wire.HostInfo:
        """Say what this process holds."""
        volume = os.statvfs(self._folder)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return wire.HostInfo(
            pid=os.getpid(),
            points=self._live.info().points_count,
            generation=self._name,
            rss=pages * resource.getpagesize(),
            free=volume.f_bavail * volume.f_frsize,
        )

    def _forget(self) -> None:
        """Drop what was worked out about the points as they were."""
        self._masses.clear()
        self._filters.forget()

    # --- writing ---

    def _update(self, operation: Any) -> None:
        self._forget()
        self._live.update(operation)
        self._live.flush()
        if self._next is not None:
            self._next.update(operation)  # flushed before CURRENT names it

    def put(self, op: wire.Put) -> int:
        """Write points durably; the same ids again overwrite themselves."""
        size = sum(len(point.vector) + 8 * len(point.tokens) + 2048 for point in op.points)
        self._demand(4 * size, share=self._free_share)
        if any(len(point.vector) not in (0, 4 * self._dimension) for point in op.points):
            raise HostFaultError("broken", f"a vector is not {self._dimension} wide")
        self._update(qdrant.UpdateOperation.upsert_points([stored(point) for point in op.points]))
        return len(op.points)

    def delete(self, op: wire.Delete) -> int:
        """Delete durably; bytes stay on disk until a purge."""
        existing = len(self._live.retrieve(op.ids, False, False))
        self._update(qdrant.UpdateOperation.delete_points(list(op.ids)))
        return existing

    def purge(self) -> Iterator[dict[str, Any] | None]:
        """Copy all points into the next generation and make it the live one; yields None between blocks, facts last."""
        began = time.monotonic()
        old, old_bytes = self._folder / self._name, used(self._folder / self._name)
        self._demand(2 * old_bytes, share=0.0)
        name = f"g{int(self._name[1:]) + 1:04d}"
        folder = self._folder / name
        self._next = create(folder, self._dimension)
        try:
            # 1. Copy in the order of ids. A point written behind the offset meanwhile went to both generations.
            offset = None
            while True:
                read = qdrant.ScrollRequest(offset=offset, limit=BLOCK, with_payload=True, with_vector=True)
                records, offset = self._live.scroll(read)
                if records:
                    points = [qdrant.Point(record.id, record.vector or {}, record.payload) for record in records]
                    self._next.update(qdrant.UpdateOperation.upsert_points(points))
                    self._next.flush()  # here, so that the last flush does not hold up a search
                if offset is None:
                    break
                yield None
            # 2. Compare, make durable, swap.
            self._next.flush()
            count = self._next.count(qdrant.CountRequest())
            if count != self._live.count(qdrant.CountRequest()):
                raise HostFaultError("broken", "the rebuilt generation does not hold the same number of points")
            self._point_to(name)
        except BaseException:
            self._next = None
            shutil.rmtree(folder, ignore_errors=True)
            raise
        old_store, self._name, self._live, self._next = self._live, name, self._next, None
        self._forget()
        old_store.close()
        sync_folder(self._folder)
        # 3. What was deleted lay in the old generation alone.
        shutil.rmtree(old)
        sync_folder(self._folder)
        yield {
            "method": "rebuild",
            "generation": name,
            "points": count,
            "bytes_removed": old_bytes,
            "bytes_kept": used(folder),
            "seconds": round(time.monotonic() - began, 3),
        }

    # --- reading ---

    def search(self, op: wire.Search) -> wire.WireFound:
        """Ask both legs, then both again for exactly what either found; IDF counts only what the filter lets through.

        IDF of a token = score of a question of that one token ÷ stored weight of the best hit; a token that no point
        has counts as ln(1 + (n + .5) / .5), Qdrant's formula at df = 0.
        """
        where = self._filters.fewest(op.where)
        legs: dict[str, tuple[Any, Any]] = {}
        if op.vector is not None:
            legs[DENSE] = qdrant.Query.Nearest(floats(op.vector), DENSE), qdrant.SearchParams(exact=True)
        if op.tokens:
            legs[WORDS] = _words(op.tokens, op.counts, where)

        # 1. The best of each leg; of the words, it may be known already.
        first = self._batch(
            [
                qdrant.QueryRequest(op.limit, query=leg, filter=where, params=params)
                for name, (leg, params) in legs.items()
                if name == DENSE or op.held is None
            ]
        )
        found: dict[UUID, None] = dict.fromkeys(hit.id for hits in first for hit in hits)
        found |= dict.fromkeys(map(UUID, op.held or ()))

        # 2. Both legs for these ids, and one question per token for its IDF, in one batch.
        chosen = qdrant.Filter(must=[qdrant.HasIdCondition(set(found))])
        second = [
            qdrant.QueryRequest(len(found), query=leg, filter=chosen, params=params, with_payload=number == 0)
            for number, (leg, params) in enumerate(legs.values())
            if found
        ]
        unknown, single = self._unknown(op, where)
        answers = self._batch(second + single)
        # 3. Join. The first leg brings the payloads: where vectors are asked for, every point has one.
        #    Reading `id` makes a new UUID each time (1 µs): once per hit.
        rows = [(hit.id, hit.score, hit.payload) for hit in answers[0]] if second else []
        others = {hit.id: hit.score for hit in answers[1]} if len(second) > 1 else {}
        if op.vector is None:
            hits = [wire.WireHit(str(id_), 0.0, score, payload) for id_, score, payload in rows]
        else:
            hits = [wire.WireHit(str(id_), score, others.get(id_, 0.0), payload) for id_, score, payload in rows]
        self._remember(op, unknown, answers[len(second) :], where)
        filter_ = wire.packed(op.where)
        return wire.WireFound(hits=hits, idf=[self._masses[filter_, token] for token in op.tokens])

    def words(self, op: wire.Words) -> list[str]:
        """Give the ids of the best by words alone, and remember the IDFs of these words until the next write."""
        where = self._filters.fewest(op.where)
        if not op.tokens:
            return []
        leg, params = _words(op.tokens, op.counts, where)
        unknown, single = self._unknown(op, where)
        best, *answers = self._batch([qdrant.QueryRequest(op.limit, query=leg, filter=where, params=params), *single])
        self._remember(op, unknown, answers, where)
        return [str(hit.id) for hit in best]

    def _unknown(self, op: wire.Search | wire.Words, where: Any) -> tuple[list[int], list[Any]]:
        """Give the words whose IDF is not remembered, and a question for each."""
        # IDFs depend on the filter and on what is stored: they are remembered until the next write.
        if len(self._masses) > REMEMBERED:
            self._masses.clear()
        filter_ = wire.packed(op.where)
        unknown = [token for token in op.tokens if (filter_, token) not in self._masses]
        legs = [_words([token], [1.0], where) for token in unknown]
        return unknown, [
            qdrant.QueryRequest(1, query=leg, filter=where, params=params, with_vector=[WORDS]) for leg, params in legs
        ]

    def _remember(self, op: wire.Search | wire.Words, tokens: list[int], answers: list[list[Any]], where: Any) -> None:
        filter_, masses = wire.packed(op.where), self._idf(tokens, answers, where)
        self._masses.update(((filter_, token), mass) for token, mass in zip(tokens, masses, strict=True))

    def _batch(self, queries: list[Any]) -> list[list[Any]]:
        answers: list[list[Any]] = self._live.query_batch(qdrant.QueryBatchRequest(queries)) if queries else []
        return answers

    def _idf(self, tokens: list[int], answers: list[list[Any]], where: Any) -> list[float]:
        absent = 0.0
        if not all(answers):
            points = self._live.count(qdrant.CountRequest(filter=where))
            absent = math.log(1 + (points + 0.5) / 0.5)
        masses = []
        for token, answer in zip(tokens, answers, strict=True):
            if not answer:
                masses.append(absent)
                continue
            words = answer[0].vector[WORDS]
            masses.append(answer[0].score / words.values[words.indices.index(token)])
        return masses

    def retrieve(self, op: wire.Retrieve) -> list[wire.WirePoint]:
        """Give the points that exist."""
        points = []
        for record in self._live.retrieve(op.ids, True, op.vectors):
            vector: dict[str, Any] = record.vector or {}
            words = vector.get(WORDS)
            points.append(
                wire.WirePoint(
                    id=str(record.id),
                    vector=array.array("f", vector.get(DENSE, ())).tobytes(),
                    tokens=words.indices if words else [],
                    weights=words.values if words else [],
                    payload=record.payload,
                )
            )
        return points

    def count(self, op: wire.Count) -> int:
        """Count exactly."""
        number: int = self._live.count(qdrant.CountRequest(exact=True, filter=condition(op.where)))
        return number

    def ids(self, op: wire.Ids) -> list[str]:
        """List all ids that match."""
        where, offset, found = condition(op.where), None, list[str]()
        while True:
            read = qdrant.ScrollRequest(offset=offset, limit=10_000, filter=where, with_payload=False)
            records, offset = self._live.scroll(read)
            found.extend(str(record.id) for record in records)
            if offset is None:
                return found

    def close(self) -> None:
        """Flush and let go."""
        self._live.flush()
        self._live.close()


def _words(tokens: list[int], counts: list[float], where: Any) -> tuple[Any, Any]:
    """Give the lexical leg, its IDF counted over what the filter lets through."""
    within = qdrant.SearchParams(exact=True, idf=qdrant.IdfParams(corpus=where))
    return qdrant.Query.Nearest(qdrant.SparseVector(tokens, counts), WORDS), within
