"""Suites against outside vectors, key contexts, and the counting of messages."""

import copy
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residency.errors import KeyringError, SealedError
from residency.seal import SUITES, KeyContext, OpenDek, Purpose, bind, lp, suite_of, tenant_bytes
from tests.doubles.keys import dek_for

VECTORS = os.environ.get("DOMICILE_VECTORS", "")
needs_vectors = pytest.mark.skipif(
    not VECTORS, reason="set DOMICILE_VECTORS to a folder with Wycheproof's aes_gcm_test.json and its kin"
)


def _cases(file: str, **wanted: int) -> list[dict[str, Any]]:
    document = json.loads((Path(VECTORS) / file).read_text())
    groups = [g for g in document["testGroups"] if all(g[key] == value for key, value in wanted.items())]
    return [case for group in groups for case in group["tests"]]


@needs_vectors
@pytest.mark.parametrize(
    ("file", "suite", "valid", "invalid"), [("aes_gcm_test.json", 1, 39, 27), ("aes_gcm_siv_test.json", 2, 69, 34)]
)
def test_a_suite_agrees_with_wycheproof(file: str, suite: int, valid: int, invalid: int) -> None:
    seen = {"valid": 0, "invalid": 0}
    for case in _cases(file, keySize=256, ivSize=96, tagSize=128):
        key, iv, aad, msg, ct, tag = (bytes.fromhex(case[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag"))
        cipher = SUITES[suite].cipher(key)
        seen[case["result"]] += 1
        if case["result"] == "valid":
            assert SUITES[suite].open(cipher, iv, aad, ct + tag) == msg, case["tcId"]
            assert SUITES[suite]._seal_raw(cipher, iv, aad, msg) == iv + ct + tag, case["tcId"]
        else:
            with pytest.raises(SealedError):
                SUITES[suite].open(cipher, iv, aad, ct + tag)
    assert seen["valid"] >= valid
    assert seen["invalid"] >= invalid


@needs_vectors
def test_a_nonce_of_another_length_is_refused() -> None:
    document = json.loads((Path(VECTORS) / "aes_gcm_test.json").read_text())
    groups = [g for g in document["testGroups"] if g["keySize"] == 256 and g["ivSize"] != 96]
    cases = [case for group in groups for case in group["tests"]]
    assert len(cases) > 20
    for case in cases:
        cipher = SUITES[1].cipher(bytes.fromhex(case["key"]))
        with pytest.raises(SealedError):
            SUITES[1].open(
                cipher,
                bytes.fromhex(case["iv"]),
                bytes.fromhex(case["aad"]),
                bytes.fromhex(case["ct"] + case["tag"]),
            )


@needs_vectors
def test_derivation_agrees_with_hkdf_vectors() -> None:
    import hmac

    from residency.seal import expand

    seen = 0
    for case in _cases("hkdf_sha256_test.json"):
        if case["result"] != "valid" or case["size"] != 32:
            continue
        salt = bytes.fromhex(case["salt"]) or bytes(32)
        extracted = hmac.digest(salt, bytes.fromhex(case["ikm"]), "sha256")
        assert expand(extracted, bytes.fromhex(case["info"])).hex() == case["okm"]
        seen += 1
    assert seen >= 3


@pytest.mark.parametrize("cut", range(1, 16))
def test_a_shortened_tag_is_refused(cut: int) -> None:
    cipher = SUITES[1].cipher(bytes(32))
    sealed = SUITES[1].seal(cipher, b"", b"text")
    with pytest.raises(SealedError):
        SUITES[1].open(cipher, sealed[:12], b"", sealed[12:-cut])


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(SealedError):
        SUITES[1].cipher(bytes(length))


@pytest.mark.parametrize("number", [0, 3, 255])
def test_an_unknown_suite_is_refused(number: int) -> None:
    with pytest.raises(SealedError):
        suite_of(number)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([1, 2]), st.binary(max_size=300), st.binary(max_size=3000))
def test_what_was_sealed_opens_only_in_its_context(suite: int, aad: bytes, plaintext: bytes) -> None:
    dek = dek_for(suite=suite)
    sealed = dek.seal(aad, plaintext)
    assert len(sealed) == len(plaintext) + 28
    assert dek.open(aad, sealed) == plaintext
    with pytest.raises(SealedError):
        dek.open(aad + b"\x00", sealed)
    with pytest.raises(SealedError):
        dek_for(suite=suite).open(aad, sealed)


def test_two_sealings_never_share_a_nonce() -> None:
    dek = dek_for()
    assert len({dek.seal(b"", b"same")[:12] for _ in range(2000)}) == 2000


@given(st.lists(st.binary(max_size=20), max_size=5), st.lists(st.binary(max_size=20), max_size=5))
def test_two_lists_of_fields_never_share_their_bytes(one: list[bytes], other: list[bytes]) -> None:
    assert (bind("d", *one) == bind("d", *other)) == (one == other)


def test_joined_names_do_not_collide() -> None:
    assert bind("d", "a", "b-c") != bind("d", "a-b", "c")
    with pytest.raises(SealedError):
        lp(bytes(65_536))


def test_every_part_of_the_key_context_changes_the_derived_key() -> None:
    base: dict[str, Any] = {
        "purpose": Purpose.DOCUMENT,
        "tenant": tenant_bytes("northwind"),
        "jurisdiction": "DE",
        "subject": bytes(16),
        "version": 1,
        "dek_id": bytes(16),
        "suite": 1,
    }
    changes: dict[str, Any] = {
        "purpose": Purpose.CONVERSATION,
        "tenant": tenant_bytes("southwind"),
        "jurisdiction": "DE+FR",
        "subject": b"\x01" * 16,
        "version": 2,
        "dek_id": b"\x01" * 16,
        "suite": 2,
    }
    keys = {KeyContext(**base).encryption_key(bytes(32))}
    keys |= {KeyContext(**base | {name: value}).encryption_key(bytes(32)) for name, value in changes.items()}
    assert len(keys) == len(changes) + 1


def test_a_key_other_than_the_committed_one_is_refused() -> None:
    context = KeyContext(Purpose.DOCUMENT, bytes(16), "DE", bytes(16), 1, bytes(16))
    commitment = context.commitment(b"\x01" * 32)
    OpenDek.proven(context, b"\x01" * 32, commitment, tenant="t", reserve=lambda _: 0)
    with pytest.raises(SealedError):
        OpenDek.proven(context, b"\x02" * 32, commitment, tenant="t", reserve=lambda _: 0)


def test_messages_are_counted_and_refilled() -> None:
    asked: list[bytes] = []
    context = KeyContext(Purpose.DOCUMENT, bytes(16), "DE", bytes(16), 1, bytes(16))

    def reserve(dek_id: bytes) -> int:
        asked.append(dek_id)
        if len(asked) > 2:
            raise KeyringError("no more")
        return 3

    dek = OpenDek(context, bytes(32), tenant="t", left=2, reserve=reserve)
    for _ in range(2 + 3 + 3):
        dek.seal(b"", b"")
    assert asked == [bytes(16), bytes(16)]
    with pytest.raises(KeyringError):
        dek.seal(b"", b"")


def test_a_key_without_a_reservation_seals_nothing() -> None:
    context = KeyContext(Purpose.DOCUMENT, bytes(16), "DE", bytes(16), 1, bytes(16))
    with pytest.raises(KeyringError):
        OpenDek(context, bytes(32), tenant="t").seal(b"", b"")


def test_an_open_key_is_neither_copied_nor_pickled_nor_shown() -> None:
    dek = dek_for(key=b"\xab" * 32)
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(KeyringError):
            way(dek)
    assert "abab" not in repr(dek)
