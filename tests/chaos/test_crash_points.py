"""A worker may die anywhere: nothing that was taken in is lost, nothing is there twice, nothing is half erased."""

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingestion.rows import document
from ingestion.states import State
from residency.envelope import PassageSealer, vector_digest
from residency.errors import SiteError
from residency.keytables import dek_wrapped
from tests.chaos import story
from tests.doubles.ingesting import APP, Ingesting, ingesting
from tests.doubles.looking import dek_of, keys_of, points_of

pytestmark = pytest.mark.chaos

ROOT = Path(__file__).parents[2]
INTAKE = ["frame", "after-last-frame", "before-commit", "sealed"]
STEPS = [
    "text-written", "parsed", "tag-pending", "retagged", "tagged", "passages-written", "split", "vectors-written",
    "vectors-written:2", "embedded", "block-put", "block-put:2", "indexed", "before-live", "live",
]  # fmt: skip
REPLACING = ["before-live:2", "live:2", "replaced-deleted", "archived"]
ERASING = ["erasing", "shredded", "points-deleted", "purged", "files-deleted", "checkpointed", "erased"]
ORDERED = ["ordered", "shredded:2", "points-deleted", "files-deleted", "erased"]


@pytest.fixture(scope="module")
def teller() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.chaos.story"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.stdin.close()
    process.stdout.close()
    assert process.wait(10) == 0


async def tell(teller: subprocess.Popen[str], **order: Any) -> int:
    assert teller.stdin is not None and teller.stdout is not None
    teller.stdin.write(json.dumps(order) + "\n")
    teller.stdin.flush()
    return int(await asyncio.to_thread(teller.stdout.readline))


@asynccontextmanager
async def restarted(folder: Path) -> AsyncIterator[Ingesting]:
    """Open the same home in a new process's place, as soon as the dead one's shard has let go."""
    for _ in range(50):
        try:
            async with ingesting(
                folder,
                fleet=story.fleet(),
                embedder=story.embedder(),
                lease_seconds=story.LEASE,
                name="second",
                passage_words=story.WORDS,
            ) as house:
                yield house
                return
        except SiteError:
            await asyncio.sleep(0.1)
    raise AssertionError("the shard of the dead process never let go")


async def finish(house: Ingesting) -> None:
    """Work until everything rests; leases of the dead run out by themselves."""
    await house.intake.sweep(0.0)
    for _ in range(100):
        ready_again_soon(house)
        await house.worker.drain()
        with house.database.reading() as connection:
            resting = [State.LIVE, State.ARCHIVED, State.ERASED]
            busy = sa.select(document.c.state).where(document.c.state.not_in(resting))
            if not connection.execute(busy).all():
                return
        await asyncio.sleep(0.05)
    raise AssertionError("the documents did not come to rest")


def ready_again_soon(house: Ingesting) -> None:
    with house.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE document SET not_before = 0 WHERE not_before < 1e14")


async def whole(house: Ingesting, body: str, version: int) -> None:
    """Hold everything that must be true of a live Document: once, complete, exact, and nothing beside it."""
    listed = house.documents.listing("northwind").items
    assert len(listed) == 1
    found = listed[0]
    assert (found.state, found.version, found.size, found.cause) == (State.LIVE, version, len(body.encode()), "")
    points, keys = await points_of(house, found), await keys_of(house, found)
    assert found.passages > 256
    assert {point.id for point in points} == {keys.point_id(found.id, version, n) for n in range(found.passages)}
    sealer = PassageSealer(
        await dek_of(house, found), collection=bytes.fromhex(found.collection), document=bytes.fromhex(found.id),
        version=version, classification=found.tag.classification,
    )  # fmt: skip
    for point in points:
        opened = sealer.open(point.payload["n"], point.id, point.payload["s"])
        assert opened.text == body[opened.start : opened.end] and opened.vd == vector_digest(point.vector)
    assert found.tag.jurisdictions == {"DE", "EU"}
    stages = [(receipt["facts"]["version"], receipt["facts"]["stage"]) for receipt in receipts(house, "ingest")]
    assert sorted(stages) == sorted((n, stage) for n in range(1, version + 1) for stage in ("live", "sealed"))
    with house.database.reading() as connection:
        count = connection.execute(sa.select(sa.func.count()).select_from(dek_wrapped)).scalar_one()
    assert count == 3 + version  # the search keys, and one key a version
    files = [name for name in house.files() if name.endswith(".original") or ".vectors" in name or ".passages" in name]
    assert files == [f"{found.id}.{n}.original" for n in range(1, version + 1)]


def receipts(house: Ingesting, kind: str) -> list[dict[str, Any]]:
    return list(
        house.ledger.entries("northwind", datetime(2000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC), [kind])
    )


def order(point: str) -> dict[str, Any]:
    name, _, nth = point.partition(":")
    return {"point": name, "nth": int(nth or 1)}


@pytest.mark.parametrize("point", INTAKE + STEPS)
async def test_a_death_on_the_way_to_live_loses_and_doubles_nothing(
    teller: subprocess.Popen[str], tmp_path: Path, point: str
) -> None:
    assert await tell(teller, folder=str(tmp_path), story="ingest", **order(point)) == story.DIED
    async with restarted(tmp_path) as house:
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
    async with restarted(tmp_path) as house:
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
    async with restarted(tmp_path) as house:
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
    async with restarted(tmp_path) as house:
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
    async with restarted(tmp_path) as house:
        await house.intake.sweep(0.0)
        await house.taken("rules.txt", story.FIRST.encode(), **story.CLAIM)
        await finish(house)
        await whole(house, story.FIRST, 1)
