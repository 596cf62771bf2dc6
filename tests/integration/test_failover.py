"""A Site that is down is named in the answer, and nothing takes its place: neither its neighbour nor silence.

Searches run through the real Searching, over Edge children, a Qdrant double and TLS, with one of three Sites failing.
"""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from residency.errors import KeyringError, SiteError
from residency.outlets.shards.remote import RemoteShard
from residency.outlets.tls import trust
from residency.ports import Shard
from residency.route import Action
from service.certifying import certify
from service.searching import Results, Search, Searching
from tests.doubles.ingesting import APP, FLEET, HashEmbedder, Ingesting, ingesting, site
from tests.doubles.looking import live
from tests.doubles.qdrant_http import QdrantDouble, serving
from tests.doubles.tls_counting import counting, server

GERMAN = b"The German notice period is six weeks to the end of a quarter."
FRENCH = b"The French notice period is three months without a quarter."
ASKED = Search("notice period quarter", top_k=5)
SITES = FLEET.replace(site("iad", "US", "US"), site("zrh", "CH", "CH"))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Ingesting]:
    async with ingesting(tmp_path, fleet=SITES) as opened:
        await live(opened, "german.txt", GERMAN, jurisdictions=frozenset({"DE"}), residency=frozenset({"DE"}))
        await live(opened, "french.txt", FRENCH, jurisdictions=frozenset({"FR"}), residency=frozenset({"FR"}))
        yield opened


def searching(house: Ingesting, *, deadline: float = 5.0, shards: dict[str, Shard] | None = None) -> Searching:
    return Searching(
        engine=house.engine, documents=house.documents, keyring=house.keyring, ledger=house.ledger,
        shards={**house.shards, **(shards or {})},
        embedders={name: HashEmbedder(name) for name in house.engine.fleet.sites}, deadline=deadline,
    )  # fmt: skip


async def asked(house: Ingesting, search: Searching) -> tuple[set[str], tuple[str, ...], int]:
    """Ask; give the Sites that answered, those named as not reached, and how much was withheld."""
    found = await search.search(APP, ASKED)
    assert isinstance(found, Results)
    receipt = house.ledger.bundle("northwind", found.receipt)
    assert receipt is not None
    touched = {step["site"] for step in receipt["receipt"]["steps"] if step["action"] == Action.SEARCH}
    findings = found.findings
    assert touched <= {"fra", "par"}
    return {passage.site for passage in findings.passages}, findings.unreached, findings.withheld


async def test_with_all_sites_up_both_answer(house: Ingesting) -> None:
    assert await asked(house, searching(house)) == ({"fra", "par"}, (), 0)


async def test_a_site_whose_child_died_for_good_is_named_and_the_other_answers(house: Ingesting) -> None:
    shard = house.shards["par"]
    closed = asyncio.Event()

    def lost(name: str, cause: str) -> None:
        house.engine.fleet.close(name, cause)
        closed.set()

    shard._child._on_closed = lost
    killed = set[int]()
    async with asyncio.timeout(30):
        while not closed.is_set():
            child = shard._child._child
            if child is not None and child.returncode is None and child.pid not in killed:
                killed.add(child.pid)
                os.kill(child.pid, signal.SIGKILL)
            await asyncio.sleep(0.01)
    assert "died 3 times" in house.engine.closed("par")
    assert await asked(house, searching(house)) == ({"fra"}, ("par",), 0)


async def test_a_child_that_was_killed_once_comes_back_and_answers(house: Ingesting) -> None:
    os.kill(int((await house.shards["par"].probe())["pid"]), signal.SIGKILL)
    assert await asked(house, searching(house)) == ({"fra", "par"}, (), 0)


@contextmanager
def hanging() -> Iterator[QdrantDouble]:
    """A Qdrant that takes calls and answers none until the end."""
    released = threading.Event()

    class Hanging(QdrantDouble):
        def answer(self, seen: object) -> object:
            released.wait(20)
            raise ConnectionAbortedError

    double = Hanging()
    with serving(double):
        try:
            yield double
        finally:
            released.set()


@pytest.mark.enable_socket
async def test_a_server_that_hangs_is_named_when_the_time_is_up(house: Ingesting) -> None:
    with hanging() as double:
        shard = RemoteShard("par", double.url, api_key="key", ssl_context=None, collection="c", dimension=384)
        answer = await asked(house, searching(house, deadline=1.0, shards={"par": shard}))
        await shard.aclose()
    assert answer == ({"fra"}, ("par",), 0)


@pytest.mark.enable_socket
async def test_a_server_with_another_zones_certificate_is_named_and_gets_no_byte(
    house: Ingesting, tmp_path: Path
) -> None:
    certify(
        house.engine.fleet, tmp_path / "tls", sites=["par", "zrh"], hosts=[("par", "127.0.0.1"), ("zrh", "127.0.0.1")]
    )
    swiss = tmp_path / "tls" / "ch"
    with counting(server(swiss / "zrh.pem", swiss / "zrh.key")) as seen:
        context = trust(tmp_path / "tls" / "fr" / "root.pem")
        shard = RemoteShard("par", seen.url, api_key="key", ssl_context=context, collection="c", dimension=384)
        answer = await asked(house, searching(house, shards={"par": shard}))
        await shard.aclose()
    assert answer == ({"fra"}, ("par",), 0)
    assert seen.begun > 0 and seen.payload == 0


async def test_a_closed_site_is_named_and_not_counted_as_outside_the_permitted_zones(house: Ingesting) -> None:
    house.engine.fleet.close("par", "its certificate has expired")
    assert await asked(house, searching(house)) == ({"fra"}, ("par",), 0)
    house.engine.fleet.verify("par", bound=True, until=datetime.now(UTC) + timedelta(hours=1))
    assert await asked(house, searching(house)) == ({"fra", "par"}, (), 0)


async def test_a_site_whose_keys_are_away_is_named(house: Ingesting) -> None:
    class Away:
        site = "par"

        async def unwrap(self, *_: object) -> list[bytes]:
            raise KeyringError("the key provider does not answer", hint="try again")

    house.keyring.empty()
    house.keyring._keks._providers = {**house.keyring._keks._providers, "par": Away()}  # type: ignore[dict-item]
    assert await asked(house, searching(house)) == ({"fra"}, ("par",), 0)


async def test_when_no_permitted_site_answers_the_search_fails_and_names_them(house: Ingesting) -> None:
    for name in ("fra", "par"):
        house.engine.fleet.close(name, "away")
    house.engine.fleet.verify("zrh", bound=True, until=datetime.now(UTC) + timedelta(hours=1))
    found = await searching(house).search(APP, ASKED)
    assert not isinstance(found, Results)
    refusal, receipt = found
    assert receipt and refusal.policies == ("forbid-stale-evidence",)
    house.engine.fleet.verify("par", bound=True, until=datetime.now(UTC) + timedelta(hours=1))
    await house.shards["par"].aclose()
    with pytest.raises(SiteError, match=r"no permitted site answered \(fra, par\)"):
        await searching(house).search(APP, ASKED)
