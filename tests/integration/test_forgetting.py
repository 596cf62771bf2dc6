"""Many Documents forgotten by one order or one rule, and holds that stop both: on the real parts."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingestion.collections import generation
from ingestion.errors import DocumentError, HoldError, NotFoundError
from ingestion.forgetting import Due
from ingestion.rows import document
from ingestion.states import State
from residency.database import through
from residency.decision import Principal
from residency.errors import KeyringError
from residency.keytables import dek_wrapped, kek, search_keyset
from residency.retention import Retention, Rule
from tests.doubles.ingesting import APP, Ingesting, ingesting, site
from tests.doubles.looking import BODY, dek_of, live, points_of, ready_again

SOUTH = Principal("app:other", "southwind", frozenset({"indexing"}))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Ingesting]:
    async with ingesting(tmp_path) as made:
        yield made


def entries(house: Ingesting, tenant: str = "northwind") -> list[dict[str, Any]]:
    ever = datetime(2000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
    return list(house.ledger.entries(tenant, *ever, ["erase"]))


def count(house: Ingesting, table: sa.Table) -> int:
    with house.database.reading() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


async def test_a_collection_goes_as_one_and_every_document_of_it_has_its_certificate(
    house: Ingesting, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = [await live(house, f"{n}.txt", BODY + bytes([65 + n]), collection="old") for n in range(3)]
    kept = await live(house, "kept.txt", BODY + b"kept")
    purges: list[str] = []
    purge, told = house.shards["fra"].purge, list[str]()

    async def counted(route: Any) -> Any:
        purges.append("fra")
        return await purge(route)

    monkeypatch.setattr(house.shards["fra"], "purge", counted)
    house.erasure.listeners.append(told.append)
    with house.database.reading() as connection:
        before = generation(through(connection), "northwind")

    order = await house.forgetting.collection(APP, "old")

    assert (order.documents, order.erased, order.state, told) == (3, 0, "pending", ["northwind"])
    with house.database.reading() as connection:
        assert generation(through(connection), "northwind") > before  # caches of other processes see this
    for each in gone:
        with pytest.raises(KeyringError):
            await dek_of(house, each)
    await house.worker.drain()
    certificate = await house.forgetting.certificate("northwind", order.id)
    assert certificate["state"] == "complete" and certificate["erased"] == 3
    assert certificate["scope"]["passages"] == sum(each.passages for each in gone)
    by = {(line["store"], line["site"]): line for line in certificate["stores"]}
    assert by["points", "fra"]["count"] == sum(each.passages for each in gone) and by["points", "fra"]["documents"] == 3
    assert by["keys", "fra"]["first"] <= by["keys", "fra"]["last"] and certificate["residuals"][0]["due"]
    assert len(purges) <= 2  # two tasks work; each rebuilt the index once for all that it took
    for each in gone:
        assert (await house.erasure.certificate("northwind", each.id))["order"] == order.id
    assert len(await points_of(house, kept)) == kept.passages
    stages = [receipt["facts"].get("stage") for receipt in entries(house)]
    assert stages == ["ordered", None, None, None, "order-complete"]
    assert house.ledger.bundle("northwind", certificate["completion"])


async def test_a_tenant_goes_with_its_search_keys_and_the_other_tenant_stays(house: Ingesting) -> None:
    await live(house)
    other = await house.taken("theirs.txt", BODY, principal=SOUTH)
    await house.worker.drain()
    order = await house.forgetting.everything(APP)
    await house.worker.drain()
    await house.forgetting.finish()
    assert (await house.forgetting.order("northwind", order.id)).state == "complete"
    assert house.get(other.document.id, tenant="southwind").state is State.LIVE
    assert count(house, search_keyset) == 1 and count(house, dek_wrapped) == 4  # southwind's
    with house.database.reading() as connection:
        due = connection.execute(sa.select(kek.c.due).where(kek.c.tenant == "northwind")).scalar_one()
    assert due is not None
    await live(house)  # it may come again, with new keys
    with pytest.raises(NotFoundError):
        await house.forgetting.order("southwind", order.id)


async def test_an_order_over_nothing_is_done_at_once_and_an_unknown_collection_is_named(house: Ingesting) -> None:
    assert (await house.forgetting.everything(APP)).state == "complete"
    with pytest.raises(NotFoundError):
        await house.forgetting.collection(APP, "nowhere")


async def test_what_hinders_one_document_does_not_hold_up_the_others(
    house: Ingesting, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, free = await live(house), await live(house, "b.txt", BODY + b"b")
    delete, vault = house.vaults["fra"].delete, house.vaults["fra"]

    async def partly(route: Any, names: list[str]) -> int:
        return 1 if names[0].startswith(stuck.id) else await delete(route, names)

    with monkeypatch.context() as patched:
        patched.setattr(vault, "delete", partly)
        order = await house.forgetting.everything(APP)
        await house.worker.drain()
    assert (house.get(stuck.id).state, house.get(stuck.id).cause) == (State.ERASING, "erasure_incomplete")
    assert house.get(free.id).state is State.ERASED
    ready_again(house)
    await house.worker.drain()
    assert (await house.forgetting.order("northwind", order.id)).state == "complete"


async def test_on_postgresql_an_order_is_refused_by_a_hold_and_completed_without(
    tmp_path: Path, postgres_url: str
) -> None:
    async with ingesting(tmp_path, url=postgres_url, fleet=site("fra", "DE", "DE")) as house:
        gone = [await live(house, f"{n}.txt", BODY + bytes([65 + n])) for n in range(2)]
        held = house.holds.add(APP, document_id=gone[0].id, reason="3 O 17/26")
        with pytest.raises(HoldError, match="1 of 2 documents are on legal hold: 3 O 17/26"):
            await house.forgetting.collection(APP, "default")
        house.holds.lift(APP, held.id)
        order = await house.forgetting.collection(APP, "default")
        await house.worker.drain()
        done = await house.forgetting.certificate("northwind", order.id)
        assert (done["state"], done["erased"]) == ("complete", 2) and house.files() == []
        lines = {line["store"]: line["method"] for line in done["stores"]}
        assert lines["database"] == "rows deleted"  # of dead rows nothing is promised before the horizon
        assert count(house, dek_wrapped) == 3


# --- holds ---


@pytest.mark.parametrize("on", ["document", "collection"])
async def test_what_is_held_is_erased_by_nobody_until_the_hold_is_lifted(house: Ingesting, on: str) -> None:
    found, beside = await live(house), await live(house, "b.txt", BODY + b"b")
    where = {"document_id": found.id} if on == "document" else {"collection": "default"}
    held = house.holds.add(APP, **where, reason="LG Musterstadt 3 O 17/26")
    house.retention[0] = Retention((Rule("all", 1, "test"),))
    with house.database.transaction() as connection:
        connection.execute(sa.update(document).values(created=0.0))

    for attempt in (
        house.erasure.erase(APP, found.id),
        house.forgetting.collection(APP, "default"),
        house.forgetting.everything(APP),
    ):
        with pytest.raises(HoldError, match="LG Musterstadt 3 O 17/26"):
            await attempt
    assert house.get(beside.id).state is State.LIVE  # a refused order erases nothing
    [due] = await house.forgetting.due()
    assert (found.id, held.reason) in due.held and found.id not in due.documents
    given = await house.forgetting.once()
    assert [each.documents for each in given] == ([1] if on == "document" else [])
    await house.worker.drain()
    assert house.get(found.id).state is State.LIVE and await dek_of(house, found)

    house.holds.lift(APP, held.id)
    assert house.holds.listing("northwind") == [] and house.holds.lift(APP, held.id).lifted
    await house.erasure.erase(APP, found.id)
    await house.worker.drain()
    assert house.get(found.id).state is State.ERASED
    stages = [each["facts"].get("stage") for each in entries(house)]
    assert stages.count("held") == stages.count("lifted") == 1
    assert not any("Musterstadt" in str(each) for each in entries(house))


async def test_a_hold_needs_a_reason_and_something_of_the_tenants_that_still_lives(house: Ingesting) -> None:
    found = await live(house)
    for reason in ("", " \n", "x" * 201):
        with pytest.raises(DocumentError, match="needs a reason"):
            house.holds.add(APP, document_id=found.id, reason=reason)
    for where in ({}, {"document_id": found.id, "collection": "default"}):
        with pytest.raises(DocumentError, match="on a document or on a collection"):
            house.holds.add(APP, **where, reason="x")
    for who, where in ((SOUTH, {"document_id": found.id}), (SOUTH, {"collection": "default"})):
        with pytest.raises(NotFoundError):
            house.holds.add(who, **where, reason="x")
    held = house.holds.add(APP, document_id=found.id, reason="x")
    with pytest.raises(NotFoundError):
        house.holds.lift(SOUTH, held.id)
    house.holds.lift(APP, held.id)
    await house.erasure.erase(APP, found.id)
    with pytest.raises(DocumentError, match="erased already"):
        house.holds.add(APP, document_id=found.id, reason="x")


# --- retention ---


async def test_a_rule_erases_what_is_past_its_term_and_the_ledger_names_the_rule(house: Ingesting) -> None:
    past, young = await live(house, collection="jobs"), await live(house, "b.txt", BODY + b"b", collection="jobs")
    other = await live(house, "c.txt", BODY + b"c")
    with house.database.transaction() as connection:
        connection.execute(
            sa.update(document)
            .where(document.c.id.in_([past.id, other.id]))
            .values(created=young.created - 181 * 86400)
        )
    house.retention[0] = Retention((Rule("jobs-six-months", 180, "AGG 15(4)", collection="jobs"),))
    assert await house.forgetting.due() == [Due("northwind", house.retention[0].rules[0], [past.id])]
    assert house.get(past.id).state is State.LIVE  # looking changes nothing

    [order] = await house.forgetting.once()
    await house.worker.drain()

    assert [house.get(each.id).state for each in (past, young, other)] == [State.ERASED, State.LIVE, State.LIVE]
    assert (await house.erasure.certificate("northwind", past.id))["by"] == "rule"
    begun = entries(house)[0]["facts"]
    assert (begun["rule"], begun["law"], begun["keep_days"]) == ("jobs-six-months", "AGG 15(4)", 180)
    assert (await house.forgetting.order("northwind", order.id)).rule == "jobs-six-months"
    assert await house.forgetting.once() == []


async def test_days_count_from_the_newest_version(house: Ingesting) -> None:
    first = await live(house)
    with house.database.transaction() as connection:
        connection.execute(sa.update(document).values(created=0.0))
    await live(house, body=BODY + b"newer")
    house.retention[0] = Retention((Rule("all", 1, "test"),))
    assert await house.forgetting.due() == [] and house.get(first.id).version == 2
