"""Lanes: one inference thread per embedder, questions ahead of ingestion, tenants served evenly.

Rules kept here: a batch is at most about 50 ms of work, so a question waits for one batch and never for a document;
tenants take turns by tokens spent; work that was cancelled leaves before the next batch is formed; ingestion waits,
while questions beyond two seconds of work are turned away at once.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from residency.errors import SiteError
from residency.ports import Vectors

Tokens = NDArray[np.int64]
Run = Callable[[Tokens, Tokens], Vectors]
"""Takes int64 ids and mask of shape (n, t), gives float32 (n, d)."""

BATCH_SECONDS: Final = 0.05
BACKLOG_SECONDS: Final = 2.0
QUESTIONS_A_BATCH: Final = 32
_FIRST_RATE: Final = 5_000.0
"""Tokens a second before anything was measured: a slow CPU."""


@dataclass(slots=True, eq=False)
class _Work:
    """What one call wants embedded; longest first, so that neighbours are of like length and padding is small."""

    ids: Sequence[Sequence[int]]
    tenant: str
    out: Vectors
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[Vectors]"
    order: deque[int] = field(default_factory=deque)
    left: int = 0
    cancelled: bool = False

    def __post_init__(self) -> None:
        self.order.extend(sorted(range(len(self.ids)), key=lambda row: -len(self.ids[row])))
        self.left = len(self.ids)

    @property
    def longest(self) -> int:
        """Tokens of the longest text not yet taken."""
        return len(self.ids[self.order[0]])


class Lanes:
    """Two lanes into one model. `most_tokens` bounds rows × longest of a batch, padding counted."""

    def __init__(self, run: Run, *, site: str, dimension: int, most_tokens: int) -> None:
        self.rate = _FIRST_RATE
        """Tokens a second, a running mean of what was measured."""
        self._run, self._site, self._dimension, self._most_tokens = run, site, dimension, most_tokens
        self._questions: deque[_Work] = deque()
        self._passages: dict[str, deque[_Work]] = {}
        self._spent: dict[str, int] = {}
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name=f"embedder {site}", daemon=True)
        self._thread.start()

    async def embed(self, ids: Sequence[Sequence[int]], *, tenant: str, question: bool) -> Vectors:
        """Queue token ids and wait for their vectors, in their order. Raises `SiteError` when questions pile up."""
        loop = asyncio.get_running_loop()
        out = np.empty((len(ids), self._dimension), np.float32)
        if not ids:
            return out
        work = _Work(ids, tenant, out, loop, loop.create_future())
        with self._wake:
            if self._closed:
                raise SiteError("the embedder is closed", site=self._site)
            if question:
                self._admit_question()
                self._questions.append(work)
            else:
                self._admit_tenant(tenant)
                self._passages.setdefault(tenant, deque()).append(work)
            self._wake.notify()
        try:
            return await work.done
        finally:
            work.cancelled = True  # harmless once done

    def close(self) -> None:
        """Stop after the batch in hand; whoever waits gets a `SiteError`."""
        with self._wake:
            self._closed = True
            waiting = [*self._questions, *(work for queue in self._passages.values() for work in queue)]
            self._wake.notify()
        self._thread.join()
        for work in waiting:
            self._finish(work, SiteError("the embedder was closed", site=self._site))

    def _admit_question(self) -> None:
        """Raise `SiteError` when those who wait are already too much work."""
        backlog = sum(work.longest for work in self._questions if work.order)
        if backlog > BACKLOG_SECONDS * self.rate:
            raise SiteError("the embedder has too many questions waiting", site=self._site, hint="ask again shortly")

    def _admit_tenant(self, tenant: str) -> None:
        """Let a tenant that had nothing waiting start level with the others, neither in debt nor in credit."""
        if tenant not in self._passages:
            self._spent[tenant] = min((self._spent[other] for other in self._passages), default=0)

    # --- the inference thread -------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            with self._wake:
                while not (batch := self._next()) and not self._closed:
                    self._wake.wait()
                if self._closed:
                    return
            self._embed(batch)

    def _next(self) -> list[tuple[_Work, int]]:
        """Form the next batch: of questions if any wait, else of the tenant that has spent least."""
        limit = min(self._most_tokens, max(1, int(self.rate * BATCH_SECONDS)))
        if batch := self._take(self._questions, limit, QUESTIONS_A_BATCH):
            return batch
        while self._passages:
            tenant = min(self._passages, key=self._spent.__getitem__)
            batch = self._take(self._passages[tenant], limit, limit)
            if batch:
                self._spent[tenant] += sum(len(work.ids[row]) for work, row in batch)
                return batch
            del self._passages[tenant], self._spent[tenant]
        return []

    @staticmethod
    def _take(queue: deque[_Work], limit: int, most_rows: int) -> list[tuple[_Work, int]]:
        """Take texts from the front of a queue, at least one, while rows × longest stays within `limit`."""
        batch: list[tuple[_Work, int]] = []
        longest = 0
        while queue and len(batch) < most_rows:
            work = queue[0]
            if work.cancelled or not work.order:
                queue.popleft()
                continue
            wider = max(longest, work.longest)
            if batch and (len(batch) + 1) * wider > limit:
                break
            longest = wider
            batch.append((work, work.order.popleft()))
        return batch

    def _embed(self, batch: list[tuple[_Work, int]]) -> None:
        """Run one batch and hand out its rows; a failure goes to everyone in it."""
        longest = max(len(work.ids[row]) for work, row in batch)
        ids, mask = np.zeros((2, len(batch), longest), np.int64)
        for place, (work, row) in enumerate(batch):
            text = work.ids[row]
            ids[place, : len(text)], mask[place, : len(text)] = text, 1
        began = time.monotonic()
        try:
            vectors = self._run(ids, mask)
        except Exception as error:  # the thread must live, whatever a library raises
            for work in {id(work): work for work, _ in batch}.values():
                work.cancelled = True
                failure = SiteError(f"embedding failed: {type(error).__name__}", site=self._site, hint="see doctor")
                self._finish(work, failure)
            return
        self.rate += 0.1 * (ids.size / max(time.monotonic() - began, 1e-6) - self.rate)
        for place, (work, row) in enumerate(batch):
            work.out[row] = vectors[place]
            work.left -= 1
            if not work.left:
                self._finish(work, None)

    @staticmethod
    def _finish(work: _Work, error: SiteError | None) -> None:
        """Wake the caller in its own loop, unless it has gone."""

        def settle() -> None:
            if not work.done.done():
                work.done.set_exception(error) if error else work.done.set_result(work.out)

        try:
            work.loop.call_soon_threadsafe(settle)
        except RuntimeError:
            work.cancelled = True  # its loop is closed; nobody waits any more
