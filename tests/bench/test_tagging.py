"""The tagger on a part of the labelled set: good, and seen to be bad when it is broken."""

import pytest

from bench import tagging
from bench.tagging_set import halves, labelled
from ingestion import detectors
from residency.tagrules import TagRules

ITEMS = [item for item in labelled() if item.home in {"BE", "BG", "DE", "ES", "FI", "FR", "GR", "IT", "PL", "SE"}]
ZONES, RULES = tagging.everything()


def recall(found: tagging.Outcome) -> float:
    scores = list(found.countries.values())
    return sum(score.hit for score in scores) / sum(score.hit + score.missed for score in scores)


def test_the_set_has_the_size_it_claims_and_is_the_same_each_time() -> None:
    whole = list(labelled())
    assert len(whole) == 378 and len({item.home for item in whole}) == 27
    assert [item.text for item in whole] == [item.text for item in labelled()]
    tuning, held = halves(whole)
    assert len(tuning) + len(held) == 378 and min(len(tuning), len(held)) > 150


def test_countries_and_categories_are_found_and_nothing_is_disputed_without_reason() -> None:
    found = tagging.judge(ITEMS, ZONES, RULES)
    assert recall(found) >= 0.97 and sum(score.extra for score in found.countries.values()) <= 2
    for name, score in found.categories.items():
        assert (score.precision, score.recall) >= (0.97, 0.9), name
    assert found.disputed_rightly.extra <= 1 and found.disputed_rightly.recall >= 0.9


def test_a_broken_tagger_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(score.recall == 0 for score in tagging.judge(ITEMS, ZONES, TagRules()).categories.values())
    monkeypatch.setattr(detectors, "_found", lambda text: iter(()))
    assert recall(tagging.judge(ITEMS, ZONES, RULES)) == 0
