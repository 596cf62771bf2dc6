"""tables: what every format draws from: titled tables of plain cells, and those that reports of every kind have.

Rules kept here: no number is computed that the master does not hold; zero is written 0; an empty table says in words
that nothing was recorded. Cells are texts or integers; how they are aligned, coloured and escaped is the format's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from babel import Locale

Cell = str | int


@dataclass(frozen=True, slots=True)
class Table:
    """One table: a slug, a title, column heads, rows, and the sentence that stands where there are no rows."""

    id: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    nil: str
    lead: str = ""
    """One sentence above the table."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A whole report, ready to be drawn."""

    title: str
    head: tuple[tuple[str, str], ...]
    sentence: str
    numbers: tuple[tuple[str, int], ...]
    tables: tuple[Table, ...]
    evidence: tuple[tuple[str, str], ...]
    limits: tuple[str, ...]
    verify: tuple[str, ...]


def zone_name(code: str) -> str:
    """Write a Zone as people read it: the country's name and its code."""
    own = {"EU": "European Union", "EEA": "European Economic Area", "GDPR-ADEQUATE": "adequate under the GDPR"}
    name = own.get(code) or Locale("en").territories.get(code.partition("-")[0], "")
    return f"{name} ({code})" if name else code


def origin_name(joined: str) -> str:
    """Write jurisdictions joined with `+` as people read them."""
    return " and ".join(zone_name(code) for code in joined.split("+"))


def head(report: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Lay out the head of a report of any kind; what nobody wrote is left out."""
    found = report["head"]
    rows = (
        ("Organisation", found["organisation"] or found["tenant"]),
        ("Tenant", found["tenant"]),
        ("Acting as", found["role"]),
        ("Data-protection contact", found["contact"]),
        ("Period (UTC)", f"{moment(found['period']['from'])} up to {moment(found['period']['to'])}"),
        ("Generated", moment(found["generated"])),
        ("Asked for by", found["requested_by"]),
        ("Report number", found["id"]),
        ("Software", found["software"]),
        ("Build", found["build"]),
    )
    return tuple((name, value) for name, value in rows if value)


def moment(text: str) -> str:
    """Write `2026-11-23T12:00:00.000Z` as people read it; midnight is a day."""
    day, _, time = text.partition("T")
    return day if time.startswith("00:00:00.000") else f"{day} {time[:8]} UTC"


def party(party: Mapping[str, str] | None) -> str:
    """Write a party with where it is established."""
    return f"{party['name']} ({party['zone']})" if party else "unknown"


def listed(codes: Sequence[str]) -> str:
    """Write codes on one line, `none` where there are none."""
    return ", ".join(codes) or "none"


def sites(report: Mapping[str, Any]) -> Table:
    """Lay out the Sites of the Fleet."""
    placed = report.get("placement", ())
    held = {row["site"]: 0 for row in placed}
    for row in placed:
        held[row["site"]] += row["documents"]
    rows = tuple(
        (
            site["id"],
            f"{site['place']}, {zone_name(site['zone'])}" if site["place"] else zone_name(site["zone"]),
            party(site["operator"]),
            party(site["parent"]),
            listed(site["holds"]),
            held.get(site["id"], 0) if "placement" in report else "not counted here",
            f"{site['grade']}: {site['grade_text']}",
            site["closed"] or "open",
            moment(site["probed"]) if site["probed"] else "unknown",
        )
        for site in report["sites"]
    )
    columns = (
        "Site",
        "Place",
        "Operator",
        "Parent company",
        "Holds",
        "Documents",
        "Evidence grade",
        "State",
        "Last probe",
    )
    return Table("sites", "Sites", columns, rows, "The Fleet names 0 Sites.", "Every Site that the Fleet names.")


def chain(report: Mapping[str, Any]) -> Table:
    """Lay out by what contract each Site serves, at which rank of the chain, and what is certified of it."""
    rows = tuple(
        (
            site["id"],
            site["contract"] or "not stated",
            str(site["subprocessor_rank"] or "not stated"),
            zone_name(site["country_of_provision"]) if site["country_of_provision"] else "not stated",
            "; ".join(map(_certificate, site["certificates"])) or "none stated",
            site["union_assurance_level"] or "not stated",
        )
        for site in report["sites"]
    )
    columns = ("Site", "Contract", "Rank in the chain", "Provided from", "Certificates", "Union assurance level")
    lead = "As the operator's fleet file states it; nothing of it was checked here."
    return Table("chain", "Contracts and certificates", columns, rows, "The Fleet names 0 Sites.", lead)


def _certificate(found: Mapping[str, Any]) -> str:
    until = f", {'expired on' if found['expired'] else 'until'} {found['valid_until']}" if found["valid_until"] else ""
    return f"{found['scheme']} {found['id']}".strip() + until


def closures(report: Mapping[str, Any]) -> Table:
    """Lay out the times in which a Site was closed, or nobody looked at it."""
    rows = tuple(
        (
            row["site"],
            {"closed": "closed by a probe", "unprobed": "nobody looked", "unknown": "unknown"}[row["kind"]],
            moment(row["from"]),
            moment(row["to"]) if row["to"] else "not ended",
            row["cause"],
        )
        for row in report["coverage"]["closures"]
    )
    lead = "While a Site is closed, nothing is sent there. Of times in which nobody looked, no probe can speak."
    nil = "0 such times are recorded in the period."
    return Table("closures", "Times without a good probe", ("Site", "What", "From", "To", "Cause"), rows, nil, lead)


def violations(report: Mapping[str, Any]) -> Table:
    """Lay out the violations: the kept records and those that the Receipts show."""
    rows = tuple(
        (
            row["id"],
            moment(row["begin"]),
            moment(row["detected"]) if row["detected"] else "by this report",
            moment(row["resolved"]) if row["resolved"] else "not resolved",
            row["category"],
            row["state"] + (f" until {moment(row['expires'])}: {row['reason']}" if row["expires"] else ""),
            row["subject"],
            row["policy"] or "–",
            "; ".join(f"{name}: {value}" for name, value in sorted(row["evidence"].items())) or "–",
            row["remediation"] or "none yet",
            row["acknowledged_by"] or "nobody yet",
            "unknown" if row["records"] is None else row["records"],
            "unknown" if row["subjects"] is None else row["subjects"],
            row["notifiable"],
            row["receipt"],
        )
        for row in report["violations"]
    )
    columns = (
        "Violation", "Begin", "Detected", "Resolved", "Category", "State", "Subject", "Policy", "Evidence",
        "Remediation", "Acknowledged by", "Records", "People", "Notifiable", "Receipt",
    )  # fmt: skip
    lead = "Kept records, and steps that a receipt itself shows outside the residency of its data."
    return Table("violations", "Violations", columns, rows, "0 violations were recorded in the period.", lead)


def rules(report: Mapping[str, Any]) -> Table:
    """Lay out the digests of the rules in force."""
    rows = tuple(
        (moment(row["from"]), moment(row["to"]), row["policy"], row["zones"], row["fleet"], row["software"])
        for row in report["head"]["rules"]
    )
    columns = ("First receipt", "Last receipt", "Policies", "Zones", "Fleet", "Software")
    lead = "Digests of the rules that the receipts of the period name."
    return Table("rules", "Rules in force", columns, rows, "0 receipts were recorded in the period.", lead)
