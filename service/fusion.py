"""Fusion: the two legs of a search joined by normalised scores, across shards that each have their own word statistics.

Each shard's lexical score is divided by the question's IDF mass there before shards are compared, since raw scores of
different corpora do not compare; then each leg is divided by its best, and the two are added with a weight that depends
on how well the model knows the language. Rank fusion (RRF) lets a weak ranking drag a strong one down (docs/decisions).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from residency.lexicon import QuestionTokens
from residency.ports import Found, Hit

SHIPPED: Final[dict[str, dict[str, float]]] = {
    "sha256:04b1622bdf2efd1182cf06be234900d203a263b6617ef5cc7919ce719d64fee1": {  # the bundled all-MiniLM-L6-v2
        "en": 0.5, "de": 0.3, "el": 0.3, "es": 0.3, "fr": 0.3, "ro": 0.3,
    },
}  # fmt: skip
"""Weight of the dense leg by the digest of the model's manifest and ISO 639-1 code, as learned on questions of each."""
UNKNOWN: Final = 0.2
"""Weight where nobody measured: the curve is flat from .1 to .4 and falls off a cliff above .5, so less is safer."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A Hit with its place among all: `score` in 0..1 for ranking, `support` for abstention (0 to about 2)."""

    source: int
    """Index of the Found that it came from."""
    hit: Hit
    score: float
    support: float


def dense_weight(learned: Mapping[str, float], question: str, passages: Iterable[str]) -> float:
    """Give the weight of the dense leg for a question's language and those of what it may find.

    A model has to know both: a question in English helps little over passages that the model reads badly. `learned`
    holds weights by language; what it does not hold counts `UNKNOWN`; of the passages' languages the best known rules.
    """
    best = max((learned.get(language, UNKNOWN) for language in passages), default=UNKNOWN)
    return min(learned.get(question, UNKNOWN), best)


def learn(quality: Mapping[float, float], near: float = 0.002) -> float:
    """Give the weight to keep from what a development set scored by weight (such as nDCG@10): the least that is near.

    `near` is how much worse than the best a weight may be; no weight of a leg that is worse than words alone helps.
    """
    best = max(quality.values())
    return min(weight for weight, scored in quality.items() if scored >= best - near)


def fuse(founds: Sequence[Found], tokens: Sequence[QuestionTokens], *, dense_weight: float) -> list[Scored]:
    """Join what the shards found, best first; ties are broken by point id, so the order is stable.

    `tokens[i]` are the blind question tokens that `founds[i]` was asked with.
    """
    joined: list[tuple[int, Hit, float]] = []
    for source, (found, asked) in enumerate(zip(founds, tokens, strict=True)):
        _, mass = asked.shares(found.idf)
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
