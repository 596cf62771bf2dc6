"""coverage: what ties a report to the Ledger, and what nobody observed, as rows and sentences of every kind of report.

Rules kept here: as in `tables.py`; what is unknown is said, never left out.
"""

from collections.abc import Mapping
from typing import Any, Final

from service.rendering.tables import listed, moment

PATHS: Final = 20
"""Paths whose lowest grade is written out."""


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
        ("Cosigned by", listed([f"{row['witness']} at {row['size']:,} leaves" for row in said["witnesses"]])),
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
        "Known only by the operator's declaration: " + listed(coverage["declared_only"]) + ".",
        f"Gaps in the receipt numbers of this tenant: {len(coverage['gaps'])}{f' ({gaps})' if gaps else ''}.",
        f"Answers begun and not ended: {len(coverage['streams_not_ended'])}.",
        "Lowest grade by path: "
        + listed([f"{' + '.join(row['sites'])} {row['lowest_grade']}" for row in coverage["paths"][:PATHS]])
        + (f", and {len(coverage['paths']) - PATHS} more" if len(coverage["paths"]) > PATHS else "")
        + ".",
        "Beyond what is listed one by one: "
        + listed([f"{count:,} {name}" for name, count in coverage["left_out"].items()])
        + ".",
        "Rules that were in force in the period and are not kept here, so that nothing can be judged by them: "
        + listed([f"{kind} {digest}" for kind, lost in sorted(coverage["rules_not_kept"].items()) for digest in lost])
        + (f"; items of steps not judged: {sum(coverage['unjudged'].values()):,}" if coverage["unjudged"] else "")
        + ".",
        f"Comparisons with a Site's own log: {coverage['reconciled']}.",
        f"Probes in this tenant's own receipts: {coverage['probes']}; one that finds nothing new leaves no receipt.",
        f"Times without a good probe of a Site: {len(coverage['closures'])}, each in its table.",
        "Sites that hold documents and that the Fleet no longer names: " + listed(coverage["unknown_sites"]) + ".",
        "Legal grounds in use that are contested: "
        + listed([f"{row['zone']} within {row['within']} ({row['source']})" for row in coverage["contested"]])
        + ".",
        *(f"Not seen: {text}." for text in coverage["unseen"]),
    )
