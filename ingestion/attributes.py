"""Attributes: what users write on a Document to filter by, sealed under its version's own key.

Rules kept here: keys and values are content and never stand in clear in a row; who erases the key has erased them.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
import sqlalchemy as sa

from ingestion.errors import UploadError
from residency.database import metadata
from residency.envelope import open_field, seal_field
from residency.seal import OpenDek

Value = str | float | bool
MOST: Final = 16
LONGEST_KEY: Final = 64
LONGEST_VALUE: Final = 512
BUILT_IN: Final = (
    "document_id",
    "filename",
    "collection",
    "language",
    "media_type",
    "jurisdiction",
    "residency",
    "categories",
    "classification",
    "personal",
    "created_at",
)
"""What every Document has without anybody writing it; nobody may write these."""

table = sa.Table(
    "document_attributes",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)


def check(given: dict[str, Value]) -> None:
    """Raise `UploadError` unless these may be attributes; it says which rule, and never quotes a value."""
    if len(given) > MOST:
        raise UploadError(f"{len(given)} attributes are too many", hint=f"at most {MOST}")
    for name, value in given.items():
        if not 0 < len(name) <= LONGEST_KEY:
            raise UploadError("the name of an attribute is empty or too long", hint=f"1 to {LONGEST_KEY} characters")
        if isinstance(value, str) and len(value) > LONGEST_VALUE:
            raise UploadError("the value of an attribute is too long", hint=f"at most {LONGEST_VALUE} characters")


def sealed(dek: OpenDek, document_id: str, given: dict[str, Value]) -> bytes:
    """Seal attributes under the version's key."""
    return seal_field(dek, "attributes", bytes.fromhex(document_id), msgspec.json.encode(given))


def opened(dek: OpenDek, document_id: str, kept: bytes) -> dict[str, Value]:
    """Open what `sealed` gave. Raises `SealedError`."""
    return msgspec.json.decode(open_field(dek, "attributes", bytes.fromhex(document_id), kept), type=dict[str, Value])


def keep(connection: sa.Connection, document_id: str, version: int, blob: bytes) -> None:
    """Keep the sealed attributes of a Document version in place of those it had."""
    c = table.c
    connection.execute(sa.delete(table).where(c.id == document_id, c.version == version))
    connection.execute(sa.insert(table).values(id=document_id, version=version, sealed=blob))


def kept(connection: sa.Connection, ids: Iterable[str]) -> dict[tuple[str, int], bytes]:
    """Give sealed attributes by id and version."""
    rows = connection.execute(sa.select(table).where(table.c.id.in_(list(ids))))
    return {(row.id, row.version): bytes(row.sealed) for row in rows}


def carry(connection: sa.Connection, document_id: str, version: int, blob: bytes) -> None:
    """Keep sealed attributes that an older version handed on, unless the version was given its own."""
    c = table.c
    if connection.execute(sa.select(c.id).where(c.id == document_id, c.version == version)).first() is None:
        keep(connection, document_id, version, blob)


def strike(connection: sa.Connection, document_id: str) -> None:
    """Delete the attributes of every version of a Document."""
    connection.execute(sa.delete(table).where(table.c.id == document_id))
