"""Looking at what ingestion made, as a permitted search would: keys, points, and Documents that became live."""

from typing import Any

from ingestion.documents import Document
from ingestion.states import State
from residency.decision import Ask, Permit
from residency.ports import Point, PointFilter
from residency.route import Action, Route
from residency.seal import OpenDek
from residency.searchkeys import SearchKeys
from tests.doubles.ingesting import APP, Ingesting

LINES = [f"Section {n}. The notice period of part {n} is {n} months to the end of a quarter.\n\n" for n in range(1, 41)]
BODY = "".join(LINES).encode()


def route(house: Ingesting, action: Action, document: Document) -> Route:
    decision = house.engine.decide(Ask(APP, action, document.site, (document.tag,), "indexing"))
    assert isinstance(decision, Permit)
    return decision.route


async def keys_of(house: Ingesting, document: Document) -> SearchKeys:
    keys = await house.keyring.search_keys(
        route(house, Action.OPEN, document), tenant=document.tenant, jurisdiction=document.jurisdiction,
        site=document.site, dimension=384,
    )  # fmt: skip
    assert keys is not None
    return keys


async def dek_of(house: Ingesting, document: Document) -> OpenDek:
    opened = route(house, Action.OPEN, document)
    return await house.keyring.open_dek(opened, document.site, document.dek_id, document.tag.digest)


async def points_of(house: Ingesting, document: Document) -> list[Point]:
    """Every point of a Document at its shard, whatever its version."""
    keys, shard = await keys_of(house, document), house.shards[document.site]
    may = route(house, Action.SEARCH, document)
    ids = await shard.ids(may, PointFilter(owners=(keys.owner,), documents=(document.id,)))
    return await shard.retrieve(may, ids, vectors=True)


async def live(house: Ingesting, name: str = "notice.txt", body: bytes = BODY, **claim: Any) -> Document:
    taken = await house.taken(name, body, **claim)
    await house.worker.drain()
    found = house.get(taken.document.id, taken.document.version)
    assert found.state is State.LIVE, found.cause
    return found


def ready_again(house: Ingesting) -> None:
    """Let every pause be over."""
    with house.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE document SET not_before = 0")
