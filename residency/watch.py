"""watch: what probes saw of each Site, and when nobody saw it: placement and closures, as reports print them.

Rules kept here: what no probe ever said is None, and formats write `unknown`; a Site that was closed and a time in
which nobody looked are two things, and both are told with beginning and end. Probes are recorded when what they find
changes, so that single good probes in between cannot be counted. No IO.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from residency.evidence import GRADES
from residency.fleet import Fleet, Site
from residency.receipt import stamp


@dataclass(frozen=True, slots=True)
class Watch:
    """What the probes of an installation left behind."""

    states: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By Site: `probed` (time of the last probe) and `facts` (what it found)."""
    entries: Sequence[Mapping[str, Any]] = ()
    """Receipts of probes in the order of their numbers, from the first one ever."""
    ttl: timedelta = timedelta(hours=1)
    """How long a good probe is believed."""
    looked: Mapping[str, str] = field(default_factory=dict)
    """By Site: when the drift watch last looked there."""


def placement(
    fleet: Fleet, watch: Watch, violations: Iterable[Mapping[str, Any]], documents: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Give one row for each shard replica that a probe saw, and one for each Site of which none is known.

    `points` are those of all tenants of the installation when it was probed, `documents` the tenant's own by Site now;
    `drift` counts unresolved findings of the drift watch there, None where there are none because it never looked.
    """
    drift = Counter(
        row["evidence"].get("site") for row in violations if "drift" in row["evidence"] and not row["resolved"]
    )
    rows: list[dict[str, Any]] = []
    for site in sorted(fleet.sites.values(), key=lambda each: each.id):
        state = watch.states.get(site.id)
        facts = dict(state["facts"]) if state else {}
        held, looked = site.holding("shard"), watch.looked.get(site.id)
        shard = facts.get("shard") or {}
        common = {
            "site": site.id,
            "zone": site.zone,
            "holds_points": held is not None,
            "kind": shard.get("kind"),
            "collection": shard.get("collection") or shard.get("generation"),
            "shard_key": None,
            "shard": None,
            "peer": None,
            "uri": None,
            "replica": None,
            "points": shard.get("points"),
            "probed": state["probed"] if state else None,
            "documents": documents.get(site.id, 0),
            "drift": (drift[site.id] if drift[site.id] or looked else None) if held is not None else None,
            "looked": looked if held is not None else None,
        }
        seen = [
            common
            | {name: each.get(name) for name in ("shard_key", "shard", "peer", "uri", "points")}
            | {"replica": each.get("state")}
            for each in shard.get("placement") or ()
        ]
        if shard.get("kind") == "embedded":
            seen = [common | {"peer": "this process", "replica": "no copy"}]
        rows += seen or [common]
    return rows


def closures(
    watch: Watch, sites: Iterable[str], since: datetime, until: datetime, now: datetime
) -> list[dict[str, Any]]:
    """Give the times within a period in which a Site was closed (`closed`) or nobody looked (`unprobed`).

    `to` is None for what has not ended. A Site that no Receipt ever tells of has one row, `unknown`.
    """
    begin, end = stamp(since), stamp(min(until, now))
    found: list[dict[str, Any]] = []
    closed: dict[str, dict[str, Any]] = {}
    told: set[str] = set()

    def put(row: dict[str, Any]) -> None:
        if row["from"] < end and (row["to"] is None or row["to"] > begin):
            found.append(row)

    for entry in watch.entries:
        facts, time = entry["facts"], entry["time"]
        if facts.get("event") != "probe":
            continue
        site = facts["site"]
        told.add(site)
        if (gap := facts.get("unprobed")) is not None:
            put(
                {
                    "site": site,
                    "kind": "unprobed",
                    "from": gap["from"],
                    "to": gap["to"],
                    "cause": "no probe is recorded",
                }
            )
        if (known := closed.get(site)) is not None and known["cause"] != facts["cause"]:
            put(closed.pop(site) | {"to": time})
        if facts["cause"] and site not in closed:
            closed[site] = {"site": site, "kind": "closed", "from": time, "to": None, "cause": facts["cause"]}
    for row in closed.values():
        put(row)
    for site in sorted(sites):
        state = watch.states.get(site)
        if site not in told and state is None:
            put({"site": site, "kind": "unknown", "from": begin, "to": None, "cause": "no probe was ever recorded"})
        elif state is not None and now - (probed := datetime.fromisoformat(state["probed"])) > watch.ttl:
            put({"site": site, "kind": "unprobed", "from": stamp(probed), "to": None, "cause": "no probe is recorded"})
    return sorted(found, key=lambda row: (row["from"], row["site"], row["kind"]))


def site_facts(fleet: Fleet, now: datetime, watch: Watch) -> list[dict[str, Any]]:
    """Give every fact of every Site, as reports print them."""
    states = watch.states
    return [_site(site, fleet, now, states.get(site.id)) for _, site in sorted(fleet.sites.items())]


def _site(site: Site, fleet: Fleet, now: datetime, state: Mapping[str, Any] | None) -> dict[str, Any]:
    grade = site.grade(now)
    return {
        "id": site.id,
        "place": site.place,
        "zone": site.zone,
        "zones": list(site.zones_at(now)),
        "operator": {"name": site.operator.name, "zone": site.operator.zone, "lei": site.operator.lei},
        "parent": {"name": site.parent.name, "zone": site.parent.zone, "lei": site.parent.lei},
        "contract": site.contract,
        "subprocessor_rank": site.subprocessor_rank,
        "country_of_provision": site.country_of_provision,
        "certificates": [
            {"scheme": item.scheme, "id": item.id,
             "valid_until": item.valid_until.isoformat() if item.valid_until else None,
             "expired": item.valid_until is not None and now.date() > item.valid_until}
            for item in site.certificates
        ],
        "union_assurance_level": site.union_assurance_level,
        "holds": [item.kind for item in site.holds],
        "models": {
            item.kind: item.settings["model"] for item in site.holds if isinstance(item.settings.get("model"), str)
        },
        "trust_root": bool(site.trust_root),
        "peer_spki": list(site.peer_spki),
        "peers_seen": list(state["facts"].get("peers", ())) if state else None,
        "probed": state["probed"] if state else None,
        "grade": grade,
        "grade_text": GRADES[grade],
        "bound": fleet.bound(site.id),
        "closed": fleet.cause(site.id),
        "evidence": [
            {"grade": item.grade, "claim": item.claim, "source": item.source, "date": item.date.isoformat(),
             "valid_until": item.valid_until.isoformat() if item.valid_until else None}
            for item in site.evidence
        ],
    }  # fmt: skip
