"""tally: what the Receipts of a period add up to.

Rules kept here: every number is counted from Receipts, a stream's two Receipts count as one question, and what cannot
be shown to lie inside its Tag's residency counts as outside it. No IO.
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


@dataclass(slots=True)
class Tally:
    """What one walk through the Receipts gives."""

    receipts: int = 0
    questions: int = 0
    searches: int = 0
    refusals: int = 0
    withheld: int = 0
    outside: int = 0
    seqs: list[int] = field(default_factory=list)
    flows: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    items: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    sizes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    read: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_policy: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    grades: list[int] = field(default_factory=list)
    intervals: list[dict[str, Any]] = field(default_factory=list)
    transfers: list[dict[str, Any]] = field(default_factory=list)
    erasures: list[dict[str, Any]] = field(default_factory=list)
    keys: list[dict[str, Any]] = field(default_factory=list)
    violations: list[dict[str, Any]] = field(default_factory=list)
    begun: dict[str, str] = field(default_factory=dict)
    probes: int = 0


def tally(entries: Iterable[Mapping[str, Any]], fleet: Fleet, zones: Zones) -> Tally:
    """Walk once through a tenant's Receipts, in the order of their numbers."""
    found = Tally()
    days: dict[str, Zones] = {}
    for entry in entries:
        day = entry["time"][:10]  # edges begin and end with a day, and making the table is dear
        if day not in days:
            days[day] = zones.at(datetime.fromisoformat(entry["time"]))
        facts = entry.get("facts", {})
        found.receipts += 1
        found.seqs.append(entry["seq"])
        found.withheld += entry["withheld"]
        if "begun" in facts:  # the second receipt of a stream; its first was counted
            found.begun.pop(facts["begun"], None)
        else:
            found.questions += entry["kind"] == "answer"
            found.searches += entry["kind"] == "search"
        if facts.get("stream") == "begun":
            found.begun[entry["id"]] = entry["time"]
        found.probes += entry["kind"] == "probe"
        event = {"receipt": entry["id"], "time": entry["time"], "subject": entry.get("subject", ""), "facts": facts}
        if entry["kind"] == "erase":
            found.erasures.append(event)
        if entry["kind"] == "key":
            found.keys.append(event)
        _interval(found, entry)
        _steps(found, entry, days[day])
        _refused(found, entry, fleet)
    return found


def _interval(found: Tally, entry: Mapping[str, Any]) -> None:
    """Digests in force, as stretches of Receipts that name the same ones."""
    rules = {name: entry[name] for name in ("policy", "zones", "fleet", "software")}
    if found.intervals and {name: found.intervals[-1][name] for name in rules} == rules:
        found.intervals[-1]["to"] = entry["time"]
    else:
        found.intervals.append({"from": entry["time"], "to": entry["time"], **rules})


def _steps(found: Tally, entry: Mapping[str, Any], zones: Zones) -> None:
    read = set()
    for step in entry["steps"]:
        key = (step["action"], step["zone"], "permitted")
        found.flows[key] += 1
        found.items[key] += step["count"]
        found.sizes[key] += step["bytes"]
        found.grades.append(step["grade"])
        tags = [entry["tags"][number] for number in step["tag"]]
        if step["action"] == "open":
            found.reasons[step.get("reason", "not stated")] += step["count"]
        if step["action"] == "search":
            read |= {("+".join(tag["jurisdictions"]), step["site"]) for tag in tags}
        if step["action"] == "transfer":
            found.outside += step["count"] or 1
            found.transfers.append(_transfer(entry, step, tags))
        elif step["action"] not in APART and not _inside(step, tags, zones):
            found.outside += step["count"] or 1
            found.violations.append(_violation(entry, step))
    if entry["kind"] in ("answer", "search") and "begun" not in entry.get("facts", {}):
        found.read.update(read)


def _inside(step: Mapping[str, Any], tags: Sequence[Mapping[str, Any]], zones: Zones) -> bool:
    codes = step.get("zones", [step["zone"]])
    try:
        return all(any(zones.within(code, outer) for code in codes for outer in tag["residency"]) for tag in tags)
    except ZoneError:  # a Zone that the table no longer knows cannot be shown to lie inside
        return False


def _transfer(entry: Mapping[str, Any], step: Mapping[str, Any], tags: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    facts = entry.get("facts", {})
    return {
        "receipt": entry["id"],
        "time": entry["time"],
        "activity": entry["activity"],
        "importer": step["operator"],
        "to": step["zone"],
        "site": step["site"],
        "jurisdictions": sorted({code for tag in tags for code in tag["jurisdictions"]}),
        "count": step["count"],
        "bytes": step["bytes"],
        "basis": facts.get("basis"),
        "approver": facts.get("approver", ""),
        "policies": step["policies"],
    }


def _violation(entry: Mapping[str, Any], step: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": f"{entry['id']}/{step['site']}/{step['action']}",
        "category": "location",
        "subject": entry["id"],
        "begin": entry["time"],
        "resolved": None,
        "state": "open",
        "action": step["action"],
        "site": step["site"],
        "zone": step["zone"],
        "count": step["count"],
        "policy": entry["policy"],
    }


def _refused(found: Tally, entry: Mapping[str, Any], fleet: Fleet) -> None:
    for refused in entry["refused"]:
        site = fleet.sites.get(refused["site"])
        key = (refused["action"], site.zone if site else "unknown", "refused")
        found.flows[key] += refused["count"]
        found.items[key] += 0
        found.refusals += refused["count"]
        for policy in refused["policies"] or ["no policy permits it"]:
            places = found.by_policy.setdefault(policy, Counter())
            places[refused["action"], refused["site"]] += refused["count"]
