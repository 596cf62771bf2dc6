"""Forgetting a Document on the real parts: unreadable at once, traceless soon, and proved."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingestion.errors import DocumentError, NotFoundError
from ingestion.points import document_points
from ingestion.rows import document
from ingestion.states import State
from residency.decision import Ask, Permit, Principal
from residency.errors import KeyringError, SiteError
from residency.keytables import dek_wrapped
from residency.route import Action, Route
from tests.doubles.ingesting import APP, Ingesting, ingesting
from tests.doubles.looking import BODY, keys_of, live, points_of, ready_again

SOUTH = Principal("app:other", "southwind", frozenset({"indexing"}))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Ingesting]:
    async with ingesting(tmp_path) as made:
        yield made


def rows(house: Ingesting, table: sa.Table) -> int:
    with house.database.reading() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def open_route(house: Ingesting, found: Any) -> Route:
    decision = house.engine.decide(Ask(APP, Action.OPEN, found.site, (found.tag,), "indexing"))
    assert isinstance(decision, Permit)
    return decision.route


async def test_a_document_is_unreadable_the_moment_erasing_begins(house: Ingesting) -> None:
    found = await live(house)
    begun = await house.erasure.erase(APP, found.id)
    assert begun.state is State.ERASING
    with pytest.raises(KeyringError):
        await house.keyring.open_dek(open_route(house, found), found.site, found.dek_id, found.tag.digest)
    assert house.documents.live("northwind", [found.id]) == {} and house.documents.counts("northwind") == []
    assert (await house.erasure.certificate("northwind", found.id))["state"] == "pending"


async def test_every_trace_goes_and_the_certificate_says_so(house: Ingesting) -> None:
    kept = await live(house, "kept.txt", b"Tenants clean the stairs once a week, on Saturdays before noon. " * 30)
    first = await live(house)
    found = await live(house, body=BODY + b"\n\nsecond version\n")
    vectors = [point.vector.tobytes() for point in await points_of(house, found)]
    raw_key = found.dek_id
    await house.erasure.erase(APP, found.id)
    await house.worker.drain()

    states = [version.state for version in house.documents.versions("northwind", found.id)]
    assert states == [State.ERASED, State.ERASED] and first.id == found.id
    assert not [name for name in house.files() if name.startswith(found.id)]
    assert await points_of(house, found) == [] and len(await points_of(house, kept)) == kept.passages
    for path in (house.folder / "fra" / "shard").rglob("*"):
        if path.is_file():
            held = path.read_bytes()
            assert not any(vector[:48] in held for vector in vectors)
            assert found.id.encode() not in held and raw_key not in held

    certificate = await house.erasure.certificate("northwind", found.id)
    assert certificate["state"] == "complete"
    assert {line["store"] for line in certificate["stores"]} == {
        "keys", "points", "index files", "sealed files", "database",
    }  # fmt: skip
    assert all(line["time"] and line["method"] and line["check"] for line in certificate["stores"])
    assert certificate["scope"]["versions"] == 2 and certificate["scope"]["passages"] > found.passages
    assert certificate["residuals"][0]["due"] > certificate["completed"]
    bundle = house.ledger.bundle("northwind", certificate["receipt"])
    assert bundle is not None
    receipt = bundle["receipt"]
    assert receipt["kind"] == "erase" and receipt["subject"] == found.id
    assert receipt["facts"]["stores"] == certificate["stores"]
    assert {step["action"] for step in receipt["steps"]} >= {"erase"}


async def test_names_and_ties_to_receipts_go_with_it(house: Ingesting) -> None:
    found = await live(house)
    assert house.ledger.opening("northwind", found.receipt)
    await house.erasure.erase(APP, found.id)
    await house.worker.drain()
    assert house.ledger.touched("northwind", found.id) == []
    assert house.ledger.opening("northwind", found.receipt) is None
    with house.database.reading() as connection:
        row = connection.execute(sa.select(document).where(document.c.id == found.id)).one()
    assert (row.name_sealed, row.name_mac, row.content_mac, row.evidence_sealed) == (b"", b"", b"", None)
    assert rows(house, document_points) == 0
    again = await house.taken("notice.txt", BODY)
    assert again.document.id != found.id  # nothing remembers that the name was here


async def test_erasing_again_changes_nothing(house: Ingesting) -> None:
    found = await live(house)
    await house.erasure.erase(APP, found.id)
    assert (await house.erasure.erase(APP, found.id)).state is State.ERASING
    await house.worker.drain()
    certificate = await house.erasure.certificate("northwind", found.id)
    assert (await house.erasure.erase(APP, found.id)).state is State.ERASED
    assert await house.worker.drain() == 0
    assert await house.erasure.certificate("northwind", found.id) == certificate


async def test_anothers_document_cannot_be_erased_nor_found_out_about(house: Ingesting) -> None:
    found = await live(house)
    errors = []
    for identifier in (found.id, "0" * 32):
        with pytest.raises(NotFoundError) as caught:
            await house.erasure.erase(SOUTH, identifier)
        errors.append(str(caught.value) + caught.value.hint)
        with pytest.raises(NotFoundError):
            await house.erasure.certificate("southwind", identifier)
    assert errors[0] == errors[1] and house.get(found.id).state is State.LIVE


async def test_there_is_no_certificate_for_a_document_that_lives(house: Ingesting) -> None:
    found = await live(house)
    with pytest.raises(DocumentError):
        await house.erasure.certificate("northwind", found.id)


@pytest.mark.parametrize("state", [State.SEALED, State.FAILED, State.QUARANTINED, State.RECEIVING, State.ARCHIVED])
async def test_a_document_that_never_became_live_is_erased_as_well(house: Ingesting, state: State) -> None:
    taken = await house.taken("notice.txt", BODY)
    with house.database.transaction() as connection:
        connection.execute(sa.update(document).values(state=state))
    await house.erasure.erase(APP, taken.document.id)
    await house.worker.drain()
    assert house.get(taken.document.id).state is State.ERASED
    assert house.files() == [] and rows(house, dek_wrapped) == 0


async def test_a_document_in_work_is_taken_from_its_worker_and_erased_after_two_leases(tmp_path: Path) -> None:
    async with ingesting(tmp_path, lease_seconds=0.4) as house:
        taken = await house.taken("notice.txt", BODY)
        lease = house.leases.take("fra")
        assert lease is not None
        await house.erasure.erase(APP, taken.document.id)
        assert not house.leases.keep(lease)  # whoever had it can write no more
        assert await house.worker.drain() == 0  # a put of the other worker may still be under way
        with house.database.reading() as connection:
            row = connection.execute(sa.select(document)).one()
            now = connection.execute(sa.select(house.database.clock())).scalar_one()
        assert 0 < row.not_before - now <= 0.8
        ready_again(house)
        await house.worker.drain()
        assert house.get(taken.document.id).state is State.ERASED


@pytest.mark.parametrize(("body", "method"), [("shards", "delete"), ("shards", "purge"), ("vaults", "delete")])
async def test_what_is_down_leaves_it_erasing_until_it_is_up(
    house: Ingesting, monkeypatch: pytest.MonkeyPatch, body: str, method: str
) -> None:
    found = await live(house)

    async def broken(*_: Any, **__: Any) -> Any:
        raise SiteError("down", site="fra")

    with monkeypatch.context() as patched:
        patched.setattr(getattr(house, body)["fra"], method, broken)
        await house.erasure.erase(APP, found.id)
        for _ in range(5):
            ready_again(house)
            await house.worker.drain()
            waiting = house.get(found.id)
            assert (waiting.state, waiting.cause) == (State.ERASING, "site_unavailable")
            assert (await house.erasure.certificate("northwind", found.id))["state"] == "pending"
    ready_again(house)
    await house.worker.drain()
    assert house.get(found.id).state is State.ERASED


async def test_points_that_come_back_keep_it_erasing(house: Ingesting, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await live(house)
    points, shard = await points_of(house, found), house.shards["fra"]
    purge, put_back = shard.purge, [True]
    worker = Principal("worker:fra", "northwind", frozenset({"indexing"}))
    decision = house.engine.decide(Ask(worker, Action.STORE, "fra", (found.tag,), "indexing"))
    assert isinstance(decision, Permit)
    store = decision.route

    async def haunted(may: Route) -> dict[str, Any]:
        result = await purge(may)
        if put_back:  # a worker that was stopped wakes up and finishes its put
            put_back.clear()
            await shard.put(store, points)
        return result

    monkeypatch.setattr(shard, "purge", haunted)
    await house.erasure.erase(APP, found.id)
    await house.worker.drain()
    assert (house.get(found.id).state, house.get(found.id).cause) == (State.ERASING, "erasure_incomplete")
    ready_again(house)
    await house.worker.drain()
    assert house.get(found.id).state is State.ERASED and await points_of(house, found) == []


async def test_a_site_whose_evidence_ran_out_still_erases(house: Ingesting) -> None:
    found = await live(house)
    await keys_of(house, found)
    house.engine.fleet.close("fra", "evidence ran out")
    await house.erasure.erase(APP, found.id)
    await house.worker.drain()
    assert house.get(found.id).state is State.ERASED
    assert house.files() == []
