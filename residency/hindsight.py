"""Hindsight: a recorded period judged once more, under the law as it was and under a law that is changed.

Rules kept here: what is re-ruled are the steps of Receipts, as they were done: Action, Site, Tags, activity, day; each
under the rules and the table of Zones that its Receipt names, on its own day unless another is asked for; a step whose
rules are not kept is counted as not judged. Both rulings come from the same court, so that only the change of law can
make a difference. Nobody's identity is needed: the asker is taken as registered.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any, Final, Protocol

from residency.decision import Ask, Basis, Principal
from residency.errors import DomicileError, PolicyError, ZoneError
from residency.fleet import Fleet
from residency.impact import Court
from residency.invariants import Question
from residency.policy import PolicySet, Ruling
from residency.product import Product
from residency.route import Action
from residency.tag import Tag
from residency.zones import Zones

EXAMPLES: Final = 10
GROUP: Final = "GDPR-ADEQUATE"


@dataclass(frozen=True, slots=True)
class Law:
    """Rules and Zones to judge by; `on` fixes the day, None takes each step's own."""

    policy: PolicySet
    zones: Zones
    on: date | None = None

    def of(self, policy: str, zones: str) -> "Law":
        """Give itself: the same law for every Receipt, whatever digests it names. Raises nothing."""
        del policy, zones
        return self


class Laws(Protocol):
    """The law for a Receipt, by the digests of rules and Zones that it names; `Law` is one for all of them."""

    def of(self, policy: str, zones: str) -> Law:
        """Give the law. Raises `PolicyError` or `ZoneError` where it is not kept."""
        ...


@dataclass(slots=True)
class Hindsight:
    """What the changed law would have refused, and permitted, of what was done."""

    receipts: int = 0
    steps: int = 0
    refused: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    """Steps by Action, Site, Zone and reason."""
    items: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    permitted_now: int = 0
    """Refusals of the record that the changed law would have permitted."""
    unknown: Counter[str] = field(default_factory=Counter)
    """Steps that cannot be judged, by what is not known any more: a Site, a Zone."""
    touched: set[str] = field(default_factory=set)
    examples: list[str] = field(default_factory=list)
    """Ids of Receipts with a step that would have been refused."""


def without_adequacy(zones: Zones, country: str) -> Zones:
    """Give the table as if no adequacy decision for a country stood, partial ones (`US-DPF`) included."""
    zones.check(country)
    codes = {
        edge.zone
        for edge in zones.edges()
        if edge.within == GROUP and (edge.zone == country or edge.zone.startswith(f"{country}-"))
    }
    if not codes or country == "EEA":
        raise ZoneError(f"{country} has no adequacy decision in zones.toml", hint="name a country such as US, GB or CH")
    for code in sorted(codes):
        zones = zones.without(code)
    return zones


def rejudge(
    entries: Iterable[Mapping[str, Any]], fleet: Fleet, ceilings: Mapping[str, frozenset[str]], was: Laws, would: Laws
) -> Hindsight:
    """Judge the steps of these Receipts by both laws and give what differs."""
    found, before, after = Hindsight(), _Bench(was, fleet, ceilings), _Bench(would, fleet, ceilings)
    for entry in entries:
        found.receipts += 1
        when = datetime.fromisoformat(entry["time"])
        for step in (*entry["steps"], *entry["refused"]):
            done = "zone" in step
            found.steps += done
            for number in step["tag"]:
                tag = Tag.of(entry["tags"][number])
                try:
                    first = before.judge(entry, step, tag, when)
                    second = after.judge(entry, step, tag, when)
                except (PolicyError, ZoneError, KeyError) as error:
                    found.unknown[f"Site {step['site']}" if isinstance(error, KeyError) else str(error)] += 1
                    break
                if first.allowed and not second.allowed and done:
                    _put(found, entry, step, second, fleet)
                    break
                if second.allowed and not first.allowed and not done:
                    found.permitted_now += step["count"]
                    break
    return found


def _put(found: Hindsight, entry: Mapping[str, Any], step: Mapping[str, Any], ruling: Ruling, fleet: Fleet) -> None:
    reason = ", ".join(ruling.policies) or "no permit holds"
    key = (step["action"], step["site"], fleet.site(step["site"]).zone, reason)
    found.refused[key] += 1
    found.items[key] += step["count"]
    found.touched.add(entry["id"])
    if len(found.examples) < EXAMPLES and entry["id"] not in found.examples:
        found.examples.append(entry["id"])


class _Bench:
    """One law over one Fleet; a court for each set of rules and day, a ruling for each distinct step of it."""

    def __init__(self, laws: Laws, fleet: Fleet, ceilings: Mapping[str, frozenset[str]]) -> None:
        self._laws, self._fleet, self._ceilings = laws, fleet, dict(ceilings)
        self._sitting: tuple[str, str, date] | None = None
        self._law: Law | None = None
        self._court: Court | None = None
        self._rulings: dict[tuple[object, ...], Ruling] = {}

    def judge(self, entry: Mapping[str, Any], step: Mapping[str, Any], tag: Tag, when: datetime) -> Ruling:
        """Rule as it would have been ruled on that day. Raises `KeyError` for a Site that is gone, else as `of`."""
        own = when.astimezone(UTC).date()
        if self._sitting != (entry["policy"], entry["zones"], own) or self._court is None or self._law is None:
            self._court = None
            self._law = law = self._laws.of(entry["policy"], entry["zones"])
            now = datetime.combine(law.on or own, time(12), UTC)
            over = Product(self._fleet, tuple(self._fleet.sites.values()), (), (), self._ceilings, (), now)
            self._court, self._rulings = Court(law.policy, law.zones.at(now), over), {}
            self._sitting = (entry["policy"], entry["zones"], own)
        law = self._law
        now = datetime.combine(law.on or own, time(12), UTC)
        basis = _basis(entry, step)
        key = (entry["tenant"], step["action"], step["site"], tag, entry["activity"], basis)
        if key not in self._rulings:
            for code in (*tag.jurisdictions, *tag.residency):
                law.zones.check(code)
            site = self._fleet.sites[step["site"]]
            who = Principal("recorded", entry["tenant"], frozenset({entry["activity"]}))
            ask = Ask(who, Action(step["action"]), site.id, (tag,), entry["activity"], entry["tenant"], basis)
            ceiling = self._ceilings.get(entry["tenant"])
            if ceiling is None:
                raise DomicileError("this tenant is not known", hint="make it first")
            self._rulings[key] = self._court.settle(Question(ask, site, ceiling, False, now))
        return self._rulings[key]


def _basis(entry: Mapping[str, Any], step: Mapping[str, Any]) -> Basis | None:
    held = entry.get("facts", {}).get("basis")
    if step["action"] != Action.TRANSFER or not held:
        return None
    ends = datetime.fromisoformat(held["expires"]) if held.get("expires") else datetime.max.replace(tzinfo=UTC)
    return Basis(held["article"], held["instrument"], ends)
