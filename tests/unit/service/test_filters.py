"""Filters: each comparison, how they join, and what is refused rather than misread."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidRequestError
from service.filters import known, parse

VALUES: dict[str, Any] = {"team": "legal", "year": 2026, "draft": False, "jurisdiction": ["DE", "FR"]}


@pytest.mark.parametrize(
    ("kind", "key", "value", "holds"),
    [
        ("eq", "team", "legal", True),
        ("eq", "team", "Legal", False),
        ("ne", "team", "sales", True),
        ("ne", "missing", "x", True),
        ("eq", "missing", "x", False),
        ("gt", "year", 2025, True),
        ("gt", "year", 2026, False),
        ("gte", "year", 2026, True),
        ("lt", "year", 2026.5, True),
        ("lte", "year", 2025, False),
        ("lt", "team", 5, False),
        ("gt", "team", "kappa", True),
        ("in", "team", ["sales", "legal"], True),
        ("nin", "team", ["sales", "legal"], False),
        ("nin", "missing", ["x"], True),
        ("eq", "draft", False, True),
        ("eq", "draft", 0, False),
        ("eq", "jurisdiction", "FR", True),
        ("nin", "jurisdiction", ["FR"], False),
    ],
)
def test_a_comparison_holds_or_not(kind: str, key: str, value: Any, holds: bool) -> None:
    assert parse({"type": kind, "key": key, "value": value}).holds(VALUES) is holds


def test_comparisons_join() -> None:
    legal = {"type": "eq", "key": "team", "value": "legal"}
    old = {"type": "lt", "key": "year", "value": 2000}
    assert not parse({"type": "and", "filters": [legal, old]}).holds(VALUES)
    assert parse({"type": "or", "filters": [old, {"type": "and", "filters": [legal]}]}).holds(VALUES)


def deep(levels: int) -> Any:
    return {"type": "eq", "key": "a", "value": 1} if not levels else {"type": "and", "filters": [deep(levels - 1)]}


@pytest.mark.parametrize(
    "given",
    [
        None,
        [],
        "team = legal",
        {},
        {"type": "like", "key": "a", "value": "b"},
        {"type": "eq", "key": "a"},
        {"type": "eq", "key": 1, "value": 1},
        {"type": "eq", "key": "a", "value": [1]},
        {"type": "eq", "key": "a", "value": None},
        {"type": "in", "key": "a", "value": "b"},
        {"type": "in", "key": "a", "value": []},
        {"type": "gt", "key": "a", "value": True},
        {"type": "and", "filters": []},
        {"type": "and", "filters": {}},
        {"type": "and", "filters": [], "key": "a"},
        {"type": "eq", "key": "a", "value": 1, "more": 1},
        deep(9),
        {"type": "or", "filters": [{"type": "eq", "key": "a", "value": 1}] * 101},
    ],
)
def test_what_is_no_filter_is_refused(given: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(given)
    assert caught.value.param == "filters"


def test_an_unknown_attribute_is_an_error_that_names_the_known_ones() -> None:
    wanted = parse({"type": "or", "filters": [{"type": "eq", "key": "taem", "value": "x"}]})
    with pytest.raises(InvalidRequestError) as caught:
        known(wanted, ["team"])
    assert "taem" in str(caught.value)
    assert "team" in caught.value.hint
    known(wanted, ["taem"])


@given(st.sampled_from(["eq", "in", "gt", "lt"]), st.text() | st.integers(), st.text() | st.integers())
def test_a_comparison_and_its_opposite_never_agree(kind: str, own: Any, value: Any) -> None:
    opposite = {"eq": "ne", "in": "nin", "gt": "lte", "lt": "gte"}[kind]
    asked = [value] if kind == "in" else value
    one, other = (parse({"type": each, "key": "a", "value": asked}) for each in (kind, opposite))
    held = [each.holds({"a": own}) for each in (one, other)]
    assert held.count(True) == (0 if isinstance(own, str) != isinstance(value, str) and kind in "gtlt" else 1)
