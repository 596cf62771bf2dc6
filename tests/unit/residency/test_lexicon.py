"""Blind words rank as clear ones do, and give nothing away by their form."""

import math
from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residency.lexicon import K1, LEVELS, B, Lexicon, keyed_tag, point_id, stem, weight, words

PASSAGES = [
    "The processor shall notify the controller without undue delay after becoming aware of a personal data breach.",
    "The controller shall document any personal data breaches, their effects and the remedial action taken.",
    "A transfer to a third country may take place where an adequacy decision exists.",
    "Appropriate safeguards for a transfer may be provided by standard data protection clauses.",
    "The data subject shall have the right to erasure of personal data without undue delay.",
    "Each controller shall maintain a record of processing activities under its responsibility.",
    "Retention periods for invoices follow the tax code and end after ten years.",
    "Warehouse staff wear safety shoes; visitors sign in at the gate.",
    "Safety shoes are replaced every year, safety helmets every five years.",
    "Invoices above a threshold need two signatures before they are paid.",
]
QUESTIONS = [
    "When must a breach be notified?",
    "erasure of personal data",
    "Which safeguards allow transfers to third countries?",
    "safety shoes",
    "How long are invoices retained?",
    "records of processing by controllers",
]


def _clear_terms(text: str) -> tuple[Counter[str], Counter[str], int]:
    stream = words(text)
    return Counter(stem(w, "en") for w in stream), Counter(w[:5] for w in stream if len(w) > 5), len(stream)


def _clear_ranking(question: str) -> list[tuple[int, float]]:
    average = 20.0
    held = [_clear_terms(text) for text in PASSAGES]
    stems, prefixes, _ = _clear_terms(question)
    scores: dict[int, float] = {}
    for kind, asked, share in ((0, stems, 1.0), (1, prefixes, 0.5)):
        for term, count in asked.items():
            df = sum(term in each[kind] for each in held)
            idf = math.log(1 + (len(held) - df + 0.5) / (df + 0.5))
            for number, each in enumerate(held):
                tf = each[kind][term]
                if tf:
                    exact = tf * (K1 + 1) / (tf + K1 * (1 - B + B * each[2] / average))
                    level = min(LEVELS, key=lambda one: (abs(one - exact), -one))
                    scores[number] = scores.get(number, 0.0) + count * idf * share * level
    return sorted(scores.items(), key=lambda item: (-round(item[1], 9), item[0]))


def _blind_ranking(lexicon: Lexicon, question: str) -> list[tuple[int, float]]:
    held = [lexicon.passage(text, "en", average=20.0) for text in PASSAGES]
    scores: dict[int, float] = {}
    for token, count in lexicon.question(question, ["en"]).items():
        df = sum(token in each for each in held)
        idf = math.log(1 + (len(held) - df + 0.5) / (df + 0.5))
        for number, each in enumerate(held):
            if token in each:
                scores[number] = scores.get(number, 0.0) + count * idf * each[token]
    return sorted(scores.items(), key=lambda item: (-round(item[1], 9), item[0]))


@pytest.mark.parametrize("question", QUESTIONS)
def test_blind_words_rank_as_clear_ones_do(question: str) -> None:
    clear, blind = _clear_ranking(question), _blind_ranking(Lexicon(b"\x66" * 32), question)
    assert [number for number, _ in blind] == [number for number, _ in clear]
    assert [score for _, score in blind] == pytest.approx([score for _, score in clear])
    assert blind


def test_a_question_under_another_key_finds_nothing() -> None:
    held = Lexicon(b"\x01" * 32).passage(PASSAGES[0], "en")
    assert not set(held) & set(Lexicon(b"\x02" * 32).question(PASSAGES[0], ["en"]))


@pytest.mark.parametrize("word", ["έως", "όταν", "είτε"])
def test_a_greek_word_that_stems_to_nothing_is_kept(word: str) -> None:
    token = words(word)[0]
    assert stem(token, "el") == token
    assert stem(token, "el")


def test_greek_words_with_an_empty_stem_keep_ids_of_their_own() -> None:
    held = Lexicon(bytes(32)).passage("έως όταν είτε", "el")
    assert len(held) == 3


def test_a_question_of_unknown_language_meets_every_stemmer_of_the_collection() -> None:
    lexicon = Lexicon(bytes(32))
    held = lexicon.passage("Die Verträge wurden gekündigt", "de")
    joined = lexicon.question("Verträge", ["de", "en", "fr"])
    assert set(held) & (set(joined) - joined.prefixes)
    assert not set(held) & (set(lexicon.question("Vertrage", []).keys()) - lexicon.question("Vertrage", []).prefixes)


def test_one_word_counts_once_for_each_distinct_stem() -> None:
    lexicon = Lexicon(bytes(32))
    assert lexicon.question("haus haus", ["de", "en", "fr"])[lexicon.token("haus")] == 2.0


def test_prefixes_live_in_a_namespace_of_their_own_at_half_weight() -> None:
    lexicon = Lexicon(bytes(32))
    held = lexicon.passage("Kündigungsfrist frist", "und", average=10.0)
    prefix = lexicon.token("^kündi")
    assert held[prefix] == held[lexicon.token("kündigungsfrist")] / 2
    assert lexicon.token("kündi") not in held
    assert lexicon.question("Kündigung", ["de"]).prefixes == {prefix}
    assert not lexicon.question("frist", ["de"]).prefixes


def test_weights_stand_on_seven_levels() -> None:
    seen = {weight(count, length, 120.0) for count in range(1, 40) for length in range(1, 900, 7)}
    assert seen == set(LEVELS)


def test_words_of_the_heading_count_as_words_of_the_passage() -> None:
    lexicon = Lexicon(bytes(32))
    assert lexicon.token("urlaub") in lexicon.passage("Dauer: 30 Tage", "und", heading="Urlaub")


def test_terms_that_collide_share_an_id_and_add_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    lexicon = Lexicon(bytes(32))
    lexicon._ids.update({"eins": 7, "zwei": 7})
    assert lexicon.passage("eins zwei", "und", average=2.0) == {7: 2.0}


@pytest.mark.parametrize(
    ("text", "stream"),
    [
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("Ver\u00adtrag zusam\u200bmen", ["vertrag", "zusam", "men"]),
        ("ﬁnal ２０２６", ["final", "2026"]),
        ("a^b", ["a", "b"]),
        ("", []),
    ],
)
def test_the_token_stream_folds_forms_of_one_word(text: str, stream: list[str]) -> None:
    assert words(text) == stream


@given(st.text(max_size=300), st.sampled_from(["de", "en", "el", "fr", "ro", "tr", "und", "xx"]))
def test_any_text_gives_valid_sparse_vectors(text: str, language: str) -> None:
    lexicon = Lexicon(bytes(32))
    held = lexicon.passage(text, language)
    assert all(0 <= token < 2**32 for token in held)
    assert all(value > 0 for value in held.values())
    asked = lexicon.question(text, [language])
    assert set(asked) == set(held)


def test_a_cache_at_its_limit_starts_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("residency.lexicon.CACHED", 10)
    lexicon = Lexicon(bytes(32))
    first = lexicon.passage("alpha", "en")
    for number in range(50):
        lexicon.passage(f"word{number}", "en")
    assert len(lexicon._ids) <= 10
    assert lexicon.passage("alpha", "en") == first


def test_a_word_beyond_all_measure_has_an_id() -> None:
    assert Lexicon(bytes(32)).passage("a" * 200_000, "en")


def test_a_point_id_is_a_uuid_of_version_8_that_only_the_key_gives() -> None:
    made = UUID(point_id(bytes(32), b"\x01" * 16, 1, 0))
    assert (made.version, made.variant) == (8, "specified in RFC 4122")
    others = {point_id(*args) for args in [(b"\x01" * 32, b"\x01" * 16, 1, 0), (bytes(32), b"\x01" * 16, 2, 0)]}
    assert str(made) not in others
    assert keyed_tag(bytes(32), "tenant", "x") != keyed_tag(bytes(32), "acl", "x")


@given(
    st.text(alphabet="aäeißstnrv 1.", max_size=120),
    st.text(alphabet="aäeißstnrv 1.", max_size=20),
    st.text(max_size=20),
)
def test_what_a_passage_holds_of_a_question_is_what_is_stored_of_it(text: str, heading: str, question: str) -> None:
    lexicon = Lexicon(bytes(32))
    asked = lexicon.question(f"{question} {text[:30]}", ["de"])
    stored = lexicon.passage(text, "de", heading)
    assert lexicon.held(text, "de", heading, asked) == {token: each for token, each in stored.items() if token in asked}
