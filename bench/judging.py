"""One judge for both sides: whether what came back holds the expected document and quote."""

import re
from collections.abc import Sequence
from typing import Any

HEAD = 60
"""Code points of the expected quote that must be there: a long one may run over a passage's end."""


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().casefold()


def holds(item: dict[str, Any], name: str, text: str) -> bool:
    """Say whether a passage is of the expected document and holds the beginning of the expected quote."""
    return name == item["document"] and plain(item["quote"])[:HEAD] in plain(text)


def rank(item: dict[str, Any], found: Sequence[tuple[str, str]]) -> int:
    """Give the place of the first right passage among (name, text), 1-based; 0 when there is none."""
    return next((at for at, (name, text) in enumerate(found, 1) if holds(item, name, text)), 0)


def shares(ranks: Sequence[int]) -> dict[str, float]:
    """Give hit@1, hit@5 and MRR@10."""
    total = max(1, len(ranks))
    return {
        "hit@1": round(sum(r == 1 for r in ranks) / total, 3),
        "hit@5": round(sum(0 < r <= 5 for r in ranks) / total, 3),
        "mrr@10": round(sum(1 / r for r in ranks if r) / total, 3),
    }
