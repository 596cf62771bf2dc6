"""Envelope: one Passage as it lies in an index, and any small field as it lies in a row.

Rules kept here: the AAD is built from the database row and never from what a shard gave back, so a point copied to
another tenant, place, document or number does not open; lengths are padded; `payload` is the one writer of what lies
beside an Envelope in clear, and `PAYLOAD_KEYS` all that may.
"""

import hashlib
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable
from typing import Any, Final

import msgspec
import numpy as np

from residency.errors import SealedError
from residency.ports import Vectors
from residency.seal import FORMAT, MAGIC, OVERHEAD, OpenDek, bind, lp, u8, u32

HEADER: Final = 20
"""Bytes before the nonce: `DM`, format version, suite, dek_id."""
PAD: Final = 64
"""Plaintext is padded with zeros to a multiple of this: exact lengths are hidden, rough ones are not."""
PAYLOAD_VERSION: Final = 1
PAYLOAD_KEYS: Final = frozenset("vtjkcdnaesx")
"""Every key that a point's payload may hold; the sealing page says what each is."""


class PassageBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What a Passage's Envelope holds. New fields need a default: version 1 opens for ever."""

    text: str
    name: str = ""
    """The document's name as it was given."""
    heading: str = ""
    page: int | None = None
    """Page number from 1; None where the original has no pages."""
    start: int = 0
    """Code-point offset in the document's extracted text."""
    end: int = 0
    language: str = "und"
    vd: str = ""
    """SHA-256 (hex) of the stored vector: the only thing that ties vector and text together."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(PassageBody)


class PassageSealer:
    """Seals and opens the Passages of one document version; builds the constant part of their AAD once."""

    __slots__ = ("_dek", "_prefix", "_vector_prefix")

    def __init__(self, dek: OpenDek, *, collection: bytes, document: bytes, version: int, classification: int) -> None:
        self._dek = dek
        place = (dek.header, dek.tenant_id, dek.jurisdiction, collection, document, u32(version), u8(classification))
        self._prefix = bind("domicile/v1/passage", *place, "body")
        self._vector_prefix = bind("domicile/v1/passage", *place, "vector")

    def seal(self, no: int, point_id: str, body: PassageBody) -> str:
        """Seal Passage `no`, which lies at `point_id` (a UUID); gives base64 for payload key `s`."""
        return b2a_base64(self.seal_bytes(no, point_id, _encoder.encode(body)), newline=False).decode("ascii")

    def open(self, no: int, point_id: str, sealed: str) -> PassageBody:
        """Open what `seal` gave for the same Passage at the same point; raises `SealedError`."""
        try:
            return _decoder.decode(self.open_bytes(no, point_id, _raw(sealed)))
        except msgspec.DecodeError:
            raise SealedError("an Envelope opens to something that is no Passage") from None

    def seal_vector(self, no: int, point_id: str, vector: Vectors) -> str:
        """Seal a Passage's vector (d,); gives base64 for payload key `x`."""
        aad = self._aad(no, point_id, self._vector_prefix)
        raw = self._dek.header + self._dek.seal(aad, padded(np.ascontiguousarray(vector, dtype="<f4").tobytes()))
        return b2a_base64(raw, newline=False).decode("ascii")

    def open_vector(self, no: int, point_id: str, sealed: str) -> Vectors:
        """Open what `seal_vector` gave for the same Passage at the same point; raises `SealedError`."""
        envelope = _raw(sealed)
        _check_header(self._dek, envelope)
        plain = unpadded(self._dek.open(self._aad(no, point_id, self._vector_prefix), memoryview(envelope)[HEADER:]))
        if len(plain) % 4:
            raise SealedError("an Envelope opens to something that is no vector")
        return np.frombuffer(plain, dtype="<f4")

    def seal_bytes(self, no: int, point_id: str, plaintext: bytes) -> bytes:
        """Seal bytes in the place of a Passage's body; gives the raw Envelope."""
        return self._dek.header + self._dek.seal(self._aad(no, point_id), padded(plaintext))

    def open_bytes(self, no: int, point_id: str, envelope: bytes) -> bytes:
        """Open a raw Envelope."""
        _check_header(self._dek, envelope)
        return unpadded(self._dek.open(self._aad(no, point_id), memoryview(envelope)[HEADER:]))

    def _aad(self, no: int, point_id: str, prefix: bytes = b"") -> bytes:
        try:
            return (prefix or self._prefix) + lp(no.to_bytes(4, "big")) + lp(bytes.fromhex(point_id.replace("-", "")))
        except (ValueError, OverflowError) as error:
            raise SealedError("a Passage's number or point id is malformed") from error


def _raw(sealed: str) -> bytes:
    try:
        raw = a2b_base64(sealed, strict_mode=True)
    except (Base64Error, ValueError) as error:
        raise SealedError("an Envelope is no base64") from error
    # Two texts must not stand for one Envelope: the unused bits of the last letters are zero.
    tail = len(raw) % 3
    if tail and b2a_base64(raw[-tail:], newline=False).decode("ascii") != sealed[-4:]:
        raise SealedError("an Envelope is no canonical base64")
    return raw


def seal_field(dek: OpenDek, field: str, record: bytes, plaintext: bytes) -> bytes:
    """Seal one value of a row, such as a document's name, bound to its field, record and the key's subject."""
    return dek.header + dek.seal(_field_aad(dek, field, record), padded(plaintext))


def open_field(dek: OpenDek, field: str, record: bytes, sealed: bytes) -> bytes:
    """Open what `seal_field` gave for the same field and record; raises `SealedError`."""
    _check_header(dek, sealed)
    return unpadded(dek.open(_field_aad(dek, field, record), memoryview(sealed)[HEADER:]))


def _field_aad(dek: OpenDek, field: str, record: bytes) -> bytes:
    return bind(
        "domicile/v1/field",
        dek.header,
        dek.tenant_id,
        dek.jurisdiction,
        dek.subject,
        u32(dek.version),
        field,
        record,
    )


def _check_header(dek: OpenDek, envelope: bytes) -> None:
    if envelope[:HEADER] == dek.header and len(envelope) >= HEADER + OVERHEAD:
        return
    if envelope[:2] != MAGIC or len(envelope) < HEADER + OVERHEAD:
        raise SealedError("these bytes are no Envelope")
    if envelope[2] != FORMAT:
        raise SealedError(f"Envelope version {envelope[2]} is unknown", hint="this was sealed by a newer version")
    raise SealedError("an Envelope was sealed under another key or suite")


def padded(plaintext: bytes) -> bytes:
    """Prefix the length as u32 and fill with zeros to a multiple of 64."""
    return u32(len(plaintext)) + plaintext + bytes(-(len(plaintext) + 4) % PAD)


def unpadded(filled: bytes) -> bytes:
    """Take the filling off; a length beyond the end, or filling that is not zero, is `SealedError`."""
    end = 4 + int.from_bytes(filled[:4], "big")
    if len(filled) < 4 or end > len(filled) or len(filled) - end >= PAD or filled[end:].strip(b"\x00"):
        raise SealedError("sealed bytes are wrongly padded")
    return filled[4:end]


def vector_digest(vector: Vectors) -> str:
    """Give SHA-256 (hex) of a stored vector's float32 little-endian bytes."""
    return hashlib.sha256(np.ascontiguousarray(vector, dtype="<f4").tobytes()).hexdigest()


def payload(
    *,
    owner: str,
    jurisdiction: str,
    tag_class: int,
    collection: str,
    document: str,
    number: int,
    groups: Iterable[str],
    epoch: int,
    sealed: str,
    vector: str = "",
) -> dict[str, Any]:
    """Write a point's payload: filters and the Envelope, never content.

    `owner` and `groups` are keyed tags (`SearchKeys.owner`, `SearchKeys.group`); `collection` and `document` random
    ids in hex. `a` is left out when no group restricts the document, `x` unless the `vector` is sealed.
    """
    held: dict[str, Any] = {
        "v": PAYLOAD_VERSION,
        "t": owner,
        "j": jurisdiction,
        "k": tag_class,
        "c": collection,
        "d": document,
        "n": number,
        "e": epoch,
        "s": sealed,
    }
    restricted = sorted(groups)
    if restricted:
        held["a"] = restricted
    if vector:
        held["x"] = vector
    return held
