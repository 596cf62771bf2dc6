"""The Ledger on both databases: gapless numbers, durable before served, provable for ever."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from residency import leaves as rows
from residency import logkey, notes, receipt, tlog
from residency.database import Database, metadata
from residency.errors import LeafError, LedgerError
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


@pytest.mark.parametrize("gone", [[1], [2], [2, 3]])
def test_removed_entries_stop_a_start_though_hashes_and_checkpoints_stand(database, gone):
    ledger = opened(database)
    for _ in range(3):
        ledger.append(draft())
    ledger.sequence()
    ledger.append(draft())  # one that waits for its place
    ledger.check()
    with database.transaction() as connection:
        connection.execute(rows.leaves.delete().where(rows.leaves.c.seq.in_(gone)))
    with pytest.raises(LedgerError, match=f"{len(gone)} of the ledger's entries were removed"):
        ledger.check()


def test_a_removed_entry_that_had_no_place_yet_stops_a_start(database):
    ledger = opened(database)
    ledger.append(draft())
    ledger.sequence()
    ledger.append(draft())
    with database.transaction() as connection:
        connection.execute(rows.leaves.delete().where(rows.leaves.c.seq == 2))
    with pytest.raises(LedgerError, match="1 of the ledger's entries"):
        ledger.check()


def test_a_database_set_back_is_noticed_by_the_kept_checkpoint(database, tmp_path):
    mirror = tmp_path / "keys" / "ledger.checkpoint"
    ledger = opened(database, mirror=mirror)
    for _ in range(3):
        ledger.append(draft())
        ledger.sequence()
    assert mirror.read_text() == ledger.checkpoint()
    with database.transaction() as connection:  # as a restore of an older copy would leave it
        connection.execute(rows.leaves.delete().where(rows.leaves.c.index >= 1))
        for table in (rows.openings, rows.touches):
            connection.execute(table.delete().where(table.c.seq > 1))
        connection.execute(rows.hashes.delete().where(rows.hashes.c.place != rows.number((0, 0))))
        connection.execute(rows.checkpoints.delete().where(rows.checkpoints.c.size > 1))
        connection.execute(rows.heads.update().values(seq=1))
    with pytest.raises(LedgerError, match="contradicts"):
        ledger.check()  # a start is refused
    ledger.append(draft())
    with pytest.raises(LedgerError, match="contradicts"):
        ledger.sequence()
    assert opened(database, origin="domicile.example/ledger/2", mirror=mirror).sequence() == 2  # a new epoch


def test_a_clock_set_back_is_refused_and_a_small_step_back_is_smoothed(database):
    ledger = opened(database)
    ledger.append(draft())
    newest = next(ledger.entries("northwind", *ALWAYS))["time"]
    ledger._clock.now = START - timedelta(seconds=30)
    assert ledger.append(draft()).seq == 2
    assert [entry["time"] for entry in ledger.entries("northwind", *ALWAYS)] == [newest, newest]
    ledger._clock.now = START - timedelta(hours=1)
    with pytest.raises(LedgerError, match="clock is behind"):
        ledger.append(draft())
    assert ledger.append(draft("harbour")).seq == 1  # another tenant's entries are no clock for this one
    ledger._clock.now = START + timedelta(seconds=9)
    assert ledger.append(draft()).seq == 3  # the refused entry took no number


def test_leaves_are_packed_and_come_back_byte_for_byte(database, monkeypatch):
    monkeypatch.setattr("residency.ledger.BATCH", 8)
    ledger = opened(database)
    stored = [ledger.append(draft(("northwind", "harbour")[n % 2], facts={"n": n})) for n in range(8)]
    ledger.sequence()
    stored += [ledger.append(draft(facts={"n": n})) for n in range(8, 16)]
    with database.reading() as connection:
        sizes = [len(body) for body in connection.execute(sa.select(rows.leaves.c.body)).scalars()]
    assert max(sizes[8:]) * 2 < len(stored[0].leaf)
    other = opened(database, ledger._key)  # another process, with nothing in memory
    for entry in stored:
        found = [bundle for tenant in ("northwind", "harbour") if (bundle := other.bundle(tenant, entry.id))]
        assert [receipt.canonical(bundle["receipt"]) for bundle in found] == [entry.leaf]


def test_a_model_is_shared_by_processes_and_survives_a_rollback_of_its_leaf(database):
    ledger = opened(database)
    for n in range(3):
        ledger.append(draft(facts={"n": n}))
    ledger.sequence()
    with pytest.raises(RuntimeError), database.transaction() as connection:
        ledger.append(draft(), connection)
        raise RuntimeError
    kept = ledger.append(draft())
    assert opened(database, ledger._key).bundle("northwind", kept.id)["receipt"]["seq"] == 4


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


def test_a_new_epoch_signs_at_once_and_its_name_vouches_for_older_receipts(database, tmp_path):
    key = LogKey.generate()
    ledger = opened(database, key)
    stored = ledger.append(draft())
    ledger.sequence()
    later = opened(database, key, origin="domicile.example/ledger/2")
    assert later.sequence() == 1
    assert tlog.Checkpoint.parse(notes.split(later.checkpoint())[0]).origin == "domicile.example/ledger/2"
    bundle = later.bundle("northwind", stored.id)
    assert proved(later, stored.leaf, bundle["proof"]).size == 1
    text = stored.leaf.decode() + "\n"
    for each in (ledger, later):
        key_ = notes.Verifier.parse(each.vkey)
        assert notes.signers(text, bundle["signatures"], [key_]) == [key_]
    assert logkey.epoch(tmp_path / "e") == 1
    assert [logkey.begin(tmp_path / "e"), logkey.epoch(tmp_path / "e")] == [2, 2]


# --- witnesses ------------------------------------------------------------------------------------------------------

WITNESS = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
KNOWN = notes.Verifier("witness.example", WITNESS.public_key().public_bytes_raw(), notes.WITNESS)


def cosigned(note, name="witness.example", key=WITNESS, time=1_700_000_000):
    text, _ = notes.split(note)
    return note + notes.cosign(text, name, key, time) + "\n"


def test_a_cosignature_is_kept_and_shown_under_checkpoints_and_proofs(database):
    ledger = opened(database, witnesses=lambda: [KNOWN])
    ledger.append(draft())
    assert ledger.cosign(cosigned(ledger.checkpoint())) == (1, ["witness.example"])
    assert ledger.cosign(cosigned(ledger.checkpoint(), time=1_700_000_001)) == (1, ["witness.example"])
    kept = ledger.checkpoint()
    assert notes.signers(*notes.split(kept), [KNOWN]) == [KNOWN] and len(notes.split(kept)[1]) == 2
    second = ledger.append(draft())
    found = tlog.Proof.parse(ledger.proof(0))
    assert notes.signers(*notes.split(found.checkpoint), [KNOWN]) == [KNOWN]  # the newest cosigned one that covers it
    assert proved(ledger, second.leaf, ledger.proof(1)).size == 2
    assert [row["size"] for row in ledger.cosigned()] == [1]
    assert f"witness {KNOWN.name} {KNOWN.vkey}" in ledger.trust
    assert notes.Trust.parse(ledger.trust).witnesses == {KNOWN.name: KNOWN}


def test_what_no_known_witness_signed_is_not_kept(database):
    ledger = opened(database, witnesses=lambda: [KNOWN])
    ledger.append(draft())
    note = ledger.checkpoint()
    stranger = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    with pytest.raises(LedgerError, match="no witness"):
        ledger.cosign(cosigned(note, "stranger.example", stranger))
    with pytest.raises(LedgerError, match="no witness"):
        ledger.cosign(note)
    forged = cosigned(note)[:-10] + "AAAAAAAA=\n"
    with pytest.raises(LedgerError):
        ledger.cosign(forged)
    other = tlog.Checkpoint(ORIGIN, 1, b"x" * 32).text
    with pytest.raises(LedgerError, match="no such checkpoint"):
        ledger.cosign(f"{other}\n{notes.cosign(other, 'witness.example', WITNESS, 1)}\n")
    assert ledger.checkpoint() == note


def test_tiles_hold_the_hashes_that_the_tree_is_made_of(database):
    ledger = opened(database)
    leaves = [tlog.leaf_hash(ledger.append(draft()).leaf) for _ in range(5)]
    tile = ledger.tile(0, 0, 5)
    assert [tile[at : at + 32] for at in range(0, 160, 32)] == leaves
    for level, index, width in ((0, 0, 6), (0, 1, 1), (1, 0, 1), (8, 0, 1), (0, 0, 0), (0, -1, 1)):
        with pytest.raises(LeafError):
            ledger.tile(level, index, width)
