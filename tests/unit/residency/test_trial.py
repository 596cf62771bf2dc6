from functools import partial

import pytest

from residency import impact, product
from residency.errors import PolicyError, SiteError, ZoneError
from residency.fleet import Fleet
from residency.rulebook import Rulebook
from residency.trial import consequence, examine
from tests.doubles.rules import NOON, POLICIES, fleet, policy, tag, zones

SHIPPED = Rulebook.read(POLICIES)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(impact, "product", partial(product.product, limit=4))


def changed(old: str, new: str, file: str = "residency.cedar") -> Rulebook:
    text = SHIPPED.files[file].decode()
    assert old in text
    return Rulebook({**SHIPPED.files, file: text.replace(old, new).encode()})


def test_the_shipped_folder_passes_in_a_fleet_of_one_site() -> None:
    made = examine(SHIPPED, Fleet.single("FR", "FR", zones()), tenants=["default"], now=NOON)
    assert made.good, made.problems
    assert made.cases > 200


def test_everything_wrong_is_listed_at_once() -> None:
    made = examine(changed('@law("GDPR 17")\n', "").__class__(
        {**changed('@law("GDPR 17")\n', "").files,
         "own.cedar": b'@id("permit-all") @law("x") @explain("x") permit (principal, action, resource);'}
    ), Fleet.single("FR", "FR", zones()), now=NOON)  # fmt: skip
    assert not made.good
    text = "\n".join(made.problems)
    for words in ("no @law", "cases/residency.toml: 16 ", "invariant “inside the residency” broken by"):
        assert words in text
    assert len(made.problems) == len(set(made.problems))


@pytest.mark.parametrize(
    ("book", "error", "says"),
    [
        (changed('within = "EEA"\nfrom = 1994-01-01\nsource = "EEA Agreement"\n', 'within = "DE"\nfrom = 1994-01-01\n'
                 'source = "EEA Agreement"\n', "zones.toml"), ZoneError, "lie within itself"),
        (changed('zone = "CH"', 'zone = "XK"', "zones.toml"), ZoneError, "CH is no known Zone"),
        (changed("resource.bound", "resource.colour"), PolicyError, "do not validate"),
        (Rulebook({"README.md": b"x"}), PolicyError, "zones.toml is missing"),
    ],
)  # fmt: skip
def test_what_cannot_stand_at_all_raises_with_its_cause(book: Rulebook, error: type[Exception], says: str) -> None:
    with pytest.raises((error, SiteError), match=says) as caught:
        examine(book, fleet(), now=NOON)
    assert caught.value.hint


def test_consequences_are_counted_by_documents_and_each_document_once() -> None:
    rows = {
        "shop": [{**tag("EU", jurisdictions=["DE"], categories=["health"]).facts(), "site": "fra", "documents": 40}],
        "bank": [],
    }
    book = changed('unless { resource in Domicile::Zone::"DE" };', 'unless { resource in Domicile::Zone::"EU" };')
    made = examine(book, fleet(), now=NOON, rows=rows)
    found = consequence(
        policy(), zones(), made.policy, made.zones, fleet(), rows=rows, now=NOON,
        ceilings={"shop": frozenset({"EEA"}), "bank": frozenset({"DE"})},
    )  # fmt: skip
    assert found.widens
    assert found.documents(permitted=True) == 40
    assert found.documents(permitted=True, tenant="bank") == 0
    assert found.documents(permitted=False) == 0
    assert found.facts("shop")["documents_newly_permitted"] == 40
