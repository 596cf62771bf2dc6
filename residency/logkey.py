"""LogKey: the Ledger's signing key on disk, its epoch, and the file that keeps its newest checkpoint.

Rules kept here: the key file is readable by its owner alone and made in one step, so that two processes starting at
once end with one key; the checkpoint is replaced as a whole and reaches the disk before the transaction that signed it.
"""

import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from residency.errors import LedgerError
from residency.notes import Verifier


@dataclass(frozen=True, slots=True)
class LogKey:
    """The Ed25519 key that signs Receipts and checkpoints."""

    private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """Make a new key that is on no disk."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """Read the key (PEM, PKCS 8), or make one where there is none.

        Raises `LedgerError` when the file can be read by others, or holds no Ed25519 key.
        """
        if not path.exists():
            text = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            _write(path, text, replace=False)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise LedgerError("others can read the ledger's key file", hint=f"chmod 600 on {path.name}")
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except ValueError as error:
            raise LedgerError("the ledger's key file is damaged", hint=f"restore {path.name}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise LedgerError("the ledger's key is not Ed25519", hint=f"restore {path.name}")
        return cls(key)

    def vkey(self, name: str) -> str:
        """The public key as a vkey of that name."""
        return Verifier(name, self.private.public_key().public_bytes_raw()).vkey


def keep(path: Path, note: str) -> None:
    """Replace the kept checkpoint by a newer one, durably."""
    _write(path, note.encode(), replace=True)


def epoch(path: Path) -> int:
    """Give the Ledger's epoch, the last part of its origin; 1 until `begin` raised it."""
    try:
        return int(path.read_text(encoding="ascii")) if path.exists() else 1
    except (OSError, ValueError) as error:
        raise LedgerError("the file with the ledger's epoch is damaged", hint="write its number, such as 2") from error


def begin(path: Path) -> int:
    """Raise the epoch, durably: the log goes on under another name, since what it signed no longer stands."""
    number = epoch(path) + 1
    _write(path, f"{number}\n".encode(), replace=True)
    return number


def _write(path: Path, data: bytes, *, replace: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    try:
        if replace:
            draft.replace(path)
        else:
            path.hardlink_to(draft)
    except FileExistsError:
        pass  # another process was first; its key holds
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
