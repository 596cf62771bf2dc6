"""registers: the Art. 30 registers, the transfer log and the actual recipients, from what the Receipts say.

Rules kept here: what the Ledger knows is filled in and says so; what only people know comes from the operator's file
and is marked as written by hand; what nobody wrote is marked as missing, never guessed. No IO, no claim of compliance.
Source: GDPR 30(1), 30(2), 15(1)(c) with CJEU C-154/21; design after CNIL's register template.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from residency.report import ADMINISTRATION, HOW, Head, Known, coverage, lowest_grade, many
from residency.tally import Activity, Recipient, Tally
from residency.watch import site_facts

REGISTER: Final = "domicile-register/1"
TRANSFERS: Final = "domicile-transfer-log/1"
RECIPIENTS: Final = "domicile-recipients/1"
LEDGER, HAND, MISSING = "ledger", "by hand", "missing"
CONTROLLER: Final = ("name", "address", "contact", "representative", "dpo", "joint_controllers")
MEASURES: Final = (
    "texts, names and originals are sealed (AES-256-GCM or -SIV) under keys of the document's own jurisdiction",
    "each call to a Site is ruled by the policies named in this report, and refused where no clause permits it",
    "every answer, search, intake, move and erasure is in the ledger before anything is released",
    "erasure destroys the document's keys first, then its points and files, and names what remains until when",
)
"""What this software does by itself, recorded in the Receipts; organisational measures are written by hand."""


def _known(value: Any) -> dict[str, Any]:
    return {"value": value, "source": LEDGER}


def _written(value: Any) -> dict[str, Any]:
    return {"value": value, "source": HAND} if value else {"value": None, "source": MISSING}


def register(head: Head, counted: Tally, known: Known, by_hand: Mapping[str, Any], horizon_days: int) -> dict[str, Any]:
    """Make the master of both registers: 30(1) for what is processed as controller, 30(2) on behalf of others.

    `by_hand` is the operator's file: `controller`, `measures`, and `activity` by id.
    """
    texts, organisation = by_hand.get("activity", {}), by_hand.get("controller", {})
    names = sorted(counted.activities.keys() | texts.keys())
    own: list[dict[str, Any]] = []
    for_others: list[dict[str, Any]] = []
    for name in names:
        found, text = counted.activities.get(name, Activity()), texts.get(name, {})
        entry = _entry(name, found, text, by_hand.get("measures", ()), horizon_days)
        if (text.get("role") or head.role) == "processor":
            done = sorted({action for who in found.recipients.values() for action in who.actions})
            extra = {"controllers": _written(text.get("controllers")), "processing": _known(done)}
            for_others.append(entry | extra)
        else:
            own.append(entry)
    blanks = sum(_blanks(entry) for entry in (*own, *for_others))
    sites = site_facts(known.fleet, head.generated, known.watch)
    return {
        "schema": REGISTER,
        "head": head.facts(counted.intervals),
        "sentence": (
            f"{many(len(own), 'activity', 'activities')} under Art. 30(1) and "
            f"{many(len(for_others), 'activity', 'activities')} under Art. 30(2); "
            f"{many(blanks, 'field')} that only people can fill in {'is' if blanks == 1 else 'are'} missing."
        ),
        "controller": {field: _written(organisation.get(field)) for field in CONTROLLER},
        "article_30_1": own,
        "article_30_2": for_others,
        "missing": blanks,
        "sites": sites,
        "coverage": coverage(head, counted, [], sites, known, lowest_grade(counted, [])),
        "evidence": head.evidence(counted),
        "verify": list(HOW),
    }


def _entry(
    name: str,
    found: Activity,
    text: Mapping[str, Any],
    measures: Sequence[str],
    horizon_days: int,
) -> dict[str, Any]:
    who = [_recipient(each) for _, each in sorted(found.recipients.items())]
    abroad = [*sorted(found.abroad), *(f"{code} (not known for those days)" for code in sorted(found.unplaced))]
    periods = f"keys at once on request; backups that hold wrapped keys within {horizon_days} days"
    return {
        "activity": name,
        "purposes": _written(text.get("purposes")),
        "legal_basis": _written(text.get("legal_basis")),
        "subjects": _written(text.get("subjects")),
        "data": _written(text.get("data")),
        "categories": _known(sorted(found.categories)),
        "personal": _known(found.personal),
        "jurisdictions": _known(sorted(found.jurisdictions)),
        "recipients": _known(who),
        "other_recipients": _written(text.get("other_recipients")),
        "third_countries": _known(abroad),
        "transfers": _known(found.transfers),
        "safeguards": _written(text.get("safeguards")),
        "erasure_periods": _known(periods),
        "retention": _written(text.get("retention")),
        "measures": _known(list(MEASURES)),
        "other_measures": _written(list(measures)),
        "receipts": found.receipts,
        "first": found.first or None,
        "last": found.last or None,
    }


def _blanks(entry: Mapping[str, Any]) -> int:
    return sum(isinstance(value, Mapping) and value.get("source") == MISSING for value in entry.values())


def _recipient(each: Recipient) -> dict[str, Any]:
    return {
        "operator": each.operator,
        "operator_zone": each.operator_zone,
        "parent_zone": each.parent_zone,
        "site": each.site,
        "zone": each.zone,
        "as": each.kind,
        "actions": dict(sorted(each.actions.items())),
        "items": each.items,
        "bytes": each.bytes,
        "first": each.first,
        "last": each.last,
        "grade": each.grade,
    }


def transfers(head: Head, counted: Tally, known: Known) -> dict[str, Any]:
    """Make the master of the transfer log: permitted, refused, and steps outside a residency that were no transfer."""
    sites = site_facts(known.fleet, head.generated, known.watch)
    refused: list[dict[str, Any]] = [
        {"policy": policy, "site": site, "count": count}
        for policy, places in sorted(counted.by_policy.items())
        for (action, site), count in sorted(places.items())
        if action == "transfer"
    ]
    return {
        "schema": TRANSFERS,
        "head": head.facts(counted.intervals),
        "sentence": (
            f"{many(len(counted.transfers), 'transfer')} and "
            f"{many(sum(row['count'] for row in refused), 'refused transfer')} are recorded; "
            f"{many(len(counted.violations), 'step')} outside the residency of the data "
            "stand apart as violations."
        ),
        "nil": not counted.transfers,
        "entries": counted.transfers,
        "refused": refused,
        "violations": counted.violations,
        "remote_administration": ADMINISTRATION,
        "sites": sites,
        "coverage": coverage(head, counted, [], sites, known, lowest_grade(counted, [])),
        "evidence": head.evidence(counted),
        "verify": list(HOW),
    }


def recipients(head: Head, entries: Iterable[Mapping[str, Any]], known: Known, *, document: str = "") -> dict[str, Any]:
    """Make the master of the actual recipients: of one document, or of everything in the period."""
    shown: list[dict[str, str]] = []

    def seen() -> Iterable[Mapping[str, Any]]:
        for entry in entries:
            if document:
                shown.append({"receipt": entry["id"], "time": entry["time"], "kind": entry["kind"]})
            yield entry

    counted = known.count(seen())
    if document:  # its Receipts are picked from among others, so that the numbers between them are no gaps
        counted.gaps, counted.first_seq, counted.last_seq = [], None, None
    merged = [
        {"activity": name} | _recipient(who)
        for name, activity in sorted(counted.activities.items())
        for _, who in sorted(activity.recipients.items())
    ]
    operators = sorted({(row["operator"], row["operator_zone"]) for row in merged})
    sites = site_facts(known.fleet, head.generated, known.watch)
    about = f"document {document}" if document else "all documents of the period"
    return {
        "schema": RECIPIENTS,
        "head": head.facts(counted.intervals),
        "sentence": (
            f"Recorded recipients of {about}: {many(len(operators), 'operator')} at "
            f"{many(len({row['site'] for row in merged}), 'Site')}, in {many(counted.receipts, 'receipt')}."
        ),
        "document": document,
        "operators": [{"name": name, "zone": zone} for name, zone in operators],
        "recipients": merged,
        "receipts": shown,
        "limits": [
            "A receipt that names several documents lists every Site it touched; for one of them that may be too many.",
            "Once a document is erased, nothing ties receipts to it, and this list is empty by design.",
            "Whoever read an answer is a recipient that only the organisation knows.",
        ],
        "sites": sites,
        "coverage": coverage(head, counted, [], sites, known, lowest_grade(counted, [])),
        "evidence": head.evidence(counted),
        "verify": list(HOW),
    }
