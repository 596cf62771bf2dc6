"""Zones: which place in law lies inside which, on a given day.

The table is data (`policies/zones.toml`): each edge has its first day, its last day if known, and its source. A Zones
object speaks for one instant; `at` gives the same table at another, and `next_change` says when its answers end.
Unknown codes raise: a missing edge refuses, and a misspelt Zone must not pass for one.
"""

import difflib
import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

from residency.errors import ZoneError

KINDS: Final = ("place", "group", "scheme")
"""A country or part of one; a union of countries; the bodies covered by a partial adequacy decision."""
_EDGE_KEYS: Final = frozenset({"zone", "zones", "within", "from", "until", "source", "scope", "contested"})


@dataclass(frozen=True, slots=True)
class Edge:
    """`zone` lies within `within` from the day `first` to the day `last` (None: no end known), both included, UTC."""

    zone: str
    within: str
    first: date
    last: date | None
    source: str
    scope: str = ""
    contested: bool = False

    def holds(self, day: date) -> bool:
        """Say whether the edge is in force on that day."""
        return self.first <= day and (self.last is None or day <= self.last)


class Zones:
    """The table at one instant. `digest` is SHA-256 over the file's bytes, whatever the instant."""

    def __init__(
        self,
        edges: tuple[Edge, ...],
        kinds: Mapping[str, str],
        traps: Mapping[str, str],
        *,
        digest: str,
        on: datetime,
    ) -> None:
        self.digest = digest
        self.on = on
        self._edges, self._kinds, self._traps = edges, kinds, traps
        self._parents: dict[str, set[str]] = {code: set() for code in kinds}
        for edge in edges:
            if edge.holds(on.astimezone(UTC).date()):
                self._parents[edge.zone].add(edge.within)
        self._above = {code: self._closure(code) for code in kinds}

    @classmethod
    def load(cls, path: Path, *, on: datetime | None = None) -> "Zones":
        """Read `zones.toml` as it stands on `on` (default: now). Raises `ZoneError` on a table that cannot be right."""
        try:
            return cls.parse(path.read_bytes(), on=on)
        except OSError as error:
            raise ZoneError(f"{path.name} cannot be read", hint="check the path of the policies folder") from error

    @classmethod
    def parse(cls, raw: bytes, *, on: datetime | None = None) -> "Zones":
        """Build the table from the bytes of a `zones.toml`."""
        try:
            table = tomllib.loads(raw.decode())
        except ValueError as error:
            raise ZoneError(f"zones.toml is no TOML: {error}", hint="mend the file") from error
        edges = tuple(edge for entry in table.get("edge", []) for edge in _edges(entry))
        kinds = {code: "place" for edge in edges for code in (edge.zone, edge.within)}
        for entry in table.get("zone", []):
            kind = entry.get("kind", "place")
            if kind not in KINDS:
                raise ZoneError(f"zones.toml: {kind!r} is no kind of Zone", hint=f"write one of {', '.join(KINDS)}")
            kinds.update(dict.fromkeys(entry["codes"], kind))
        if not edges:
            raise ZoneError("zones.toml holds no edge", hint="restore the shipped file")
        _refuse_cycles(edges)
        traps = {entry["code"]: entry["use"] for entry in table.get("trap", [])}
        digest = "sha256:" + hashlib.sha256(raw).hexdigest()
        return cls(edges, kinds, traps, digest=digest, on=on or datetime.now(UTC))

    def at(self, on: datetime) -> "Zones":
        """Give the same table at another instant."""
        return Zones(self._edges, self._kinds, self._traps, digest=self.digest, on=on)

    def without(self, code: str) -> "Zones":
        """Give the table as if no edge led out of `code`: the what-if of an annulled decision, never for rulings."""
        self.check(code)
        left = tuple(edge for edge in self._edges if edge.zone != code)
        return Zones(left, self._kinds, self._traps, digest=self.digest, on=self.on)

    @property
    def codes(self) -> frozenset[str]:
        """Every code the table knows."""
        return frozenset(self._kinds)

    @property
    def next_change(self) -> datetime | None:
        """The next instant at which an edge begins or ends, or None."""
        days = [edge.first for edge in self._edges]
        days += [edge.last + timedelta(days=1) for edge in self._edges if edge.last is not None]
        instants = (datetime.combine(day, time(), UTC) for day in days)
        return min((instant for instant in instants if instant > self.on), default=None)

    def edges(self) -> tuple[Edge, ...]:
        """Give every edge, in force or not, as reports print them."""
        return self._edges

    def kind(self, code: str) -> str:
        """Say what a Zone is: `place`, `group` or `scheme`."""
        return self._kinds[self.check(code)]

    def known(self, code: str) -> bool:
        """Say whether the table knows this code."""
        return code in self._kinds

    def check(self, code: str) -> str:
        """Give the code back, or raise `ZoneError` whose hint names the right or the nearest one."""
        if code in self._kinds:
            return code
        shown = code if len(code) <= 20 and code.isascii() and code.isprintable() else "a code"
        right = self._traps.get(code) or self._traps.get(code.upper())
        near = right or next(iter(difflib.get_close_matches(code.upper(), self._kinds, n=1, cutoff=0.6)), "")
        hint = (
            f"write {near}"
            if right
            else f"did you mean {near}?"
            if near
            else "codes are those of ISO 3166 (DE, not Germany)"
        )
        raise ZoneError(f"{shown} is no known Zone", hint=hint)

    def parents(self, code: str) -> frozenset[str]:
        """Give the Zones that directly hold this one now."""
        return frozenset(self._parents[self.check(code)])

    def ancestors(self, code: str) -> frozenset[str]:
        """Give every Zone that holds this one now, without itself."""
        return self._above[self.check(code)]

    def within(self, inner: str, outer: str) -> bool:
        """Say whether `inner` lies in `outer` now; every Zone lies in itself."""
        self.check(outer)
        return inner == outer or outer in self.ancestors(inner)

    def intersect(self, left: frozenset[str], right: frozenset[str]) -> frozenset[str]:
        """Give the Zones that lie inside both sets: of each nested pair the inner one, and of those the outermost."""
        common = {a if self.within(a, b) else b for a in left for b in right if self.within(a, b) or self.within(b, a)}
        return self.outermost(common)

    def outermost(self, codes: Iterable[str]) -> frozenset[str]:
        """Drop every Zone that lies in another of the set: the shortest way to write the same place."""
        held = frozenset(codes)
        return frozenset(code for code in held if not (self.ancestors(code) & held))

    def _closure(self, code: str) -> frozenset[str]:
        found: set[str] = set()
        waiting = list(self._parents[code])
        while waiting:
            parent = waiting.pop()
            if parent not in found:
                found.add(parent)
                waiting.extend(self._parents[parent])
        return frozenset(found)


def _edges(entry: dict[str, Any]) -> list[Edge]:
    """Read one [[edge]]; an unknown key, a missing source or a date with a time of day is refused."""
    inner = entry.get("zones") or [entry.get("zone", "?")]
    name = f"zones.toml, edge of {inner[0]}"
    if extra := entry.keys() - _EDGE_KEYS:
        raise ZoneError(f"{name}: unknown key {sorted(extra)[0]}", hint=f"known keys: {', '.join(sorted(_EDGE_KEYS))}")
    if ("zone" in entry) == ("zones" in entry) or not entry.get("within") or not entry.get("source"):
        raise ZoneError(f"{name}: it needs zone or zones, within and source", hint="see the head of the file")
    first, last = entry.get("from"), entry.get("until")
    if type(first) is not date or (last is not None and type(last) is not date):
        raise ZoneError(f"{name}: from and until are days (2026-01-31), and from is needed", hint="mend the dates")
    rest = {"source": entry["source"], "scope": entry.get("scope", ""), "contested": bool(entry.get("contested"))}
    return [Edge(code, entry["within"], first, last, **rest) for code in inner]


def _refuse_cycles(edges: tuple[Edge, ...]) -> None:
    """Raise when a Zone would lie in itself, on whatever days: Cedar would refuse such a graph without saying where."""
    above: dict[str, set[str]] = {}
    for edge in edges:
        above.setdefault(edge.zone, set()).add(edge.within)
    for start, parents in above.items():
        seen: set[str] = set()
        waiting = list(parents)
        while waiting:
            code = waiting.pop()
            if code == start:
                raise ZoneError(f"zones.toml: {start} would lie within itself", hint="remove one edge of the circle")
            if code not in seen:
                seen.add(code)
                waiting.extend(above.get(code, ()))
