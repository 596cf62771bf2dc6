import dataclasses
from datetime import timedelta

import pytest

from residency.decision import Basis, Principal
from residency.errors import PolicyError
from residency.fleet import Fleet
from residency.policy import SCHEMA, PolicySet, World
from residency.route import Action
from tests.doubles.rules import NOON, POLICIES, SHOP, amended, ask, fleet, policy, tag, zones

CEILINGS = {"shop": frozenset({"GDPR-ADEQUATE"}), "bank": frozenset({"DE"})}


def world(over: Fleet | None = None) -> World:
    return policy().world(zones(), over or fleet(), NOON)


def loaded(text: str) -> PolicySet:
    return PolicySet({SCHEMA: policy().files[SCHEMA], "own.cedar": text.encode()}, zones())


RULE = '@id("{id}") @explain("{explain}") permit (principal, action, resource) when {{ {when} }};'


def rule(id: str = "permit-all-of-it", explain: str = "for a test", when: str = "context.tag.personal") -> str:  # noqa: A002
    return RULE.format(id=id, explain=explain, when=when)


# --- loading ---------------------------------------------------------------------------------------------------------


def test_the_shipped_set_holds_ten_policies_each_with_its_law_and_a_sentence() -> None:
    assert len(policy().clauses) == 10
    assert all(clause.law and clause.explain for clause in policy().clauses.values())


def test_the_two_rules_that_the_readme_offers_load_beside_the_shipped_ones() -> None:
    readme = (POLICIES / "README.md").read_text()
    offered = readme[readme.index("Two rules an operator may want to add") :].split("```")[1]
    more = PolicySet({**policy().files, "own.cedar": offered.encode()}, zones())
    assert len(more.clauses) == 12


def test_the_digest_covers_names_bytes_and_schema() -> None:
    files = policy().files
    renamed = {"other.cedar": files["residency.cedar"], SCHEMA: files[SCHEMA]}
    commented = {**files, SCHEMA: files[SCHEMA] + b"// seen\n"}
    digests = {policy().digest, PolicySet(renamed, zones()).digest, PolicySet(commented, zones()).digest}
    assert len(digests) == 3
    assert PolicySet.load(POLICIES, zones()).digest == policy().digest


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("permit (principal, action", "own.cedar does not parse"),
        ("permit (principal, action, resource);", "needs an @id"),
        (rule() + rule(), "needs an @id of its own"),
        (rule(id="Not A Slug"), "needs an @id"),
        (rule(explain=" "), "needs an @explain"),
        (rule(when="context.tag.colour"), "do not validate"),
        (rule(when='context.basis.article == "45"'), "do not validate"),
        (rule(when='resource in Domicile::Zone::"Germny"'), "unknown Zone Germny"),
        (rule(when='context.tag.residency.contains(Domicile::Zone::"UK")'), "unknown Zone UK"),
        (rule().replace("permit (principal,", "permit (principal == ?principal,"), "template"),
        (rule().replace("action,", 'action == Domicile::Action::"fax",'), "validate"),
    ],
)
def test_a_set_that_is_not_whole_is_refused(text: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        loaded(text)


def test_one_broken_file_refuses_the_whole_set() -> None:
    with pytest.raises(PolicyError, match=r"own\.cedar"):
        PolicySet({**policy().files, "own.cedar": b"forbid (principal"}, zones())


@pytest.mark.parametrize("schema", [b"entity Zone", b"\xff"])
def test_a_broken_schema_is_refused(schema: bytes) -> None:
    with pytest.raises(PolicyError):
        PolicySet({**policy().files, SCHEMA: schema}, zones())


def test_a_folder_without_a_schema_is_refused(tmp_path) -> None:
    (tmp_path / "own.cedar").write_text(rule())
    with pytest.raises(PolicyError, match=SCHEMA):
        PolicySet.load(tmp_path, zones())


def test_dropping_a_policy_leaves_the_others_as_they_were() -> None:
    left = policy().without(["permit-erase"], zones())
    assert left.clauses == {name: clause for name, clause in policy().clauses.items() if name != "permit-erase"}


# --- one test for each way in which Cedar surprises ------------------------------------------------------------------


def test_an_allow_with_errors_is_a_fault() -> None:
    """A principal without an entity: every forbid that reads it errors and is skipped."""
    open_to_all = PolicySet({**policy().files, "own.cedar": rule(when="true").encode()}, zones())
    with pytest.raises(PolicyError, match="no ruling"):
        open_to_all.rule(world(), ask(), tag(), NOON)


def test_a_principal_whose_tenant_is_missing_is_a_fault() -> None:
    admitted = world().admitting(SHOP, {})
    with pytest.raises(PolicyError, match="no ruling"):
        policy().rule(admitted, ask(), tag(), NOON)


def test_a_site_that_cedar_does_not_know_is_a_fault() -> None:
    admitted = world().admitting(SHOP, CEILINGS)
    with pytest.raises(PolicyError):
        policy().rule(admitted, ask(site="nowhere"), tag(), NOON)


def test_erasing_at_a_site_that_cedar_does_not_know_is_allowed_which_is_why_the_engine_asks_the_fleet_first() -> None:
    admitted = world().admitting(SHOP, CEILINGS)
    assert policy().rule(admitted, ask(Action.ERASE, "nowhere"), tag(), NOON).allowed


def test_an_unknown_residency_is_refused_in_silence_which_is_why_the_engine_checks_codes_first() -> None:
    admitted = world().admitting(SHOP, CEILINGS)
    ruling = policy().rule(admitted, ask(), dataclasses.replace(tag(), residency=frozenset({"XX"})), NOON)
    assert (ruling.allowed, ruling.policies) == (False, ())


def test_a_default_deny_names_no_policy() -> None:
    admitted = world().admitting(SHOP, CEILINGS)
    ruling = policy().rule(admitted, ask(site="zrh"), tag(), NOON)
    assert (ruling.allowed, ruling.policies) == (False, ())


def test_text_in_an_ask_cannot_write_policy() -> None:
    evil = Principal('x"}; permit (principal, action, resource); //', "shop", frozenset({'search", "profiling'}))
    admitted = world().admitting(evil, CEILINGS)
    ruling = policy().rule(admitted, ask(principal=evil, activity='s"] }'), tag(categories=['"}{']), NOON)
    assert ruling.policies == ("forbid-unregistered-activity",)


def test_a_principal_cannot_bring_facts_about_a_site_or_a_tenant_twice() -> None:
    admitted = world().admitting(SHOP, CEILINGS)
    with pytest.raises(PolicyError):
        admitted.admitting(dataclasses.replace(SHOP, tenant="bank"), {"shop": frozenset({"US"})})


def test_instants_reach_cedar_to_the_millisecond_in_any_time_zone() -> None:
    admitted = world().admitting(SHOP, CEILINGS)
    basis = Basis("45", "Decision 2000/518/EC", NOON.astimezone())
    before = ask(Action.TRANSFER, "zrh", basis=basis)
    assert policy().rule(admitted, before, tag(), NOON - timedelta(milliseconds=1)).allowed
    assert not policy().rule(admitted, before, tag(), NOON).allowed


def test_the_law_of_a_land_is_the_law_of_its_country() -> None:
    """Cedar knows no hierarchy inside a set of Zones, so jurisdictions are given with all that lies above them."""
    admitted = world().admitting(SHOP, CEILINGS)
    ruling = policy().rule(admitted, ask(), tag(jurisdictions=["DE-BY"], categories=["health"]), NOON)
    assert ruling.policies == ("forbid-health-de-outside-de",)


def test_a_site_whose_memberships_have_all_ended_stands_nowhere() -> None:
    strange = dataclasses.replace(fleet().site("par"), id="odd", zone_until={"FR": NOON.date() - timedelta(days=1)})
    nowhere = world(Fleet([strange])).admitting(SHOP, CEILINGS)
    assert not policy().rule(nowhere, ask(site="odd"), tag(), NOON).allowed


def test_a_forbid_written_the_wrong_way_round_is_what_the_shipped_ones_avoid() -> None:
    """`when in a bad Zone` lets through what nobody thought of; `unless in an allowed Zone` does not."""
    wrong = amended('unless { resource in Domicile::Zone::"EEA" }', 'when { resource in Domicile::Zone::"US" }')
    admitted = world().admitting(SHOP, CEILINGS)
    question = ask(Action.EMBED, "zrh")
    assert wrong.rule(admitted, question, tag("GDPR-ADEQUATE"), NOON).allowed
    assert not policy().rule(admitted, question, tag("GDPR-ADEQUATE"), NOON).allowed


# --- tenants' own clauses ---------------------------------------------------------------------------------------------

OWN = """
@id("forbid-shop-abroad") @explain("x") forbid (principal is Domicile::Principal, action, resource)
when { principal.tenant == Domicile::Tenant::"shop" && context.tag.personal }
unless { resource in Domicile::Zone::"FR" };
@id("forbid-bank-abroad") @explain("x") forbid (principal is Domicile::Principal, action, resource)
when { principal.tenant == Domicile::Tenant::"bank" } unless { resource in Domicile::Zone::"DE-BY" };
@id("forbid-late") @explain("x") forbid (principal is Domicile::Principal, action, resource)
when { context.tag.personal && principal.tenant == Domicile::Tenant::"bank" } unless { resource.grade >= 1 };
@id("forbid-else") @explain("x") forbid (principal is Domicile::Principal, action, resource)
when { principal.tenant == Domicile::Tenant::"bank" || context.tag.classification > 2 } unless { resource.grade >= 1 };
"""


def test_leaving_out_other_tenants_clauses_changes_no_ruling(monkeypatch) -> None:
    files = {**policy().files, "own.cedar": OWN.encode()}
    sliced = PolicySet(files, zones())
    monkeypatch.setattr("residency.policy._bound_to", lambda _rule: "")
    whole = PolicySet(files, zones())
    ceilings = {name: frozenset({"GDPR-ADEQUATE"}) for name in ("shop", "bank", "harbour")}
    seen = set()
    for name in ceilings:
        who = Principal(name, name)
        admitted = world().admitting(who, ceilings)
        for site in fleet().sites:
            for level in (1, 3):
                asked = ask(Action.SEARCH, site, principal=who), tag("GDPR-ADEQUATE", classification=level)
                ruling = sliced.rule(admitted, *asked, NOON)
                assert ruling == whole.rule(admitted, *asked, NOON)
                seen.update(ruling.policies)
    assert {"forbid-shop-abroad", "forbid-bank-abroad", "permit-in-residency"} <= seen
    assert len(sliced._slices) == 3
    assert whole._slices == {}


def test_a_clause_that_errors_in_a_slice_is_named() -> None:
    own = (
        '@id("forbid-large") @explain("x") forbid (principal is Domicile::Principal, action, resource) when { '
        'principal.tenant == Domicile::Tenant::"shop" && context.tag.classification * 9223372036854775807 > 3 };'
    )
    rules = PolicySet({"a.cedar": b"", **policy().files, "own.cedar": own.encode()}, zones())
    with pytest.raises(PolicyError, match="forbid-large"):
        rules.rule(world().admitting(SHOP, CEILINGS), ask(), tag(classification=3), NOON)
