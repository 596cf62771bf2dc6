"""Folding: Passages that say the same appear once and name the other places; pure.

Rules kept here: the best-ranked one is shown; figures must be the same, since a limit of 48 hours and one of 72 are two
answers however alike their words are; nobody's result falls out, for whoever folds fills up from below (`opening.py`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from residency.lexicon import words
from service.findings import Opened, Place

SHINGLE: Final = 4
"""Words, one after the other, that are compared as one."""
ALIKE: Final = 0.9
"""Share of the shingles of either that both hold, from which two texts say the same (Broder, "On the resemblance and
containment of documents", 1997). One word more or less in a hundred is within it."""


def fold(passages: Sequence[Opened]) -> list[Opened]:
    """Give the Passages, best first as they came, each near-duplicate as a place (`also`) of the one before it."""
    kept: list[Opened] = []
    marks: list[tuple[frozenset[tuple[str, ...]], Counter[str]]] = []
    for passage in passages:
        mark = _mark(passage.text)
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


def _mark(text: str) -> tuple[frozenset[tuple[str, ...]], Counter[str]]:
    stream = words(text)
    shingles = (tuple(stream[at : at + SHINGLE]) for at in range(max(1, len(stream) - SHINGLE + 1)))
    return frozenset(shingles), Counter(word for word in stream if any(letter.isdigit() for letter in word))


def _alike(
    one: tuple[frozenset[tuple[str, ...]], Counter[str]], other: tuple[frozenset[tuple[str, ...]], Counter[str]]
) -> bool:
    less, more = sorted((len(one[0]), len(other[0])))
    if less < ALIKE * more or one[1] != other[1]:  # cheap, and true of almost every pair
        return False
    both = len(one[0] & other[0])
    return both >= ALIKE * (less + more - both)
