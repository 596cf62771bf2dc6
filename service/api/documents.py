"""Documents over HTTP: raw bodies in, states out, erasure with its certificate.

A name travels in the path and is personal data, so no log line holds a path; it is checked, sealed and never part of a
file's path. Same name and same bytes are the same Document; same name and new bytes are a new version.
"""

from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, delete, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from ingestion.claims import Claim
from ingestion.documents import State
from ingestion.errors import TagError, UploadError
from ingestion.intake import Refused
from service.api.describing import BYTES, RAW, described
from service.api.replies import Asking, house_of, refused
from service.errors import InvalidRequestError
from service.neighbours import MOST, Stretch

LIMIT = 100


class MoveIn(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /v1/documents/{id}/move`."""

    site: str
    """Id of the Site that it is to lie at."""


class DocumentsController(Controller):
    """Put, list, look at, erase."""

    path = "/documents"
    tags = ["Documents"]  # noqa: RUF012 - Litestar's protocol

    @put(
        "/{name:str}",
        opt={"scope": "upload", "problems": (415, 507)},
        operation_id="putDocument",
        status_code=202,
        operation_class=described(takes={BYTES: RAW}),
        request_max_body_size=None,  # the intake measures, and cuts off with 413
    )
    async def put_document(
        self,
        request: Asking,
        name: FromPath[str],
        jurisdiction: FromQuery[str | None] = None,
        residency: FromQuery[str | None] = None,
        collection: FromQuery[str] = "default",
        personal: FromQuery[bool] = True,
        categories: FromQuery[str | None] = None,
        classification: FromQuery[int] = 1,
        groups: FromQuery[str | None] = None,
        folder: FromQuery[str] = "",
    ) -> Response[dict[str, Any]]:
        """Take a raw body in. `jurisdiction`, `residency`, `categories`, `groups` are comma-separated.

        `folder` is where it came from: the folder rules in force add to the Tag, and it is kept nowhere.

        202 once the original is sealed and recorded; 403 before the body is read when no Site may hold it.
        """
        house = house_of(request)
        if b"%2f" in request.scope["raw_path"].lower():  # one at either end is lost before `name` is cut out
            raise _separated()
        claim = Claim(
            name=name,
            jurisdictions=_codes(jurisdiction),
            collection=collection,
            residency=None if residency is None else _codes(residency),
            personal=personal,
            categories=_codes(categories),
            classification=classification,
            groups=_codes(groups),
            folder=folder,
            media_type=request.headers.get("content-type", ""),
        )
        if not claim.placed(house.intake.tag_rules()).jurisdictions:
            raise TagError("no jurisdiction was declared", hint="add ?jurisdiction=DE: whose law binds the document")
        outcome = await house.intake.receive(request.stream(), claim, request.user, _length(request))
        if isinstance(outcome, Refused):
            return refused(request, outcome.refusal, outcome.receipt)
        entry = await house.catalogue.get(request.user, outcome.document.id, outcome.document.version)
        body = entry.facts() | {"name": name, "receipt": outcome.receipt, "created": outcome.created}
        headers = {"Location": f"/v1/documents/{outcome.document.id}", "Domicile-Receipt": outcome.receipt}
        return Response(body, status_code=202, headers=headers)

    @put(
        "/{first:str}/{rest:path}",
        opt={"scope": "upload"},
        operation_id="putDocumentBadName",
        include_in_schema=False,
    )
    async def put_bad_name(self, request: Asking) -> None:
        """Refuse a name with path separators in it (also sent as %2F) instead of answering 404."""
        raise _separated()

    @get("/", opt={"scope": "any"}, operation_id="listDocuments")
    async def listing(
        self,
        request: Asking,
        collection: FromQuery[str] = "",
        wanted: Annotated[str, QueryParameter(name="state")] = "",
        after: FromQuery[str] = "",
        limit: Annotated[int, QueryParameter(ge=1, le=LIMIT)] = 20,
    ) -> dict[str, Any]:
        """List documents, newest first; `after` takes the `next` of the page before."""
        try:
            states = [State(each) for each in wanted.split(",") if each] or None
        except ValueError as error:
            raise InvalidRequestError("unknown state", param="state", hint=f"one of {', '.join(State)}") from error
        house = house_of(request)
        entries, cursor = await house.catalogue.listing(
            request.user, collection=collection, states=states, cursor=after, limit=limit
        )
        data = [entry.facts() for entry in entries]
        return {"object": "list", "data": data, "has_more": bool(cursor), "next": cursor}

    @get("/{document_id:str}", opt={"scope": "any"}, operation_id="getDocument")
    async def one(self, request: Asking, document_id: FromPath[str]) -> dict[str, Any]:
        """Give one document: state, tag, place, progress, and what to do when it failed."""
        return (await house_of(request).catalogue.get(request.user, document_id)).facts()

    @get("/{document_id:str}/passages/{number:int}", opt={"scope": "ask"}, operation_id="documentPassages")
    async def passages(
        self,
        request: Asking,
        document_id: FromPath[str],
        number: FromPath[int],
        around: Annotated[int, QueryParameter(ge=0, le=MOST)] = 0,
    ) -> Response[Any]:
        """Open a passage of a live document by its number, with `around` more on either side."""
        outcome = await house_of(request).neighbours.around(request.user, document_id, number, around)
        if not isinstance(outcome, Stretch):
            return refused(request, *outcome)
        return Response(outcome.facts(), headers={"Domicile-Receipt": outcome.receipt})

    @post("/{document_id:str}/retry", opt={"scope": "upload"}, operation_id="retryDocument", status_code=202)
    async def retry(self, request: Asking, document_id: FromPath[str]) -> dict[str, Any]:
        """Try a failed document again from its sealed original."""
        house = house_of(request)
        await house.catalogue.get(request.user, document_id)
        await house.database.run(house.documents.retry, request.user.tenant, document_id)
        house.worker.wake()
        return (await house.catalogue.get(request.user, document_id)).facts()

    @post("/{document_id:str}/pause", opt={"scope": "upload"}, operation_id="pauseDocument", status_code=202)
    async def pause(self, request: Asking, document_id: FromPath[str]) -> dict[str, Any]:
        """Stop work on a document at once; what was done stays done. 409 when nobody works on it."""
        return await self._paused(request, document_id, paused=True)

    @post("/{document_id:str}/resume", opt={"scope": "upload"}, operation_id="resumeDocument", status_code=202)
    async def resume(self, request: Asking, document_id: FromPath[str]) -> dict[str, Any]:
        """Go on with a paused document from the step where it stood."""
        return await self._paused(request, document_id, paused=False)

    async def _paused(self, request: Asking, document_id: str, *, paused: bool) -> dict[str, Any]:
        house, tenant = house_of(request), request.user.tenant
        await house.catalogue.get(request.user, document_id)
        await house.database.run(lambda: house.pausing.document(tenant, document_id, paused=paused))
        house.worker.wake()
        return (await house.catalogue.get(request.user, document_id)).facts()

    @post("/{document_id:str}/cancel", opt={"scope": "upload"}, operation_id="cancelDocument", status_code=202)
    async def cancel(self, request: Asking, document_id: FromPath[str]) -> dict[str, Any]:
        """Give up a document that never went live: it is erased, with a certificate. 409 once it was live."""
        house = house_of(request)
        await house.catalogue.get(request.user, document_id)
        await house.pausing.cancel(request.user, document_id)
        return {"id": document_id, "state": "erasing", "certificate": f"/v1/documents/{document_id}/erasure"}

    @post("/{document_id:str}/move", opt={"scope": "admin"}, operation_id="moveDocument", status_code=202)
    async def move(self, request: Asking, document_id: FromPath[str], data: JSONBody[MoveIn]) -> Response[Any]:
        """Move a document to another site; workers copy it, check the copy, switch, and clear the old site.

        Asked again for the same site it says where the move stands; 403 where the policy refuses.
        """
        house = house_of(request)
        await house.catalogue.get(request.user, document_id)
        outcome = await house.moving.move(request.user, document_id, data.site)
        if isinstance(outcome, Refused):
            return refused(request, outcome.refusal, outcome.receipt)
        house.worker.wake()
        return Response(outcome.facts(), status_code=202)

    @get("/{document_id:str}/move", opt={"scope": "any"}, operation_id="moveState")
    async def moved(self, request: Asking, document_id: FromPath[str]) -> dict[str, Any]:
        """Say where the last move of a document stands: copying, indexing, erasing, done or failed."""
        house = house_of(request)
        await house.catalogue.get(request.user, document_id)
        return (await house.moving.status(request.user.tenant, document_id)).facts()

    @delete("/{document_id:str}", opt={"scope": "upload"}, operation_id="eraseDocument", status_code=202)
    async def erase(self, request: Asking, document_id: FromPath[str]) -> dict[str, Any]:
        """Forget a document: its key, its passages, its original. The certificate follows under `/erasure`."""
        house = house_of(request)
        await house.catalogue.get(request.user, document_id)
        await house.erasure.erase(request.user, document_id)
        return {"id": document_id, "state": "erasing", "certificate": f"/v1/documents/{document_id}/erasure"}

    @get("/{document_id:str}/erasure", opt={"scope": "any"}, operation_id="erasureCertificate")
    async def certificate(self, request: Asking, document_id: FromPath[str]) -> dict[str, Any]:
        """Give the certificate of an erasure: per store what was done, when, and what a probe found."""
        house = house_of(request)
        return await house.erasure.certificate(request.user.tenant, document_id)


def _separated() -> UploadError:
    return UploadError("the name holds a path separator", hint="send the bare file name, without folders")


def _codes(text: str | None) -> frozenset[str]:
    return frozenset(part.strip() for part in (text or "").replace("+", ",").split(",") if part.strip())


def _length(request: Asking) -> int | None:
    value = request.headers.get("content-length", "")
    return int(value) if value.isdigit() else None
