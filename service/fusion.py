"""Fusion: the two legs of a search joined by normalised scores, across shards that each have their own word statistics.

Each shard's lexical score is divided by the question's IDF mass there before shards are compared, since raw scores of
different corpora do not compare; then each leg is divided by its best, and the two are added with a weight that depends
on how well the model knows the language. Rank fusion (RRF) lets a weak ranking drag a strong one down (docs/decisions).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from residency.ports import Found, Hit

KNOWN_WEIGHT = 0.5
"""Weight of the dense leg in a language the model knows."""
OTHER_WEIGHT = 0.3
"""Weight of the dense leg in any other: words alone beat an English model there."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A Hit with its place among all: `score` in 0..1 for ranking, `support` for abstention (0 to about 2)."""

    source: int
    """Index of the Found that it came from."""
    hit: Hit
    score: float
    support: float


def idf_mass(found: Found, tokens: dict[int, float]) -> float:
    """Give what a passage holding every word of the question once would score there."""
    return sum(count * found.idf.get(token, 0.0) for token, count in tokens.items())


def fuse(founds: Sequence[Found], tokens: Sequence[dict[int, float]], *, dense_weight: float) -> list[Scored]:
    """Join what the shards found, best first; ties are broken by point id, so the order is stable.

    `tokens[i]` are the blind question tokens that `founds[i]` was asked with.
    """
    joined: list[tuple[int, Hit, float]] = []
    for source, (found, asked) in enumerate(zip(founds, tokens, strict=True)):
        mass = idf_mass(found, asked)
        joined += [(source, hit, hit.lexical / mass if mass > 0 else 0.0) for hit in found.hits]
    best_dense = max((hit.dense for _, hit, _ in joined), default=0.0)
    best_words = max((words for _, _, words in joined), default=0.0)
    scored = []
    for source, hit, words in joined:
        dense = max(hit.dense, 0.0)
        score = (dense_weight * dense / best_dense if best_dense > 0 else 0.0) + (
            (1 - dense_weight) * words / best_words if best_words > 0 else 0.0
        )
        scored.append(Scored(source, hit, score, dense + words))
    return sorted(scored, key=lambda item: (-item.score, item.hit.id))
