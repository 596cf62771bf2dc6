"""`/v1/vector_stores`: a Collection as OpenAI's clients know it, its files with attributes, and search with filters.

Scores are 0 to 1 and compare across searches: how far a Passage stands above the threshold of an Answer, 0.5 at it.
What we do not keep (metadata, expiry, cutting by hand) is refused, so that nobody believes it was kept.
"""

import secrets
from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from ingestion.attributes import Value
from ingestion.documents import State
from ingestion.states import COMING
from ingestion.stores import UNATTACHED, Store
from residency.protection import VectorMode, WordMode
from service.api.attending import attended
from service.api.openai.paging import MOST, listed, order
from service.api.repeating import Repeating, cites
from service.api.replies import Asking, house_of, refused
from service.catalogue import Entry
from service.errors import InvalidRequestError, UnsupportedParameterError
from service.filters import parse
from service.grounding import confidence
from service.searching import Results, Search

MOST_RESULTS = 50
MOST_FILES = 100
_STATES = {
    "in_progress": COMING,
    "completed": (State.LIVE,),
    "failed": (State.FAILED, State.QUARANTINED),
    "cancelled": (),
}
_REASONS = {"unsupported_type": "unsupported_file", "internal": "server_error", "poison": "server_error"}


class Modes(msgspec.Struct, forbid_unknown_fields=True):
    """In what form vectors and words of a new Collection lie at shards; it stays so."""

    vectors: VectorMode | None = None
    words: WordMode | None = None


class StoreIn(msgspec.Struct):
    """`POST /v1/vector_stores`."""

    name: str | None = None
    file_ids: list[str] = []
    description: str | None = None
    metadata: dict[str, Any] | None = None
    expires_after: dict[str, Any] | None = None
    chunking_strategy: dict[str, Any] | None = None
    domicile: Modes = msgspec.field(default_factory=Modes)


class FileIn(msgspec.Struct):
    """`POST /v1/vector_stores/{id}/files`."""

    file_id: str
    attributes: dict[str, Value] | None = None
    chunking_strategy: dict[str, Any] | None = None


class AttributesIn(msgspec.Struct):
    """`POST /v1/vector_stores/{id}/files/{file_id}`."""

    attributes: dict[str, Value] | None


class Ranking(msgspec.Struct):
    """`ranking_options`."""

    ranker: str = "auto"
    score_threshold: float = 0.0


class StoreSearchIn(msgspec.Struct):
    """`POST /v1/vector_stores/{id}/search`."""

    query: str | list[str]
    filters: Any = None
    max_num_results: int = 10
    ranking_options: Ranking | None = None
    rewrite_query: bool = False


def store_out(store: Store) -> dict[str, Any]:
    """Give OpenAI's VectorStore."""
    count = {name: sum(store.states.get(state, 0) for state in states) for name, states in _STATES.items()}
    return {
        "id": store.id,
        "object": "vector_store",
        "created_at": int(store.created),
        "name": store.name,
        "status": "in_progress" if count["in_progress"] else "completed",
        "usage_bytes": store.size,
        "file_counts": count | {"total": sum(count.values())},
        "last_active_at": None,
        "metadata": {},
        "domicile": {
            "collection": store.name,
            "model": f"domicile/{store.name}",
            "vectors": store.vectors,
            "words": store.words,
        },
    }


def store_file_out(entry: Entry, attributes: dict[str, Value]) -> dict[str, Any]:
    """Give OpenAI's VectorStoreFile; the true state stands under `domicile`."""
    document = entry.document
    status = next((name for name, states in _STATES.items() if document.state in states), "cancelled")
    error = None
    if status == "failed":
        code = _REASONS.get(document.cause, "invalid_file")
        error = {"code": code, "message": document.cause or str(document.state)}
    return {
        "id": document.id,
        "object": "vector_store.file",
        "created_at": int(document.created),
        "vector_store_id": document.collection,
        "status": status,
        "usage_bytes": document.size,
        "last_error": error,
        "attributes": attributes,
        "domicile": entry.facts(),
    }


class StoresController(Controller):
    """Make, list, look at, search, remove."""

    path = "/vector_stores"
    tags = ["OpenAI"]  # noqa: RUF012 - Litestar's protocol

    @post("/", opt={"scope": "upload", "problems": (404,)}, operation_id="createVectorStore", status_code=200)
    async def create(self, request: Asking, data: JSONBody[StoreIn]) -> dict[str, Any]:
        """Make a Collection, or give the one of that name; names are slugs, since they stand in reports."""
        house, principal = house_of(request), request.user
        _kept(metadata=data.metadata, expires_after=data.expires_after, chunking_strategy=data.chunking_strategy)
        if data.name == UNATTACHED:
            raise InvalidRequestError("that name is taken by files in no vector store", param="name")
        if len(data.file_ids) > MOST_FILES:
            raise InvalidRequestError(f"at most {MOST_FILES} files at a time", param="file_ids")
        name = data.name or f"store-{secrets.token_hex(4)}"
        modes = data.domicile
        made = await house.database.run(
            house.documents.collection, principal.tenant, name, vectors=modes.vectors, words=modes.words
        )
        for file_id in data.file_ids:
            await house.filing.attach(principal, made.id, file_id, None)
        house.worker.wake()
        return store_out(await house.database.run(house.filing.stores.get, principal.tenant, made.id))

    @get("/", opt={"scope": "any"}, operation_id="listVectorStores")
    async def listing(
        self,
        request: Asking,
        after: FromQuery[str] = "",
        before: FromQuery[str] = "",
        limit: Annotated[int, QueryParameter(ge=1, le=MOST)] = 20,
        wanted: Annotated[str, QueryParameter(name="order")] = "desc",
    ) -> dict[str, Any]:
        """List Collections."""
        house = house_of(request)
        found = await house.database.run(house.filing.stores.listing, request.user.tenant)
        if not order(wanted):
            found.reverse()
        ids = [store.id for store in found]
        for edge in filter(None, (after, before)):
            if edge not in ids:
                raise InvalidRequestError("there is no such vector store", param="after" if after else "before")
        first = ids.index(after) + 1 if after else 0
        last = ids.index(before) if before else len(ids)
        shown = (
            found[max(first, last - limit) : last] if before and not after else found[first : min(last, first + limit)]
        )
        more = len(shown) < last - first
        return listed([store_out(store) for store in shown], more=more)

    @get("/{store_id:str}", opt={"scope": "any"}, operation_id="retrieveVectorStore")
    async def one(self, request: Asking, store_id: FromPath[str]) -> dict[str, Any]:
        """Give one Collection with the counts of its files."""
        house = house_of(request)
        return store_out(await house.database.run(house.filing.stores.get, request.user.tenant, store_id))

    @delete("/{store_id:str}", opt={"scope": "upload"}, operation_id="deleteVectorStore", status_code=200)
    async def remove(self, request: Asking, store_id: FromPath[str]) -> dict[str, Any]:
        """Remove an empty Collection; 409 while it holds files, since forgetting each is an act of its own."""
        house = house_of(request)
        await house.database.run(house.filing.stores.drop, request.user.tenant, store_id)
        return {"id": store_id, "object": "vector_store.deleted", "deleted": True}

    @post(
        "/{store_id:str}/search",
        opt={"scope": "ask"},
        operation_id="searchVectorStore",
        status_code=200,
        middleware=[Repeating()],
    )
    async def search(
        self, request: Asking, store_id: FromPath[str], data: JSONBody[StoreSearchIn]
    ) -> Response[dict[str, Any]]:
        """Find Passages, narrowed by filters on attributes; those below `score_threshold` are left out."""
        house, principal = house_of(request), request.user
        if not 1 <= data.max_num_results <= MOST_RESULTS:
            raise InvalidRequestError(f"`max_num_results` is 1 to {MOST_RESULTS}", param="max_num_results")
        ranking = data.ranking_options or Ranking()
        if not 0 <= ranking.score_threshold <= 1:
            raise InvalidRequestError("`score_threshold` is 0 to 1", param="ranking_options.score_threshold")
        store = await house.database.run(house.filing.stores.get, principal.tenant, store_id)
        query = data.query if isinstance(data.query, str) else "\n".join(data.query)
        documents = None
        if data.filters is not None:
            documents = await house.filing.matching(principal, store, parse(data.filters))
        ask = Search(query, data.max_num_results, store.name, documents)
        outcome = await attended(request, house.searching.search(principal, ask), house.settings.limits.question_s)
        if not isinstance(outcome, Results):
            return refused(request, *outcome)
        findings = outcome.findings
        scored = [(confidence([passage], findings.calibration), passage) for passage in findings.passages]
        kept = [(score, passage) for score, passage in scored if score >= ranking.score_threshold]
        ids = {passage.document_id for _, passage in kept}
        cites(request, ids)
        rows = await house.database.run(house.documents.live, principal.tenant, ids)
        own = await house.filing.attributes(principal, list(rows.values()))
        found = [
            {
                "file_id": passage.document_id,
                "filename": passage.name,
                "score": score,
                "attributes": own.get(passage.document_id, {}),
                "content": [{"type": "text", "text": passage.text}],
                "domicile": {
                    "version": passage.version,
                    "page": passage.page,
                    "start": passage.start,
                    "end": passage.end,
                    "heading": passage.heading,
                    "site": passage.site,
                    "zone": passage.zone,
                },
            }
            for score, passage in kept
        ]
        ignored = [*findings.ignored, *(["rewrite_query"] if data.rewrite_query else [])]
        if ranking.ranker not in ("auto", "none"):
            ignored.append("ranking_options.ranker")
        body = {
            "object": "vector_store.search_results.page",
            "search_query": [query],
            "data": found,
            "has_more": False,
            "next_page": None,
            "domicile": {
                "receipt": outcome.receipt,
                "withheld": findings.withheld,
                "unreached": list(findings.unreached),
                "ignored": ignored,
            },
        }
        return Response(body, headers={"Domicile-Receipt": outcome.receipt})


class StoreFilesController(Controller):
    """Files of a vector store."""

    path = "/vector_stores/{store_id:str}/files"
    tags = ["OpenAI"]  # noqa: RUF012 - Litestar's protocol

    @post("/", opt={"scope": "upload"}, operation_id="createVectorStoreFile", status_code=200)
    async def attach(self, request: Asking, store_id: FromPath[str], data: JSONBody[FileIn]) -> dict[str, Any]:
        """Put an uploaded file into the vector store; from then on it is read and indexed."""
        house = house_of(request)
        _kept(chunking_strategy=data.chunking_strategy)
        entry = await house.filing.attach(request.user, store_id, data.file_id, data.attributes)
        house.worker.wake()
        return await _one(request, entry)

    @get("/", opt={"scope": "any"}, operation_id="listVectorStoreFiles")
    async def listing(
        self,
        request: Asking,
        store_id: FromPath[str],
        after: FromQuery[str] = "",
        before: FromQuery[str] = "",
        limit: Annotated[int, QueryParameter(ge=1, le=MOST)] = 20,
        wanted: Annotated[str, QueryParameter(name="order")] = "desc",
        status: Annotated[str, QueryParameter(name="filter")] = "",
    ) -> dict[str, Any]:
        """List them; `filter` is in_progress, completed, failed or cancelled."""
        house = house_of(request)
        if status and status not in _STATES:
            raise InvalidRequestError("unknown `filter`", param="filter", hint=f"one of {', '.join(_STATES)}")
        await house.database.run(house.filing.stores.get, request.user.tenant, store_id)
        found, more = await house.filing.files(
            request.user,
            store_id=store_id,
            states=_STATES[status] if status else None,
            after=after,
            before=before,
            newest_first=order(wanted),
            limit=limit,
        )
        own = await house.filing.attributes(request.user, [entry.document for entry in found])
        return listed([store_file_out(entry, own.get(entry.document.id, {})) for entry in found], more=more)

    @get("/{file_id:str}", opt={"scope": "any"}, operation_id="retrieveVectorStoreFile")
    async def one(self, request: Asking, store_id: FromPath[str], file_id: FromPath[str]) -> dict[str, Any]:
        """Give one: its state as OpenAI names it, the true one under `domicile`."""
        return await _one(request, await house_of(request).filing.file(request.user, store_id, file_id))

    @post("/{file_id:str}", opt={"scope": "upload"}, operation_id="updateVectorStoreFile", status_code=200)
    async def update(
        self, request: Asking, store_id: FromPath[str], file_id: FromPath[str], data: JSONBody[AttributesIn]
    ) -> dict[str, Any]:
        """Write its attributes anew."""
        house = house_of(request)
        entry = await house.filing.file(request.user, store_id, file_id)
        await house.filing.write(request.user, entry, data.attributes or {})
        return await _one(request, entry)


async def _one(request: Asking, entry: Entry) -> dict[str, Any]:
    own = await house_of(request).filing.attributes(request.user, [entry.document])
    return store_file_out(entry, own.get(entry.document.id, {}))


def _kept(**given: Any) -> None:
    """Refuse what would be believed kept; OpenAI's own defaults pass."""
    for name, value in given.items():
        if value and value != {"type": "auto"}:
            raise UnsupportedParameterError(f"`{name}` is not supported", param=name, hint=f"leave `{name}` out")
