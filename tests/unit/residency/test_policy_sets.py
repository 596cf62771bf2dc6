"""Every slip in every policy file is noticed, by a worked case or an invariant; what survives is named and excused."""

from functools import cache

import cedarpy
import pytest

from residency.cases import run_cases
from residency.errors import PolicyError
from residency.impact import check
from residency.policy import PolicySet
from residency.product import product
from residency.rulebook import Rulebook
from tests.doubles.mutants import mutants
from tests.doubles.rules import NOON, POLICIES, fleet, policy, tag, zones

BOOK = Rulebook.read(POLICIES)
TWICE = "said twice on purpose: a permit repeats what a forbid says, see test_cases"
SAME_INSTANT = "differs at one millisecond only"
EXCUSED = {
    "permit-in-residency: left of and alone": TWICE,
    "permit-in-residency: less shifted": SAME_INSTANT,
    "permit-transfer-with-basis: left of and alone": TWICE,
    "permit-transfer-with-basis: less shifted": SAME_INSTANT,
    "permit-erase: condition 0 gone": TWICE,
    "forbid-stale-evidence: less shifted": SAME_INSTANT,
}


def alone(set_: str) -> Rulebook:
    """Give the shipped folder with the cases of one set, or of the base, alone."""
    wanted = {set_} if set_ else {"residency", "residency-abroad"}
    kept = {f"cases/{name}.toml" for name in (*wanted, "fleet", "places", "countries")}
    return Rulebook({name: raw for name, raw in BOOK.files.items() if not name.startswith("cases/") or name in kept})


def written(set_: str) -> str:
    return f"sets/{set_}.cedar" if set_ else "residency.cedar"


SAME_SHAPE = ("forbid-law-", "forbid-de-")
"""Of home-country's clauses, one for each country and all alike, those that are slipped in."""


def slips(set_: str) -> list[tuple[str, str]]:
    made = mutants(cedarpy.PolicySet.from_str(BOOK.files[written(set_)].decode()).to_pst())
    return [(what, text) for what, text in made if set_ != "home-country" or what.startswith(SAME_SHAPE)]


@cache
def over():
    few = (tag(), tag("DE"), tag("EEA", "US"), tag("EU", jurisdictions=["DE-BY"], categories=["health"]))
    return product(fleet(), zones(), policy().words, now=NOON, tags=few)


def noticed(set_: str, text: str) -> bool:
    book = Rulebook({**alone(set_).files, written(set_): text.encode()})
    try:
        if any(not result.passed for result in run_cases(book, zones=zones())):
            return True
    except PolicyError:  # it does not even load
        return True
    if set_:
        return False
    rules = PolicySet(book.rules(), zones())
    return bool(check(rules, zones(), fleet(), now=NOON, over=over()).violations)


@pytest.mark.slow
@pytest.mark.parametrize("set_", ["", *BOOK.offered])
def test_every_slip_in_a_policy_file_is_noticed(set_: str) -> None:
    made = slips(set_)
    survivors = [what for what, text in made if not noticed(set_, text)]
    assert len(made) >= 4
    assert [what for what in survivors if what not in EXCUSED] == []


def test_a_file_as_it_is_passes() -> None:
    for set_ in ("", *BOOK.offered):
        assert not noticed(set_, BOOK.files[written(set_)].decode())


def test_every_set_only_forbids() -> None:
    """A ready-made set may be switched on by one officer alone: it can take away, and never give."""
    for set_ in BOOK.offered:
        rules = cedarpy.PolicySet.from_str(BOOK.files[written(set_)].decode()).to_pst()
        assert {rule.effect for rule in rules.static_policies.values()} == {"forbid"}


def test_all_sets_together_load_and_still_permit_something() -> None:
    rules = PolicySet(BOOK.rules(BOOK.offered), zones())
    found = check(rules, zones(), fleet(), now=NOON, over=over())
    assert found.violations == ()
    assert found.permitted > 0


def test_home_country_has_one_clause_of_the_same_shape_for_each_country_of_the_eea() -> None:
    text = BOOK.files["sets/home-country.cedar"].decode()
    codes = {code for code in zones().codes if zones().kind(code) == "place" and "-" not in code}
    eea = {code for code in codes if zones().within(code, "EEA")} - {"AX", "GF", "GP", "MF", "MQ", "RE", "YT"}
    assert len(eea) == 30
    for code in eea | {"CH", "GB"}:
        zone = f'Domicile::Zone::"{code}"'
        shape = f"when {{ context.tag.jurisdictions.contains({zone}) }} unless {{ resource in {zone} }};"
        begin = text.index(f'@id("forbid-{code.lower()}-outside-home")')
        assert text.index(shape, begin) - begin < 300
    assert text.count("@id(") == len(eea) + 3
