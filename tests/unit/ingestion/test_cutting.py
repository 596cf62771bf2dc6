"""Overlap: what is embedded of the Passage before, and what stays as it is."""

from ingestion.cutting import overlapped
from ingestion.splitter import Piece


def piece(number: int, text: str, heading: str) -> Piece:
    return Piece(number, text, 0, len(text), 1, heading, "en")


def test_a_passage_is_embedded_behind_the_last_words_of_its_neighbour_under_the_same_heading() -> None:
    pieces = [piece(0, "one two  three", "A"), piece(1, "four five", "A"), piece(2, "six", "B")]
    assert [each.text for each in overlapped(pieces, 2)] == ["one two  three", "two  three four five", "six"]
    assert overlapped(pieces, 0) == pieces and overlapped([], 3) == []
    assert [(each.start, each.end) for each in overlapped(pieces, 2)] == [(each.start, each.end) for each in pieces]
