"""Text made harmless: its words are all there, and no reader of Markdown or HTML finds more in it than text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from service.harmless import addressed, harmless
from tests.doubles.injections import URLS, active, injections

TRICKY = st.lists(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from(
            [
                *"!?[]()<>:/\\`*_&#;\n\u200b\u202e\ufeff\u00ad",
                *("https", "://", "www.", "evil.example", "data:", "javascript:"),
                *("](", "![", "<img ", "[1]", "]:", "<!--"),
            ]
        ),
    ),
    max_size=40,
).map("".join)


@given(TRICKY)
def test_what_was_made_harmless_shows_words_and_nothing_else(text: str) -> None:
    made = harmless(text)
    assert not active(made), made
    assert not re.search(r"\[\d{1,3}\]", made)
    assert "\n" not in made


@given(TRICKY)
def test_no_letter_and_no_figure_is_lost(text: str) -> None:
    assert [c for c in harmless(text) if c.isalnum()] == [c for c in text if c.isalnum()]


@given(TRICKY)
def test_made_harmless_twice_is_made_harmless_once(text: str) -> None:
    assert harmless(harmless(text)) == harmless(text)


@pytest.mark.parametrize(
    "text", ["§ 3: 12:30 to 14:00", "a < b and b > c", "Anna & Co. (2027)", "see [Annex A]", "1 <2"]
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert harmless(text) == text


@pytest.mark.parametrize("url", URLS)
def test_an_address_is_seen_in_a_draft(url: str) -> None:
    assert addressed(f"Read more at {url} today.")


def test_no_planted_string_is_left_active() -> None:
    assert [each for each in injections() if active(harmless(each))] == []


def test_the_check_itself_finds_what_is_active() -> None:
    assert len(injections()) >= 200
    assert sum(active(each) for each in injections()) >= 100
    assert MarkdownIt("commonmark", {"html": True}).render("![x](https://evil.example)").count("<img") == 1
