"""edge_host: the child process that holds one Qdrant Edge shard; `python -m residency.outlets.shards.edge_host`.

Qdrant Edge keeps the GIL while it works, so it never runs in the service's process; `edge.py` starts this one per Site
and talks to it over stdin and stdout in the words of `edge_wire`. Rules kept here:

- Without a WAL (its segments would outlive an erasure) only `flush()` makes a write durable: it returns before a put
  or a delete is answered.
- Without a WAL Qdrant takes no lock: `shard.lock` is ours, held by flock as long as this process lives.
- `optimize()` is never called; a purge copies the points into the next generation, a block at a time, and other calls
  are served between the blocks, their writes going to both generations. `CURRENT` names the generation that counts.
- The child lives no longer than its parent, dumps no core, and gets no environment but what `edge.py` lists.
"""

import array
import ctypes
import fcntl
import json
import math
import os
import resource
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
import qdrant_edge as qdrant

from residency.outlets.shards import edge_wire as wire

DENSE: Final = "dense"
WORDS: Final = "words"
KEYWORDS: Final = ("t", "c", "d", "a")
BLOCK: Final = 500
"""Points copied between two calls during a purge; about 25 ms of work."""
SPARE: Final = 64 * 1024 * 1024
"""Bytes that must stay free beside what a write needs: a full volume ends in SIGBUS, not in an error."""
LOCK_PATIENCE: Final = 1.0
"""Seconds to wait for a lock: a killed owner's child needs a moment to die."""
PIPE_SIZE: Final = 1024 * 1024
"""Bytes, the most that Linux gives without privilege: a search's answer leaves in one write."""
PR_SET_PDEATHSIG: Final = 1


class HostFaultError(Exception):
    """A Fault to be sent instead of a result."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.fault = wire.Fault(kind, text)


# --- the store ------------------------------------------------------------------------------------------------------


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


def floats(vector: bytes) -> list[float]:
    """Read float32 LE bytes."""
    values = array.array("f")
    values.frombytes(vector)
    return values.tolist()


def stored(point: wire.WirePoint) -> Any:
    """Translate a point; one without words has no sparse vector at all."""
    vector: dict[str, Any] = {DENSE: floats(point.vector)}
    if point.tokens:
        vector[WORDS] = qdrant.SparseVector(point.tokens, point.weights)
    return qdrant.Point(point.id, vector, point.payload)


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


class Host:
    """The shard in its folder: the live generation and, during a purge, the next one."""

    def __init__(self, opening: wire.Opening) -> None:
        self._folder = Path(opening.folder)
        self._dimension = opening.dimension
        self._free_share = opening.free_share
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = self._hold(opening)
        self._next: Any = None
        self._name, self._live = self._open()

    def _hold(self, opening: wire.Opening) -> int:
        handle = os.open(self._folder / "shard.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        patience = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > patience:
                    holder = os.pread(handle, 4096, 0).decode(errors="replace")
                    raise HostFaultError("locked", holder or "an unnamed process") from None
                time.sleep(0.05)
        holder = json.dumps({"pid": opening.parent, "child": os.getpid(), "command": opening.command})
        os.ftruncate(handle, 0)
        os.pwrite(handle, holder.encode(), 0)
        return handle

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
        aside.replace(self._folder / "CURRENT")
        sync_folder(self._folder)

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

    # --- writing ---

    def _update(self, operation: Any) -> None:
        self._live.update(operation)
        self._live.flush()
        if self._next is not None:
            self._next.update(operation)  # flushed before CURRENT names it

    def put(self, op: wire.Put) -> int:
        """Write points durably; the same ids again overwrite themselves."""
        size = sum(len(point.vector) + 8 * len(point.tokens) + 2048 for point in op.points)
        self._demand(4 * size, share=self._free_share)
        if any(len(point.vector) != 4 * self._dimension for point in op.points):
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
                    points = [qdrant.Point(record.id, record.vector, record.payload) for record in records]
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
        self._live.close()
        self._name, self._live, self._next = name, self._next, None
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
        where = condition(op.where)
        within = qdrant.SearchParams(exact=True, idf=qdrant.IdfParams(corpus=where))
        legs: dict[str, tuple[Any, Any]] = {}
        if op.vector is not None:
            legs[DENSE] = qdrant.Query.Nearest(floats(op.vector), DENSE), qdrant.SearchParams(exact=True)
        if op.tokens:
            legs[WORDS] = qdrant.Query.Nearest(qdrant.SparseVector(op.tokens, op.counts), WORDS), within

        # 1. The best of each leg.
        first = self._batch(
            [qdrant.QueryRequest(op.limit, query=leg, filter=where, params=params) for leg, params in legs.values()]
        )
        found: dict[UUID, None] = dict.fromkeys(hit.id for hits in first for hit in hits)

        # 2. Both legs for these ids, and one question per token for its IDF, in one batch.
        chosen = qdrant.Filter(must=[qdrant.HasIdCondition(set(found))])
        second = [
            qdrant.QueryRequest(len(found), query=leg, filter=chosen, params=params, with_payload=number == 0)
            for number, (leg, params) in enumerate(legs.values())
            if found
        ]
        single = [
            qdrant.QueryRequest(
                1,
                query=qdrant.Query.Nearest(qdrant.SparseVector([token], [1.0]), WORDS),
                filter=where,
                params=within,
                with_vector=[WORDS],
            )
            for token in op.tokens
        ]
        answers = self._batch(second + single)
        # 3. Join. The first leg brings the payloads: every point has a vector; asked by words alone, all found have words.
        #    Reading `id` makes a new UUID each time (1 µs): once per hit.
        rows = [(hit.id, hit.score, hit.payload) for hit in answers[0]] if second else []
        others = {hit.id: hit.score for hit in answers[1]} if len(second) > 1 else {}
        if op.vector is None:
            hits = [wire.WireHit(str(id_), 0.0, score, payload) for id_, score, payload in rows]
        else:
            hits = [wire.WireHit(str(id_), score, others.get(id_, 0.0), payload) for id_, score, payload in rows]
        return wire.WireFound(hits=hits, idf=self._idf(op.tokens, answers[len(second) :], where))

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


# --- the loop -------------------------------------------------------------------------------------------------------

_decode_call = msgspec.msgpack.Decoder(wire.Call).decode
_decode_op = msgspec.msgpack.Decoder(wire.Op).decode
NOTHING: Final = msgspec.Raw(wire.packed(None))


def receive(handle: int) -> bytes | None:
    """Read one message; None at the end of the stream."""
    head = read_exactly(handle, wire.LENGTH.size)
    if head is None:
        return None
    (size,) = wire.LENGTH.unpack(head)
    if size > wire.LARGEST:
        raise HostFaultError("broken", f"a message of {size} bytes was announced")
    return read_exactly(handle, size)


def read_exactly(handle: int, size: int) -> bytes | None:
    """Read `size` bytes; None when the stream ends before."""
    parts, missing = [], size
    while missing:
        part = os.read(handle, missing)
        if not part:
            return None
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def send(handle: int, reply: wire.Reply) -> None:
    """Write one message whole."""
    view = memoryview(wire.framed(reply))
    while view:
        view = view[os.write(handle, view) :]


def answer(host: Host, op: wire.Op) -> object:
    """Do one op other than a purge."""
    match op:
        case wire.Search():
            return host.search(op)
        case wire.Put():
            return host.put(op)
        case wire.Retrieve():
            return host.retrieve(op)
        case wire.Count():
            return host.count(op)
        case wire.Ids():
            return host.ids(op)
        case wire.Delete():
            return host.delete(op)
        case _:
            return host.info()


def attempt(number: int, work: Any) -> wire.Reply:
    """Do `work` and pack its result, or the Fault in its place; only the kind of an unforeseen error is told."""
    try:
        return wire.Reply(number, msgspec.Raw(wire.packed(work())))
    except HostFaultError as error:
        return wire.Reply(number, NOTHING, error.fault)
    except Exception as error:
        return wire.Reply(number, NOTHING, wire.Fault("broken", f"the shard failed with {type(error).__name__}"))


def serve(host: Host, source: int, sink: int) -> None:
    """Answer calls until the stream ends; purges, in turn, get the time between them."""
    purges: list[int] = []
    running: Iterator[dict[str, Any] | None] | None = None
    while True:
        if purges and not select.select([source], [], [], 0)[0]:
            running = running or host.purge()
            reply = attempt(purges[0], lambda steps=running: next(steps))
            if reply.fault is not None or bytes(reply.result) != bytes(NOTHING):
                send(sink, reply)
                purges.pop(0)
                running = None
            continue
        message = receive(source)
        if message is None:
            return
        call = _decode_call(message)
        if time.monotonic() > call.deadline:
            continue  # nobody waits for it
        op = _decode_op(call.op)
        if isinstance(op, wire.Purge):
            purges.append(call.id)
        else:
            send(sink, attempt(call.id, lambda op=op: answer(host, op)))


def settle(opening: wire.Opening) -> None:
    """Die with the parent, dump no core, make files for the owner alone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != opening.parent:
        sys.exit(0)  # it died before the line above
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says when to end


def main() -> None:
    """Take the opening from stdin, answer calls on what was stdout; stray prints go to stderr."""
    source, sink = 0, os.dup(1)
    os.dup2(2, 1)
    fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    message = receive(source)
    if message is None:
        return
    opening = msgspec.msgpack.decode(message, type=wire.Opening)
    settle(opening)
    try:
        host = Host(opening)
    except HostFaultError as error:
        send(sink, wire.Reply(0, NOTHING, error.fault))
        return
    except (OSError, ValueError) as error:
        send(sink, wire.Reply(0, NOTHING, wire.Fault("broken", f"the shard's folder: {error}")))
        return
    send(sink, attempt(0, host.info))
    serve(host, source, sink)
    host.close()


if __name__ == "__main__":
    main()
