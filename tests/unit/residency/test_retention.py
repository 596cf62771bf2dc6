"""Rules of retention: the first that matches decides, and what is wrong with a file is said with its place."""

from pathlib import Path

import pytest

from residency.errors import PolicyError
from residency.retention import Retention, Rule
from residency.tag import Tag
from residency.zones import Zones

POLICIES = Path(__file__).parents[3] / "policies"


@pytest.fixture(scope="module")
def zones() -> Zones:
    return Zones.load(POLICIES / "zones.toml")


def tag(*jurisdictions: str, categories: tuple[str, ...] = ()) -> Tag:
    return Tag(frozenset(jurisdictions), frozenset({"EU"}), categories=frozenset(categories))


def test_the_first_rule_that_matches_decides(zones: Zones) -> None:
    found = Retention(
        (
            Rule("taxes", 3650, "AO 147", collection="invoices", jurisdiction="DE"),
            Rule("health", 30, "GDPR 9", category="health"),
            Rule("europe", 365, "GDPR 5", jurisdiction="EU"),
        )
    )

    def of(collection: str, about: Tag) -> str:
        rule = found.of(zones, tenant="northwind", collection=collection, tag=about)
        return rule.id if rule else ""

    assert of("invoices", tag("DE", categories=("health",))) == "taxes"
    assert of("other", tag("DE-BY", categories=("health",))) == "health"
    assert of("other", tag("DE-BY")) == "europe" and of("invoices", tag("FR")) == "europe"
    assert of("invoices", tag("DE-BY", "US")) == "taxes"  # one law that binds it is enough
    assert of("other", tag("US")) == ""
    assert found.lint(zones, tenants=["northwind"]) == []


def test_the_shipped_file_erases_nothing(zones: Zones) -> None:
    shipped = Retention.parse((POLICIES / "retention.toml").read_bytes())
    assert shipped.rules == () and shipped.lint(zones) == []


def test_the_example_in_the_shipped_file_is_a_rule(zones: Zones) -> None:
    lines = (POLICIES / "retention.toml").read_text().splitlines()
    at = lines.index("# [[rule]]")
    found = Retention.parse("\n".join(line.removeprefix("# ") for line in lines[at:]).encode())
    assert [rule.id for rule in found.rules] == ["applications"] and found.lint(zones) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rule = 3", "rule"),
        ("[[rule]]\nid = 'a'", "keep_days"),
        ("[[rule]]\nid = 'a'\nkeep_days = 1\nlaw = 'x'\ncategoy = 'health'", "categoy"),
        ("not toml", "retention.toml"),
    ],
)
def test_what_is_no_rule_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        Retention.parse(text.encode())


def test_lint_says_everything_that_is_wrong(zones: Zones) -> None:
    wrong = Retention(
        (
            Rule("Big", 0, " ", jurisdiction="XX", tenant="nobody"),
            Rule("all", 1, "x", jurisdiction="EU"),
            Rule("all", 1, "x", jurisdiction="DE", category="health"),
        )
    ).lint(zones, tenants=["northwind"])
    text = "\n".join(wrong)
    for each in ("its id", "keep_days", "no law", "no Zone", "nobody made", "has this id", "all stands above"):
        assert each in text
    assert len(wrong) == 7
