"""Each thing the lint looks for, found and not found; the shipped rules and sets are clean."""

import pytest

from residency.errors import PolicyError
from residency.fleet import Fleet
from residency.lint import lint
from residency.policy import SCHEMA, PolicySet
from residency.rulebook import Rulebook
from tests.doubles.rules import NOON, POLICIES, fleet, policy, zones

HEAD = '@id("{id}") @law("a law") @explain("for a test") '
GOVERNED = 'principal, action in Domicile::Action::"governed", resource'


def forbid(rest: str, scope: str = GOVERNED, id: str = "forbid-own") -> str:  # noqa: A002
    return HEAD.format(id=id) + f"forbid ({scope}) {rest};"


def found(text: str, tenants: list[str] | None = None, over: Fleet | None = None) -> list[str]:
    rules = PolicySet({**policy().files, "own.cedar": text.encode()}, zones())
    return [str(finding) for finding in lint(rules, zones(), over or fleet(), tenants=tenants, now=NOON)]


def test_the_shipped_rules_have_nothing_to_find_in_any_fleet() -> None:
    assert lint(policy(), zones(), fleet(), tenants=[], now=NOON) == []
    assert lint(policy(), zones(), Fleet.single("DE", "DE", zones()), tenants=[], now=NOON) == []


@pytest.mark.parametrize("name", Rulebook.read(POLICIES).offered)
def test_a_ready_made_set_has_nothing_to_find(name: str) -> None:
    rules = PolicySet(Rulebook.read(POLICIES).rules([name]), zones())
    assert lint(rules, zones(), Fleet.single("FR", "FR", zones()), tenants=[], now=NOON) == []


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_tenant_that_nobody_made_is_found_and_the_nearest_named() -> None:
    text = forbid('when { principal.tenant == Domicile::Tenant::"shp" } unless { resource in Domicile::Zone::"DE" }')
    [line] = found(text, tenants=["shop", "bank"])
    assert line.startswith("own.cedar:1: forbid-own: it names the tenant shp")
    assert line.endswith("did you mean shop?")
    assert found(text, tenants=["shp"]) == []
    assert found(text, tenants=None) == []


def test_a_site_that_the_fleet_does_not_hold_is_found() -> None:
    text = forbid("unless { resource.grade >= 3 }", scope=f'{GOVERNED} == Domicile::Site::"pr"')
    lines = found(text)
    assert "names the Site pr" in lines[0]
    assert "did you mean par?" in lines[0]


def test_a_missing_law_is_found() -> None:
    [line] = found(forbid('unless { resource in Domicile::Zone::"GDPR-ADEQUATE" }').replace('@law("a law")', ""))
    assert "no @law" in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (forbid('unless { resource in Domicile::Zone::"EUU" }'), r"own.cedar:1: policy forbid-own names .* Zone EUU"),
        (forbid("unless { resource.bound }") + "\n\n" + forbid("unless { false }"), r"own.cedar:3: .* own.cedar:1"),
        ("// one\n\n" + forbid("when { context.tag. }"), r"does not parse: the clause at line 3 \(forbid-own\)"),
        (forbid("") + "\n" + forbid("unless { !!! }", id="forbid-two"), r"line 2 \(forbid-two\)"),
        (forbid("when { context.tag.colour }"), r"own.cedar:1 .*policy forbid-own.*tag.colour"),
        (
            forbid("", scope='principal, action == Domicile::Action::"fax", resource'),
            r"own.cedar:1 .*unrecognized action",
        ),
    ],
)
def test_what_does_not_even_load_is_named_by_file_line_and_clause(text: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says) as caught:
        PolicySet({SCHEMA: policy().files[SCHEMA], "own.cedar": text.encode()}, zones())
    assert caught.value.hint


# --- the unsafe way round ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rest",
    [
        'when { resource in Domicile::Zone::"US" }',
        'when { context.tag.personal && resource in Domicile::Zone::"US" }',
        'when { resource in [Domicile::Zone::"US", Domicile::Zone::"CN"] }',
        'when { resource.operator in Domicile::Zone::"US" }',
        'when { resource.parent == Domicile::Zone::"US" }',
        'unless { !(resource in Domicile::Zone::"US") }',
        'unless { resource.operator != Domicile::Zone::"US" }',
        'when { if context.tag.personal then resource in Domicile::Zone::"US" else false }',
        'when { [Domicile::Zone::"US"].contains(resource.operator) }',
        "when { resource in context.tag.jurisdictions }",
    ],
)
def test_a_forbid_that_names_bad_places_is_found(rest: str) -> None:
    lines = found(forbid(rest))
    assert any("lets through every place that nobody thought of" in line for line in lines), lines


def test_a_forbid_whose_head_names_a_bad_place_is_found() -> None:
    assert "lets through" in found(forbid("", scope=f'{GOVERNED} in Domicile::Zone::"US"'))[0]


@pytest.mark.parametrize(
    "rest",
    [
        'unless { resource in Domicile::Zone::"EEA" }',
        'when { !(resource in Domicile::Zone::"EEA") }',
        'unless { resource in Domicile::Zone::"EEA" || resource.grade >= 5 }',
        'when { context.tag.jurisdictions.contains(Domicile::Zone::"FR") } unless { resource in Domicile::Zone::"FR" }',
        "unless { resource in context.tag.residency }",
        'when { resource.operator != Domicile::Zone::"DE" }',
    ],
)
def test_a_forbid_that_names_good_places_is_not(rest: str) -> None:
    assert found(forbid(rest)) == []


# --- clauses that never apply -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("when { false }", "constant"),
        ("when { context.tag.personal && false }", "constant"),
        ("unless { true || resource.bound }", "constant"),
        ("when { context.tag.classification > 4 }", "can never apply"),
        ("when { resource.grade > 6 }", "can never apply"),
        ("when { context.tag.personal && !context.tag.personal }", "can never apply"),
        ('when { context.tag.categories.contains("a") && !context.tag.categories.contains("a") }', "can never apply"),
        ('unless { resource in Domicile::Zone::"EEA" || !(resource in Domicile::Zone::"EEA") }', "can never apply"),
    ],
)
def test_a_clause_that_no_ask_satisfies_is_found(rest: str, says: str) -> None:
    assert any(says in line for line in found(forbid(rest)))


@pytest.mark.parametrize(
    "rest",
    [
        "when { context.tag.classification == 4 } unless { resource.grade >= 6 }",
        'when { context.tag.categories.contains("union") } unless { resource in Domicile::Zone::"PT" }',
        'when { context.activity == "payroll" } unless { resource in Domicile::Zone::"AT" }',
        'when { context has basis && context.basis.article == "45" } unless { resource in Domicile::Zone::"JP" }',
        'when { principal.tenant == Domicile::Tenant::"shop" } unless { resource in Domicile::Zone::"DE" }',
        'when { principal == Domicile::Principal::"key:7" } unless { resource in Domicile::Zone::"DE" }',
    ],
)
def test_a_clause_about_something_rare_is_alive(rest: str) -> None:
    assert found(forbid(rest), tenants=["shop"]) == []
