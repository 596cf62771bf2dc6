"""Whoever steals a Site's disk, the database or a backup reads sizes and ids, and not a word.

The same theft from a house with sealing switched off finds the words in each of the three.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingestion.archive import ArchiveWriter
from ingestion.backup import Backup
from residency import seal
from service import accounts
from tests.doubles.ingesting import ingesting, site
from tests.doubles.looking import live
from tests.doubles.unsealed import plain

ROOT = Path(__file__).parents[2]
WORDS = ["ZXQJVK7F3Estolen", "Zwölfkäferößchenstolen"]
BODY = (f"The owl {WORDS[0]} sleeps in the {WORDS[1]} barn of part. " * 40).encode()


async def houseful(folder: Path) -> dict[str, Path]:
    """Fill a house and take from it the three things that somebody may steal, without `keys/`."""
    home = folder / "home"
    home.mkdir()
    async with ingesting(home, fleet=site("fra", "DE", "DE")) as house:
        await live(house, f"{WORDS[0]} {WORDS[1]}.txt", BODY)
        with house.database.transaction() as connection:
            row = {"id": "northwind", "ceiling": ["EEA"], "zone": "DE", "created": 0.0}
            connection.execute(sa.insert(accounts.tenants).values(row))
        backup = Backup(
            database=house.database, engine=house.engine, ledger=house.ledger, shards=house.shards, vaults=house.vaults
        )
        await backup.write("DE", ArchiveWriter(folder / "backup.tar"))
    disk, database = folder / "disk", folder / "database"
    for part in ("shard", "vault"):
        shutil.copytree(home / "fra" / part, disk / part, ignore=shutil.ignore_patterns("*.sock"))
    database.mkdir()
    for path in home.glob("domicile.sqlite*"):
        shutil.copy(path, database)
    return {"disk": disk, "database": database, "backup": folder / "backup.tar"}


def steal(place: Path) -> dict[str, Any]:
    """Run the thief on one thing alone."""
    command = [sys.executable, "-m", "tests.doubles.thief", str(place), *WORDS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def test_a_thief_reads_sizes_and_ids_and_not_a_word(tmp_path: Path) -> None:
    for what, place in (await houseful(tmp_path)).items():
        found = steal(place)
        assert found["words"] == [], what
        assert sum(found["files"].values()) > 1000 and found["ids"] > 0  # there was something to read
        assert (found["rows"].get("document", 0) > 0) is (what == "database")
        assert (found["members"] > 3) is (what == "backup")


async def test_without_sealing_the_thief_finds_the_words_in_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal.Suite, "cipher", plain)
    for what, place in (await houseful(tmp_path)).items():
        assert {each.rpartition(": ")[2] for each in steal(place)["words"]} >= {"utf-8"}, what
