"""oscal: a residency report as OSCAL assessment-results, for tools that read those.

Rules kept here: pure; a plain export that adds nothing: each observation is a number of the signed master, and the
master's digest and Receipt stand beside it; `satisfied` and `not-satisfied` are OSCAL's words for whether what was
recorded meets one statement of ours, which is written out, and says nothing of any law. The same report gives the same
bytes: UUIDs are version 5, of the report's id.
Source: NIST OSCAL 1.2.1, assessment-results model.
"""

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any, Final

from residency.receipt import canonical

VERSION: Final = "1.2.1"
NAMESPACE: Final = uuid.UUID("6d1c8b3e-9c1f-5f5e-8a35-6f0c4d6f3b10")
STATEMENTS: Final[Mapping[str, tuple[str, str]]] = {
    "inside-residency": (
        "Recorded steps lie in the residency of their Tags",
        "No step in the receipts of the period lies in a Zone outside the residency of its Tag.",
    ),
    "transfers-with-basis": (
        "Recorded transfers name their basis",
        "Each transfer in the receipts of the period names an article and an instrument.",
    ),
    "gapless-numbers": (
        "Receipt numbers have no gap",
        "The receipts of the period are numbered without a gap.",
    ),
    "violations-answered": (
        "Recorded violations are answered for",
        "No violation of the period is still open: each is acknowledged, excepted or resolved.",
    ),
}
"""What is compared with the record: id -> (title, statement)."""


def results(bundle: Mapping[str, Any]) -> dict[str, Any]:
    """Give the OSCAL document of a signed residency report."""
    report = bundle["report"]
    head, coverage = report["head"], report["coverage"]
    digest = hashlib.sha256(canonical(report)).hexdigest()

    def made(name: str) -> str:
        return str(uuid.uuid5(NAMESPACE, f"{head['id']}/{name}"))

    entries = report["transfers"]["entries"]
    steps = sum(1 for row in report["violations"] if row["detected"] is None)
    open_ = sum(row["state"] == "open" for row in report["violations"])
    bare = sum(not entry["basis"] for entry in entries)
    found: dict[str, tuple[bool, str]] = {
        "inside-residency": (steps == 0, f"{steps} recorded steps lie outside the residency of their Tags."),
        "transfers-with-basis": (bare == 0, f"{len(entries)} transfers are recorded, {bare} of them without a basis."),
        "gapless-numbers": (not coverage["gaps"], f"{len(coverage['gaps'])} gaps in the receipt numbers."),
        "violations-answered": (open_ == 0, f"{len(report['violations'])} violations, {open_} of them open."),
    }
    receipt = bundle["receipt"]["receipt"]["id"] if bundle["receipt"] else "none"
    master = {
        "uuid": made("master"),
        "title": "The signed master of this report",
        "description": f"Receipt {receipt} of {report['evidence']['origin']}; check it with `domicile verify`.",
        "rlinks": [
            {
                "href": f"residency-{head['id']}.json",
                "media-type": "application/json",
                "hashes": [{"algorithm": "SHA-256", "value": digest}],
            }
        ],
    }
    return {
        "assessment-results": {
            "uuid": made("document"),
            "metadata": {
                "title": f"Residency report {head['id']}",
                "last-modified": head["generated"],
                "version": head["software"],
                "oscal-version": VERSION,
                "props": [{"name": "marking", "value": "recorded facts; no statement about compliance with any law"}],
            },
            "import-ap": {"href": f"#{made('master')}"},
            "results": [
                {
                    "uuid": made("result"),
                    "title": f"What the ledger of {head['tenant']} records",
                    "description": report["verdict"]["sentence"],
                    "start": head["period"]["from"],
                    "end": head["period"]["to"],
                    "props": [
                        {"name": "lowest-evidence-grade", "value": str(coverage["lowest_grade"])},
                        {"name": "policy-digest", "value": head["rules"][-1]["policy"] if head["rules"] else "none"},
                    ],
                    "local-definitions": {"components": [_component(site, made) for site in report["sites"]]},
                    "reviewed-controls": {
                        "description": "Statements of Domicile's own, compared with the receipts of the period.",
                        "control-selections": [{"include-all": {}}],
                    },
                    "observations": [
                        {
                            "uuid": made(f"observation/{name}"),
                            "title": STATEMENTS[name][0],
                            "description": text,
                            "methods": ["EXAMINE"],
                            "types": ["control-objective"],
                            "relevant-evidence": [{"href": f"#{made('master')}", "description": "the signed master"}],
                            "collected": head["generated"],
                        }
                        for name, (_, text) in found.items()
                    ],
                    "findings": [
                        {
                            "uuid": made(f"finding/{name}"),
                            "title": STATEMENTS[name][0],
                            "description": STATEMENTS[name][1],
                            "target": {
                                "type": "objective-id",
                                "target-id": name,
                                "status": {"state": "satisfied" if good else "not-satisfied"},
                            },
                            "related-observations": [{"observation-uuid": made(f"observation/{name}")}],
                        }
                        for name, (good, _) in found.items()
                    ],
                    "remarks": "Not observed: " + "; ".join(coverage["unseen"]) + ".",
                }
            ],
            "back-matter": {"resources": [master]},
        }
    }


def _component(site: Mapping[str, Any], made: Any) -> dict[str, Any]:
    return {
        "uuid": made(f"site/{site['id']}"),
        "type": "service",
        "title": site["id"],
        "description": f"A Site that the operator's Fleet places in {site['zone']}; evidence grade {site['grade']}.",
        "props": [
            {"name": "zone", "value": site["zone"]},
            {"name": "evidence-grade", "value": str(site["grade"])},
            {"name": "operator", "value": site["operator"]["name"]},
        ],
        "status": {"state": "other" if site["closed"] else "operational"},
    }
