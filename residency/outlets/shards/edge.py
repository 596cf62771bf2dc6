"""edge: the embedded shard; the parent's side of the child that `edge_host` is.

Rules kept here: Qdrant never runs in this process (it keeps the GIL); the child is started on the loop's own thread,
because it dies with the thread that made it; it gets a bare environment and its stdin and stdout, nothing else.
It is a program of its own and no `multiprocessing` child, so our main module is not imported a second time in it.
A child that dies is started anew after a pause; the third death in ten minutes closes the Site, and the rest serves on.
Reads cut off by a death are asked once more; of a write cut off nobody knows what became, so the caller replays it.
"""

import asyncio
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

import residency
from residency.errors import SiteError, StorageFullError
from residency.outlets.passing import passing
from residency.outlets.shards import edge_wire as wire
from residency.ports import Found, Hit, Point, PointFilter, ShardQuery
from residency.route import Action, Route
from residency.silence import SET

T = TypeVar("T")

PUT_BLOCK: Final = 256
"""Points in one message and one flush; larger puts are cut."""
READ_BLOCK: Final = 1000
"""Ids in one message of a retrieve or delete."""
START_WITHIN: Final = 60.0
"""Seconds until a started child must have loaded its shard; 100,000 points take about one."""
PURGE_WITHIN: Final = 600.0
CLOSE_WITHIN: Final = 10.0
DEATHS: Final = 3
DEATHS_WINDOW: Final = 600.0
"""Seconds; that many deaths within them close the Site."""
PAUSES: Final = (0.05, 1.0)
"""Seconds before the first and the second new start."""


class EdgeShard:
    """A shard at one Site, held by a child process in `folder`; lives on the event loop that started it.

    `on_closed(site, cause)` is called once when the Site is given up, so that the Fleet can be told.
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
        self.cause = ""
        """Why the Site is closed; empty while it serves."""
        self._folder = folder
        self._dimension = dimension
        self._free_share = free_share
        self._on_closed = on_closed
        self._child: Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._serving = asyncio.Event()
        self._pending: dict[int, asyncio.Future[wire.Reply | None]] = {}
        self._numbers = count(1)
        self._deaths: deque[float] = deque(maxlen=DEATHS)

    async def start(self) -> None:
        """Start the child and wait until it holds the shard. Raises `SiteError`, naming who holds the lock if any."""
        await self._launch()
        self._supervisor = asyncio.create_task(self._supervise(), name=f"shard {self.site}")

    # --- the port ---

    async def put(self, route: Route, points: Sequence[Point]) -> None:
        """Write points durably, `PUT_BLOCK` to a flush. Raises `StorageFullError` and `SiteError`; then replay all."""
        async with passing(
            route, site=self.site, action=Action.STORE, kind="shard", within=60.0, count=len(points)
        ) as touch:
            for first in range(0, len(points), PUT_BLOCK):
                block = [_packed(point) for point in points[first : first + PUT_BLOCK]]
                await self._ask(wire.Put(block), int, within=60.0, again=False)
                touch.bytes += sum(len(point.vector) + 8 * len(point.tokens) for point in block)

    async def search(self, route: Route, query: ShardQuery) -> Found:
        """Ask both legs in two rounds; about 1 ms on 1,000 points of 384, see `edge_host.Host.search`."""
        async with passing(route, site=self.site, action=Action.SEARCH, kind="shard") as touch:
            if query.where.matches_nothing:
                return Found(self.site, ())
            tokens = list(query.tokens)
            op = wire.Search(
                where=_where(query.where),
                vector=None if query.vector is None else _bytes(query.vector),
                tokens=tokens,
                counts=[float(query.tokens[token]) for token in tokens],
                limit=query.limit,
            )
            found = await self._ask(op, wire.WireFound)
            touch.count = len(found.hits)
            hits = tuple(Hit(hit.id, hit.dense, hit.lexical, hit.payload) for hit in found.hits)
            return Found(self.site, hits, dict(zip(tokens, found.idf, strict=True)))

    async def retrieve(self, route: Route, ids: Sequence[str], *, vectors: bool = False) -> list[Point]:
        """Give the points that exist."""
        async with passing(route, site=self.site, action=Action.SEARCH, kind="shard", within=60.0, count=len(ids)):
            points: list[Point] = []
            for first in range(0, len(ids), READ_BLOCK):
                op = wire.Retrieve(list(ids[first : first + READ_BLOCK]), vectors)
                points += [_unpacked(point) for point in await self._ask(op, list[wire.WirePoint])]
            return points

    async def count(self, route: Route, where: PointFilter) -> int:
        """Count exactly."""
        async with passing(route, site=self.site, action=Action.SEARCH, kind="shard"):
            return 0 if where.matches_nothing else await self._ask(wire.Count(_where(where)), int)

    async def ids(self, route: Route, where: PointFilter) -> list[str]:
        """List the ids of all matching points."""
        async with passing(route, site=self.site, action=Action.SEARCH, kind="shard", within=60.0):
            if where.matches_nothing:
                return []
            return await self._ask(wire.Ids(_where(where)), list[str], within=60.0)

    async def delete(self, route: Route, ids: Sequence[str]) -> int:
        """Delete durably and give how many existed; their bytes stay on disk until `purge`."""
        async with passing(route, site=self.site, action=Action.ERASE, kind="shard", within=60.0, count=len(ids)):
            existed = 0
            for first in range(0, len(ids), READ_BLOCK):
                op = wire.Delete(list(ids[first : first + READ_BLOCK]))
                existed += await self._ask(op, int, within=60.0, again=False)
            return existed

    async def purge(self, route: Route) -> dict[str, Any]:
        """Copy what lives into a new generation and remove the old one; searches are served meanwhile.

        Gives method, generation, points, bytes_removed, bytes_kept, seconds. Asked again after a death: harmless.
        """
        async with passing(route, site=self.site, action=Action.ERASE, kind="shard", within=PURGE_WITHIN) as touch:
            facts = await self._ask(wire.Purge(), dict[str, Any], within=PURGE_WITHIN)
            touch.count = int(facts["points"])
            return facts

    async def probe(self) -> dict[str, Any]:
        """Ask the child what it is: kind, pid, points, generation, rss and free in bytes. Raises `SiteError`."""
        async with asyncio.timeout(10.0):
            info = await self._ask(wire.Info(), wire.HostInfo, within=10.0)
        return {"kind": "embedded", "telemetry": False, **msgspec.structs.asdict(info)}

    async def aclose(self) -> None:
        """End the child, which flushes what it holds; kill it after ten seconds. Calls under way get `SiteError`."""
        self.cause = self.cause or "closed by us"
        self._serving.set()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        if self._child is not None:
            await _end(self._child, within=CLOSE_WITHIN)
        self._lose()

    # --- the child ---

    async def _launch(self) -> None:
        root = str(Path(residency.__file__).parents[1])
        self._child = child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "residency.outlets.shards.edge_host"),
            stdin=PIPE,
            stdout=PIPE,
            env={**SET, "PYTHONPATH": root, "PYTHONSAFEPATH": "1", "LANG": "C.UTF-8"},
            limit=1 << 20,
        )
        assert child.stdin is not None  # noqa: S101 - asked for above
        opening = wire.Opening(
            folder=str(self._folder.absolute()),
            dimension=self._dimension,
            parent=os.getpid(),
            command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:2]]),
            free_share=self._free_share,
        )
        try:
            async with asyncio.timeout(START_WITHIN):
                child.stdin.write(wire.framed(opening))
                reply = await _receive(child)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise SiteError(
                f"the shard at {self.site} did not start: {await _end(child)}",
                site=self.site,
                hint="run `domicile doctor`",
            ) from error
        if reply.fault is not None:
            await _end(child)
            if reply.fault.kind == "locked":
                raise SiteError(
                    f"the shard at {self.site} is held by another process: {reply.fault.text}",
                    site=self.site,
                    hint="end that process first, or give this one another home",
                )
            raise SiteError(reply.fault.text, site=self.site, hint="see the operations page, section shards")
        self._serving.set()

    async def _supervise(self) -> None:
        while not self.cause:
            assert self._child is not None  # noqa: S101 - `_launch` has run
            why = await self._listen(self._child)
            self._serving.clear()
            self._lose()
            # A start that fails counts as a death, too.
            while not self.cause:
                now = time.monotonic()
                self._deaths.append(now)
                recent = sum(1 for death in self._deaths if now - death < DEATHS_WINDOW)
                if recent >= DEATHS:
                    self._give_up(f"its process died {recent} times in {DEATHS_WINDOW / 60:g} minutes, last: {why}")
                    return
                await asyncio.sleep(PAUSES[recent - 1])
                try:
                    await self._launch()
                    break
                except SiteError as error:
                    why = str(error)

    async def _listen(self, child: Process) -> str:
        """Hand out replies until the child is gone; give how it ended."""
        try:
            while True:
                reply = await _receive(child)
                waiting = self._pending.get(reply.id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply)
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.MsgspecError):
            return await _end(child)

    def _lose(self) -> None:
        for waiting in self._pending.values():
            if not waiting.done():
                waiting.set_result(None)

    def _give_up(self, cause: str) -> None:
        self.cause = cause
        self._serving.set()
        if self._on_closed is not None:
            self._on_closed(self.site, cause)

    async def _ask(self, op: wire.Op, kind: type[T], *, within: float = 30.0, again: bool = True) -> T:
        """Put one op to the child; `again` allows one more try when the child dies over it."""
        call = wire.Call(next(self._numbers), time.monotonic() + within, msgspec.Raw(wire.packed(op)))
        message = wire.framed(call)
        if self._child is None:
            raise SiteError(f"the shard at {self.site} was never started", site=self.site, hint="await start() first")
        for last in (not again, True):
            await self._serving.wait()
            if self.cause or self._child.stdin is None:
                raise SiteError(
                    f"the shard at {self.site} is closed: {self.cause}", site=self.site, hint="see the operations page"
                )
            waiting: asyncio.Future[wire.Reply | None] = asyncio.get_running_loop().create_future()
            self._pending[call.id] = waiting
            try:
                self._child.stdin.write(message)
                await self._child.stdin.drain()
                reply = await waiting
            except ConnectionError:
                reply = None
                await asyncio.sleep(0.01)  # the reader learns of the death and clears `_serving`
            finally:
                self._pending.pop(call.id, None)
            if reply is not None:
                return self._result(reply, kind)
            if last:
                break
        raise SiteError(
            f"the process of the shard at {self.site} died over a {type(op).__name__.lower()}",
            site=self.site,
            hint="whether it was done is unknown; do the same again, that is harmless",
        )

    def _result(self, reply: wire.Reply, kind: type[T]) -> T:
        match reply.fault:
            case None:
                return msgspec.msgpack.decode(reply.result, type=kind)
            case wire.Fault(kind="full", text=text):
                raise StorageFullError(
                    f"the shard at {self.site} has no room: {text}",
                    site=self.site,
                    hint="free or add space, then retry",
                )
            case wire.Fault(text=text):
                raise SiteError(f"the shard at {self.site}: {text}", site=self.site, hint="run `domicile doctor`")


async def _receive(child: Process) -> wire.Reply:
    assert child.stdout is not None  # noqa: S101 - started with a pipe
    (size,) = wire.LENGTH.unpack(await child.stdout.readexactly(wire.LENGTH.size))
    return _decode_reply(await child.stdout.readexactly(size))


_decode_reply = msgspec.msgpack.Decoder(wire.Reply).decode


async def _end(child: Process, *, within: float = 2.0) -> str:
    """Make sure that the child is gone and say how it went."""
    if child.stdin is not None:
        child.stdin.close()
    try:
        async with asyncio.timeout(within):
            status = await child.wait()
    except TimeoutError:
        child.kill()
        status = await child.wait()
    if status == -7:  # SIGBUS: a mapped file could not grow
        return "the volume is full (SIGBUS)"
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


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
