"""Questions: what is read, what is refused by its limit, and which follow-ups look back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidRequestError
from service.questions import earlier, fitting, readable, spoken_in


@pytest.mark.parametrize("text", ["", " \n\t ", "\x00\x01\x1f", "\u200b\u2060\ufeff", "\u202e\u2066", "\x00 \u200d"])
def test_nothing_to_read_is_no_question(text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        readable(text, param="question")
    assert (caught.value.param, bool(caught.value.hint)) == ("question", True)


def test_a_long_question_is_refused_with_its_limit() -> None:
    assert readable("a" * 8000) == "a" * 8000
    with pytest.raises(InvalidRequestError, match=r"100000 characters.*8000"):
        readable("a" * 100_000)
    with pytest.raises(InvalidRequestError, match="at most 10 "):
        readable("eleven char", most=10)


def test_control_characters_are_blanks_and_scripts_stay() -> None:
    assert readable("When\x00does\x1bit open?\x07") == "When does it open?"
    assert readable("Где Schlüssel 鍵 مفتاح 🔑?") == "Где Schlüssel 鍵 مفتاح 🔑?"
    assert readable("?") == "?"


@given(st.text(), st.integers(3, 40))
def test_a_beginning_fits(text: str, most: int) -> None:
    def count(part: str) -> int:
        return len(part) + 2

    if not text.strip():
        return
    found = fitting(text, count, most)
    assert text.startswith(found)
    assert count(found) <= most or found == text[:1]


def test_a_cut_falls_between_words_where_it_can() -> None:
    assert fitting("one two three four", lambda part: len(part.split()), 2) == "one two"
    assert fitting("abcdef", len, 3) == "abc"


FIRST = "How long must a passphrase be?"


@pytest.mark.parametrize(
    "last",
    [
        "And how often is it changed?",
        "Why?",
        "What about visitors?",
        "Und für Gäste?",
        "Wie lange gilt das?",
        "Et pour les visiteurs ?",
        "Combien de temps est-ce que cela dure ?",
        "¿Y para visitantes?",
        "¿Cuánto tiempo vale eso?",
        "Contractors?",
    ],
)
def test_a_short_question_that_points_back_is_read_with_the_one_before(last: str) -> None:
    assert earlier(["Something older?", FIRST, last]) == FIRST


@pytest.mark.parametrize(
    "last",
    [
        "At which temperature should batteries be stored?",
        "Wann liegt die Kernzeit?",
        "When is the notice to the supervisory authority due after a breach that it reported itself?",
        "Who signs contracts?",
    ],
)
def test_a_question_that_stands_on_its_own_is_left_alone(last: str) -> None:
    assert earlier([FIRST, last]) == ""


def test_without_an_earlier_question_nothing_is_joined() -> None:
    assert earlier(["And why?"]) == ""
    assert earlier(["  ", "And why?"]) == ""


def test_a_long_earlier_question_gives_its_end() -> None:
    assert earlier(["x" * 5000 + " the end?", "And why?"]).endswith("the end?")
    assert len(earlier(["x" * 5000, "And why?"])) == 400


@pytest.mark.parametrize(("code", "gives"), [("", ""), ("de", "de"), ("DE", "de"), ("de-AT", "de"), ("pt_BR", "pt")])
def test_a_language_is_named_by_its_code(code: str, gives: str) -> None:
    assert spoken_in(code) == gives


@pytest.mark.parametrize("code", ["german", "d", "de at", "de-", "¿"])
def test_what_is_no_code_names_no_language(code: str) -> None:
    with pytest.raises(InvalidRequestError, match="names no language"):
        spoken_in(code)
