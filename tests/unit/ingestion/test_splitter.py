"""Passages are exact slices in order, fit the embedder, know their page, and end where sentences end."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ingestion.readers import Block, PageSpan, Reading, TextBuilder, plain
from ingestion.readers.kinds import PDF, PLAIN
from ingestion.splitter import Piece, count_words, sentences, split, windows


def count(text: str) -> int:
    """A token for each word and each sign, as WordPiece would cut at least."""
    return len(re.findall(r"\w{1,6}|[^\w\s]", text))


def said(text: str, language: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text, language)]


def pages(*texts: str) -> Reading:
    builder = TextBuilder()
    for text in texts:
        builder.put("text", text)
        builder.end_page()
    return builder.reading(PDF)


def check(reading: Reading, pieces: list[Piece], most: int) -> None:
    at = 0
    for number, piece in enumerate(pieces):
        assert piece.no == number
        assert piece.text == reading.text[piece.start : piece.end]
        assert piece.start >= at
        assert not reading.text[at : piece.start].strip()
        both = f"{piece.heading}\n{piece.text}" if piece.heading else piece.text
        assert count(both) <= most
        at = piece.end
    assert not reading.text[at:].strip()


# --- sentences ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("de", ["Es gilt Art. 6 Abs. 1 lit. a DSGVO.", "Die Miete beträgt 900 Euro inkl. der Umlage."]),
        ("de", ["Die Frist endet am 12. März 2024.", "Die Nr. 5 gilt z. B. nicht.", "Dr. Muster stimmt zu."]),
        ("en", ["Art. 28 para. 3 GDPR applies.", "See e.g. Section 4.", "Mr. J. Doe agrees.", "Does he?"]),
        ("fr", ["Voir l’art. 6 al. 1 du RGPD.", "Le n° 5 vaut p. ex. ici.", "M. Dupont signe."]),
        ("es", ["Véase el art. 5 núm. 2 del contrato.", "La Sra. Ejemplo firma."]),
        ("de", ["3. Kosten und Miete steigen.", "Danach nicht."]),
        ("und", ["One thing.", "Another thing."]),
    ],
)
def test_law_and_contracts_keep_their_sentences(language: str, expected: list[str]) -> None:
    assert said(" ".join(expected), language) == expected


def test_headings_items_rows_and_empty_lines_end_a_sentence() -> None:
    text = "# Title\nFirst line\ngoes on\n\nSecond\n- one\n- two\n1. three\nA | B\n1 | 2\nEnd"
    assert said(text, "en") == [
        "# Title",
        "First line\ngoes on",
        "Second",
        "- one",
        "- two",
        "1. three",
        "A | B",
        "1 | 2",
        "End",
    ]


@given(st.text(), st.sampled_from(["de", "en", "fr", "el", "und"]))
def test_sentences_are_slices_in_order_and_leave_out_white_space_alone(text: str, language: str) -> None:
    at = 0
    for start, end in sentences(text, language):
        assert at <= start < end <= len(text)
        assert not text[at:start].strip()
        at = end
    assert not text[at:].strip()


# --- passages -----------------------------------------------------------------------------------------------------

words = st.text(st.sampled_from("abc déß.,;!? \n\t|-#1😀"), max_size=400)


@settings(max_examples=60, deadline=None)
@given(st.lists(words, min_size=1, max_size=4), st.integers(12, 60))
def test_any_text_is_cut_into_slices_that_fit_and_miss_nothing(texts: list[str], most: int) -> None:
    reading = pages(*texts)
    check(reading, split(reading, count=count, most=most), most)


def test_twenty_equal_pages_have_each_their_own_passages() -> None:
    page = "\n".join(f"Carried over from line {line}: 100.00 EUR." for line in range(20))
    reading = pages(*[page] * 20)
    pieces = split(reading, count=count, most=60)
    check(reading, pieces, 60)
    for piece in pieces:
        span = reading.pages[piece.page - 1]
        assert span.start <= piece.start < piece.end <= span.end
    assert {piece.page for piece in pieces} == set(range(1, 21))


def test_a_passage_crosses_a_page_only_with_its_sentence() -> None:
    reading = pages("The notice must reach the other side not later than", "thirty days before. Then it ends.")
    assert [(piece.page, piece.text) for piece in split(reading, count=count)] == [
        (1, "The notice must reach the other side not later than\n\nthirty days before."),
        (2, "Then it ends."),
    ]


def test_a_passage_stays_under_one_heading_and_a_bare_heading_opens_the_next() -> None:
    reading = plain.read("# A\n\n## B\n\nText b.\n\n# C\n\nText c.\n", "text/markdown")
    assert [(piece.heading, piece.text) for piece in split(reading, count=count)] == [
        ("A › B", "# A\n\n## B\n\nText b."),
        ("C", "# C\n\nText c."),
    ]


def test_a_heading_too_long_gives_up_its_outer_part() -> None:
    text = "Body."
    reading = Reading(text, [PageSpan(1, 0, 5)], [Block("text", 1, 0, 5, "outer " * 30 + "› inner")], PLAIN)
    (piece,) = split(reading, count=count, most=20)
    assert piece.heading == "inner"


def test_a_run_without_a_space_is_cut_though_the_model_takes_it_for_one_word() -> None:
    reading = plain.read("a" * 20_000, PLAIN)
    pieces = split(reading, count=lambda text: len(text.split()), most=200)
    assert "".join(piece.text for piece in pieces) == reading.text
    assert max(len(piece.text) for piece in pieces) <= 200 * 12 + 12


def test_a_document_in_two_languages_has_passages_in_both() -> None:
    german = "Der Mieter zahlt die Miete bis zum dritten Werktag eines jeden Monats an den Vermieter. " * 8
    english = "The tenant pays the rent to the landlord by the third working day of every month. " * 8
    pieces = split(pages(german, english), count=count, most=100)
    assert {piece.language for piece in pieces} == {"de", "en"}
    assert pieces[0].language == "de"
    assert pieces[-1].language == "en"


@settings(max_examples=60, deadline=None)
@given(words, st.text(st.sampled_from("head › "), max_size=30), st.integers(8, 60))
def test_windows_fit_the_model_and_miss_nothing_of_the_passage(text: str, heading: str, most: int) -> None:
    piece = Piece(0, text.strip(), 0, len(text.strip()), 1, heading, "en")
    made = windows(piece, count_tokens=count, max_tokens=most)
    assert all(count(each) <= most and tokens >= count(each) for each, tokens in made)
    bare = windows(replace(piece, heading=""), count_tokens=count, max_tokens=most)
    assert "".join("".join(each.split()) for each, _ in bare) == "".join(piece.text.split())


def test_a_passage_that_the_model_reads_whole_is_one_window_and_a_longer_one_about_equal_ones() -> None:
    piece = Piece(0, "Nine short words stand here in one more sentence. " * 6, 0, 300, 1, "Top", "en")
    assert [each for each, _ in windows(piece, count_tokens=count, max_tokens=100)] == [f"Top\n{piece.text}"]
    made = windows(piece, count_tokens=count, max_tokens=50)
    assert [each.startswith("Top\n") for each, _ in made] == [True, True]
    assert abs(made[0][1] - made[1][1]) <= 12


def test_words_are_counted_and_each_sign_where_no_blanks_stand() -> None:
    assert count_words("Das Fünf-Wort-Maß, hier: €") == 5
    assert count_words("日本語です ok") == 6


def test_an_empty_reading_has_no_passages() -> None:
    assert split(Reading("", [], [], PLAIN), count=count) == []
