"""Folding: Passages that say the same appear once and name the other places; pure.

Rules kept here: the best-ranked one is shown; figures must be the same, since a limit of 48 hours and one of 72 are two
answers however alike their words are; nobody's result falls out, for whoever folds fills up from below (`opening.py`).
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Final

from residency.lexicon import words
from service.findings import Opened, Place

SHINGLE: Final = 4
"""Words, one after the other, that are compared as one."""
ALIKE: Final = 0.9
"""Share of the shingles of either that both hold, from which two texts say the same (Broder, "On the resemblance and
containment of documents", 1997). One word more or less in a hundred is within it."""

_FIGURE: Final = re.compile(r"\b[^\W\d]*\d\w*")


def fold(passages: Sequence[Opened]) -> list[Opened]:
    """Give the Passages, best first as they came, each near-duplicate as a place (`also`) of the one before it."""
    kept: list[Opened] = []
    marks: list[_Mark] = []
    for passage in passages:
        mark = _Mark(passage.text)
        same = next((at for at, other in enumerate(marks) if _alike(mark, other)), None)
        if same is None:
            kept.append(passage)
            marks.append(mark)
        else:
            places = dict.fromkeys((*kept[same].also, place(passage), *passage.also))
            kept[same] = replace(kept[same], also=tuple(places))
    return kept


def place(passage: Opened) -> Place:
    """Give where a Passage stands."""
    return Place(passage.document_id, passage.name, passage.version, passage.page, passage.start, passage.end)


class _Mark:
    """What tells texts apart: figures first, which differ in almost every pair, and shingles when somebody asks."""

    def __init__(self, text: str) -> None:
        self.figures = Counter(_FIGURE.findall(text.casefold()))
        self._text = text

    @cached_property
    def shingles(self) -> frozenset[tuple[str, ...]]:
        stream = words(self._text)
        return frozenset(tuple(stream[at : at + SHINGLE]) for at in range(max(1, len(stream) - SHINGLE + 1)))


def _alike(one: _Mark, other: _Mark) -> bool:
    if one.figures != other.figures:
        return False
    less, more = sorted((len(one.shingles), len(other.shingles)))
    if less < ALIKE * more:
        return False
    both = len(one.shingles & other.shingles)
    return both >= ALIKE * (less + more - both)
