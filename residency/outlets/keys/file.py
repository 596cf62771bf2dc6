"""Key provider in a folder: one file per KEK version, sealed under the root key of this Site.

Rules kept here: folder 0700, files 0600; one writer at a time; a KEK file opens only for the tenant and jurisdiction it
was made for; a destroyed version leaves a mark and is refused for ever; key bytes are overwritten before they are
unlinked (which is no promise on SSDs: what counts is that wrapped keys elsewhere no longer open), and a new root makes
copies of destroyed KEK files worthless too.
Keep the folder away from the data folder and back it up apart, with a shorter life than the erasure horizon.
"""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from residency.errors import KeyRefusedError, KeyringError, RouteError, SealedError
from residency.outlets.keys.disk import erase, locked, private, publish
from residency.outlets.keys.roots import Root
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

    A missing root file is made, unless KEK files already lie there; with `passphrase` (a file) it lies under that.
    Raises `KeyringError`.
    """

    def __init__(
        self, folder: Path, *, site: str, root: bytes | Path | None = None, passphrase: Path | None = None
    ) -> None:
        self.site = site
        self._folder = folder
        self._ready: dict[KekRef, tuple[tuple[int, int], Cipher]] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._fixed = (_SUITE.cipher(root),) if isinstance(root, bytes) else None
        self._kept: Root | None = None
        if not isinstance(root, bytes):
            needed = any(folder.glob("*.kek"))
            self._kept = Root(root or folder / "root.key", site=site, passphrase=passphrase, needed=needed)

    async def create(self, route: Route, kek: KekRef) -> None:
        """Make this KEK version; harmless when it exists, refused when it was destroyed."""
        async with passing(route, site=self.site, action=Action.STORE, kind="keys", count=1):
            self._check(route, kek)
            await asyncio.to_thread(self._create, kek)

    async def wrap(self, route: Route, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """Wrap (32 bytes, aad) pairs; gives nonce 12 ‖ ciphertext 32 ‖ tag 16 for each."""
        async with passing(route, site=self.site, action=Action.STORE, kind="keys", count=len(items)):
            self._check(route, kek)
            if any(len(dek) != KEY for dek, _ in items):
                raise KeyringError("a DEK has 32 bytes")
            cipher = self._kek(kek)
            return [_SUITE.seal(cipher, aad, dek) for dek, aad in items]

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

    async def roll(self, keks: Sequence[KekRef]) -> dict[str, Any]:
        """Seal every KEK under a new root and erase the old one: copies of destroyed KEK files open no more.

        `keks` name tenant and jurisdiction of every KEK there is here; a file of none of them is `KeyringError`, since
        it would be lost. Killed at any point it is taken up by the next call, and everything opens meanwhile.
        """
        return await asyncio.to_thread(self._roll, {kek.id: kek for kek in keks if kek.site == self.site})

    async def status(self) -> dict[str, Any]:
        """Count KEK files; raises `KeyringError` when the folder cannot be read."""
        try:
            keks = sum(1 for _ in self._folder.glob("*.kek"))
            writable = os.access(self._folder, os.W_OK)
            root = self._kept
            facts = {} if root is None else {"passphrase": root.sealed, "root_rolling": root.rolling}
        except OSError as error:
            raise KeyringError(f"the key folder at {self.site} cannot be read", hint="check its mount") from error
        return {"provider": "file", "site": self.site, "keks": keks, "writable": writable, **facts}

    async def aclose(self) -> None:
        """Forget the prepared keys."""
        self._ready.clear()

    # --- within -----------------------------------------------------------------------------------------------------

    def _check(self, route: Route, kek: KekRef) -> None:
        if kek.site != self.site or route.tenant != kek.tenant:
            raise RouteError("a Route was shown for a KEK of another Site or tenant")

    def _path(self, kek: KekRef, ending: str = "kek") -> Path:
        return self._folder / f"{kek.id.hex()}-{kek.version}.{ending}"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with locked(self._folder):
                yield
        except OSError as error:
            raise KeyringError(
                f"the key folder at {self.site} cannot be written", hint="check its mount and the room on it"
            ) from error

    def _roots(self) -> tuple[Cipher, ...]:
        if self._kept is not None:
            return self._kept.ciphers
        return self._fixed or ()

    def _kek(self, kek: KekRef) -> Cipher:
        # Looked for on each call, so that a version destroyed by another process is gone here too.
        try:
            stat = self._path(kek).stat()
            mark = (stat.st_ino, stat.st_mtime_ns)
            held = self._ready.get(kek)
            if held is not None and held[0] == mark:
                return held[1]
            if self._path(kek, "destroyed").exists():  # killed between the mark and the unlinking
                raise KeyRefusedError(f"KEK {kek.id.hex()} version {kek.version} was destroyed")
            raw = private(self._path(kek), f"KEK {kek.id.hex()} version {kek.version} of {self.site}")
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
            raise KeyringError(
                f"a KEK file of {self.site} is half written, damaged or of a newer format",
                hint="restore it from its own backup",
            )
        for again in (False, True):
            if again and not (self._kept is not None and self._kept.refresh()):
                break  # nobody rolled the root meanwhile
            for root in self._roots():
                try:
                    return _SUITE.open(root, raw[4:16], _aad(kek), raw[16:])
                except SealedError:
                    continue
        raise KeyRefusedError("a KEK file does not open for this tenant and jurisdiction under this root")

    def _create(self, kek: KekRef) -> None:
        with self._writing():
            if self._path(kek, "destroyed").exists():
                raise KeyRefusedError(f"KEK {kek.id.hex()} version {kek.version} was destroyed")
            if not self._path(kek).exists():
                if self._kept is not None:
                    self._kept.refresh()  # else a root rolled by another process would leave this KEK under a dead one
                publish(self._path(kek), HEADER + _SUITE.seal(self._roots()[0], _aad(kek), new_key()))
        self._kek(kek)

    def _destroy(self, kek: KekRef) -> None:
        with self._writing():
            # 1. The mark comes first: whatever happens next, this version is never made again and opens no more.
            publish(self._path(kek, "destroyed"), b"")
            self._ready.pop(kek, None)
            # 2. Overwrite in place, then unlink.
            erase(self._path(kek))

    def _roll(self, known: dict[bytes, KekRef]) -> dict[str, Any]:
        root = self._kept
        if root is None:
            raise KeyringError(f"the root key of {self.site} is kept elsewhere", hint="roll it where it is kept")
        with self._writing():
            new = root.begin()
            sealed = 0
            for path in sorted(self._folder.glob("*.kek")):
                kek_id, _, version = path.stem.partition("-")
                kek = known.get(bytes.fromhex(kek_id))
                if kek is None:
                    raise KeyringError(
                        f"KEK {kek_id} at {self.site} is in no row of the database",
                        hint="the database may be older than the keys: restore a newer one, or move that file away",
                    )
                kek = replace(kek, version=int(version))
                raw = private(path, f"KEK {kek_id} version {version} of {self.site}")
                publish(path, HEADER + _SUITE.seal(new, _aad(kek), self._open(kek, raw)), replace=True)
                sealed += 1
            root.finish()
            self._ready.clear()
        return {"keks": sealed, "passphrase": root.sealed}


def _aad(kek: KekRef) -> bytes:
    return bind("domicile/v1/kek", kek.id, u32(kek.version), tenant_bytes(kek.tenant), kek.jurisdiction)
