"""Ledger: the append-only tree of all Receipts.

Rules kept here: an entry is signed and durable before `append` returns, and its caller releases nothing before that;
a leaf once stored never changes; no checkpoint is signed that contradicts an older one, in or outside the database.
A tenant sees only its own leaves. Rows and their locks are in `leaves.py`, the key on disk in `logkey.py`.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from residency import leaves as rows
from residency import notes, receipt, tlog
from residency.database import Database
from residency.errors import LeafError, LedgerError
from residency.leaves import checkpoints, failing, leaves, openings, touches
from residency.logkey import LogKey, keep
from residency.receipt import Draft

FORMAT: Final = "domicile-receipt/v1"
BATCH: Final = 2048
"""Leaves placed in one transaction; others wait for the lock meanwhile."""
PAGE: Final = 500
"""Receipts read at once; no connection stays open between pages."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What `append` gives back: the Receipt's id, its number within the tenant, its leaf and the log's signature."""

    id: str
    seq: int
    leaf: bytes
    signature: str


def now() -> datetime:
    """Give the instant in UTC."""
    return datetime.now(UTC)


class Ledger:
    """The Ledger of one installation.

    `origin` names the log, `<host>/ledger/<epoch>`; `digests` gives those of policy, zones and fleet in force;
    `mirror`, when given, is a file outside the database that keeps the newest checkpoint, so that a database set back
    by a restore is noticed.
    """

    def __init__(
        self,
        database: Database,
        key: LogKey,
        *,
        origin: str,
        digests: Callable[[], Mapping[str, str]],
        software: str,
        mirror: Path | None = None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self.database = database
        self.origin = origin
        self.software = software
        self._key = key
        self._digests = digests
        self._mirror = mirror
        self._clock = clock

    @property
    def vkey(self) -> str:
        """The public key that checks this Ledger's signatures, as text."""
        return self._key.vkey(self.origin)

    @property
    def trust(self) -> str:
        """A trust file (c2sp.org/tlog-policy) that names this log and asks for no witnesses."""
        return f"log {self.vkey}\nquorum none\n"

    def sign(self, body: bytes) -> str:
        """Sign canonical JSON as a note (the text and a newline); gives the signature line."""
        return notes.sign(body.decode() + "\n", self.origin, self._key.private)

    # --- writing ----------------------------------------------------------------------------------------------------

    def append(self, draft: Draft, connection: sa.Connection | None = None) -> Stored:
        """Record a Draft and give its Receipt; durable on return, or with the caller's transaction.

        Raises `LedgerError` when it cannot be written: then nothing may be released.
        """
        with failing("written"):
            if connection is not None:
                return self._append(draft, connection)
            with self.database.transaction() as own:
                return self._append(draft, own)

    async def record(self, draft: Draft) -> Stored:
        """`append` in the database's threads."""
        return await self.database.run(self.append, draft)

    def _append(self, draft: Draft, connection: sa.Connection) -> Stored:
        seq = rows.raised(connection, draft.tenant)
        moment = self._clock()
        id_, time, r = receipt.new_id(moment.timestamp()), receipt.stamp(moment), secrets.token_bytes(32)
        made = receipt.build(
            draft, seq=seq, id=id_, time=time, software=self.software, digests=self._digests(), r=r
        )  # fmt: skip
        body = receipt.leaf(made)
        signature = self.sign(body)
        key = {"id": id_, "tenant": draft.tenant}
        row = {"seq": seq, "kind": draft.kind, "time": time, "body": body, "signature": signature}
        connection.execute(leaves.insert(), key | row)
        if made["commits"]:
            connection.execute(openings.insert(), key | {"r": r})
        touched = [
            {"receipt": id_, "tenant": draft.tenant, "document": document} for document in sorted(rows.documents(draft))
        ]
        if touched:
            connection.execute(touches.insert(), touched)
        return Stored(id_, seq, body, signature)

    def sequence(self) -> int:
        """Place every stored leaf in the tree and sign a checkpoint of it; gives the tree's size.

        Raises `LedgerError` when the tree contradicts a checkpoint signed before, and then signs nothing.
        """
        with failing("sequenced"):
            while True:
                with self.database.reading() as connection:
                    size = rows.settled(connection)
                if size is not None:
                    return size
                with self.database.transaction() as connection:
                    note = self._grow(connection)
                if self._mirror is not None:  # after the commit: a mirror ahead of the database would close the log
                    keep(self._mirror, note)

    def _grow(self, connection: sa.Connection) -> str:
        # 1. One sequencer at a time: the tree's row is the lock, and holds the size.
        size = rows.raised(connection, rows.TREE, by=0)
        # 2. What was signed before must still be there.
        newest = rows.newest(connection)
        past = [newest[0]] if newest is not None else []
        if self._mirror is not None and self._mirror.exists():
            past.append(tlog.Checkpoint.parse(notes.split(self._mirror.read_text(encoding="utf-8"))[0]))
        for point in past:
            if point.origin == self.origin and (point.size > size or rows.root(connection, point.size) != point.root):
                raise LedgerError(
                    f"the stored tree of {size} leaves contradicts a checkpoint signed at {point.size}",
                    hint="the database was set back or changed: restore the newest copy, or begin a new epoch",
                )
        # 3. Grow; another process may have been faster.
        placed, root = rows.place(connection, size, BATCH)
        if not placed and newest is not None and newest[0].size == size:
            return newest[1]
        size = rows.raised(connection, rows.TREE, by=placed)
        # 4. Sign what stands now.
        text = tlog.Checkpoint(self.origin, size, root).text
        note = f"{text}\n{notes.sign(text, self.origin, self._key.private)}\n"
        signed = {"size": size, "root": root, "note": note, "time": receipt.stamp(self._clock())}
        connection.execute(checkpoints.insert(), signed)
        return note

    # --- reading ----------------------------------------------------------------------------------------------------

    def checkpoint(self) -> str:
        """Give the newest signed checkpoint, after placing what waits."""
        self.sequence()
        with failing("read"), self.database.reading() as connection:
            return self._newest(connection)[1]

    def proof(self, index: int) -> str:
        """Give the proof file of leaf `index` under the newest checkpoint; raises `LeafError` for no such leaf."""
        self.sequence()
        with failing("read"), self.database.reading() as connection:
            return self._proof(connection, index)

    def consistency(self, old: int, new: int) -> list[str]:
        """Give the base64 hashes that show that the tree of `new` leaves continues that of `old`."""
        self.sequence()
        with failing("read"), self.database.reading() as connection:
            size = self._newest(connection)[0].size
            if new > size:
                raise LeafError(f"the tree holds {size} leaves, not {new}", hint="ask for a smaller size")
            return [tlog.encode(value) for value in rows.path(connection, tlog.consistency_spans(old, new))]

    def bundle(self, tenant: str, id: str) -> dict[str, Any] | None:  # noqa: A002 - the word of the contract
        """Give a Receipt with its signature and proof, as a file for outsiders; None where the tenant has no such."""
        self.sequence()
        columns = (leaves.c.body, leaves.c.signature, leaves.c.index)
        with failing("read"), self.database.reading() as connection:
            wanted = sa.select(*columns).where(leaves.c.tenant == tenant, leaves.c.id == id)
            row = connection.execute(wanted).first()
            if row is None:
                return None
            body, signature, place = row
            proof = None if place is None else self._proof(connection, place)
        return {"format": FORMAT, "receipt": json.loads(body), "signatures": [signature], "proof": proof}

    def entries(
        self, tenant: str, since: datetime, until: datetime, kinds: Sequence[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Give a tenant's Receipts from `since` up to, without, `until`, in the order of their numbers."""
        wanted = sa.select(leaves.c.seq, leaves.c.body).where(
            leaves.c.tenant == tenant,
            leaves.c.time >= receipt.stamp(since),
            leaves.c.time < receipt.stamp(until),
        )
        if kinds is not None:
            wanted = wanted.where(leaves.c.kind.in_(kinds))
        last = 0
        while True:
            with failing("read"), self.database.reading() as connection:
                page = connection.execute(
                    wanted.where(leaves.c.seq > last).order_by(leaves.c.seq).limit(PAGE)
                ).all()  # fmt: skip
            for row in page:
                yield json.loads(row.body)
            if len(page) < PAGE:
                return
            last = page[-1].seq

    def span(self, since: datetime, until: datetime) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """Give the last checkpoint before `since` (else the first there is) and the newest before `until`."""
        table = checkpoints.c
        wanted = sa.select(table.size, table.root, table.time)
        before = wanted.where(table.time < receipt.stamp(since)).order_by(table.size.desc())
        last = wanted.where(table.time < receipt.stamp(until)).order_by(table.size.desc())
        with failing("read"), self.database.reading() as connection:
            first = connection.execute(before.limit(1)).first()
            first = first or connection.execute(wanted.order_by(table.size).limit(1)).first()
            ends = (first, connection.execute(last.limit(1)).first())
        start, end = (r and {"size": r.size, "root": tlog.encode(r.root), "time": r.time} for r in ends)
        return start, end

    def opening(self, tenant: str, id: str) -> bytes | None:  # noqa: A002
        """Give the secret r that opens a Receipt's commitments, or None where it was destroyed."""
        with failing("read"), self.database.reading() as connection:
            wanted = sa.select(openings.c.r).where(openings.c.tenant == tenant, openings.c.id == id)
            return connection.execute(wanted).scalar()

    def touched(self, tenant: str, document: str) -> list[str]:
        """Give ids of the Receipts that touched a document (GDPR 15(1)(c)), oldest first."""
        with failing("read"), self.database.reading() as connection:
            wanted = sa.select(touches.c.receipt).where(touches.c.tenant == tenant, touches.c.document == document)
            return list(connection.execute(wanted.order_by(touches.c.receipt)).scalars())

    def _newest(self, connection: sa.Connection) -> tuple[tlog.Checkpoint, str]:
        found = rows.newest(connection)
        if found is None:
            raise LedgerError("no checkpoint was signed yet", hint="ask again")
        return found

    def _proof(self, connection: sa.Connection, index: int) -> str:
        point, note = self._newest(connection)
        return tlog.Proof(index, rows.path(connection, tlog.inclusion_spans(index, point.size)), note).text

    # --- forgetting -------------------------------------------------------------------------------------------------

    def forget(self, tenant: str, document: str, connection: sa.Connection | None = None) -> int:
        """Delete the rows that tie Receipts to a document; gives how many. Leaves stay: they name no document."""
        where = (touches.c.tenant == tenant, touches.c.document == document)
        return self._delete(touches.delete().where(*where), connection)

    def destroy(self, tenant: str, id: str, connection: sa.Connection | None = None) -> bool:  # noqa: A002
        """Delete a Receipt's secret r: from then on its commitments can be linked to nothing."""
        return self._delete(openings.delete().where(openings.c.tenant == tenant, openings.c.id == id), connection) > 0

    def _delete(self, doomed: sa.Delete, connection: sa.Connection | None) -> int:
        with failing("written"):
            if connection is not None:
                return connection.execute(doomed).rowcount
            with self.database.transaction() as own:
                return own.execute(doomed).rowcount
