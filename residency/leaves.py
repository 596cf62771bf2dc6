"""The Ledger's rows: leaves, numbers, subtree hashes and checkpoints, and what is read from them.

Rules kept here: a number is given under a row lock, so `seq` has no gaps within a tenant and one sequencer works at a
time, on SQLite and PostgreSQL alike; a proof reads a few rows whatever the size of the tree.
`ledger.py` alone writes leaves; what erasure may remove (openings, touches) lies in tables of its own.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from residency import notes, tlog
from residency.database import metadata
from residency.errors import LedgerError
from residency.packing import Packing
from residency.receipt import Draft

_PENDING: Final = sa.text('"index" IS NULL')

leaves = sa.Table(
    "leaves",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("index", sa.BigInteger, unique=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("time", sa.String(24), nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("signature", sa.Text, nullable=False),
    sa.UniqueConstraint("tenant", "seq"),
    sa.Index("ix_leaves_pending", "tenant", "seq", sqlite_where=_PENDING, postgresql_where=_PENDING),
)
"""One row per Receipt; `index` is null until the sequencer has placed it, `body` its canonical JSON as `packing` packs
it. `time` never runs back within a tenant, so a period is a stretch of `seq` and needs no index."""
heads = sa.Table(
    "ledger_heads",
    metadata,
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("time", sa.String(24), nullable=False, server_default=""),
)
"""One row per tenant, the lock under which `seq` is given, with the time of its newest Receipt; the row of "" is the
tree's own and holds its size."""
openings = sa.Table(
    "openings",
    metadata,
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("r", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""The secret of each Receipt's commitments; once it is gone they can be linked to nothing."""
touches = sa.Table(
    "touches",
    metadata,
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("document", sa.LargeBinary(16), primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)
"""Which Receipts touched which document, for GDPR 15(1)(c)."""
checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("root", sa.LargeBinary, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("time", sa.String(24), nullable=False),
)
hashes = sa.Table(
    "ledger_hashes",
    metadata,
    sa.Column("place", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
)
"""Complete subtrees, two rows for each leaf in the end; `place` is their in-order number, see `number`."""

TREE: Final = ""
"""The tree's own row in `ledger_heads`; no tenant has an empty name."""
_NOW: Final = sa.bindparam("now", type_=sa.String)
_RAISE: Final = (
    heads.update()
    .where(heads.c.tenant == sa.bindparam("holder"))
    .values(
        seq=heads.c.seq + sa.bindparam("step", type_=sa.BigInteger),
        time=sa.case((heads.c.time > _NOW, heads.c.time), else_=_NOW),
    )
    .returning(heads.c.seq, heads.c.time)
)
PUT_LEAF: Final = leaves.insert()
PUT_OPENING: Final = openings.insert()
PUT_TOUCHES: Final = touches.insert()
"""Statements made once: SQLAlchemy knows them again by identity."""
_DOCUMENT: Final = re.compile(rb"[0-9a-f]{32}")


@contextmanager
def failing(what: str) -> Iterator[None]:
    """Turn what a database or disk raises into a `LedgerError`."""
    try:
        yield
    except (sa.exc.SQLAlchemyError, sqlite3.Error, OSError, KeyError) as error:
        hint = "look at the database's disk and connection; nothing was released"
        raise LedgerError(f"the ledger cannot be {what}", hint=hint) from error


@lru_cache(8)
def _sqlite_text(statement: sa.Insert | sa.Update) -> tuple[str, tuple[str, ...]]:
    made = statement.compile(dialect=sqlite.dialect())
    return str(made), tuple(made.positiontup or ())


def _driver(connection: sa.Connection) -> Any:
    """Give SQLite's own connection: SQLAlchemy's work for one row costs three times what SQLite's does, and an answer
    waits for it. Other databases answer over a line, beside which it does not count.
    """
    driver = connection.connection.driver_connection
    if driver is None:
        raise LedgerError("the database's connection is closed", hint="try again")
    return driver


def _put(connection: sa.Connection, statement: sa.Insert, values: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows, each in the order of the table's columns, in the connection's transaction."""
    if connection.dialect.name != "sqlite":
        names = [column.name for column in statement.table.columns]
        connection.execute(statement, [dict(zip(names, row, strict=True)) for row in values])
        return
    driver, (text, _) = _driver(connection), _sqlite_text(statement)
    if len(values) == 1:
        driver.execute(text, values[0])
    else:
        driver.executemany(text, values)


@dataclass(slots=True)
class Row:
    """A leaf's row, the secret of its commitments if it has any, and the documents that it touched."""

    id: str
    tenant: str
    seq: int
    kind: str
    time: str
    leaf: bytes
    r: bytes | None
    documents: Sequence[bytes]
    signature: str = ""
    body: bytes = b""
    """The leaf as it is stored."""


def put(connection: sa.Connection, made: Sequence[Row]) -> None:
    """Write leaves with what belongs to them."""
    whole = [(m.id, m.tenant, m.seq, None, m.kind, m.time, m.body, m.signature) for m in made]
    secrets = [(m.tenant, m.seq, m.r) for m in made if m.r is not None]
    touched = [(m.tenant, document, m.seq) for m in made for document in m.documents]
    for statement, values in ((PUT_LEAF, whole), (PUT_OPENING, secrets), (PUT_TOUCHES, touched)):
        if values:
            _put(connection, statement, values)


def raised(connection: sa.Connection, tenant: str, by: int = 1, time: str = "") -> tuple[int, str]:
    """Lock a tenant's row and raise its number by `by`; gives the new number and the newest time, `time` or a later."""
    values = {"holder": tenant, "step": by, "now": time}
    found = _raise(connection, values)
    if found is None:
        insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
        connection.execute(insert(heads).values(tenant=tenant, seq=0).on_conflict_do_nothing())
        found = _raise(connection, values)
    if found is None:
        raise LedgerError("a tenant's number cannot be read", hint="look at the database")
    return int(found[0]), str(found[1])


def _raise(connection: sa.Connection, values: Mapping[str, Any]) -> Any:
    if connection.dialect.name != "sqlite":
        return connection.execute(_RAISE, dict(values)).first()
    text, names = _sqlite_text(_RAISE)
    rows = _driver(connection).execute(text, tuple(values[name] for name in names)).fetchall()
    return rows[0] if rows else None


def documents(draft: Draft) -> set[bytes]:
    """Give the ids of documents that a Draft commits to, as 16 bytes; other values are not ids and left out."""
    value = draft.commits.get("documents", ())
    items = (value,) if isinstance(value, bytes) else value
    return {
        bytes.fromhex(item.decode()) if _DOCUMENT.fullmatch(item) else item
        for item in items
        if _DOCUMENT.fullmatch(item) or len(item) == 16
    }


def newest(connection: sa.Connection) -> tuple[tlog.Checkpoint, str] | None:
    """Give the newest checkpoint and its signed note, or None before the first."""
    wanted = sa.select(checkpoints.c.note).order_by(checkpoints.c.size.desc()).limit(1)
    note = connection.execute(wanted).scalar()
    return None if note is None else (tlog.Checkpoint.parse(notes.split(note)[0]), note)


def span(connection: sa.Connection, since: str, until: str) -> tuple[Any, Any]:
    """Give the last checkpoint before `since` (else the first there is) and the newest before `until`, or None."""
    c = checkpoints.c
    wanted = sa.select(c.size, c.root, c.time).limit(1)
    first = connection.execute(wanted.where(c.time < since).order_by(c.size.desc())).first()
    first = first or connection.execute(wanted.order_by(c.size)).first()
    return first, connection.execute(wanted.where(c.time < until).order_by(c.size.desc())).first()


def settled(connection: sa.Connection, origin: str) -> int | None:
    """Give the tree's size where nothing waits and it is signed under this name, else None; takes no lock."""
    point = newest(connection)
    waits = connection.execute(sa.select(sa.exists().where(leaves.c.index.is_(None)))).scalar()
    return None if point is None or point[0].origin != origin or waits else point[0].size


def number(place: tlog.Place) -> int:
    """Number a complete subtree in order: one integer, because a look-up by two columns reads the whole table."""
    level, index = place
    return (2 * index + 1) << level


def known(connection: sa.Connection, spans: Sequence[tlog.Span]) -> dict[tlog.Place, bytes]:
    """Read the hashes of all complete subtrees that these spans are made of."""
    wanted = {number(place): place for span in spans for place in tlog.places(span)}
    if not wanted:
        return {}
    rows = connection.execute(sa.select(hashes.c.place, hashes.c.hash).where(hashes.c.place.in_(wanted)))
    return {wanted[place]: value for place, value in rows}


def held(connection: sa.Connection, wanted: Sequence[tlog.Place]) -> list[bytes]:
    """Read the hashes of complete subtrees, in this order; one that is missing raises `KeyError`."""
    numbers = [number(place) for place in wanted]
    rows = connection.execute(sa.select(hashes.c.place, hashes.c.hash).where(hashes.c.place.in_(numbers)))
    found = {row.place: row.hash for row in rows}
    return [found[place] for place in numbers]


def touching(tenant: str, document: bytes) -> sa.Select[Any]:
    """Ask for the leaves that touched a document, oldest first."""
    same = sa.and_(touches.c.tenant == leaves.c.tenant, touches.c.seq == leaves.c.seq)
    mine = (touches.c.tenant == tenant, touches.c.document == document)
    return sa.select(leaves.c.id, leaves.c.body).join(touches, same).where(*mine).order_by(touches.c.seq)


def seq_of(tenant: str, id: str) -> sa.ScalarSelect[int]:  # noqa: A002 - the column's name
    """The number of a Receipt within its tenant, as a part of a query."""
    return sa.select(leaves.c.seq).where(leaves.c.tenant == tenant, leaves.c.id == id).scalar_subquery()


def missing(connection: sa.Connection, size: int) -> int:
    """Count leaves that were given a number or a place and are no longer there; counting a million takes .1 s."""
    held = sa.select(sa.func.max(leaves.c.seq)).where(leaves.c.tenant == heads.c.tenant).scalar_subquery()
    given = sa.select(sa.func.sum(heads.c.seq - sa.func.coalesce(held, 0))).where(heads.c.tenant != TREE)
    placed = sa.select(sa.func.count(leaves.c.index))
    cut_off = int(connection.execute(given).scalar() or 0)
    return max(cut_off, size - int(connection.execute(placed).scalar_one()))


def root(connection: sa.Connection, size: int) -> bytes:
    """Give the root over the first `size` leaves."""
    return tlog.span_hash((0, size), known(connection, [(0, size)]).__getitem__)


def path(connection: sa.Connection, spans: Sequence[tlog.Span]) -> tuple[bytes, ...]:
    """Give the hash of each span: what a proof is made of."""
    found = known(connection, spans)
    return tuple(tlog.span_hash(span, found.__getitem__) for span in spans)


def place(connection: sa.Connection, size: int, most: int, packing: Packing) -> tuple[int, bytes, bool]:
    """Place up to `most` waiting leaves after the first `size`; gives how many, the new root, and whether a model was
    added that later leaves are packed against. The caller holds the tree's row.
    """
    waiting = connection.execute(
        sa.select(leaves.c.id, leaves.c.kind, leaves.c.body)
        .where(leaves.c.index.is_(None))
        .order_by(leaves.c.tenant, leaves.c.seq)
        .limit(most)
    ).all()
    held = known(connection, [(0, size)])
    made: dict[tlog.Place, bytes] = {}
    placed: list[dict[str, Any]] = []
    batch: list[tuple[str, bytes, bytes]] = []
    for row in waiting:
        body = packing.unpack(connection, row.body)
        for where, value in tlog.grow(size, tlog.leaf_hash(body), held.__getitem__):
            made[where] = held[where] = value
        placed.append({"leaf": row.id, "place": size})
        batch.append((row.kind, body, row.body))
        size += 1
    new = False
    if placed:
        put = leaves.update().where(leaves.c.id == sa.bindparam("leaf")).values(index=sa.bindparam("place"))
        connection.execute(put, placed)
        rows = [{"place": number(where), "hash": value} for where, value in made.items()]
        connection.execute(hashes.insert(), rows)
        new = packing.wanted(connection, size, batch)
    return len(placed), tlog.span_hash((0, size), held.__getitem__), new


def first_at(connection: sa.Connection, tenant: str, time: str) -> int:
    """Give the first `seq` of a tenant whose time is `time` or later, else the one after the last.

    Found by halving: about twenty look-ups in a million.
    """
    low, high = 1, (connection.execute(sa.select(heads.c.seq).where(heads.c.tenant == tenant)).scalar() or 0) + 1
    while low < high:
        middle = (low + high) // 2
        wanted = sa.select(leaves.c.seq, leaves.c.time).where(leaves.c.tenant == tenant, leaves.c.seq >= middle)
        row = connection.execute(wanted.order_by(leaves.c.seq).limit(1)).first()
        if row is None or row.time >= time:
            high = middle
        else:
            low = row.seq + 1
    return low
