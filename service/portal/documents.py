"""Documents: the list with its live states, and the form that takes files in.

Rules kept here: before a byte leaves the browser the page says where it would lie, or which clause refuses and what
would be permitted; bodies go to the intake as a stream; a name comes as it is and is data, never part of a path.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from litestar import Controller, Response, get, post, put
from litestar.params import FromPath, FromQuery

from ingestion.claims import Claim
from ingestion.errors import TagError
from ingestion.intake import Refused
from residency.errors import DomicileError
from service.api.multipart import parts
from service.api.replies import Asking, house_of
from service.portal import forms
from service.portal.guarding import IN_BODY, TOKEN, must_match
from service.portal.pages import go, is_fragment, page, told
from service.portal.views import against, choices, nearest, place, rows
from service.problems import of_error, of_refusal

PAGE: Final = 50
"""Documents on one page of the list."""
UNSAID: Final[Mapping[str, Sequence[str]]] = {
    "jurisdiction": (),
    "residency": (),
    "categories": (),
    "personal": ("true",),
    "classification": ("1",),
    "collection": ("default",),
}
"""What the form shows before anything was chosen."""


class DocumentPages(Controller):
    """List, check, take in."""

    path = "/"

    @get("/documents", opt={"scope": "any"})
    async def documents(self, request: Asking, after: FromQuery[str] = "") -> Response[str]:
        """Show the list and, with the scope, the form."""
        return await _whole(request, after=after)

    @get("/portal/documents", opt={"scope": "any"})
    async def states(self, request: Asking, after: FromQuery[str] = "") -> Response[str]:
        """Give the list alone, for the page to bring itself up to date."""
        return page(request, "_rows.html", **await _listed(request, after))

    @post("/portal/check", opt={"scope": "upload"}, status_code=200)
    async def check(self, request: Asking) -> Response[str]:
        """Say where files of this declaration would lie, or what refuses them; nothing is recorded."""
        given = await forms.fields(request)
        result = _checked(request, given)
        if is_fragment(request):
            return page(request, "_check.html", check=result)
        return await _whole(request, given=given, check=result)

    @put("/portal/documents/{name:str}", opt={"scope": "upload"}, status_code=202, request_max_body_size=None)
    async def put_document(self, request: Asking, name: FromPath[str]) -> Response[str]:
        """Take one raw body in; the declaration is in the query. Gives a line that says how it went."""
        given = {key: request.query_params.getall(key) for key in request.query_params}
        claim = forms.claim_of(given, name, request.headers.get("content-type", ""))
        length = request.headers.get("content-length", "")
        outcome = await _take(request, claim, request.stream(), int(length) if length.isdigit() else None)
        return page(request, "_outcome.html", status=outcome["status"], outcome=outcome)

    @post("/documents", opt={"scope": "upload", **IN_BODY}, request_max_body_size=None)
    async def post_documents(self, request: Asking) -> Response[Any]:
        """Take the files of a plain form in, for browsers without script; fields come before files."""
        given: forms.Fields = {}
        outcomes: list[dict[str, Any]] = []
        async for part in parts(request):
            if part.filename is None:
                given.setdefault(part.name, []).append(await part.text())
                continue
            must_match(request, forms.one(given, TOKEN))
            if part.filename:
                claim = forms.claim_of(given, part.filename, part.media_type)
                outcomes.append(await _take(request, claim, part.body, None))
        must_match(request, forms.one(given, TOKEN))
        if outcomes and all(outcome["problem"] is None for outcome in outcomes):
            return go(request, "/documents")
        return await _whole(request, given=given, outcomes=outcomes, chosen=bool(outcomes))


async def _whole(
    request: Asking,
    *,
    after: str = "",
    given: Mapping[str, Sequence[str]] | None = None,
    check: Mapping[str, Any] | None = None,
    outcomes: Sequence[Mapping[str, Any]] = (),
    chosen: bool = True,
) -> Response[str]:
    house = house_of(request)
    return page(
        request,
        "documents.html",
        status=422 if not chosen else 200,
        choices=choices(house.engine, house.settings.here.zone),
        given={**UNSAID, **(given or {})},
        check=check,
        outcomes=outcomes,
        chosen=chosen,
        most=house.settings.ingestion.max_bytes,
        **await _listed(request, after),
    )


async def _listed(request: Asking, after: str) -> dict[str, Any]:
    house = house_of(request)
    entries, cursor = await house.catalogue.listing(request.user, cursor=after, limit=PAGE)
    return {"rows": rows(entries, house.engine.fleet), "next": cursor, "after": after}


def _checked(request: Asking, given: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    house = house_of(request)
    try:
        claim = _declared(forms.claim_of(given, "any"))
        site, refusals = house.intake.check(claim, request.user)
    except DomicileError as error:
        made = told(of_error(error).body)
        return {"place": None, "problem": made, "title": made["title"], "sites": []}
    if site is None:
        body, sites = told(of_refusal(nearest(house.engine, refusals)).body), against(house.engine, refusals)
        return {"place": None, "problem": body, "title": "Refused: none of our sites may hold it", "sites": sites}
    return {"place": place(house.engine, site, claim), "problem": None}


async def _take(request: Asking, claim: Claim, body: Any, length: int | None) -> dict[str, Any]:
    """Take a body in; what goes wrong with one file is told beside it and ends no other."""
    house = house_of(request)
    try:
        outcome = await house.intake.receive(body, _declared(claim), request.user, length)
    except DomicileError as error:
        made = of_error(error)
        return {"name": claim.name, "status": made.status, "problem": told(made.body), "receipt": ""}
    if isinstance(outcome, Refused):
        made = of_refusal(nearest(house.engine, outcome.refusals), receipt=outcome.receipt)
        return {"name": claim.name, "status": made.status, "problem": told(made.body), "receipt": outcome.receipt}
    known = {"id": outcome.document.id, "version": outcome.document.version, "created": outcome.created}
    return {"name": claim.name, "status": 202, "problem": None, "receipt": outcome.receipt} | known


def _declared(claim: Claim) -> Claim:
    if not claim.jurisdictions:
        raise TagError("no jurisdiction was declared", hint="choose whose law binds the document")
    return claim
