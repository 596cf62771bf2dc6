"""Precision and recall of the tagger on the labelled set: `python -m bench.tagging [--held-out]`.

A document's country is the Zone that its Signs point to most; its categories are what `policies/tagging.toml` finds.
Each document is also ruled on twice: declared as it is (nothing may be disputed) and declared as another country's.
Without `--held-out` every mistake of the tuning half is printed by id; of the held-out half only the figures.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.tagging_set import Labelled, halves, labelled
from ingestion import tagger
from ingestion.categories import categorise
from ingestion.detectors import detect
from residency.tagrules import TagRules
from residency.zones import Zones

POLICIES = Path(__file__).parents[1] / "policies"
CATEGORIES = ("personal", "health", "finance", "trade-secret")


@dataclass
class Score:
    """Counts of one class."""

    hit: int = 0
    extra: int = 0
    missed: int = 0

    def add(self, wanted: bool, found: bool) -> None:
        """Count one document."""
        self.hit += wanted and found
        self.extra += found and not wanted
        self.missed += wanted and not found

    @property
    def precision(self) -> float:
        """Of what was found, the part that is so; 1 where nothing was found."""
        return self.hit / (self.hit + self.extra) if self.hit + self.extra else 1.0

    @property
    def recall(self) -> float:
        """Of what is so, the part that was found."""
        return self.hit / (self.hit + self.missed) if self.hit + self.missed else 1.0


@dataclass
class Outcome:
    """Everything counted over a set."""

    countries: dict[str, Score] = field(default_factory=dict)
    categories: dict[str, Score] = field(default_factory=lambda: {name: Score() for name in CATEGORIES})
    confusions: Counter[tuple[str, str]] = field(default_factory=Counter)
    mistakes: list[str] = field(default_factory=list)
    disputed_rightly: Score = field(default_factory=Score)
    documents: int = 0


def judge(items: Iterable[Labelled], zones: Zones, rules: TagRules) -> Outcome:
    """Put each document before the tagger and compare with its labels."""
    found = Outcome()
    for item in items:
        signs = detect(item.text)
        signs += categorise(item.text, signs, rules)
        country, said = tagger.leading(signs), {sign.what for sign in signs if sign.kind == "category"}
        found.documents += 1
        for code in {item.country, country} - {""}:
            found.countries.setdefault(code, Score()).add(item.country == code, country == code)
        if country != item.country:
            found.confusions[item.country or "none", country or "none"] += 1
            found.mistakes.append(f"{item.id}: {item.country or 'none'} taken for {country or 'none'}")
        for name in CATEGORIES:
            found.categories[name].add(name in item.categories, name in said)
        if said != item.categories:
            found.mistakes.append(f"{item.id}: {sorted(item.categories)} taken for {sorted(said)}")
        away = "PT" if item.home != "PT" else "SE"
        for declared, wrong in ((item.home, False), (away, True)):
            tagged = tagger.rule(tagger.Declaration(frozenset({declared})), signs, zones)
            if not wrong or item.kind == "bill":  # only a bill says enough to be sure of another country
                found.disputed_rightly.add(wrong, tagged.quarantine is not None)
    return found


def table(found: Outcome) -> list[str]:
    """Lay the figures out."""
    lines = [f"{found.documents} documents", "", "| class | documents | precision | recall |", "|---|---|---|---|"]
    every = Score()
    for code, score in sorted(found.countries.items()):
        lines.append(f"| {code} | {score.hit + score.missed} | {score.precision:.3f} | {score.recall:.3f} |")
        every.hit, every.extra = every.hit + score.hit, every.extra + score.extra
        every.missed += score.missed
    lines.append(f"| all countries | {every.hit + every.missed} | {every.precision:.3f} | {every.recall:.3f} |")
    for name, score in (*found.categories.items(), ("dispute", found.disputed_rightly)):
        lines.append(f"| {name} | {score.hit + score.missed} | {score.precision:.3f} | {score.recall:.3f} |")
    lines += [
        "",
        "confusions: " + (", ".join(f"{a} for {b}: {n}" for (b, a), n in found.confusions.most_common()) or "none"),
    ]
    return lines


def everything() -> tuple[Zones, TagRules]:
    """Load the shipped Zones and rules."""
    zones = Zones.load(POLICIES / "zones.toml")
    return zones, TagRules.parse((POLICIES / "tagging.toml").read_bytes(), zones)


def main(arguments: Sequence[str]) -> None:
    """Print the figures of one half."""
    tuning, held = halves(list(labelled()))
    zones, rules = everything()
    chosen = held if "--held-out" in arguments else tuning
    found = judge(chosen, zones, rules)
    sys.stdout.write("\n".join([*table(found), *([] if chosen is held else ["", *found.mistakes])]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
