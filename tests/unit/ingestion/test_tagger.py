"""A Tag may narrow and never widens; loud contradiction goes to a person, a supplier's account number does not."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.detectors import MEDIUM, STRONG, WEAK, Sign
from ingestion.errors import TagError
from ingestion.tagger import Declaration, default_residency, rule
from residency.errors import ZoneError
from residency.zones import Zones

ZONES = Zones.load(Path(__file__).parents[3] / "policies" / "zones.toml")
CODES = sorted(code for code in ("DE", "FR", "EU", "US", "CH", "EEA", "GB", "DE-BY") if ZONES.known(code))


def sign(kind: str, zone: str, strength: int = STRONG) -> Sign:
    return Sign(kind, zone, 0, 1, strength, kind)


FRENCH = [sign("iban", "FR"), sign("vat", "FR"), sign("phone", "FR", MEDIUM)]
GERMAN = [sign("iban", "DE"), sign("vat", "DE")]


def of(*codes: str) -> Declaration:
    return Declaration(frozenset(codes))


def test_a_german_document_with_german_signs_agrees() -> None:
    tagged = rule(of("DE"), GERMAN, ZONES)
    assert (tagged.quarantine, tagged.tag.jurisdictions) == (None, frozenset({"DE"}))


def test_a_document_declared_german_that_speaks_french_with_numbers_is_in_dispute() -> None:
    tagged = rule(of("DE"), FRENCH, ZONES)
    assert tagged.quarantine is not None
    assert "FR (3 signs)" in tagged.quarantine
    assert tagged.tag.jurisdictions == frozenset({"DE"})


def test_a_list_of_foreign_staff_numbers_is_a_dispute_though_of_one_kind() -> None:
    assert rule(of("DE"), [sign("person_id", "FR")] * 3, ZONES).quarantine


@pytest.mark.parametrize(
    "signs",
    [
        [],
        [sign("language", "FR", WEAK)],
        [sign("iban", "FR")],
        [sign("phone", "FR", MEDIUM)] * 9,
        [*FRENCH, sign("company_id", "DE", MEDIUM)],
        [sign("vat", "XX"), sign("iban", "XX")],
    ],
)
def test_too_little_to_doubt_the_declaration(signs: list[Sign]) -> None:
    assert rule(of("DE"), signs, ZONES).quarantine is None


def test_signs_inside_a_broader_declaration_agree_and_narrow_it() -> None:
    tagged = rule(of("EU"), GERMAN, ZONES)
    assert (tagged.quarantine, tagged.tag.jurisdictions) == (None, frozenset({"EU", "DE"}))


def test_a_number_of_a_person_makes_the_document_personal() -> None:
    declaration = Declaration(frozenset({"DE"}), personal=False)
    assert not rule(declaration, GERMAN, ZONES).tag.personal
    assert rule(declaration, [sign("person_id", "FR")], ZONES).tag.personal


def test_the_default_residency_is_the_bloc_that_all_jurisdictions_share() -> None:
    assert default_residency(["DE"], ZONES) == frozenset({"EU"})
    assert default_residency(["DE", "FR"], ZONES) == frozenset({"EU"})
    assert default_residency(["US"], ZONES) == frozenset({"US"})
    assert default_residency(["DE", "US"], ZONES) == frozenset()


def test_no_jurisdiction_and_unknown_ones_are_refused() -> None:
    with pytest.raises(TagError):
        rule(of(), [], ZONES)
    with pytest.raises(ZoneError):
        rule(of("ATLANTIS"), [], ZONES)
    with pytest.raises(TagError):
        rule(Declaration(frozenset({"DE"}), classification=9), [], ZONES)


def test_evidence_holds_what_was_said_and_what_was_found() -> None:
    evidence = rule(of("DE"), GERMAN[:1], ZONES).evidence
    assert [(each["kind"], each["zone"]) for each in evidence] == [("declared", "DE"), ("iban", "DE")]
    assert set(evidence[1]) == {"kind", "zone", "start", "end", "what", "strength", "page", "rule"}


codes = st.frozensets(st.sampled_from(CODES), min_size=1, max_size=3)
any_sign = st.builds(
    sign,
    st.sampled_from(["iban", "vat", "person_id", "tax_id", "company_id", "phone", "language"]),
    st.sampled_from([*CODES, "XX", ""]),
    st.sampled_from([WEAK, MEDIUM, STRONG]),
)


@given(codes, st.none() | codes, st.booleans(), st.integers(0, 4), st.lists(any_sign, max_size=12))
def test_no_sign_ever_widens_a_tag(
    jurisdictions: frozenset[str],
    residency: frozenset[str] | None,
    personal: bool,
    classification: int,
    signs: list[Sign],
) -> None:
    declaration = Declaration(jurisdictions, residency, personal, frozenset({"health"}), classification)
    said, found = rule(declaration, [], ZONES).tag, rule(declaration, signs, ZONES).tag
    assert found.jurisdictions >= said.jurisdictions
    assert all(any(ZONES.within(inner, outer) for outer in said.residency) for inner in found.residency)
    assert found.personal >= said.personal
    assert found.categories >= said.categories
    assert found.classification >= said.classification
    assert residency is None or found.residency == residency
