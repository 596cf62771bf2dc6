"""The tree: no file has grown so long that a second thought must have moved in."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("residency", "ingestion", "service")
LONGEST = 350
REASONS: dict[str, str] = {
    "ingestion/moving.py": "one story, told in the order in which it happens",
    "ingestion/pipeline.py": "one story, told in the order in which it happens",
    "residency/outlets/keys/pkcs11.py": "one body of a port, with what its token may answer",
    "service/bootstrap.py": "the composition root: one order of building, read from top to bottom",
}
"""Files that may be longer, each with its reason; versions of migrations are written once and never read in order."""


def lengths() -> dict[str, int]:
    files = (path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in files
        if path.parent.name != "versions"
    }


def too_long(found: dict[str, int]) -> dict[str, int]:
    return {file: lines for file, lines in found.items() if lines > LONGEST and file not in REASONS}


def test_no_file_is_longer_than_one_thought() -> None:
    assert too_long(lengths()) == {}


def test_a_reason_that_is_no_longer_needed_goes() -> None:
    found = lengths()
    assert [file for file in REASONS if found.get(file, 0) <= LONGEST] == []


def test_most_files_are_short() -> None:
    found = sorted(lengths().values())
    assert found[len(found) // 2] <= 200


@pytest.mark.parametrize("room", ROOMS)
def test_every_file_says_in_its_first_line_what_it_is(room: str) -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in (ROOT / room).rglob("*.py")
        if path.parent.name != "versions" and not path.read_text(encoding="utf-8").startswith('"""')
    ]
    assert silent == []


def test_a_file_that_grew_too_long_is_seen() -> None:
    assert too_long({"service/long.py": LONGEST + 1, "service/short.py": LONGEST}) == {"service/long.py": 351}
