"""Envelopes and fields: they open in their own place and nowhere else."""

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residency.envelope import (
    PAYLOAD_KEYS,
    PassageBody,
    PassageSealer,
    open_field,
    padded,
    payload,
    seal_field,
    unpadded,
    vector_digest,
)
from residency.errors import SealedError
from residency.seal import OpenDek
from tests.doubles.keys import dek_for

POINT = "50515253-5455-8657-9859-5a5b5c5d5e5f"
KEY, DEK_ID, SUBJECT = b"\x22" * 32, b"\x33" * 16, b"\x44" * 16
PLACE: dict[str, Any] = {"collection": b"\x01" * 16, "document": SUBJECT, "version": 1, "classification": 1}


def _dek(**changed: Any) -> OpenDek:
    return dek_for(**{"key": KEY, "dek_id": DEK_ID, "subject": SUBJECT} | changed)


def _sealer(dek: OpenDek | None = None, **changed: Any) -> PassageSealer:
    return PassageSealer(dek or _dek(), **PLACE | changed)


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=2000), st.text(max_size=50), st.integers(0, 2**32 - 1))
def test_a_passage_comes_back_as_it_was(text: str, name: str, number: int) -> None:
    body = PassageBody(text=text, name=name, heading="1 › 2", page=3, start=5, end=9, language="de", vd="00" * 32)
    sealer = _sealer()
    assert sealer.open(number, POINT, sealer.seal(number, POINT, body)) == body


def test_a_flip_of_any_bit_is_refused() -> None:
    sealer = _sealer()
    raw = bytearray(sealer.seal_bytes(0, POINT, b'{"text":"x"}'))
    for bit in range(len(raw) * 8):
        raw[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealedError):
            sealer.open_bytes(0, POINT, bytes(raw))
        raw[bit // 8] ^= 1 << bit % 8
    assert sealer.open_bytes(0, POINT, bytes(raw)) == b'{"text":"x"}'


@pytest.mark.parametrize("length", [10, 70, 130])
def test_a_change_of_any_letter_of_the_base64_is_refused(length: int) -> None:
    sealer = _sealer()
    sealed = sealer.seal(0, POINT, PassageBody(text="x" * length))
    for at, letter in enumerate(sealed):
        for other in {"A", "B", "Q", "/", "=", " ", "\n"} - {letter}:
            with pytest.raises(SealedError):
                sealer.open(0, POINT, sealed[:at] + other + sealed[at + 1 :])
    with pytest.raises(SealedError):
        sealer.open(0, POINT, sealed + "ü")


def test_a_cut_or_lengthened_envelope_is_refused() -> None:
    sealer = _sealer()
    raw = sealer.seal_bytes(0, POINT, b"text")
    for damaged in [*(raw[:length] for length in range(len(raw))), raw + b"\x00"]:
        with pytest.raises(SealedError):
            sealer.open_bytes(0, POINT, damaged)


@pytest.mark.parametrize(
    "sealer",
    [
        _sealer(_dek(tenant="southwind")),
        _sealer(_dek(jurisdiction="FR")),
        _sealer(_dek(dek_id=b"\x34" * 16)),
        _sealer(_dek(key=b"\x23" * 32)),
        _sealer(_dek(suite=2)),
        _sealer(_dek(version=2)),
        _sealer(collection=b"\x02" * 16),
        _sealer(document=b"\x45" * 16),
        _sealer(version=2),
        _sealer(classification=0),
    ],
    ids=[
        "tenant",
        "jurisdiction",
        "dek_id",
        "key",
        "suite",
        "key_version",
        "collection",
        "document",
        "version",
        "classification",
    ],
)
def test_a_passage_moved_to_another_context_is_refused(sealer: PassageSealer) -> None:
    sealed = _sealer().seal(0, POINT, PassageBody(text="text"))
    with pytest.raises(SealedError):
        sealer.open(0, POINT, sealed)


@pytest.mark.parametrize(("number", "point"), [(1, POINT), (0, POINT.replace("50", "51")), (-1, POINT), (0, "no-id")])
def test_a_passage_at_another_place_is_refused(number: int, point: str) -> None:
    sealer = _sealer()
    sealed = sealer.seal(0, POINT, PassageBody(text="text"))
    with pytest.raises(SealedError):
        sealer.open(number, point, sealed)


def test_every_field_of_the_aad_matters() -> None:
    # The header binds suite and key twice; with the same key bytes each other field must tell by itself.
    dek = _dek()
    held = {_sealer(dek)._aad(0, POINT)}
    for changed in (
        {"collection": b"\x02" * 16},
        {"document": b"\x45" * 16},
        {"version": 2},
        {"classification": 2},
    ):
        held.add(_sealer(dek, **changed)._aad(0, POINT))
    held |= {_sealer(_dek(**changed))._aad(0, POINT) for changed in ({"tenant": "x"}, {"jurisdiction": "DE-BY"})}
    held |= {_sealer(dek)._aad(1, POINT), _sealer(dek)._aad(0, POINT.replace("5f", "5e"))}
    assert len(held) == 9


def test_an_envelope_with_unknown_members_is_refused() -> None:
    sealer = _sealer()
    raw = sealer.seal_bytes(0, POINT, b'{"text":"x","more":1}')
    with pytest.raises(SealedError) as caught:
        sealer.open(0, POINT, base64.b64encode(raw).decode())
    assert "more" not in str(caught.value)


@given(st.binary(max_size=300))
def test_padding_hides_lengths_and_comes_off(plaintext: bytes) -> None:
    assert len(padded(plaintext)) % 64 == 0
    assert unpadded(padded(plaintext)) == plaintext


@pytest.mark.parametrize(
    "filled",
    [
        b"",
        b"\x00\x00\x00",
        b"\x00\x00\x00\x3d" + bytes(60),
        b"\xff\xff\xff\xff" + bytes(60),
        b"\x00\x00\x00\x01ab" + bytes(58),
        b"\x00\x00\x00\x01a" + bytes(123),
    ],
    ids=["empty", "short", "beyond", "far", "nonzero", "overlong"],
)
def test_wrong_padding_is_refused(filled: bytes) -> None:
    with pytest.raises(SealedError):
        unpadded(filled)


def test_a_field_opens_only_as_itself() -> None:
    dek = _dek()
    sealed = seal_field(dek, "name", b"r1", "Übersicht.pdf".encode())
    assert open_field(dek, "name", b"r1", sealed).decode() == "Übersicht.pdf"
    for other, field, record in (
        (dek, "error", b"r1"),
        (dek, "name", b"r2"),
        (_dek(version=2), "name", b"r1"),
        (_dek(subject=bytes(16)), "name", b"r1"),
    ):
        with pytest.raises(SealedError):
            open_field(other, field, record, sealed)
    with pytest.raises(SealedError):
        _sealer().open_bytes(0, POINT, sealed)


def test_a_payload_holds_nothing_but_the_listed_keys() -> None:
    facts: dict[str, Any] = {
        "owner": "t",
        "jurisdiction": "DE",
        "tag_class": 1,
        "collection": "c",
        "document": "d",
        "number": 0,
        "epoch": 1,
        "sealed": "s",
    }
    assert set(payload(groups=["b", "a"], vector="eA==", **facts)) == PAYLOAD_KEYS
    assert payload(groups=["b", "a"], **facts)["a"] == ["a", "b"]
    assert "a" not in payload(groups=[], **facts)


def test_a_vector_digest_reads_float32_little_endian() -> None:
    vector = np.arange(4, dtype=np.float32)
    assert vector_digest(vector) == vector_digest(vector.astype(">f4"))
    assert vector_digest(vector) != vector_digest(np.nextafter(vector, np.float32(9)))
