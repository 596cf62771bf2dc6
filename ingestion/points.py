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
from residency.errors import SealedError
from residency.ports import NO_VECTOR, Embedder, Point, Vectors
from residency.protection import USUAL, Protection, VectorMode
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
    protection: Protection = USUAL,
) -> list[Point]:
    """Seal Passages, blind their words and make points of them; `vectors` are as they are kept, one a Passage."""
    points = []
    for piece, vector in zip(pieces, vectors, strict=True):
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
        points.append(point(row, sealer, keys, piece.no, body, vector, protection))
    return points


def point(
    row: Mapping[str, Any],
    sealer: PassageSealer,
    keys: SearchKeys,
    number: int,
    body: PassageBody,
    vector: Vectors,
    protection: Protection,
) -> Point:
    """Make one Passage's point of its body and its vector as it is kept."""
    identifier = keys.point_id(row["id"], row["version"], number)
    sealed = protection.vectors is VectorMode.SEALED
    held = payload(
        owner=keys.owner,
        jurisdiction=row["jurisdiction"],
        tag_class=row["tag_class"],
        collection=row["collection_id"],
        document=row["id"],
        number=number,
        groups=[keys.group(group) for group in json.loads(row["groups"])],
        epoch=keys.epoch,
        sealed=sealer.seal(number, identifier, body),
        vector=sealer.seal_vector(number, identifier, vector) if sealed else "",
    )
    words = keys.lexicon.passage(body.text, body.language, body.heading) if protection.words else {}
    return Point(identifier, NO_VECTOR if sealed else vector, words, held)


def opened(sealer: PassageSealer, number: int, held: Point) -> tuple[PassageBody, Vectors]:
    """Open a point as a row's key can: its Passage, and its vector as it is kept.

    Raises `SealedError` where either is not what was sealed there, also where only the vector was changed.
    """
    body = sealer.open(number, held.id, str(held.payload["s"]))
    sealed = held.payload.get("x", "")
    vector = sealer.open_vector(number, held.id, str(sealed)) if sealed else held.vector
    if body.vd != vector_digest(vector):
        raise SealedError("a vector is not the one that was sealed beside its text")
    return body, vector
