"""`/v1/files`: the OpenAI client's uploads, each declared by headers before a byte of it is read.

OpenAI's form has no field for a place, so the place stands in `Domicile-…` headers; without a jurisdiction nothing is
read. A file waits sealed until it is put into a vector store, unless `Domicile-Collection` names one at once.
"""

from typing import Annotated, Any

from litestar import Controller, Response, delete, get, post
from litestar.openapi.spec import OpenAPIType, Schema
from litestar.params import FromPath, FromQuery, QueryParameter

from ingestion.arrivals import Taken
from ingestion.claims import Claim
from ingestion.documents import State
from ingestion.errors import TagError
from ingestion.intake import Refused
from ingestion.states import LIVING
from service.api.describing import BYTES, RAW, described
from service.api.multipart import Part, parts
from service.api.openai.paging import MOST, listed, order
from service.api.replies import Asking, house_of, refused
from service.catalogue import Entry
from service.errors import InvalidRequestError, UnsupportedParameterError
from service.filing import Original

PURPOSES = ("assistants", "user_data")
FORM = Schema(
    type=OpenAPIType.OBJECT,
    properties={"file": RAW, "purpose": Schema(type=OpenAPIType.STRING, enum=list(PURPOSES))},
    required=["file"],
)
_TRUTHS = {"true": True, "false": False}


def file_out(entry: Entry) -> dict[str, Any]:
    """Give OpenAI's File; the true state and the Tag stand under `domicile`."""
    document = entry.document
    status = "processed" if document.state is State.LIVE else "uploaded" if document.state in LIVING else "error"
    return {
        "id": document.id,
        "object": "file",
        "bytes": document.size,
        "created_at": int(document.created),
        "filename": entry.name,
        "purpose": "assistants",
        "status": "error" if document.state is State.QUARANTINED else status,
        "status_details": document.cause or None,
        "domicile": entry.facts(),
    }


class FilesController(Controller):
    """Upload, list, look at, have back, erase."""

    path = "/files"
    tags = ["OpenAI"]  # noqa: RUF012 - Litestar's protocol

    @post(
        "/",
        opt={"scope": "upload", "problems": (415, 507)},
        operation_id="createFile",
        operation_class=described(takes={"multipart/form-data": FORM}),
        status_code=200,
        request_max_body_size=None,  # the intake measures, and cuts off with 413
    )
    async def upload(self, request: Asking) -> Response[dict[str, Any]]:
        """Take a file in. `Domicile-Jurisdiction` is required; 422 and 403 come before the body is read.

        Further headers: `Domicile-Residency`, `-Collection`, `-Personal`, `-Categories`, `-Classification`, `-Groups`.
        """
        house, principal = house_of(request), request.user
        declared = _declared(request)
        collection = declared["collection"] or await house.filing.waiting(principal.tenant)
        ignored: list[str] = []
        outcome: Taken | None = None
        async for part in parts(request):
            if part.filename is None:
                await _field(part, ignored, early=outcome is None)
                continue
            if outcome is not None:
                raise InvalidRequestError("one file is taken at a time", param="file", hint="send each in its own call")
            claim = Claim(name=part.filename, media_type=part.media_type, **(declared | {"collection": collection}))
            took = await house.intake.receive(part.body, claim, principal)
            if isinstance(took, Refused):
                return refused(request, took.refusal, took.receipt)
            outcome = took
        if outcome is None:
            raise InvalidRequestError("the form holds no file", param="file", hint="send it as the part `file`")
        entry = await house.catalogue.get(principal, outcome.document.id, outcome.document.version)
        body = file_out(entry)
        body["domicile"] |= {"receipt": outcome.receipt, "created": outcome.created, "ignored": ignored}
        return Response(body, headers={"Domicile-Receipt": outcome.receipt})

    @get("/", opt={"scope": "any", "problems": (404,)}, operation_id="listFiles")
    async def listing(
        self,
        request: Asking,
        after: FromQuery[str] = "",
        limit: Annotated[int, QueryParameter(ge=1, le=10_000)] = MOST,
        wanted: Annotated[str, QueryParameter(name="order")] = "desc",
        purpose: FromQuery[str] = "",
    ) -> dict[str, Any]:
        """List every file, also those that came in by `PUT /v1/documents`; at most 100 a page."""
        if purpose not in ("", "assistants"):
            return listed([], more=False)
        found, more = await house_of(request).filing.files(
            request.user, after=after, newest_first=order(wanted), limit=min(limit, MOST)
        )
        return listed([file_out(entry) for entry in found], more=more)

    @get("/{file_id:str}", opt={"scope": "any"}, operation_id="retrieveFile")
    async def one(self, request: Asking, file_id: FromPath[str]) -> dict[str, Any]:
        """Give one file."""
        return file_out(await house_of(request).catalogue.get(request.user, file_id))

    @get(
        "/{file_id:str}/content",
        opt={"scope": "ask", "problems": (409,)},
        operation_id="downloadFile",
        media_type=BYTES,
    )
    async def content(self, request: Asking, file_id: FromPath[str]) -> Response[Any]:
        """Give the original back, ruled on and recorded."""
        outcome = await house_of(request).filing.content(request.user, file_id)
        if not isinstance(outcome, Original):
            return refused(request, *outcome)
        headers = {
            "Domicile-Receipt": outcome.receipt,
            "Content-Disposition": "attachment",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        return Response(outcome.data, media_type="application/octet-stream", headers=headers)

    @delete("/{file_id:str}", opt={"scope": "upload"}, operation_id="deleteFile", status_code=200)
    async def erase(self, request: Asking, file_id: FromPath[str]) -> dict[str, Any]:
        """Forget a file: its keys at once, the rest after it; the certificate says when all is gone."""
        house = house_of(request)
        await house.catalogue.get(request.user, file_id)
        await house.erasure.erase(request.user, file_id)
        own = {"state": "erasing", "certificate": f"/v1/documents/{file_id}/erasure"}
        return {"id": file_id, "object": "file", "deleted": True, "domicile": own}


def _declared(request: Asking) -> dict[str, Any]:
    """Read the claim from the headers; a missing jurisdiction ends it before the body is read."""
    given = {
        name: request.headers.get(f"domicile-{name}", "").strip()
        for name in ("jurisdiction", "residency", "collection", "personal", "categories", "classification", "groups")
    }
    if not _codes(given["jurisdiction"]):
        raise TagError(
            "no jurisdiction was declared",
            hint='send the header Domicile-Jurisdiction, such as extra_headers={"Domicile-Jurisdiction": "DE"}',
        )
    if given["personal"].lower() not in ("", *_TRUTHS):
        raise InvalidRequestError("Domicile-Personal is true or false", param="Domicile-Personal")
    if given["classification"] and not given["classification"].isdigit():
        raise InvalidRequestError("the classification is no number", param="Domicile-Classification", hint="0 to 4")
    return {
        "jurisdictions": _codes(given["jurisdiction"]),
        "residency": _codes(given["residency"]) or None,
        "collection": given["collection"],
        "personal": _TRUTHS.get(given["personal"].lower(), True),
        "categories": _codes(given["categories"]),
        "classification": int(given["classification"] or 1),
        "groups": _codes(given["groups"]),
    }


async def _field(part: Part, ignored: list[str], *, early: bool) -> None:
    """Read a field: a purpose that we serve is honoured, what would change the meaning is refused."""
    value = await part.text()
    if part.name == "purpose":
        if value not in PURPOSES and early:
            raise UnsupportedParameterError(
                "files here are documents to ask about", param="purpose", hint=f"one of {', '.join(PURPOSES)}"
            )
    elif early:
        raise UnsupportedParameterError(
            f"`{part.name[:64]}` is not supported", param=part.name[:64], hint="leave it out; declare with headers"
        )
    else:  # the file is in already
        ignored.append(part.name[:64])


def _codes(text: str) -> frozenset[str]:
    return frozenset(code.strip() for code in text.split(",") if code.strip())
