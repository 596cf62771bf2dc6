"""The brake: a Document, a Collection or a tenant paused, resumed and given up; progress and fairness meanwhile."""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingestion import collections
from ingestion.documents import Documents
from ingestion.errors import DocumentError, LeaseLostError, NotFoundError
from ingestion.leases import Leases
from ingestion.pausing import Pausing
from ingestion.progress import progress
from ingestion.rows import document
from ingestion.states import State
from residency.database import Database
from tests.doubles.ingesting import APP, Ingesting, engine_over, ingesting
from tests.integration.test_leases import add, must_take, row_of


@pytest.fixture
def leases(database: Database) -> Iterator[Leases]:
    made = Leases(database, engine_over(), name="worker-1", seconds=5.0)
    yield made
    made.close()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Ingesting]:
    async with ingesting(tmp_path) as made:
        yield made


def brake(database: Database) -> Pausing:
    erasure: Any = None  # pausing alone never erases
    return Pausing(database=database, erasure=erasure)


def test_a_paused_document_is_taken_from_its_worker_and_by_none_until_it_is_resumed(
    database: Database, leases: Leases
) -> None:
    identifier = add(database)
    lease = must_take(leases)
    brake(database).document("northwind", identifier, paused=True)
    with pytest.raises(LeaseLostError):
        leases.move(lease, State.PARSED)
    assert leases.take("fra") is None
    found = Documents(database).get("northwind", identifier)
    assert found.error == {"code": "paused", "hint": "work on it is paused; resume it"}
    brake(database).document("northwind", identifier, paused=True)  # again is harmless
    assert progress(database, "northwind", groups=None, document_id=identifier).paused
    brake(database).document("northwind", identifier, paused=False)
    assert must_take(leases).row["id"] == identifier
    assert row_of(database, identifier).cause == ""


@pytest.mark.parametrize("collection", ["", "contracts"])
def test_a_paused_tenant_or_collection_rests_while_others_are_served_and_erasures_go_on(
    database: Database, leases: Leases, collection: str
) -> None:
    add(database, collection="contracts")
    erasing = add(database, collection="contracts", state=State.ERASING)
    other = add(database, tenant="southwind")
    brake(database).all("northwind", paused=True, collection=collection)
    taken = {must_take(leases).row["id"], must_take(leases).row["id"]}
    assert taken == {erasing, other} and leases.take("fra") is None
    brake(database).all("northwind", paused=False, collection=collection)
    assert must_take(leases).row["collection_id"]


def test_the_brake_names_what_it_does_not_find(database: Database) -> None:
    identifier = add(database, state=State.LIVE)
    with pytest.raises(DocumentError, match="live"):
        brake(database).document("northwind", identifier, paused=True)
    with pytest.raises(NotFoundError):
        brake(database).document("southwind", identifier, paused=True)
    with pytest.raises(NotFoundError):
        brake(database).all("northwind", paused=True, collection="nowhere")


def test_ten_thousand_waiting_documents_do_not_starve_one(database: Database, leases: Leases) -> None:
    first = add(database)
    with database.transaction() as connection:
        row = dict(connection.execute(sa.select(document)).mappings().one())
        many = [row | {"id": secrets.token_hex(16)} for _ in range(9_999)]
        connection.execute(sa.insert(document), many)
    lease = must_take(leases)
    lease.started -= 1.0
    leases.release(lease, wait=False)
    lonely = add(database, tenant="southwind")
    with database.transaction() as connection:  # it came last and was served as much as the other, but for one document
        connection.execute(
            sa.update(collections.tenant_turn)
            .where(collections.tenant_turn.c.tenant_id == "southwind")
            .values(spent_ms=500.0)
        )
    assert first and must_take(leases).row["id"] == lonely


def test_progress_weighs_by_bytes_and_tells_no_group_of_anothers(database: Database) -> None:
    add(database, state=State.LIVE, bytes_total=3000)
    add(database, state=State.SEALED, bytes_total=1000)
    add(database, state=State.SEALED, bytes_total=9000, groups='["board"]')
    found = progress(database, "northwind", groups=frozenset())
    assert found.states == {"live": 1, "sealed": 1} and found.bytes_total == 4000
    assert found.done == pytest.approx((3000 + 1000 * 0.05) / 4000)
    assert found.eta_s == pytest.approx(950 / found.bytes_per_s)
    assert progress(database, "northwind", groups=frozenset({"board"})).states["sealed"] == 2
    assert progress(database, "northwind", groups=None).facts()["waiting"] == 2
    assert progress(database, "southwind", groups=None).facts()["progress"] == 1.0


async def test_a_document_on_its_way_can_be_given_up_and_one_that_was_live_cannot(house: Ingesting) -> None:
    pausing = Pausing(database=house.database, erasure=house.erasure)
    waiting = (await house.taken("draft.txt", b"A draft nobody wants.")).document.id
    pausing.document("northwind", waiting, paused=True)
    assert (await pausing.cancel(APP, waiting)).state is State.ERASING
    await house.worker.drain()
    assert (await house.erasure.certificate("northwind", waiting))["state"] == "complete"
    assert house.files() == []
    kept = (await house.taken("rules.txt", b"Notice ends after three months.")).document.id
    await house.worker.drain()
    await house.taken("rules.txt", b"Notice ends after four months.")
    with pytest.raises(DocumentError, match="never went live"):
        await pausing.cancel(APP, kept)
    await house.worker.drain()
    assert house.get(kept).state is State.LIVE and house.get(kept).version == 2
