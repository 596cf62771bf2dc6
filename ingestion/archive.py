"""Archive: the file that a backup of a Zone is, written and read as a stream.

An uncompressed tar, so that anybody can list it. Its members come in this order:

    shared/<n>                       rows that several Documents need: tenants, Collections, Tags, KEKs, search keysets
    document/<id>.<version>/rows     one version: its row, its keys (wrapped), ids of its points; or that it was erased
    document/<id>.<version>/file/<name>      a sealed file of the vault, byte for byte
    document/<id>.<version>/points/<n>       sealed points of the index
    manifest.json, manifest.sig      counts, Tags, KEKs by reference, the digest of all members; and who signed that

Rows and points are MessagePack. The digest is SHA-256 over a line `name size sha256` for each member in order.
Rules kept here: no key in clear and no KEK ever goes in; a file appears whole or not at all; nothing of an archive is
believed before every byte of it was compared with the manifest, and the manifest with its signature.
"""

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from ingestion.errors import BackupError
from residency.errors import ResidencyError
from residency.notes import Signature, Verifier

FORMAT: Final = "domicile-backup/v1"
BLOCK: Final = 1 << 20
MOST: Final = 4 << 30
"""Bytes of the largest member; a sealed file is the largest there is."""
_NAME: Final = re.compile(
    r"shared/\d{6}|document/[0-9a-f]{32}\.\d{1,9}/(rows|points/\d{6}|file/[0-9a-z][0-9a-z_.-]{0,199})|manifest\.(json|sig)"
)
Progress = Callable[[int], None]
"""Called with the bytes done so far."""


class ArchiveWriter:
    """Writes members one by one; `finish` gives the file its name, `abandon` leaves nothing."""

    def __init__(self, path: Path, *, progress: Progress = lambda _done: None) -> None:
        if path.exists():
            raise BackupError(f"{path.name} is there already", hint="name another file; no backup is overwritten")
        self._path, self._aside, self._progress = path, path.with_name(f".{path.name}.part"), progress
        self._index, self.members, self.bytes = hashlib.sha256(), 0, 0
        try:
            made = os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            self._file: IO[bytes] = os.fdopen(made, "wb")
        except OSError as error:
            raise _fault(error) from error
        self._tar = tarfile.open(  # noqa: SIM115 - closed by `finish`
            fileobj=self._file, mode="w|", format=tarfile.USTAR_FORMAT, bufsize=BLOCK
        )

    def add(self, name: str, data: bytes) -> None:
        """Write one member. Raises `BackupError` when the volume is full."""
        self._index.update(_line(name, len(data), hashlib.sha256(data).hexdigest()))
        self.members += 1
        self.bytes += len(data)
        self._put(name, data)
        self._progress(self.bytes)

    def add_rows(self, name: str, rows: Any) -> None:
        """Write one member of MessagePack."""
        self.add(name, msgspec.msgpack.encode(rows))

    def finish(self, manifest: dict[str, Any], sign: Callable[[bytes], str]) -> dict[str, Any]:
        """Write the manifest with what was counted, sign it, make everything durable; gives the manifest."""
        counted = {"members": self.members, "bytes": self.bytes, "digest": "sha256:" + self._index.hexdigest()}
        whole = {"format": FORMAT} | manifest | counted
        raw = json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()
        self._put("manifest.json", raw)
        self._put("manifest.sig", (sign(raw) + "\n").encode())
        try:
            self._tar.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._aside.rename(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise _fault(error) from error
        return whole

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        self._aside.unlink(missing_ok=True)

    def _put(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o600
        try:
            self._tar.addfile(member, io.BytesIO(data))
        except OSError as error:
            raise _fault(error) from error


class Archive:
    """Reads an archive twice: `verify` believes nothing, `members` gives only what `verify` saw."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise BackupError(f"{path.name} cannot be read", hint="check its path and rights") from error
        self._seen = bytearray()
        self.manifest: dict[str, Any] = {}

    def verify(self, keys: Iterable[Verifier], *, progress: Progress = lambda _done: None) -> dict[str, Any]:
        """Read every byte and compare; gives the manifest. Raises `BackupError` saying what does not hold."""
        index, members, size, ends = hashlib.sha256(), 0, 0, dict[str, bytes]()
        for member, body in self._walk():
            if ends and not member.name.startswith("manifest."):
                raise _damaged("something follows its manifest")
            hashed, kept = hashlib.sha256(), bytearray()
            while block := _read(body, BLOCK):
                hashed.update(block)
                if member.name.startswith("manifest."):
                    kept += block
                size += len(block)
                progress(size)
            if member.name.startswith("manifest."):
                ends[member.name] = bytes(kept)
                continue
            index.update(_line(member.name, member.size, hashed.hexdigest()))
            self._seen += hashed.digest()
            members += 1
        if ends.keys() != {"manifest.json", "manifest.sig"}:
            raise _damaged("it ends before its manifest")
        raw = ends["manifest.json"]
        _signed(raw, ends["manifest.sig"], list(keys))
        found: dict[str, Any] = json.loads(raw)
        if found.get("format") != FORMAT:
            raise BackupError("the archive is of another format", hint=f"this version reads {FORMAT}")
        if (found["members"], found["digest"]) != (members, "sha256:" + index.hexdigest()):
            raise _damaged("its contents are not those that its manifest names")
        self.manifest = found
        return found

    def members(self) -> Iterator[tuple[str, bytes]]:
        """Give (name, bytes) of every member but the manifest, each compared again with what `verify` saw."""
        for number, (member, body) in enumerate(self._walk()):
            if member.name.startswith("manifest."):
                return
            data = _read(body)
            if hashlib.sha256(data).digest() != bytes(self._seen[number * 32 : number * 32 + 32]):
                raise _damaged("it changed while it was read")
            yield member.name, data

    def _walk(self) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
        self._file.seek(0)
        try:
            with tarfile.open(fileobj=self._file, mode="r|", bufsize=BLOCK) as tar:
                for member in tar:
                    body = tar.extractfile(member) if member.isreg() else None
                    if body is None or not _NAME.fullmatch(member.name) or not 0 <= member.size <= MOST:
                        raise _damaged("it holds something that no backup has")
                    yield member, body
        except (tarfile.TarError, EOFError) as error:
            raise _damaged("it is cut off or no archive") from error

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _read(body: IO[bytes], size: int = -1) -> bytes:
    try:
        return body.read(size)
    except (tarfile.TarError, EOFError) as error:
        raise _damaged("it is cut off") from error


def _signed(raw: bytes, line: bytes, keys: list[Verifier]) -> None:
    """Raise `BackupError` unless one of these keys signed; by the key alone, since a new home has another name."""
    try:
        signature = Signature.parse(line.decode().removesuffix("\n"))
        held = any(Verifier(signature.name, key.key).holds(raw.decode() + "\n", signature.value) for key in keys)
    except (UnicodeDecodeError, ResidencyError) as error:
        raise _damaged("its signature is none") from error
    if not held:
        raise BackupError(
            "the archive is not signed by a key that is trusted here",
            hint="restore keys/ledger.key of the home it came from, or name its public key with --key",
        )


def _line(name: str, size: int, digest: str) -> bytes:
    return f"{name} {size} {digest}\n".encode()


def _damaged(what: str) -> BackupError:
    return BackupError(f"the archive is damaged: {what}", hint="take another copy; nothing was written")


def _fault(error: OSError) -> BackupError:
    return BackupError(
        f"the archive cannot be written: {os.strerror(error.errno or 0)}", hint="free space, or another folder"
    )
