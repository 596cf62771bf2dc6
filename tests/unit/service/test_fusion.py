"""Fusion: legs are normalised before they are added, shards by their own words, ties by id."""

from itertools import permutations
from math import log
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residency.lexicon import QuestionTokens
from residency.ports import Found, Hit
from service.fusion import SHIPPED, UNKNOWN, dense_weight, fuse, narrowed


def hit(name: str, dense: float, lexical: float) -> Hit:
    return Hit(id=name, payload={}, dense=dense, lexical=lexical)


def found(*hits: Hit, idf: dict[int, float] | None = None) -> Found:
    return Found(site="fra", hits=tuple(hits), idf=idf or {})


def asked(*stems: tuple[int, ...], prefixes: frozenset[int] = frozenset()) -> QuestionTokens:
    """A question of words, each under one id or several."""
    tokens = QuestionTokens()
    for token in [*(token for each in stems for token in each), *prefixes]:
        tokens[token] = tokens.get(token, 0.0) + 1.0
    tokens.words, tokens.prefixes = stems, prefixes
    return tokens


ONE = asked((1,))


def ranked(founds: list[Found], tokens: list[QuestionTokens], weight: float = 0.5) -> list[str]:
    return [each.hit.id for each in fuse(founds, tokens, dense_weight=weight)]


def test_nothing_found_is_nothing_joined() -> None:
    assert fuse([], [], dense_weight=0.5) == []
    assert fuse([found()], [asked()], dense_weight=0.5) == []


def test_both_legs_count_by_their_weight() -> None:
    both = [found(hit("words", 0.2, 4.0), hit("sense", 0.8, 0.0), idf={1: 4.0})]
    assert ranked(both, [ONE], weight=0.2) == ["words", "sense"]
    assert ranked(both, [ONE], weight=0.9) == ["sense", "words"]


def test_a_shards_words_are_measured_by_its_own_statistics() -> None:
    large = found(hit("large", 0.5, 10.0), idf={1: 20.0})
    small = found(hit("small", 0.5, 2.0), idf={1: 2.0})
    assert ranked([large, small], [ONE, ONE]) == ["small", "large"]


def test_ties_are_broken_by_id_whatever_the_order_of_shards() -> None:
    founds = [found(hit(name, 0.5, 0.0)) for name in "cab"]
    assert {tuple(ranked(list(order), [asked()] * 3)) for order in permutations(founds)} == {("a", "b", "c")}


def test_words_that_no_passage_holds_leave_sense_alone_to_decide() -> None:
    (one, two) = fuse([found(hit("a", 0.3, 0.0), hit("b", 0.6, 0.0), idf={1: 0.0})], [ONE], dense_weight=0.5)
    assert (one.hit.id, two.hit.id) == ("b", "a")
    assert one.sense == 0.6


def test_each_hit_remembers_the_shard_it_came_from() -> None:
    joined = fuse([found(hit("a", 0.1, 0.0)), found(hit("b", 0.9, 0.0))], [asked(), asked()], dense_weight=0.5)
    assert [(each.hit.id, each.source) for each in joined] == [("b", 1), ("a", 0)]


def test_the_mass_of_a_question_counts_a_word_as_often_as_it_was_asked_and_its_first_letters_half() -> None:
    worth, mass = asked((1,), (2,), (2,), (9,), prefixes=frozenset({5})).shares({1: 2.0, 2: 0.5, 5: 3.0})
    assert mass == 2.0 + 0.5 + 0.5 + 1.5
    assert worth == {1: 2.0, 2: 0.5, 9: 0.0, 5: 1.5}


def test_a_word_stemmed_in_two_languages_weighs_no_more_than_in_the_one_that_passages_hold() -> None:
    idf = {1: 2.0, 11: 7.0}  # no passage holds 11, so it counts as the rarest of all
    assert asked((1, 11)).shares(idf)[1] == asked((1,)).shares(idf)[1]


def test_a_words_rarity_is_that_among_passages_of_the_questions_language() -> None:
    def idf(n: int, df: int) -> float:
        return log(1 + (n - df + 0.5) / (df + 0.5))  # as Qdrant counts it

    mixed, alone = {df: idf(229, df) for df in (0, 3, 100, 116)}, {df: idf(116, df) for df in (0, 3, 100, 116)}
    assert narrowed(mixed, "en", {"en": 116, "de": 113}) == pytest.approx(alone)
    assert narrowed(mixed, "fi", {"en": 116, "de": 113}) == narrowed(mixed, "en", {"en": 229}) == mixed
    assert narrowed({1: 0.1}, "en", {"en": 1, "de": 113}) == {1: 0.0}


def test_the_dense_leg_counts_as_the_model_knows_the_languages_and_less_where_nobody_measured() -> None:
    (bundled,) = SHIPPED.values()
    assert dense_weight(bundled, "en", ["en"]) == 0.5
    assert dense_weight(bundled, "de", ["de", "en"]) == 0.3
    assert dense_weight(bundled, "en", ["de"]) == 0.3  # the passages are what it knows little
    assert dense_weight(bundled, "und", ["en"]) == dense_weight(bundled, "en", ["fi"]) == UNKNOWN
    assert dense_weight({}, "en", ["en"]) == UNKNOWN
    assert dense_weight({"fi": 0.0}, "fi", ["fi"]) == 0.0


HITS = st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 50)), max_size=8)


@given(st.lists(HITS, max_size=3), st.floats(0, 1), st.floats(0.1, 20))
def test_scores_lie_between_nothing_and_one_and_come_in_order(shards: list[Any], weight: float, idf: float) -> None:
    founds = [
        found(*(hit(f"{s}-{n}", dense, words) for n, (dense, words) in enumerate(hits)), idf={1: idf})
        for s, hits in enumerate(shards)
    ]
    joined = fuse(founds, [ONE] * len(founds), dense_weight=weight)
    assert len(joined) == sum(map(len, shards))
    assert all(0 <= each.score <= 1 + 1e-9 for each in joined)
    assert all(each.sense >= 0 for each in joined)
    assert [each.score for each in joined] == sorted((each.score for each in joined), reverse=True)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_leg_of_weight_nothing_has_no_say(weight: float) -> None:
    founds = [found(hit("words", 0.1, 9.0), hit("sense", 0.9, 0.1), idf={1: 9.0})]
    assert ranked(founds, [ONE], weight=weight)[0] == ("sense" if weight else "words")
