"""The Ledger on both databases: gapless numbers, durable before served, provable for ever."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from residency import leaves as rows
from residency import notes, receipt, tlog
from residency.database import Database, metadata
from residency.errors import LedgerError
from residency.ledger import Ledger
from residency.logkey import LogKey
from residency.receipt import Draft
from residency.tag import Tag

ORIGIN = "domicile.example/ledger/1"
DIGESTS = {"policy": "sha256:aa", "zones": "sha256:bb", "fleet": "sha256:cc"}
TAG = Tag(frozenset({"DE"}), frozenset({"EU"}))
START = datetime(2026, 11, 23, 12, tzinfo=UTC)
ALWAYS = (START - timedelta(days=1), START + timedelta(days=900))


class Clock:
    """A clock that goes on by one second at each look."""

    def __init__(self):
        self.now = START

    def __call__(self):
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/ledger.sqlite"
    else:
        url = request.getfixturevalue("postgres_url")
    found = Database(url)
    metadata.create_all(found.engine)
    yield found
    found.close()


def opened(database, key=None, **more):
    facts = {"origin": ORIGIN, "digests": lambda: DIGESTS, "software": "0.1.0", "clock": Clock()}
    return Ledger(database, key or LogKey.generate(), **(facts | more))


def draft(tenant="northwind", kind="answer", **more):
    facts = {"tags": (TAG,), "commits": {"question": b"a question", "documents": [b"d" * 16]}}
    return Draft(kind, tenant, "support", **(facts | more))


def proved(ledger, body, proof):
    """Check a proof as an outsider would; gives the checkpoint."""
    found = tlog.Proof.parse(proof)
    text, lines = notes.split(found.checkpoint)
    key = notes.Verifier.parse(ledger.vkey)
    assert notes.signers(text, lines, [key]) == [key]
    point = tlog.Checkpoint.parse(text)
    assert tlog.included(tlog.leaf_hash(body), found.index, point.size, found.hashes, point.root)
    return point


def test_each_tenant_counts_for_itself_without_gaps(database):
    ledger = opened(database)
    for tenant in ("northwind", "harbour", "northwind", "harbour", "northwind"):
        ledger.append(draft(tenant))
    assert [e["seq"] for e in ledger.entries("northwind", *ALWAYS)] == [1, 2, 3]
    assert [e["seq"] for e in ledger.entries("harbour", *ALWAYS)] == [1, 2]
    assert list(ledger.entries("nobody", *ALWAYS)) == []


def test_a_transaction_that_fails_takes_its_number_back(database):
    ledger = opened(database)
    ledger.append(draft())
    with pytest.raises(RuntimeError), database.transaction() as connection:
        assert ledger.append(draft(), connection).seq == 2
        raise RuntimeError
    assert ledger.append(draft()).seq == 2
    with database.reading() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(rows.openings)).scalar() == 2


def test_many_writers_at_once_leave_no_gap(database):
    ledger = opened(database)
    failures = []

    def write():
        try:
            for _ in range(10):
                ledger.append(draft())
                ledger.sequence()
        except LedgerError as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    entries = list(ledger.entries("northwind", *ALWAYS))
    assert [e["seq"] for e in entries] == list(range(1, 41))
    assert ledger.sequence() == 40
    indexes = set()
    for entry in entries:
        bundle = ledger.bundle("northwind", entry["id"])
        assert proved(ledger, receipt.canonical(bundle["receipt"]), bundle["proof"]).size == 40
        indexes.add(tlog.Proof.parse(bundle["proof"]).index)
    assert indexes == set(range(40))


def test_every_leaf_is_provable_at_every_size(database):
    ledger = opened(database)
    stored = []
    roots = []
    for size in range(1, 20):
        stored.append(ledger.append(draft(tenant=("northwind", "harbour")[size % 2])))
        point = proved(ledger, stored[-1].leaf, ledger.proof(size - 1))
        assert point.size == size
        roots.append(point.root)
    for index, entry in enumerate(stored):
        assert proved(ledger, entry.leaf, ledger.proof(index)).size == 19
    for old in range(1, 20):
        proof = [tlog.decode(line) for line in ledger.consistency(old, 19)]
        assert tlog.consistent(old, 19, roots[old - 1], roots[-1], proof)


def test_leaves_that_came_together_are_placed_together(database, monkeypatch):
    monkeypatch.setattr("residency.ledger.BATCH", 16)
    ledger = opened(database)
    stored = [ledger.append(draft()) for _ in range(50)]
    assert ledger.sequence() == 50
    assert proved(ledger, stored[33].leaf, ledger.proof(33)).size == 50
    with database.reading() as connection:
        sizes = connection.execute(sa.select(rows.checkpoints.c.size).order_by(rows.checkpoints.c.size)).scalars()
        assert list(sizes) == [16, 32, 48, 50]


def test_an_empty_ledger_has_a_checkpoint_of_size_nothing(database):
    ledger = opened(database)
    text, _ = notes.split(ledger.checkpoint())
    assert tlog.Checkpoint.parse(text) == tlog.Checkpoint(ORIGIN, 0, tlog.EMPTY_ROOT)
    with pytest.raises(LedgerError):
        ledger.proof(0)
    with pytest.raises(LedgerError):
        ledger.consistency(0, 1)


def test_a_tenant_sees_only_its_own_receipts(database):
    ledger = opened(database)
    stored = ledger.append(draft("northwind"))
    assert ledger.bundle("northwind", stored.id)["receipt"]["id"] == stored.id
    assert ledger.bundle("harbour", stored.id) is None
    assert ledger.opening("harbour", stored.id) is None
    assert ledger.touched("harbour", (b"d" * 16).hex()) == []
    assert not ledger.destroy("harbour", stored.id)


def test_a_commitment_opens_with_its_secret_until_that_is_destroyed(database):
    ledger = opened(database)
    stored = ledger.append(draft())
    r = ledger.opening("northwind", stored.id)
    recorded = ledger.bundle("northwind", stored.id)["receipt"]["commits"]["question"]
    assert receipt.commitment(r, "question", b"a question") == recorded
    assert receipt.commitment(r, "question", b"another") != recorded
    assert ledger.destroy("northwind", stored.id)
    assert ledger.opening("northwind", stored.id) is None
    assert not ledger.destroy("northwind", stored.id)


def test_two_receipts_of_one_question_share_no_commitment(database):
    ledger = opened(database)
    one, two = (ledger.append(draft()).id for _ in range(2))
    a, b = (ledger.bundle("northwind", i)["receipt"]["commits"] for i in (one, two))
    assert a["question"] != b["question"] and a["documents"] != b["documents"]


def test_a_document_is_forgotten_and_its_receipts_still_prove(database):
    ledger = opened(database)
    document = (b"d" * 16).hex()
    stored = ledger.append(draft())
    second = ledger.append(draft(commits={"documents": [document.encode(), b"e" * 16]}))
    assert ledger.touched("northwind", document) == [stored.id, second.id]
    assert ledger.forget("northwind", document) == 2
    assert ledger.touched("northwind", document) == []
    assert ledger.touched("northwind", (b"e" * 16).hex()) == [second.id]
    bundle = ledger.bundle("northwind", stored.id)
    proved(ledger, receipt.canonical(bundle["receipt"]), bundle["proof"])


def test_entries_are_chosen_by_time_and_kind(database, monkeypatch):
    monkeypatch.setattr("residency.ledger.PAGE", 3)
    ledger = opened(database)
    kinds = ["answer", "search", "ingest", "answer", "erase", "answer", "key"]
    for kind in kinds:
        ledger.append(draft(kind=kind))
    assert [e["kind"] for e in ledger.entries("northwind", *ALWAYS)] == kinds
    assert [e["seq"] for e in ledger.entries("northwind", *ALWAYS, kinds=("answer",))] == [1, 4, 6]
    first = next(ledger.entries("northwind", *ALWAYS))
    moment = datetime.fromisoformat(first["time"])
    assert len(list(ledger.entries("northwind", moment, moment))) == 0
    assert len(list(ledger.entries("northwind", moment, moment + timedelta(milliseconds=1)))) == 1


def test_the_checkpoints_of_a_period_are_found(database):
    ledger = opened(database)
    ledger.append(draft())
    ledger.checkpoint()
    middle = ledger._clock.now + timedelta(milliseconds=1)
    ledger.append(draft())
    ledger.checkpoint()
    first, last = ledger.span(middle, middle + timedelta(days=1))
    assert (first["size"], last["size"]) == (1, 2)
    assert ledger.span(START - timedelta(days=2), START - timedelta(days=1))[1] is None


@pytest.mark.parametrize("harm", ["remove", "change"])
def test_a_changed_past_is_never_signed(database, harm):
    ledger = opened(database)
    for _ in range(5):
        ledger.append(draft())
    ledger.sequence()
    with database.transaction() as connection:
        where = rows.hashes.c.place == rows.number((2, 0))
        connection.execute(
            rows.hashes.delete().where(where) if harm == "remove" else
            rows.hashes.update().where(where).values(hash=b"x" * 32)
        )  # fmt: skip
    ledger.append(draft())
    with pytest.raises(LedgerError):
        ledger.sequence()


def test_a_database_set_back_is_noticed_by_the_kept_checkpoint(database, tmp_path):
    mirror = tmp_path / "keys" / "ledger.checkpoint"
    ledger = opened(database, mirror=mirror)
    for _ in range(3):
        ledger.append(draft())
        ledger.sequence()
    assert mirror.read_text() == ledger.checkpoint()
    with database.transaction() as connection:  # as a restore of an older copy would leave it
        connection.execute(rows.leaves.delete().where(rows.leaves.c.index >= 1))
        connection.execute(rows.hashes.delete().where(rows.hashes.c.place != rows.number((0, 0))))
        connection.execute(rows.checkpoints.delete().where(rows.checkpoints.c.size > 1))
        connection.execute(rows.heads.update().values(seq=1))
    ledger.append(draft())
    with pytest.raises(LedgerError, match="contradicts"):
        ledger.sequence()
    assert opened(database, origin="domicile.example/ledger/2", mirror=mirror).sequence() == 2  # a new epoch


def test_a_ledger_that_cannot_write_says_so(database):
    ledger = opened(database)
    with database.transaction() as connection:
        connection.execute(sa.text("drop table leaves"))
    with pytest.raises(LedgerError, match="cannot be written"):
        ledger.append(draft())
    with pytest.raises(LedgerError, match="cannot be sequenced"):
        ledger.sequence()


async def test_record_gives_the_same_as_append(database):
    ledger = opened(database)
    stored = await ledger.record(draft())
    assert (stored.seq, len(stored.id)) == (1, 36)
    assert ledger.bundle("northwind", stored.id)["signatures"] == [stored.signature]


# --- the key on disk ------------------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_only_its_owner_may_read_it(tmp_path):
    path = tmp_path / "keys" / "ledger.key"
    made = LogKey.load_or_create(path)
    assert LogKey.load_or_create(path).vkey("x") == made.vkey("x")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["ledger.key"]
    path.chmod(0o644)
    with pytest.raises(LedgerError, match="others can read"):
        LogKey.load_or_create(path)


def test_a_damaged_key_file_is_not_replaced(tmp_path):
    path = tmp_path / "ledger.key"
    path.write_bytes(b"not a key")
    path.chmod(0o600)
    with pytest.raises(LedgerError, match="damaged"):
        LogKey.load_or_create(path)
    assert path.read_bytes() == b"not a key"
