"""Moving a Document: ruled on at both ends, copied, checked, switched, forgotten at the old Site."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingestion import attributes
from ingestion.errors import DocumentError, NotFoundError
from ingestion.intake import Refused
from ingestion.moving import Moved
from ingestion.rows import document
from ingestion.states import State
from residency.decision import Principal
from residency.envelope import PassageSealer
from residency.errors import SiteError
from residency.keytables import dek, dek_wrapped, kek
from residency.leaves import touches
from residency.ports import PointFilter
from residency.route import Action
from tests.doubles.ingesting import APP, Ingesting, ingesting, site
from tests.doubles.looking import BODY, dek_of, keys_of, live, points_of, ready_again, route

FLEET = site("fra", "DE", "DE") + site("par", "FR", "FR")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Ingesting]:
    async with ingesting(tmp_path, fleet=FLEET) as opened:
        yield opened


def receipts(house: Ingesting) -> list[dict[str, Any]]:
    end = datetime.now(UTC) + timedelta(days=1)
    return list(house.ledger.entries("northwind", datetime(2020, 1, 1, tzinfo=UTC), end))


def stages(house: Ingesting) -> list[tuple[str, str]]:
    return [(each["kind"], each["facts"].get("stage", "")) for each in receipts(house)]


async def moved(house: Ingesting, identifier: str, to: str) -> Moved:
    begun = await house.pipeline.moving.move(APP, identifier, to)
    assert isinstance(begun, Moved)
    await house.worker.drain()
    ready_again(house)
    await house.worker.drain()
    return await house.pipeline.moving.status("northwind", identifier)


async def text_of(house: Ingesting, identifier: str) -> str:
    """Read a Document back as a search would: from its points, with its key."""
    found = house.get(identifier)
    sealer = PassageSealer(
        await dek_of(house, found), collection=bytes.fromhex(found.collection), document=bytes.fromhex(found.id),
        version=found.version, classification=found.tag.classification,
    )  # fmt: skip
    points = sorted(await points_of(house, found), key=lambda point: int(point.payload["n"]))
    assert len(points) == found.passages
    return "\n".join(sealer.open(point.payload["n"], point.id, point.payload["s"]).text for point in points)


async def attributes_of(house: Ingesting, identifier: str) -> dict[str, Any] | None:
    found = house.get(identifier)
    with house.database.reading() as connection:
        kept = attributes.kept(connection, [identifier])
    blob = kept.get((identifier, found.version))
    return attributes.opened(await dek_of(house, found), identifier, blob) if blob else None


async def test_attributes_follow_a_document_to_its_new_version_and_site_and_its_own_stand(house: Ingesting) -> None:
    first = await live(house)
    given: dict[str, attributes.Value] = {"team": "CANARY-blue", "page": 7.0}
    blob = attributes.sealed(await dek_of(house, first), first.id, given)
    with house.database.transaction() as connection:
        attributes.keep(connection, first.id, first.version, blob)
    second = await live(house, body=BODY + b"newer")
    assert (second.version, await attributes_of(house, first.id)) == (2, given)
    await moved(house, first.id, "par")
    assert (house.get(first.id).site, await attributes_of(house, first.id)) == ("par", given)

    taken = await house.taken("notice.txt", BODY + b"newest")
    coming = house.get(taken.document.id, taken.document.version)
    own = attributes.sealed(await dek_of(house, coming), coming.id, {"team": "red"})
    with house.database.transaction() as connection:
        attributes.keep(connection, coming.id, coming.version, own)
    await house.worker.drain()
    assert (house.get(first.id).state, await attributes_of(house, first.id)) == (State.LIVE, {"team": "red"})


async def test_a_moved_document_answers_from_its_new_site_and_is_gone_from_the_old_one(house: Ingesting) -> None:
    before = await live(house)
    assert before.site == "fra"
    text, old_keys = await text_of(house, before.id), await keys_of(house, before)
    status = await moved(house, before.id, "par")
    assert status == Moved(before.id, 2, "fra", "par", "done")
    now = house.get(before.id)
    assert (now.site, now.state, now.version, now.tag, now.size) == ("par", State.LIVE, 2, before.tag, before.size)
    assert await text_of(house, before.id) == text
    assert (await dek_of(house, now)).dek_id != before.dek_id
    # nothing is left behind: files, points, keys
    assert house.files("fra") == [] and any(name.endswith(".original") for name in house.files("par"))
    may = route(house, Action.SEARCH, before)
    assert await house.shards["fra"].ids(may, PointFilter(owners=(old_keys.owner,))) == []
    with house.database.reading() as connection:
        mine = sa.select(dek.c.id).where(dek.c.subject_id == bytes.fromhex(before.id))
        held = connection.execute(sa.select(dek_wrapped.c.dek_id).where(dek_wrapped.c.dek_id.in_(mine))).scalars().all()
        old = connection.execute(sa.select(document).where(document.c.version == 1)).one()
        terms = {row.site_id: row.due for row in connection.execute(sa.select(kek.c.site_id, kek.c.due))}
    assert [bytes(each) for each in held] == [now.dek_id]
    assert terms["fra"] is not None and terms["par"] is None  # backups of the old Site have their day
    assert (old.state, old.name_sealed, old.passages_total, old.bytes_total) == (State.ERASED, b"", 0, 0)


async def test_each_step_leaves_a_receipt_that_names_both_sites(house: Ingesting) -> None:
    before = await live(house)
    await moved(house, before.id, "par")
    assert stages(house) == [
        ("ingest", "sealed"), ("ingest", "live"), ("ingest", "move-asked"), ("ingest", "moved-copy"),
        ("ingest", "live"), ("erase", "moved-away"),
    ]  # fmt: skip
    copy, switched, away = receipts(house)[3:]
    assert {(step["action"], step["site"]) for step in copy["steps"]} >= {
        ("open", "fra"), ("store", "par"),
    }  # fmt: skip
    assert {step["site"] for step in switched["steps"] if step["action"] in {"store", "search"}} == {"par"}
    assert {(step["action"], step["site"]) for step in away["steps"]} >= {("erase", "fra")}
    assert (away["facts"]["from"], away["facts"]["to"], away["facts"]["versions"]) == ("fra", "par", [1])
    assert [each["store"] for each in away["facts"]["stores"]] == ["keys", "points", "index files", "sealed files"]
    assert "notice" not in json.dumps(receipts(house))
    with house.database.reading() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(touches)).scalar_one() >= 5


async def test_a_move_that_the_policy_refuses_changes_nothing_and_names_the_clause(house: Ingesting) -> None:
    before = await live(house, residency=frozenset({"DE"}))
    refused = await house.pipeline.moving.move(APP, before.id, "par")
    assert isinstance(refused, Refused)
    assert refused.refusal.ask.site == "par" and refused.refusal.why_not
    health = await live(house, "health.txt", BODY + b"x", categories=frozenset({"health"}))
    named = await house.pipeline.moving.move(APP, health.id, "par")
    assert isinstance(named, Refused) and named.refusal.policies == ("forbid-health-de-outside-de",)
    await house.worker.drain()
    assert house.get(before.id) == before and house.files("par") == []
    assert ("refusal", "move-refused") in stages(house)


async def test_a_principal_that_may_not_open_the_document_may_not_move_it(house: Ingesting) -> None:
    before = await live(house)
    stranger = Principal("app:other", "northwind", frozenset({"search"}))
    begun = await house.pipeline.moving.move(stranger, before.id, "par")
    assert isinstance(begun, Moved)  # registered for search: the policy lets it open
    nobody = Principal("app:none", "northwind", frozenset())
    again = await house.pipeline.moving.move(nobody, before.id, "par")
    assert isinstance(again, Moved) and again.state == "copying"  # a move under way is told, not ruled on again
    other = await live(house, "other.txt", BODY + b"y")
    assert isinstance(await house.pipeline.moving.move(nobody, other.id, "par"), Refused)


async def test_what_cannot_be_moved_is_refused_with_what_to_do(house: Ingesting) -> None:
    before, moving = await live(house), house.pipeline.moving
    with pytest.raises(NotFoundError):
        await moving.move(APP, "0" * 32, "par")
    with pytest.raises(NotFoundError):
        await moving.move(Principal("app:x", "southwind", frozenset({"search"})), before.id, "par")
    with pytest.raises(SiteError, match="no such Site"):
        await moving.move(APP, before.id, "muc")
    with pytest.raises(NotFoundError, match="was not moved"):
        await moving.status("northwind", before.id)
    already = await moving.move(APP, before.id, "fra")
    assert isinstance(already, Moved) and already.state == "done"
    await moving.move(APP, before.id, "par")
    with pytest.raises(DocumentError, match="on its way to par"):
        await moving.move(APP, before.id, "fra")
    coming = await house.taken("coming.txt", BODY)
    with pytest.raises(DocumentError, match="document is sealed"):
        await moving.move(APP, coming.document.id, "par")


async def test_until_the_copy_is_sealed_the_old_version_stands_for_the_document(house: Ingesting) -> None:
    before = await live(house)
    await house.pipeline.moving.move(APP, before.id, "par")
    assert house.get(before.id).version == 1
    assert [each.version for each in house.documents.listing("northwind").items] == [1]
    assert house.documents.live("northwind", [before.id])[before.id].site == "fra"
    again = await house.taken("notice.txt", BODY)
    assert (again.created, again.document.version) == (False, 1)


async def test_a_newer_version_ends_a_move_that_has_not_copied_yet(house: Ingesting) -> None:
    before = await live(house)
    house.engine.fleet.close("par", "away")
    house.engine.fleet.verify("par", bound=True, until=datetime.now(UTC) + timedelta(hours=1))
    await house.pipeline.moving.move(APP, before.id, "par")
    with house.database.transaction() as connection:  # the worker at the new Site is slow
        connection.execute(sa.update(document).where(document.c.state == State.MOVING).values(not_before=1e14))
    newer = await live(house, "notice.txt", BODY + b"One rule more.\n")
    ready_again(house)
    await house.worker.drain()
    assert (newer.id, newer.version, newer.site) == (before.id, 3, "fra")
    assert house.get(before.id) == newer and house.files("par") == []
    assert ("ingest", "move-failed") in stages(house)
    assert [each.version for each in house.documents.versions("northwind", before.id)] == [3, 1]


async def test_a_damaged_original_is_not_moved_and_its_copy_is_taken_back(house: Ingesting) -> None:
    before = await live(house)
    (file,) = (house.folder / "fra" / "vault").rglob("*.original")
    bent = bytearray(file.read_bytes())
    bent[-1] ^= 1
    file.write_bytes(bent)
    await house.pipeline.moving.move(APP, before.id, "par")
    await house.worker.drain()
    assert house.get(before.id).state is State.LIVE and house.get(before.id).site == "fra"
    assert house.files("par") == []
    failed = next(each for each in receipts(house) if each["facts"].get("stage") == "move-failed")
    assert failed["facts"]["cause"] == "sealed_damaged"
    with house.database.reading() as connection:
        mine = sa.select(sa.func.count()).select_from(dek_wrapped).join(dek, dek.c.id == dek_wrapped.c.dek_id)
        assert connection.execute(mine.where(dek.c.subject_id == bytes.fromhex(before.id))).scalar_one() == 1


async def test_a_move_waits_for_a_site_that_is_closed_and_goes_on(house: Ingesting) -> None:
    before = await live(house)
    await house.pipeline.moving.move(APP, before.id, "par")
    house.engine.fleet.close("fra", "its server is away")
    await house.worker.drain()
    status = await house.pipeline.moving.status("northwind", before.id)
    assert (status.state, status.cause) == ("copying", "residency_denied")
    house.engine.fleet.verify("fra", bound=True, until=datetime.now(UTC) + timedelta(hours=1))
    for _ in range(3):
        ready_again(house)
        await house.worker.drain()
    assert (await house.pipeline.moving.status("northwind", before.id)).state == "done"


async def test_earlier_versions_do_not_stay_at_the_old_site(house: Ingesting) -> None:
    await live(house)
    second = await live(house, "notice.txt", BODY + b"One rule more.\n")
    assert house.get(second.id, 1).state is State.ARCHIVED
    await moved(house, second.id, "par")
    assert house.files("fra") == []
    assert [each.state for each in house.documents.versions("northwind", second.id)] == [
        State.LIVE, State.ERASED, State.ERASED,
    ]  # fmt: skip


async def test_a_moved_document_can_be_moved_back_and_erased(house: Ingesting) -> None:
    before = await live(house)
    await moved(house, before.id, "par")
    back = await moved(house, before.id, "fra")
    assert back == Moved(before.id, 3, "par", "fra", "done")
    assert house.get(before.id).site == "fra" and house.files("par") == []
    await house.erasure.erase(APP, before.id)
    await house.worker.drain()
    assert (await house.erasure.certificate("northwind", before.id))["state"] == "complete"
    assert house.files("fra") == [] == house.files("par")


async def test_a_document_can_be_erased_while_it_is_moved(house: Ingesting) -> None:
    before = await live(house)
    await house.pipeline.moving.move(APP, before.id, "par")
    await house.erasure.erase(APP, before.id)
    await house.worker.drain()
    certificate = await house.erasure.certificate("northwind", before.id)
    assert certificate["state"] == "complete" and certificate["scope"]["versions"] == 2
    assert house.files("fra") == [] == house.files("par")
