"""A rewrap that is killed at any point loses no key and goes on where it stopped."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from residency.database import Database, metadata
from residency.keyring import Keyring
from residency.outlets.keys.file import FileKeys
from residency.route import Action
from residency.seal import NO_TAG
from tests.doubles.routes import route_for

ROOT = Path(__file__).parents[2]
KEYS = 60
STORY = """
import asyncio, sys
from pathlib import Path
from residency import keks
from residency.route import Action
from tests.chaos.test_rewrap_killed import ring
from tests.doubles.routes import route_for

async def story():
    keks.BATCH = 1
    keyring, _ = ring(Path(sys.argv[1]))
    while True:
        print(await keyring.rewrap(route_for(Action.STORE, "de"), route_for(Action.OPEN, "de"), limit=1), flush=True)

asyncio.run(story())
"""


def ring(folder: Path) -> tuple[Keyring, Database]:
    database = Database(f"sqlite:///{folder / 'domicile.sqlite'}")
    metadata.create_all(database.engine)
    return Keyring(database, {"de": FileKeys(folder / "keys", site="de")}), database


async def _fill(folder: Path) -> list[bytes]:
    keyring, database = ring(folder)
    made = [
        await keyring.new_dek(
            route_for(Action.STORE, "de"),
            purpose="conversation",
            tenant="northwind",
            jurisdiction="DE",
            subject=number.to_bytes(16, "big"),
            version=1,
            tag_digest=NO_TAG,
            site="de",
        )
        for number in range(KEYS)
    ]
    await keyring.rotate(route_for(Action.STORE, "de"), tenant="northwind", jurisdiction="DE", site="de")
    database.close()
    return [each.dek_id for each in made]


async def _finish(folder: Path, made: list[bytes]) -> tuple[int, dict[int, str], int]:
    keyring, database = ring(folder)
    opened = await keyring.open_deks(route_for(Action.OPEN, "de"), "de", [(each, NO_TAG) for each in made])
    result = await keyring.rewrap(route_for(Action.STORE, "de"), route_for(Action.OPEN, "de"))
    states = {each.ref.version: each.state for each in await keyring.listing()}
    again = await keyring.open_deks(route_for(Action.OPEN, "de"), "de", [(each, NO_TAG) for each in made])
    database.close()
    assert result["left"] == result["refused"] == 0
    return len(opened), states, len(again)


@pytest.mark.chaos
@pytest.mark.parametrize("after", [1, 7, 30])
def test_a_killed_rewrap_loses_no_key(after: int, tmp_path: Path) -> None:
    made = asyncio.run(_fill(tmp_path))
    child = subprocess.Popen(
        [sys.executable, "-c", STORY, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with child:
        assert child.stdout is not None
        for _ in range(after):
            assert child.stdout.readline().startswith(b"{'moved': 1")
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert asyncio.run(_finish(tmp_path, made)) == (KEYS, {1: "retired", 2: "active"}, KEYS)
