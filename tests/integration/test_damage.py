"""What is sealed and does not open is refused by name, recorded with its Document, and mended where it can be.

A point with another's Envelope, a key in another's row, a file with a bit turned, lost points: the rest is served.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingestion.damage import Damage
from ingestion.documents import Document
from ingestion.drift import Drift
from ingestion.errors import DamagedError
from ingestion.states import State
from residency.decision import Ask, Principal
from residency.errors import KeyRefusedError
from residency.keytables import dek_wrapped
from residency.route import Action
from residency.violations import Violations
from service.catalogue import Catalogue, Page
from service.findings import Results, Search
from service.searching import Searching
from tests.doubles.ingesting import APP, HashEmbedder, Ingesting, ingesting, site
from tests.doubles.looking import dek_of, live, points_of, ready_again, route

FLEET = site("fra", "DE", "DE") + site("par", "FR", "FR")
OWL = b"The owl sleeps in the barn, and the notice period of the barn is six weeks."
HEN = b"The hen sleeps in the yard, and the notice period of the yard is three months."
SOUTH = Principal("app:other", "southwind", frozenset({"indexing"}))


class Hurt:
    def __init__(self, house: Ingesting) -> None:
        self.house = house
        self.violations = Violations(house.database, house.ledger)
        common: dict[str, Any] = {"engine": house.engine, "keyring": house.keyring, "ledger": house.ledger}
        self.damage = Damage(**common, database=house.database, vaults=house.vaults, violations=self.violations)
        self.drift = Drift(
            **common, database=house.database, shards=house.shards, violations=self.violations, damage=self.damage
        )
        self.searching = Searching(
            **common, documents=house.documents, shards=house.shards, deadline=5.0, damage=self.damage,
            embedders={name: HashEmbedder(name) for name in house.engine.fleet.sites},
        )  # fmt: skip
        self.catalogue = Catalogue(
            **common, documents=house.documents, vaults=house.vaults, holds=house.holds, damage=self.damage
        )

    async def ask(self) -> tuple[set[str], int]:
        """Give the ids of the Documents that answered, and how many Passages were damaged."""
        found = await self.searching.search(APP, Search("notice period", top_k=5))
        assert isinstance(found, Results)
        return {passage.document_id for passage in found.findings.passages}, found.findings.damaged

    def records(self, state: str = "") -> list[tuple[str, str, str]]:
        known = self.violations.listing("northwind", state=state)
        return [(each.subject, each.evidence.get("damage", each.evidence.get("drift")), each.state) for each in known]


@pytest.fixture
async def hurt(tmp_path: Path) -> AsyncIterator[Hurt]:
    async with ingesting(tmp_path, fleet=FLEET) as house:
        yield Hurt(house)


async def settled(hurt: Hurt) -> int:
    done = await hurt.damage.settle()
    ready_again(hurt.house)
    await hurt.house.worker.drain()
    return done


async def test_an_envelope_in_anothers_place_is_left_out_recorded_and_made_anew(hurt: Hurt) -> None:
    house = hurt.house
    owl, hen = await live(house, "owl.txt", OWL), await live(house, "hen.txt", HEN)
    french = await live(house, "f.txt", OWL + b"f", jurisdictions=frozenset({"FR"}), residency=frozenset({"FR"}))
    theirs = await house.taken("s.txt", OWL, principal=SOUTH)
    await house.worker.drain()
    [mine] = await points_of(house, owl)
    for other in (hen, french, house.get(theirs.document.id, tenant="southwind")):
        [donor] = await foreign(house, other)
        moved = replace(mine, payload=dict(mine.payload) | {"s": donor.payload["s"]})
        await house.shards["fra"].put(route(house, Action.STORE, owl), [moved])
        assert await hurt.ask() == ({hen.id, french.id}, 1)
        assert hurt.records("open") == [(owl.id, "passage", "open")]
        assert await settled(hurt) == 1  # its sealed original is whole
        assert await hurt.ask() == ({owl.id, hen.id, french.id}, 0)
        assert hurt.records("open") == []
        [mine] = await points_of(house, owl)


async def foreign(house: Ingesting, held: Document) -> list[Any]:
    """Points of a Document of any tenant."""
    if held.tenant == "northwind":
        return await points_of(house, held)
    routes = [
        house.engine.decide(Ask(SOUTH, action, held.site, (held.tag,), "indexing")).route  # type: ignore[union-attr]
        for action in (Action.OPEN, Action.SEARCH)
    ]
    keys = await house.keyring.search_keys(
        routes[0], tenant="southwind", jurisdiction=held.jurisdiction, site=held.site, dimension=384
    )
    assert keys is not None
    ids, may = [keys.point_id(held.id, held.version, number) for number in range(held.passages)], routes[1]
    return await house.shards[held.site].retrieve(may, ids, vectors=True)


async def test_a_key_replayed_under_another_document_opens_nothing_and_the_rest_is_served(hurt: Hurt) -> None:
    house = hurt.house
    owl, hen = await live(house, "owl.txt", OWL), await live(house, "hen.txt", HEN)
    keys = {each.id: wrapped(house, each) for each in (owl, hen)}
    put(house, owl, keys[hen.id])
    with pytest.raises(KeyRefusedError, match="does not open"):
        await dek_of(house, owl)
    assert await hurt.ask() == ({hen.id}, 1)
    with pytest.raises(DamagedError, match="key does not open"):
        await hurt.catalogue.source(APP, owl.id, version=1, page=1)
    assert isinstance(await hurt.catalogue.source(APP, hen.id, version=1, page=1), Page)
    assert await hurt.damage.settle() == 0 and hurt.records("open") == [(owl.id, "key", "open")]
    put(house, owl, keys[owl.id])
    assert await hurt.damage.settle() == 1 and hurt.records() == [(owl.id, "key", "resolved")]
    assert await hurt.ask() == ({owl.id, hen.id}, 0)


def wrapped(house: Ingesting, held: Document) -> bytes:
    with house.database.reading() as connection:
        mine = sa.select(dek_wrapped.c.wrapped).where(dek_wrapped.c.dek_id == held.dek_id)
        return bytes(connection.execute(mine).scalar_one())


def put(house: Ingesting, held: Document, key: bytes) -> None:
    with house.database.transaction() as connection:
        connection.execute(sa.update(dek_wrapped).where(dek_wrapped.c.dek_id == held.dek_id).values(wrapped=key))
    house.keyring.empty()


async def test_a_bit_of_a_sealed_file_is_refused_by_name_and_recorded_until_it_is_mended(hurt: Hurt) -> None:
    house = hurt.house
    owl = await live(house, "owl.txt", OWL)
    for name in ("text", "original"):
        (file,) = (house.folder / "fra" / "vault").rglob(f"{owl.id}.1.{name}")
        whole = file.read_bytes()
        file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 0x40]) + whole[-8:])
        assert not await hurt.damage.whole(owl, artefact(house, owl))
        if name == "text":
            with pytest.raises(DamagedError, match="sealed file does not open"):
                await hurt.catalogue.source(APP, owl.id, version=1, page=1)
            assert hurt.records("open") == [(owl.id, "file", "open")]
        file.write_bytes(whole)
    assert await hurt.ask() == ({owl.id}, 0)
    assert await hurt.damage.settle() == 1 and hurt.records("open") == []


def artefact(house: Ingesting, held: Document) -> bytes:
    with house.database.reading() as connection:
        query = sa.text("SELECT artefact_id FROM document WHERE id = :id")
        return bytes(connection.execute(query, {"id": held.id}).scalar_one())


async def test_lost_points_come_back_by_themselves_where_the_original_is_whole(hurt: Hurt) -> None:
    house = hurt.house
    owl, hen = await live(house, "owl.txt", OWL), await live(house, "hen.txt", HEN)
    for each in (owl, hen):
        [point] = await points_of(house, each)
        await house.shards["fra"].delete(route(house, Action.ERASE, each), [point.id])
    (file,) = (house.folder / "fra" / "vault").rglob(f"{hen.id}.1.original")
    file.write_bytes(file.read_bytes()[:-1])
    assert await hurt.drift.mend() == 1
    ready_again(house)
    await house.worker.drain()
    assert await hurt.ask() == ({owl.id}, 0)
    assert await hurt.drift.mend() == 0  # a Document that answers in part is left as it is
    assert house.get(hen.id).state is State.LIVE and hurt.records("open") == [(hen.id, "missing", "open")]


async def test_what_was_erased_meanwhile_is_no_damage(hurt: Hurt) -> None:
    owl = await live(hurt.house, "owl.txt", OWL)
    await hurt.house.erasure.erase(APP, owl.id)
    await hurt.damage.found(owl, "key")
    assert hurt.records() == []
