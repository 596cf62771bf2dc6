"""counting: one walk through the Receipts of a period, to the `Tally` that every report is made of.

Rules kept here: every number is counted from Receipts, a stream's two Receipts count as one question, and what cannot
be shown to lie inside its Tag's residency counts as outside it. Each Receipt is judged by the table of Zones that it
names, as it stood on its day; where that table is not kept, its steps are counted as unjudged, never by another table.
No IO.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from residency.errors import ZoneError
from residency.fleet import Fleet
from residency.receipt import canonical
from residency.tally import Activity, Recipient, Tally
from residency.zones import Zones

APART: Final = ("transfer", "erase")
"""Actions that no residency bounds: a transfer leaves it by its nature, an erasure may happen anywhere."""
_EEA: Final = ("EEA",)
Tables = Callable[[str], Zones | None]
"""Gives the table of Zones with this digest, None where it is not kept."""
DAYS: Final = 64
"""Tables that are held ready, each for one day."""
MOST_EVENTS: Final = 10_000
"""Events of one kind that a report lists one by one; beyond that it gives their count."""


class Counting:
    """One walk. `add` takes a tenant's Receipts in the order of their numbers; `found` is what they add up to."""

    def __init__(self, fleet: Fleet, tables: Tables) -> None:
        self.found = Tally()
        self._fleet = fleet
        self._tables = tables
        self._days: dict[tuple[str, str], Zones] = {}
        self._inside: dict[tuple[str, str, tuple[str, ...], tuple[str, ...]], bool | None] = {}
        self._names: dict[tuple[object, ...], str] = {}

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
            self._refused(refused, entry["tags"])

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
        if entry["zones"] not in self.found.tables:
            self.found.tables[entry["zones"]] = self._tables(entry["zones"])
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
        names = [self._tag(tag) for tag in every]
        law = (time[:10], entry["zones"])
        read: set[tuple[str, str]] = set()
        sites: set[str] = set()
        lowest = 6
        for step in entry["steps"]:
            action, zone, site, count = step["action"], step["zone"], step["site"], step["count"]
            key = (action, zone, "permitted", tuple(sorted({names[number] for number in step["tag"]})))
            flow = found.flows.get(key) or found.flows.setdefault(key, [0, 0, 0])
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
            elif action not in APART:
                inside = self._within(step, every, law)
                if inside is None:
                    found.unjudged[entry["zones"]] += count or 1
                elif not inside:
                    found.outside += count or 1
                    self._keep("violations", found.violations, _violation(entry, step))
            self._recipient(activity, step, time)
            european = self._look(*law, (zone,), _EEA)
            if not european:
                (activity.unplaced if european is None else activity.abroad).add(zone)
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

    def _tag(self, tag: Mapping[str, Any]) -> str:
        """Give a Tag's digest, and keep the Tag."""
        lists = tuple(tuple(tag[name]) for name in ("jurisdictions", "residency", "categories"))
        key = (*lists, tag["personal"], tag["classification"])
        if key not in self._names:
            name = hashlib.sha256(canonical(tag)).hexdigest()
            self._names[key] = name
            self.found.tags[name] = dict(tag)
        return self._names[key]

    def _within(self, step: Mapping[str, Any], every: Sequence[Mapping[str, Any]], law: tuple[str, str]) -> bool | None:
        codes = tuple(step.get("zones") or (step["zone"],))
        for number in step["tag"]:
            known = self._look(*law, codes, tuple(every[number]["residency"]))
            if not known:
                return known
        return True

    def _look(self, day: str, digest: str, codes: tuple[str, ...], outers: tuple[str, ...]) -> bool | None:
        """Say whether one of the Zones lay within one of the others on that day; None where the table is not kept."""
        key = (day, digest, codes, outers)
        if key not in self._inside:
            self._inside[key] = self._judge(day, digest, codes, outers)
        return self._inside[key]

    def _judge(self, day: str, digest: str, codes: tuple[str, ...], outers: tuple[str, ...]) -> bool | None:
        table = self.found.tables[digest]
        if table is None:
            return None
        if (digest, day) not in self._days:  # edges begin and end with a day, and making the table is dear
            if len(self._days) >= DAYS:
                self._days.clear()
            self._days[digest, day] = table.at(datetime.fromisoformat(f"{day}T12:00:00Z"))
        there = self._days[digest, day]
        try:
            return any(there.within(code, outer) for code in codes for outer in outers)
        except ZoneError:  # a Zone that the table does not know cannot be shown to lie inside
            return False

    def _refused(self, refused: Mapping[str, Any], every: Sequence[Mapping[str, Any]]) -> None:
        found, count = self.found, refused["count"]
        site = self._fleet.sites.get(refused["site"])
        tags = tuple(sorted({self._tag(every[number]) for number in refused["tag"]}))
        flow = found.flows.setdefault((refused["action"], site.zone if site else "unknown", "refused", tags), [0, 0, 0])
        flow[0] += count
        found.refusals += count
        for policy in refused["policies"] or ["no policy permits it"]:
            places = found.by_policy.setdefault(policy, Counter())
            places[refused["action"], refused["site"]] += count


def tally(entries: Iterable[Mapping[str, Any]], fleet: Fleet, tables: Tables) -> Tally:
    """Walk once through a tenant's Receipts, in the order of their numbers."""
    counting = Counting(fleet, tables)
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
