"""Signed notes: who signed a text, and whether those are the signers that a reader trusts.

Rules kept here: C2SP signed-note, tlog-cosignature and tlog-policy. A signature of an unknown key is passed over; a
signature of a known key that does not hold condemns the whole note; at least one known key must have signed.
No IO. Keys are Ed25519: type 0x01 signs the text (the log), type 0x04 signs time and text (a witness).
"""

import hashlib
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from residency.errors import LedgerError
from residency.tlog import decode, encode

LOG: Final = 1
"""Signature type of a log: Ed25519 over the note's text."""
WITNESS: Final = 4
"""Signature type of a witness: Ed25519 over a time and the note's text."""
DASH: Final = "\u2014 "
MOST_SIGNATURES: Final = 64
"""More than the 16 that every reader of notes must take."""
_NAME = re.compile(r"[^\s+]+")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_CONTROLS = bytes({*range(32)} - {10})
"""The same as bytes; counting them this way takes a tenth of the time on a text of 3 kB."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with the name it signs under; `kind` is `LOG` or `WITNESS`, `key` 32 bytes."""

    name: str
    key: bytes
    kind: int = LOG

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell keys of one name apart: SHA-256(name ‖ 0x0A ‖ kind ‖ key)[:4]."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.key).digest()[:4]

    @property
    def vkey(self) -> str:
        """The key as text: `name+hex(key id)+base64(kind ‖ key)`."""
        return f"{self.name}+{self.key_id.hex()}+{encode(bytes([self.kind]) + self.key)}"

    @classmethod
    def parse(cls, vkey: str) -> "Verifier":
        """Read a vkey; raises `LedgerError` when a part is missing or the key id does not fit."""
        parts = vkey.split("+", 2)
        if len(parts) != 3 or not _NAME.fullmatch(parts[0]):
            raise LedgerError("not a public key of a log or witness", hint="a vkey reads name+keyid+base64")
        packed = decode(parts[2])
        if len(packed) != 33 or packed[0] not in (LOG, WITNESS):
            raise LedgerError("the key is not Ed25519 of type 1 or 4", hint="other types are not read yet")
        found = cls(parts[0], packed[1:], packed[0])
        if found.key_id.hex() != parts[1]:
            raise LedgerError("the vkey's key id does not fit its key", hint="copy the whole vkey anew")
        return found

    def holds(self, text: str, signature: bytes) -> bool:
        """Say whether `signature` (without key id) is this key's over the note text."""
        message = text.encode()
        if self.kind == WITNESS:
            if len(signature) != 72:
                return False
            message, signature = _timed(struct.unpack(">Q", signature[:8])[0], text), signature[8:]
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, message)
        except InvalidSignature:
            return False
        return True


def _timed(time: int, text: str) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


class Signer:
    """A log's private key with the name it signs under; made once, since the key id costs as much as a signature."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._begin = f"{DASH}{name} "
        self._key_id = Verifier(name, key.public_key().public_bytes_raw()).key_id

    def sign(self, text: str) -> str:
        """Sign a note text; gives one signature line without its newline. The text must end in a newline."""
        return self._signed(_check_text(text))

    def sign_line(self, body: bytes) -> str:
        """Sign one line of canonical JSON and its newline, without looking: JSON escapes every control character."""
        return self._signed(body + b"\n")

    def _signed(self, text: bytes) -> str:
        return self._begin + encode(self._key_id + self._key.sign(text))


def sign(text: str, name: str, key: Ed25519PrivateKey) -> str:
    """Sign a note text as a log, once; see `Signer`."""
    return Signer(name, key).sign(text)


def cosign(text: str, name: str, key: Ed25519PrivateKey, time: int) -> str:
    """Sign a checkpoint text as a witness at `time` (POSIX seconds); gives one signature line."""
    _check_text(text)
    signer = Verifier(name, key.public_key().public_bytes_raw(), WITNESS)
    return f"{DASH}{name} {encode(signer.key_id + struct.pack('>Q', time) + key.sign(_timed(time, text)))}"


def _check_text(text: str) -> bytes:
    data = text.encode()
    if not text.endswith("\n") or len(data.translate(None, _CONTROLS)) != len(data):
        raise LedgerError("a note text ends in a newline and holds no control characters")
    return data


@dataclass(frozen=True, slots=True)
class Signature:
    """One line below a note."""

    name: str
    key_id: bytes
    value: bytes

    @classmethod
    def parse(cls, line: str) -> "Signature":
        """Read a signature line without its newline; raises `LedgerError` on any other form."""
        name, _, value = line.removeprefix(DASH).partition(" ")
        if not line.startswith(DASH) or not _NAME.fullmatch(name):
            raise LedgerError("not a signature line", hint="it begins with a long dash, a name and base64")
        packed = decode(value)
        if len(packed) < 5:
            raise LedgerError("a signature is too short", hint="copy the whole line anew")
        return cls(name, packed[:4], packed[4:])


def signers(text: str, lines: Iterable[str], trusted: Iterable[Verifier]) -> list[Verifier]:
    """Give the trusted keys that signed `text` by these lines; unknown keys are passed over.

    Raises `LedgerError` when a line is no signature, or a trusted key's signature does not hold.
    """
    known = {(key.name, key.key_id): key for key in trusted}
    found: list[Verifier] = []
    for count, line in enumerate(lines):
        if count >= MOST_SIGNATURES:
            raise LedgerError(f"more than {MOST_SIGNATURES} signatures", hint="take the note anew")
        signature = Signature.parse(line)
        key = known.get((signature.name, signature.key_id))
        if key is None or key in found:
            continue
        if not key.holds(text, signature.value):
            raise LedgerError(f"bad signature of {key.name}", hint="the text or its signature was changed")
        found.append(key)
    return found


def split(note: str) -> tuple[str, list[str]]:
    """Cut a signed note into its text and its signature lines; raises `LedgerError` on any other form."""
    if _CONTROL.search(note):
        raise LedgerError("a note holds no control characters", hint="take the note anew")
    text, gap, below = note.rpartition("\n\n")
    if not gap or not below.endswith("\n"):
        raise LedgerError("not a signed note", hint="text, an empty line, signature lines")
    return text + "\n", below.removesuffix("\n").split("\n")


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom a reader trusts: logs, witnesses by the name the file gives them, and how many must have cosigned.

    Source: c2sp.org/tlog-policy. `groups` maps a name to (least count, members).
    """

    logs: tuple[Verifier, ...]
    witnesses: dict[str, Verifier] = field(default_factory=dict)
    groups: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    quorum: str = "none"

    @classmethod
    def parse(cls, text: str) -> "Trust":
        """Read a trust file; raises `LedgerError` naming the line that is wrong."""
        logs: list[Verifier] = []
        witnesses: dict[str, Verifier] = {}
        groups: dict[str, tuple[int, tuple[str, ...]]] = {}
        quorum: str | None = None
        members: set[str] = set()
        for no, line in enumerate(text.split("\n"), 1):
            match re.split(r"[ \t]+", line.strip(" \t")):
                case [""]:
                    continue
                case [first, *_] if first.startswith("#"):
                    continue
                case ["log", vkey] | ["log", vkey, _]:
                    logs.append(Verifier.parse(vkey))
                    fits = logs[-1].kind == LOG
                case ["witness", name, vkey] | ["witness", name, vkey, _]:
                    fits = name not in {"none", *witnesses, *groups}
                    witnesses[name] = Verifier.parse(vkey)
                    fits = fits and witnesses[name].kind == WITNESS
                case ["group", name, least, *names]:
                    fits = name not in {"none", *witnesses, *groups} and bool(names) and not members & set(names)
                    fits = fits and len(set(names)) == len(names) and set(names) <= {*witnesses, *groups}
                    count = {"all": len(names), "any": 1}.get(least) or (int(least) if least.isdigit() else 0)
                    fits = fits and 1 <= count <= len(names)
                    members |= set(names)
                    groups[name] = (count, tuple(names))
                case ["quorum", name]:
                    fits = quorum is None and name in {"none", *witnesses, *groups}
                    quorum = name
                case _:
                    fits = False
            if not fits:
                raise LedgerError(f"the trust file's line {no} is wrong", hint="see c2sp.org/tlog-policy")
        keys = [*logs, *witnesses.values()]
        if quorum is None or len({(k.kind, k.key) for k in keys}) != len(keys):
            raise LedgerError("the trust file needs one quorum line and no key twice", hint="see c2sp.org/tlog-policy")
        return cls(tuple(logs), witnesses, groups, quorum)

    def seen(self, cosigners: Iterable[Verifier]) -> tuple[int, int]:
        """Count for the quorum: (members that cosigned, members needed); (0, 0) where none is asked."""
        have = set(cosigners)

        def met(name: str) -> bool:
            if name in self.witnesses:
                return self.witnesses[name] in have
            least, names = self.groups[name]
            return sum(map(met, names)) >= least

        if self.quorum == "none":
            return 0, 0
        least, names = self.groups.get(self.quorum, (1, (self.quorum,)))
        return sum(map(met, names)), least
