"""Key provider in a folder: one file per KEK version, sealed under the root key of this Site.

Rules kept here: folder 0700, files 0600; a KEK file opens only for the tenant and jurisdiction it was made for; a
destroyed version leaves a mark and is refused for ever; key bytes are overwritten before they are unlinked (which is no
promise on SSDs: what counts is that wrapped keys elsewhere no longer open).
Keep the folder away from the data folder and back it up apart, with a shorter life than the erasure horizon.
"""

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from residency.errors import KeyRefusedError, KeyringError, RouteError, SealedError
from residency.outlets.passing import passing
from residency.ports import KekRef
from residency.route import Action, Route
from residency.seal import FORMAT, KEY, MAGIC, NONCE, OVERHEAD, SUITES, Cipher, bind, new_key, tenant_bytes, u32

HEADER: Final = MAGIC + bytes((FORMAT, 1))
"""How a KEK file begins: `DM`, format version, suite; then nonce 12 ‖ ciphertext 32 ‖ tag 16."""
KEPT: Final = 256
"""Prepared KEKs held in memory at most."""
_SUITE: Final = SUITES[1]


class FileKeys:
    """KEKs of one Site in `folder`. `root` is the root key, its file, or None for `root.key` in the folder.

    A missing root file is made (32 random bytes), unless KEK files already lie there. Raises `KeyringError`.
    """

    def __init__(self, folder: Path, *, site: str, root: bytes | Path | None = None) -> None:
        self.site = site
        self._folder = folder
        self._ready: dict[KekRef, tuple[tuple[int, int], Cipher]] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._root = _SUITE.cipher(root if isinstance(root, bytes) else self._load_root(root or folder / "root.key"))

    async def create(self, route: Route, kek: KekRef) -> None:
        """Make this KEK version; harmless when it exists, refused when it was destroyed."""
        async with passing(route, site=self.site, action=Action.STORE, kind="keys", count=1):
            self._check(route, kek)
            await asyncio.to_thread(self._create, kek)

    async def wrap(self, route: Route, kek: KekRef, dek: bytes, aad: bytes) -> bytes:
        """Wrap 32 bytes; gives nonce 12 ‖ ciphertext 32 ‖ tag 16."""
        async with passing(route, site=self.site, action=Action.STORE, kind="keys", count=1):
            self._check(route, kek)
            if len(dek) != KEY:
                raise KeyringError("a DEK has 32 bytes")
            return _SUITE.seal(self._kek(kek), aad, dek)

    async def unwrap(self, route: Route, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """Unwrap (wrapped, aad) pairs, all or nothing; a pair that does not open is `KeyRefusedError`."""
        async with passing(route, site=self.site, action=Action.OPEN, kind="keys", count=len(items)):
            self._check(route, kek)
            cipher = self._kek(kek)
            try:
                return [_SUITE.open(cipher, wrapped[:NONCE], aad, wrapped[NONCE:]) for wrapped, aad in items]
            except SealedError as error:
                raise KeyRefusedError("a wrapped key does not open in this context") from error

    async def destroy(self, route: Route, kek: KekRef) -> None:
        """Mark this version destroyed, overwrite its file and unlink it; harmless when that was done."""
        async with passing(route, site=self.site, action=Action.ERASE, kind="keys", count=1):
            self._check(route, kek)
            await asyncio.to_thread(self._destroy, kek)

    async def status(self) -> dict[str, Any]:
        """Count KEK files; raises `KeyringError` when the folder cannot be read."""
        try:
            keks = sum(1 for _ in self._folder.glob("*.kek"))
            writable = os.access(self._folder, os.W_OK)
        except OSError as error:
            raise KeyringError(f"the key folder at {self.site} cannot be read", hint="check its mount") from error
        return {"provider": "file", "site": self.site, "keks": keks, "writable": writable}

    async def aclose(self) -> None:
        """Forget the prepared keys."""
        self._ready.clear()

    def _check(self, route: Route, kek: KekRef) -> None:
        if kek.site != self.site or route.tenant != kek.tenant:
            raise RouteError("a Route was shown for a KEK of another Site or tenant")

    def _path(self, kek: KekRef, ending: str = "kek") -> Path:
        return self._folder / f"{kek.id.hex()}-{kek.version}.{ending}"

    def _kek(self, kek: KekRef) -> Cipher:
        # Looked for on each call, so that a version destroyed by another process is gone here too.
        try:
            stat = self._path(kek).stat()
            mark = (stat.st_ino, stat.st_mtime_ns)
            held = self._ready.get(kek)
            if held is not None and held[0] == mark:
                return held[1]
            raw = self._path(kek).read_bytes()
        except FileNotFoundError:
            self._ready.pop(kek, None)
            if self._path(kek, "destroyed").exists():
                raise KeyRefusedError(f"KEK {kek.id.hex()} version {kek.version} was destroyed") from None
            raise KeyringError(
                f"KEK {kek.id.hex()} version {kek.version} is missing at {self.site}",
                hint="restore the key folder from its own backup",
            ) from None
        except OSError as error:
            raise KeyringError(f"the key folder at {self.site} cannot be read", hint="check its mount") from error
        cipher = _SUITE.cipher(self._open(kek, raw))
        if len(self._ready) >= KEPT:
            self._ready.clear()
        self._ready[kek] = (mark, cipher)
        return cipher

    def _open(self, kek: KekRef, raw: bytes) -> bytes:
        if raw[:4] != HEADER or len(raw) != len(HEADER) + OVERHEAD + KEY:
            raise KeyringError("a KEK file is damaged or of a newer format", hint="restore it from its own backup")
        try:
            return _SUITE.open(self._root, raw[4:16], _aad(kek), raw[16:])
        except SealedError as error:
            raise KeyRefusedError(
                "a KEK file does not open for this tenant and jurisdiction under this root"
            ) from error

    def _create(self, kek: KekRef) -> None:
        if self._path(kek, "destroyed").exists():
            raise KeyRefusedError(f"KEK {kek.id.hex()} version {kek.version} was destroyed")
        if not self._path(kek).exists():
            self._publish(self._path(kek), HEADER + _SUITE.seal(self._root, _aad(kek), new_key()))
        self._kek(kek)

    def _destroy(self, kek: KekRef) -> None:
        try:
            # 1. The mark comes first: whatever happens next, this version is never made again.
            self._publish(self._path(kek, "destroyed"), b"")
            # 2. Overwrite in place, then unlink.
            with suppress(FileNotFoundError), self._path(kek).open("r+b") as file:
                file.write(os.urandom(len(HEADER) + OVERHEAD + KEY))
                file.flush()
                os.fsync(file.fileno())
            self._path(kek).unlink(missing_ok=True)
            _sync(self._folder)
        except OSError as error:
            raise KeyringError(f"a KEK at {self.site} could not be destroyed", hint="check the key folder") from error
        self._ready.pop(kek, None)

    def _publish(self, path: Path, content: bytes) -> None:
        # Written aside and linked: a half-written key is never seen, and of two makers one wins.
        aside = path.with_name(f".{os.urandom(8).hex()}")
        try:
            with os.fdopen(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(aside, path)
            aside.unlink()
            _sync(path.parent)
        except OSError as error:
            raise KeyringError(f"the key folder at {self.site} cannot be written", hint="check its mount") from error

    def _load_root(self, path: Path) -> bytes:
        if not path.exists():
            if any(self._folder.glob("*.kek")):
                raise KeyringError(f"the root key of {self.site} is missing", hint="restore it from its own backup")
            self._publish(path, new_key())
        if path.stat().st_mode & 0o077:
            raise KeyringError(f"the root key of {self.site} can be read by others", hint="chmod 600 the root key")
        root = path.read_bytes()
        if len(root) != KEY:
            raise KeyringError(f"the root key of {self.site} is not 32 bytes", hint="restore it from its own backup")
        return root


def _aad(kek: KekRef) -> bytes:
    return bind("domicile/v1/kek", kek.id, u32(kek.version), tenant_bytes(kek.tenant), kek.jurisdiction)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
