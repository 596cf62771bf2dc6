"""Frozen known answers: what version 1 wrote, every later version opens."""

import base64
import hashlib
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import sqlalchemy as sa

from residency import envelope, frames
from residency.lexicon import Lexicon, keyed_tag, point_id
from residency.outlets.keys.file import FileKeys
from residency.packing import Packing
from residency.ports import KekRef
from residency.rotation import Rotation, digest
from residency.seal import SUITES, KeyContext, OpenDek, Purpose, lp, tenant_bytes, u8, u32, u64

TENANT, DOCUMENT, DEK_ID, KEK_ID, COLLECTION, POINT, ARTEFACT = (bytes(range(n, n + 16)) for n in range(0, 0x70, 16))
KEK, DEK, TAG_DIGEST, K_LEX, K_TAG = (bytes([n]) * 32 for n in (0x11, 0x22, 0x55, 0x66, 0x88))
CONTEXT = KeyContext(Purpose.DOCUMENT, TENANT, "DE", DOCUMENT, 1, DEK_ID)
HEADER = "444d0101202122232425262728292a2b2c2d2e2f"
PASSAGE_AT = "50515253-5455-5657-5859-5a5b5c5d5e5f"

K_HEX = (
    "000f646f6d6963696c652f76312f64656b0001010008646f63756d656e740010000102030405060708090a0b0c0d0e0f"
    "000244450010101112131415161718191a1b1c1d1e1f0004000000010010202122232425262728292a2b2c2d2e2f"
)
WRAPPED = (
    "333333333333333333333333a6a17064e8b0570e909ac94f8509c10a24ea2d16a8fba78eda682ba781aca80871bad216e7c524fb22358e"
    "68862f509b"
)
ENVELOPE = (
    "444d0101202122232425262728292a2b2c2d2e2f444444444444444444444444076d5ebb1918b7fa3780b40f48818a62042d60533604b5"
    "0ed5ae83772db849ac917755f5c2a123def4ae840a58476be34513b9c67e901cb58644dde17a224d2547177cfbb1276d91147cf15314d2"
    "e29c"
)
FILE = (
    "444d0101202122232425262728292a2b2c2d2e2f606162636465666768696a6b6c6d6e6f7777777777777777777777779ec3f2b7a3f24a"
    "f2c28ec58f2ccc15a4246492"
)
KEK_FILE = (
    "444d0101333333333333333333333333dc63548def462a88de8854f9b86a30eac418d3405b953db761060633cf6970d8ddedde657ff804aa"
    "e0d1276f6c5b4d66"
)


@pytest.fixture
def dek() -> OpenDek:
    return OpenDek(CONTEXT, DEK, tenant="frozen", left=10)


@pytest.fixture
def sealer(dek: OpenDek) -> envelope.PassageSealer:
    return envelope.PassageSealer(dek, collection=COLLECTION, document=DOCUMENT, version=1, classification=1)


def test_the_key_context_is_frozen() -> None:
    assert CONTEXT.encoded().hex() == K_HEX
    assert len(CONTEXT.encoded()) == 94


def test_the_wrap_aad_and_a_wrapped_key_are_frozen() -> None:
    aad = CONTEXT.wrap_aad(KEK_ID, 1, TAG_DIGEST)
    assert len(aad) == 172
    assert hashlib.sha256(aad).hexdigest() == "c5f48bccd611d18d7242665e2183ff124ef65dd6fcde95a700d3bcfba4cbd540"
    suite = SUITES[1]
    wrapped = suite._seal_raw(suite.cipher(KEK), b"\x33" * 12, aad, DEK)
    assert wrapped.hex() == WRAPPED
    assert suite.open(suite.cipher(KEK), wrapped[:12], aad, wrapped[12:]) == DEK


def test_derived_keys_are_frozen() -> None:
    assert CONTEXT.encryption_key(DEK).hex() == "7334ea7510b39a7af1c00d355a13efffacbee068b86eafafef7fbca4e0a6e857"
    assert CONTEXT.commitment(DEK).hex() == "4e754453d602b5f7331c1a11a7feb3131d2d695cd43fc8476b7baa8b0e2be695"


def test_the_passage_aad_is_frozen(sealer: envelope.PassageSealer) -> None:
    aad = sealer._aad(0, PASSAGE_AT)
    assert len(aad) == 140
    assert hashlib.sha256(aad).hexdigest() == "d82a575a283b42369d308fc26d302867fb4859a76edfbf9dd1be472006688a45"


def test_an_envelope_of_version_1_opens(dek: OpenDek, sealer: envelope.PassageSealer) -> None:
    raw = bytes.fromhex(ENVELOPE)
    assert dek.header.hex() == HEADER
    assert sealer.open(0, PASSAGE_AT, base64.b64encode(raw).decode()) == envelope.PassageBody(text="Grüße")
    plaintext = envelope.padded('{"text":"Grüße"}'.encode())
    again = SUITES[1]._seal_raw(dek._cipher, b"\x44" * 12, sealer._aad(0, PASSAGE_AT), plaintext)
    assert (dek.header + again).hex() == ENVELOPE


def test_a_sealed_file_of_version_1_opens(dek: OpenDek) -> None:
    raw = bytes.fromhex(FILE)
    assert frames.open_file(dek, "original", DOCUMENT, 1, raw) == b"abc"
    aad = frames._prefix(dek, raw[:36], "original", DOCUMENT, 1) + lp(u64(0)) + lp(u8(1))
    assert (raw[:36] + SUITES[1]._seal_raw(dek._cipher, b"\x77" * 12, aad, b"abc")).hex() == FILE


def test_token_ids_are_frozen() -> None:
    lexicon = Lexicon(K_LEX)
    assert [lexicon.token("vertrag"), lexicon.token("straß")] == [2317354547, 3718768664]


def test_payload_tags_and_point_ids_are_frozen() -> None:
    assert keyed_tag(K_TAG, "tenant", TENANT) == "ey_KlvY6j_qRyxcL94AAMQ"
    assert point_id(K_TAG, DOCUMENT, 1, 0) == "a71abfa6-c74d-8c7e-81b9-cc86403649c5"


def test_a_kek_file_of_version_1_opens(tmp_path: Path) -> None:
    keys = FileKeys(tmp_path / "keys", site="de", root=b"\x99" * 32)
    assert keys._open(KekRef(KEK_ID, 1, "northwind", "DE", "de"), bytes.fromhex(KEK_FILE)) == KEK


def test_the_bytes_of_a_tenant_are_frozen() -> None:
    assert tenant_bytes("northwind").hex() == "9d1be11c149b62756d3de9d0d873ff1c"


def test_the_bytes_of_a_matrix_are_frozen() -> None:
    matrix = np.ones((1, 1), dtype=np.float32)
    assert Rotation(matrix).encoded().hex() == "0000803f"
    assert digest(matrix).hex() == hashlib.sha256(bytes.fromhex("0000803f")).hexdigest()


@pytest.mark.parametrize(
    "stored",
    ["010000000000000005ab1e0d331281522d00", "02000000000000000528b52ffd6034004500000001003137ea0202"],
    ids=["DEFLATE, written until 0.1", "Zstandard"],
)
def test_a_packed_leaf_of_either_form_unpacks(stored: str) -> None:
    leaf = b'{"a":"' + b"x" * 300 + b'"}'
    packing = Packing()
    packing._models[5] = leaf
    assert packing.unpack(cast("sa.Connection", None), bytes.fromhex(stored)) == leaf  # its model is at hand


def test_integers_are_big_endian() -> None:
    assert (u8(1), u32(1), u64(1)) == (b"\x01", b"\x00\x00\x00\x01", b"\x00" * 7 + b"\x01")
