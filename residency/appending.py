"""Appending: Drafts become signed rows, as many in one transaction as arrive while the last one is being committed.

Rules kept here: an entry is signed and durable before its caller hears of it; numbers of a tenant have no gap, also
where one Draft of many cannot be recorded; what fails for one caller fails for that caller alone; a Receipt names the
rules that its own story was judged by, whoever's thread writes it. Reading and the tree are in `ledger.py`.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from residency import leaves as rows
from residency import notes, receipt
from residency.database import Database
from residency.errors import LedgerError
from residency.packing import Packing
from residency.receipt import Draft

MOST: Final = 128
"""Entries in one transaction; a full one takes about 10 ms of a thread beside the commit."""
BACK: Final = timedelta(seconds=60)
"""A clock this far behind the newest Receipt is refused; a smaller step back is recorded as the newest time."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What `append` gives back: the Receipt's id, its number within the tenant, its leaf and the log's signature."""

    id: str
    seq: int
    leaf: bytes
    signature: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A Draft with the digests of policy, zones and fleet that its story was judged by."""

    draft: Draft
    digests: Mapping[str, str]


def now() -> datetime:
    """Give the instant in UTC."""
    return datetime.now(UTC)


class Writer:
    """Turns entries into rows, within a transaction that the caller commits."""

    def __init__(self, signer: notes.Signer, packing: Packing, software: str, clock: Callable[[], datetime]) -> None:
        self._signer = signer
        self._packing = packing
        self._software = software
        self._clock = clock

    def write(self, connection: sa.Connection, entries: Sequence[Entry]) -> list[Stored | Exception]:
        """Write entries, each tenant's in their order; gives for each what was stored, or why it could not be.

        Raises what the database raises: then nothing of the transaction may be committed.
        """
        moment = self._clock()
        time, latest = receipt.stamp(moment), receipt.stamp(moment + BACK)
        found: list[rows.Row | Exception] = [LedgerError("not written")] * len(entries)
        for tenant in sorted({entry.draft.tenant for entry in entries}):  # in one order, so that no two writers cross
            mine = [at for at, entry in enumerate(entries) if entry.draft.tenant == tenant]
            last, newest = rows.raised(connection, tenant, by=len(mine), time=time)
            seq = first = last - len(mine) + 1
            for at in mine:
                try:
                    if newest > latest:
                        raise _behind(newest)
                    found[at] = self._made(entries[at], seq, newest, moment)
                    seq += 1
                except Exception as error:
                    found[at] = error
            if seq - first < len(mine):  # under the same lock, so nobody saw the numbers that are given back
                rows.raised(connection, tenant, by=seq - first - len(mine))
        made = [row for row in found if isinstance(row, rows.Row)]
        self._packing.ready(connection)
        self._sign(made)
        rows.put(connection, made)
        return [
            Stored(each.id, each.seq, each.leaf, each.signature) if isinstance(each, rows.Row) else each
            for each in found
        ]

    def _made(self, entry: Entry, seq: int, time: str, moment: datetime) -> rows.Row:
        draft, r = entry.draft, secrets.token_bytes(32)
        id_ = receipt.new_id(moment.timestamp())
        made = receipt.build(
            draft, seq=seq, id=id_, time=time, software=self._software, digests=entry.digests, r=r
        )  # fmt: skip
        secret = r if made["commits"] else None
        documents = sorted(rows.documents(draft))
        return rows.Row(id_, draft.tenant, seq, draft.kind, time, receipt.leaf(made), secret, documents)

    def _sign(self, made: Sequence[rows.Row]) -> None:
        """Sign and pack. A second thread for half of them was tried and won nothing where others use the cores."""
        for row in made:
            row.signature = self._signer.sign_line(row.leaf)
            row.body = self._packing.pack(row.leaf)


def _behind(newest: str) -> LedgerError:
    return LedgerError(
        f"the clock is behind the newest receipt, which is of {newest}",
        hint="set this machine's clock right; if it was that time which was wrong, see docs/operations.md",
    )


class Committer:
    """Lets callers that wait at the same time share one commit.

    The first to come is written at once; whoever comes while its commit is under way is written with all others who
    did, in the next. So one caller alone waits no longer than before, and a hundred wait for two commits, not for a
    hundred. `commit` writes entries durably, in a thread of the database's.
    """

    def __init__(
        self, database: Database, commit: Callable[[Sequence[Entry]], Sequence[Stored | Exception]]
    ) -> None:  # fmt: skip
        self._database = database
        self._commit = commit
        self._waiting: list[tuple[Entry, asyncio.Future[Stored]]] = []
        self._task: asyncio.Task[None] | None = None

    async def record(self, entry: Entry) -> Stored:
        """Write an entry; gives what was stored once it is durable. A caller that is cancelled leaves it written."""
        loop = asyncio.get_running_loop()
        if self._task is not None and self._task.get_loop() is not loop:  # the loop before this one has ended
            self._task, self._waiting = None, []
        future: asyncio.Future[Stored] = loop.create_future()
        self._waiting.append((entry, future))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._work(), context=Context())  # of no caller's story
        return await future

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            outcome: Sequence[Stored | BaseException]
            try:
                outcome = await self._database.run(self._commit, [entry for entry, _ in batch])
            except BaseException as error:
                outcome = [error] * len(batch)
            for (_, future), said in zip(batch, outcome, strict=True):
                if future.done():  # its caller went away
                    continue
                if isinstance(said, Stored):
                    future.set_result(said)
                else:
                    _fail(future, said)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    """Let a caller raise an error, or be cancelled where the loop is ending."""
    if isinstance(error, asyncio.CancelledError):
        future.cancel()
    else:
        future.set_exception(error)
