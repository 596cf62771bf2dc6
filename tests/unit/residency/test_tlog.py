"""The tree against a naive oracle, the texts against their specifications."""

import base64
import hashlib
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from residency import notes, tlog
from residency.errors import LedgerError

SIZES = 130


def data(index):
    return f"leaf {index}".encode()


def naive_root(leaves):
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


@pytest.fixture(scope="module")
def tree():
    """All hashes of a tree grown leaf by leaf, and the naive root of every size."""
    hashes, roots = {}, [naive_root([])]
    for index in range(SIZES):
        for place, value in tlog.grow(index, tlog.leaf_hash(data(index)), hashes.__getitem__):
            assert place not in hashes
            hashes[place] = value
        roots.append(naive_root([data(i) for i in range(index + 1)]))
    return hashes, roots


def path(hashes, spans):
    return [tlog.span_hash(span, hashes.__getitem__) for span in spans]


def test_every_root_up_to_130_leaves_is_that_of_the_rfc(tree):
    hashes, roots = tree
    for size in range(SIZES + 1):
        assert tlog.span_hash((0, size), hashes.__getitem__) == roots[size]


def test_every_leaf_of_every_size_is_proved_and_no_other_leaf_is(tree):
    hashes, roots = tree
    for size in range(1, SIZES + 1):
        for index in range(size):
            proof = path(hashes, tlog.inclusion_spans(index, size))
            leaf = tlog.leaf_hash(data(index))
            assert tlog.included(leaf, index, size, proof, roots[size])
            assert not tlog.included(tlog.leaf_hash(b"another"), index, size, proof, roots[size])
            assert not tlog.included(leaf, index, size, [*proof, leaf], roots[size])
            assert not proof or not tlog.included(leaf, index, size, proof[:-1], roots[size])
            assert size == 1 or not tlog.included(leaf, (index + 1) % size, size, proof, roots[size])


def test_every_pair_of_sizes_is_proved_consistent_and_a_changed_past_is_not(tree):
    hashes, roots = tree
    other = hashlib.sha256(b"changed").digest()
    for new in range(SIZES + 1):
        for old in range(new + 1):
            proof = path(hashes, tlog.consistency_spans(old, new))
            assert tlog.consistent(old, new, roots[old], roots[new], proof)
            assert not tlog.consistent(old, new, other, roots[new], proof)
            assert old == 0 or not tlog.consistent(old, new, roots[old], other, proof)
            assert not tlog.consistent(old, new, roots[old], roots[new], [*proof, other])
            assert not proof or not tlog.consistent(old, new, roots[old], roots[new], proof[:-1])


def test_a_tree_does_not_shrink_and_has_no_leaf_beyond_its_end(tree):
    assert not tlog.consistent(3, 2, b"", b"", [])
    assert not tlog.included(b"", 2, 2, [], b"")
    with pytest.raises(LedgerError):
        tlog.consistency_spans(3, 2)
    with pytest.raises(LedgerError):
        tlog.inclusion_spans(2, 2)


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=60), st.data())
@settings(max_examples=60, deadline=None)
def test_any_leaves_are_proved_and_any_changed_hash_is_found(leaves, draw):
    hashes = {}
    for index, leaf in enumerate(leaves):
        hashes.update(dict(tlog.grow(index, tlog.leaf_hash(leaf), hashes.__getitem__)))
    index = draw.draw(st.integers(0, len(leaves) - 1))
    proof = path(hashes, tlog.inclusion_spans(index, len(leaves)))
    root, leaf = naive_root(leaves), tlog.leaf_hash(leaves[index])
    assert tlog.included(leaf, index, len(leaves), proof, root)
    if proof:
        at = draw.draw(st.integers(0, len(proof) - 1))
        changed = [*proof]
        changed[at] = bytes([changed[at][0] ^ 1]) + changed[at][1:]
        assert not tlog.included(leaf, index, len(leaves), changed, root)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 100, 200_000])
def test_a_proof_needs_few_rows_whatever_the_size(size):
    spans = tlog.inclusion_spans(size // 2, size)
    assert len([place for span in spans for place in tlog.places(span)]) <= 2 * size.bit_length()


# --- texts ----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_has_exactly_one_spelling():
    point = tlog.Checkpoint("example.com/ledger/1", 7, hashlib.sha256(b"").digest())
    assert tlog.Checkpoint.parse(point.text) == point
    for wrong in (
        point.text.replace("\n7\n", "\n07\n"),
        point.text.replace("\n7\n", "\n+7\n"),
        point.text + "extension\n",
        point.text[:-1],
        point.text.replace("=\n", "\n"),
        "\n" + point.text,
        point.text.replace("\n7\n", "\n٧\n"),
    ):
        with pytest.raises(LedgerError):
            tlog.Checkpoint.parse(wrong)


def test_a_proof_file_reads_back_and_refuses_any_other_form():
    proof = tlog.Proof(5, (b"\x01" * 32, b"\x02" * 32), "origin\n6\nroot\n\nsignatures\n")
    assert proof.text.startswith("c2sp.org/tlog-proof@v1\nindex 5\n")
    assert tlog.Proof.parse(proof.text) == proof
    alone = tlog.Proof(0, (), "checkpoint\n")
    assert tlog.Proof.parse(alone.text) == alone
    for wrong in ("", "index 5\n\nx", proof.text.replace("@v1", "@v2"), proof.text.replace("index 5", "index 05")):
        with pytest.raises(LedgerError):
            tlog.Proof.parse(wrong)


def test_the_known_answer_of_the_signed_note_specification():
    # c2sp.org/signed-note, section "Verifier keys", example
    vkey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
    signature = "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM="
    line = f"\u2014 example.com/foo {signature}"
    key = notes.Verifier.parse(vkey)
    assert key.vkey == vkey
    assert notes.split(f"This is an example message.\n\n{line}\n") == ("This is an example message.\n", [line])
    assert notes.signers("This is an example message.\n", [line], [key]) == [key]
    with pytest.raises(LedgerError, match="bad signature"):
        notes.signers("This is another message.\n", [line], [key])


def key(seed):
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


def public(seed, name, kind=notes.LOG):
    return notes.Verifier(name, key(seed).public_key().public_bytes_raw(), kind)


def test_a_log_signs_and_a_witness_cosigns_the_same_text():
    text = tlog.Checkpoint("log.example/1", 3, b"r" * 32).text
    lines = [notes.sign(text, "log.example/1", key(1)), notes.cosign(text, "w.example", key(2), 1_700_000_000)]
    log, witness = public(1, "log.example/1"), public(2, "w.example", notes.WITNESS)
    note = text + "\n" + "\n".join(lines) + "\n"
    assert notes.split(note) == (text, lines)
    assert notes.signers(text, lines, [log, witness]) == [log, witness]
    packed = base64.b64decode(lines[1].split(" ")[2])
    assert struct.unpack(">Q", packed[4:12])[0] == 1_700_000_000
    with pytest.raises(LedgerError, match="bad signature"):
        notes.signers(text.replace("\n3\n", "\n4\n"), lines[1:], [witness])


def test_unknown_signers_are_passed_over_and_a_false_known_one_condemns_the_note():
    text = "text\n"
    line = notes.sign(text, "log.example/1", key(1))
    assert notes.signers(text, [line], [public(3, "log.example/1")]) == []
    assert notes.signers(text, [line], [public(1, "other.example")]) == []
    packed = bytearray(base64.b64decode(line.split(" ")[2]))
    packed[-1] ^= 1
    with pytest.raises(LedgerError):
        notes.signers(text, [line.rsplit(" ", 1)[0] + " " + tlog.encode(packed)], [public(1, "log.example/1")])


def test_a_line_that_is_no_signature_and_a_text_that_is_no_note_are_refused():
    for line in ("- name AAAAAAA=", "\u2014 name", "\u2014 na+me AAAAAAA=", "\u2014 name AAAA", "\u2014 name AAAAAAB="):
        with pytest.raises(LedgerError):
            notes.signers("text\n", [line], [])
    for text in ("no newline", "with\ttab\n"):
        with pytest.raises(LedgerError):
            notes.sign(text, "name", key(1))
    for note in ("text\n", "text\n\n\u2014 x y", "a\tb\n\n\u2014 x y\n"):
        with pytest.raises(LedgerError):
            notes.split(note)


def trust_text(quorum):
    witnesses = [
        f"witness {name} {public(no, f'{name}.example', notes.WITNESS).vkey}" for no, name in enumerate("abc", 2)
    ]
    return "\n".join(
        [
            "# whom we trust",
            f"log {public(1, 'log.example/1').vkey} https://log.example",
            *witnesses,
            "group two 2 a b c",
            f"quorum {quorum}",
            "",
        ]
    )


def test_a_quorum_counts_the_witnesses_that_cosigned():
    trust = notes.Trust.parse(trust_text("two"))
    a, b = trust.witnesses["a"], trust.witnesses["b"]
    assert trust.seen([]) == (0, 2)
    assert trust.seen([a]) == (1, 2)
    assert trust.seen([a, b]) == (2, 2)
    assert notes.Trust.parse(trust_text("none")).seen([]) == (0, 0)
    assert notes.Trust.parse(trust_text("c")).seen([a, b]) == (0, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.replace("quorum two", "quorum three"),
        lambda t: t.replace("quorum two", ""),
        lambda t: t + "quorum two\n",
        lambda t: t.replace("group two 2 a b c", "group two 4 a b c"),
        lambda t: t.replace("group two 2 a b c", "group two 0 a b c"),
        lambda t: t.replace("group two 2 a b c", "group two 1 a a"),
        lambda t: t.replace("group two 2 a b c", "group two 1 d"),
        lambda t: t.replace("witness b", "witness a"),
        lambda t: t.replace("witness a", "witness none"),
        lambda t: t.replace("log ", "log x"),
        lambda t: t.replace("# whom", "whom"),
        lambda t: t.replace("+", "+0", 1),
    ],
)
def test_a_trust_file_with_a_mistake_is_refused(change):
    with pytest.raises(LedgerError):
        notes.Trust.parse(change(trust_text("two")))
