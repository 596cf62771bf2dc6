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


def sum_up(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sum up the rows of both sides over the same questions.

    A question whose document the policy keeps from the asker is counted apart: there abstaining is right.
    """
    reach = [row for row in ours if row["answerable"] and not row["held_back"]]
    beyond = [row for row in ours if not row["answerable"]]
    held_back = [row for row in ours if row["answerable"] and row["held_back"]]
    citations = sum(row["citations"] for row in ours)
    ranks = {row["id"]: row.get("rank", 0) for row in theirs}
    mine = shares([row["rank"] for row in reach]) | {
        "questions": len(reach),
        "answered_right": round(sum(row["right"] for row in reach) / len(reach), 3),
        "abstained_wrongly": round(sum(row["abstained"] for row in reach) / len(reach), 3),
        "abstained_rightly": f"{sum(row['abstained'] for row in beyond)} of {len(beyond)}",
        "held_back": f"{sum(row['abstained'] for row in held_back)} of {len(held_back)}",
        "exact_quotes": round(sum(row["exact"] for row in ours) / max(1, citations), 3),
        "rows": list(ours),
    }
    return mine, shares([ranks[row["id"]] for row in reach]) | {"rows": list(theirs)}
