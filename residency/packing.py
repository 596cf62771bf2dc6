"""packing: leaves on disk in a fifth of their size, against texts that look like them.

Rules kept here: what was packed comes back byte for byte, and the tree's hashes would show if it did not; a model once
stored stays; only the sequencer adds one, in a transaction of its own, so that no leaf names a model that was rolled
back. A leaf begins with `{`, a packed one with 0x01 and the model's number (8 bytes); what follows is raw DEFLATE
(RFC 1951) with the model as its dictionary.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from residency.database import metadata
from residency.errors import LedgerError

models = sa.Table(
    "ledger_models",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
"""Texts of recent leaves that later ones are packed against; they hold ids, codes and digests, as leaves do."""

MARK: Final = b"\x01"
SHORTEST: Final = 256
"""Bytes; shorter leaves are stored as they are."""
LONGEST: Final = 65_535
"""Bytes that a leaf may unpack to."""
WIDEST: Final = 8192
"""Bytes of a model."""
WINDOW: Final = -14
"""Raw DEFLATE over 16 KiB: the model and a leaf's beginning; a larger window costs more to set up than it saves."""
POOR: Final = 4
"""A batch that does not come down to one part in so many wants a model of its own."""
EVERY: Final = 2000
"""Leaves between two new models, so that they stay few."""
_NEWEST: Final = sa.select(models.c.number, models.c.body).order_by(models.c.number.desc()).limit(1)


class Packing:
    """Packs and unpacks leaves; keeps models in memory, each a few kilobytes."""

    def __init__(self) -> None:
        self._models: dict[int, bytes] = {0: b""}
        self._number = -1
        self._ready: Any = None

    def pack(self, connection: sa.Connection, body: bytes) -> bytes:
        """Give the bytes to store for a leaf."""
        if len(body) < SHORTEST:
            return body
        if self._number < 0:
            self.refresh(connection)
        packing = self._ready.copy()
        packed: bytes = MARK + self._number.to_bytes(8, "big") + packing.compress(body) + packing.flush()
        return packed if len(packed) < len(body) else body

    def unpack(self, connection: sa.Connection, stored: bytes) -> bytes:
        """Give a leaf back. Raises `LedgerError` when it is damaged or its model is gone."""
        if stored[:1] != MARK:
            return stored
        number = int.from_bytes(stored[1:9], "big")
        if number not in self._models:
            wanted = sa.select(models.c.body).where(models.c.number == number)
            found = connection.execute(wanted).scalar() if number < 1 << 63 else None
            if found is None:
                raise LedgerError("a leaf's model is gone from the database", hint="restore the newest copy")
            self._models[number] = found
        unpacking = zlib.decompressobj(WINDOW, zdict=self._models[number])
        try:
            body = unpacking.decompress(stored[9:], LONGEST)
        except zlib.error as error:
            raise LedgerError("a stored leaf is damaged", hint="restore the newest copy") from error
        if not unpacking.eof or unpacking.unused_data:
            raise LedgerError("a stored leaf is cut off", hint="restore the newest copy")
        return body

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
        if number != self._number:
            self._models[number] = body
            self._ready = zlib.compressobj(6, zlib.DEFLATED, WINDOW, 5, zlib.Z_DEFAULT_STRATEGY, body)
            self._number = number


def _model(by_kind: Mapping[str, bytes]) -> bytes:
    """Join one leaf of each kind, as many as fit; the last stands nearest to what will be packed."""
    body = b""
    for leaf in by_kind.values():
        if len(body) + len(leaf) <= WIDEST:
            body += leaf
    return body
