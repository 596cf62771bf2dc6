"""tables: the master of a report as titled tables of plain cells, the one source that every format draws from.

Rules kept here: no number is computed that the master does not hold; zero is written 0; an empty table says in words
that nothing was recorded. Cells are texts or integers; how they are aligned, coloured and escaped is the format's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from babel import Locale

Cell = str | int
PATHS = 20
"""Paths whose lowest grade is written out."""


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


def sheet(bundle: Mapping[str, Any]) -> Sheet:
    """Lay out a signed report; takes what `Reporting.residency` gives."""
    report = bundle["report"]
    verdict = report["verdict"]
    return Sheet(
        title=f"Residency report: {report['head']['organisation'] or report['head']['tenant']}",
        head=head(report),
        sentence=verdict["sentence"],
        numbers=(
            ("documents held", verdict["documents"]),
            ("questions answered", verdict["questions"]),
            ("transfers outside the permitted Zones", verdict["outside"]),
            ("refusals", verdict["refusals"]),
        ),
        tables=(
            _placement(report),
            sites(report),
            _flows(report),
            _refusals(report),
            _transfers(report),
            violations(report),
            _erasures(report),
            _keys(report),
            _openings(report),
            _inventory(report),
            rules(report),
        ),
        evidence=evidence(bundle),
        limits=limits(report),
        verify=tuple(report["verify"]),
    )


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
    )
    return tuple((name, value) for name, value in rows if value)


def moment(text: str) -> str:
    """Write `2026-11-23T12:00:00.000Z` as people read it; midnight is a day."""
    day, _, time = text.partition("T")
    return day if time.startswith("00:00:00.000") else f"{day} {time[:8]} UTC"


def party(party: Mapping[str, str] | None) -> str:
    """Write a party with where it is established."""
    return f"{party['name']} ({party['zone']})" if party else "unknown"


def _list(codes: Sequence[str]) -> str:
    return ", ".join(codes) or "none"


def _placement(report: Mapping[str, Any]) -> Table:
    rows = tuple(
        (
            origin_name(row["jurisdiction"]),
            zone_name(row["zone"]),
            row["site"],
            party(row["operator"]),
            row["documents"],
            row["passages"],
            row["bytes"],
            row["questions"],
            row["grade"],
        )
        for row in report["placement"]
    )
    columns = ("Jurisdiction", "Lies in", "Site", "Operator", "Documents", "Passages", "Bytes", "Questions", "Grade")
    lead = "Whose law binds the documents, and where they lie. Grade: strength of the evidence for the place, 0 to 6."
    return Table("placement", "By jurisdiction and Site", columns, rows, "0 documents are held.", lead)


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
            _list(site["holds"]),
            held.get(site["id"], 0) if "placement" in report else "not counted here",
            f"{site['grade']}: {site['grade_text']}",
            site["closed"] or "open",
        )
        for site in report["sites"]
    )
    columns = ("Site", "Place", "Operator", "Parent company", "Holds", "Documents", "Evidence grade", "State")
    return Table("sites", "Sites", columns, rows, "The Fleet names 0 Sites.", "Every Site that the Fleet names.")


def _flows(report: Mapping[str, Any]) -> Table:
    rows = tuple(
        (flow["action"], zone_name(flow["zone"]), flow["ruling"], flow["steps"], flow["items"], flow["bytes"])
        for flow in report["flows"]
    )
    columns = ("Action", "Zone", "Ruling", "Steps", "Items", "Bytes")
    lead = "What was done with data in the period, in which Zone, as the receipts record it."
    return Table("flows", "Flows", columns, rows, "0 steps were recorded in the period.", lead)


def _refusals(report: Mapping[str, Any]) -> Table:
    rows = tuple(
        (row["policy"], row["text"], row["law"], _list(row["actions"]), _list(row["sites"]), row["count"])
        for row in report["refusals"]
    )
    columns = ("Policy", "What it says", "Rests on", "Actions", "Sites", "Refused")
    lead = f"Asks that the policies refused. Passages withheld from answers: {report['withheld']:,}."
    return Table("refusals", "Refusals by policy", columns, rows, "0 refusals were recorded in the period.", lead)


def _transfers(report: Mapping[str, Any]) -> Table:
    def basis(entry: Mapping[str, Any]) -> str:
        found = entry["basis"]
        return f"Art. {found['article']}, {found['instrument']}" if found else "none recorded"

    rows = tuple(
        (
            moment(entry["time"]),
            zone_name(entry["to"]),
            f"{entry['site']}, {party(entry['importer'])}",
            _list(entry["jurisdictions"]),
            basis(entry),
            entry["count"],
            entry["bytes"],
            entry["receipt"],
        )
        for entry in report["transfers"]["entries"]
    )
    lead = "Copies or views beyond the residency of the data, each by a recorded act. Violations stand apart."
    columns = ("Time", "To", "Importer", "Jurisdictions", "Basis (GDPR)", "Items", "Bytes", "Receipt")
    return Table("transfers", "Transfers", columns, rows, "0 transfers were recorded in the period.", lead)


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


def _erasures(report: Mapping[str, Any]) -> Table:
    rows = tuple(
        (moment(row["time"]), row["subject"] or "–", _facts(row["facts"]), row["receipt"]) for row in report["erasures"]
    )
    columns = ("Time", "Document", "Recorded", "Receipt")
    return Table("erasures", "Erasures", columns, rows, "0 erasures were recorded in the period.")


def _keys(report: Mapping[str, Any]) -> Table:
    rows = tuple(
        (moment(row["time"]), row["subject"] or "–", _facts(row["facts"]), row["receipt"])
        for row in report["keys"]["events"]
    )
    columns = ("Time", "Key", "Recorded", "Receipt")
    return Table("keys", "Key events", columns, rows, "0 key events were recorded in the period.")


def _openings(report: Mapping[str, Any]) -> Table:
    rows = tuple((row["reason"], row["count"]) for row in report["keys"]["openings"])
    nil = "0 passages were opened in the period."
    return Table("openings", "Openings of sealed text, by reason", ("Reason", "Opened"), rows, nil)


def _inventory(report: Mapping[str, Any]) -> Table:
    rows = tuple(
        (
            _list(row["jurisdictions"]),
            _list(row["residency"]),
            "yes" if row["personal"] else "no",
            _list(row["categories"]),
            row["classification"],
            f"{row['site']} ({row['zone']})",
            row["documents"],
            row["passages"],
            row["bytes"],
        )
        for row in report["inventory"]
    )
    columns = (
        "Jurisdictions", "May be processed in", "Personal", "Categories", "Class", "Site", "Documents", "Passages",
        "Bytes",
    )  # fmt: skip
    return Table("inventory", "Inventory by Tag", columns, rows, "0 documents are held.")


def rules(report: Mapping[str, Any]) -> Table:
    """Lay out the digests of the rules in force."""
    rows = tuple(
        (moment(row["from"]), moment(row["to"]), row["policy"], row["zones"], row["fleet"], row["software"])
        for row in report["head"]["rules"]
    )
    columns = ("First receipt", "Last receipt", "Policies", "Zones", "Fleet", "Software")
    lead = "Digests of the rules that the receipts of the period name."
    return Table("rules", "Rules in force", columns, rows, "0 receipts were recorded in the period.", lead)


def _facts(facts: Mapping[str, Any]) -> str:
    """Write small facts as `name: value; …`; nested values are counted, not spelt out."""
    shown = (
        f"{name}: {len(value) if isinstance(value, list | dict) else value}" for name, value in sorted(facts.items())
    )
    return "; ".join(shown) or "–"


def evidence(bundle: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Lay out what ties a report to the Ledger."""
    report = bundle["report"]
    said, coverage = report["evidence"], report["coverage"]

    def point(found: Mapping[str, Any] | None) -> str:
        return f"{found['size']:,} leaves, root {found['root']}, {moment(found['time'])}" if found else "none"

    entry = bundle["receipt"]["receipt"]["id"] if bundle["receipt"] else "none"
    seqs = f"{coverage['first_seq']} to {coverage['last_seq']}" if said["receipts"] else "none"
    return (
        ("Ledger", said["origin"]),
        ("Public key", said["key"]),
        ("Receipts in the period", f"{said['receipts']:,} (numbers {seqs})"),
        ("Checkpoint before", point(said["first"])),
        ("Checkpoint at the end", point(said["last"])),
        ("Cosigned by", _list([f"{row['witness']} at {row['size']:,} leaves" for row in said["witnesses"]])),
        ("Signature of this report", bundle["signatures"][0]),
        ("Its own entry", f"receipt {entry}"),
        ("Weakest evidence", f"grade {coverage['lowest_grade']} of 6: {coverage['lowest_grade_text']}"),
    )


def limits(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Lay out coverage and unknowns, as sentences."""
    coverage = report["coverage"]
    gaps = ", ".join(f"{first} to {last}" for first, last in coverage["gaps"])
    return (
        "A place is known by evidence of the grade printed beside it; no grade is a proof of physical place.",
        "Known only by the operator's declaration: " + _list(coverage["declared_only"]) + ".",
        f"Gaps in the receipt numbers of this tenant: {len(coverage['gaps'])}{f' ({gaps})' if gaps else ''}.",
        f"Answers begun and not ended: {len(coverage['streams_not_ended'])}.",
        "Lowest grade by path: "
        + _list([f"{' + '.join(row['sites'])} {row['lowest_grade']}" for row in coverage["paths"][:PATHS]])
        + (f", and {len(coverage['paths']) - PATHS} more" if len(coverage["paths"]) > PATHS else "")
        + ".",
        "Beyond what is listed one by one: "
        + _list([f"{count:,} {name}" for name, count in coverage["left_out"].items()])
        + ".",
        f"Comparisons with a Site's own log: {coverage['reconciled']}.",
        f"Probes of Sites recorded in the period: {coverage['probes']}."
        + ("" if coverage["probes"] else " Nothing recorded shows that anybody looked at them."),
        "Sites that hold documents and that the Fleet no longer names: " + _list(coverage["unknown_sites"]) + ".",
        "Legal grounds in use that are contested: "
        + _list([f"{row['zone']} within {row['within']} ({row['source']})" for row in coverage["contested"]])
        + ".",
        *(f"Not seen: {text}." for text in coverage["unseen"]),
    )
