import pytest

from residency.impact import INVARIANTS, check, diff
from residency.policy import PolicySet
from tests.doubles.rules import NOON, amended, fleet, policy, zones

SAMPLE = 1_500


def broken(rules: PolicySet) -> set[str]:
    found = check(rules, zones(), fleet(), now=NOON, sample=SAMPLE)
    return {violation.invariant for violation in found.violations}


def test_every_permit_of_the_shipped_rules_keeps_every_invariant() -> None:
    found = check(policy(), zones(), fleet(), now=NOON)
    assert found.asked == 4_000
    assert found.permitted > 300
    assert found.violations == ()


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


def test_the_same_rules_change_nothing() -> None:
    found = diff(policy(), policy(), zones(), fleet(), now=NOON, sample=300)
    assert (found.asked, found.newly_permitted, found.newly_refused, found.examples) == (300, 0, 0, ())


def test_a_wider_rule_shows_what_it_would_newly_permit_and_to_whom() -> None:
    wider = amended('unless { resource in Domicile::Zone::"DE" };', 'unless { resource in Domicile::Zone::"EU" };')
    found = diff(policy(), wider, zones(), fleet(), now=NOON)
    assert found.newly_permitted > 0
    assert found.newly_refused == 0
    for change in found.examples:
        assert change.question.site.zone == "FR"
        assert "health" in change.question.tag.categories
        assert change.after.allowed and not change.before.allowed


def test_a_stricter_rule_shows_what_it_would_newly_refuse() -> None:
    stricter = amended("classification >= 3", "classification >= 1")
    found = diff(policy(), stricter, zones(), fleet(), now=NOON)
    assert found.newly_permitted == 0
    assert found.newly_refused > 0
    assert 0 < len(found.examples) <= 10


def test_an_annulled_decision_is_a_diff_of_zones_alone() -> None:
    found = diff(policy(), policy(), zones(), fleet(), new_zones=zones().without("US-DPF"), now=NOON)
    assert found.newly_permitted == 0
    assert {change.question.site.id for change in found.examples} == {"iad-dpf"}


def test_the_sample_is_the_same_on_every_run() -> None:
    one, two = (diff(policy(), amended(">= 3", ">= 1"), zones(), fleet(), now=NOON, sample=400) for _ in range(2))
    assert one == two


def test_looking_at_the_impact_leaves_the_health_of_the_fleet_alone() -> None:
    sites = fleet(verified=False)
    check(policy(), zones(), sites, now=NOON, sample=50)
    assert sites.version == 0
