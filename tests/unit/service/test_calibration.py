"""From pairs to a map: calibrated on Documents it did not see, with a threshold that lets few absent ones through."""

import random
from pathlib import Path

import pytest

from residency.database import Database, metadata
from service.calibration import (
    FALSE,
    FEWEST,
    GENERAL,
    Calibration,
    Calibrations,
    Pair,
    calibration_error,
    choose,
    fit,
)
from service.leaving import OPENINGS, make


def pairs(count: int, *, apart: float = 0.7) -> list[Pair]:
    rng = random.Random(7)
    return [Pair(f"d{n // 4}", rng.gauss(0.7 + apart, 0.2), rng.gauss(0.7, 0.2)) for n in range(count)]


def test_fewer_pairs_than_fifty_give_no_map() -> None:
    assert fit(pairs(FEWEST - 1), passages=10, now=1.0) is None
    assert fit(pairs(FEWEST), passages=10, now=1.0) is not None


def test_a_map_is_calibrated_and_lets_few_through_where_it_was_not_fitted() -> None:
    made = fit(pairs(400), passages=10, now=1.0)
    assert made is not None
    assert made.falsely <= 0.06
    assert made.answered > 0.85
    assert made.error < 0.06
    assert made.confidence(0.5) < 0.1 < 0.9 < made.confidence(1.7)
    assert sum(each.absent >= made.threshold for each in pairs(400)) <= 400 * FALSE


def test_what_cannot_be_told_apart_is_hardly_answered() -> None:
    made = fit(pairs(200, apart=0.0), passages=10, now=1.0)
    assert made is not None
    assert made.answered < 0.15
    assert 0.3 < made.confidence(0.7) < 0.7


def test_classes_without_overlap_give_a_finite_map() -> None:
    made = fit([Pair(str(n), 2.0, 0.1) for n in range(60)], passages=1, now=1.0)
    assert made is not None
    assert made.threshold == pytest.approx(0.1, abs=1e-3)
    assert made.confidence(2.0) > 0.9 > 0.1 > made.confidence(0.1)


def test_the_error_is_none_where_confidence_is_the_truth() -> None:
    assert calibration_error([(0.5, 1.0), (0.5, 0.0)] * 50) == 0.0
    assert calibration_error([(0.9, 0.0)] * 50) == pytest.approx(0.9)


def test_a_map_is_kept_for_its_collection_model_and_language_and_replaced_by_a_newer_one(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'c.sqlite'}")
    metadata.create_all(database.engine)
    kept = Calibrations(database)
    older, newer = Calibration(5, -5, 1.0, pairs=60), Calibration(6, -6, 1.1, pairs=80)
    kept.keep("c1", "sha256:m", "de", older)
    kept.keep("c1", "sha256:m", "de", newer)
    kept.keep("c1", "sha256:m", "", older)
    known = Calibrations(database).known("c1")
    assert choose(known, "sha256:m", "de", passages=9) == newer
    assert choose(known, "sha256:m", "fr", passages=9) == older
    assert choose(known, "sha256:other", "de", passages=99) == GENERAL
    assert choose(known, "sha256:other", "de", passages=9).threshold < GENERAL.threshold
    assert kept.known("c2") == {}
    database.engine.dispose()


@pytest.mark.parametrize("language", [*OPENINGS, "fi"])
def test_a_made_question_has_words_of_its_sentence_and_no_figure(language: str) -> None:
    sentence = "The singers who travel by coach may bring 1 suitcase of 20 kilograms at most when they leave in 2031."
    made = make(sentence, language, random.Random(3))
    assert made.endswith("?")
    assert not any(letter.isdigit() for letter in made)
    assert 2 < len(set(made.rstrip("?").split()) & set(sentence.rstrip(".").split())) < len(sentence.split()) - 3
    assert make("Too short here.", language, random.Random(3)) == ""
