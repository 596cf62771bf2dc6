"""Intake on the real parts: ruled on before it is read, sealed while it is read, or nothing left behind."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ingestion.arrivals import Taken
from ingestion.claims import Claim
from ingestion.errors import EmptyFileError, NotFoundError, TagError, TooLargeError, UploadError
from ingestion.intake import Refused
from ingestion.states import State
from residency.database import Database
from residency.decision import Principal
from residency.errors import LedgerError, SiteError, ZoneError
from residency.ledger import Ledger
from tests.doubles.ingesting import APP, Ingesting, blocks, ingesting

BODY = b"The notice period is three months to the end of a quarter. " * 50
SOUTH = Principal("app:other", "southwind", frozenset({"indexing"}))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Ingesting]:
    async with ingesting(tmp_path, max_bytes=200_000, index=False) as made:
        yield made


def counts(house: Ingesting) -> dict[str, int]:
    """Rows by table, as another connection sees them."""
    with sqlite3.connect(house.folder / "domicile.sqlite") as connection:
        found = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("document", "dek_wrapped", "leaves")
        }
    connection.close()
    return found


def left_behind(house: Ingesting) -> dict[str, int]:
    return counts(house) | {"files": len(house.files()) + len(house.files("par"))}


NOTHING = {"document": 0, "dek_wrapped": 0, "leaves": 0, "files": 0}


async def test_a_document_comes_in_sealed_and_recorded(house: Ingesting) -> None:
    taken = await house.taken("notice.txt", BODY)
    found = house.get(taken.document.id)
    assert (found.state, found.site, found.size, found.version) == (State.SEALED, "fra", len(BODY), 1)
    assert taken.created and found.receipt == taken.receipt
    bundle = house.ledger.bundle("northwind", taken.receipt)
    assert bundle is not None
    receipt = bundle["receipt"]
    assert receipt["kind"] == "ingest" and receipt["facts"]["stage"] == "sealed"
    assert {step["site"] for step in receipt["steps"]} == {"fra"}
    assert {step["kind"] for step in receipt["steps"]} >= {"vault", "keys"}
    assert house.ledger.touched("northwind", found.id) == [taken.receipt]


async def test_no_byte_of_it_or_of_its_name_lies_in_clear(house: Ingesting) -> None:
    await house.taken("Kuendigung-ZXQJVK7F3E.txt", BODY + b"ZXQJVK7F3E")
    found = [p for p in house.folder.rglob("*") if p.is_file() and b"ZXQJVK7F3E" in p.read_bytes()]
    assert found == []


async def test_the_jurisdictions_own_site_is_chosen(house: Ingesting) -> None:
    taken = await house.taken("avis.txt", BODY, jurisdictions=frozenset({"FR"}))
    assert taken.document.site == "par"


async def test_the_same_name_and_bytes_are_the_same_document(house: Ingesting) -> None:
    first = await house.taken("notice.txt", BODY)
    before = left_behind(house)
    again = await house.taken("notice.txt", BODY, block=1000)
    assert (again.document.id, again.document.version, again.receipt) == (first.document.id, 1, first.receipt)
    assert not again.created and left_behind(house) == before


async def test_the_same_name_with_new_bytes_is_a_new_version(house: Ingesting) -> None:
    first = await house.taken("notice.txt", BODY)
    second = await house.taken("notice.txt", BODY + b"more")
    assert (second.document.id, second.document.version, second.created) == (first.document.id, 2, True)


async def test_the_same_bytes_under_another_claim_are_a_new_version(house: Ingesting) -> None:
    first = await house.taken("notice.txt", BODY)
    second = await house.taken("notice.txt", BODY, groups=frozenset({"board"}))
    assert (second.document.id, second.document.version) == (first.document.id, 2)


async def test_names_are_apart_by_collection_and_tenant(house: Ingesting) -> None:
    one = await house.taken("notice.txt", BODY)
    two = await house.taken("notice.txt", BODY, collection="contracts")
    three = await house.taken("notice.txt", BODY, principal=SOUTH)
    assert len({one.document.id, two.document.id, three.document.id}) == 3
    assert one.document.collection != two.document.collection


async def test_anothers_document_looks_like_none(house: Ingesting) -> None:
    taken = await house.taken("notice.txt", BODY)
    with pytest.raises(NotFoundError) as foreign:
        house.get(taken.document.id, tenant="southwind")
    with pytest.raises(NotFoundError) as unknown:
        house.get("0" * 32, tenant="southwind")
    assert str(foreign.value) == str(unknown.value) and foreign.value.hint == unknown.value.hint


async def test_two_uploads_of_one_name_at_once_agree_on_its_id(house: Ingesting) -> None:
    bodies = [BODY, BODY, BODY + b"x", BODY]
    results = await asyncio.gather(*(house.taken("notice.txt", body, block=500) for body in bodies))
    assert len({result.document.id for result in results}) == 1
    versions = house.documents.versions("northwind", results[0].document.id)
    assert all(version.state is State.SEALED for version in versions)
    assert len(house.files()) == len(versions) == sum(result.created for result in results)


async def never_read() -> AsyncIterator[bytes]:
    raise AssertionError("the body was read before the ruling")
    yield b""


async def test_a_refusal_comes_before_any_byte_is_read(house: Ingesting) -> None:
    claim = Claim("a.txt", frozenset({"US"}), residency=frozenset({"CH"}))
    refused = await house.intake.receive(never_read(), claim, APP, 10)
    assert isinstance(refused, Refused)
    assert refused.refusal.remedy and {r.ask.site for r in refused.refusals} == {"fra", "par", "iad"}
    bundle = house.ledger.bundle("northwind", refused.receipt)
    assert bundle is not None and bundle["receipt"]["kind"] == "refusal" and bundle["receipt"]["refused"]
    assert left_behind(house) == NOTHING | {"leaves": 1}


async def test_what_may_be_stored_but_never_embedded_is_refused_at_once(house: Ingesting) -> None:
    # Personal data may lie sealed in the US, but not be in the clear there; no other Site is in its residency.
    claim = Claim("a.txt", frozenset({"DE"}), residency=frozenset({"US"}))
    refused = await house.intake.receive(never_read(), claim, APP, 10)
    assert isinstance(refused, Refused)
    assert "forbid-plaintext-outside-eea" in {name for r in refused.refusals for name in r.policies}


@pytest.mark.parametrize(
    ("claim", "error"),
    [
        ({"jurisdictions": frozenset()}, TagError),
        ({"jurisdictions": frozenset({"ZZ"})}, ZoneError),
        ({"residency": frozenset({"EUX"})}, ZoneError),
        ({"collection": "Not A Slug"}, UploadError),
        ({"groups": frozenset({"No Slug"})}, UploadError),
    ],
)
async def test_a_claim_that_makes_no_sense_leaves_nothing(
    house: Ingesting, claim: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await house.send("a.txt", BODY, **claim)
    assert left_behind(house) == NOTHING


async def test_a_bad_name_leaves_nothing(house: Ingesting) -> None:
    with pytest.raises(UploadError):
        await house.send("../../etc/passwd", BODY)
    assert left_behind(house) == NOTHING


@pytest.mark.parametrize("length", [0, None])
async def test_an_empty_body_leaves_nothing(house: Ingesting, length: int | None) -> None:
    with pytest.raises(EmptyFileError):
        await house.intake.receive(blocks(b""), Claim("a.txt", frozenset({"DE"})), APP, length)
    assert left_behind(house) == NOTHING


@pytest.mark.parametrize("length", [250_000, 10, None])
async def test_a_body_beyond_the_limit_leaves_nothing_whatever_its_sender_says(
    house: Ingesting, length: int | None
) -> None:
    with pytest.raises(TooLargeError) as caught:
        await house.intake.receive(blocks(b"x" * 250_000), Claim("a.txt", frozenset({"DE"})), APP, length)
    assert caught.value.limit_bytes == 200_000
    assert left_behind(house) == NOTHING


async def test_a_sender_who_breaks_off_leaves_nothing(house: Ingesting) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await house.intake.receive(broken(), Claim("a.txt", frozenset({"DE"})), APP)
    assert left_behind(house) == NOTHING


async def test_a_cancelled_upload_leaves_nothing(house: Ingesting) -> None:
    reading = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        reading.set()
        await asyncio.sleep(60)
        yield b"y"

    task = asyncio.create_task(house.intake.receive(slow(), Claim("a.txt", frozenset({"DE"})), APP))
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left_behind(house) == NOTHING


async def test_a_ledger_that_cannot_be_written_takes_nothing_in(
    house: Ingesting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise LedgerError("the ledger cannot be written")

    monkeypatch.setattr(Ledger, "append", broken)
    with pytest.raises(LedgerError):
        await house.send("a.txt", BODY)
    assert left_behind(house) == NOTHING


async def test_a_ruling_that_changes_in_mid_upload_takes_nothing_in(house: Ingesting) -> None:
    async def closing() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        house.engine.fleet.close("fra", "moved")
        yield b"y" * 10

    with pytest.raises(SiteError):
        await house.intake.receive(closing(), Claim("a.txt", frozenset({"DE"})), APP)
    assert left_behind(house) == NOTHING


async def test_a_body_that_never_ended_is_swept_away(house: Ingesting) -> None:
    await house.taken("kept.txt", BODY)
    with house.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE document SET state = 'receiving', dek_id = x''")
    assert await house.intake.sweep() == 0  # younger than a day
    assert await house.intake.sweep(0.0) == 1
    assert left_behind(house) == NOTHING | {"leaves": 1}


async def test_the_worker_is_woken_by_an_arrival(house: Ingesting) -> None:
    woken: list[bool] = []
    house.intake.arrived = lambda: woken.append(True)
    await house.taken("a.txt", BODY)
    assert woken


async def test_documents_are_listed_page_by_page_newest_first(house: Ingesting) -> None:
    sent = [(await house.taken(f"{n}.txt", BODY)).document.id for n in range(5)]
    await house.taken("other.txt", BODY, principal=SOUTH)
    seen: list[str] = []
    cursor = ""
    while True:
        page = house.documents.listing("northwind", cursor=cursor, limit=2)
        seen += [item.id for item in page.items]
        cursor = page.cursor
        if not cursor:
            break
    assert seen == sent[::-1]


async def test_it_works_on_postgresql_just_the_same(tmp_path: Path, postgres_url: str) -> None:
    async with ingesting(tmp_path, url=postgres_url) as house:
        first = await house.taken("notice.txt", BODY)
        again = await house.send("notice.txt", BODY)
        second = await house.taken("notice.txt", BODY + b"new")
        assert isinstance(again, Taken) and not again.created
        assert (second.document.id, second.document.version) == (first.document.id, 2)
        await house.worker.drain()
        assert [v.state for v in house.documents.versions("northwind", first.document.id)] == ["live", "archived"]
        await house.erasure.erase(APP, first.document.id)
        await house.worker.drain()
        assert house.get(first.document.id).state is State.ERASED
        assert isinstance(house.database, Database) and not house.database.sqlite
