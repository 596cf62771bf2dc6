"""A Tag in dispute before a person: evidence, decision, what follows; and live Documents that are retagged."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingestion.decisions import Ruled, Verdict, decision
from ingestion.documents import Document
from ingestion.errors import DecidedError, DocumentError, NotFoundError, RulingError
from ingestion.intake import Refused
from ingestion.reviewing import Reviewing, Ruling
from ingestion.rows import document
from ingestion.states import State
from residency.decision import Principal
from residency.ports import PointFilter
from residency.route import Action
from residency.tagrules import TagRules
from tests.doubles.ingesting import APP, Ingesting, ingesting, site
from tests.doubles.looking import dek_of, keys_of, live, points_of, ready_again, route

FLEET = site("fra", "DE", "DE") + site("par", "FR", "FR")
NUMBERS = "IBAN FR14 2004 1010 0505 0001 3M02 606. TVA FR40303265045. IBAN FR76 3000 6000 0112 3456 7890 189."
INVOICE = (NUMBERS + " Merci de payer la facture sous trente jours.").encode()
OTHER = replace(APP, id="person:second")
ACCEPT = Ruling(Verdict.ACCEPT, "declaration-right")
NARROW = Ruling(Verdict.NARROW, "both-bind")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Ingesting]:
    async with ingesting(tmp_path, fleet=FLEET) as opened:
        yield opened


def reviewing(house: Ingesting) -> Reviewing:
    return Reviewing(
        database=house.database, engine=house.engine, keyring=house.keyring, ledger=house.ledger,
        moving=house.pipeline.moving, erasure=house.erasure,
    )  # fmt: skip


async def disputed(house: Ingesting, **claim: Any) -> Document:
    taken = await house.taken("facture.txt", INVOICE, **claim)
    await house.worker.drain()
    found = house.get(taken.document.id)
    assert found.cause == "tag_disputed"
    return found


async def drained(house: Ingesting, identifier: str) -> Document:
    for _ in range(2):
        ready_again(house)
        await house.worker.drain()
    return house.get(identifier)


def facts(house: Ingesting, stage: str) -> list[dict[str, Any]]:
    end = datetime.now(UTC) + timedelta(days=1)
    entries = house.ledger.entries("northwind", datetime(2020, 1, 1, tzinfo=UTC), end)
    return [each for each in entries if each["facts"].get("stage") == stage]


async def decided(house: Ingesting, identifier: str, ruling: Ruling, who: Principal = APP) -> Ruled:
    made = await reviewing(house).decide(who, identifier, ruling)
    assert isinstance(made, Ruled)
    return made


async def test_a_reviewer_sees_where_evidence_stands_and_never_what_it_reads(house: Ingesting) -> None:
    held = await disputed(house)
    seen = await reviewing(house).look(APP, held.id)
    assert not isinstance(seen, Refused)
    [first, *_] = [each for each in seen.evidence if each["kind"] == "iban"]
    assert INVOICE.decode()[first["start"] : first["end"]] == "FR14 2004 1010 0505 0001 3M02 606"
    assert first["page"] == 1 and "2004" not in str(seen.evidence)
    assert seen.suggested.jurisdictions == {"DE", "FR"} and (seen.site, seen.decided) == ("fra", None)


async def test_an_accepted_tag_stands_and_the_document_goes_live_under_it(house: Ingesting) -> None:
    held = await disputed(house)
    made = await decided(house, held.id, ACCEPT)
    now = await drained(house, held.id)
    assert (now.state, now.version, now.tag, now.cause) == (State.LIVE, 1, held.tag, "")
    [entry] = facts(house, "reviewed")
    assert entry["id"] == made.receipt and entry["facts"]["by"] == APP.id
    assert (entry["facts"]["action"], entry["facts"]["ground"]) == ("accept", "declaration-right")


async def test_a_narrowed_tag_seals_it_anew_and_leaves_nothing_under_the_old_one(house: Ingesting) -> None:
    held = await disputed(house)
    made = await decided(house, held.id, replace(NARROW, residency=frozenset({"FR"}), note="Ask Ms Zyx about it."))
    assert made.tag.jurisdictions == {"DE", "FR"}
    now = await drained(house, held.id)
    assert (now.state, now.version, now.site, now.tag) == (State.LIVE, 2, "par", made.tag), now.cause
    assert now.jurisdiction == "DE+FR" and len(await points_of(house, now)) == now.passages
    assert house.get(held.id, 1).state is State.ERASED and house.files("fra") == []
    seen = await reviewing(house).look(APP, held.id)
    assert not isinstance(seen, Refused) and seen.evidence[-1]["what"] == "Ask Ms Zyx about it."
    with house.database.reading() as connection:
        rows = [*connection.execute(sa.select(document)), *connection.execute(sa.select(decision))]
    assert "Zyx" not in str(rows) and "Zyx" not in str(facts(house, "reviewed"))


async def test_a_rejected_document_is_erased_and_the_decision_stays(house: Ingesting) -> None:
    held = await disputed(house)
    made = await decided(house, held.id, Ruling(Verdict.REJECT, "wrong-document"))
    assert (await drained(house, held.id)).state is State.ERASED
    assert house.files("fra") == [] and facts(house, "reviewed")[0]["id"] == made.receipt


async def test_of_two_reviewers_at_once_one_decides_and_the_other_hears_of_it(house: Ingesting) -> None:
    held = await disputed(house)
    story = reviewing(house)
    outcomes = await asyncio.gather(
        story.decide(APP, held.id, ACCEPT), story.decide(OTHER, held.id, NARROW),
        story.decide(OTHER, held.id, Ruling(Verdict.REJECT, "other")), return_exceptions=True,
    )  # fmt: skip
    [made] = [each for each in outcomes if isinstance(each, Ruled)]
    lost = [each for each in outcomes if isinstance(each, DecidedError)]
    assert len(lost) == 2 and len(facts(house, "reviewed")) == 1
    assert {str(each.decision) for each in lost} == {str(made.facts())}


async def test_the_same_decision_again_is_harmless_and_another_is_not(house: Ingesting) -> None:
    held = await disputed(house)
    made = await decided(house, held.id, ACCEPT)
    assert await decided(house, held.id, ACCEPT) == made
    with pytest.raises(DecidedError) as caught:
        await reviewing(house).decide(OTHER, held.id, ACCEPT)
    assert caught.value.code == "state_conflict" and caught.value.decision == made.facts()
    assert len(facts(house, "reviewed")) == 1


@pytest.mark.parametrize(
    "wanted",
    [
        {"jurisdictions": frozenset({"FR"})},
        {"residency": frozenset({"EEA"})},
        {"residency": frozenset()},
        {"personal": False},
        {"categories": frozenset()},
        {"classification": 0},
        {"classification": 9},
    ],
)
async def test_a_reviewer_may_not_widen(house: Ingesting, wanted: dict[str, Any]) -> None:
    held = await disputed(house, categories=frozenset({"finance"}))
    with pytest.raises(RulingError):
        await reviewing(house).decide(APP, held.id, replace(NARROW, **wanted))
    assert house.get(held.id) == held and facts(house, "reviewed") == []


async def test_what_is_permitted_nowhere_is_refused_with_a_receipt_and_changes_nothing(house: Ingesting) -> None:
    held = await disputed(house)
    refused = await reviewing(house).decide(APP, held.id, replace(NARROW, residency=frozenset({"IT"})))
    assert isinstance(refused, Refused) and refused.refusal.why_not
    assert house.get(held.id) == held and facts(house, "review-refused")[0]["id"] == refused.receipt
    blind = replace(APP, activities=frozenset())
    assert isinstance(await reviewing(house).look(blind, held.id), Refused)
    with pytest.raises(NotFoundError):
        await reviewing(house).look(replace(APP, tenant="southwind"), held.id)


async def test_a_live_document_that_is_retagged_is_out_of_search_at_once_and_moves(house: Ingesting) -> None:
    before = await live(house, "patients.txt", jurisdictions=frozenset({"DE"}))
    keys = await keys_of(house, before)
    wanted = replace(NARROW, ground="found-by-hand", residency=frozenset({"FR"}), categories=frozenset({"finance"}))
    await decided(house, before.id, wanted)
    assert house.documents.live("northwind", [before.id]) == {}
    assert house.get(before.id).cause == "retagging"
    now = await drained(house, before.id)
    assert (now.state, now.site, now.version) == (State.LIVE, "par", 2) and now.tag.categories == {"finance"}
    assert len(await points_of(house, now)) == now.passages and house.files("fra") == []
    may = route(house, Action.SEARCH, before)
    assert await house.shards["fra"].ids(may, PointFilter(owners=(keys.owner,))) == []


async def test_a_retag_at_the_same_site_replaces_every_point(house: Ingesting) -> None:
    before = await live(house)
    old = {point.id for point in await points_of(house, before)}
    await decided(house, before.id, replace(NARROW, classification=2))
    now = await drained(house, before.id)
    assert (now.state, now.site, now.tag.classification) == (State.LIVE, "fra", 2)
    points = {point.id for point in await points_of(house, now)}
    assert len(points) == now.passages and not points & old
    assert (await dek_of(house, now)).dek_id != before.dek_id
    with pytest.raises(RulingError):
        await reviewing(house).decide(OTHER, now.id, replace(NARROW, classification=2))


async def test_only_what_waits_or_lives_can_be_ruled_on(house: Ingesting) -> None:
    before = await live(house)
    with pytest.raises(DocumentError):
        await reviewing(house).decide(APP, before.id, ACCEPT)
    with pytest.raises(RulingError):
        await reviewing(house).decide(APP, before.id, replace(NARROW, ground="because"))


async def test_a_retag_that_cannot_be_copied_waits_for_a_reviewer_again(house: Ingesting) -> None:
    held = await disputed(house)
    await decided(house, held.id, NARROW)
    for name in (house.folder / "fra" / "vault").rglob("*.original"):
        name.write_bytes(name.read_bytes()[:-7])
    now = await drained(house, held.id)
    assert (now.state, now.version, now.cause) == (State.QUARANTINED, 1, "retag_failed")
    await decided(house, held.id, Ruling(Verdict.REJECT, "other"))
    assert (await drained(house, held.id)).state is State.ERASED


async def test_a_folder_adds_to_the_claim_and_a_foreign_folder_is_for_a_reviewer(house: Ingesting) -> None:
    text = b"""[[place]]
id = "staff"
folder = "hr/**"
jurisdictions = ["FR"]
categories = ["employment"]
classification = 2"""
    house.intake.tag_rules = lambda: TagRules.parse(text, house.engine.zones)
    alone = await live(house, "a.txt", jurisdictions=frozenset(), folder="hr/2026")
    assert alone.tag.jurisdictions == {"FR"} and alone.tag.categories == {"employment"}
    assert alone.tag.classification == 2
    taken = await house.taken("b.txt", INVOICE, jurisdictions=frozenset({"DE"}), classification=3, folder="hr")
    await house.worker.drain()
    found = house.get(taken.document.id)
    assert (found.cause, found.tag.classification) == ("tag_disputed", 3)
    seen = await reviewing(house).look(APP, found.id)
    assert not isinstance(seen, Refused)
    assert [each["rule"] for each in seen.evidence if each["kind"] == "place"] == ["staff"]
    assert seen.suggested.jurisdictions == {"DE", "FR"}
