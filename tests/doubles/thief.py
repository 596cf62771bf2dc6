"""A thief with one thing in hand: a Site's disk, the database, or a backup. Prints what can be read of it.

`python -m tests.doubles.thief PLACE WORD…` lists sizes, ids and rows, and every WORD that stands there in whatever
disguise. It has no key and asks nobody.
"""

import contextlib
import json
import re
import sqlite3
import sys
import tarfile
from pathlib import Path
from typing import Any

from tests.doubles.disguises import dense, needles, unpacked

IDS = re.compile(rb"[0-9a-f]{32}")


def loot(place: Path, words: list[str]) -> dict[str, Any]:
    """Read a file or every file below a folder; gives sizes, how many ids, rows by table, members, and words found."""
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    found: dict[str, Any] = {"files": {}, "ids": 0, "rows": {}, "members": 0, "words": []}
    ids: set[bytes] = set()
    wanted = [(word, how, needle) for word in words for how, needle in needles(word).items()]
    for path in files:
        name = str(path.relative_to(place)) if path != place else path.name
        found["files"][name] = path.stat().st_size
        raw = dense(path)
        ids.update(IDS.findall(raw))
        for text in (raw, *unpacked(raw)):
            found["words"] += [f"{name}: {how}" for _, how, needle in wanted if needle in text]
        with contextlib.suppress(sqlite3.DatabaseError):
            found["rows"] |= _rows(path)
        with contextlib.suppress(tarfile.TarError), tarfile.open(path, "r:") as tar:
            found["members"] += len(tar.getnames())
    return found | {"ids": len(ids), "words": sorted(set(found["words"]))}


def _rows(path: Path) -> dict[str, int]:
    if path.read_bytes()[:15] != b"SQLite format 3":
        return {}
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}
    finally:
        database.close()


if __name__ == "__main__":
    print(json.dumps(loot(Path(sys.argv[1]), sys.argv[2:]), indent=2))
