"""report: the Ledger of one tenant and period, the inventory and the Fleet, as one master document.

Rules kept here: every number is counted from Receipts or given by the inventory, and zero is a number; coverage and
unknowns always stand in it; it says recorded, refused, permitted, and never that data did not leave a place.
The master is canonical JSON (RFC 8785), signed by the log's key; all other formats are drawn from it
(`service/rendering/`). No IO here; gathering is in `service/reporting.py`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from residency.counting import Tables, tally
from residency.decision import Clause
from residency.evidence import GRADES
from residency.fleet import Fleet
from residency.receipt import stamp
from residency.retention import Retention, facts
from residency.tag import Tag
from residency.tally import Tally
from residency.watch import Watch, closures, site_facts
from residency.watch import placement as placed
from residency.zones import Zones

SCHEMA: Final = "domicile-residency-report/1"
UNSEEN: Final = (
    "the control planes and staff of the operators and hosting companies of the Sites",
    "the routes that packets took between Sites, and name resolution",
    "copies that a Site makes by itself: its backups, its swap space, its own logs",
    "what an asker did with an answer after it was delivered",
)
"""What nobody observes, in every report."""
ADMINISTRATION: Final = (
    "not observed: whoever administers a Site from another country is not seen from here; the place where each "
    "operator and its parent company are established stands with the Sites"
)
HOW: Final = (
    "Compare the public key under Evidence with the one you were given at the start, and keep it in a trust file.",
    "“domicile verify REPORT trust.txt” (the JSON or the PDF) checks this report and its entry in the ledger, offline.",
    "Any receipt named here is at /v1/receipts/{id}: “domicile verify RECEIPT trust.txt zones.toml fleet.toml”.",
    "Ask for the proof that the ledger continues a checkpoint which you kept yourself.",
)


@dataclass(frozen=True, slots=True)
class Head:
    """What a report is about and who stands behind it. `first` and `last` are checkpoints around the period."""

    id: str
    tenant: str
    since: datetime
    until: datetime
    generated: datetime
    software: str
    origin: str
    vkey: str
    build: str = ""
    """Digest of the program that made it."""
    organisation: str = ""
    role: str = "controller"
    """controller or processor, in GDPR's sense."""
    contact: str = ""
    """Of the data-protection officer."""
    requested_by: str = ""
    first: Mapping[str, Any] | None = None
    last: Mapping[str, Any] | None = None
    witnesses: Sequence[Mapping[str, Any]] = ()
    """What each witness cosigned last."""

    def facts(self, rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Give the head of a master; `rules` are the digests in force, stretch by stretch."""
        return {
            "id": self.id,
            "tenant": self.tenant,
            "organisation": self.organisation,
            "role": self.role,
            "contact": self.contact,
            "period": {"from": stamp(self.since), "to": stamp(self.until)},
            "generated": stamp(self.generated),
            "clock": "the clock of this machine, UTC",
            "requested_by": self.requested_by,
            "software": self.software,
            "build": self.build,
            "rules": list(rules),
        }

    def evidence(self, counted: Tally) -> dict[str, Any]:
        """Give what a master says of the Ledger it was counted from."""
        return {
            "origin": self.origin,
            "key": self.vkey,
            "first": dict(self.first) if self.first else None,
            "last": dict(self.last) if self.last else None,
            "witnesses": [dict(each) for each in self.witnesses],
            "receipts": counted.receipts,
            "searches": counted.searches,
        }


@dataclass(frozen=True, slots=True)
class Known:
    """What is known besides Receipts: the Fleet and the Zones of today, and what was kept of earlier rules."""

    fleet: Fleet
    zones: Zones
    tables: Tables
    clauses: Callable[[Iterable[str]], tuple[Mapping[str, Clause], Sequence[str]]]
    """Gives the clauses of the policy sets with these digests, and the digests that are not kept."""
    watch: Watch
    retention: Retention

    def kept(self, tenant: str, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Give the rules of retention for what a Tag's row holds; none: it is kept until it is erased."""
        return [facts(rule) for rule in self.retention.told(self.zones, tenant=tenant, tag=Tag.of(dict(row)))]

    def count(self, entries: Iterable[Mapping[str, Any]]) -> Tally:
        """Count a tenant's Receipts, each under the rules that it names."""
        return tally(entries, self.fleet, self.tables)


def of(
    head: Head,
    counted: Tally,
    inventory: Sequence[Mapping[str, Any]],
    known: Known,
    violations: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Make the master of a residency report.

    `inventory` rows hold jurisdictions, residency, personal, categories, classification, site, documents, passages,
    vectors, lexical, forms (vectors by mode), bytes, key_sites; `violations` are the kept records, beside which stand
    those that the Receipts themselves show.
    """
    fleet = known.fleet
    rows = [_tag_row(row, fleet, head.generated, known.kept(head.tenant, row)) for row in inventory]
    sites = site_facts(fleet, head.generated, known.watch)
    clauses, _ = known.clauses(_named(counted))
    placement = _placement(rows, counted)
    documents = sum(row["documents"] for row in rows)
    lowest = lowest_grade(counted, rows)
    found = [*map(dict, violations), *counted.violations]
    held = Counter[str]()
    for row in rows:
        held[row["site"]] += row["documents"]
    return {
        "schema": SCHEMA,
        "head": head.facts(counted.intervals),
        "verdict": {
            "sentence": _sentence(documents, placement, counted, lowest),
            "documents": documents,
            "questions": counted.questions,
            "outside": counted.outside,
            "refusals": counted.refusals,
        },
        "placement": placement,
        "inventory": rows,
        "sites": sites,
        "shards": placed(fleet, known.watch, found, held),
        "flows": [
            {"action": action, "tags": [counted.tags[tag] for tag in tags], "zone": zone, "ruling": ruling,
             "steps": steps, "items": items, "bytes": bytes_}
            for (action, zone, ruling, tags), (steps, items, bytes_) in sorted(counted.flows.items())
        ],
        "refusals": _refusals(counted, clauses),
        "withheld": counted.withheld,
        "transfers": {
            "nil": not counted.transfers, "entries": counted.transfers, "remote_administration": ADMINISTRATION,
        },
        "violations": found,
        "exceptions": [row for row in found if row["state"] == "excepted"],
        "erasures": counted.erasures,
        "keys": {"events": counted.keys, "openings": [
            {"reason": reason, "count": count} for reason, count in sorted(counted.reasons.items())
        ]},
        "coverage": coverage(head, counted, rows, sites, known, lowest),
        "evidence": head.evidence(counted),
        "verify": list(HOW),
    }  # fmt: skip


def lowest_grade(counted: Tally, rows: Sequence[Mapping[str, Any]]) -> int:
    """Give the lowest grade of a Site that was used, or that holds documents; 0 where there is none."""
    grades = [row["grade"] for row in rows if row["documents"]]
    if counted.lowest is not None:
        grades.append(counted.lowest)
    return min(grades, default=0)


# --- parts of the master --------------------------------------------------------------------------------------------


def _tag_row(
    row: Mapping[str, Any], fleet: Fleet, now: datetime, retention: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    site = fleet.sites.get(row["site"])
    return {
        "jurisdictions": sorted(row["jurisdictions"]),
        "residency": sorted(row["residency"]),
        "personal": bool(row["personal"]),
        "categories": sorted(row["categories"]),
        "classification": int(row["classification"]),
        "site": row["site"],
        "zone": site.zone if site else "unknown",
        "operator": {"name": site.operator.name, "zone": site.operator.zone} if site else None,
        "grade": site.grade(now) if site else 0,
        "documents": int(row["documents"]),
        "passages": int(row["passages"]),
        "bytes": int(row["bytes"]),
        "vectors": row.get("vectors"),
        "lexical": row.get("lexical"),
        "forms": row.get("forms"),
        "retention": list(retention),
        "keys": [
            {"site": key, "zone": fleet.sites[key].zone if key in fleet.sites else "unknown"}
            for key in row.get("key_sites", ())
        ],
    }


def _placement(rows: Sequence[Mapping[str, Any]], counted: Tally) -> list[dict[str, Any]]:
    """Inventory by jurisdiction × Zone × Site, with the questions that were put there."""
    merged: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        key = ("+".join(row["jurisdictions"]), row["zone"], row["site"])
        place = merged.setdefault(
            key,
            {"jurisdiction": key[0], "zone": key[1], "site": key[2], "operator": row["operator"],
             "grade": row["grade"], "documents": 0, "passages": 0, "bytes": 0,
             "questions": counted.read[key[0], key[2]]},
        )  # fmt: skip
        for name in ("documents", "passages", "bytes"):
            place[name] += row[name]
    return [merged[key] for key in sorted(merged)]


def _refusals(counted: Tally, clauses: Mapping[str, Clause]) -> list[dict[str, Any]]:
    return [
        {
            "policy": policy,
            "text": clauses[policy].explain if policy in clauses else "",
            "law": clauses[policy].law if policy in clauses else "",
            "count": sum(places.values()),
            "actions": sorted({action for action, _ in places}),
            "sites": sorted({site for _, site in places}),
        }
        for policy, places in sorted(counted.by_policy.items())
    ]


def coverage(
    head: Head,
    counted: Tally,
    rows: Sequence[Mapping[str, Any]],
    sites: Sequence[Mapping[str, Any]],
    known: Known,
    lowest: int,
) -> dict[str, Any]:
    """Say what was seen and what nobody saw; in every report, whatever its kind."""
    used = {code for site in sites for code in site["zones"]}
    tables = [table for table in counted.tables.values() if table is not None] or [known.zones]
    contested = {
        (edge.zone, edge.within, edge.source)
        for table in tables
        for edge in table.edges()
        if edge.contested and edge.zone in used
    }
    _, lost = known.clauses(_named(counted))
    return {
        "first_seq": counted.first_seq,
        "last_seq": counted.last_seq,
        "gaps": counted.gaps,
        "streams_not_ended": [{"receipt": id_, "time": time} for id_, time in sorted(counted.begun.items())],
        "lowest_grade": lowest,
        "lowest_grade_text": GRADES[lowest],
        "paths": [
            {"sites": list(path), "lowest_grade": grade} for path, grade in sorted(counted.lowest_by_path.items())
        ],
        "declared_only": [site["id"] for site in sites if site["grade"] <= 1],
        "unknown_sites": sorted({row["site"] for row in rows if row["zone"] == "unknown"}),
        "probes": counted.probes,
        "closures": closures(known.watch, known.fleet.sites, head.since, head.until, head.generated),
        "reconciled": counted.reconciled,
        "left_out": dict(sorted(counted.left_out.items())),
        "rules_not_kept": {
            "zones": sorted(digest for digest, table in counted.tables.items() if table is None),
            "policy": sorted(lost),
        },
        "unjudged": dict(sorted(counted.unjudged.items())),
        "contested": [{"zone": zone, "within": within, "source": source} for zone, within, source in sorted(contested)],
        "unseen": list(UNSEEN),
    }


def _named(counted: Tally) -> list[str]:
    """Give the digests of the policy sets that the Receipts name, the newest last."""
    return list(dict.fromkeys(stretch["policy"] for stretch in counted.intervals))


def _sentence(documents: int, placement: Sequence[Mapping[str, Any]], counted: Tally, lowest: int) -> str:
    places = sorted({row["zone"] for row in placement if row["documents"]})
    sites = len({row["site"] for row in placement if row["documents"]})
    unjudged = sum(counted.unjudged.values())
    left = (
        f" {many(unjudged, 'item')} of recorded steps could not be judged: the Zones that were in force then are not "
        "kept here."
        if unjudged
        else ""
    )
    where = f"at {many(sites, 'Site')} that the operator's Fleet places in {together(places)}" if places else "nowhere"
    return (
        f"{many(documents, 'document')} {'lies' if documents == 1 else 'lie'} {where}; "
        f"{many(counted.questions, 'question')} {'was' if counted.questions == 1 else 'were'} answered; "
        f"{many(counted.outside, 'transfer')} outside the permitted Zones and {many(counted.refusals, 'refusal')} "
        f"were recorded.{left} The weakest evidence for a place used is of grade {lowest} of 6: {GRADES[lowest]}."
    )


def many(count: int, word: str, words: str = "") -> str:
    """Write a count with its noun; `words` is its plural where that is not made with an s."""
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def together(words: Sequence[str]) -> str:
    """Join words with commas and a last `and`; at least one."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
