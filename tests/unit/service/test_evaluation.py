"""Evaluation: files of questions are read or refused by line, figures add up, and a real run judges a real home."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from service.errors import InvalidRequestError
from service.evaluation import Row, figures, load, summary
from service.rendering.bars import bars

ROOT = Path(__file__).parents[3]


def row(kind: str = "answerable", **given: Any) -> Row:
    base: dict[str, Any] = {
        "id": "q",
        "language": "en",
        "kind": kind,
        "rank": 1,
        "abstained": False,
        "right": True,
        "first": True,
        "citations": 1,
        "exact": 1,
        "confidence": 0.9,
        "search_ms": 10.0,
        "answer_ms": 12.0,
    }
    return Row(**(base | given))


def test_the_development_set_is_whole() -> None:
    files = sorted((ROOT / "examples/eval").glob("*.jsonl"))
    cases = [case for file in files for case in load(file)]
    own = load(ROOT / "examples/questions.toml")
    assert len(cases) + len(own) >= 200
    assert {case.language for case in cases} == {"en", "de", "fr", "es"}
    assert len({case.id for case in [*cases, *own]}) == len(cases) + len(own)
    for case in cases:
        if not isinstance(case.expect, str):
            text = (ROOT / "examples/eval/texts" / case.expect.document).read_text()
            assert case.expect.quote in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no question"),
        ("{", "no JSON"),
        ('{"question": "x"}', "question 1"),
        ('{"question": "x", "expect": "maybe"}', "unanswerable"),
        ('{"question": "x", "expect": {"document": "a"}}', "quote"),
        ('{"question": "x", "expect": "unanswerable", "answer": 1}', "answer"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(text)
    with pytest.raises(InvalidRequestError, match=says):
        load(file)


def test_figures_keep_wrong_answers_and_wrong_refusals_apart() -> None:
    rows = [
        row(),
        row(rank=4, right=False, first=False, confidence=0.6),
        row(rank=0, right=False, first=False, abstained=True, citations=0, exact=0, confidence=0.2),
        row(rank=2, citations=2),
        row("unanswerable", abstained=True, right=False, citations=0, exact=0, confidence=0.1),
        row("beyond", abstained=False, right=False, confidence=0.6),
    ]
    found = figures(rows)
    assert (found["questions"], found["answerable"], found["beyond_reach"]) == (6, 4, 1)
    assert (found["hit@1"], found["hit@3"], found["hit@5"]) == (0.25, 0.5, 0.75)
    assert found["mrr@10"] == pytest.approx((1 + 0.25 + 0 + 0.5) / 4)
    assert (found["right"], found["wrong_answers"], found["wrong_refusals"]) == (0.5, 0.25, 0.25)
    assert found["abstained_rightly"] == 0.5
    assert found["exact_quotes"] == pytest.approx(4 / 5)
    assert found["auroc"] == pytest.approx((2 * 1 + 2 * 1 + (1 + 0.5) + 1) / 8)
    assert found["calibration_error"] is None


def test_shares_of_nothing_are_null_and_languages_stand_apart() -> None:
    found = summary([row(language="de"), row("unanswerable", language="fr", abstained=True, citations=0, exact=0)])
    assert list(found) == ["all", "de", "fr"]
    assert found["fr"]["hit@1"] is None
    assert found["de"]["abstained_rightly"] is None
    assert found["fr"]["exact_quotes"] is None


def test_a_sure_and_right_system_is_calibrated() -> None:
    rows = [row(confidence=1.0)] * 10 + [row("unanswerable", confidence=0.0)] * 10
    assert figures(rows)["calibration_error"] == 0
    assert figures([row(confidence=0.5)] * 10)["calibration_error"] == 0.5


def test_the_plot_is_plain_svg_with_every_number_written() -> None:
    drawn = bars(summary([row(), row("unanswerable", language="de<x>", abstained=True)]), 'A & B "<c>"')
    root = ElementTree.fromstring(drawn)  # our own text
    assert root.tag.endswith("svg")
    assert "script" not in drawn
    assert "style=" not in drawn
    texts = ["".join(each.itertext()) for each in root.iter() if each.tag.endswith("text")]
    assert "1.000" in texts
    assert "none" in texts
    assert any("de<x>" in text for text in texts)


def test_results_hold_ids_and_numbers_only() -> None:
    from msgspec import to_builtins

    values = to_builtins(row()).values()
    assert all(isinstance(value, (int, float, bool)) or value in ("q", "en", "answerable") for value in values)
    assert json.dumps(to_builtins(row()))
