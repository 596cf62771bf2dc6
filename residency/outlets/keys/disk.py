"""disk: how key files are written, replaced and erased, so that a half-written one is never seen.

Rules kept here: written aside, flushed, then named; 0600 from the first byte; one writer at a time in a folder,
whatever process it is in; erased means overwritten, then unlinked (no promise on SSDs and copy-on-write file systems).
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from residency.errors import KeyringError

WAIT_SECONDS: Final = 10.0
"""How long a writer waits for another one in the same folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock against every other writer, in this process and in others. Raises `KeyringError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise KeyringError(
                        "another process is writing to the key folder", hint="wait until it is done, then try again"
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def publish(path: Path, content: bytes, *, replace: bool = False) -> None:
    """Write a file aside and give it its name; an existing one stays as it is unless `replace`. Raises `OSError`."""
    aside = path.with_name(f".{os.urandom(8).hex()}")
    try:
        with os.fdopen(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            aside.replace(path)
        else:
            with suppress(FileExistsError):
                os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)


def erase(path: Path) -> None:
    """Overwrite a file in place with random bytes, unlink it, flush the folder; harmless when it is gone."""
    with suppress(FileNotFoundError), path.open("r+b") as file:
        file.write(os.urandom(os.fstat(file.fileno()).st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink(missing_ok=True)
    sync(path.parent)


def sync(folder: Path) -> None:
    """Flush a folder's names."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private(path: Path, what: str) -> bytes:
    """Read a secret file that nobody else may read. Raises `KeyringError` naming `what`, and `FileNotFoundError`."""
    try:
        if path.stat().st_mode & 0o077:
            raise KeyringError(f"{what} can be read by others", hint="chmod 600 that file")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyringError(f"{what} cannot be read", hint="check its path and who owns it") from error


def secret(path: Path, what: str) -> str:
    """Read a password, PIN or token: the file's text without the white space around it. Raises `KeyringError`."""
    try:
        text = private(path, what).decode("utf-8").strip()
    except FileNotFoundError:
        raise KeyringError(f"{what} is missing", hint="check the path in the fleet file") from None
    except UnicodeDecodeError as error:
        raise KeyringError(f"{what} is no UTF-8 text", hint="write it into the file as one line") from error
    if not text:
        raise KeyringError(f"{what} is empty", hint="write it into the file as one line")
    return text
