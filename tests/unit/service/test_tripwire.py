"""Which addresses the house declares to its tripwire."""

import asyncio
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from residency.egress import UndeclaredError
from residency.fleet import Fleet
from residency.zones import Zones
from service.bootstrap import _own_loop, domicile
from service.errors import HomeError
from service.metering import REGISTRY, UNEXPECTED
from service.outfitting import tripwire
from service.settings import parse

POLICIES = Path(__file__).parents[3] / "policies"


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    zones = Zones.load(POLICIES / "zones.toml")
    text = """
[[site]]
id = "de-frankfurt"
zone = "DE"
operator = { name = "Example", zone = "DE" }
holds = [{ kind = "shard", url = "https://qdrant-de:6333" }]
"""
    return Fleet.parse(text, zones)


def test_the_name_of_the_database_may_be_looked_up_and_no_other(fleet: Fleet) -> None:
    made = tripwire(parse({"database": {"url": "postgresql+psycopg://domicile@postgres/domicile"}}), fleet)
    made.on_lookup("postgres")
    made.on_lookup("qdrant-de")
    with pytest.raises(UndeclaredError):
        made.on_lookup("telemetry.example")
    assert made.seen() == {("telemetry.example", 0): 1}


def test_without_a_database_server_its_name_is_as_foreign_as_any(fleet: Fleet) -> None:
    with pytest.raises(UndeclaredError):
        tripwire(parse({}), fleet).on_lookup("postgres")


def test_a_loop_on_which_nothing_is_seen_is_refused() -> None:
    foreign = type("Loop", (asyncio.SelectorEventLoop,), {"__module__": "uvloop.loop"})
    loop = foreign()
    try:
        with pytest.raises(HomeError, match="uvloop"):
            _own_loop(loop)
    finally:
        loop.close()


async def test_a_house_in_strict_mode_does_not_stand_on_another_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(asyncio.get_running_loop()), "__module__", "uvloop.loop")
    with pytest.raises(HomeError, match="uvloop"):
        async with domicile(parse({"home": str(tmp_path)})):
            pass
    with pytest.raises(HomeError, match="no Domicile home"):  # it gets further where nothing is refused
        async with domicile(parse({"home": str(tmp_path / "none"), "egress": {"refuse": False}})):
            pass


async def test_asyncios_own_loop_is_welcome() -> None:
    _own_loop(asyncio.get_running_loop())


def test_what_it_sees_is_a_metric(fleet: Fleet) -> None:
    before = UNEXPECTED._value.get()
    tripwire(parse({"egress": {"refuse": False}}), fleet).on_lookup("telemetry.example")
    assert UNEXPECTED._value.get() == before + 1
    assert b"domicile_unexpected_connects_total" in generate_latest(REGISTRY)
