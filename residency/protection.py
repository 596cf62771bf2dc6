"""Protection: in what form a Collection's vectors and words lie at a shard, and what a Tag demands beyond that.

A Collection says what it wants; a Tag may only demand more. So what is stored and what is asked agree: both are worked
out from the Collection's row and the Tag, and neither from what a shard says (sealing page, vectors and blind BM25).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from residency.tag import Tag


class VectorMode(StrEnum):
    """How vectors lie at a shard."""

    NONE = "none"
    """As they were embedded; of public Documents that hold no personal data, all others are rotated."""
    ROTATED = "rotated"
    """Turned into the tenant's secret basis: obfuscation, not encryption."""
    NOISY = "rotated+noise"
    """Turned, and moved by noise that costs some recall: still no encryption."""
    SEALED = "sealed"
    """Encrypted in the payload, and searched in memory."""


class WordMode(StrEnum):
    """Whether blind words lie at a shard."""

    AUTO = "auto"
    """Blind, but none of special categories."""
    BLIND = "blind"
    OFF = "off"


SPECIAL: Final = frozenset(
    {"health", "genetic", "biometric", "ethnicity", "politics", "religion", "union", "sexuality", "criminal"}
)
"""Categories of GDPR 9(1) and 10, as Tags name them."""


@dataclass(frozen=True, slots=True)
class Protection:
    """What holds for Passages of one Tag in one Collection."""

    vectors: VectorMode = VectorMode.ROTATED
    words: bool = True
    """Whether blind words lie beside the vector."""


USUAL: Final = Protection()


def protect(vectors: str, words: str, tag: Tag) -> Protection:
    """Join what a Collection wants with what a Tag demands; empty strings are the defaults."""
    mode, word = VectorMode(vectors or VectorMode.ROTATED), WordMode(words or WordMode.AUTO)
    public = not tag.personal and not tag.categories and tag.classification == 0
    if mode is VectorMode.NONE and not public:
        mode = VectorMode.ROTATED
    return Protection(mode, word is WordMode.BLIND or (word is WordMode.AUTO and not SPECIAL & tag.categories))
