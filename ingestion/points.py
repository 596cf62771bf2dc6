"""Points: which points of an index belong to a Document version, kept as ids beside its row; how they are made.

The ids are keyed MACs and tell nothing. They are written down before the first put, so that erasing needs no key and
no permission to search: what was put can be deleted whatever the policy says by then.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np
import sqlalchemy as sa

from ingestion import collections
from ingestion.sandbox import Reading
from ingestion.splitter import Piece, windows
from residency.database import metadata
from residency.envelope import PassageBody, PassageSealer, payload, vector_digest
from residency.ports import Embedder, Point, Vectors
from residency.route import Route
from residency.searchkeys import SearchKeys

document_points = sa.Table(
    "document_points",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("points", sa.LargeBinary, nullable=False),
)


def expected(keys: SearchKeys, row: Mapping[str, Any]) -> list[str]:
    """Give the ids of a version's points by Passage number."""
    return [keys.point_id(row["id"], row["version"], number) for number in range(row["passages_total"])]


def write_down(connection: sa.Connection, row: Mapping[str, Any], epoch: int, ids: Sequence[str]) -> None:
    """Keep the ids of the points that are about to be put."""
    raw = b"".join(UUID(identifier).bytes for identifier in ids)
    key = {"id": row["id"], "version": row["version"], "epoch": epoch}
    if not collections.insert_missing(connection, document_points, key | {"points": raw}):
        c = document_points.c
        mine = sa.and_(c.id == key["id"], c.version == key["version"], c.epoch == epoch)
        connection.execute(sa.update(document_points).where(mine).values(points=raw))


def written(connection: sa.Connection, document_id: str, version: int | None = None) -> list[str]:
    """Give the ids of every point that one version, or all of them, may have put."""
    c = document_points.c
    query = sa.select(c.points).where(c.id == document_id)
    if version is not None:
        query = query.where(c.version == version)
    found: list[str] = []
    for (raw,) in connection.execute(query):
        found += spelt(raw)
    return found


def in_order(connection: sa.Connection, document_id: str, version: int, epoch: int) -> list[str]:
    """Give the ids of one version's points by Passage number, as put under the search keys of `epoch`."""
    c = document_points.c
    query = sa.select(c.points).where(c.id == document_id, c.version == version, c.epoch == epoch)
    return spelt(connection.execute(query).scalar() or b"")


def spelt(raw: bytes) -> list[str]:
    """Give the ids that a row keeps, as shards spell them."""
    return [str(UUID(bytes=raw[at : at + 16])) for at in range(0, len(raw), 16)]


def strike(connection: sa.Connection, document_id: str, version: int | None = None) -> None:
    """Forget the ids of points that were deleted."""
    c = document_points.c
    doomed = sa.delete(document_points).where(c.id == document_id)
    connection.execute(doomed if version is None else doomed.where(c.version == version))


async def embed(embedder: Embedder, route: Route, pieces: Sequence[Piece]) -> Vectors:
    """Give float32 (n, d), one unit vector for each Passage: of its text under its heading (Action embed).

    A Passage longer than the model reads gets the mean of its windows, weighted by their tokens.
    """
    cut = await asyncio.to_thread(_windows, embedder, pieces)
    texts = [text for listed in cut for text, _ in listed]
    found = await embedder.embed(route, texts)
    made = np.empty((len(pieces), embedder.dimension), dtype=np.float32)
    at = 0
    for row, listed in zip(made, cut, strict=True):
        weights = np.array([tokens for _, tokens in listed], dtype=np.float32)
        whole = weights @ found[at : at + len(listed)]
        row[:] = found[at] if len(listed) == 1 else whole / max(float(np.linalg.norm(whole)), 1e-12)
        at += len(listed)
    return made


def _windows(embedder: Embedder, pieces: Sequence[Piece]) -> list[list[tuple[str, int]]]:
    return [windows(each, count_tokens=embedder.count_tokens, max_tokens=embedder.max_tokens) for each in pieces]


def make(
    row: Mapping[str, Any],
    sealer: PassageSealer,
    keys: SearchKeys,
    *,
    name: str,
    reading: Reading,
    pieces: Sequence[Piece],
    vectors: Vectors,
) -> list[Point]:
    """Seal Passages, blind their words and make points of them; `vectors` are turned already, one a Passage."""
    groups = [keys.group(group) for group in json.loads(row["groups"])]
    points = []
    for piece, vector in zip(pieces, vectors, strict=True):
        identifier = keys.point_id(row["id"], row["version"], piece.no)
        body = PassageBody(
            text=reading.text[piece.start : piece.end],
            name=name,
            heading=piece.heading,
            page=piece.page,
            start=piece.start,
            end=piece.end,
            language=piece.language,
            vd=vector_digest(vector),
        )
        held = payload(
            owner=keys.owner,
            jurisdiction=row["jurisdiction"],
            tag_class=row["tag_class"],
            collection=row["collection_id"],
            document=row["id"],
            number=piece.no,
            groups=groups,
            epoch=keys.epoch,
            sealed=sealer.seal(piece.no, identifier, body),
        )
        points.append(Point(identifier, vector, keys.lexicon.passage(body.text, piece.language, piece.heading), held))
    return points
