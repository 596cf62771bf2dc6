import pytest

from residency.fleet import Fleet
from residency.impact import check, diff, held
from residency.invariants import ERASABLE, INVARIANTS, NO_FAULT
from residency.policy import PolicySet
from residency.product import Product, product
from residency.route import Action
from tests.doubles.rules import NOON, amended, fleet, policy, tag, zones

FEW = (
    tag(),
    tag("DE"),
    tag("EEA", "US"),
    tag("EU", jurisdictions=["DE-BY"], categories=["health"]),
    tag("GDPR-ADEQUATE", classification=3),
    tag("EEA", "US", personal=False),
)


def some() -> Product:
    """Give a product of few Tags: quick, and yet with every deviation."""
    return product(fleet(), zones(), policy().words, now=NOON, tags=FEW)


def broken(rules: PolicySet) -> set[str]:
    found = check(rules, zones(), fleet(), now=NOON, over=some())
    return {violation.invariant for violation in found.violations}


def test_every_ruling_of_the_shipped_rules_keeps_every_invariant() -> None:
    told: list[tuple[int, int]] = []
    found = check(policy(), zones(), fleet(), now=NOON, over=some(), progress=lambda *each: told.append(each))
    assert found.asked == some().size > 4_000
    assert found.permitted > 1_000
    assert found.violations == ()
    assert told[0] == (0, found.asked)
    assert told[-1] == (found.asked, found.asked)


def test_every_tag_meets_every_site_and_action() -> None:
    asked = {(q.tag, q.site.id, q.ask.action) for q in some().questions()}
    assert len(asked) == len(FEW) * len(some().sites) * len(Action)


def test_the_product_speaks_of_what_the_rules_name() -> None:
    own = (
        '@id("forbid-own") @explain("x") forbid (principal, action, resource) when { principal.tenant == '
        'Domicile::Tenant::"northwind" && context.tag.categories.contains("union") && context.tag.classification > 2 };'
    )
    rules = PolicySet({**policy().files, "own.cedar": own.encode()}, zones())
    made = product(fleet(), zones(), rules.words, now=NOON)
    assert "northwind" in made.ceilings
    assert any("union" in each.categories for each in made.tags)
    assert {each.classification for each in made.tags} == {1, 2, 3}


def test_tags_actually_held_are_asked_about_too() -> None:
    odd = tag("IS", jurisdictions=["IS"], categories=["whaling"])
    made = product(fleet(), zones(), policy().words, now=NOON, tags=FEW, held=[odd, FEW[0]])
    assert made.tags == (*FEW, odd)


@pytest.mark.parametrize(
    ("dropped", "old", "new", "invariant"),
    [
        ("", "resource in context.tag.residency && ", "", "inside the residency"),
        (
            "",
            'resource in Domicile::Zone::"GDPR-ADEQUATE" &&',
            "",
            "a transfer on a basis to an adequate Zone",
        ),
        ("forbid-plaintext-outside-eea", "", "", "personal data in the clear inside the EEA alone"),
        ("forbid-health-de-outside-de", "", "", "German health data in Germany"),
        ("", "principal.tenant == context.tenant", "true", "own tenant"),
        ("forbid-outside-tenant-ceiling", "", "", "inside the tenant's ceiling"),
        ("", "resource.bound && context.now < resource.verifiedUntil", "true", "nothing on stale evidence"),
        ("forbid-foreign-operator-for-secret", "", "", "class 3 under an operator and parent in the EEA"),
        ("", "principal.activities.contains(context.activity)", "true", "a registered activity"),
    ],
)
def test_each_invariant_catches_the_rules_that_break_it(dropped: str, old: str, new: str, invariant: str) -> None:
    rules = policy().without([dropped], zones()) if dropped else amended(old, new)
    assert invariant in INVARIANTS
    assert broken(rules) == {invariant}


def test_a_set_that_permits_everything_breaks_them_all() -> None:
    everything = b'@id("permit-everything") @explain("x") permit (principal, action, resource);'
    files = {name: raw for name, raw in policy().files.items() if name != "residency.cedar"}
    assert broken(PolicySet({**files, "own.cedar": everything}, zones())) == set(INVARIANTS)


def test_a_clause_that_errors_breaks_the_promise_that_no_permit_rests_on_one() -> None:
    own = (
        '@id("forbid-large") @explain("x") forbid (principal, action in Domicile::Action::"governed", resource) '
        "when { context.tag.classification * 9223372036854775807 > 3 };"
    )
    assert broken(PolicySet({**policy().files, "own.cedar": own.encode()}, zones())) == {NO_FAULT}


def test_rules_that_forbid_erasing_break_a_promise_to_people() -> None:
    own = '@id("forbid-erasing") @explain("x") forbid (principal, action == Domicile::Action::"erase", resource);'
    assert broken(PolicySet({**policy().files, "own.cedar": own.encode()}, zones())) == {ERASABLE}


def test_the_same_rules_change_nothing() -> None:
    found = diff(policy(), policy(), zones(), fleet(), now=NOON, over=some())
    assert (found.newly_permitted, found.newly_refused, found.beyond, found.examples) == (0, 0, 0, ())
    assert not found.widens


def test_a_wider_rule_shows_what_it_would_newly_permit_and_to_whom() -> None:
    wider = amended('unless { resource in Domicile::Zone::"DE" };', 'unless { resource in Domicile::Zone::"EU" };')
    found = diff(policy(), wider, zones(), fleet(), now=NOON, over=some())
    assert found.newly_permitted > 0
    assert found.newly_refused == 0
    for change in found.examples:
        assert change.question.site.zone == "FR"
        assert "health" in change.question.tag.categories
        assert change.after.allowed and not change.before.allowed


def test_a_stricter_rule_shows_what_it_would_newly_refuse() -> None:
    stricter = amended("classification >= 3", "classification >= 1")
    found = diff(policy(), stricter, zones(), fleet(), now=NOON, over=some())
    assert found.newly_permitted == 0
    assert found.newly_refused > 0
    assert 0 < len(found.examples) <= 10


def test_an_annulled_decision_is_a_diff_of_zones_alone() -> None:
    found = diff(policy(), policy(), zones(), fleet(), new_zones=zones().without("US-DPF"), now=NOON, over=some())
    assert found.newly_permitted == 0
    assert {change.question.site.id for change in found.examples} == {"iad-dpf"}


def test_the_product_is_the_same_on_every_run() -> None:
    assert list(some().questions()) == list(some().questions())
    assert list(some().drawn(7, 50)) == list(some().drawn(7, 50))


def test_what_is_opened_abroad_alone_is_seen_though_the_fleet_has_no_site_there() -> None:
    """A Fleet of one German Site: the rule that protects from Virginia works there too, and its loss is a widening."""
    home = Fleet([fleet().site("fra")])
    over = product(home, zones(), policy().words, now=NOON, tags=FEW)
    open_ = policy().without(["forbid-plaintext-outside-eea"], zones())
    found = diff(policy(), open_, zones(), home, now=NOON, over=over)
    assert (found.newly_permitted, found.newly_refused) == (0, 0)
    assert found.beyond > 0
    assert found.widens


# --- the documents held -----------------------------------------------------------------------------------------------

ROWS = {
    "shop": [
        {**tag("EU", jurisdictions=["DE"], categories=["health"]).facts(), "site": "fra", "documents": 40},
        {**tag("EU").facts(), "site": "par", "documents": 7},
    ]
}
CEILINGS = {"shop": frozenset({"GDPR-ADEQUATE"})}


def test_documents_held_are_counted_where_a_wider_rule_would_let_them_go() -> None:
    wider = amended('unless { resource in Domicile::Zone::"DE" };', 'unless { resource in Domicile::Zone::"EU" };')
    found = held(policy(), wider, zones(), fleet(), ROWS, CEILINGS, now=NOON)
    assert {(change.site, change.permitted, change.documents, change.lies_there) for change in found} == {
        ("par", True, 40, False)
    }
    assert {change.action for change in found} == {
        Action.STORE,
        Action.SEARCH,
        Action.EMBED,
        Action.OPEN,
        Action.GENERATE,
    }


def test_documents_held_that_could_no_longer_be_used_where_they_lie_are_named() -> None:
    own = (
        '@id("forbid-france") @explain("x") forbid (principal, action in Domicile::Action::"governed", resource) '
        'unless { resource in Domicile::Zone::"DE" };'
    )
    stricter = PolicySet({**policy().files, "own.cedar": own.encode()}, zones())
    found = held(policy(), stricter, zones(), fleet(), ROWS, CEILINGS, now=NOON)
    stranded = [change for change in found if change.lies_there and change.action is Action.OPEN]
    assert [(change.site, change.documents, change.policies) for change in stranded] == [("par", 7, ("forbid-france",))]


def test_looking_at_the_impact_leaves_the_health_of_the_fleet_alone() -> None:
    sites = fleet(verified=False)
    check(policy(), zones(), sites, now=NOON, over=product(sites, zones(), policy().words, now=NOON, tags=FEW[:1]))
    assert sites.version == 0
