"""The Keyring on SQLite and PostgreSQL, with the key provider in a folder."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from residency.database import Database
from residency.errors import KeyRefusedError, KeyringError, RouteError, SealedError, SiteError
from residency.journal import recording
from residency.keyring import Keyring
from residency.keytables import dek, dek_wrapped, kek, search_keyset
from residency.outlets.keys.file import FileKeys
from residency.route import Action, Route
from residency.seal import NO_TAG, SEAL_LIMIT, SEAL_STEP, OpenDek
from tests.doubles.keys import CountingKeys
from tests.doubles.routes import route_for

DE, CH = "de-frankfurt", "ch-zurich"
TAG, OTHER = b"\x55" * 32, b"\x66" * 32
TAGS = frozenset({TAG.hex(), OTHER.hex()})


def route(action: Action, site: str = DE, tenant: str = "northwind") -> Route:
    return route_for(action, site, tenant, TAGS)


@dataclass
class Ring:
    keyring: Keyring
    keys: CountingKeys
    database: Database
    folder: Path

    def again(self) -> Keyring:
        """Another process over the same rows and keys."""
        providers = {site: FileKeys(self.folder / site, site=site) for site in (DE, CH)}
        return Keyring(self.database, providers, mac_key=b"\x01" * 32, horizon=0.0)

    async def new(self, number: int = 1, *, tag: bytes = TAG, tenant: str = "northwind", **changed: Any) -> OpenDek:
        facts: dict[str, Any] = {
            "purpose": "document",
            "tenant": tenant,
            "jurisdiction": "DE",
            "subject": number.to_bytes(16, "big"),
            "version": 1,
            "tag_digest": tag,
            "site": DE,
        } | changed
        return await self.keyring.new_dek(route(Action.STORE, facts["site"], tenant), **facts)

    async def count(self, table: sa.Table) -> int:
        def read() -> int:
            with self.database.reading() as connection:
                return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())

        return await self.database.run(read)

    async def change(self, statement: sa.Update) -> None:
        def write() -> None:
            with self.database.transaction() as connection:
                connection.execute(statement)

        await self.database.run(write)


@pytest.fixture
async def ring(database: Database, tmp_path: Path) -> AsyncIterator[Ring]:
    keys = CountingKeys(FileKeys(tmp_path / DE, site=DE))
    providers = {DE: keys, CH: FileKeys(tmp_path / CH, site=CH)}
    yield Ring(Keyring(database, providers, mac_key=b"\x01" * 32, horizon=0.0), keys, database, tmp_path)


async def test_what_a_new_key_seals_another_process_opens(ring: Ring) -> None:
    made = await ring.new()
    sealed = made.seal(b"place", b"text")
    opened = await ring.again().open_dek(route(Action.OPEN), DE, made.dek_id, TAG)
    assert opened.open(b"place", sealed) == b"text"
    assert (opened.tenant, opened.jurisdiction, opened.version) == ("northwind", "DE", 1)
    assert opened.subject == (1).to_bytes(16, "big")


async def test_several_keys_open_in_one_unwrap_and_then_from_memory(ring: Ring) -> None:
    wanted = [((await ring.new(number)).dek_id, TAG) for number in range(10)]
    ring.keys.calls.clear()
    with recording() as cold:
        assert len(await ring.keyring.open_deks(route(Action.OPEN), DE, wanted)) == 10
    assert ring.keys.calls == [(Action.OPEN, 10)]
    with recording() as warm:
        assert len(await ring.keyring.open_deks(route(Action.OPEN), DE, wanted)) == 10
    assert ring.keys.calls == [(Action.OPEN, 10)]
    assert [(t.action, t.site, t.kind, t.count) for t in warm] == [(t.action, t.site, t.kind, t.count) for t in cold]


async def test_a_warm_opening_asks_the_database_once(ring: Ring) -> None:
    wanted = [((await ring.new(number)).dek_id, TAG) for number in range(10)]
    await ring.keyring.open_deks(route(Action.OPEN), DE, wanted)
    seen: list[str] = []
    sa.event.listen(ring.database.engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    if ring.database.sqlite:  # read straight through the driver
        ring.database._own().set_trace_callback(seen.append)
    await ring.keyring.open_deks(route(Action.OPEN), DE, wanted)
    assert len([text for text in seen if text.lstrip().startswith("SELECT")]) == 1


async def test_a_shredded_key_is_gone_at_once_in_every_process(ring: Ring) -> None:
    made, other = await ring.new(1), await ring.new(2)
    elsewhere = ring.again()
    wanted = [(made.dek_id, TAG), (other.dek_id, TAG)]
    for keyring in (ring.keyring, elsewhere):
        assert len(await keyring.open_deks(route(Action.OPEN), DE, wanted)) == 2
    assert await ring.keyring.shred(made.dek_id)
    assert not await ring.keyring.shred(made.dek_id)
    for keyring in (ring.keyring, elsewhere):
        assert list(await keyring.open_deks(route(Action.OPEN), DE, wanted)) == [other.dek_id]
    with pytest.raises(KeyringError):
        await ring.keyring.open_dek(route(Action.OPEN), DE, made.dek_id, TAG)
    assert (await ring.count(dek), await ring.count(dek_wrapped)) == (2, 1)
    with pytest.raises(KeyringError):
        await ring.keyring.reserve(made, SEAL_STEP * 2)


async def test_a_key_opens_for_its_own_tag_only(ring: Ring) -> None:
    made = await ring.new(1)
    await ring.new(2)
    wanted = [(made.dek_id, TAG)]
    assert await ring.again().open_deks(route(Action.OPEN), DE, [(made.dek_id, OTHER)]) == {}
    assert await ring.keyring.open_deks(route(Action.OPEN), DE, wanted)
    assert await ring.keyring.open_deks(route(Action.OPEN), DE, [(made.dek_id, OTHER)]) == {}  # warm or not
    assert await ring.keyring.open_deks(route(Action.OPEN), DE, [(made.dek_id, NO_TAG)]) == {}


async def test_a_key_whose_row_was_edited_does_not_open_and_its_neighbour_does(ring: Ring) -> None:
    edits: list[dict[str, Any]] = [
        {"jurisdiction": "FR"},
        {"subject_id": bytes(16)},
        {"subject_version": 2},
        {"purpose": "conversation"},
        {"commitment": bytes(32)},
        {"suite": 2},
    ]
    for number, edit in enumerate(edits):
        made, other = await ring.new(number), await ring.new(100 + number)
        await ring.change(sa.update(dek).where(dek.c.id == made.dek_id).values(**edit))
        opened = await ring.keyring.open_deks(route(Action.OPEN), DE, [(made.dek_id, TAG), (other.dek_id, TAG)])
        assert list(opened) == [other.dek_id], edit


async def test_a_route_opens_nothing_it_was_not_judged_for(ring: Ring) -> None:
    made = await ring.new(1)
    wanted = [(made.dek_id, TAG)]
    await ring.keyring.open_deks(route(Action.OPEN), DE, wanted)  # warm, so that only the rules can refuse
    assert await ring.keyring.open_deks(route_for(Action.OPEN, DE, tags=frozenset({OTHER.hex()})), DE, wanted) == {}
    assert await ring.keyring.open_deks(route(Action.OPEN, tenant="southwind"), DE, wanted) == {}
    assert await ring.keyring.open_deks(route(Action.OPEN, CH), CH, wanted) == {}
    for wrong in (route(Action.SEARCH), route(Action.OPEN, CH), route_for(Action.OPEN, DE, tags=TAGS, seconds=-1)):
        with pytest.raises(RouteError):
            await ring.keyring.open_deks(wrong, DE, wanted)
    with pytest.raises(RouteError):
        await ring.new(2, tag=b"\x77" * 32)
    with pytest.raises(RouteError):
        await ring.keyring.new_dek(
            route(Action.OPEN),
            purpose="document",
            tenant="northwind",
            jurisdiction="DE",
            subject=bytes(16),
            version=1,
            tag_digest=TAG,
            site=DE,
        )
    with pytest.raises(RouteError):
        await ring.keyring.open_dek(route(Action.OPEN), DE, made.dek_id, b"\x77" * 32)


async def test_a_provider_that_is_down_is_an_error_and_not_an_absence(ring: Ring) -> None:
    made = await ring.new(1)
    ring.keys.down = True
    with pytest.raises(KeyringError) as caught:
        await ring.keyring.open_deks(route(Action.OPEN), DE, [(made.dek_id, TAG)])
    assert isinstance(caught.value.__cause__, SiteError)
    with pytest.raises(KeyringError):
        await ring.new(2)
    assert await ring.count(dek) == 1
    with pytest.raises(KeyringError):
        await ring.new(3, site="us-virginia")


async def test_keks_stand_apart_by_tenant_jurisdiction_and_home(ring: Ring) -> None:
    await ring.new(1)
    await ring.new(2)
    await ring.new(3, jurisdiction="DE+FR")
    await ring.new(4, tenant="southwind")
    await ring.new(5, site=CH)
    listed = await ring.keyring.listing()
    assert sorted((s.ref.tenant, s.ref.jurisdiction, s.ref.site, s.ref.version, s.left, s.wraps) for s in listed) == [
        ("northwind", "DE", CH, 1, 1, 1),
        ("northwind", "DE", DE, 1, 2, 2),
        ("northwind", "DE+FR", DE, 1, 1, 1),
        ("southwind", "DE", DE, 1, 1, 1),
    ]
    assert len({state.ref.id for state in listed}) == 4
    assert {state.ref.tenant for state in await ring.keyring.listing(tenant="southwind")} == {"southwind"}
    assert (await ring.keyring.status())[DE]["ok"] is True


async def test_two_first_documents_at_once_share_one_kek(ring: Ring) -> None:
    keyrings = [ring.keyring, ring.again(), ring.again()]
    made = await asyncio.gather(
        *(
            keyring.new_dek(
                route(Action.STORE),
                purpose="document",
                tenant="northwind",
                jurisdiction="DE",
                subject=number.to_bytes(16, "big"),
                version=1,
                tag_digest=TAG,
                site=DE,
            )
            for number in range(2)
            for keyring in keyrings
        )
    )
    assert await ring.count(kek) == 1
    assert len(await ring.again().open_deks(route(Action.OPEN), DE, [(each.dek_id, TAG) for each in made])) == 6


async def test_a_retagged_key_opens_for_the_new_tag_only(ring: Ring) -> None:
    made = await ring.new(1)
    sealed = made.seal(b"", b"text")
    await ring.keyring.open_dek(route(Action.OPEN), DE, made.dek_id, TAG)
    await ring.keyring.retag(route(Action.STORE), route(Action.OPEN), made.dek_id, old=TAG, new=OTHER)
    assert await ring.keyring.open_deks(route(Action.OPEN), DE, [(made.dek_id, TAG)]) == {}
    opened = await ring.keyring.open_dek(route(Action.OPEN), DE, made.dek_id, OTHER)
    assert opened.open(b"", sealed) == b"text"
    with pytest.raises(KeyringError):
        await ring.keyring.retag(route(Action.STORE), route(Action.OPEN), made.dek_id, old=TAG, new=OTHER)


async def test_messages_are_reserved_in_the_row_before_they_are_sealed(ring: Ring) -> None:
    made = await ring.new(1)
    opened = await ring.keyring.open_dek(route(Action.OPEN), DE, made.dek_id, TAG)

    async def seals() -> int:
        def read() -> int:
            with ring.database.reading() as connection:
                return int(connection.execute(sa.select(dek.c.seals)).scalar_one())

        return await ring.database.run(read)

    assert (made.left, await seals(), opened.left) == (SEAL_STEP, SEAL_STEP, 0)
    await ring.keyring.reserve(opened, 300)
    assert (opened.left, await seals()) == (300, SEAL_STEP + 300)
    await ring.keyring.reserve(opened, 200)
    assert await seals() == SEAL_STEP + 300
    for _ in range(301):
        opened.seal(b"", b"")
    assert await seals() > SEAL_STEP + 300
    # What is left goes over to the next opening and is not lost.
    left, before = opened.left, await seals()
    ring.keyring.empty()
    assert opened.left == 0
    again = await ring.keyring.open_dek(route(Action.OPEN), DE, made.dek_id, TAG)
    assert (again.left, await seals()) == (left, before)
    with pytest.raises(KeyringError):
        await ring.keyring.reserve(again, SEAL_LIMIT)


async def test_an_open_key_is_forgotten_after_a_minute(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await ring.new(1)
    await ring.keyring.open_dek(route(Action.OPEN), DE, made.dek_id, TAG)
    first = await _search(ring.keyring)
    opened = route(Action.OPEN)
    real = time.monotonic
    monkeypatch.setattr("residency.keyring.time", SimpleNamespace(monotonic=lambda: real() + 61))
    await ring.keyring.open_deks(opened, DE, [])
    assert not ring.keyring._open
    assert not ring.keyring._searching
    assert await _search(ring.keyring) is not first


async def test_the_cache_holds_no_more_than_its_bound(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("residency.keyring.CACHED", 3)
    wanted = [((await ring.new(number)).dek_id, TAG) for number in range(8)]
    assert len(await ring.keyring.open_deks(route(Action.OPEN), DE, wanted)) == 8
    assert len(ring.keyring._open) == 3


# --- rotation of KEKs -------------------------------------------------------------------------------------------------


async def test_a_rolled_kek_opens_until_it_is_rewrapped_and_then_only_the_new_one_does(ring: Ring) -> None:
    made = [await ring.new(number) for number in range(5)]
    sealed = made[0].seal(b"", b"text")
    wanted = [(each.dek_id, TAG) for each in made]
    old = await ring.database.run(_wrapped_bytes, ring.database)
    new = await ring.keyring.rotate(route(Action.STORE), tenant="northwind", jurisdiction="DE", site=DE)
    assert new.version == 2
    later = await ring.new(50)
    assert {s.ref.version: (s.state, s.left) for s in await ring.keyring.listing()} == {
        1: ("retiring", 5),
        2: ("active", 1),
    }
    assert len(await ring.keyring.open_deks(route(Action.OPEN), DE, [*wanted, (later.dek_id, TAG)])) == 6
    with pytest.raises(KeyringError):
        await ring.keyring.destroy(route(Action.ERASE), new.id, 1)
    # In two goes, as after an interruption.
    assert await ring.keyring.rewrap(route(Action.STORE), route(Action.OPEN), limit=2) == {
        "moved": 2,
        "left": 3,
        "refused": 0,
    }
    assert await ring.again().rewrap(route(Action.STORE), route(Action.OPEN)) == {"moved": 3, "left": 0, "refused": 0}
    await ring.keyring.destroy(route(Action.ERASE), new.id, 1)
    await ring.keyring.destroy(route(Action.ERASE), new.id, 1)
    states = {s.ref.version: s for s in await ring.keyring.listing()}
    assert (states[1].state, states[2].state, states[2].left) == ("destroyed", "active", 6)
    assert states[1].destroyed_at is not None
    opened = await ring.keyring.open_deks(route(Action.OPEN), DE, wanted)
    assert opened[made[0].dek_id].open(b"", sealed) == b"text"
    # An old copy of the database opens no more.
    for dek_id, wrapped in old.items():
        await ring.change(sa.update(dek_wrapped).where(dek_wrapped.c.dek_id == dek_id).values(wrapped=wrapped))
    await ring.change(sa.update(dek).values(kek_version=1))
    ring.keyring.empty()
    assert await ring.keyring.open_deks(route(Action.OPEN), DE, wanted) == {}


def _wrapped_bytes(database: Database) -> dict[bytes, bytes]:
    with database.reading() as connection:
        return {row.dek_id: row.wrapped for row in connection.execute(sa.select(dek_wrapped))}


async def test_two_rewraps_and_a_retag_at_once_lose_no_key(ring: Ring) -> None:
    made = [await ring.new(number) for number in range(40)]
    await ring.keyring.rotate(route(Action.STORE), tenant="northwind", jurisdiction="DE", site=DE)
    one, two, three = ring.keyring, ring.again(), ring.again()
    await asyncio.gather(
        one.rewrap(route(Action.STORE), route(Action.OPEN)),
        two.rewrap(route(Action.STORE), route(Action.OPEN)),
        _stubborn_retag(three, made[7].dek_id),
    )
    await one.rewrap(route(Action.STORE), route(Action.OPEN))
    tags = {each.dek_id: TAG for each in made} | {made[7].dek_id: OTHER}
    assert len(await ring.again().open_deks(route(Action.OPEN), DE, list(tags.items()))) == 40
    assert {s.ref.version: (s.state, s.left) for s in await one.listing()} == {1: ("retired", 0), 2: ("active", 40)}


async def _stubborn_retag(keyring: Keyring, dek_id: bytes) -> None:
    for _ in range(20):
        try:
            return await keyring.retag(route(Action.STORE), route(Action.OPEN), dek_id, old=TAG, new=OTHER)
        except KeyRefusedError:
            raise
        except KeyringError:
            await asyncio.sleep(0)
    raise AssertionError("never came through")


async def test_a_key_that_does_not_open_stays_and_keeps_its_kek_alive(ring: Ring) -> None:
    made, bad = await ring.new(1), await ring.new(2)
    await ring.change(sa.update(dek).where(dek.c.id == bad.dek_id).values(tag_digest=OTHER))
    ref = await ring.keyring.rotate(route(Action.STORE), tenant="northwind", jurisdiction="DE", site=DE)
    result = await ring.keyring.rewrap(route(Action.STORE), route(Action.OPEN))
    assert result == {"moved": 1, "left": 1, "refused": 1}
    with pytest.raises(KeyringError):
        await ring.keyring.destroy(route(Action.ERASE), ref.id, 1)
    assert await ring.keyring.open_deks(route(Action.OPEN), DE, [(made.dek_id, TAG)])


async def test_a_destroyed_kek_ends_even_a_row_that_was_kept(ring: Ring) -> None:
    made = await ring.new(1)
    ref = (await ring.keyring.listing())[0].ref
    await ring.keys.destroy(route(Action.ERASE), ref)
    assert await ring.keyring.open_deks(route(Action.OPEN), DE, [(made.dek_id, TAG)]) == {}
    with pytest.raises(KeyringError):
        await ring.keyring.destroy(route(Action.ERASE), b"\x00" * 16, 1)
    with pytest.raises(KeyringError):
        await ring.keyring.destroy(route(Action.ERASE, tenant="southwind"), ref.id, 1)


# --- search keys ------------------------------------------------------------------------------------------------------


async def _search(keyring: Keyring, *, create: bool = True, site: str = DE, **changed: Any) -> Any:
    facts: dict[str, Any] = {"tenant": "northwind", "jurisdiction": "DE", "site": site, "dimension": 16} | changed
    tenant = facts["tenant"]
    store = route(Action.STORE, site, tenant) if create else False
    return await keyring.search_keys(route(Action.OPEN, site, tenant), create=store, **facts)


async def test_search_keys_are_made_once_and_open_elsewhere(ring: Ring) -> None:
    assert await _search(ring.keyring, create=False) is None
    made = await _search(ring.keyring)
    opened = await _search(ring.again(), create=False)
    assert (made.epoch, made.owner) == (opened.epoch, opened.owner) == (1, made.owner)
    assert (made.rotation.matrix == opened.rotation.matrix).all()
    assert made.lexicon.token("vertrag") == opened.lexicon.token("vertrag")
    assert made.point_id("10" * 16, 1, 0) == opened.point_id("10" * 16, 1, 0)
    assert made.group("staff") == opened.group("staff") != made.group("board")
    vector = np.eye(16, dtype=np.float32)[0]
    assert np.allclose(opened.rotation.unrotate(made.rotate(vector)), vector, atol=1e-6)
    assert "Lexicon" not in repr(made)


async def test_search_keys_differ_by_tenant_jurisdiction_and_site(ring: Ring) -> None:
    made = [
        await _search(ring.keyring),
        await _search(ring.keyring, tenant="southwind"),
        await _search(ring.keyring, jurisdiction="FR"),
        await _search(ring.keyring, site=CH),
    ]
    assert len({each.owner for each in made}) == 4
    assert len({each.lexicon.token("vertrag") for each in made}) == 4
    assert len({each.rotation.encoded() for each in made}) == 4


async def test_search_keys_stay_warm_and_the_row_decides(ring: Ring) -> None:
    await _search(ring.keyring)
    ring.keys.calls.clear()
    first = await _search(ring.keyring, create=False)
    assert await _search(ring.keyring, create=False) is first
    assert not ring.keys.calls
    vectors = await ring.database.run(_vectors_dek, ring.database)
    await ring.change(sa.update(dek).where(dek.c.id == vectors).values(state="shredded"))
    with pytest.raises(KeyringError):
        await _search(ring.keyring, create=False)


def _vectors_dek(database: Database) -> bytes:
    with database.reading() as connection:
        return bytes(connection.execute(sa.select(search_keyset.c.vectors_dek)).scalar_one())


async def test_search_keys_made_twice_at_once_are_one(ring: Ring) -> None:
    made = await asyncio.gather(*(_search(keyring) for keyring in (ring.keyring, ring.again(), ring.again())))
    assert len({each.owner for each in made}) == 1
    assert (await ring.count(search_keyset), await ring.count(dek)) == (1, 3)


async def test_search_keys_survive_a_rolled_kek(ring: Ring) -> None:
    made = await _search(ring.keyring)
    await ring.keyring.rotate(route(Action.STORE), tenant="northwind", jurisdiction="DE", site=DE)
    assert (await ring.keyring.rewrap(route(Action.STORE), route(Action.OPEN), limit=1))["moved"] == 1
    assert (await _search(ring.again(), create=False)).owner == made.owner
    assert (await ring.keyring.rewrap(route(Action.STORE), route(Action.OPEN)))["left"] == 0
    assert (await _search(ring.again(), create=False)).owner == made.owner


async def test_a_damaged_matrix_or_another_width_is_refused(ring: Ring) -> None:
    await _search(ring.keyring)
    with pytest.raises(KeyringError, match="width"):
        await _search(ring.keyring, dimension=32)
    await ring.change(sa.update(search_keyset).values(matrix_digest=bytes(32)))
    with pytest.raises(SealedError):
        await _search(ring.again(), create=False)
    with pytest.raises(RouteError):
        await ring.keyring.search_keys(
            route(Action.STORE), tenant="northwind", jurisdiction="DE", site=DE, dimension=16
        )


# --- MACs and rest ----------------------------------------------------------------------------------------------------


async def test_macs_know_a_name_and_bytes_again_within_one_tenant(ring: Ring) -> None:
    mac, elsewhere = ring.keyring.name_mac, ring.again()
    assert mac("northwind", "aa" * 16, "a.pdf") == elsewhere.name_mac("northwind", "aa" * 16, "a.pdf")
    others = {mac("southwind", "aa" * 16, "a.pdf"), mac("northwind", "bb" * 16, "a.pdf")}
    others |= {mac("northwind", "aa" * 16, "b.pdf")}
    assert len(others | {mac("northwind", "aa" * 16, "a.pdf")}) == 4
    whole, parts = ring.keyring.content_mac("northwind"), elsewhere.content_mac("northwind")
    whole.update(b"abc")
    parts.update(b"a")
    parts.update(b"bc")
    assert whole.digest() == parts.digest()
    assert whole.digest() != ring.keyring.content_mac("southwind").digest()
    with pytest.raises(KeyringError):
        Keyring(ring.database, {}).name_mac("northwind", "aa" * 16, "a.pdf")


async def test_no_key_lies_in_clear_in_the_database(ring: Ring, tmp_path: Path) -> None:
    await ring.new(1)
    made = await _search(ring.keyring)
    rows = await ring.database.run(_wrapped_bytes, ring.database)
    assert all(len(wrapped) == 60 for wrapped in rows.values())
    if ring.database.sqlite:
        ring.database.checkpoint()
        raw = (tmp_path / "domicile.sqlite").read_bytes()
        assert made.rotation.encoded()[:64] not in raw
        assert made._tags not in raw
