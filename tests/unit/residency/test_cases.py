"""Every worked case is one test; every policy and every vital condition has a twin that must turn some case red."""

import tomllib

import pytest

from residency.cases import CaseResult, run_cases
from residency.errors import PolicyError
from residency.policy import PolicySet
from tests.doubles.rules import POLICIES, amended, policy, zones

RESULTS = {f"{result.file}: {result.name}": result for result in run_cases(POLICIES)}


def red(rules: PolicySet) -> dict[str, CaseResult]:
    return {case.name: case for case in run_cases(POLICIES, policy=rules, zones=zones()) if not case.passed}


@pytest.mark.parametrize("case", RESULTS)
def test_case(case: str) -> None:
    result = RESULTS[case]
    assert result.passed, f"wanted {result.wanted}, got {result.got}"


def test_every_case_was_run_and_has_a_name_of_its_own() -> None:
    written = [
        case["name"]
        for path in (POLICIES / "cases").glob("*.toml")
        for case in tomllib.loads(path.read_text()).get("case", [])
    ]
    assert len(written) == len(RESULTS) >= 19


@pytest.mark.parametrize("name", list(policy().clauses))
def test_dropping_a_policy_turns_a_case_red(name: str) -> None:
    assert red(policy().without([name], zones()))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("resource in context.tag.residency && ", ""),
        ("context has basis && context.now < context.basis.expires && ", ""),
        ("context has basis && context.now < context.basis.expires", "context has basis"),
        ('resource in Domicile::Zone::"GDPR-ADEQUATE" &&', ""),
        ('unless { resource in Domicile::Zone::"EEA" };', 'unless { !(resource in Domicile::Zone::"EEA") };'),
        ('unless { resource in Domicile::Zone::"DE" };', 'unless { !(resource in Domicile::Zone::"DE") };'),
        ('unless { resource in Domicile::Zone::"DE" };', 'unless { resource in Domicile::Zone::"EU" };'),
        ("unless { resource in principal.tenant.ceiling };", "unless { !(resource in principal.tenant.ceiling) };"),
        ("classification >= 3", "classification >= 4"),
        (' && resource.parent in Domicile::Zone::"EEA"', ""),
        ("unless { principal.activities.contains(context.activity) };", "unless { true };"),
        ("unless { principal.tenant == context.tenant };", "unless { true };"),
        ("unless { resource.bound && context.now < resource.verifiedUntil };", "unless { resource.bound };"),
        ('"GDPR-ADEQUATE"', '"EEA"'),
    ],
)
def test_weakening_or_turning_a_condition_turns_a_case_red(old: str, new: str) -> None:
    assert red(amended(old, new))


@pytest.mark.parametrize(
    ("condition", "forbid", "case"),
    [
        ("principal.tenant == context.tenant &&", "forbid-other-tenant", "6 the bank's App asks for the shop's data"),
        (
            "principal.activities.contains(context.activity) &&",
            "forbid-unregistered-activity",
            "11 an activity the App is not registered for",
        ),
        (
            "resource.bound && context.now < resource.verifiedUntil };",
            "forbid-stale-evidence",
            "9 a search at a Site whose evidence has run out",
        ),
    ],
)
def test_a_condition_said_twice_holds_until_both_are_gone(condition: str, forbid: str, case: str) -> None:
    alone = red(policy().without([forbid], zones()))
    assert alone[case].got.startswith("refuse")
    files = policy().files
    kept = files["residency.cedar"].decode()
    start = kept.index(f'@id("{forbid}")')
    end = kept.find("\n@id(", start + 1)
    kept = kept[:start] + (kept[end:] if end > 0 else "")
    replaced = kept.replace(condition, "true };" if condition.endswith("};") else "")
    both = red(PolicySet({**files, "residency.cedar": replaced.encode()}, zones()))
    assert both[case].got.startswith("permit")


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        '[[case]]\nname = "x"',
        'now = 2026-01-01T00:00:00Z\n[tenants]\n[principals]\n[[case]]\nname = "x"\nmaybe = 1\npermit = []',
        'now = 2026-01-01T00:00:00Z\n[tenants]\n[principals]\n[[case]]\nname = "x"',
    ],
)
def test_a_case_file_that_cannot_be_run_is_an_error_and_not_a_pass(tmp_path, text: str) -> None:
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases" / "own.toml").write_text(text)
    with pytest.raises(PolicyError, match=r"own\.toml"):
        run_cases(tmp_path, policy=policy(), zones=zones())
