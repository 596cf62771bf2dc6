"""tally: what the Receipts of a period add up to.

Rules kept here: every number is counted from Receipts, a stream's two Receipts count as one question, and what cannot
be shown to lie inside its Tag's residency counts as outside it. One walk, of which only numbers are kept: memory grows
with Sites, clauses and events, not with Receipts. No IO.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from residency.errors import ZoneError
from residency.fleet import Fleet
from residency.zones import Zones

APART: Final = ("transfer", "erase")
"""Actions that no residency bounds: a transfer leaves it by its nature, an erasure may happen anywhere."""
MOST_EVENTS: Final = 10_000
"""Events of one kind that a report lists one by one; beyond that it gives their count."""


@dataclass(slots=True)
class Recipient:
    """An operator's Site to which data of an activity went: what was done there, how often, from when to when."""

    site: str
    kind: str
    zone: str
    operator: str
    operator_zone: str
    parent_zone: str
    actions: Counter[str] = field(default_factory=Counter)
    items: int = 0
    bytes: int = 0
    first: str = ""
    last: str = ""
    grade: int = 6


@dataclass(slots=True)
class Activity:
    """What one entry of the Art. 30 register did in the period."""

    receipts: int = 0
    first: str = ""
    last: str = ""
    recipients: dict[tuple[str, str], Recipient] = field(default_factory=dict)
    categories: set[str] = field(default_factory=set)
    jurisdictions: set[str] = field(default_factory=set)
    personal: bool = False
    transfers: int = 0


@dataclass(slots=True)
class Tally:
    """What one walk through the Receipts gives. `flows` maps (action, Zone, ruling) to [steps, items, bytes]."""

    receipts: int = 0
    questions: int = 0
    searches: int = 0
    refusals: int = 0
    withheld: int = 0
    outside: int = 0
    probes: int = 0
    reconciled: int = 0
    lowest: int | None = None
    first_seq: int | None = None
    last_seq: int | None = None
    gaps: list[list[int]] = field(default_factory=list)
    flows: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)
    read: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_policy: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    intervals: list[dict[str, Any]] = field(default_factory=list)
    transfers: list[dict[str, Any]] = field(default_factory=list)
    erasures: list[dict[str, Any]] = field(default_factory=list)
    keys: list[dict[str, Any]] = field(default_factory=list)
    violations: list[dict[str, Any]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """Events beyond `MOST_EVENTS`, by the list they are missing from."""
    activities: dict[str, Activity] = field(default_factory=dict)
    begun: dict[str, str] = field(default_factory=dict)
    lowest_by_path: dict[tuple[str, ...], int] = field(default_factory=dict)
    """Lowest grade by the path of an entry: its Sites, in the order of their ids."""


class Counting:
    """One walk. `add` takes a tenant's Receipts in the order of their numbers; `found` is what they add up to."""

    def __init__(self, fleet: Fleet, zones: Zones) -> None:
        self.found = Tally()
        self._fleet = fleet
        self._zones = zones
        self._days: dict[str, Zones] = {}
        self._inside: dict[tuple[str, tuple[str, ...], tuple[str, ...]], bool] = {}

    def add(self, entry: Mapping[str, Any]) -> None:
        """Count one Receipt."""
        found, facts, kind = self.found, entry.get("facts") or {}, entry["kind"]
        found.receipts += 1
        found.withheld += entry["withheld"]
        self._seq(entry["seq"])
        if "begun" in facts:  # the second receipt of a stream; its first was counted
            found.begun.pop(facts["begun"], None)
        else:
            found.questions += kind == "answer"
            found.searches += kind == "search"
        if facts.get("stream") == "begun":
            found.begun[entry["id"]] = entry["time"]
        if kind in ("erase", "key", "probe"):
            self._event(entry, facts)
        self._interval(entry)
        if entry["steps"]:
            self._steps(entry, facts)
        for refused in entry["refused"]:
            self._refused(refused)

    def _seq(self, seq: int) -> None:
        found = self.found
        if found.first_seq is None:
            found.first_seq = seq
        elif found.last_seq is not None and seq - found.last_seq > 1:
            self._keep("gaps", found.gaps, [found.last_seq + 1, seq - 1])
        found.last_seq = seq

    def _keep(self, name: str, events: list[Any], event: Any) -> None:
        if len(events) < MOST_EVENTS:
            events.append(event)
        else:
            self.found.left_out[name] += 1

    def _event(self, entry: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        found = self.found
        event = {"receipt": entry["id"], "time": entry["time"], "subject": entry.get("subject", ""), "facts": facts}
        match entry["kind"]:
            case "erase":
                self._keep("erasures", found.erasures, event)
            case "key":
                self._keep("keys", found.keys, event)
            case _:
                found.probes += 1
                found.reconciled += facts.get("event") == "reconciled"

    def _interval(self, entry: Mapping[str, Any]) -> None:
        """Digests in force, as stretches of Receipts that name the same ones."""
        last = self.found.intervals[-1] if self.found.intervals else None
        if (
            last is not None
            and last["policy"] == entry["policy"]
            and last["zones"] == entry["zones"]
            and last["fleet"] == entry["fleet"]
            and last["software"] == entry["software"]
        ):
            last["to"] = entry["time"]
            return
        rules = {name: entry[name] for name in ("policy", "zones", "fleet", "software")}
        stretch = {"from": entry["time"], "to": entry["time"], **rules}
        self._keep("rules", self.found.intervals, stretch)

    def _steps(self, entry: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        found, time, every = self.found, entry["time"], entry["tags"]
        activity = found.activities.get(entry["activity"]) or found.activities.setdefault(entry["activity"], Activity())
        activity.receipts += 1
        activity.first = activity.first or time
        activity.last = time
        for tag in every:
            activity.personal = activity.personal or tag["personal"]
            activity.categories.update(tag["categories"])
            activity.jurisdictions.update(tag["jurisdictions"])
        read: set[tuple[str, str]] = set()
        sites: set[str] = set()
        lowest = 6
        for step in entry["steps"]:
            action, zone, site, count = step["action"], step["zone"], step["site"], step["count"]
            flow = found.flows.get((action, zone, "permitted")) or found.flows.setdefault(
                (action, zone, "permitted"), [0, 0, 0]
            )
            flow[0] += 1
            flow[1] += count
            flow[2] += step["bytes"]
            sites.add(site)
            if step["grade"] < lowest:
                lowest = step["grade"]
            if action == "open":
                found.reasons[step.get("reason", "not stated")] += count
            elif action == "search":
                read.update(("+".join(every[number]["jurisdictions"]), site) for number in step["tag"])
            if action == "transfer":
                found.outside += count or 1
                activity.transfers += 1
                tags = [every[number] for number in step["tag"]]
                self._keep("transfers", found.transfers, _transfer(entry, step, tags, facts))
            elif action not in APART and not self._within(step, every, time[:10]):
                found.outside += count or 1
                self._keep("violations", found.violations, _violation(entry, step))
            self._recipient(activity, step, time)
        path = tuple(sorted(sites))
        found.lowest_by_path[path] = min(lowest, found.lowest_by_path.get(path, 6))
        if found.lowest is None or lowest < found.lowest:
            found.lowest = lowest
        if read and entry["kind"] in ("answer", "search") and "begun" not in facts:
            found.read.update(read)

    def _recipient(self, activity: Activity, step: Mapping[str, Any], time: str) -> None:
        kind = step.get("kind", "")
        who = activity.recipients.get((step["site"], kind))
        if who is None:
            operator, parent = step["operator"], step["parent"]
            who = Recipient(step["site"], kind, step["zone"], operator["name"], operator["zone"], parent["zone"])
            who.first = time
            activity.recipients[step["site"], kind] = who
        who.actions[step["action"]] += 1
        who.items += step["count"]
        who.bytes += step["bytes"]
        who.last = time
        if step["grade"] < who.grade:
            who.grade = step["grade"]

    def _within(self, step: Mapping[str, Any], every: Sequence[Mapping[str, Any]], day: str) -> bool:
        codes = tuple(step.get("zones") or (step["zone"],))
        for number in step["tag"]:
            key = (day, codes, tuple(every[number]["residency"]))
            known = self._inside.get(key)
            if known is None:
                known = self._inside[key] = self._look(*key)
            if not known:
                return False
        return True

    def _look(self, day: str, codes: tuple[str, ...], residency: tuple[str, ...]) -> bool:
        if day not in self._days:  # edges begin and end with a day, and making the table is dear
            self._days = {day: self._zones.at(datetime.fromisoformat(f"{day}T12:00:00Z"))}
        try:
            return any(self._days[day].within(code, outer) for code in codes for outer in residency)
        except ZoneError:  # a Zone that the table no longer knows cannot be shown to lie inside
            return False

    def _refused(self, refused: Mapping[str, Any]) -> None:
        found, count = self.found, refused["count"]
        site = self._fleet.sites.get(refused["site"])
        flow = found.flows.setdefault((refused["action"], site.zone if site else "unknown", "refused"), [0, 0, 0])
        flow[0] += count
        found.refusals += count
        for policy in refused["policies"] or ["no policy permits it"]:
            places = found.by_policy.setdefault(policy, Counter())
            places[refused["action"], refused["site"]] += count


def tally(entries: Iterable[Mapping[str, Any]], fleet: Fleet, zones: Zones) -> Tally:
    """Walk once through a tenant's Receipts, in the order of their numbers."""
    counting = Counting(fleet, zones)
    for entry in entries:
        counting.add(entry)
    return counting.found


def _transfer(
    entry: Mapping[str, Any], step: Mapping[str, Any], tags: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """One row of the transfer log; None where nothing was recorded."""
    basis = facts.get("basis") or {}
    return {
        "receipt": entry["id"],
        "time": entry["time"],
        "activity": entry["activity"],
        "exporter": facts.get("exporter"),
        "from": facts.get("from"),
        "importer": step["operator"],
        "importer_parent": step["parent"],
        "to": step["zone"],
        "onward": facts.get("onward"),
        "site": step["site"],
        "jurisdictions": sorted({code for tag in tags for code in tag["jurisdictions"]}),
        "categories": sorted({code for tag in tags for code in tag["categories"]}),
        "personal": any(tag["personal"] for tag in tags),
        "tags": [dict(tag) for tag in tags],
        "subjects": facts.get("subjects"),
        "count": step["count"],
        "bytes": step["bytes"],
        "basis": facts.get("basis"),
        "mechanism": basis.get("article"),
        "instrument": basis.get("instrument"),
        "version": basis.get("version"),
        "expires": basis.get("expires"),
        "assessment": facts.get("assessment"),
        "measures": facts.get("measures"),
        "access": facts.get("access"),
        "approver": facts.get("approver", ""),
        "policies": step["policies"],
        "ruling": "permitted",
        "grade": step["grade"],
    }


def _violation(entry: Mapping[str, Any], step: Mapping[str, Any]) -> dict[str, Any]:
    """A step that its own Receipt shows outside the residency: found by counting, in the form of the kept records."""
    return {
        "id": f"{entry['id']}/{step['site']}/{step['action']}",
        "category": "location",
        "subject": entry["id"],
        "policy": entry["policy"],
        "state": "open",
        "begin": entry["time"],
        "detected": None,
        "seen": None,
        "resolved": None,
        "evidence": {
            "action": step["action"],
            "site": step["site"],
            "zone": step["zone"],
            "count": step["count"],
            "receipt": entry["id"],
        },
        "remediation": "",
        "acknowledged_by": "",
        "reason": "",
        "expires": None,
        "subjects": None,
        "records": step["count"],
        "notifiable": "not assessed",
        "receipt": entry["id"],
    }
