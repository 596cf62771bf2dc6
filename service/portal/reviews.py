"""Reviews: Documents whose Tag is in dispute, the evidence for it, and the form in which a person decides.

Rules kept here: evidence is shown by kind, place and rule; the passage behind it is opened by a link of its own, ruled
on and recorded; what a decision would do is said before it is taken.
"""

from typing import Any, Final

from litestar import Controller, Response, get, post
from litestar.params import FromPath, FromQuery

from ingestion.decisions import GROUNDS, Ruled, Verdict
from ingestion.documents import State
from ingestion.intake import Refused
from ingestion.reviewing import Review, Ruling
from ingestion.states import RETAGGING
from service.api.replies import Asking, house_of
from service.catalogue import Entry
from service.errors import InvalidRequestError
from service.portal import forms
from service.portal.pages import go, page, show_refusal
from service.portal.views import CLASSES, rows
from service.rendering.tables import zone_name

PAGE: Final = 50
KINDS: Final = {
    "declared": "Declared",
    "place": "Folder rule",
    "iban": "Account number",
    "vat": "VAT number",
    "person_id": "Number of a person",
    "tax_id": "Tax number",
    "company_id": "Company number",
    "phone": "Telephone",
    "address": "Postal address",
    "letterhead": "Letterhead",
    "language": "Language",
    "category": "Category",
    "reviewer": "A reviewer's words",
}
WHY: Final = {
    "declaration-right": "The declaration is right",
    "evidence-right": "The evidence is right",
    "both-bind": "Both laws bind it",
    "found-by-hand": "Found by reading it",
    "wrong-document": "It should not be here",
    "other": "Another reason",
}


class ReviewPages(Controller):
    """The queue, one review, the decision."""

    path = "/reviews"

    @get("/", opt={"scope": "review"})
    async def queue(self, request: Asking, after: FromQuery[str] = "") -> Response[str]:
        """Show what waits for a reviewer."""
        house = house_of(request)
        entries, cursor = await house.catalogue.listing(
            request.user, states=[State.QUARANTINED], cursor=after, limit=PAGE
        )
        waiting = [entry for entry in entries if entry.document.cause != RETAGGING]
        found = [
            row | {"since": entry.document.updated}
            for row, entry in zip(rows(waiting, house.engine.fleet), waiting, strict=True)
        ]
        return page(request, "reviews.html", rows=found, next=cursor)

    @get("/{document_id:str}", opt={"scope": "review"})
    async def one(self, request: Asking, document_id: FromPath[str]) -> Response[str]:
        """Show the evidence for a Tag, what follows from it, and the form."""
        house = house_of(request)
        entry = await house.catalogue.get(request.user, document_id)
        found = await house.reviewing.look(request.user, document_id)
        if isinstance(found, Refused):
            return show_refusal(request, found.refusal, found.receipt)
        return page(request, "review.html", **_laid_out(entry, found), row=rows([entry], house.engine.fleet)[0])

    @post("/{document_id:str}", opt={"scope": "review"})
    async def decide(self, request: Asking, document_id: FromPath[str]) -> Response[Any]:
        """Take the decision; what the policy refuses changes nothing."""
        house, given = house_of(request), await forms.fields(request)
        await house.catalogue.get(request.user, document_id)
        made = await house.reviewing.decide(request.user, document_id, _ruling(given))
        if not isinstance(made, Ruled):
            return show_refusal(request, made.refusal, made.receipt)
        return go(request, f"/receipts/{made.receipt}")


def _ruling(given: forms.Fields) -> Ruling:
    try:
        verdict = Verdict(forms.one(given, "action"))
    except ValueError as error:
        raise InvalidRequestError("no decision was chosen", param="action", hint="choose one of the three") from error
    ground, note = forms.one(given, "ground"), forms.one(given, "note").strip()
    if verdict is not Verdict.NARROW:
        return Ruling(verdict, ground, note)
    level = forms.one(given, "classification")
    return Ruling(
        verdict,
        ground,
        note,
        jurisdictions=forms.codes(given, "jurisdictions"),
        residency=forms.codes(given, "residency"),
        personal=forms.one(given, "personal") == "true",
        categories=forms.codes(given, "categories"),
        classification=int(level) if level.isdigit() else None,
    )


def _laid_out(entry: Entry, found: Review) -> dict[str, Any]:
    document, suggested = entry.document, found.suggested
    evidence = [
        item
        | {
            "title": KINDS.get(item["kind"], item["kind"]),
            "place": zone_name(item["zone"]) if item["zone"] else "",
            "page": item.get("page") or 1,
            "rule": item.get("rule", ""),
        }
        for item in found.evidence
    ]
    waits = document.state is State.QUARANTINED and document.cause != RETAGGING
    return {
        "entry": entry,
        "evidence": sorted(evidence, key=lambda item: (item["kind"] != "declared", item["place"] == "", item["place"])),
        "suggested": suggested,
        "law": " and ".join(zone_name(code) for code in sorted(suggested.jurisdictions)),
        "goes": found.site,
        "decided": found.decided if not waits else None,
        "waits": waits or document.state is State.LIVE,
        "live": document.state is State.LIVE,
        "grounds": [(ground, WHY[ground]) for ground in GROUNDS],
        "classes": list(enumerate(CLASSES)),
    }
