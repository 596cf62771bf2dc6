"""Frames: a sealed file, cut into pieces of 64 KiB that each open alone and only in their place.

Rules kept here: every Frame binds its number, whether it is the last, and the header of its own write run, so Frames
swapped, dropped, doubled, cut off or mixed from two runs do not open; nonces are random, since a resumed upload may
seal the same Frame twice; only an empty file has an empty Frame.
"""

import os
from collections.abc import Iterator
from typing import Final

from residency.errors import SealedError
from residency.seal import OVERHEAD, OpenDek, bind, lp, u8, u32, u64

FRAME: Final = 65_536
"""Plaintext bytes of every Frame but the last."""
HEADER: Final = 36
"""Bytes before the first Frame: `DM`, format version, suite, dek_id 16, artefact_id 16."""
ARTEFACTS: Final = frozenset({"original", "text", "passages", "vectors", "rotation"})


class FrameWriter:
    """Seals one file while it arrives; holds back at most one Frame, since only the end tells which is the last.

    `document` is 16 raw bytes, `version` the document's version. `artefact_id` is random per run and belongs in the row
    beside the file.
    """

    __slots__ = ("_dek", "_held", "_next", "_prefix", "artefact_id")

    def __init__(self, dek: OpenDek, artefact: str, document: bytes, version: int) -> None:
        self.artefact_id = os.urandom(16)
        self._dek = dek
        self._prefix = _prefix(dek, self.header(), artefact, document, version)
        self._held = bytearray()
        self._next = 0

    def header(self) -> bytes:
        """Give the 36 bytes that the file begins with."""
        return self._dek.header + self.artefact_id

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes and give the Frames that are complete and surely not the last."""
        self._held += data
        full = max(0, (len(self._held) - 1) // FRAME)
        with memoryview(self._held) as view:
            frames = [self._seal(view[at * FRAME : (at + 1) * FRAME], last=0) for at in range(full)]
        del self._held[: full * FRAME]
        return frames

    def finish(self) -> list[bytes]:
        """Give the last Frame; nothing may be fed after it."""
        frame = self._seal(memoryview(bytes(self._held)), last=1)
        self._held.clear()
        return [frame]

    def _seal(self, plaintext: memoryview, *, last: int) -> bytes:
        frame = self._dek.seal(self._prefix + lp(u64(self._next)) + lp(u8(last)), plaintext)
        self._next += 1
        return frame


def seal_file(dek: OpenDek, artefact: str, document: bytes, version: int, data: bytes) -> Iterator[bytes]:
    """Seal bytes that are at hand: the header first, then each Frame."""
    writer = FrameWriter(dek, artefact, document, version)
    yield writer.header()
    for start in range(0, len(data), FRAME):
        yield from writer.feed(data[start : start + FRAME])
    yield from writer.finish()


def open_file(dek: OpenDek, artefact: str, document: bytes, version: int, sealed: bytes) -> bytes:
    """Open a whole sealed file; anything but the complete file in this very context is `SealedError`."""
    view = memoryview(sealed)
    if len(sealed) < HEADER + OVERHEAD or sealed[:20] != dek.header:
        raise SealedError("these bytes are no sealed file under this key")
    prefix = _prefix(dek, bytes(view[:HEADER]), artefact, document, version)
    opened: list[bytes] = []
    step = FRAME + OVERHEAD
    for number, start in enumerate(range(HEADER, len(sealed), step)):
        last = start + step >= len(sealed)
        plaintext = dek.open(prefix + lp(u64(number)) + lp(u8(last)), view[start : start + step])
        if not plaintext and number:
            raise SealedError("a sealed file ends in an empty Frame")
        opened.append(plaintext)
    return b"".join(opened)


def _prefix(dek: OpenDek, header: bytes, artefact: str, document: bytes, version: int) -> bytes:
    if artefact not in ARTEFACTS:
        raise SealedError("this kind of sealed file is unknown")
    return bind("domicile/v1/frame", header, dek.tenant_id, dek.jurisdiction, document, u32(version), artefact)
