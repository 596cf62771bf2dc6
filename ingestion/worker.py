"""Worker: takes what is ready at its Sites and moves it on, a few Documents at a time.

While one Document is being embedded the next is read, so that the model never waits for a file. Nothing is lost when
the process dies: a lease runs out and another worker goes on.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import sqlalchemy as sa

from ingestion.erasure import TOGETHER, Erasure
from ingestion.errors import LeaseLostError
from ingestion.leases import Lease, Leases
from ingestion.pipeline import Pipeline
from ingestion.states import State
from residency.errors import DomicileError

log = logging.getLogger(__name__)

POLL: Final = 0.5
"""Seconds between looks into the queue when nobody woke the worker (other processes cannot)."""
HOURLY: Final = 3600.0


class Worker:
    """The loop behind `serve` and `work`. `sites` are the Sites it stands at, `tidy` is called once an hour."""

    def __init__(
        self,
        *,
        leases: Leases,
        pipeline: Pipeline,
        erasure: Erasure,
        sites: Sequence[str],
        concurrency: int = 2,
        tidy: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.leases = leases
        self.pipeline = pipeline
        self.erasure = erasure
        self.sites = tuple(sites)
        self.concurrency = concurrency
        self.tidy = tidy
        self._turns = itertools.count()
        self._woken = asyncio.Event()
        self._begun = False

    def wake(self) -> None:
        """Say that something arrived; harmless at any time, from the loop's own thread."""
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; what is in hand then is finished first."""
        await self._begin()
        async with asyncio.TaskGroup() as group:
            for _ in range(self.concurrency):
                group.create_task(self._work(stop))
            if self.tidy is not None:
                group.create_task(self._tidy(stop, self.tidy))
        self.leases.close()

    async def drain(self) -> int:
        """Work until nothing is ready now; gives how many times a Document was taken. What waits its turn is left."""
        await self._begin()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._drain()) for _ in range(self.concurrency)]
        return sum(task.result() for task in tasks)

    async def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        try:
            await self.pipeline.tidy()
        except (DomicileError, sa.exc.DBAPIError) as error:
            log.warning("tidying failed", extra={"error": type(error).__name__})

    async def _drain(self) -> int:
        done = 0
        while True:
            lease = await self._take()
            if lease is not None:
                await self._advance(lease)
                done += 1
            elif not self.leases.held():
                return done
            else:  # what another task has in hand may leave more to do, such as a version it replaced
                await asyncio.sleep(0.02)

    async def _work(self, stop: asyncio.Event) -> None:
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                self._woken.clear()
                try:
                    lease = await self._take()
                except sa.exc.DBAPIError as error:
                    log.error("the queue does not answer", extra={"error": type(error).__name__})
                    lease = None
                if lease is not None:
                    await self._advance(lease)
                    continue
                woken = asyncio.ensure_future(self._woken.wait())
                await asyncio.wait((stopped, woken), timeout=POLL, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
        finally:
            stopped.cancel()

    async def _take(self) -> Lease | None:
        start = next(self._turns)
        for step in range(len(self.sites)):
            site = self.sites[(start + step) % len(self.sites)]
            lease = await self.leases.database.run(self.leases.take, site)
            if lease is not None:
                return lease
        return None

    async def _advance(self, lease: Lease) -> None:
        """Move one Document on; whatever happens, the loop goes on and the Document comes back or rests."""
        try:
            if lease.row["state"] == State.ERASING:
                await self._erase(lease)
            else:
                await self.pipeline.advance(lease)
        except LeaseLostError:
            self.leases.forget(lease)
        except asyncio.CancelledError:
            # We are being stopped: give it back at once, so that nobody waits for the lease to run out.
            with contextlib.suppress(LeaseLostError, sa.exc.DBAPIError):
                self.leases.release(lease, wait=False)
            raise
        except sa.exc.DBAPIError as error:
            # The lease runs out by itself; nothing was half written.
            self.leases.forget(lease)
            log.error("the database failed in mid-step", extra={"error": type(error).__name__})

    async def _erase(self, lease: Lease) -> None:
        """Erase a Document, and with it those of its tenant and Site that wait for the same: one rebuild serves all."""
        run, leases = self.leases.database.run, self.leases
        group = [lease, *await run(leases.take_along, lease, TOGETHER - 1)]
        try:
            for each, error in await self.erasure.proceed(group):
                if isinstance(error, LeaseLostError):
                    leases.forget(each)
                else:
                    await self._back(each, error.code)
        except (sa.exc.DBAPIError, asyncio.CancelledError):
            for each in group[1:]:
                leases.forget(each)  # they run out by themselves
            raise
        except Exception as error:
            log.error("an erasure broke", extra={"error": type(error).__name__})
            for each in group:
                await self._back(each, "internal")

    async def _back(self, lease: Lease, cause: str) -> None:
        with contextlib.suppress(LeaseLostError):
            await self.leases.database.run(self.leases.release, lease, cause=cause)

    async def _tidy(self, stop: asyncio.Event, tidy: Callable[[], Awaitable[object]]) -> None:
        while not stop.is_set():
            try:
                await tidy()
            except (DomicileError, sa.exc.DBAPIError) as error:
                log.warning("tidying failed", extra={"error": type(error).__name__})
            with_timeout = asyncio.wait_for(stop.wait(), HOURLY)
            try:
                await with_timeout
            except TimeoutError:
                continue
