"""A worker may die at any step of a move: the Document is whole at one Site at any time, in the end at one alone."""

import asyncio
import subprocess
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingestion.documents import Document
from ingestion.moving import Moved
from ingestion.rows import document
from ingestion.states import State
from residency.keytables import dek, dek_wrapped
from residency.ports import PointFilter
from residency.route import Action
from tests.chaos import story
from tests.chaos.telling import opens, order, receipts, restarted, tell, time_passes
from tests.doubles.ingesting import APP, Ingesting
from tests.doubles.looking import keys_of, points_of, route

pytestmark = pytest.mark.chaos

COPYING = ["move-asked", "move-copied", "move-sealed"]
INDEXING = ["split:2", "vectors-written:4", "embedded:2", "block-put:3", "indexed:2", "before-live:2", "live:2"]
LEAVING = ["move-shredded", "points-deleted", "purged", "move-cleared", "moved"]


async def whole(house: Ingesting, found: Document) -> None:
    """A search at any time finds the Document once, complete and exact."""
    points, keys = await points_of(house, found), await keys_of(house, found)
    expected = {keys.point_id(found.id, found.version, number) for number in range(found.passages)}
    assert {point.id for point in points} >= expected and found.passages > 256
    await opens(house, found, [point for point in points if point.id in expected], story.FIRST)


async def finish(house: Ingesting, identifier: str) -> Moved:
    for _ in range(100):
        time_passes(house)
        await house.worker.drain()
        status = await house.pipeline.moving.status("northwind", identifier)
        if status.state == "done":
            return status
        await asyncio.sleep(0.05)
    raise AssertionError("the move came to no end")


@pytest.mark.parametrize("point", COPYING + INDEXING + LEAVING)
async def test_a_death_in_a_move_leaves_the_document_whole_and_the_move_goes_on(
    teller: subprocess.Popen[str], tmp_path: Path, point: str
) -> None:
    assert await tell(teller, folder=str(tmp_path), story="move", **order(point)) == story.DIED
    async with restarted(tmp_path, story.two_sites()) as house:
        (listed,) = house.documents.listing("northwind").items
        living = house.documents.live("northwind", [listed.id])[listed.id]
        assert living.site == ("fra" if point in COPYING + INDEXING[:-1] else "par")
        await whole(house, living)
        status = await finish(house, listed.id)
        assert status == Moved(listed.id, 2, "fra", "par", "done")
        found = house.get(listed.id)
        assert (found.state, found.site, found.version) == (State.LIVE, "par", 2)
        await whole(house, found)
        # nothing is there twice, and nothing is left at the old Site
        assert house.files("fra") == []
        assert house.files("par") == [f"{found.id}.2.original", f"{found.id}.2.text"]
        with house.database.reading() as connection:
            old = connection.execute(sa.select(document).where(document.c.version == 1)).one()
            mine = sa.select(sa.func.count()).select_from(dek_wrapped).join(dek, dek.c.id == dek_wrapped.c.dek_id)
            keys = connection.execute(mine.where(dek.c.subject_id == bytes.fromhex(found.id))).scalar_one()
        assert (old.state, keys) == (State.ERASED, 1)
        search = route(house, Action.SEARCH, house.get(found.id, 1))
        owner = (await keys_of(house, house.get(found.id, 1))).owner
        assert await house.shards["fra"].count(search, PointFilter(owners=(owner,))) == 0
        stages = [each["facts"]["stage"] for each in receipts(house, "ingest")]
        assert sorted(stages) == ["live", "live", "move-asked", "moved-copy", "sealed"]
        assert [each["facts"]["stage"] for each in receipts(house, "erase")] == ["moved-away"]
        assert await house.pipeline.moving.move(APP, found.id, "par") == status
