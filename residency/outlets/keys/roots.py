"""roots: the root key of a key folder, bare or under a passphrase, and its replacement by a new one.

Rules kept here: the root of one Site opens nothing of another when it is under a passphrase; what a passphrase costs to
guess stands in the file and is bounded, so that a forged file cannot eat the memory; while a root is being rolled both
lie there and both open, whoever was killed in between; an old root is overwritten before it is unlinked.
"""

import os
import unicodedata
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from residency.errors import KeyringError, SealedError
from residency.outlets.keys.disk import erase, private, publish, secret, sync
from residency.seal import FORMAT, KEY, MAGIC, NONCE, OVERHEAD, SUITES, Cipher, bind, new_key

SCRYPT: Final = 1
"""Number of the one way known to stretch a passphrase."""
COST: Final = (17, 8, 1)
"""log2 N, r and p of scrypt (RFC 7914): 128 MiB and some tenths of a second for a guess."""
COST_LIMIT: Final = (20, 16, 4)
SHORTEST: Final = 12
"""Characters of a new passphrase at least."""
_HEAD: Final = MAGIC + bytes((FORMAT, 1, SCRYPT))
_SALT: Final = 16
_PREFIX: Final = len(_HEAD) + len(COST) + _SALT
SEALED: Final = _PREFIX + OVERHEAD + KEY
"""Bytes under a passphrase: `DM`, format, suite, way, log2 N, r, p, salt 16, nonce 12, ciphertext 32, tag 16."""
_SUITE: Final = SUITES[1]


class Root:
    """The root key of one Site in a file. `passphrase` is the file that holds one, or None for a bare root.

    Raises `KeyringError` when it is missing although KEKs are there (`needed`), half written, open to others, or under
    another passphrase. A missing one is made.
    """

    def __init__(self, path: Path, *, site: str, passphrase: Path | None = None, needed: bool = False) -> None:
        self._path = path
        self._site = site
        self._passphrase = passphrase
        self._next = path.with_name(path.name + ".next")
        self._old = path.with_name(path.name + ".old")
        if not path.exists():
            if needed:
                raise KeyringError(f"the root key of {site} is missing", hint="restore it from its own backup")
            try:
                publish(path, self._encoded(new_key()))
            except OSError as error:
                raise KeyringError(f"the root key of {site} cannot be written", hint="check its folder") from error
        self.ciphers: tuple[Cipher, ...] = ()
        """The root in force first; then the one to come, while a roll is under way."""
        self._mark: tuple[object, ...] = ()
        self.refresh()

    @property
    def sealed(self) -> bool:
        """Whether it lies under a passphrase."""
        return self._path.stat().st_size == SEALED

    @property
    def rolling(self) -> bool:
        """Whether a roll was begun and not finished."""
        return self._next.exists()

    def refresh(self) -> bool:
        """Read anew what another process may have rolled; gives whether anything changed."""
        mark = (_mark(self._path), _mark(self._next))
        if mark == self._mark:
            return False
        found = [self._read(self._path)]
        if mark[1] is not None:
            found.append(self._read(self._next))
        self.ciphers, self._mark = tuple(_SUITE.cipher(key) for key in found), mark
        return True

    def begin(self) -> Cipher:
        """Lay a new root beside the one in force, or take up the one that is there; hold the folder's lock."""
        if self._old.exists():
            self._end()
        if not self._next.exists():
            publish(self._next, self._encoded(new_key()))
        self.refresh()
        return self.ciphers[1]

    def finish(self) -> None:
        """Put the new root in force and erase the old; every KEK must lie under the new one by now."""
        if not self._old.exists():
            os.link(self._path, self._old)
        self._next.replace(self._path)
        sync(self._path.parent)
        self._end()
        self.refresh()

    def _end(self) -> None:
        # A kill may have come between the link and the new name: then both names are of one file, and it is in force.
        if self._old.stat().st_ino == self._path.stat().st_ino:
            self._old.unlink()
        else:
            erase(self._old)

    def _read(self, path: Path) -> bytes:
        raw = private(path, f"the root key of {self._site}")
        if len(raw) == KEY:
            return raw
        if len(raw) != SEALED or not raw.startswith(_HEAD):
            raise KeyringError(
                f"the root key of {self._site} is half written or damaged", hint="restore it from its own backup"
            )
        cost = (raw[5], raw[6], raw[7])
        if any(not 0 < asked <= most for asked, most in zip(cost, COST_LIMIT, strict=True)):
            raise KeyringError(f"the root key of {self._site} asks for too much work", hint="restore its backup")
        try:
            cipher = self._stretched(raw[8:_PREFIX], cost)
            return _SUITE.open(cipher, raw[_PREFIX : _PREFIX + NONCE], self._aad(raw[:_PREFIX]), raw[_PREFIX + NONCE :])
        except SealedError as error:
            raise KeyringError(
                f"the passphrase of {self._site} is wrong, or its root key is damaged",
                hint="check passphrase_file; without the right passphrase no key of this Site opens",
            ) from error

    def _encoded(self, key: bytes) -> bytes:
        if self._passphrase is None:
            return key
        if len(secret(self._passphrase, self._what)) < SHORTEST:
            raise KeyringError(f"{self._what} is short", hint=f"take {SHORTEST} characters or more, chosen by dice")
        prefix = _HEAD + bytes(COST) + os.urandom(_SALT)
        return prefix + _SUITE.seal(self._stretched(prefix[8:], COST), self._aad(prefix), key)

    def _stretched(self, salt: bytes, cost: tuple[int, int, int]) -> Cipher:
        if self._passphrase is None:
            raise KeyringError(
                f"the root key of {self._site} is under a passphrase", hint="name its passphrase_file in the fleet file"
            )
        text = unicodedata.normalize("NFC", secret(self._passphrase, self._what)).encode()
        return _SUITE.cipher(Scrypt(salt=salt, length=KEY, n=1 << cost[0], r=cost[1], p=cost[2]).derive(text))

    @property
    def _what(self) -> str:
        return f"the passphrase of {self._site}"

    def _aad(self, prefix: bytes) -> bytes:
        return bind("domicile/v1/root", prefix, self._site)


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns
