"""residency: the layout of the residency report: what lies where, what was done with it, what was refused.

Rules kept here: no number is computed that the master does not hold; what the master does not know is written
`unknown`, zero is written 0.
"""

from collections.abc import Mapping
from typing import Any

from service.rendering import coverage, tables
from service.rendering.tables import Cell, Sheet, Table, listed, moment, origin_name, party, zone_name


def sheet(bundle: Mapping[str, Any]) -> Sheet:
    """Lay out a signed report; takes what `Reporting.residency` gives."""
    report = bundle["report"]
    verdict = report["verdict"]
    return Sheet(
        title=f"Residency report: {report['head']['organisation'] or report['head']['tenant']}",
        head=tables.head(report),
        sentence=verdict["sentence"],
        numbers=(
            ("documents held", verdict["documents"]),
            ("questions answered", verdict["questions"]),
            ("transfers outside the permitted Zones", verdict["outside"]),
            ("refusals", verdict["refusals"]),
        ),
        tables=(
            _placement(report),
            tables.sites(report),
            tables.chain(report),
            _shards(report),
            tables.closures(report),
            _flows(report),
            _refusals(report),
            _transfers(report),
            _administration(report),
            tables.violations(report),
            _exceptions(report),
            _erasures(report),
            _keys(report),
            _openings(report),
            _inventory(report),
            tables.rules(report),
        ),
        evidence=coverage.evidence(bundle),
        limits=coverage.limits(report),
        verify=tuple(report["verify"]),
    )


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


def _shards(report: Mapping[str, Any]) -> Table:
    def known(value: Any) -> Cell:
        return "unknown" if value is None else value if isinstance(value, int) else str(value)

    rows = tuple(
        (
            row["site"],
            zone_name(row["zone"]),
            known(row["collection"]) if row["holds_points"] else "holds no points",
            *(
                (known(row["shard"]) if row["kind"] != "embedded" else "0", known(row["shard_key"]) if row["shard_key"]
                 else "none", known(row["peer"]), known(row["uri"]) if row["kind"] != "embedded" else "none",
                 known(row["replica"]), str(known(row["points"])), probed, row["documents"],
                 str(known(row["drift"])), moment(row["looked"]) if row["looked"] else "never")
                if row["holds_points"]
                else ("–",) * 6 + (probed,) + ("–",) * 3
            ),
        )
        for row in report["shards"]
        for probed in [moment(row["probed"]) if row["probed"] else "unknown"]
    )  # fmt: skip
    columns = (
        "Site", "Zone", "Collection", "Shard", "Shard key", "Peer", "Address", "Replica", "Points", "Probed",
        "Held", "Drift", "Looked for drift",
    )  # fmt: skip
    lead = (
        "Where the index lies, as the last probe of each Site saw it. Points: of all tenants of this installation, "
        "at the time of that probe. Held: this tenant's documents now. Drift: unresolved findings "
        "of points or documents where they may not be, or missing; unknown where the drift watch never looked."
    )
    return Table("shards", "Placement of the index", columns, rows, "The Fleet names 0 Sites.", lead)


def _administration(report: Mapping[str, Any]) -> Table:
    rows = ((report["transfers"]["remote_administration"],),)
    return Table("remote", "Remote administration", ("Limit",), rows, "not observed")


def _exceptions(report: Mapping[str, Any]) -> Table:
    rows = tuple(
        (row["id"], row["subject"], row["acknowledged_by"], row["reason"], moment(row["expires"]))
        for row in report["exceptions"]
    )
    columns = ("Violation", "Subject", "Approved by", "Reason", "Until")
    return Table("exceptions", "Exceptions", columns, rows, "0 exceptions stand in the period.")


def _flows(report: Mapping[str, Any]) -> Table:
    rows = tuple(
        (
            flow["action"],
            _tags(flow["tags"]),
            zone_name(flow["zone"]),
            flow["ruling"],
            flow["steps"],
            flow["items"],
            flow["bytes"],
        )
        for flow in report["flows"]
    )
    columns = ("Action", "Tags", "Zone", "Ruling", "Steps", "Items", "Bytes")
    lead = "What was done with data in the period, under which Tags and in which Zone, as the receipts record it."
    return Table("flows", "Flows", columns, rows, "0 steps were recorded in the period.", lead)


def _tags(tags: Any) -> str:
    """Write Tags shortly: origin, where they may be processed, what makes them special."""

    def one(tag: Mapping[str, Any]) -> str:
        special = [
            *tag["categories"],
            *(["not personal"] if not tag["personal"] else []),
            f"class {tag['classification']}",
        ]
        return f"{'+'.join(tag['jurisdictions'])} in {'+'.join(tag['residency']) or 'nowhere'}, {', '.join(special)}"

    return "; ".join(map(one, tags)) or "none"


def _refusals(report: Mapping[str, Any]) -> Table:
    rows = tuple(
        (row["policy"], row["text"], row["law"], listed(row["actions"]), listed(row["sites"]), row["count"])
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
            listed(entry["jurisdictions"]),
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
            listed(row["jurisdictions"]),
            listed(row["residency"]),
            "yes" if row["personal"] else "no",
            listed(row["categories"]),
            row["classification"],
            f"{row['site']} ({row['zone']})",
            row["documents"],
            row["passages"],
            _vectors(row),
            row["lexical"] if row["lexical"] is not None else "unknown",
            row["bytes"],
            listed([f"{key['site']} ({key['zone']})" for key in row["keys"]]) if row["keys"] else "unknown",
            _kept(row["retention"]),
        )
        for row in report["inventory"]
    )
    columns = (
        "Law of", "Stays in", "Personal", "Categories", "Class", "Site", "Documents", "Passages",
        "Vectors", "Word sets", "Bytes", "Keys at", "Kept",
    )  # fmt: skip
    return Table("inventory", "Inventory by Tag", columns, rows, "0 documents are held.")


def _kept(rules: Any) -> str:
    """Write the rules of retention of a Tag; what no rule names is kept until it is erased."""
    shown = [
        f"{rule['keep_days']} days{' in ' + rule['collection'] if 'collection' in rule else ''} ({rule['law']})"
        for rule in rules
    ]
    rest = [] if rules and "collection" not in rules[-1] else ["until erased" if not rules else "else until erased"]
    return "; ".join([*shown, *rest])


def _facts(facts: Mapping[str, Any]) -> str:
    """Write small facts as `name: value; …`; nested values are counted, not spelt out."""
    shown = (
        f"{name}: {len(value) if isinstance(value, list | dict) else value}" for name, value in sorted(facts.items())
    )
    return "; ".join(shown) or "–"


def _vectors(row: Mapping[str, Any]) -> str:
    if row["vectors"] is None:
        return "unknown"
    forms = row.get("forms") or {}
    return f"{row['vectors']} ({', '.join(forms)})" if forms else str(row["vectors"])
