"""The drift watch: what lies where it may not, what nobody owns and what is missing is found, recorded, and mended."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from ingestion.damage import Damage
from ingestion.drift import Drift, Findings, last_looks
from ingestion.states import State
from residency.fleet import Fleet
from residency.ports import Point, PointFilter
from residency.route import Action
from residency.violations import Violations
from tests.doubles.ingesting import APP, Ingesting, ingesting, site
from tests.doubles.looking import BODY, keys_of, live, points_of, ready_again, route

FLEET = site("fra", "DE", "DE") + site("par", "FR", "FR")


class Watched:
    def __init__(self, house: Ingesting) -> None:
        self.house = house
        self.violations = Violations(house.database, house.ledger)
        self.drift = Drift(
            database=house.database, engine=house.engine, keyring=house.keyring, ledger=house.ledger,
            shards=house.shards, violations=self.violations,
            damage=Damage(
                database=house.database, engine=house.engine, keyring=house.keyring, ledger=house.ledger,
                vaults=house.vaults, violations=self.violations,
            ),
        )  # fmt: skip

    async def look(self) -> Findings:
        return await self.drift.check()

    def records(self, state: str = "") -> list[dict[str, Any]]:
        return [each.facts() for each in self.violations.listing("northwind", state=state)]


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    async with ingesting(tmp_path, fleet=FLEET) as house:
        yield Watched(house)


async def test_a_house_in_order_has_no_finding_whatever_state_its_documents_are_in(watched: Watched) -> None:
    house = watched.house
    first = await live(house)
    await live(house, "notice.txt", BODY + b"One rule more.\n")  # the older version is archived
    await house.taken("coming.txt", BODY + b"z")
    gone = await live(house, "gone.txt", BODY + b"y")
    await house.erasure.erase(APP, gone.id)
    await house.worker.drain()
    done = await watched.look()
    assert done == Findings() and watched.records() == []
    assert house.get(first.id).state is State.LIVE


async def test_documents_whose_tag_no_longer_permits_their_site_are_a_violation_until_they_are_moved(
    watched: Watched,
) -> None:
    house = watched.house
    held = await live(house, jurisdictions=frozenset({"DE", "FR"}))
    assert held.site == "fra"
    house.engine.admit("northwind", frozenset({"FR"}))  # the tenant's ceiling has become narrower
    (finding,) = (await watched.look()).found
    assert (finding.kind, finding.site, finding.policy, finding.records) == (
        "misplaced", "fra", "forbid-outside-tenant-ceiling", 1,
    )  # fmt: skip
    await watched.look()
    (record,) = watched.records("open")
    assert (record["category"], record["policy"], record["records"]) == (
        "location", "forbid-outside-tenant-ceiling", 1,
    )  # fmt: skip
    assert "domicile move" in record["remediation"] and record["begin"] and record["receipt"]
    house.engine.admit("northwind", frozenset({"FR", "DE"}))
    assert (await watched.look()).found == []
    (closed,) = watched.records()
    assert (closed["state"], closed["remediation"]) == ("resolved", "not found again")


async def test_when_it_last_looked_is_kept_for_each_site_that_it_saw_whole(watched: Watched) -> None:
    house = watched.house
    await live(house)
    assert last_looks(house.database) == {}
    house.engine.fleet.close("fra", "away")
    await watched.look()
    assert "fra" not in last_looks(house.database)
    others = set(house.shards) - {"fra"}
    assert set(last_looks(house.database)) == others


async def test_a_closed_site_is_no_violation_and_is_named_as_not_looked_at(watched: Watched) -> None:
    house = watched.house
    await live(house)
    house.engine.fleet.close("fra", "away")
    done = await watched.look()
    assert done.found == [] and watched.records() == []
    assert [(each["site"], each["cause"]) for each in done.unseen] == [("fra", "site_unavailable")]


async def test_points_without_a_document_are_deleted_and_recorded(watched: Watched) -> None:
    house = watched.house
    held = await live(house)
    keys, shard = await keys_of(house, held), house.shards["fra"]
    (like, *_) = await points_of(house, held)
    strays = [keys.point_id("ab" * 16, 1, number) for number in range(3)]
    stray = [Point(each, np.asarray(like.vector), like.sparse, {**like.payload, "d": "ab" * 16}) for each in strays]
    await shard.put(route(house, Action.STORE, held), stray)
    done = await watched.look()
    assert done.mended == 3 and [(each.kind, each.records) for each in done.found] == [("orphans", 3)]
    where = PointFilter(owners=(keys.owner,))
    assert set(await shard.ids(route(house, Action.SEARCH, held), where)).isdisjoint(strays)
    assert len(await points_of(house, held)) == held.passages
    (record,) = watched.records()
    assert (record["state"], record["category"], record["remediation"]) == ("resolved", "location", "points deleted")
    (erased,) = house.ledger.entries(
        "northwind", datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1), ["erase"]
    )
    assert (erased["facts"]["stage"], erased["facts"]["points"]) == ("orphans", 3)
    assert (await watched.look()).found == []


async def test_a_document_that_lacks_points_is_recorded_and_can_be_indexed_anew(watched: Watched) -> None:
    house = watched.house
    held, _ = await live(house), await live(house, "other.txt", BODY + b"x")
    lost = [point.id for point in await points_of(house, held)][:2]
    await house.shards["fra"].delete(route(house, Action.ERASE, held), lost)
    (finding,) = (await watched.look()).found
    assert (finding.kind, finding.subject, finding.records) == ("missing", held.id, 2)
    assert watched.records("open")[0]["category"] == "service"
    assert watched.drift.again(finding) and not watched.drift.again(finding)
    assert house.get(held.id).state is State.SEALED
    ready_again(house)
    await house.worker.drain()
    assert house.get(held.id).state is State.LIVE and len(await points_of(house, held)) == held.passages
    assert (await watched.look()).found == [] and watched.records("open") == []


async def test_a_site_that_left_the_fleet_is_a_violation_of_place(watched: Watched, tmp_path: Path) -> None:
    house = watched.house
    await live(house)
    smaller = Fleet([house.engine.fleet.site("par")])
    smaller.verify("par", bound=True, until=datetime.now(UTC) + timedelta(hours=1))
    house.engine.fleet = smaller
    house.engine.refresh()
    done = await watched.look()
    assert [(each.kind, each.site, each.policy) for each in done.found] == [("misplaced", "fra", "site-unknown")]
    with house.database.reading() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM violation")).scalar() == 1
