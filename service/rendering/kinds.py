"""kinds: the layout of each kind of report, as the tables that every format draws from.

Rules kept here: as in `tables.py`; beside each field of a register stands where it comes from: the ledger, written by
hand, or missing. A register has a list and one table, so one sheet of a workbook, for each activity.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from residency import registers
from service.rendering import coverage, residency, tables
from service.rendering.tables import Cell, Sheet, Table, moment, party, zone_name

FIELDS: Final = (
    ("purposes", "Purposes", "30(1)(b)"),
    ("legal_basis", "Legal basis", ""),
    ("controllers", "On behalf of", "30(2)(a)"),
    ("processing", "Categories of processing", "30(2)(b)"),
    ("subjects", "Categories of people", "30(1)(c)"),
    ("data", "Categories of data", "30(1)(c)"),
    ("categories", "Special categories in Tags", "30(1)(c)"),
    ("personal", "Personal data", ""),
    ("jurisdictions", "Jurisdictions of the data", ""),
    ("recipients", "Recipients", "30(1)(d)"),
    ("other_recipients", "Other recipients", "30(1)(d)"),
    ("third_countries", "Third countries", "30(1)(e), 30(2)(c)"),
    ("transfers", "Transfers recorded", "30(1)(e), 30(2)(c)"),
    ("safeguards", "Safeguards", "30(1)(e)"),
    ("erasure_periods", "Erasure, technical", "30(1)(f)"),
    ("retention", "Erasure periods", "30(1)(f)"),
    ("measures", "Security measures, technical", "30(1)(g), 30(2)(d)"),
    ("other_measures", "Security measures, organisational", "30(1)(g), 30(2)(d)"),
)
"""Fields of an activity: name, title, where GDPR asks for it."""
TITLES: Final = {
    registers.REGISTER: "Register of processing activities",
    registers.TRANSFERS: "Transfer log",
    registers.RECIPIENTS: "Actual recipients",
}


def sheet(bundle: Mapping[str, Any]) -> Sheet:
    """Lay out a signed report of any kind."""
    report = bundle["report"]
    schema = report["schema"]
    if schema not in TITLES:
        return residency.sheet(bundle)
    draw = {registers.REGISTER: _register, registers.TRANSFERS: _transfers, registers.RECIPIENTS: _recipients}[schema]
    numbers, drawn = draw(report)
    return Sheet(
        title=f"{TITLES[schema]}: {report['head']['organisation'] or report['head']['tenant']}",
        head=tables.head(report),
        sentence=report["sentence"],
        numbers=numbers,
        tables=(*drawn, tables.sites(report), tables.closures(report), tables.rules(report)),
        evidence=coverage.evidence(bundle),
        limits=coverage.limits(report),
        verify=tuple(report["verify"]),
    )


def text(value: Any) -> str:
    """Write a value of a register on one line."""
    match value:
        case None | "" | [] | ():
            return "none"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return "; ".join(map(text, value))
        case dict() if "operator" in value:
            done = ", ".join(f"{name} {count:,}" for name, count in value["actions"].items())
            return f"{value['operator']} ({value['operator_zone']}) at {value['site']} ({value['zone']}): {done}"
        case dict():
            return "; ".join(f"{name}: {text(inner)}" for name, inner in value.items())
        case _:
            return str(value)


def _said(field: Mapping[str, Any]) -> tuple[str, str]:
    """Give a field's text and its source; a missing one is shown as to be filled in."""
    return ("TO BE FILLED IN", "missing") if field["source"] == "missing" else (text(field["value"]), field["source"])


Drawn = tuple[tuple[tuple[str, int], ...], tuple[Table, ...]]


def _register(report: Mapping[str, Any]) -> Drawn:
    own, others = report["article_30_1"], report["article_30_2"]
    named = [(entry, article) for article, group in (("30(1)", own), ("30(2)", others)) for entry in group]
    who = tuple((name.replace("_", " "), *_said(field)) for name, field in report["controller"].items())
    listed = tuple(
        (entry["activity"], article, _said(entry["purposes"])[0], entry["receipts"], entry["transfers"]["value"],
         text(entry["third_countries"]["value"]))
        for entry, article in named
    )  # fmt: skip
    columns = ("Activity", "Article", "Purposes", "Receipts", "Transfers", "Third countries")
    drawn = [
        Table("controller", "Who is responsible", ("Field", "Value", "Source"), who, ""),
        Table("activities", "Activities", columns, listed, "0 activities were recorded in the period."),
    ]
    taken = {table.id for table in drawn} | {"list", "limits", "evidence", "verify", "sites", "closures", "rules"}
    for entry, article in named:
        rows = tuple(
            (title, *_said(entry[name]), law) for name, title, law in FIELDS if name in entry
        )  # fmt: skip
        slug = _slug(f"{entry['activity']} {article}", taken)
        heads = ("Field", "Value", "Source", "GDPR")
        drawn.append(Table(slug, f"{entry['activity']} (Art. {article})", heads, rows, ""))
    numbers = (
        ("activities under Art. 30(1)", len(own)),
        ("activities under Art. 30(2)", len(others)),
        ("fields to be filled in by hand", report["missing"]),
    )
    return numbers, tuple(drawn)


def _slug(name: str, taken: set[str]) -> str:
    """Give a name that is a worksheet's and an anchor's, used once: at most 31 letters, digits and hyphens."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:27] or "activity"
    found = next(each for each in (plain, *(f"{plain}-{n}" for n in range(2, 1000))) if each not in taken)
    taken.add(found)
    return found


def _transfers(report: Mapping[str, Any]) -> Drawn:
    columns = (
        "Time", "Exporter", "From", "Importer", "Importer's parent", "To", "Onward", "Data", "People", "Items", "Bytes",
        "Purpose", "Mechanism (GDPR)", "Instrument", "Version", "Expires", "Assessment", "Measures", "Access",
        "Approver", "Policies", "Ruling", "Grade", "Receipt",
    )  # fmt: skip

    def said(value: Any) -> str:
        return "not recorded" if value in (None, "", []) else text(value)

    rows: list[tuple[Cell, ...]] = [
        (moment(row["time"]), said(row["exporter"]), said(row["from"]), party(row["importer"]),
         party(row["importer_parent"]), zone_name(row["to"]), said(row["onward"]), said(row["categories"]),
         said(row["subjects"]), row["count"], row["bytes"], row["activity"], said(row["mechanism"]),
         said(row["instrument"]), said(row["version"]), said(row["expires"]), said(row["assessment"]),
         said(row["measures"]), said(row["access"]), said(row["approver"]), text(row["policies"]), row["ruling"],
         row["grade"], row["receipt"])
        for row in report["entries"]
    ]  # fmt: skip
    refused = tuple((row["policy"], row["site"], row["count"]) for row in report["refused"])
    nil = "0 transfers were recorded in the period."
    return (
        ("transfers", len(report["entries"])),
        ("refused transfers", sum(row["count"] for row in report["refused"])),
        ("steps outside a residency", len(report["violations"])),
    ), (
        Table("transfers", "Transfers", columns, tuple(rows), nil),
        Table("refused", "Refused", ("Policy", "Site", "Refused"), refused, "0 transfers were refused in the period."),
        tables.violations(report),
        Table(
            "remote", "Remote administration", ("Limit",), ((report["remote_administration"],),), "not observed"
        ),
    )  # fmt: skip


def _recipients(report: Mapping[str, Any]) -> Drawn:
    columns = (
        "Operator", "Established in", "Site", "Zone", "As", "Activity", "Actions", "Items", "First", "Last", "Grade",
    )  # fmt: skip
    rows: Sequence[tuple[Cell, ...]] = [
        (row["operator"], zone_name(row["operator_zone"]), row["site"], zone_name(row["zone"]), row["as"],
         row["activity"], text(row["actions"]), row["items"], moment(row["first"]), moment(row["last"]), row["grade"])
        for row in report["recipients"]
    ]  # fmt: skip
    named = tuple((moment(row["time"]), row["kind"], row["receipt"]) for row in report["receipts"])
    what = "the document" if report["document"] else "any document of the period"
    found = [
        Table("recipients", "Recipients", columns, tuple(rows), f"0 recipients of {what} are recorded."),
        Table("bounds", "What this list cannot show", ("Limit",), tuple((line,) for line in report["limits"]), ""),
    ]
    if report["document"]:
        nil = "0 receipts name the document."
        found.insert(1, Table("receipts", "Receipts that name it", ("Time", "Kind", "Receipt"), named, nil))
    return (("operators", len(report["operators"])), ("recipients", len(rows))), tuple(found)
