"""Cutting: how long a Collection's Passages are and how much of the one before each is embedded with it.

What it says holds for Documents that come in, or are tried again, from then on. A Passage stays an exact slice of its
text: the overlap is embedded, never kept, shown or quoted.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import msgspec
import sqlalchemy as sa

from ingestion import collections
from ingestion.errors import UploadError
from ingestion.splitter import Piece

LEAST: Final = 20
MOST: Final = 2000
_WORDS: Final = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Cut:
    """Words of a Passage at most, 0: as the settings say; words of the Passage before it that are embedded with it."""

    words: int = 0
    overlap: int = 0


def of(connection: sa.Connection, collection_id: str) -> Cut:
    """Give how a Collection is cut."""
    c = collections.collection.c
    found = connection.execute(sa.select(c.passage_words, c.overlap_words).where(c.id == collection_id)).first()
    return Cut(*found) if found else Cut()


def choose(connection: sa.Connection, tenant: str, name: str, cut: Cut, clock: sa.ColumnElement[float]) -> None:
    """Say how a Collection is cut from now on, made if need be. Raises `UploadError` for figures out of bounds."""
    if cut.words and not LEAST <= cut.words <= MOST:
        raise UploadError(f"a passage has {LEAST} to {MOST} words", hint="or 0, for what the settings say")
    if not 0 <= cut.overlap <= (cut.words or LEAST) // 2:
        raise UploadError("an overlap is at most half a passage", hint="choose more words, or less overlap")
    found = collections.ensure(connection, tenant, name, clock)
    c = collections.collection.c
    values = {"passage_words": cut.words, "overlap_words": cut.overlap}
    connection.execute(sa.update(collections.collection).where(c.id == found.id).values(values))


def overlapped(pieces: Sequence[Piece], words: int) -> list[Piece]:
    """Give the Passages as they are embedded: each behind the last words of the one before it, under one heading."""
    if not words or not pieces:
        return list(pieces)
    made = [pieces[0]]
    for before, piece in pairwise(pieces):
        tail = [found.start() for found in _WORDS.finditer(before.text)][-words:]
        near = bool(tail) and before.heading == piece.heading
        made.append(msgspec.structs.replace(piece, text=f"{before.text[tail[0] :]} {piece.text}") if near else piece)
    return made
