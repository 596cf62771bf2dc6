"""An outsider with the files alone finds every change, and is told what could not be checked."""

import hashlib
import json
import zlib
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from residency import exhibits, notes, receipt, tlog, verify
from residency.fleet import Fleet
from residency.journal import Touch
from residency.receipt import Draft
from residency.route import Action
from residency.rulebook import digest
from residency.tag import Tag
from residency.zones import Zones

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ORIGIN = "domicile.example/ledger/1"
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
WITNESS = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
VKEY = notes.Verifier(ORIGIN, KEY.public_key().public_bytes_raw())
WITNESS_VKEY = notes.Verifier("witness.example", WITNESS.public_key().public_bytes_raw(), notes.WITNESS)
TRUST = f"log {VKEY.vkey}\nquorum none\n".encode()
ZONES_FILE = b"""
[[edge]]
zones = ["DE", "FR"]
within = "EU"
from = 1993-11-01
source = "a treaty"
[[edge]]
zone = "GB"
within = "EU"
from = 1993-11-01
until = 2020-01-31
source = "another treaty"
[[zone]]
codes = ["US"]
"""
ZONES = Zones.parse(ZONES_FILE, on=NOW)
FLEET_FILE = b"""
[[site]]
id = "de-one"
zone = "DE"
operator = { name = "Example Hosting", zone = "DE" }
evidence = [{ grade = 2, claim = "place", source = "contract", date = 2026-01-01 }]
[[site]]
id = "us-one"
zone = "US"
operator = { name = "Example Cloud", zone = "US" }
evidence = [{ grade = 1, claim = "place", source = "form", date = 2026-01-01 }]
[[site]]
id = "gb-one"
zone = "GB"
operator = { name = "Example Isles", zone = "GB" }
evidence = [{ grade = 1, claim = "place", source = "form", date = 2019-01-01 }]
"""
FLEET = Fleet.parse(FLEET_FILE.decode(), ZONES)
POLICY = {"a.cedar": b"permit (principal, action, resource);", "schema.cedarschema": b"namespace Domicile {}"}
DIGESTS = {"policy": digest(POLICY), "zones": ZONES.digest, "fleet": FLEET.digest}
TAG = Tag(frozenset({"DE"}), frozenset({"EU"}))
PLACES = {"zones.toml": ZONES_FILE, "fleet.toml": FLEET_FILE, **POLICY}


def made(*touched, kind="answer", time=NOW, digests=None, **more):
    """One receipt as the Ledger makes it; `touched` are (action, site)."""
    touches = [
        Touch(action, site, "shard", frozenset({TAG.digest.hex()}), ("permit-in-residency",), count=2)
        for action, site in touched or [(Action.SEARCH, "de-one")]
    ]
    draft = Draft(
        kind, "northwind", "support", (TAG,), receipt.steps(touches, FLEET, NOW), commits={"question": b"q"}, **more
    )
    return receipt.build(
        draft, seq=1, id=receipt.new_id(1.0), time=receipt.stamp(time), software="1",
        digests=digests or DIGESTS, r=b"r" * 32,
    )  # fmt: skip


def bundle(record, *, others=4, cosigned=False, proof=True):
    """A receipt file with its proof in a small tree."""
    body = receipt.leaf(record)
    leaves = [tlog.leaf_hash(bytes([n])) for n in range(others)]
    leaves.insert(2, tlog.leaf_hash(body))
    hashes = {}
    for index, leaf in enumerate(leaves):
        hashes.update(dict(tlog.grow(index, leaf, hashes.__getitem__)))
    text = tlog.Checkpoint(ORIGIN, len(leaves), tlog.span_hash((0, len(leaves)), hashes.__getitem__)).text
    lines = [notes.sign(text, ORIGIN, KEY)]
    if cosigned:
        lines.append(notes.cosign(text, "witness.example", WITNESS, 1_700_000_000))
    path = tuple(tlog.span_hash(span, hashes.__getitem__) for span in tlog.inclusion_spans(2, len(leaves)))
    found = tlog.Proof(2, path, text + "\n" + "\n".join(lines) + "\n").text
    signed = notes.sign(body.decode() + "\n", ORIGIN, KEY)
    whole = {"format": exhibits.RECEIPT, "receipt": record, "signatures": [signed], "proof": found if proof else None}
    return receipt.canonical(whole), found.encode()


def check(data, trust=TRUST, **files):
    return verify.verify({"receipt.json": data, "trust.txt": trust, **PLACES, **files})


def named(verdict, name):
    return [(c.state, c.text) for c in verdict.checks if c.name == name]


def test_an_honest_receipt_is_good_and_the_sentence_names_the_lowest_grade():
    verdict = check(bundle(made())[0])
    assert verdict.code == 0, verdict.lines
    assert "lowest evidence grade 2" in verdict.sentence and "places in DE" in verdict.sentence
    assert {c.name for c in verdict.checks} >= {
        "signature", "checkpoint", "witnesses", "inclusion", "policy", "zones", "fleet", "residency"
    }  # fmt: skip
    assert json.loads(json.dumps(verdict.facts()))["code"] == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(seq=2),
        lambda r: r["steps"][0].update(zone="FR"),
        lambda r: r["steps"].clear(),
        lambda r: r.update(tenant="harbour"),
        lambda r: r.update(extra=1),
        lambda r: r["commits"].update(question="00"),
    ],
)
def test_an_edited_record_has_a_bad_signature_and_a_bad_inclusion(change):
    whole = json.loads(bundle(made())[0])
    change(whole["receipt"])
    verdict = check(json.dumps(whole).encode())
    assert verdict.code == 1
    assert "bad signature" in named(verdict, "signature")[0][1] if named(verdict, "signature") else True
    assert any("bad" in c.text for c in verdict.checks if c.state == "false")


def test_an_edit_that_was_signed_again_still_has_a_bad_inclusion():
    whole = json.loads(bundle(made())[0])
    whole["receipt"]["withheld"] = 9
    body = receipt.leaf(whole["receipt"])
    whole["signatures"] = [notes.sign(body.decode() + "\n", ORIGIN, KEY)]
    verdict = check(json.dumps(whole).encode())
    assert verdict.code == 1
    assert named(verdict, "signature")[0][0] == "good"
    assert named(verdict, "inclusion")[0][1].startswith("bad inclusion")


DATA, PROOF = bundle(made())


def test_one_flipped_bit_anywhere_in_the_receipt_is_never_good():
    for bit in range(len(DATA) * 8):
        flipped = bytearray(DATA)
        flipped[bit // 8] ^= 1 << (bit % 8)
        assert check(bytes(flipped)).code != 0, (bit, DATA[bit // 8 - 10 : bit // 8 + 10])


def test_one_flipped_bit_in_a_separate_proof_is_never_good():
    pending, proof = bundle(made(), proof=False)
    assert check(pending, **{"r.tlog-proof": proof}).code == 0
    for at in range(len(proof)):
        flipped = bytearray(proof)
        flipped[at] ^= 1 << (at % 8)
        assert check(pending, **{"r.tlog-proof": bytes(flipped)}).code != 0, at


def test_a_receipt_without_a_proof_is_open():
    verdict = check(bundle(made(), proof=False)[0])
    assert verdict.code == 2
    assert named(verdict, "inclusion")[0][0] == "open"


def test_a_proof_of_something_else_is_a_bad_inclusion():
    pending, _ = bundle(made(), proof=False)
    _, foreign = bundle(made(kind="search"))
    assert check(pending, **{"x.tlog-proof": foreign}).code == 1


@pytest.mark.parametrize("missing", ["trust.txt", "zones.toml"])
def test_a_missing_file_leaves_the_verdict_open(missing):
    files = {"receipt.json": DATA, "trust.txt": TRUST, **PLACES}
    del files[missing]
    assert verify.verify(files).code == 2


def test_without_fleet_and_policy_the_receipt_is_good_and_the_digests_are_named():
    verdict = verify.verify({"receipt.json": DATA, "trust.txt": TRUST, "zones.toml": ZONES_FILE})
    assert verdict.code == 0
    assert DIGESTS["fleet"] in named(verdict, "fleet")[0][1]


@pytest.mark.parametrize("name", ["zones.toml", "fleet.toml", "a.cedar"])
def test_a_file_that_was_not_in_force_is_named(name):
    verdict = check(
        DATA,
        **{name: PLACES[name].replace(b"treaty", b"habit").replace(b"Hosting", b"Host").replace(b"permit", b"forbid")},
    )
    assert verdict.code == 1
    kind = {"zones.toml": "zones", "fleet.toml": "fleet", "a.cedar": "policy"}[name]
    assert named(verdict, kind) == [("false", "the file given is not the one that was in force")]


def test_a_step_outside_its_tags_residency_is_false_though_the_log_signed_it():
    verdict = check(bundle(made((Action.SEARCH, "de-one"), (Action.EMBED, "us-one")))[0])
    assert verdict.code == 1
    assert named(verdict, "residency") == [("false", "embed at us-one in US lies outside EU")]


def test_zones_are_read_as_they_stood_on_the_day_of_the_receipt():
    before = datetime(2020, 1, 31, 12, tzinfo=UTC)
    assert check(bundle(made((Action.SEARCH, "gb-one"), time=before))[0]).code == 0
    assert check(bundle(made((Action.SEARCH, "gb-one")))[0]).code == 1


def test_transfers_and_erasures_are_listed_apart_with_their_basis():
    facts = {"basis": {"article": "46(2)(c)", "instrument": "2021/914"}}
    verdict = check(bundle(made((Action.TRANSFER, "us-one"), kind="transfer", facts=facts))[0])
    assert verdict.code == 0
    assert named(verdict, "transfer") == [("note", "2 at us-one (US), on the basis of 46(2)(c) 2021/914")]
    assert check(bundle(made((Action.ERASE, "us-one"), kind="erase"))[0]).code == 0


def test_a_missing_witness_is_counted():
    trust = TRUST.replace(b"quorum none", f"witness w {WITNESS_VKEY.vkey}\nquorum w".encode())
    verdict = check(DATA, trust)
    assert verdict.code == 1 and named(verdict, "witnesses") == [("false", "quorum 0/1")]
    cosigned, _ = bundle(made(), cosigned=True)
    assert named(check(cosigned, trust), "witnesses") == [("good", "quorum 1/1")]
    assert check(cosigned, trust).code == 0


def test_a_stranger_log_is_not_believed():
    stranger = notes.Verifier(ORIGIN, WITNESS.public_key().public_bytes_raw())
    assert check(DATA, f"log {stranger.vkey}\nquorum none\n".encode()).code == 1
    assert check(DATA, stranger.vkey.encode()).code == 1
    assert check(DATA, VKEY.vkey.encode()).code == 0


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"{}", b"\x00", b"[1]", b'{"format":"domicile-receipt/v1"}', b"%PDF-1.7\n", b"{" * 100_000,
     b'{"format":"domicile-receipt/v1","receipt":[],"signatures":[],"proof":null}',
     b'{"format":"domicile-report/v1","report":{},"signatures":[],"receipt":null}',
     b'{"format":["x"]}', b'{"a":1,"a":2}', b'{"a":NaN}', "{\"format\":\"\ud800\"}".encode("utf-8", "surrogatepass")],
)  # fmt: skip
def test_what_is_no_receipt_is_never_good_and_never_an_exception(data):
    assert check(data).code != 0


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_no_bytes_are_good_and_none_raise(data):
    assert verify.verify({"f": data}).code != 0


def test_a_whole_policies_folder_may_be_given_with_its_worked_cases():
    aside = {"policies/cases/fleet.toml": b"[[site]]", "policies/cases/a.toml": b"[[case]]", "policies/README.md": b"#"}
    assert check(DATA, **aside).code == 0
    assert check(DATA, **{"policies/odd.bin": b"?"}).code == 2


def test_receipts_of_two_tables_policies_and_fleets_are_checked_in_one_run():
    later_zones = (
        ZONES_FILE
        + b"""
[[edge]]
zone = "NO"
within = "EU"
from = 2020-01-01
source = "a later table"
"""
    )
    zones = Zones.parse(later_zones)
    fleet = FLEET_FILE.replace(b"Example Isles", b"Example Islands")
    policy = {**POLICY, "a.cedar": b"permit (principal, action, resource is Domicile::Site);"}
    digests = {"policy": digest(policy), "zones": zones.digest, "fleet": Fleet.parse(fleet.decode(), zones).digest}
    later, _ = bundle(made(digests=digests), others=5)
    files = {"receipt.json": DATA, "later.json": later, "trust.txt": TRUST}
    files |= {"old/zones.toml": ZONES_FILE, "old/fleet.toml": FLEET_FILE, "new/zones.toml": later_zones}
    files |= {"new/fleet.toml": fleet} | {f"old/{name}": raw for name, raw in POLICY.items()}
    files |= {f"new/{name}": raw for name, raw in policy.items()}
    verdict = verify.verify(files)
    assert verdict.code == 0, verdict.lines
    assert named(verdict, "zones") == [("good", "one of the 2 given is the one that was in force")] * 2
    assert len(named(verdict, "residency")) == 2
    without = {name: raw for name, raw in files.items() if name != "new/zones.toml"}
    assert verify.verify(without).code == 1  # the later receipt's table is not among them, and it says so
    mixed = {name: raw for name, raw in files.items() if name != "old/a.cedar"}
    assert "none of the 2 given is the one that was in force" in str(verify.verify(mixed).lines)


def test_a_second_trust_file_does_not_take_the_place_of_the_first():
    verdict = check(DATA, **{"other.txt": WITNESS_VKEY.vkey.encode()})
    assert verdict.code == 1 and named(verdict, "signature")[0][0] == "good"


def test_nothing_given_is_open():
    assert verify.verify({}).code == 2


# --- reports --------------------------------------------------------------------------------------------------------


def report(change=lambda r: None):
    master = {
        "schema": "domicile-residency-report/1",
        "head": {"tenant": "northwind"},
        "sites": [{"id": "de-one", "zone": "DE"}],
        "coverage": {"lowest_grade": 1},
    }
    body = receipt.canonical(master)
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    entry = json.loads(bundle(made(kind="admin", facts={"report": digest}))[0])
    change(master)
    signed = [notes.sign(body.decode() + "\n", ORIGIN, KEY)]
    return receipt.canonical({"format": exhibits.REPORT, "report": master, "signatures": signed, "receipt": entry})


def test_a_report_is_checked_by_signature_and_by_its_entry_in_the_ledger():
    verdict = check(report())
    assert verdict.code == 0, verdict.lines
    assert "lowest evidence grade 1" in verdict.sentence
    assert check(report(lambda r: r["sites"].clear())).code == 1


def test_a_report_whose_entry_is_of_another_report_is_false():
    whole = json.loads(report())
    whole["receipt"] = json.loads(bundle(made(kind="admin", facts={"report": "sha256:00"}))[0])
    verdict = check(receipt.canonical(whole))
    assert named(verdict, "receipt") == [("false", "the ledger's entry is of another report")]
    assert verdict.code == 1


@pytest.mark.parametrize("packed", [True, False])
def test_the_evidence_attached_to_a_pdf_is_checked(packed):
    body = zlib.compress(report()) if packed else report()
    filter_ = b"/Filter/FlateDecode" if packed else b""
    pdf = (
        b"%PDF-1.7\n1 0 obj\n<</Type/EmbeddedFile" + filter_ + b"/Length 1>>\nstream\n" + body + b"\nendstream\nendobj"
    )
    assert check(pdf).code == 0
    at = pdf.index(body) + len(body) // 2
    assert check(pdf[:at] + bytes([pdf[at] ^ 1]) + pdf[at + 1 :]).code != 0


# --- checkpoints ----------------------------------------------------------------------------------------------------


class Grown:
    """A log of bytes, for checkpoints and proofs between its sizes."""

    def __init__(self, seed=b"", size=9):
        self.hashes = {}
        for at in range(size):
            leaf = tlog.leaf_hash(seed + bytes([at]))
            self.hashes.update(dict(tlog.grow(at, leaf, self.hashes.__getitem__)))

    def note(self, size, *lines):
        text = tlog.Checkpoint(ORIGIN, size, tlog.span_hash((0, size), self.hashes.__getitem__)).text
        return "\n".join([text, notes.sign(text, ORIGIN, KEY), *(line(text) for line in lines), ""]).encode()

    def proof(self, old, new):
        path = [tlog.encode(tlog.span_hash(s, self.hashes.__getitem__)) for s in tlog.consistency_spans(old, new)]
        return json.dumps({"old": old, "new": new, "hashes": path}).encode()


def seen(text):
    return notes.cosign(text, "witness.example", WITNESS, 1_700_000_000)


def looked(trust=TRUST, **files):
    return verify.verify({"trust.txt": trust, **files})


def test_a_checkpoint_alone_is_checked_for_its_signature_and_its_quorum():
    log = Grown()
    assert looked(c=log.note(7)).code == 0
    trust = TRUST.replace(b"quorum none", f"witness w {WITNESS_VKEY.vkey}\nquorum w".encode())
    assert looked(trust, c=log.note(7)).code == 1
    assert looked(trust, c=log.note(7, seen)).code == 0
    stranger = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    text = notes.split(log.note(7).decode())[0]
    assert looked(c=f"{text}\n{notes.sign(text, ORIGIN, stranger)}\n".encode()).code == 1


def test_two_checkpoints_with_their_proof_show_that_the_log_only_grew():
    log = Grown()
    verdict = looked(a=log.note(4), b=log.note(9), p=log.proof(4, 9))
    assert verdict.code == 0, verdict.lines
    assert named(verdict, "consistency") == [("good", "the log only grew, from 4 leaves to 9")]
    without = looked(a=log.note(4), b=log.note(9))
    assert without.code == 0 and named(without, "consistency")[0][0] == "note"


def test_two_histories_are_false_whoever_signed_them():
    log, other = Grown(), Grown(b"another past")
    verdict = looked(a=log.note(9), b=other.note(9))
    assert verdict.code == 1 and "two histories" in named(verdict, "consistency")[0][1]
    for proof in (log.proof(4, 9), other.proof(4, 9)):
        assert looked(a=log.note(4), b=other.note(9), p=proof).code == 1


def test_every_changed_byte_of_a_consistency_proof_is_never_good():
    log = Grown()
    proof = log.proof(4, 9)
    for at in range(len(proof)):
        changed = bytearray(proof)
        changed[at] ^= 1
        assert looked(a=log.note(4), b=log.note(9), p=bytes(changed)).code != 0, at


def test_a_consistency_proof_without_its_checkpoints_is_open():
    log = Grown()
    assert looked(a=log.note(4), p=log.proof(4, 9)).code == 2
    assert looked(p=log.proof(4, 9)).code == 2


def test_a_receipt_and_a_later_checkpoint_are_of_one_history():
    assert check(DATA, c=Grown(b"elsewhere").note(5)).code == 1
