"""`/v1/reviews`: Documents whose Tag is in dispute, the evidence for it, and what a person decides.

Opening evidence and passages is ruled on like any opening; a decision is recorded with who took it and on what ground.
"""

from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from ingestion.decisions import Ruled, Verdict
from ingestion.documents import State
from ingestion.intake import Refused
from ingestion.reviewing import Review, Ruling
from ingestion.states import RETAGGING
from service.api.replies import Asking, house_of, refused
from service.catalogue import Entry, Page
from service.errors import InvalidRequestError

AROUND = 200
"""Code points of text shown before and behind a piece of evidence."""


class Retag(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /v1/documents/{id}/retag`: a narrower Tag; what is left out stays, or follows the evidence."""

    ground: str
    """`declaration-right`, `evidence-right`, `both-bind`, `found-by-hand`, `wrong-document` or `other`."""
    note: str = ""
    """Own words; sealed with the evidence, a keyed hash of them in the Ledger."""
    jurisdictions: list[str] | None = None
    residency: list[str] | None = None
    personal: bool | None = None
    categories: list[str] | None = None
    classification: int | None = None

    def ruling(self, verdict: Verdict) -> Ruling:
        """Give it as the house takes it."""
        return Ruling(
            verdict,
            self.ground,
            self.note,
            jurisdictions=_set(self.jurisdictions),
            residency=_set(self.residency),
            personal=self.personal,
            categories=_set(self.categories),
            classification=self.classification,
        )


class Decide(Retag, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/reviews/{id}`."""

    action: Verdict
    """`accept` the declared Tag, `narrow` it, or `reject`: erase the document."""


class ReviewsController(Controller):
    """The queue, one review, its passages, the decision."""

    path = "/"
    tags = ["Reviews"]  # noqa: RUF012 - Litestar's protocol

    @get("/reviews", opt={"scope": "review"}, operation_id="listReviews")
    async def listing(
        self,
        request: Asking,
        after: FromQuery[str] = "",
        limit: Annotated[int, QueryParameter(ge=1, le=100)] = 20,
    ) -> dict[str, Any]:
        """List documents that wait for a reviewer, newest first; `after` takes the `next` of the page before."""
        entries, cursor = await house_of(request).catalogue.listing(
            request.user, states=[State.QUARANTINED], cursor=after, limit=limit
        )
        data = [each.facts() for each in entries if each.document.cause != RETAGGING]
        return {"object": "list", "data": data, "has_more": bool(cursor), "next": cursor}

    @get("/reviews/{document_id:str}", opt={"scope": "review"}, operation_id="getReview")
    async def one(self, request: Asking, document_id: FromPath[str]) -> Response[Any]:
        """Give a document with what was declared, what was found and where, and the Tag that follows from both."""
        house = house_of(request)
        entry = await house.catalogue.get(request.user, document_id)
        found = await house.reviewing.look(request.user, document_id)
        if isinstance(found, Refused):
            return refused(request, found.refusal, found.receipt)
        return Response(review_out(entry, found))

    @get("/reviews/{document_id:str}/evidence/{number:int}", opt={"scope": "review"}, operation_id="openEvidence")
    async def passage(self, request: Asking, document_id: FromPath[str], number: FromPath[int]) -> Response[Any]:
        """Open the text around one piece of evidence; ruled on, and recorded in the Ledger."""
        house = house_of(request)
        await house.catalogue.get(request.user, document_id)
        found = await house.reviewing.look(request.user, document_id)
        if isinstance(found, Refused):
            return refused(request, found.refusal, found.receipt)
        if not 0 <= number < len(found.evidence) or not found.evidence[number]["end"]:
            raise InvalidRequestError("no text stands behind that", param="number", hint="count the evidence from 0")
        item = found.evidence[number]
        opened = await house.catalogue.source(
            request.user, document_id, version=found.document.version, page=item["page"] or 1
        )
        if not isinstance(opened, Page):
            return refused(request, *opened)
        start, end = max(item["start"], opened.start), min(item["end"], opened.end)
        first, last = max(opened.start, start - AROUND), min(opened.end, end + AROUND)
        text = opened.text[first - opened.start : last - opened.start]
        body = {"page": opened.page, "start": start, "end": end, "text_start": first, "text": text}
        return Response(body | {"receipt": opened.receipt}, headers={"Cache-Control": "no-store"})

    @post("/reviews/{document_id:str}", opt={"scope": "review"}, operation_id="decideReview", status_code=200)
    async def decide(self, request: Asking, document_id: FromPath[str], data: JSONBody[Decide]) -> Response[Any]:
        """Decide on a Tag in dispute; the first decision stands, and workers do what follows."""
        return await _decided(request, document_id, data.ruling(data.action))

    @post("/documents/{document_id:str}/retag", opt={"scope": "review"}, operation_id="retagDocument", status_code=202)
    async def retag(self, request: Asking, document_id: FromPath[str], data: JSONBody[Retag]) -> Response[Any]:
        """Give a live document a narrower Tag: it is out of every search at once, and sealed anew where it may lie."""
        return await _decided(request, document_id, data.ruling(Verdict.NARROW), status=202)


def review_out(entry: Entry, found: Review) -> dict[str, Any]:
    """Turn a Review into its wire form."""
    return entry.facts() | {
        "evidence": found.evidence,
        "suggested": found.suggested.facts(),
        "would_lie_at": found.site,
        "decision": found.decided.facts() if found.decided else None,
    }


async def _decided(request: Asking, document_id: str, ruling: Ruling, status: int = 200) -> Response[Any]:
    house = house_of(request)
    await house.catalogue.get(request.user, document_id)
    made = await house.reviewing.decide(request.user, document_id, ruling)
    if not isinstance(made, Ruled):
        return refused(request, made.refusal, made.receipt)
    return Response(made.facts(), status_code=status, headers={"Domicile-Receipt": made.receipt})


def _set(given: list[str] | None) -> frozenset[str] | None:
    return None if given is None else frozenset(given)
