"""edge_child: the parent's side of the child process that holds an embedded shard.

Rules kept here: the child is started on the loop's own thread, because it dies with the thread that made it; it gets a
bare environment, its stdin and stdout, nothing else. It is a program of its own and no `multiprocessing` child, so our
main module is not imported a second time in it (torch and the service would come with it).
A child that dies is started anew after a pause; the third death in ten minutes closes the Site, and the rest serves on.
Reads cut off by a death are asked once more; of a write cut off nobody knows what became, so the caller replays it.
"""

import asyncio
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Final, TypeVar

import msgspec

import residency
from residency.errors import SiteError, StorageFullError
from residency.outlets.shards import edge_wire as wire
from residency.silence import SET

T = TypeVar("T")

START_WITHIN: Final = 60.0
"""Seconds until a started child must have loaded its shard; 100,000 points take about one."""
CLOSE_WITHIN: Final = 10.0
DEATHS: Final = 3
DEATHS_WINDOW: Final = 600.0
"""Seconds; that many deaths within them close the Site."""
PAUSES: Final = (0.05, 1.0)
"""Seconds before the first and the second new start."""


class EdgeChild:
    """One child with its supervisor; lives on the event loop that started it.

    `on_closed(site, cause)` is called once when the Site is given up, so that the Fleet can be told.
    """

    def __init__(
        self,
        site: str,
        folder: Path,
        *,
        dimension: int,
        free_share: float,
        on_closed: Callable[[str, str], None] | None,
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

    async def ask(self, op: wire.Op, kind: type[T], *, within: float = 30.0, again: bool = True) -> T:
        """Put one op to the child; `again` allows one more try when the child dies over it."""
        call = wire.Call(next(self._numbers), time.monotonic() + within, msgspec.Raw(wire.packed(op)))
        message = wire.framed(call)
        if self._child is None:
            raise SiteError(f"the shard at {self.site} was never started", site=self.site, hint="await start() first")
        for last in (not again, True):
            await self._serving.wait()
            child = self._child
            if self.cause or child.stdin is None:
                raise SiteError(
                    f"the shard at {self.site} is closed: {self.cause}", site=self.site, hint="see the operations page"
                )
            waiting: asyncio.Future[wire.Reply | None] = asyncio.get_running_loop().create_future()
            self._pending[call.id] = waiting
            try:
                child.stdin.write(message)
                await child.stdin.drain()
                reply = await waiting
            except ConnectionError:
                reply = None
                if self._child is child and not self.cause:
                    self._serving.clear()  # the supervisor has yet to learn of the death
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
