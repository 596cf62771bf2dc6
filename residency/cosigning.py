"""cosigning: what witnesses said of our checkpoints, kept beside them.

Rules kept here: a line is stored only when it holds, under the key of a witness that the operator named; for a line
that a reader's own key condemns would condemn the whole checkpoint. A newer line of the same witness takes the place of
the older. A witness signs after it saw that the tree continues the one it remembers (`witness.py`).
"""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from residency import notes, tlog
from residency.database import metadata
from residency.errors import LeafError, LedgerError
from residency.leaves import checkpoints

cosignatures = sa.Table(
    "cosignatures",
    metadata,
    sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("line", sa.Text, nullable=False),
    sa.Column("time", sa.String(24), nullable=False),
)
"""One row per checkpoint and witness: the signature line, and when we took it."""

MOST_WITNESSES: Final = 16
"""As many as every reader of notes must take beside the log's own line (c2sp.org/signed-note)."""


def accept(
    connection: sa.Connection, note: str, origin: str, witnesses: Sequence[notes.Verifier], time: str
) -> tuple[int, list[str]]:
    """Store the cosignatures under a checkpoint of ours; gives its size and the names of the witnesses taken.

    Raises `LedgerError` when the checkpoint is not one that this log signed, or no named witness signed it.
    """
    text, lines = notes.split(note)
    point = tlog.Checkpoint.parse(text)
    ours = connection.execute(sa.select(checkpoints.c.root).where(checkpoints.c.size == point.size)).scalar()
    if ours is None or ours != point.root or point.origin != origin:
        raise LeafError("this log signed no such checkpoint", hint="fetch /v1/ledger/checkpoint and cosign that")
    if len(witnesses) > MOST_WITNESSES:
        raise LedgerError(f"more than {MOST_WITNESSES} witnesses are named", hint="shorten witnesses.txt")
    known = {(key.name, key.key_id): key for key in witnesses}
    found: dict[str, str] = {}
    for line in lines[: notes.MOST_SIGNATURES]:
        signature = notes.Signature.parse(line)
        key = known.get((signature.name, signature.key_id))
        if key is not None and notes.signers(text, [line], [key]):
            found[key.name] = line
    if not found:
        raise LedgerError("no witness that this log knows signed it", hint="name its key: domicile ledger witness VKEY")
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    for name, line in found.items():
        put = insert(cosignatures).values(size=point.size, name=name, line=line, time=time)
        fresh = {"line": line, "time": time}
        connection.execute(put.on_conflict_do_update(index_elements=["size", "name"], set_=fresh))
    return point.size, sorted(found)


def note(connection: sa.Connection, size: int, signed: str) -> str:
    """Give a signed checkpoint with the cosignatures that it has."""
    wanted = sa.select(cosignatures.c.line).where(cosignatures.c.size == size).order_by(cosignatures.c.name)
    return signed + "".join(f"{line}\n" for line in connection.execute(wanted).scalars())


def covering(connection: sa.Connection, index: int, origin: str) -> tuple[tlog.Checkpoint, str] | None:
    """Give the newest cosigned checkpoint that covers a leaf, or None if it is not `origin`'s."""
    size = connection.execute(sa.select(sa.func.max(cosignatures.c.size)).where(cosignatures.c.size > index)).scalar()
    if size is None:
        return None
    signed = connection.execute(sa.select(checkpoints.c.note).where(checkpoints.c.size == size)).scalar_one()
    point = tlog.Checkpoint.parse(notes.split(signed)[0])
    return (point, note(connection, size, signed)) if point.origin == origin else None


def seen(connection: sa.Connection) -> list[dict[str, str | int]]:
    """List what each witness cosigned last, for reports."""
    newest = (
        sa.select(cosignatures.c.name, sa.func.max(cosignatures.c.size).label("size"))
        .group_by(cosignatures.c.name)
        .subquery()
    )
    wanted = sa.select(cosignatures).join(
        newest, sa.and_(newest.c.name == cosignatures.c.name, newest.c.size == cosignatures.c.size)
    )
    rows = connection.execute(wanted.order_by(cosignatures.c.name))
    return [{"witness": row.name, "size": row.size, "taken": row.time} for row in rows]
