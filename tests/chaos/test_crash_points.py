"""A worker may die anywhere: nothing that was taken in is lost, nothing is there twice, nothing is half erased."""

import asyncio
import random
import subprocess
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingestion.rows import document
from ingestion.states import State
from residency.keytables import dek_wrapped
from tests.chaos import story
from tests.chaos.telling import opens, order, receipts, restarted, tell, time_passes
from tests.doubles.ingesting import APP, Ingesting
from tests.doubles.looking import keys_of, points_of

pytestmark = pytest.mark.chaos

INTAKE = ["frame", "after-last-frame", "before-commit", "sealed"]
STEPS = [
    "text-written", "parsed", "tag-pending", "retagged", "tagged", "passages-written", "split", "vectors-written",
    "vectors-written:2", "embedded", "block-put", "block-put:2", "indexed", "before-live", "live",
]  # fmt: skip
REPLACING = ["before-live:2", "live:2", "replaced-deleted", "archived"]
ERASING = ["erasing", "shredded", "points-deleted", "purged", "files-deleted", "checkpointed", "erased"]
ORDERED = ["ordered", "shredded:2", "points-deleted", "files-deleted", "erased"]


async def finish(house: Ingesting) -> None:
    """Work until everything rests."""
    await house.intake.sweep(0.0)
    for _ in range(100):
        time_passes(house)
        await house.worker.drain()
        with house.database.reading() as connection:
            resting = [State.LIVE, State.ARCHIVED, State.ERASED]
            busy = sa.select(document.c.state).where(document.c.state.not_in(resting))
            if not connection.execute(busy).all():
                return
        await asyncio.sleep(0.05)
    raise AssertionError("the documents did not come to rest")


async def whole(house: Ingesting, body: str, version: int) -> None:
    """Hold everything that must be true of a live Document: once, complete, exact, and nothing beside it."""
    listed = house.documents.listing("northwind").items
    assert len(listed) == 1
    found = listed[0]
    assert (found.state, found.version, found.size, found.cause) == (State.LIVE, version, len(body.encode()), "")
    points, keys = await points_of(house, found), await keys_of(house, found)
    assert found.passages > 256
    assert {point.id for point in points} == {keys.point_id(found.id, version, n) for n in range(found.passages)}
    await opens(house, found, points, body)
    assert found.tag.jurisdictions == {"DE", "EU"}
    stages = [(receipt["facts"]["version"], receipt["facts"]["stage"]) for receipt in receipts(house, "ingest")]
    assert sorted(stages) == sorted((n, stage) for n in range(1, version + 1) for stage in ("live", "sealed"))
    with house.database.reading() as connection:
        count = connection.execute(sa.select(sa.func.count()).select_from(dek_wrapped)).scalar_one()
    assert count == 3 + version  # the search keys, and one key a version
    files = [name for name in house.files() if name.endswith(".original") or ".vectors" in name or ".passages" in name]
    assert files == [f"{found.id}.{n}.original" for n in range(1, version + 1)]


@pytest.mark.parametrize("point", INTAKE + STEPS)
async def test_a_death_on_the_way_to_live_loses_and_doubles_nothing(
    teller: subprocess.Popen[str], tmp_path: Path, point: str
) -> None:
    assert await tell(teller, folder=str(tmp_path), story="ingest", **order(point)) == story.DIED
    async with restarted(tmp_path, story.fleet()) as house:
        with house.database.reading() as connection:
            row = connection.execute(sa.select(document)).one()
        assert (row.state == State.RECEIVING) is (point in INTAKE[:3])
        await house.intake.sweep(0.0)
        again = await house.taken("rules.txt", story.FIRST.encode(), **story.CLAIM)  # the sender saw no answer
        if point not in INTAKE[:3]:
            assert (again.document.id, again.receipt, again.created) == (row.id, row.receipt, False)
        await finish(house)
        await whole(house, story.FIRST, 1)


@pytest.mark.parametrize("point", REPLACING)
async def test_a_death_while_a_version_is_replaced_leaves_one_version_whole(
    teller: subprocess.Popen[str], tmp_path: Path, point: str
) -> None:
    assert await tell(teller, folder=str(tmp_path), story="replace", **order(point)) == story.DIED
    async with restarted(tmp_path, story.fleet()) as house:
        living = house.documents.live("northwind", [house.documents.listing("northwind").items[0].id])
        assert len(living) == 1  # at any time a search sees the old version or the new one
        await finish(house)
        await whole(house, story.SECOND, 2)
        assert house.get(next(iter(living)), 1).state is State.ARCHIVED


@pytest.mark.parametrize("point", ERASING)
async def test_a_death_while_erasing_never_leaves_a_document_half_erased(
    teller: subprocess.Popen[str], tmp_path: Path, point: str
) -> None:
    assert await tell(teller, folder=str(tmp_path), story="erase", **order(point)) == story.DIED
    async with restarted(tmp_path, story.fleet()) as house:
        with house.database.reading() as connection:
            row = connection.execute(sa.select(document)).one()
        assert row.state == (State.ERASED if point == "erased" else State.ERASING)
        assert house.documents.counts("northwind") == []
        await finish(house)
        certificate = await house.erasure.certificate("northwind", row.id)
        assert certificate["state"] == "complete"
        assert len(receipts(house, "erase")) == 1 and house.files() == []
        with house.database.reading() as connection:
            count = connection.execute(sa.select(sa.func.count()).select_from(dek_wrapped)).scalar_one()
        assert count == 3  # the search keys alone
        assert (await house.erasure.erase(APP, row.id)).state is State.ERASED


@pytest.mark.parametrize("point", ORDERED)
async def test_a_death_in_the_midst_of_an_order_leaves_it_for_the_next_worker(
    teller: subprocess.Popen[str], tmp_path: Path, point: str
) -> None:
    assert await tell(teller, folder=str(tmp_path), story="order", **order(point)) == story.DIED
    async with restarted(tmp_path, story.fleet()) as house:
        [begun] = await house.forgetting.orders("northwind")
        assert (begun.state, begun.documents, begun.erased) == ("pending", 2, int(point == "erased"))
        assert house.documents.counts("northwind") == []
        await finish(house)
        done = await house.forgetting.certificate("northwind", begun.id)
        assert (done["state"], done["erased"]) == ("complete", 2)
        stages = [receipt["facts"].get("stage", "") for receipt in receipts(house, "erase")]
        assert sorted(stages) == ["", "", "order-complete", "ordered"] and house.files() == []
        with house.database.reading() as connection:
            count = connection.execute(sa.select(sa.func.count()).select_from(dek_wrapped)).scalar_one()
        assert count == 3  # the search keys alone


@pytest.mark.parametrize("seed", range(3))
async def test_a_kill_at_any_moment_loses_and_doubles_nothing(
    teller: subprocess.Popen[str], tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    for _ in range(2):  # the second kill hits what the first one left
        status = await tell(teller, folder=str(tmp_path), story="ingest", kill_after=chance.uniform(0.3, 1.8))
        assert status in (-9, 0, 1)  # 1: the first one's shard had not let go yet
    async with restarted(tmp_path, story.fleet()) as house:
        await house.intake.sweep(0.0)
        await house.taken("rules.txt", story.FIRST.encode(), **story.CLAIM)
        await finish(house)
        await whole(house, story.FIRST, 1)
