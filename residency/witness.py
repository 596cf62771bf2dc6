"""Witness: the memory of somebody who is not the operator, in a folder of their own.

Rules kept here: a checkpoint is cosigned only when the log signed it and its tree continues the one remembered; looking
and remembering are one step under one lock, and the memory reaches the disk before the signature leaves, so that two
runs at once, or a crash, never roll it back (c2sp.org/tlog-witness). A checkpoint that contradicts the memory is kept
as evidence. Nothing here speaks to a network; see `outlets/ledger_line.py`.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from residency import notes, tlog
from residency.errors import LedgerError
from residency.logkey import LogKey, keep


@dataclass(frozen=True, slots=True)
class Seen:
    """The tree as last seen; size 0 before the first look."""

    size: int
    root: bytes


class Witness:
    """A witness named `name`, whose key and memory lie in `folder`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._key = LogKey.load_or_create(folder / "witness.key")

    @property
    def vkey(self) -> str:
        """The public key, for the operator's `witnesses.txt` and everybody's trust file."""
        return notes.Verifier(self.name, self._key.private.public_key().public_bytes_raw(), notes.WITNESS).vkey

    def seen(self, origin: str) -> Seen:
        """Give what is remembered of a log. Raises `LedgerError` when the memory is damaged: it is not begun anew."""
        path = self._memory(origin)
        if not path.exists():
            return Seen(0, tlog.EMPTY_ROOT)
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["origin"] != origin:
                raise ValueError(origin)
            return Seen(int(kept["size"]), tlog.decode(kept["root"]))
        except (OSError, ValueError, KeyError, LedgerError) as error:
            hint = f"restore {path.name} from a copy; without it nothing says what you saw"
            raise LedgerError("the witness's memory is damaged", hint=hint) from error

    def cosign(
        self, note: str, log: notes.Verifier, old: int, hashes: Sequence[bytes], *, now: datetime | None = None
    ) -> str:
        """Check a checkpoint against the memory, remember it, and give it with our signature below.

        `hashes` prove that its tree continues that of `old` leaves, the size that `seen` gave.
        Raises `LedgerError` when the log did not sign it, when it is older than or contradicts what was seen, or when
        another run was faster.
        """
        text, lines = notes.split(note)
        point = tlog.Checkpoint.parse(text)
        if log not in notes.signers(text, lines, [log]) or point.origin != log.name:
            raise LedgerError("the log whose key you trust did not sign this checkpoint", hint="check the trust file")
        with self._locked():
            seen = self.seen(point.origin)
            if seen.size != old:
                raise LedgerError("another run of this witness was faster", hint="run it again")
            if point.size < seen.size:
                self._evidence(note)
                raise LedgerError(
                    f"the log shows {point.size} leaves, after it showed {seen.size}: it was set back",
                    hint="ask the operator; both checkpoints are in the witness's folder",
                )
            if not tlog.consistent(seen.size, point.size, seen.root, point.root, hashes):
                self._evidence(note)
                raise LedgerError(
                    f"the tree of {point.size} leaves does not continue the one of {seen.size} that was seen",
                    hint="its history was changed, or the proof is of other sizes; both checkpoints are kept",
                )
            kept = {"origin": point.origin, "size": point.size, "root": tlog.encode(point.root), "note": note}
            keep(self._memory(point.origin), json.dumps(kept, indent=1) + "\n")
        moment = now or datetime.now(UTC)
        return note + notes.cosign(text, self.name, self._key.private, int(moment.timestamp())) + "\n"

    def _memory(self, origin: str) -> Path:
        return self.folder / f"seen-{hashlib.sha256(origin.encode()).hexdigest()[:16]}.json"

    def _evidence(self, note: str) -> None:
        keep(self.folder / f"contradiction-{hashlib.sha256(note.encode()).hexdigest()[:16]}.txt", note)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
