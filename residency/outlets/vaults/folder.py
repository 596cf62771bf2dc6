"""FolderVault: sealed originals and work artefacts as files of one folder.

Rules kept here: names are ids of ours, checked before they become a path; a file appears whole or not at all (written
aside, fsynced, renamed, the folder fsynced); folders are 0700 and files 0600; a full disk is refused before the first
byte. It sees sealed bytes alone. What a dead process left aside is removed at the next start: the kernel drops the lock
of a dead writer, and no living one is touched.
"""

import asyncio
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from residency.errors import SealedError, SiteError, StorageFullError
from residency.outlets.passing import passing
from residency.ports import VaultWriter
from residency.route import Action, Route

_NAME: Final = re.compile(r"[0-9a-z][0-9a-z_-]{1,63}(\.[0-9a-z_-]{1,63}){0,4}")
_PREFIX: Final = re.compile(r"[0-9a-z][0-9a-z_.-]{0,199}|")
_ASIDE: Final = "aside"
_GIB: Final = 1 << 30
STOP: Final = (0.10, 10 * _GIB)
RESUME: Final = (0.15, 15 * _GIB)
"""Writing stops when less than this share of the volume is free, or this many bytes where that is less; it goes on
above the second pair, so that it does not flutter."""


class FolderVault:
    """A `Vault` in a local folder. Names: an id of hex digits or words, then up to four parts after dots."""

    def __init__(
        self,
        folder: Path,
        *,
        site: str,
        stop: tuple[float, int] = STOP,
        resume: tuple[float, int] = RESUME,
    ) -> None:
        self.site = site
        self._folder, self._stop, self._resume = folder, stop, resume
        self._full = False
        aside = folder / _ASIDE
        aside.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        for left in aside.iterdir():
            _remove_dead(left)

    async def create(self, route: Route, name: str) -> VaultWriter:
        """Begin a sealed file (Action store); it is invisible until committed. Raises `StorageFullError`."""
        async with passing(route, site=self.site, action=Action.STORE, kind="vault", count=1):
            return await asyncio.to_thread(self._begin, self._path(name))

    async def put(self, route: Route, name: str, parts: Iterable[bytes]) -> None:
        """Write a whole sealed file durably (Action store), in place of an older one. Raises `StorageFullError`."""
        async with passing(route, site=self.site, action=Action.STORE, kind="vault", within=300.0, count=1) as touch:
            touch.bytes = await asyncio.to_thread(self._put, self._path(name), parts)

    async def read(self, route: Route, name: str) -> bytes:
        """Give the whole sealed file (Action open). Raises `SealedError` when it is absent."""
        async with passing(route, site=self.site, action=Action.OPEN, kind="vault", within=300.0, count=1) as touch:
            try:
                sealed = await asyncio.to_thread(self._path(name).read_bytes)
            except FileNotFoundError as error:
                raise SealedError("the vault holds no file of that name", hint="it was erased or never kept") from error
            except OSError as error:
                raise _fault(error, self.site) from error
            touch.bytes = len(sealed)
            return sealed

    async def delete(self, route: Route, names: Sequence[str]) -> int:
        """Delete durably (Action erase) and give how many existed."""
        async with passing(route, site=self.site, action=Action.ERASE, kind="vault", count=len(names)):
            return await asyncio.to_thread(self._delete, [self._path(name) for name in names])

    async def names(self, route: Route, prefix: str) -> list[str]:
        """List the names that begin so, sorted (Action search)."""
        if not _PREFIX.fullmatch(prefix):
            raise ValueError("a vault name begins with an id of ours")
        async with passing(route, site=self.site, action=Action.SEARCH, kind="vault", within=300.0) as touch:
            found = await asyncio.to_thread(self._names, prefix)
            touch.count = len(found)
            return found

    async def aclose(self) -> None:
        """Nothing is held open."""

    def _path(self, name: str) -> Path:
        """Make the path of a name; two of its digits name the folder, so that none grows too large."""
        if not _NAME.fullmatch(name):
            raise ValueError("a vault name is an id of ours, with up to four parts after dots")
        return self._folder / name[:2] / name

    def _begin(self, path: Path) -> "_FolderWriter":
        self._refuse_when_full()
        try:
            if not path.parent.exists():
                path.parent.mkdir(mode=0o700, exist_ok=True)
                _sync_folder(self._folder)
            return _FolderWriter(self, self._folder / _ASIDE / secrets.token_hex(16), path)
        except OSError as error:
            raise _fault(error, self.site) from error

    def _put(self, path: Path, parts: Iterable[bytes]) -> int:
        writer = self._begin(path)
        size = 0
        try:
            for part in parts:
                writer.write(part)
                size += len(part)
            writer.publish()
        except BaseException:
            writer.drop()
            raise
        return size

    def _delete(self, paths: list[Path]) -> int:
        found = 0
        try:
            for path in paths:
                if path.exists():
                    path.unlink()
                    found += 1
            for folder in {path.parent for path in paths if path.parent.exists()}:
                _sync_folder(folder)
        except OSError as error:
            raise _fault(error, self.site) from error
        return found

    def _names(self, prefix: str) -> list[str]:
        places = [self._folder / prefix[:2]] if len(prefix) > 1 else self._folder.glob(f"{prefix}*")
        found = (file.name for place in places if place.is_dir() and place.name != _ASIDE for file in place.iterdir())
        return sorted(name for name in found if name.startswith(prefix))

    def _refuse_when_full(self) -> None:
        """Raise `StorageFullError` below the watermark, and after that until the higher one is reached."""
        usage = shutil.disk_usage(self._folder)
        share, most = self._resume if self._full else self._stop
        self._full = usage.free < min(share * usage.total, most)
        if self._full:
            raise StorageFullError(
                "the vault's volume is nearly full", site=self.site, hint="free space or grow it; uploads then go on"
            )


class _FolderWriter:
    """One sealed file being written aside; the lock on it says that its writer lives."""

    def __init__(self, vault: FolderVault, aside: Path, path: Path) -> None:
        self._vault, self._aside, self._path = vault, aside, path
        self._fd = _open_locked(aside)

    async def append(self, sealed: bytes) -> None:
        """Add sealed bytes. Raises `StorageFullError`."""
        await asyncio.to_thread(self.write, sealed)

    async def sync(self) -> None:
        """Make what was appended durable without publishing it."""
        await asyncio.to_thread(self._sync)

    async def commit(self) -> None:
        """Fsync, give it its name, fsync the folder."""
        await asyncio.to_thread(self.publish)

    async def abandon(self) -> None:
        """Remove what was written; harmless after `commit`."""
        await asyncio.to_thread(self.drop)

    def write(self, sealed: bytes) -> None:
        rest = memoryview(sealed)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise _fault(error, self._vault.site) from error

    def _sync(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise _fault(error, self._vault.site) from error

    def publish(self) -> None:
        self._sync()
        try:
            self._aside.rename(self._path)
            _sync_folder(self._path.parent)
        except OSError as error:
            raise _fault(error, self._vault.site) from error
        finally:
            self._close()

    def drop(self) -> None:
        self._aside.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open_locked(aside: Path) -> int:
    """Make a new file and hold its lock; once more if a starting process swept it in between."""
    while True:
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)


def _remove_dead(aside: Path) -> None:
    """Remove a half-written file unless its writer still holds the lock."""
    try:
        fd = os.open(aside, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # its writer published it this moment
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        aside.unlink(missing_ok=True)
    except BlockingIOError:
        pass
    finally:
        os.close(fd)


def _sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _fault(error: OSError, site: str) -> SiteError:
    """Say what the system's error means here, without the path it names."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return StorageFullError("the vault's volume is full", site=site, hint="free space or grow it")
    name = errno.errorcode.get(error.errno or 0, "unknown")
    return SiteError(f"the vault failed: {name}", site=site, hint="see doctor")
