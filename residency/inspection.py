"""inspection: every row of the Ledger read again, and every edit of one named.

Rules kept here: it trusts the public key alone and recomputes the rest: leaf by leaf the body, its signature, the
columns beside it, `seq` without gaps, every stored hash, every checkpoint. It reads in pages and keeps only the right
edge of the tree, so a million leaves take little memory. What erasure may remove (openings, touches) is not missed.
A tail cut off together with all its hashes and checkpoints shows only against a checkpoint kept elsewhere: `mirror`.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from residency import leaves as rows
from residency import notes, tlog
from residency.cosigning import cosignatures
from residency.database import Database
from residency.errors import DomicileError, LedgerError
from residency.leaves import checkpoints, hashes, heads, leaves
from residency.packing import Packing

PAGE: Final = 1000
COLUMNS: Final = ("id", "tenant", "seq", "kind", "time")
"""Columns of a leaf that repeat what its body says."""

_LEAF: Final = sa.select(
    *(leaves.c[name] for name in (*COLUMNS, "body", "signature")), leaves.c.index.label("place")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that does not hold: which table, which row, what is wrong."""

    table: str
    row: str
    text: str


class Inspection:
    """One run over a database. `signers` are the keys that may have signed: one per epoch; `mirror` as in `Ledger`."""

    def __init__(
        self,
        database: Database,
        signers: Callable[[str], notes.Verifier],
        *,
        mirror: Path | None = None,
        progress: Callable[[int, int], None] = lambda done, whole: None,
    ) -> None:
        self._database = database
        self._signers = signers
        self._mirror = mirror
        self._progress = progress
        self._packing = Packing()
        self._edge: dict[tlog.Place, bytes] = {}
        self._size = 0
        self._hashes = 0
        self._seq: dict[str, int] = {}

    def run(self) -> Iterator[Fault]:
        """Give every fault, in the order of the tree; none means that all rows hold."""
        points = self._points()
        yield from (fault for _, _, fault in points if fault)
        marks = {size: root for size, root, _ in points}
        if self._mirror is not None and self._mirror.exists():
            point = tlog.Checkpoint.parse(notes.split(self._mirror.read_text(encoding="utf-8"))[0])
            if marks.setdefault(point.size, point.root) != point.root:
                yield Fault("checkpoints", str(point.size), "it is another than the one kept outside the database")
        yield from self._check_root(marks)
        whole = self._count(leaves)
        for page in self._pages():
            stored = self._stored(len(page))
            for row in page:
                yield from self._leaf(row, stored)
                yield from self._check_root(marks)
            self._progress(self._size, whole)
        yield from (Fault("checkpoints", str(size), "it signs more leaves than there are") for size in marks)
        yield from self._waiting()
        yield from self._ends(points)

    # --- leaves ---

    def _pages(self) -> Iterator[list[Any]]:
        last = -1
        while page := self._read(_LEAF.where(leaves.c.index > last).order_by(leaves.c.index).limit(PAGE)):
            yield page
            last = page[-1].place

    def _read(self, wanted: sa.Select[Any]) -> list[Any]:
        with self._database.reading() as connection:
            return list(connection.execute(wanted))

    def _unpacked(self, row: Any) -> bytes | None:
        """Give a leaf's body, None where nothing can be got from what is stored."""
        with self._database.reading() as connection, suppress(LedgerError):
            return self._packing.unpack(connection, row.body)
        return None

    def _leaf(self, row: Any, stored: dict[int, bytes]) -> Iterator[Fault]:
        if row.place != self._size:
            yield Fault("leaves", row.id, f"leaf {row.place} stands where leaf {self._size} should")
        body = self._unpacked(row)
        yield from self._body(row, body)
        if row.seq != self._seq.get(row.tenant, 0) + 1:
            yield Fault("leaves", row.id, f"number {row.seq} of its tenant is out of its order")
        self._seq[row.tenant] = row.seq
        grown = tlog.grow(self._size, tlog.leaf_hash(body or b""), lambda at: self._edge.get(at, b""))
        for place, value in grown:
            self._hashes += 1
            if stored.get(rows.number(place)) != value:
                yield Fault("ledger_hashes", str(rows.number(place)), f"subtree {place} is not what its leaves give")
            self._edge.pop((place[0], place[1] - 1), None)
        self._edge[grown[-1][0]] = grown[-1][1]
        self._size += 1

    def _body(self, row: Any, body: bytes | None) -> Iterator[Fault]:
        if body is None:
            yield Fault("leaves", row.id, "its body cannot be read")
            return
        try:
            said = msgspec.json.decode(body)
            if any(said[name] != getattr(row, name) for name in COLUMNS):
                yield Fault("leaves", row.id, "its columns are not what its body says")
            name = notes.Signature.parse(row.signature).name
            if not notes.signers(body.decode() + "\n", [row.signature], [self._signers(name)]):
                yield Fault("leaves", row.id, "this log did not sign it")
        except (DomicileError, msgspec.DecodeError, ValueError, KeyError, TypeError) as error:
            yield Fault("leaves", row.id, f"its body or signature does not hold ({error})")

    def _stored(self, more: int) -> dict[int, bytes]:
        """Read the hashes that the next leaves complete."""
        places = [
            place
            for at in range(self._size, self._size + more)
            for place, _ in tlog.grow(at, b"", lambda _: b"")
        ]  # fmt: skip
        numbers = [rows.number(place) for place in places]
        return {row.place: row.hash for row in self._read(sa.select(hashes).where(hashes.c.place.in_(numbers)))}

    def _waiting(self) -> Iterator[Fault]:
        for row in self._read(_LEAF.where(leaves.c.index.is_(None)).order_by(leaves.c.tenant, leaves.c.seq)):
            yield from self._body(row, self._unpacked(row))
            if row.seq != self._seq.get(row.tenant, 0) + 1:
                yield Fault("leaves", row.id, f"number {row.seq} of its tenant is out of its order")
            self._seq[row.tenant] = row.seq

    # --- checkpoints and ends ---

    def _points(self) -> list[tuple[int, bytes, Fault | None]]:
        """Read every checkpoint: size, root, and what is wrong with its row."""
        found = self._read(sa.select(checkpoints).order_by(checkpoints.c.size))
        return [(row.size, row.root, self._point(row)) for row in found]

    def _point(self, row: Any) -> Fault | None:
        try:
            text, lines = notes.split(row.note)
            point = tlog.Checkpoint.parse(text)
            signed = notes.signers(text, lines, [self._signers(point.origin)])
        except DomicileError as error:
            return Fault("checkpoints", str(row.size), str(error))
        if not signed or (point.size, point.root) != (row.size, row.root):
            return Fault("checkpoints", str(row.size), "its columns are not what the log signed")
        return None

    def _check_root(self, marks: dict[int, bytes]) -> Iterator[Fault]:
        wanted = marks.pop(self._size, None)
        if wanted is not None and tlog.span_hash((0, self._size), lambda at: self._edge.get(at, b"")) != wanted:
            yield Fault("checkpoints", str(self._size), "the leaves do not give the root that was signed")

    def _ends(self, points: list[tuple[int, bytes, Fault | None]]) -> Iterator[Fault]:
        held = {row.tenant: row.seq for row in self._read(sa.select(heads))}
        alone = sa.select(cosignatures.c.size).where(cosignatures.c.size.not_in(sa.select(checkpoints.c.size)))
        lost = [row.size for row in self._read(alone)]
        if held.pop(rows.TREE, 0) != self._size or (points[-1][0] if points else 0) != self._size:
            yield Fault("ledger_heads", "(tree)", f"{self._size} leaves are placed, but not all are signed")
        for tenant in sorted(held.keys() | self._seq.keys()):
            if held.get(tenant, 0) != self._seq.get(tenant, 0):
                text = f"the last number given is {held.get(tenant, 0)}, the last found {self._seq.get(tenant, 0)}"
                yield Fault("ledger_heads", tenant, text)
        if self._count(hashes) != self._hashes:
            yield Fault("ledger_hashes", "-", f"{self._hashes} belong to the tree, {self._count(hashes)} are stored")
        yield from (Fault("cosignatures", str(size), "its checkpoint is gone") for size in lost)

    def _count(self, table: sa.Table) -> int:
        return int(self._read(sa.select(sa.func.count().label("rows")).select_from(table))[0].rows)
