"""Manifest: what a folder held when it was last taken in, so that what did not change is not sent again.

Rules kept here: a path and a file's bytes stand in it as keyed hashes, never in clear; it is one file of the
home per tenant and Collection, written whole or not at all; a link out of the folder, and what is no plain file, is
named and not followed. Its entries are hints: a Document that is no longer there is taken in again.
"""

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

FORMAT: Final = 1
BLOCK: Final = 1 << 20


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One file as it was taken in. Hashes are raw bytes; `modified` is in nanoseconds."""

    root: bytes
    size: int
    modified: int
    content: bytes
    claim: bytes
    document: str


class _Kept(msgspec.Struct, frozen=True):
    format: int
    entries: dict[bytes, Entry]


@dataclass(frozen=True, slots=True)
class Found:
    """A file of a folder. `shown` is its path below the folder; `fault` says why it is not taken."""

    path: Path
    shown: str
    size: int = 0
    modified: int = 0
    fault: str = ""


class Manifest:
    """The entries by keyed hash of their path. `mac` makes such a hash of a text."""

    def __init__(self, file: Path, mac: Callable[[str], bytes]) -> None:
        self.entries: dict[bytes, Entry] = {}
        self._file = file
        self._mac = mac
        if file.exists():
            try:
                kept = msgspec.msgpack.decode(file.read_bytes(), type=_Kept)
            except msgspec.MsgspecError:
                return  # only hints: without them every file is hashed and offered once more
            self.entries = kept.entries if kept.format == FORMAT else {}

    def key(self, path: Path) -> bytes:
        """Give the key of a path."""
        return self._mac(path.absolute().as_posix())

    def below(self, root: Path) -> set[bytes]:
        """Give the keys of all entries of a folder."""
        mine = self.key(root)
        return {key for key, entry in self.entries.items() if entry.root == mine}

    def save(self) -> None:
        """Write it durably, in place of the older one."""
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = self._file.with_suffix(f".{secrets.token_hex(4)}")
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(msgspec.msgpack.encode(_Kept(FORMAT, self.entries)))
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._file)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def files_below(root: Path) -> Iterator[Found]:
    """Give every file below a folder, sorted by folder; hidden ones are left out, what is not taken says why."""
    faults: list[Found] = []

    def unreadable(error: OSError) -> None:
        path = Path(error.filename)
        faults.append(Found(path, _shown(path, root), fault=f"the folder cannot be read: {error.strerror}"))

    real = root.resolve()
    for place, folders, names in os.walk(root, onerror=unreadable):
        links = [name for name in folders if Path(place, name).is_symlink()]
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in links)
        for name in sorted((*names, *links)):
            if not name.startswith("."):
                path = Path(place, name)
                found = _looked_at(path, _shown(path, root), real)
                if found is not None:
                    yield found
    yield from faults


def _looked_at(path: Path, shown: str, root: Path) -> Found | None:
    try:
        held = path.lstat()
        if stat.S_ISREG(held.st_mode):
            return Found(path, shown, held.st_size, held.st_mtime_ns)
        if not stat.S_ISLNK(held.st_mode):
            return Found(path, shown, fault="it is no plain file")
        aim = path.resolve()
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", "") or "a loop of links"
        return Found(path, shown, fault=f"it cannot be looked at: {why}")
    if aim.is_relative_to(root) and aim.exists():
        return None  # what it leads to is taken under its own name
    return Found(path, shown, fault="it is a link that leads out of the folder")


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
