"""New search keys without embedding again: the same ranking, the old epoch served until the switch."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingestion.damage import Damage
from ingestion.drift import Drift
from ingestion.rekeying import Rekeyed, Rekeying
from residency.keytables import dek_wrapped, search_keyset
from residency.protection import VectorMode
from residency.violations import Violations
from service.searching import Results, Search, Searching
from tests.doubles.ingesting import APP, FLEET, HashEmbedder, Ingesting, ingesting, site
from tests.doubles.looking import keys_of, live, points_of

ONE = FLEET.replace(site("par", "FR", "FR"), "").replace(site("iad", "US", "US"), "")
PLACE = ("northwind", "DE", "fra")
TEXTS = [
    f"The {word} stands in hall {n} and is checked each spring.".encode() for n, word in enumerate(("crane", "ferry"))
]
QUESTION = "crane hall checked"
MODES = ("default", "noisy", "sealed")


class DyingError(Exception):
    """Stands for a process that died here."""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Ingesting]:
    async with ingesting(tmp_path, fleet=ONE) as opened:
        opened.documents.collection("northwind", "noisy", vectors=VectorMode.NOISY)
        opened.documents.collection("northwind", "sealed", vectors=VectorMode.SEALED)
        for mode in MODES:
            for number, text in enumerate(TEXTS):
                await live(opened, f"{number}.txt", text, collection=mode, residency=frozenset({"DE"}))
        yield opened


def rekeying(house: Ingesting) -> Rekeying:
    return Rekeying(
        database=house.database, engine=house.engine, keyring=house.keyring, ledger=house.ledger,
        shards=house.shards, grace=0.0,
    )  # fmt: skip


async def ranked(house: Ingesting) -> dict[str, list[tuple[str, float]]]:
    search = Searching(
        engine=house.engine, documents=house.documents, keyring=house.keyring, ledger=house.ledger,
        shards=house.shards, embedders={"fra": HashEmbedder("fra")}, deadline=10.0,
    )  # fmt: skip
    found: dict[str, list[tuple[str, float]]] = {}
    for mode in MODES:
        results = await search.search(APP, Search(QUESTION, collection=mode, language="en"))
        assert isinstance(results, Results) and results.findings.damaged == 0
        found[mode] = [(each.document_id, round(each.score, 3)) for each in results.findings.passages]
        assert len(found[mode]) == len(TEXTS)
    return found


def states(house: Ingesting) -> dict[int, str]:
    with house.database.reading() as connection:
        rows = connection.execute(sa.select(search_keyset.c.epoch, search_keyset.c.state))
        return {row.epoch: row.state for row in rows}


async def test_an_index_under_new_keys_ranks_as_before_and_nothing_is_embedded_again(house: Ingesting) -> None:
    before, embedded = await ranked(house), house.embedders["fra"].embedded
    document = house.documents.listing("northwind").items[0]
    old_keys, (old,) = await keys_of(house, document), await points_of(house, document)
    with house.database.reading() as connection:
        wrapped = connection.execute(sa.select(sa.func.count()).select_from(dek_wrapped)).scalar_one()

    done = await rekeying(house).roll(*PLACE)

    assert (done.epoch, done.documents, done.points, done.damaged, done.removed) == (2, 6, 6, 0, 6)
    assert await ranked(house) == before and house.embedders["fra"].embedded == embedded
    new_keys, (new,) = await keys_of(house, document), await points_of(house, document)
    assert old_keys.owner != new_keys.owner and old.id != new.id and not set(old.sparse) & set(new.sparse)
    assert states(house) == {2: "active"}
    with house.database.reading() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(dek_wrapped)).scalar_one() == wrapped
    assert await look(house) == []


@pytest.mark.parametrize(
    "where",
    [
        "rekey-begun",
        "rekey-put",
        "rekey-brought",
        "rekey-switched",
        "rekey-deleted",
        "rekey-forgotten",
        "rekey-shredded",
    ],
)
async def test_a_roll_that_dies_anywhere_is_searched_all_along_and_goes_on(
    house: Ingesting, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await ranked(house)

    def die(name: str) -> None:
        if name == where:
            raise DyingError

    monkeypatch.setattr("ingestion.rekeying.crash_point", die)
    with pytest.raises(DyingError):
        await rekeying(house).roll(*PLACE)
    monkeypatch.undo()
    house.keyring.empty()
    assert await ranked(house) == before
    assert await look(house) == []  # points of both epochs are known to the drift watch
    done: Rekeyed = await rekeying(house).roll(*PLACE)
    assert (done.epoch, done.damaged) == (2, 0)
    assert await ranked(house) == before and states(house) == {2: "active"}
    again = await live(house, "later.txt", b"What comes in later stands under the new keys.")
    assert again.search_epoch == 2


async def look(house: Ingesting) -> list[Any]:
    violations = Violations(house.database, house.ledger)
    common: dict[str, Any] = {
        "database": house.database, "engine": house.engine, "keyring": house.keyring, "ledger": house.ledger,
        "violations": violations,
    }  # fmt: skip
    drift = Drift(**common, shards=house.shards, damage=Damage(**common, vaults=house.vaults))
    return (await drift.check()).found
