"""In what form vectors and words lie at a shard: kept, asked, and never weaker than a Tag demands."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingestion.documents import Document
from ingestion.errors import DocumentError
from residency.protection import SPECIAL, VectorMode, WordMode, protect
from residency.route import Action
from residency.tag import Tag
from service.errors import InvalidRequestError
from service.matrices import Matrices
from service.searching import Findings, Results, Search, Searching
from tests.doubles.ingesting import APP, FLEET, HashEmbedder, Ingesting, ingesting, site
from tests.doubles.looking import live, points_of, route

ONE = FLEET.replace(site("par", "FR", "FR"), "").replace(site("iad", "US", "US"), "")
TEXTS = {
    "ferry": b"The ferry to the island leaves the harbour at nine each morning.",
    "crane": b"The crane in the north yard lifts forty tonnes of steel plates.",
    "otter": b"An otter sleeps under the third arch of the old stone bridge.",
}
QUESTION = "ferry island harbour"


def searching(house: Ingesting, most: int = 1000) -> Searching:
    return Searching(
        engine=house.engine, documents=house.documents, keyring=house.keyring, ledger=house.ledger,
        shards=house.shards, embedders={name: HashEmbedder(name) for name in house.engine.fleet.sites}, deadline=5.0,
        matrices=Matrices(house.documents, house.keyring, most), weights={HashEmbedder("fra").digest: {"en": 0.5}},
    )  # fmt: skip


async def embedded(house: Ingesting, document: Document) -> Any:
    (vector,) = await HashEmbedder("fra").embed(route(house, Action.EMBED, document), [TEXTS["ferry"].decode()])
    return vector


async def stock(house: Ingesting, mode: VectorMode, words: WordMode = WordMode.AUTO, **claim: Any) -> list[Document]:
    name = f"c-{mode.replace('+', '-')}"
    house.documents.collection("northwind", name, vectors=mode, words=words)
    return [await live(house, f"{each}.txt", text, collection=name, **claim) for each, text in TEXTS.items()]


async def find(search: Searching, mode: VectorMode, question: str = QUESTION) -> Findings:
    found = await search.search(APP, Search(question, top_k=3, language="en", collection=f"c-{mode.replace('+', '-')}"))
    assert isinstance(found, Results)
    return found.findings


@pytest.mark.parametrize("mode", list(VectorMode))
async def test_each_mode_ranks_alike_and_keeps_vectors_as_it_says(tmp_path: Path, mode: VectorMode) -> None:
    async with ingesting(tmp_path, fleet=ONE) as house:
        (ferry, *_) = await stock(house, mode, personal=False, classification=0)
        (point,) = await points_of(house, ferry)
        clear = await embedded(house, ferry)
        if mode is VectorMode.SEALED:
            assert len(point.vector) == 0 and point.payload["x"]
        else:
            assert "x" not in point.payload
            assert np.allclose(point.vector, clear, atol=1e-6) == (mode is VectorMode.NONE)
            off = abs(float(np.linalg.norm(point.vector)) - 1)
            assert off < 1e-4 if mode is not VectorMode.NOISY else off > 1e-4
        found = await find(searching(house), mode)
        assert found.passages[0].name == "ferry.txt" and found.damaged == 0
        assert found.passages[0].support > 1
        (row,) = house.documents.placement("northwind")
        assert (row["forms"], row["lexical"]) == ({str(mode): 3}, 3)


async def test_vectors_in_the_clear_are_for_public_documents_alone(tmp_path: Path) -> None:
    async with ingesting(tmp_path, fleet=ONE) as house:
        (ferry, *_) = await stock(house, VectorMode.NONE)  # personal, as nobody said otherwise
        (point,) = await points_of(house, ferry)
        clear = await embedded(house, ferry)
        assert not np.allclose(point.vector, clear, atol=0.1)
        assert (await find(searching(house), VectorMode.NONE)).passages[0].name == "ferry.txt"


async def test_no_words_of_special_categories_lie_anywhere_and_they_are_found_all_the_same(tmp_path: Path) -> None:
    async with ingesting(tmp_path, fleet=ONE) as house:
        (ferry, *_) = await stock(house, VectorMode.ROTATED, categories=frozenset({"health"}))
        (point,) = await points_of(house, ferry)
        assert point.sparse == {}
        found = await find(searching(house), VectorMode.ROTATED)
        assert found.passages[0].name == "ferry.txt"
        assert found.passages[0].support > 0.6 > 0.3 > found.passages[1].support  # of 2, as with words
        nothing = await find(searching(house), VectorMode.ROTATED, "quarterly dividend")
        assert all(each.support < 0.5 for each in nothing.passages)


async def test_sealed_vectors_go_with_their_document_and_are_refused_beyond_the_limit(tmp_path: Path) -> None:
    async with ingesting(tmp_path, fleet=ONE) as house:
        (ferry, crane, _) = await stock(house, VectorMode.SEALED, WordMode.OFF)
        search = searching(house)
        assert (await find(search, VectorMode.SEALED)).passages[0].name == "ferry.txt"
        narrow = Search(QUESTION, collection="c-sealed", documents=(crane.id,))
        only = await search.search(APP, narrow)
        assert isinstance(only, Results) and [each.name for each in only.findings.passages] == ["crane.txt"]
        await house.erasure.erase(APP, ferry.id)
        await house.worker.drain()
        assert "ferry.txt" not in {each.name for each in (await find(search, VectorMode.SEALED)).passages}
        with pytest.raises(InvalidRequestError, match="2 passages lie under sealed vectors, of which 1"):
            await find(searching(house, most=1), VectorMode.SEALED)


async def test_a_sealed_vector_moved_to_another_point_does_not_open(tmp_path: Path) -> None:
    async with ingesting(tmp_path, fleet=ONE) as house:
        (ferry, crane, _) = await stock(house, VectorMode.SEALED)
        (one,), (other,) = await points_of(house, ferry), await points_of(house, crane)
        one.payload["x"] = other.payload["x"]
        await house.shards["fra"].put(route(house, Action.STORE, ferry), [one])
        assert (await find(searching(house), VectorMode.SEALED)).damaged == 1


async def test_the_form_of_a_collection_stays_as_it_was_made(tmp_path: Path) -> None:
    async with ingesting(tmp_path, fleet=ONE, index=False) as house:
        made = house.documents.collection("northwind", "files", vectors=VectorMode.SEALED)
        assert house.documents.collection("northwind", "files") == made
        with pytest.raises(DocumentError, match="keeps vectors sealed"):
            house.documents.collection("northwind", "files", vectors=VectorMode.NONE)


def test_a_tag_may_only_demand_more() -> None:
    public = Tag(frozenset(), frozenset(), personal=False, classification=0)
    assert protect("none", "", public).vectors is VectorMode.NONE
    for category in SPECIAL:
        tag = Tag(frozenset(), frozenset(), personal=False, classification=0, categories=frozenset({category}))
        assert protect("none", "", tag).vectors is VectorMode.ROTATED and not protect("", "auto", tag).words
    assert not protect("", "off", public).words and protect("", "auto", public).words
