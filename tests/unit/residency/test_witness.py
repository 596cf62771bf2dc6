"""A witness cosigns what continues its memory, remembers before it signs, and keeps what contradicts it."""

import multiprocessing
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from residency import notes, tiles, tlog
from residency.errors import LeafError, LedgerError
from residency.witness import Witness

ORIGIN = "domicile.example/ledger/1"
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
LOG = notes.Verifier(ORIGIN, KEY.public_key().public_bytes_raw())
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Tree:
    """A log in memory."""

    def __init__(self, seed=b""):
        self.hashes, self.size, self.seed = {}, 0, seed

    def grow(self, to):
        for at in range(self.size, to):
            leaf = tlog.leaf_hash(self.seed + bytes([at % 256]))
            self.hashes.update(dict(tlog.grow(at, leaf, self.hashes.__getitem__)))
        self.size = max(self.size, to)
        return self

    def note(self, size):
        text = tlog.Checkpoint(ORIGIN, size, tlog.span_hash((0, size), self.hashes.__getitem__)).text
        return f"{text}\n{notes.sign(text, ORIGIN, KEY)}\n"

    def proof(self, old, new):
        return [tlog.span_hash(span, self.hashes.__getitem__) for span in tlog.consistency_spans(old, new)]


@pytest.fixture
def witness(tmp_path):
    return Witness(tmp_path / "witness", "witness.example")


@pytest.fixture
def tree():
    return Tree().grow(40)


def test_what_continues_the_memory_is_cosigned_and_remembered(witness, tree):
    key = notes.Verifier.parse(witness.vkey)
    for old, new in ((0, 0), (0, 1), (1, 7), (7, 7), (7, 8), (8, 40)):
        note = witness.cosign(tree.note(new), LOG, old, tree.proof(old, new), now=NOW)
        assert notes.signers(*notes.split(note), [LOG, key]) == [LOG, key]
        assert witness.seen(ORIGIN).size == new
    again = Witness(witness.folder, "witness.example")
    assert (again.vkey, again.seen(ORIGIN)) == (witness.vkey, witness.seen(ORIGIN))
    assert witness.seen("elsewhere.example/ledger/1").size == 0


def test_a_log_that_was_set_back_is_refused_and_kept_as_evidence(witness, tree):
    witness.cosign(tree.note(7), LOG, 0, [])
    with pytest.raises(LedgerError, match="set back"):
        witness.cosign(tree.note(5), LOG, 7, [])
    assert witness.seen(ORIGIN).size == 7
    assert [path.read_text() for path in witness.folder.glob("contradiction-*")] == [tree.note(5)]


@pytest.mark.parametrize("size", [7, 12])
def test_a_fork_is_refused_whatever_proof_comes_with_it(witness, tree, size):
    other = Tree(b"another past").grow(40)
    witness.cosign(tree.note(7), LOG, 0, [])
    for proof in (other.proof(7, size), tree.proof(7, size), []):
        with pytest.raises(LedgerError, match="does not continue"):
            witness.cosign(other.note(size), LOG, 7, proof)
    assert witness.seen(ORIGIN).size == 7
    assert list(witness.folder.glob("contradiction-*"))


def test_every_changed_byte_of_a_proof_is_refused(witness, tree):
    witness.cosign(tree.note(7), LOG, 0, [])
    proof = tree.proof(7, 40)
    for at in range(len(proof)):
        for byte in range(32):
            changed = bytearray(proof[at])
            changed[byte] ^= 1
            with pytest.raises(LedgerError):
                witness.cosign(tree.note(40), LOG, 7, [*proof[:at], bytes(changed), *proof[at + 1 :]])
    assert witness.seen(ORIGIN).size == 7


def test_a_checkpoint_of_another_log_is_refused(witness, tree):
    stranger = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    text = notes.split(tree.note(7))[0]
    forged = f"{text}\n{notes.sign(text, ORIGIN, stranger)}\n"
    with pytest.raises(LedgerError, match="did not sign"):
        witness.cosign(forged, LOG, 0, [])
    other = tlog.Checkpoint("elsewhere.example/ledger/1", 1, b"r" * 32).text
    with pytest.raises(LedgerError, match="did not sign"):
        witness.cosign(f"{other}\n{notes.sign(other, ORIGIN, KEY)}\n", LOG, 0, [])


def test_a_run_that_was_overtaken_is_refused(witness, tree):
    witness.cosign(tree.note(9), LOG, 0, [])
    with pytest.raises(LedgerError, match="faster"):
        witness.cosign(tree.note(7), LOG, 0, [])


def _race(folder, size, queue):
    tree = Tree().grow(size)
    try:
        Witness(folder, "witness.example").cosign(tree.note(size), LOG, 3, tree.proof(3, size))
        queue.put(size)
    except LedgerError:
        queue.put(0)


def test_of_many_runs_at_once_one_wins_and_the_memory_is_the_winners(witness, tree):
    witness.cosign(tree.note(3), LOG, 0, [])
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    runs = [context.Process(target=_race, args=(witness.folder, size, queue)) for size in (10, 20, 30, 40)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    won = [size for _ in runs if (size := queue.get())]
    assert won == [witness.seen(ORIGIN).size]


def test_the_memory_is_on_disk_before_the_signature_is_made(witness, tree, monkeypatch):
    monkeypatch.setattr("residency.witness.notes.cosign", lambda *_: (_ for _ in ()).throw(RuntimeError))
    with pytest.raises(RuntimeError):
        witness.cosign(tree.note(7), LOG, 0, [])
    assert witness.seen(ORIGIN).size == 7


def test_a_damaged_memory_is_not_begun_anew(witness, tree):
    witness.cosign(tree.note(7), LOG, 0, [])
    (memory,) = witness.folder.glob("seen-*.json")
    memory.write_text("{")
    with pytest.raises(LedgerError, match="damaged"):
        witness.cosign(tree.note(8), LOG, 7, tree.proof(7, 8))


@pytest.mark.parametrize(
    ("place", "found"),
    [("000", (0, 256)), ("x001/234", (1234, 256)), ("x001/x234/067.p/5", (1_234_067, 5)), ("007.p/255", (7, 255))],
)
def test_tiles_are_named_as_the_specification_names_them(place, found):
    assert tiles.parse(place) == found
    assert tiles.path(*found) == place


@pytest.mark.parametrize("place", ["", "1", "0001", "x000/001", "001.p/0", "001.p/256", "001.p/05", "x001", "../1"])
def test_another_spelling_of_a_tile_is_refused(place):
    with pytest.raises(LeafError):
        tiles.parse(place)
