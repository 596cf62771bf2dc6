"""Filters in OpenAI's shape: comparisons on attributes, joined by `and` and `or`; pure.

Rules kept here: an unknown attribute is an error and never an empty result; a number is compared with numbers, a text
with texts; a Document that lacks the attribute meets no comparison but `ne` and `nin`. Source: openai/openai-openapi,
ComparisonFilter and CompoundFilter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.errors import InvalidRequestError

Values = Mapping[str, Any]
DEEPEST: Final = 8
MOST: Final = 100
"""Comparisons in one filter."""
_ORDERED: Final = frozenset({"gt", "gte", "lt", "lte"})
_LISTED: Final = frozenset({"in", "nin"})
_SINGLE: Final = frozenset({"eq", "ne"}) | _ORDERED


@dataclass(frozen=True, slots=True)
class Comparison:
    """One attribute against one value, or a list of them."""

    kind: str
    key: str
    value: Any

    def holds(self, values: Values) -> bool:
        """Say whether a Document with these attributes meets it."""
        own = values.get(self.key)
        owned = own if isinstance(own, (list, tuple)) else [own]
        match self.kind:
            case "eq":
                return any(_same(each, self.value) for each in owned)
            case "ne":
                return not any(_same(each, self.value) for each in owned)
            case "in":
                return any(_same(each, wanted) for each in owned for wanted in self.value)
            case "nin":
                return not any(_same(each, wanted) for each in owned for wanted in self.value)
        return any(_ordered(self.kind, each, self.value) for each in owned)


@dataclass(frozen=True, slots=True)
class Compound:
    """Several of them: all (`and`) or at least one (`or`)."""

    kind: str
    parts: tuple["Comparison | Compound", ...]

    def holds(self, values: Values) -> bool:
        """Say whether a Document with these attributes meets it."""
        return (all if self.kind == "and" else any)(part.holds(values) for part in self.parts)


Filter = Comparison | Compound


def parse(given: Any) -> Filter:
    """Read a filter. Raises `InvalidRequestError` naming what is wrong with it."""
    left = [MOST]
    return _parse(given, DEEPEST, left)


def keys(wanted: Filter) -> frozenset[str]:
    """Name every attribute that a filter asks about."""
    if isinstance(wanted, Comparison):
        return frozenset({wanted.key})
    return frozenset().union(*(keys(part) for part in wanted.parts))


def _parse(given: Any, depth: int, left: list[int]) -> Filter:
    if not isinstance(given, dict) or depth == 0:
        raise _wrong("is an object with a `type`" if depth else f"is nested deeper than {DEEPEST}")
    kind = given.get("type")
    if kind in ("and", "or"):
        parts = given.get("filters")
        if set(given) != {"type", "filters"} or not isinstance(parts, list) or not parts:
            raise _wrong(f"of type `{kind}` holds a list `filters` and nothing else")
        return Compound(kind, tuple(_parse(part, depth - 1, left) for part in parts))
    left[0] -= 1
    if left[0] < 0:
        raise _wrong(f"holds more than {MOST} comparisons")
    key, value = given.get("key"), given.get("value")
    if set(given) != {"type", "key", "value"} or not isinstance(key, str):
        raise _wrong("holds `type`, `key` and `value`, or `type` and `filters`")
    if kind in _LISTED:
        if not isinstance(value, list) or not value or not all(_plain(each) for each in value):
            raise _wrong(f"of type `{kind}` takes a list of texts, numbers or booleans")
    elif kind in _SINGLE:
        if not _plain(value) or (kind in _ORDERED and isinstance(value, bool)):
            raise _wrong(f"of type `{kind}` takes one value")
    else:
        raise _wrong("is of a type that is not known", hint="eq, ne, gt, gte, lt, lte, in, nin, and, or")
    return Comparison(str(kind), key, value)


def _plain(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool))


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _ordered(kind: str, own: Any, value: Any) -> bool:
    if isinstance(own, bool) or own is None or isinstance(own, str) != isinstance(value, str):
        return False
    return bool({"gt": own > value, "gte": own >= value, "lt": own < value, "lte": own <= value}[kind])


def _wrong(what: str, *, hint: str = "") -> InvalidRequestError:
    return InvalidRequestError(f"a filter {what}", param="filters", hint=hint or "see docs/api.md")


def known(wanted: Filter, names: Sequence[str]) -> None:
    """Raise `InvalidRequestError` for an attribute that no Document here has; never an empty result instead."""
    unknown = sorted(keys(wanted) - set(names))
    if unknown:
        raise InvalidRequestError(
            f"no document here has the attribute `{unknown[0][:64]}`",
            param="filters",
            hint=f"known: {', '.join(sorted(names)[:30])}",
        )
