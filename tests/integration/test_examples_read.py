"""The real readers and the real tagger make of the examples what their manifest says."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from ingestion.detectors import detect, language
from ingestion.sandbox import read_file
from ingestion.tagger import Declaration, rule
from residency.zones import Zones

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
DOCUMENTS: list[dict[str, Any]] = tomllib.loads((EXAMPLES / "documents.toml").read_text("utf-8"))["document"]
QUESTIONS: list[dict[str, Any]] = tomllib.loads((EXAMPLES / "questions.toml").read_text("utf-8"))["question"]


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def zones() -> Zones:
    return Zones.load(ROOT / "policies" / "zones.toml")


@pytest.mark.parametrize("entry", DOCUMENTS, ids=lambda entry: str(entry["file"]))
async def test_an_example_is_read_and_tagged_as_declared(entry: dict[str, Any], zones: Zones) -> None:
    path = EXAMPLES / "documents" / entry["file"]
    reading = await read_file(path.read_bytes(), declared_type=None, name_suffix=path.suffix)
    assert language(reading.text) == entry["language"]
    assert len(reading.pages) == entry.get("pages", 1)
    for question in QUESTIONS:
        if question.get("document") == entry["file"]:
            page = reading.pages[question.get("page", 1) - 1]
            assert flat(question["quote"]) in flat(reading.text[page.start : page.end])
    declared = Declaration(
        frozenset([entry["jurisdiction"]]),
        frozenset(entry["residency"]),
        entry["personal"],
        frozenset(entry["categories"]),
        entry["classification"],
    )
    tagged = rule(declared, detect(reading.text, reading.pages), zones)
    assert bool(tagged.quarantine) == (entry["outcome"] == "quarantined")
