"""Asking: a question, its Answer with numbered marks, its Citations, its places and its Receipt."""

from typing import Any

from litestar import Controller, Response, get, post

from ingestion.documents import State
from service.answering import Answer, Question
from service.api.attending import attended
from service.api.replies import Asking, house_of
from service.errors import InvalidRequestError
from service.portal.forms import fields, one
from service.portal.pages import is_fragment, page, show_refusal
from service.wire import source_url

LONGEST = 2000
"""Characters of a question."""


class ChatPages(Controller):
    """Ask, and see what it rests on."""

    path = "/"

    @get("/ask", opt={"scope": "ask"})
    async def asking(self, request: Asking) -> Response[str]:
        """Show the field for a question; says what to do first where no Document is live."""
        return page(request, "ask.html", question="", answer=None, **await _around(request))

    @post("/portal/ask", opt={"scope": "ask"}, status_code=200)
    async def ask(self, request: Asking) -> Response[str]:
        """Answer, as a whole page or as a fragment; a Refusal shows its clauses and its Receipt."""
        given = await fields(request)
        text = one(given, "question").strip()
        if not text or len(text) > LONGEST:
            raise InvalidRequestError(
                "the question is empty or longer than 2,000 characters", hint="write one question in a few words"
            )
        collection = one(given, "collection") or "default"
        house = house_of(request)
        asked = house.answering.answer(request.user, Question(text, collection))
        answer = await attended(request, asked, house.settings.limits.question_s)
        if not isinstance(answer, Answer):
            return show_refusal(request, *answer)
        shown = view(answer)
        if is_fragment(request):
            return page(request, "_answer.html", question=text, answer=shown)
        return page(request, "ask.html", question=text, answer=shown, **await _around(request))


async def _around(request: Asking) -> dict[str, Any]:
    house = house_of(request)
    live, _ = await house.catalogue.listing(request.user, states=[State.LIVE], limit=1)
    known = await house.database.run(house.documents.collections, request.user.tenant)
    return {"live": bool(live), "collections": [each.name for each in known]}


def view(answer: Answer) -> dict[str, Any]:
    """Lay an Answer out for its template: text cut at its marks, Citations with addresses, places counted."""
    marks = sorted((start, end, each) for each in answer.citations for start, end in each.marks)
    pieces: list[tuple[str, int]] = []
    last = 0
    for start, end, citation in marks:
        pieces += [(answer.text[last:start], 0), ("", citation.index)]
        last = end
    pieces.append((answer.text[last:], 0))
    cited = {each.document_id: each.zone for each in answer.citations}
    return {
        "pieces": [piece for piece in pieces if piece[0] or piece[1]],
        "abstained": answer.abstained,
        "citations": [
            {"of": each, "url": source_url("", each), "lang": each.language if each.language != "und" else ""}
            for each in answer.citations
        ],
        "urls": {each.index: source_url("", each) for each in answer.citations},
        "zones": answer.zones,
        "documents": len(cited),
        "by_zone": sorted((zone, list(cited.values()).count(zone)) for zone in set(cited.values())),
        "withheld": answer.withheld,
        "unreached": answer.unreached,
        "answered_by": answer.answered_by,
        "fallback": answer.fallback,
        "receipt": answer.receipt,
    }
