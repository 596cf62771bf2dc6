"""Every single edit of the Ledger's rows is found by reading them again, every one of an exported file by `verify`."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from residency import leaves as rows
from residency import notes, receipt, tlog, verify
from residency.database import Database, metadata
from residency.errors import LedgerError
from residency.inspection import Inspection
from residency.ledger import Ledger
from residency.logkey import LogKey
from residency.packing import models
from residency.receipt import Draft
from residency.tag import Tag

ORIGIN = "domicile.example/ledger/1"
KEY = LogKey(Ed25519PrivateKey.from_private_bytes(b"k" * 32))
VKEY = notes.Verifier.parse(KEY.vkey(ORIGIN))
TAG = Tag(frozenset({"DE"}), frozenset({"EU"}))
START = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Book:
    """A Ledger of eleven placed leaves of two tenants in three checkpoints, and one that waits."""

    def __init__(self, folder):
        self.database = Database(f"sqlite:///{folder}/ledger.sqlite")
        metadata.create_all(self.database.engine)
        self.mirror = folder / "ledger.checkpoint"
        ticks = iter(range(10**6))
        self.ledger = Ledger(
            self.database,
            KEY,
            origin=ORIGIN,
            digests=lambda: {"policy": "sha256:aa", "zones": "sha256:bb", "fleet": "sha256:cc"},
            software="0.1.0",
            mirror=self.mirror,
            clock=lambda: START + timedelta(seconds=next(ticks)),
        )
        for count in (4, 3, 4):
            for n in range(count):
                self.add(("northwind", "harbour")[n % 2], n)
            self.ledger.sequence()
        self.add("northwind", 9)

    def add(self, tenant, n):
        commits = {"question": b"a question", "documents": [bytes([n]) * 16]}
        return self.ledger.append(Draft("answer", tenant, "support", (TAG,), commits=commits))

    def faults(self, *, mirror=True):
        run = Inspection(self.database, lambda name: VKEY, mirror=self.mirror if mirror else None)
        return list(run.run())

    def do(self, *statements):
        with self.database.transaction() as connection:
            for statement in statements:
                connection.execute(statement)

    def all(self, table):
        with self.database.reading() as connection:
            return [row._mapping for row in connection.execute(sa.select(table))]


@pytest.fixture
def book(tmp_path):
    made = Book(tmp_path)
    yield made
    made.database.close()


def keyed(table, row):
    return sa.and_(*(column == row[column.name] for column in table.primary_key))


def edits(value):
    """Other values of the same kind: every bit of bytes and of texts, neighbours of numbers, nothing."""
    match value:
        case bytes():
            for bit in range(len(value) * 8):
                yield value[: bit // 8] + bytes([value[bit // 8] ^ 1 << bit % 8]) + value[bit // 8 + 1 :]
            yield value[:-1]
            yield value + b"\x00"
        case str():
            for at in range(len(value)):
                yield value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
            yield value[:-1]
        case int():
            yield from (value + 100, -value - 1)
        case None:
            yield 99


def test_an_untouched_ledger_has_no_fault(book):
    assert book.faults() == []
    assert {"leaves", "ledger_hashes", "checkpoints", "ledger_heads"} <= set(metadata.tables)


@pytest.mark.parametrize("name", ["id", "tenant", "seq", "index", "kind", "time", "signature"])
def test_every_edit_of_a_leafs_columns_is_found(book, name):
    made = 0
    for row in book.all(rows.leaves):
        for other in edits(row[name]):
            try:
                book.do(rows.leaves.update().where(rows.leaves.c.id == row["id"]).values({name: other}))
            except sa.exc.IntegrityError:
                continue
            assert book.faults(), (name, row["id"], other)
            where = rows.leaves.c.id == (other if name == "id" else row["id"])
            book.do(rows.leaves.update().where(where).values({name: row[name]}))
            made += 1
            if name in {"id", "signature", "time"} and made % 7 == 0:
                break  # all letters of some rows, some letters of all rows
    assert made >= 12 and book.faults() == []


def test_every_flipped_bit_of_a_body_is_found(book):
    by_id = {row["id"]: row for row in book.all(rows.leaves)}
    packed = [row for row in by_id.values() if row["body"][:1] == b"\x02"]

    def unpacked(stored):
        with book.database.reading() as connection, suppress(LedgerError):
            return book.ledger._packing.unpack(connection, stored)
        return None

    assert packed, "some leaves are packed"
    for row in (packed[0], packed[-1]):
        for number, other in enumerate(edits(row["body"])):
            if number % 17:
                continue  # every seventeenth bit, over the whole length
            if unpacked(other) == unpacked(row["body"]):
                continue  # the bits that fill up the last byte carry nothing
            book.do(rows.leaves.update().where(rows.leaves.c.id == row["id"]).values(body=other))
            assert book.faults(), number
        book.do(rows.leaves.update().where(rows.leaves.c.id == row["id"]).values(body=row["body"]))
    assert book.faults() == []


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        (rows.hashes, ["place", "hash"]),
        (rows.checkpoints, ["size", "root", "note"]),
        (rows.heads, ["seq"]),
        (models, ["body"]),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_every_edit_of_hashes_checkpoints_heads_and_models_is_found(book, table, columns):
    made = 0
    for row in book.all(table):
        for name in columns:
            for number, other in enumerate(edits(row[name])):
                if number % 29:
                    continue
                if table is models and not _matters(book, row, other):
                    continue
                changed = {**row, name: other}
                try:
                    book.do(table.update().where(keyed(table, row)).values({name: other}))
                except sa.exc.IntegrityError:
                    continue
                assert book.faults(), (table.name, name, number)
                book.do(table.update().where(keyed(table, changed)).values({name: row[name]}))
                made += 1
    assert made and book.faults() == []


def _matters(book, row, body):
    """Say whether any leaf unpacks differently: bytes of a model that no leaf refers to carry nothing."""
    from residency.packing import Packing

    def unpacked(model):
        packing = Packing()
        packing._models[row["number"]] = model
        found = []
        for leaf in book.all(rows.leaves):
            if leaf["body"][:1] == b"\x02" and int.from_bytes(leaf["body"][1:9], "big") == row["number"]:
                try:
                    found.append(packing.unpack(None, leaf["body"]))
                except LedgerError:
                    found.append(None)
        return found

    return unpacked(row["body"]) != unpacked(body)


@pytest.mark.parametrize("table", [rows.leaves, rows.hashes, rows.heads], ids=lambda table: table.name)
def test_every_dropped_row_is_found(book, table):
    for row in book.all(table):
        book.do(table.delete().where(keyed(table, row)))
        assert book.faults(), dict(row)
        book.do(table.insert().values(dict(row)))
    assert book.faults() == []


def test_a_dropped_newest_checkpoint_is_found(book):
    newest = max(book.all(rows.checkpoints), key=lambda row: row["size"])
    book.do(rows.checkpoints.delete().where(rows.checkpoints.c.size == newest["size"]))
    assert book.faults()


def test_every_two_leaves_that_change_places_are_found(book):
    placed = [row for row in book.all(rows.leaves) if row["index"] is not None]
    leaf = rows.leaves

    def swap(one, two, name):
        put = leaf.update()
        book.do(
            put.where(leaf.c.id == one["id"]).values({name: -5}),
            put.where(leaf.c.id == two["id"]).values({name: one[name]}),
            put.where(leaf.c.id == one["id"]).values({name: two[name]}),
        )

    for at, one in enumerate(placed):
        for two in placed[at + 1 :]:
            swap(one, two, "index")
            assert book.faults()
            swap({**one, "index": two["index"]}, {**two, "index": one["index"]}, "index")
    mine = [row for row in placed if row["tenant"] == "northwind"]
    swap(mine[0], mine[1], "seq")
    assert book.faults()
    swap({**mine[0], "seq": mine[1]["seq"]}, {**mine[1], "seq": mine[0]["seq"]}, "seq")
    assert book.faults() == []


def test_a_row_that_was_added_is_found(book):
    row = book.all(rows.leaves)[0]
    book.do(rows.leaves.insert().values(dict(row) | {"id": receipt.new_id(), "seq": 99, "index": 11}))
    assert book.faults()
    book.do(rows.leaves.delete().where(rows.leaves.c.seq == 99))
    book.do(rows.hashes.insert().values(place=10**6, hash=b"x" * 32))
    assert book.faults()


def test_a_fork_grown_from_an_older_copy_is_found_by_the_kept_checkpoint(book, tmp_path):
    """The operator's own key signs a different past: rows agree with each other, the mirror does not with them."""
    (tmp_path / "fork").mkdir()
    fork = Book(tmp_path / "fork")
    try:
        assert fork.faults() == []
        fork.mirror = book.mirror  # what was kept before
        assert [fault.table for fault in fork.faults()] == ["checkpoints"]
        assert fork.faults(mirror=False) == []  # without a memory outside nobody could tell
    finally:
        fork.database.close()


def test_a_tail_that_was_cut_off_is_found_by_the_kept_checkpoint(book):
    book.do(
        rows.leaves.delete().where(sa.or_(rows.leaves.c.index >= 7, rows.leaves.c.index.is_(None))),
        rows.checkpoints.delete().where(rows.checkpoints.c.size > 7),
        rows.hashes.delete().where(rows.hashes.c.place.not_in(_places(7))),
        rows.heads.update().where(rows.heads.c.tenant == "").values(seq=7),
        rows.heads.update().where(rows.heads.c.tenant == "northwind").values(seq=4),
        rows.heads.update().where(rows.heads.c.tenant == "harbour").values(seq=3),
    )
    assert book.faults(mirror=False) == []
    assert book.faults()
    with pytest.raises(LedgerError, match="contradicts"):
        book.ledger.check()


def _places(size):
    return [rows.number(place) for at in range(size) for place, _ in tlog.grow(at, b"", lambda _: b"")]


# --- what was exported ----------------------------------------------------------------------------------------------


def test_every_flipped_bit_of_a_receipt_of_the_ledger_is_never_good(book):
    entry = next(book.ledger.entries("northwind", START, START + timedelta(days=1)))
    data = receipt.canonical(book.ledger.bundle("northwind", entry["id"]))
    trust = book.ledger.trust.encode()
    assert verify.verify({"r.json": data, "t.txt": trust}).code == 0
    for bit in range(0, len(data) * 8, 3):
        flipped = data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
        assert verify.verify({"r.json": flipped, "t.txt": trust}).code != 0, bit


def test_a_destroyed_commitment_key_unlinks_a_record_and_leaves_the_tree_intact(book):
    entry = next(book.ledger.entries("northwind", START, START + timedelta(days=1)))
    before = book.ledger.checkpoint()
    r = book.ledger.opening("northwind", entry["id"])
    recorded = entry["commits"]["question"]
    assert receipt.commitment(r, "question", b"a question") == recorded
    # 1. The key is destroyed, and the rows that name the document.
    assert book.ledger.destroy("northwind", entry["id"])
    assert book.ledger.forget("northwind", (b"\x00" * 16).hex()) > 0
    assert book.ledger.opening("northwind", entry["id"]) is None
    # 2. Nothing stored gives the commitment again: not the question's own text under any key that is left.
    held = [row["r"] for row in book.all(rows.openings)]
    assert all(receipt.commitment(each, "question", b"a question") != recorded for each in held)
    # 3. The tree, its checkpoint and the Receipt's proof are what they were.
    assert book.faults() == [] and book.ledger.checkpoint() == before
    bundle = book.ledger.bundle("northwind", entry["id"])
    assert verify.verify({"r.json": json.dumps(bundle).encode(), "t.txt": book.ledger.trust.encode()}).code == 0
