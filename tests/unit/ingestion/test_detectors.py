"""Signs of a country: found where they stand, believed only when they hold."""

from hypothesis import given
from hypothesis import strategies as st

from ingestion.detectors import MEDIUM, STRONG, WEAK, detect, language


def found(text: str) -> set[tuple[str, str, int]]:
    return {(sign.kind, sign.zone, sign.strength) for sign in detect(text) if sign.kind != "language"}


def test_a_french_letterhead_gives_four_french_signs() -> None:
    text = "SARL, IBAN FR14 2004 1010 0505 0001 3M02 606, TVA FR40303265045 SIREN 303 265 045, Tél. +33 1 42 68 53 00"
    assert found(text) == {
        ("iban", "FR", STRONG),
        ("vat", "FR", STRONG),
        ("company_id", "FR", STRONG),
        ("phone", "FR", MEDIUM),
    }


def test_a_german_letterhead_gives_german_signs() -> None:
    text = "Muster GmbH, HRB 12345, USt-IdNr. DE136695976, DE89 3704 0044 0532 0130 00, Telefon +49 (0)30 227-0"
    assert {(kind, zone) for kind, zone, _ in found(text)} == {
        ("company_id", "DE"),
        ("vat", "DE"),
        ("iban", "DE"),
        ("phone", "DE"),
    }


def test_numbers_of_persons_count_behind_the_word_that_names_them() -> None:
    assert found("BSN: 111222333") == {("person_id", "NL", STRONG)}
    assert found("order 111222333") == set()
    assert found("Codice fiscale RCCMNL83S18D969H") == {("person_id", "IT", STRONG)}


def test_numbers_whose_check_digits_are_wrong_are_no_signs() -> None:
    assert found("IBAN FR15 2004 1010 0505 0001 3M02 606 TVA FR41303265045 USt DE136695977") == set()


def test_a_greek_vat_number_points_to_greece_and_not_to_el() -> None:
    assert found("EL 094259216") == {("vat", "GR", STRONG)}


def test_a_sign_stands_where_it_says_and_does_not_quote() -> None:
    text = "😀 Konto: DE89 3704 0044 0532 0130 00 bitte"
    (sign,) = [sign for sign in detect(text) if sign.kind == "iban"]
    assert text[sign.start : sign.end] == "DE89 3704 0044 0532 0130 00"
    assert sign.what == "IBAN"


def test_a_letterhead_on_every_page_counts_once() -> None:
    assert len([sign for sign in detect("DE89 3704 0044 0532 0130 00\n" * 50) if sign.kind == "iban"]) == 1


def test_an_iban_is_not_also_a_vat_number() -> None:
    assert {kind for kind, _, _ in found("ATU13585627 and AT61 1904 3002 3457 3201")} == {"vat", "iban"}


def test_languages_are_told_apart() -> None:
    assert language("Wie lange dürfen Bewerberdaten aufbewahrt werden?") == "de"
    assert language("Quelle est la durée du préavis ?") == "fr"
    assert language("How long may the supplier keep the data?") == "en"
    assert language("12 345") == "und"


def test_the_language_is_a_weak_sign_and_english_points_nowhere() -> None:
    assert [(s.zone, s.strength) for s in detect("Le locataire paie le loyer avant le trois du mois.")] == [
        ("FR", WEAK)
    ]
    assert [s.zone for s in detect("The tenant pays the rent before the third of the month.")] == [""]


@given(st.text())
def test_any_text_gives_signs_inside_it(text: str) -> None:
    for sign in detect(text):
        assert 0 <= sign.start <= sign.end <= len(text)
