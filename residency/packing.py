"""packing: leaves on disk in a fifth of their size, against texts that look like them.

Rules kept here: what was packed comes back byte for byte, and the tree's hashes would show if it did not; a model once
stored stays; only the sequencer adds one, in a transaction of its own, so that no leaf names a model that was rolled
back. A leaf begins with `{`, a packed one with its form and the model's number (8 bytes); what follows is, under 0x02,
a Zstandard frame (RFC 8878) with the model as its raw dictionary. 0x01, raw DEFLATE (RFC 1951) over the same, was
written before and is read for ever.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Final

import sqlalchemy as sa
import zstandard

from residency.database import metadata
from residency.errors import LedgerError

models = sa.Table(
    "ledger_models",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
"""Texts of recent leaves that later ones are packed against; they hold ids, codes and digests, as leaves do."""

DEFLATE: Final = b"\x01"
ZSTANDARD: Final = b"\x02"
SHORTEST: Final = 256
"""Bytes; shorter leaves are stored as they are."""
LONGEST: Final = 65_535
"""Bytes that a leaf may unpack to."""
WIDEST: Final = 8192
"""Bytes of a model."""
WINDOW: Final = -14
"""Raw DEFLATE over 16 KiB."""
LEVEL: Final = 3
"""A leaf of 2 kB packs in 5 µs, a quarter of what DEFLATE takes, to 274 bytes instead of 291."""
POOR: Final = 4
"""A batch that does not come down to one part in so many wants a model of its own."""
EVERY: Final = 2000
"""Leaves between two new models, so that they stay few."""
_NEWEST: Final = sa.select(models.c.number, models.c.body).order_by(models.c.number.desc()).limit(1)


class Packing:
    """Packs and unpacks leaves; keeps models in memory, each a few kilobytes."""

    def __init__(self) -> None:
        self._models: dict[int, bytes] = {0: b""}
        self._packer: tuple[int, list[zstandard.ZstdCompressor]] = (-1, [])
        """The newest model's number, and idle compressors for it."""

    def ready(self, connection: sa.Connection) -> None:
        """Read the newest model where none was read yet; `pack` needs it."""
        if self._packer[0] < 0:
            self.refresh(connection)

    def pack(self, body: bytes) -> bytes:
        """Give the bytes to store for a leaf."""
        if len(body) < SHORTEST:
            return body
        number, idle = self._packer
        try:  # each works for one thread at a time
            compressor = idle.pop()
        except IndexError:
            compressor = _compressor(self._models[number])
        packed = ZSTANDARD + number.to_bytes(8, "big") + compressor.compress(body)
        idle.append(compressor)
        return packed if len(packed) < len(body) else body

    def unpack(self, connection: sa.Connection, stored: bytes) -> bytes:
        """Give a leaf back. Raises `LedgerError` when it is damaged or its model is gone."""
        if stored[:1] not in {DEFLATE, ZSTANDARD}:
            return stored
        number = int.from_bytes(stored[1:9], "big")
        if number not in self._models:
            wanted = sa.select(models.c.body).where(models.c.number == number)
            found = connection.execute(wanted).scalar() if number < 1 << 63 else None
            if found is None:
                raise LedgerError("a leaf's model is gone from the database", hint="restore the newest copy")
            self._models[number] = found
        try:
            return (_inflated if stored[:1] == DEFLATE else _unpacked)(stored[9:], self._models[number])
        except (zlib.error, zstandard.ZstdError) as error:
            raise LedgerError("a stored leaf is damaged", hint="restore the newest copy") from error

    def refresh(self, connection: sa.Connection) -> None:
        """Pack against the newest model that is committed; the sequencer's own transaction must have ended."""
        row = connection.execute(_NEWEST).first()
        self._use(*(row or (0, b"")))

    def wanted(self, connection: sa.Connection, size: int, batch: Sequence[tuple[str, bytes, bytes]]) -> bool:
        """Add a model when this batch of (kind, leaf, stored) packed poorly; `size` numbers it: leaves before it.

        Only the sequencer calls this, holding the tree's row; `refresh` follows once it has committed.
        """
        packed, whole = sum(len(stored) for _, _, stored in batch), sum(len(leaf) for _, leaf, _ in batch)
        newest = connection.execute(sa.select(sa.func.max(models.c.number))).scalar()
        if packed * POOR < whole or (newest is not None and size < newest + EVERY):
            return False
        body = _model({kind: leaf for kind, leaf, _ in batch if len(leaf) >= SHORTEST})
        if body:
            connection.execute(models.insert().values(number=size + 1, body=body))
        return bool(body)

    def _use(self, number: int, body: bytes) -> None:
        if number != self._packer[0]:
            self._models[number] = body
            self._packer = (number, [])


def _compressor(model: bytes) -> zstandard.ZstdCompressor:
    known = _dictionary(model)
    if known is not None:
        known.precompute_compress(level=LEVEL)
    return zstandard.ZstdCompressor(
        level=LEVEL, dict_data=known, write_checksum=False, write_content_size=True, write_dict_id=False
    )


def _dictionary(body: bytes) -> zstandard.ZstdCompressionDict | None:
    return zstandard.ZstdCompressionDict(body, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if body else None


def _unpacked(packed: bytes, model: bytes) -> bytes:
    if not 0 < zstandard.frame_content_size(packed) <= LONGEST:  # before any memory is taken for it
        raise LedgerError("a stored leaf is damaged", hint="restore the newest copy")
    return zstandard.ZstdDecompressor(dict_data=_dictionary(model)).decompress(packed, allow_extra_data=False)


def _inflated(packed: bytes, model: bytes) -> bytes:
    unpacking = zlib.decompressobj(WINDOW, zdict=model)
    body = unpacking.decompress(packed, LONGEST)
    if not unpacking.eof or unpacking.unused_data:
        raise LedgerError("a stored leaf is cut off", hint="restore the newest copy")
    return body


def _model(by_kind: Mapping[str, bytes]) -> bytes:
    """Join one leaf of each kind, as many as fit; the last stands nearest to what will be packed."""
    body = b""
    for leaf in by_kind.values():
        if len(body) + len(leaf) <= WIDEST:
            body += leaf
    return body
