"""Grounding, as properties over all of Unicode: exact quotes, marks that fit, nothing but what is cited."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residency.lexicon import Lexicon
from residency.tag import Tag
from service.api.answers import pieces
from service.calibration import GENERAL
from service.grounding import (
    NOT_FOUND,
    Citation,
    Quote,
    abstention,
    compose,
    confidence,
    enough,
    extractive,
    pick,
    supported,
)
from service.searching import Opened

LEXICON = Lexicon(bytes(32))
KEYS: Any = SimpleNamespace(lexicon=LEXICON)
TAG = Tag(frozenset({"DE"}), frozenset({"EU"}))
ODD = st.text(
    alphabet=st.one_of(
        st.characters(exclude_categories=["Cs"]), st.sampled_from(list(" .!?\n[]()0123456789\ufeff\u0301\u200f🦦é"))
    ),
    max_size=80,
)
WORDS = st.lists(
    st.sampled_from(
        [
            "gate",
            "opens",
            "early",
            "dogs",
            "wait",
            "yard",
            "swept",
            "Friday",
            "key",
            "06:15",
            "[7]",
            "[12]",
            "🦦",
            "é",
            "ן",
        ]
    ),
    max_size=30,
)
TEXTS = st.one_of(ODD, WORDS.map(lambda words: ". ".join([" ".join(words[:5]), " ".join(words[5:])]) + "."))


def opened(
    text: str, question: str = "gate opens", *, document: str = "a" * 32, start: int = 0, **facts: Any
) -> Opened:
    words = dict.fromkeys(LEXICON.question(question, ["en"]), 1.0)
    given_facts: dict[str, Any] = {"score": 0.8, "support": 1.0, "version": 1, "page": 1, "language": "en"} | facts
    return Opened(
        document_id=document,
        name="gate.txt",
        start=start,
        end=start + len(text),
        text=text,
        heading="",
        site="fra",
        zone="DE",
        tag=TAG,
        words=words,
        keys=KEYS,
        **given_facts,
    )


def hold(text: str, citations: list[Citation], passages: list[Opened]) -> None:
    """The rules of docs/api.md for every answer."""
    covered: set[int] = set()
    spans: list[tuple[int, int]] = []
    assert [each.index for each in citations] == list(range(1, len(citations) + 1))
    for citation in citations:
        sources = [
            each
            for each in passages
            if each.document_id == citation.document_id and each.start <= citation.start and citation.end <= each.end
        ]
        assert any(
            each.text[citation.start - each.start : citation.end - each.start] == citation.quote for each in sources
        )
        assert len(citation.claims) == len(citation.marks) >= 1
        for start, end in citation.marks:
            assert text[start:end] == f"[{citation.index}]"
        for claim, mark in zip(citation.claims, citation.marks, strict=True):
            assert claim[1] < mark[0]
        spans += [*citation.claims, *citation.marks]
    for start, end in sorted(set(spans)):
        assert not covered & set(range(start, end))
        covered |= set(range(start, end))
    assert all(text[at] == " " for at in set(range(len(text))) - covered)


@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(0, 10_000), st.integers(1, 5))
def test_whatever_the_text_each_quote_is_its_exact_slice_and_each_mark_its_citation(
    texts: list[str], offset: int, limit: int
) -> None:
    passages = [opened(text, start=offset, document=f"{at:032x}") for at, text in enumerate(texts)]
    answer, citations = extractive(passages, limit=limit)
    assert len(citations) <= limit
    hold(answer, citations, passages)
    assert bool(answer) is bool(citations)


@given(TEXTS)
def test_a_joined_stream_is_the_answer_and_no_piece_splits_a_mark(text: str) -> None:
    answer, citations = extractive([opened(text), opened(text, document="b" * 32)], limit=3)
    marks = [mark for citation in citations for mark in citation.marks]
    parts = pieces(answer, marks)
    assert "".join(parts) == answer
    at = 0
    for part in parts:
        at += len(part)
        assert not any(start < at < end for start, end in marks)


@given(ODD, TEXTS)
def test_whatever_a_generator_writes_only_supported_sentences_are_left(draft: str, text: str) -> None:
    passages = [opened(text)]
    for written in (draft, f"{draft} [1]", f"{text} [1] {draft} [2][99]"):
        answer, citations = supported(written, passages)
        hold(answer, citations, passages)


def test_a_generators_sentence_needs_a_mark_a_source_its_words_and_its_figures() -> None:
    passages = [opened("The east gate opens at 06:15 on working days. Dogs wait in the yard.")]
    kept, citations = supported("The east gate opens at 06:15. [1]", passages)
    assert kept == "The east gate opens at 06:15. [1]"
    assert citations[0].quote == "The east gate opens at 06:15 on working days."
    for draft in (
        "The east gate opens at 06:15.",
        "The east gate opens at 06:15. [2]",
        "The east gate opens at 07:30. [1]",
        "Elephants paint watercolours beautifully. [1]",
        "NOT FOUND",
        "",
    ):
        assert supported(draft, passages) == ("", [])


@pytest.mark.parametrize(
    ("draft", "kept"),
    [
        ("The east gate opens at 5. [1]", False),  # 5 is part of a figure there, and no figure of it
        ("The east gate of Harrow opens at 06:15. [1]", False),
        ("The east gate of Norham opens at 06:15. [1]", True),
        ("The east gate is called “morning gate”. [1]", False),
        ("The east gate is called “Early Gate”. [1]", True),
    ],
)
def test_a_generators_sentence_has_no_figure_name_or_quoted_word_of_its_own(draft: str, kept: bool) -> None:
    passages = [opened("The east gate of Norham, called Early Gate, opens at 06:15.")]
    assert bool(supported(draft, passages)[1]) is kept


def test_german_nouns_are_no_names_but_abbreviations_are() -> None:
    passages = [opened("Das Osttor öffnet um 06:15 an Werktagen.", language="de")]
    assert supported("Das Osttor öffnet um 06:15 am Morgen. [1]", passages)[1]
    assert not supported("Das Osttor der ABC öffnet um 06:15. [1]", passages)[1]


def test_a_sentence_that_stands_in_two_documents_is_quoted_once() -> None:
    text = "The east gate opens at 06:15."
    quotes = pick(
        [opened(text), opened(text, document="b" * 32), opened("The gate opens late. ", document="c" * 32)], limit=3
    )
    assert [quote.text for quote in quotes] == [text, "The gate opens late."]


def test_three_sentences_are_quoted_where_their_passages_are_as_good() -> None:
    text = "The gate opens early on Friday. Nobody waits at the gate then. Dogs wait in the yard. The gate is red now."
    assert "gate" in " ".join(quote.text for quote in pick([opened(text)], limit=3))
    assert sum(quote.text.count("gate") for quote in pick([opened(text)], limit=3)) == 3


def test_one_quote_under_two_claims_keeps_its_number() -> None:
    passage = opened("The gate opens early. Dogs wait.")
    quote = Quote(passage, 0, 21, 1.0)
    text, citations = compose([("First.", [quote]), ("Second.", [quote])])
    assert text == "First. [1] Second. [1]"
    assert [each.index for each in citations] == [1]
    assert citations[0].claims == ((0, 6), (11, 18))
    assert citations[0].marks == ((7, 10), (19, 22))


def test_several_marks_of_one_claim_stand_together() -> None:
    passage = opened("The gate opens early. Dogs wait.")
    text, _ = compose([("Both.", [Quote(passage, 0, 21, 1.0), Quote(passage, 22, 32, 1.0)])])
    assert text == "Both. [1][2]"


def test_the_sentence_that_holds_the_questions_words_is_the_one_quoted() -> None:
    (quote, *_) = pick([opened("Dogs wait in the yard. The east gate opens at 06:15. Friday is calm.")], limit=1)
    assert quote.text == "The east gate opens at 06:15."


def test_a_passage_without_a_word_of_the_question_gives_no_answer() -> None:
    assert extractive([opened("Dogs wait in the yard all day long.")], limit=3) == ("", [])


def test_quotes_of_one_document_come_in_reading_order() -> None:
    text = "The gate opens early. Nobody is there at all. The gate opens again after lunch."
    quotes = pick([opened(text)], limit=3)
    assert [each.start for each in quotes] == sorted(each.start for each in quotes)


def test_what_supports_an_answer_is_the_best_passage_and_the_threshold_always_acts() -> None:
    weak, strong = opened("x", support=0.6), opened("x", support=1.3)
    assert enough([weak, strong], 1.3)
    assert not enough([weak], 0.61)
    assert not enough([], 0.0)
    assert confidence([weak, strong], GENERAL) == GENERAL.confidence(1.3) > confidence([weak], GENERAL)
    assert confidence([], GENERAL) == 0.0


@given(st.floats(-5, 5))
def test_confidence_stays_between_nothing_and_one(support: float) -> None:
    assert 0 < confidence([opened("x", support=support)], GENERAL) < 1


def test_an_abstention_speaks_the_questions_language_and_english_otherwise() -> None:
    assert abstention("de").startswith("Die Dokumente")
    assert abstention("xx") == abstention("und") == NOT_FOUND["en"]
