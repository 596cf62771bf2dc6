"""The texts of a run: passages of the examples, repeated and varied, or any JSONL of {id, text}; and its questions."""

import json
import re
import tomllib
from itertools import cycle
from pathlib import Path
from typing import Any

from ingestion.sandbox import read_file
from ingestion.sentences import sentences

EXAMPLES = Path(__file__).parent.parent / "examples"
PASSAGE = 700
"""Code points of a passage made from the examples, about 150 tokens of the bundled model."""
GROUP = 50
"""Passages to a document."""
QUESTION_WORDS = 14


async def example_texts() -> dict[str, str]:
    """Read every example with Domicile's own readers; both sides get these very texts."""
    texts = {}
    for item in manifest()["document"]:
        path = EXAMPLES / "documents" / item["file"]
        texts[item["file"]] = (await read_file(path.read_bytes(), name_suffix=path.suffix)).text
    return texts


def manifest() -> dict[str, Any]:
    return tomllib.loads((EXAMPLES / "documents.toml").read_text(encoding="utf-8"))


def questions() -> list[dict[str, Any]]:
    loaded = tomllib.loads((EXAMPLES / "questions.toml").read_text(encoding="utf-8"))
    return list(loaded["question"])


async def passages(count: int, source: str) -> list[dict[str, str]]:
    """Give `count` passages: from the JSONL at `source`, else from the examples; repeated and varied where short."""
    if source:
        base = _lines(Path(source))
        if len(base) >= count:
            return base[:count]
    else:
        base = []
        for item in manifest()["document"]:
            path = EXAMPLES / "documents" / item["file"]
            text = (await read_file(path.read_bytes(), name_suffix=path.suffix)).text
            base += [
                {"id": f"{path.stem}-{number}", "text": part}
                for number, part in enumerate(_packed(text, item["language"]))
            ]
    made: list[dict[str, str]] = []
    for number, each in enumerate(cycle(base)):
        if len(made) == count:
            return made
        turn = number // len(base) + 1
        made.append({"id": f"{each['id']}-{turn}", "text": vary(each["text"], turn)})
    return made


def _lines(path: Path) -> list[dict[str, str]]:
    rows = map(json.loads, filter(None, path.read_text(encoding="utf-8").splitlines()))
    return [{"id": str(row["id"]), "text": str(row["text"])} for row in rows]


def _packed(text: str, language: str) -> list[str]:
    parts, current = [], ""
    for start, end in sentences(text, language):
        sentence = " ".join(text[start:end].split())
        if current and len(current) + len(sentence) > PASSAGE:
            parts.append(current)
            current = ""
        current = f"{current} {sentence}".strip()
    return [*parts, current] if current else parts


def vary(text: str, turn: int) -> str:
    """Give the text with other figures and its sentences begun at another place: same words, no duplicate.

    Other figures also break check digits, so that no bank account of an example speaks for a country.
    """
    changed = re.sub(r"\d+", lambda found: str((int(found[0]) * 31 + turn * 17) % 10 ** len(found[0])), text)
    parts = re.split(r"(?<=[.!?]) ", changed)
    at = turn % len(parts)
    return " ".join(parts[at:] + parts[:at])


def documents(found: list[dict[str, str]]) -> list[dict[str, str]]:
    """Group passages into documents of plain text."""
    return [
        {"name": f"part-{at // GROUP:04d}.txt", "text": "\n\n".join(each["text"] for each in found[at : at + GROUP])}
        for at in range(0, len(found), GROUP)
    ]


def asked(found: list[dict[str, str]], count: int) -> list[str]:
    """Give questions for timing: the first words of passages spread over the corpus, each another."""
    step = max(1, len(found) // count)
    return [" ".join(each["text"].split()[:QUESTION_WORDS]) for each in found[::step]][:count]
