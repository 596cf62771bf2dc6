"""Fusion: the two legs of a search joined by normalised scores, across shards that each have their own word statistics.

Each shard's lexical score is divided by the question's IDF mass there before shards are compared, since raw scores of
different corpora do not compare; then each leg is divided by its best, and the two are added with a weight that depends
on how well the model knows the language. Rank fusion (RRF) lets a weak ranking drag a strong one down (docs/decisions).
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from residency.fleet import Fleet
from residency.lexicon import QuestionTokens
from residency.ports import Found, Hit
from service.errors import SettingsError

SHIPPED: Final[dict[str, dict[str, float]]] = {
    "sha256:04b1622bdf2efd1182cf06be234900d203a263b6617ef5cc7919ce719d64fee1": {  # the bundled all-MiniLM-L6-v2
        "en": 0.5, "de": 0.3, "el": 0.2, "es": 0.3, "fr": 0.3, "ro": 0.3,
    },
}  # fmt: skip
"""Weight of the dense leg by the digest of the model's manifest and ISO 639-1 code, as learned on questions of each."""
UNKNOWN: Final = 0.2
"""Weight where nobody measured: the curve is flat from .1 to .4 and falls off a cliff above .5, so less is safer."""
KNOWN: Final = 0.3
"""Weight from which a model counts as knowing a language."""
UNKNOWN_TRUST: Final = 0.25
"""Of a cosine that counts towards support in a language that the model does not know."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A Hit with its place among all: `score` in 0..1 for ranking, `sense` for its support once it is opened."""

    source: int
    """Index of the Found that it came from."""
    hit: Hit
    score: float
    sense: float
    """The cosine, as far as it counts."""


def dense_weight(learned: Mapping[str, float], question: str, passages: Iterable[str]) -> float:
    """Give the weight of the dense leg for a question's language and those of what it may find.

    A model has to know both: a question in English helps little over passages that the model reads badly. `learned`
    holds weights by language; what it does not hold counts `UNKNOWN`; of the passages' languages the best known rules.
    """
    best = max((learned.get(language, UNKNOWN) for language in passages), default=UNKNOWN)
    return min(learned.get(question, UNKNOWN), best)


def trust(learned: Mapping[str, float], question: str, passages: Iterable[str]) -> float:
    """Give what a cosine counts towards support: all of it where the model knows the language, little elsewhere.

    A model that cannot read a language gives high cosines to whatever is written in it. Where the question's language
    cannot be told, that of the passages rules.
    """
    languages = [*passages] if question == "und" else [question]
    known = max((learned.get(language, UNKNOWN) for language in languages), default=UNKNOWN)
    return 1.0 if known >= KNOWN else UNKNOWN_TRUST


def narrowed(idf: Mapping[int, float], language: str, held: Mapping[str, int]) -> Mapping[int, float]:
    """Give IDFs as if nothing but Passages in `language` were searched; `held` counts Passages by language.

    Beside other languages even an article is a rare word, and whoever holds it seems to answer. An IDF is
    ln((n + 1) / (df + .5)), and the Passages that hold a stem are of its own language, so that a smaller n takes the
    same from each. Where none is held in the language, all stay as they are.
    """
    mine, every = held.get(language, 0), sum(held.values())
    if mine in (0, every):
        return idf
    less = math.log((every + 1) / (mine + 1))
    return {token: max(0.0, value - less) for token, value in idf.items()}


def learned_weights(fleet: Fleet) -> dict[str, dict[str, float]]:
    """Give the weights of every model: what ships, and what holdings say beside their digests.

    Raises `SettingsError` for what is no weight.
    """
    found = dict(SHIPPED)
    for site in fleet.holding("embedder"):
        own = site.holding("embedder")
        if own is None or "weights" not in own.settings:
            continue
        try:
            weights = msgspec.convert(own.settings["weights"], dict[str, Annotated[float, msgspec.Meta(ge=0, le=1)]])
        except msgspec.ValidationError as error:
            hint = "weights = { en = 0.5 }: a number from 0 to 1 for each language"
            raise SettingsError(f"weights of the embedder at {site.id}: {error}", hint=hint) from error
        found[str(own.settings.get("digest", ""))] = weights
    return found


def learn(quality: Mapping[float, float], near: float = 0.002) -> float:
    """Give the weight to keep from what a development set scored by weight (such as nDCG@10): the least that is near.

    `near` is how much worse than the best a weight may be; no weight of a leg that is worse than words alone helps.
    """
    best = max(quality.values())
    return min(weight for weight, scored in quality.items() if scored >= best - near)


def fuse(
    founds: Sequence[Found],
    tokens: Sequence[QuestionTokens],
    *,
    dense_weight: float,
    trust: float = 1.0,
    wordless: Collection[int] = (),
) -> list[Scored]:
    """Join what the shards found, best first; ties are broken by point id, so the order is stable.

    `tokens[i]` are the blind question tokens that `founds[i]` was asked with; `trust` is what a cosine counts towards
    support. `wordless` are the founds whose Passages lie there without words: their vector stands for both legs, in
    the score as in the support, or nothing of them would ever reach the threshold of an Answer.
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
        near = dense / best_dense if best_dense > 0 else 0.0
        if source in wordless:
            scored.append(Scored(source, hit, near, 2 * trust * dense))
            continue
        score = dense_weight * near + ((1 - dense_weight) * words / best_words if best_words > 0 else 0.0)
        scored.append(Scored(source, hit, score, trust * dense))
    return sorted(scored, key=lambda item: (-item.score, item.hit.id))
