"""Stores on both databases: counts, pages either way, attaching once, attributes that go with their Document."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from ingestion import attributes, collections
from ingestion.documents import Documents
from ingestion.errors import DocumentError, NotFoundError
from ingestion.rows import document
from ingestion.states import State
from ingestion.stores import UNATTACHED, Stores
from residency.database import Database

TAG = '{"categories": [], "classification": 1, "jurisdictions": ["DE"], "personal": true, "residency": ["EU"]}'
Put = Callable[..., str]


@pytest.fixture
def stores(database: Database) -> Stores:
    return Stores(database)


@pytest.fixture
def put(database: Database) -> Put:
    """Enter a Document's row as an upload would leave it."""
    documents = Documents(database)
    made = 0

    def enter(store: str, *, state: State = State.LIVE, version: int = 1, of: str = "", mac: bytes = b"") -> str:
        nonlocal made
        made += 1
        identifier = of or f"{made:032x}"
        values: dict[str, Any] = {}
        for column in document.c:
            values[column.name] = None if column.nullable else column.type.python_type()
        values |= {
            "id": identifier,
            "version": version,
            "tenant_id": "acme",
            "collection_id": documents.collection("acme", store).id,
            "state": state,
            "tag": TAG,
            "groups": "[]",
            "languages": "{}",
            "name_mac": mac or identifier.encode(),
            "bytes_total": 100,
            "created": float(made),
        }
        with database.transaction() as connection:
            connection.execute(sa.insert(document).values(values))
        return identifier

    return enter


def test_a_store_counts_the_newest_versions_by_state(stores: Stores, put: Put) -> None:
    first = put("docs")
    put("docs", of=first, version=2, state=State.SEALED)
    put("docs", state=State.FAILED)
    put(UNATTACHED, state=State.SEALED)
    (store,) = stores.listing("acme")
    assert (store.name, store.states, store.size) == ("docs", {State.SEALED: 1, State.FAILED: 1}, 200)
    assert stores.get("acme", store.id) == store
    for tenant, wanted in (("other", store.id), ("acme", "0" * 32)):
        with pytest.raises(NotFoundError):
            stores.get(tenant, wanted)


def test_files_are_paged_either_way(stores: Stores, put: Put) -> None:
    ids = [put("docs") for _ in range(5)]

    def page(**wanted: Any) -> tuple[list[str], bool]:
        found, more = stores.files("acme", **wanted)
        return [each.id for each in found], more

    assert page(limit=2) == ([ids[4], ids[3]], True)
    assert page(limit=2, after=ids[3]) == ([ids[2], ids[1]], True)
    assert page(limit=2, after=ids[1]) == ([ids[0]], False)
    assert page(limit=2, before=ids[1]) == ([ids[3], ids[2]], True)
    assert page(limit=9, newest_first=False) == (ids, False)
    assert page(limit=2, newest_first=False, after=ids[1]) == ([ids[2], ids[3]], True)
    assert page(states=[State.FAILED]) == ([], False)
    with pytest.raises(NotFoundError):
        stores.files("acme", after="0" * 32)
    assert stores.files("other") == ([], False)


def test_a_waiting_file_is_attached_once(stores: Stores, put: Put, database: Database) -> None:
    put("docs", mac=b"taken")
    (store,) = stores.listing("acme")
    waiting = put(UNATTACHED, state=State.SEALED)
    stores.attach("acme", waiting, store.id, b"fresh")
    stores.attach("acme", waiting, store.id, b"fresh")
    assert waiting in [each.id for each in stores.files("acme", store_id=store.id)[0]]
    twin = put(UNATTACHED, state=State.SEALED)
    with pytest.raises(DocumentError, match="of that name"):
        stores.attach("acme", twin, store.id, b"taken")
    other = Documents(database).collection("acme", "other")
    with pytest.raises(DocumentError, match="another vector store"):
        stores.attach("acme", waiting, other.id, b"fresh")
    with pytest.raises(DocumentError):
        stores.drop("acme", store.id)
    stores.drop("acme", other.id)
    assert [each.id for each in stores.listing("acme")] == [store.id]


def test_attributes_are_kept_by_version_and_struck_with_the_document(database: Database) -> None:
    with database.transaction() as connection:
        attributes.keep(connection, "1" * 32, 1, b"old")
        attributes.keep(connection, "1" * 32, 1, b"new")
        attributes.keep(connection, "1" * 32, 2, b"second")
        attributes.keep(connection, "2" * 32, 1, b"other")
        kept = attributes.kept(connection, ["1" * 32])
        assert kept == {("1" * 32, 1): b"new", ("1" * 32, 2): b"second"}
        attributes.strike(connection, "1" * 32)
        assert attributes.kept(connection, ["1" * 32, "2" * 32]) == {("2" * 32, 1): b"other"}


def test_an_insert_says_whether_it_was_one(database: Database) -> None:
    row = {"id": "1" * 32, "version": 1, "sealed": b"x"}
    with database.transaction() as connection:
        assert collections.insert_missing(connection, attributes.table, row)
        assert not collections.insert_missing(connection, attributes.table, row)
