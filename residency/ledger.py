"""Ledger: the append-only tree of all Receipts.

Rules kept here: an entry is signed and durable before `append` returns, and its caller releases nothing before that;
a leaf once stored never changes; no checkpoint is signed that contradicts an older one, in or outside the database;
time never runs back within a tenant. A tenant sees only its own leaves. Drafts become rows in `appending.py`; rows and
their locks are in `leaves.py`, their form on disk in `packing.py`, witnesses in `cosigning.py`, the key on disk in
`logkey.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from residency import cosigning, notes, receipt, tlog
from residency import leaves as rows
from residency.appending import Committer, Entry, Stored, Writer, now
from residency.database import Database
from residency.errors import LeafError, LedgerError
from residency.leaves import checkpoints, failing, leaves, openings, touches
from residency.logkey import LogKey, keep
from residency.packing import Packing
from residency.receipt import Draft

FORMAT: Final = "domicile-receipt/v1"
BATCH: Final = 2048
"""Leaves placed in one transaction; others wait for the lock meanwhile."""
PAGE: Final = 500
"""Receipts read at once; no connection stays open between pages."""
_DECODER: Final = msgspec.json.Decoder()


class Ledger:
    """The Ledger of one installation.

    `origin` names the log, `<host>/ledger/<epoch>`; `digests` gives those of policy, zones and fleet in force;
    `mirror`, when given, is a file outside the database that keeps the newest checkpoint, so that a database set back
    by a restore is noticed. `witnesses` gives the keys whose cosignatures are taken.
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
        witnesses: Callable[[], Sequence[notes.Verifier]] = tuple,
    ) -> None:
        self.database = database
        self.origin = origin
        self.software = software
        self._key = key
        self._digests = digests
        self._mirror = mirror
        self._clock = clock
        self._witnesses = witnesses
        self._signer = notes.Signer(origin, key.private)
        self._packing = Packing()
        self._writer = Writer(self._signer, self._packing, software, clock)
        self._committer = Committer(database, self._commit)

    @property
    def vkey(self) -> str:
        """The public key that checks this Ledger's signatures, as text."""
        return self._key.vkey(self.origin)

    @property
    def trust(self) -> str:
        """A trust file (c2sp.org/tlog-policy) that names this log and its witnesses, and asks for no quorum of them."""
        named = "".join(f"witness {key.name} {key.vkey}\n" for key in self._witnesses())
        return f"log {self.vkey}\n{named}quorum none\n"

    def sign(self, body: bytes) -> str:
        """Sign canonical JSON as a note (the text and a newline); gives the signature line."""
        return self._signer.sign(body.decode() + "\n")

    # --- writing ----------------------------------------------------------------------------------------------------

    def append(self, draft: Draft, connection: sa.Connection | None = None) -> Stored:
        """Record a Draft and give its Receipt; durable on return, or with the caller's transaction.

        Raises `LedgerError` when it cannot be written: then nothing may be released.
        """
        entry = Entry(draft, self._digests())
        with failing("written"):
            if connection is not None:
                return _stored(self._writer.write(connection, [entry]))
            with self.database.transaction() as own:
                return _stored(self._writer.write(own, [entry]))

    async def record(self, draft: Draft) -> Stored:
        """`append` without holding up the event loop; callers at the same time share one commit."""
        return await self._committer.record(Entry(draft, self._digests()))

    def _commit(self, entries: Sequence[Entry]) -> list[Stored | Exception]:
        with failing("written"), self.database.transaction() as connection:
            return self._writer.write(connection, entries)

    def sequence(self) -> int:
        """Place every stored leaf in the tree and sign a checkpoint of it; gives the tree's size.

        Raises `LedgerError` when the tree contradicts a checkpoint signed before, and then signs nothing.
        """
        with failing("sequenced"):
            while True:
                with self.database.reading() as connection:
                    size = rows.settled(connection, self.origin)
                if size is not None:
                    return size
                with self.database.transaction() as connection:
                    note, model = self._grow(connection)
                if model:
                    with self.database.reading() as connection:
                        self._packing.refresh(connection)
                if self._mirror is not None:  # after the commit: a mirror ahead of the database would close the log
                    keep(self._mirror, note)

    def check(self) -> None:
        """See that the database still holds what was signed last; a start begins with this.

        Raises `LedgerError` when the database was set back or changed behind the newest checkpoint, or lacks leaves.
        """
        with failing("read"), self.database.reading() as connection:
            size = connection.execute(sa.select(rows.heads.c.seq).where(rows.heads.c.tenant == rows.TREE)).scalar()
            self._continues(connection, size or 0, rows.newest(connection))
            if lost := rows.missing(connection, size or 0):
                raise LedgerError(
                    f"{lost} of the ledger's entries were removed from the database",
                    hint="`domicile ledger check` names the rows; restore the newest copy of the database",
                )

    def _continues(self, connection: sa.Connection, size: int, newest: tuple[tlog.Checkpoint, str] | None) -> None:
        past = [newest[0]] if newest is not None else []
        if self._mirror is not None and self._mirror.exists():
            past.append(tlog.Checkpoint.parse(notes.split(self._mirror.read_text(encoding="utf-8"))[0]))
        for point in past:
            if point.origin == self.origin and (point.size > size or rows.root(connection, point.size) != point.root):
                raise LedgerError(
                    f"the stored tree of {size} leaves contradicts a checkpoint signed at {point.size}",
                    hint="the database was set back or changed: restore the newest copy; docs/operations.md says how",
                )

    def _grow(self, connection: sa.Connection) -> tuple[str, bool]:
        # 1. One sequencer at a time: the tree's row is the lock, and holds the size.
        size, _ = rows.raised(connection, rows.TREE, by=0)
        # 2. What was signed before must still be there.
        newest = rows.newest(connection)
        self._continues(connection, size, newest)
        # 3. Grow; another process may have been faster.
        placed, root, model = rows.place(connection, size, BATCH, self._packing)
        if not placed and newest is not None and newest[0].size == size and newest[0].origin == self.origin:
            return newest[1], False
        size, _ = rows.raised(connection, rows.TREE, by=placed)
        # 4. Sign what stands now.
        text = tlog.Checkpoint(self.origin, size, root).text
        note = f"{text}\n{self._signer.sign(text)}\n"
        signed = {"size": size, "root": root, "note": note, "time": receipt.stamp(self._clock())}
        if newest is not None and newest[0].size == size:  # the first of a new epoch, with nothing new in it
            connection.execute(checkpoints.delete().where(checkpoints.c.size == size))
        connection.execute(checkpoints.insert(), signed)
        return note, model

    # --- reading ----------------------------------------------------------------------------------------------------

    def checkpoint(self) -> str:
        """Give the newest signed checkpoint with its cosignatures, after placing what waits."""
        self.sequence()
        with failing("read"), self.database.reading() as connection:
            point, note = self._newest(connection)
            return cosigning.note(connection, point.size, note)

    def cosign(self, note: str) -> tuple[int, list[str]]:
        """Take a witness's cosignature under a checkpoint of ours; gives its size and the witnesses taken."""
        with failing("written"), self.database.transaction() as connection:
            time = receipt.stamp(self._clock())
            return cosigning.accept(connection, note, self.origin, self._witnesses(), time)

    def cosigned(self) -> list[dict[str, str | int]]:
        """List what each witness cosigned last."""
        with failing("read"), self.database.reading() as connection:
            return cosigning.seen(connection)

    def tile(self, level: int, index: int, width: int) -> bytes:
        """Give `width` hashes of a tile of the tree, 32 bytes each; raises `LeafError` for one that is not full yet.

        Level L holds subtrees of 256^L leaves. Source: c2sp.org/tlog-tiles; bundles of leaves are not given, since
        they would show one tenant's to another.
        """
        self.sequence()
        first = index * 256
        with failing("read"), self.database.reading() as connection:
            size = self._newest(connection)[0].size
            if not 1 <= width <= 256 or not 0 <= level <= 7 or index < 0 or (first + width) << 8 * level > size:
                raise LeafError("the tree has no such tile", hint="ask for one that the checkpoint's size covers")
            found = rows.held(connection, [(8 * level, first + at) for at in range(width)])
        return b"".join(found)

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
            body = self._packing.unpack(connection, body)
            proof = None if place is None else self._proof(connection, place)
        lines = [signature]
        if notes.Signature.parse(signature).name != self.origin:  # of an epoch before; today's readers know our name
            lines.insert(0, self.sign(body))
        return {"format": FORMAT, "receipt": msgspec.json.decode(body), "signatures": lines, "proof": proof}

    def entries(
        self, tenant: str, since: datetime, until: datetime, kinds: Sequence[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Give a tenant's Receipts from `since` up to, without, `until`, in the order of their numbers."""
        with failing("read"), self.database.reading() as connection:
            last, end = (rows.first_at(connection, tenant, receipt.stamp(when)) - 1 for when in (since, until))
        wanted = sa.select(leaves.c.seq, leaves.c.body).where(leaves.c.tenant == tenant, leaves.c.seq <= end)
        if kinds is not None:
            wanted = wanted.where(leaves.c.kind.in_(kinds))
        while True:
            with failing("read"), self.database.reading() as connection:
                page = connection.execute(
                    wanted.where(leaves.c.seq > last).order_by(leaves.c.seq).limit(PAGE)
                ).all()  # fmt: skip
                bodies = [self._packing.unpack(connection, row.body) for row in page]
            yield from map(_DECODER.decode, bodies)
            if len(page) < PAGE:
                return
            last = page[-1].seq

    def count(self, tenant: str, since: datetime, until: datetime) -> int:
        """Give how many Receipts `entries` would give if none is missing; for showing progress."""
        with failing("read"), self.database.reading() as connection:
            first, end = (rows.first_at(connection, tenant, receipt.stamp(when)) for when in (since, until))
        return max(0, end - first)

    def span(self, since: datetime, until: datetime) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """Give the last checkpoint before `since` (else the first there is) and the newest before `until`."""
        with failing("read"), self.database.reading() as connection:
            ends = rows.span(connection, receipt.stamp(since), receipt.stamp(until))
        start, end = (r and {"size": r.size, "root": tlog.encode(r.root), "time": r.time} for r in ends)
        return start, end

    def opening(self, tenant: str, id: str) -> bytes | None:  # noqa: A002
        """Give the secret r that opens a Receipt's commitments, or None where it was destroyed."""
        with failing("read"), self.database.reading() as connection:
            wanted = sa.select(openings.c.r).where(
                openings.c.tenant == tenant, openings.c.seq == rows.seq_of(tenant, id)
            )
            return connection.execute(wanted).scalar()

    def touched(self, tenant: str, document: str) -> list[str]:
        """Give ids of the Receipts that touched a document (GDPR 15(1)(c)), oldest first."""
        with failing("read"), self.database.reading() as connection:
            return [row.id for row in connection.execute(rows.touching(tenant, bytes.fromhex(document)))]

    def touching(self, tenant: str, document: str) -> Iterator[dict[str, Any]]:
        """Give the Receipts that touched a document, oldest first; none once it is forgotten."""
        with failing("read"), self.database.reading() as connection:
            for row in connection.execute(rows.touching(tenant, bytes.fromhex(document))):
                yield _DECODER.decode(self._packing.unpack(connection, row.body))

    def _newest(self, connection: sa.Connection) -> tuple[tlog.Checkpoint, str]:
        found = rows.newest(connection)
        if found is None:
            raise LedgerError("no checkpoint was signed yet", hint="ask again")
        return found

    def _proof(self, connection: sa.Connection, index: int) -> str:
        newest = self._newest(connection)
        point, note = cosigning.covering(connection, index, self.origin) or newest
        return tlog.Proof(index, rows.path(connection, tlog.inclusion_spans(index, point.size)), note).text

    # --- forgetting -------------------------------------------------------------------------------------------------

    def forget(self, tenant: str, document: str, connection: sa.Connection | None = None) -> int:
        """Delete the rows that tie Receipts to a document; gives how many. Leaves stay: they name no document."""
        where = (touches.c.tenant == tenant, touches.c.document == bytes.fromhex(document))
        return self._delete(touches.delete().where(*where), connection)

    def destroy(self, tenant: str, id: str, connection: sa.Connection | None = None) -> bool:  # noqa: A002
        """Delete a Receipt's secret r: from then on its commitments can be linked to nothing."""
        where = (openings.c.tenant == tenant, openings.c.seq == rows.seq_of(tenant, id))
        return self._delete(openings.delete().where(*where), connection) > 0

    def _delete(self, doomed: sa.Delete, connection: sa.Connection | None) -> int:
        with failing("written"):
            if connection is not None:
                return connection.execute(doomed).rowcount
            with self.database.transaction() as own:
                return own.execute(doomed).rowcount


def _stored(outcome: Sequence[Stored | Exception]) -> Stored:
    """Give the one that was written, or raise why it was not."""
    (said,) = outcome
    if isinstance(said, Stored):
        return said
    raise said
