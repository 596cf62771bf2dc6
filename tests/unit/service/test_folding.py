"""Folding: what says the same is shown once; what differs in a figure is not the same."""

import pytest

from service.findings import Opened
from service.folding import fold, place
from tests.unit.service.test_grounding import opened

LONG = " ".join(f"The {noun} is kept in a dry room and turned every other week." for noun in "abcdefghijkl")


def named(name: str, text: str) -> Opened:
    return opened(text, document=name)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Gloves are changed after each batch.", "gloves are\nchanged after each  batch", True),
        (LONG, LONG.replace("dry", "DRY") + " Ask the warden.", True),
        (LONG + " Within 48 hours.", LONG + " Within 72 hours.", False),
        (LONG, " ".join(reversed(LONG.split())), False),
        ("Yes.", "No.", False),
        ("", "", True),
    ],
)
def test_what_says_the_same_is_shown_once_and_names_the_other_place(one: str, other: str, same: bool) -> None:
    first, second = named("first", one), named("second", other)
    shown = fold([first, second])
    assert [each.document_id for each in shown] == (["first"] if same else ["first", "second"])
    assert shown[0].also == ((place(second),) if same else ())
    assert shown[0].documents == (("first", "second") if same else ("first",))


def test_folding_again_with_more_keeps_the_places_that_were_found_before() -> None:
    one, two, three, other = (named(name, LONG) for name in ("one", "two", "three", "other"))
    again = fold([*fold([one, two]), named("last", "Something else."), *fold([three, other])])
    assert [each.document_id for each in again] == ["one", "last"]
    assert [each.document_id for each in again[0].also] == ["two", "three", "other"]
