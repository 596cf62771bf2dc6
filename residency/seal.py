"""Seal v1: how bytes are sealed, which keys they are sealed under, and what a key is bound to.

Rules kept here: every field is length-prefixed, so no two contexts share their bytes; a nonce is random and no caller
passes one; what a key is derived for (K) holds nothing that rotates; an `OpenDek` exists only after its key commitment
held; a wrong version, suite, length or tag is `SealedError`, and nothing falls back to plaintext.
Where sealed bytes lie is elsewhere: one Passage in `envelope.py`, files in `frames.py`, key rows in `keyring.py`.
"""

import hashlib
import hmac
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV

from residency.errors import KeyringError, SealedError

MAGIC: Final = b"DM"
FORMAT: Final = 1
NONCE: Final = 12
"""Bytes of a nonce: the only length for which NIST SP 800-38D takes the nonce as it is."""
OVERHEAD: Final = NONCE + 16
"""Bytes that sealing adds before any header: nonce and tag."""
KEY: Final = 32
NO_SUBJECT: Final = bytes(16)
"""The subject of search keys."""
NO_TAG: Final = bytes(32)
"""The Tag digest of keys that belong to no document."""
SEAL_LIMIT: Final = 1 << 20
"""Messages that one DEK may seal, far below the 2^32 of NIST SP 800-38D 8.3."""
SEAL_STEP: Final = 4096
"""Messages reserved in the database at a time, before any of them is sealed."""

Cipher = AESGCM | AESGCMSIV
Buffer = bytes | bytearray | memoryview


def u8(number: int) -> bytes:
    """Encode an integer as 1 byte."""
    return number.to_bytes(1, "big")


def u32(number: int) -> bytes:
    """Encode an integer as 4 bytes, big-endian."""
    return number.to_bytes(4, "big")


def u64(number: int) -> bytes:
    """Encode an integer as 8 bytes, big-endian."""
    return number.to_bytes(8, "big")


_LENGTHS: Final = tuple(length.to_bytes(2, "big") for length in range(512))


def lp(field: bytes) -> bytes:
    """Prefix a field with its length as u16; more than 65,535 bytes is `SealedError`."""
    if len(field) > 0xFFFF:
        raise SealedError("a bound field is longer than 65,535 bytes")
    return len(field).to_bytes(2, "big") + field


def bind(domain: str, *fields: bytes | str) -> bytes:
    """Encode a domain and its fields, each length-prefixed, text as UTF-8; there are no optional fields."""
    parts: list[bytes] = []
    for each in (domain, *fields):  # a million times in a rewrap: hence no call for each field
        raw = each.encode() if isinstance(each, str) else each
        size = len(raw)
        parts += (_LENGTHS[size], raw) if size < 512 else (lp(raw),)
    return b"".join(parts)


def tenant_bytes(slug: str) -> bytes:
    """Give the 16 bytes that stand for a tenant in key contexts and AAD."""
    return hashlib.sha256(b"domicile/v1/tenant\x00" + slug.encode()).digest()[:16]


class Purpose(StrEnum):
    """What an L2 key is for."""

    DOCUMENT = "document"
    VECTORS = "vectors"
    LEXICON = "lexicon"
    TAGS = "tags"
    CONVERSATION = "conversation"


class Suite:
    """One authenticated cipher under its number in the format; tags are 16 bytes and never truncated."""

    __slots__ = ("_kind", "id", "name")

    def __init__(self, number: int, name: str, kind: type[AESGCM] | type[AESGCMSIV]) -> None:
        self.id = number
        self.name = name
        self._kind = kind

    def cipher(self, key: bytes) -> Cipher:
        """Prepare a 32-byte key; keep the result, since preparing costs as much as sealing 1 KB."""
        if len(key) != KEY:
            raise SealedError(f"a key of {len(key)} bytes was given where 32 are needed")
        return self._kind(key)

    def seal(self, cipher: Cipher, aad: bytes, plaintext: Buffer) -> bytes:
        """Give nonce 12 ‖ ciphertext ‖ tag 16 under a fresh random nonce."""
        return self._seal_raw(cipher, os.urandom(NONCE), aad, plaintext)

    def open(self, cipher: Cipher, nonce: Buffer, aad: bytes, sealed: Buffer) -> bytes:
        """Open ciphertext ‖ tag; anything but the very bytes that were sealed under `aad` is `SealedError`."""
        if len(nonce) != NONCE or len(sealed) < OVERHEAD - NONCE:
            raise SealedError("sealed bytes have an impossible length")
        try:
            return cipher.decrypt(nonce, sealed, aad)
        except InvalidTag as error:
            raise SealedError("sealed bytes do not open in this context") from error

    def _seal_raw(self, cipher: Cipher, nonce: bytes, aad: bytes, plaintext: Buffer) -> bytes:
        # With a nonce of one's own choosing; for frozen test vectors only.
        return nonce + cipher.encrypt(nonce, plaintext, aad)


SUITES: Final[dict[int, Suite]] = {
    1: Suite(1, "AES-256-GCM", AESGCM),
    2: Suite(2, "AES-256-GCM-SIV", AESGCMSIV),
}
"""Known suites; 3 is reserved for XAES-256-GCM."""


def suite_of(number: int) -> Suite:
    """Give the suite of this number, or raise `SealedError`."""
    try:
        return SUITES[number]
    except KeyError:
        raise SealedError(f"suite {number} is unknown", hint="this was sealed by a newer version") from None


@dataclass(frozen=True, slots=True)
class KeyContext:
    """Whom and what one L2 key serves; everything derived from the key is bound to these values.

    `tenant`, `subject` and `dek_id` are 16 raw bytes; `jurisdiction` is spelled as `Tag.origin`. The KEK is absent on
    purpose: if it stood here, rolling a KEK would change every derived key.
    """

    purpose: Purpose
    tenant: bytes
    jurisdiction: str
    subject: bytes
    version: int
    dek_id: bytes
    suite: int = 1

    _encoded: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        encoded = bind(
            "domicile/v1/dek",
            u8(self.suite),
            self.purpose,
            self.tenant,
            self.jurisdiction,
            self.subject,
            u32(self.version),
            self.dek_id,
        )
        object.__setattr__(self, "_encoded", encoded)

    def encoded(self) -> bytes:
        """Give K, the key context as bytes."""
        return self._encoded

    def wrap_aad(self, kek_id: bytes, kek_version: int, tag_digest: bytes) -> bytes:
        """Give what wrapping under this KEK binds: the context, the KEK, and the Tag as it stands now."""
        if len(tag_digest) != len(NO_TAG):
            raise SealedError("a Tag digest has 32 bytes")
        return bind("domicile/v1/wrap", self.encoded(), kek_id, u32(kek_version), tag_digest)

    def encryption_key(self, key: bytes) -> bytes:
        """Derive the L3 key that seals (HKDF-SHA256-Expand, RFC 5869 2.3)."""
        return expand(key, bind("domicile/v1/enc", self.encoded()))

    def commitment(self, key: bytes) -> bytes:
        """Derive the 32 bytes that commit to this key; GCM alone would open under a second, crafted key."""
        return expand(key, bind("domicile/v1/commit", self.encoded()))


def expand(key: bytes, info: bytes) -> bytes:
    """Derive 32 bytes from a uniformly random key: the one block of HKDF-SHA256-Expand (RFC 5869 2.3)."""
    return hmac.digest(key, info + b"\x01", "sha256")


def new_key() -> bytes:
    """Make 32 random bytes."""
    return os.urandom(KEY)


def _no_more(_: bytes) -> NoReturn:
    raise KeyringError("no seals are reserved for this key", hint="open the key through the Keyring")


class OpenDek:
    """An L2 key that was unwrapped and whose commitment held; made by `Keyring` alone, never stored, copied or sent.

    `tenant` is the slug, `tenant_id` its 16 bytes. `header` is how Envelopes under this key begin: `DM`, format
    version, suite, dek_id (20 bytes).
    """

    __slots__ = (
        "_cipher",
        "_left",
        "_reserve",
        "dek_id",
        "header",
        "jurisdiction",
        "purpose",
        "subject",
        "suite",
        "tenant",
        "tenant_id",
        "version",
    )

    def __init__(
        self,
        context: KeyContext,
        key: bytes,
        *,
        tenant: str,
        left: int = 0,
        reserve: Callable[[bytes], int] = _no_more,
    ) -> None:
        self.suite = suite_of(context.suite)
        self.dek_id = context.dek_id
        self.purpose = context.purpose
        self.tenant = tenant
        self.tenant_id = context.tenant
        self.jurisdiction = context.jurisdiction
        self.subject = context.subject
        self.version = context.version
        self.header = MAGIC + struct.pack("BB", FORMAT, context.suite) + context.dek_id
        self._cipher = self.suite.cipher(context.encryption_key(key))
        self._left = left
        self._reserve = reserve

    @classmethod
    def proven(
        cls, context: KeyContext, key: bytes, commitment: bytes, *, tenant: str, reserve: Callable[[bytes], int]
    ) -> "OpenDek":
        """Build from an unwrapped key after comparing its commitment in constant time; raises `SealedError`."""
        if not hmac.compare_digest(context.commitment(key), commitment):
            raise SealedError("an unwrapped key is not the one that was committed to")
        return cls(context, key, tenant=tenant, reserve=reserve)

    def seal(self, aad: bytes, plaintext: Buffer) -> bytes:
        """Give nonce 12 ‖ ciphertext ‖ tag 16.

        Every message counts against what was reserved for this key; past `SEAL_LIMIT` it is `KeyringError`.
        `Keyring.reserve` makes room ahead; without it a message now and then waits here for one commit, which on SQLite
        must not happen inside a transaction of the same thread.
        """
        if self._left <= 0:
            self._left += self._reserve(self.dek_id)
        self._left -= 1
        return self.suite.seal(self._cipher, aad, plaintext)

    def open(self, aad: bytes, sealed: Buffer) -> bytes:
        """Open nonce 12 ‖ ciphertext ‖ tag 16, or raise `SealedError`."""
        view = memoryview(sealed)
        return self.suite.open(self._cipher, view[:NONCE], aad, view[NONCE:])

    def allow(self, count: int) -> None:
        """Add reserved messages; called by the Keyring after the database has counted them."""
        self._left += count

    def surrender(self) -> int:
        """Give back what is still reserved, for the next opening of the same key."""
        left, self._left = self._left, 0
        return left

    @property
    def left(self) -> int:
        """Messages still reserved."""
        return self._left

    def __reduce__(self) -> NoReturn:
        raise KeyringError("an open key is neither copied nor pickled")

    def __repr__(self) -> str:
        return f"<OpenDek {self.dek_id.hex()} {self.purpose}>"
