"""Categories by readable rules: enough different words of one language; what was declared is never lowered."""

from pathlib import Path

import pytest

from ingestion.categories import categorise
from ingestion.detectors import STRONG, Sign, detect
from ingestion.readers import PageSpan
from ingestion.tagger import Declaration, rule
from residency.errors import PolicyError, ZoneError
from residency.tagrules import TagRules
from residency.zones import Zones

POLICIES = Path(__file__).parents[3] / "policies"
ZONES = Zones.load(POLICIES / "zones.toml")
RULES = TagRules.parse((POLICIES / "tagging.toml").read_bytes(), ZONES)
GERMAN = "Die Patientin kam ins Krankenhaus.\fDer Befund liegt bei."


def found(text: str, signs: list[Sign] | None = None) -> set[str]:
    return {sign.what for sign in categorise(text, signs or [], RULES)}


def test_two_words_of_one_language_make_a_category_and_one_or_two_languages_do_not() -> None:
    assert found(GERMAN) == {"health"}
    assert found("Das Krankenhaus liegt in der Nebenstraße.") == set()
    assert found("Das Krankenhaus und l'hôpital.") == set()
    assert found("Patient, patients, PATIENT: one word in three forms.") == set()
    assert found("The recipe is a trade\nsecret.") == {"trade-secret"}


def test_a_sign_names_rule_page_and_place_and_never_the_word() -> None:
    pages = [PageSpan(number=1, start=0, end=34), PageSpan(number=2, start=35, end=len(GERMAN))]
    signs = categorise(GERMAN, [], RULES, pages)
    assert [(GERMAN[sign.start : sign.end], sign.page) for sign in signs] == [
        ("Patientin", 1), ("Krankenhaus", 1), ("Befund", 2),
    ]  # fmt: skip
    assert {(sign.rule, sign.what, sign.zone) for sign in signs} == {("health.de", "health", "")}


def test_a_number_of_a_person_does_alone() -> None:
    signs = [Sign("person_id", "FR", 3, 9, STRONG, "social security number")]
    assert [(sign.rule, sign.start) for sign in categorise("x" * 20, signs, RULES)] == [("personal", 3)]


def test_categories_are_added_to_what_was_declared_and_take_nothing_away() -> None:
    declared = Declaration(frozenset({"DE"}), None, False, frozenset({"legal"}), 2)
    signs = categorise(GERMAN + " Geburtsdatum: 4. Mai 1986", [], RULES)
    tag = rule(declared, signs, ZONES).tag
    assert tag.categories == {"legal", "health"} and (tag.personal, tag.classification) == (True, 2)
    assert rule(declared, [], ZONES).tag.categories == {"legal"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[[category]]\ncategory = 'x'", "no id"),
        ("[[category]]\nid = 'x'\ncategory = 'x'", "neither words nor signs"),
        ("[[category]]\nid = 'x'\ncategory = 'X y'\nwords = {de = ['ab']}", "no slug"),
        ("[[category]]\nid = 'x'\ncategory = 'x'\nleast = 2\nwords = {de = ['ab', 'AB']}", "fewer under de"),
        ("[[category]]\nid = 'x'\ncategory = 'x'\nwords = {de = ['a*b']}", "none"),
        ("[[category]]\nid = 'x'\ncategory = 'x'\nsigns = ['passport']", "no kind of sign"),
        ("[[category]]\nid = 'x'\ncategory = 'x'\nword = {}\nwords = {de = ['ab']}", "means nothing"),
        ("[[place]]\nid = 'x'\nfolder = '/hr/'", "no folder"),
        ("[[place]]\nid = 'x'\nfolder = 'hr'", "says nothing"),
        ("[[place]]\nid = 'x'\nfolder = 'hr'\nclassification = 7", "classification"),
        (
            "[[place]]\nid = 'x'\nfolder = 'a'\npersonal = true\n[[place]]\nid = 'x'\nfolder = 'b'\npersonal = true",
            "twice",
        ),
        ("category = [", "no TOML"),
    ],
)
def test_a_rule_with_a_fault_stops_the_file_and_is_named(text: str, named: str) -> None:
    with pytest.raises(PolicyError, match=named):
        TagRules.parse(text.encode(), ZONES)


def test_a_folder_rule_names_a_zone_that_there_is() -> None:
    with pytest.raises(ZoneError):
        TagRules.parse(b"[[place]]\nid = 'x'\nfolder = 'hr'\njurisdictions = ['UK']", ZONES)


def test_a_folder_rule_holds_in_its_folder_and_below() -> None:
    rules = TagRules.parse(b"[[place]]\nid = 'hr'\nfolder = 'hr/**'\ncategories = ['employment']", ZONES)
    assert [bool(rules.at(folder)) for folder in ("hr", "hr/2026/may", "", "sales", "shr")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_addresses_need_more_than_digits() -> None:
    def zones(text: str) -> set[str]:
        return {sign.zone for sign in detect(text) if sign.kind == "address"}

    assert zones("Ahornweg 5\n10115 Berlin") == zones("D-94032 Passau") == zones("94032 Passau, Germany") == {"DE"}
    assert zones("Order 10115 Chairs, 2000 Tables and 75011 Lamps") == set()
    assert zones("1012 AB Amsterdam") == {"NL"}
    assert zones("4 Alder Lane, Dublin 2, D02 X285") == {"IE"}
