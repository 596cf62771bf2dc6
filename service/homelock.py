"""The home's lock: one process at a time owns the embedded shards, and a second one hears who does.

Without a write-ahead log the embedded engine takes no lock of its own (docs/decisions), so this one must hold.
"""

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import HomeError


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold `<home>/lock`. Raises `HomeError` naming the process that holds it."""
    path = home / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(path) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "verb": _verb()}).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _held(path: Path) -> HomeError:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        who = f"`domicile {holder['verb']}` (process {holder['pid']})"
    except (ValueError, KeyError, OSError):
        who = "another domicile process"
    hint = "ask that one over HTTP (docs/api.md), stop it first, or give --home another folder"
    if _verb() == "work":
        hint = (
            "embedded shards belong to one process, and `serve` works by itself (ingestion.workers); "
            "more processes need PostgreSQL and Qdrant servers"
        )
    return HomeError(f"this home is in use by {who}", hint=hint)


def _verb() -> str:
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    return words[0] if words else "process"
