"""Which addresses the house declares to its tripwire."""

from pathlib import Path

import pytest

from residency.egress import UndeclaredError
from residency.fleet import Fleet
from residency.zones import Zones
from service.bootstrap import tripwire
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
