"""`POST /v1/search`: Passages from permitted places, with what was withheld and a Receipt."""

from typing import Any

from litestar import Controller, Response, post
from litestar.params import JSONBody

from service.api.attending import attended
from service.api.describing import gives
from service.api.repeating import Repeating, cites
from service.api.replies import Asking, documents_of, house_of, refused
from service.errors import InvalidRequestError
from service.questions import spoken_in
from service.searching import Results, Search
from service.wire import SearchIn, SearchOut, search_out

MOST_RESULTS = 50


class SearchController(Controller):
    """Search a collection."""

    path = "/search"
    tags = ["Ask"]  # noqa: RUF012 - Litestar's protocol

    @post(
        "/",
        opt={"scope": "ask"},
        operation_id="search",
        status_code=200,
        middleware=[Repeating()],
        responses={200: gives(SearchOut)},
    )
    async def search(self, request: Asking, data: JSONBody[SearchIn]) -> SearchOut | Response[dict[str, Any]]:
        """Find Passages. 403 when no permitted place can process the question or everything held is out of reach."""
        if not 1 <= data.top_k <= MOST_RESULTS:
            raise InvalidRequestError(f"`top_k` is 1 to {MOST_RESULTS}", param="top_k", hint="try 5")
        language = spoken_in(data.language)
        ask = Search(data.query, data.top_k, data.collection, documents_of(data.filters), language=language, fold=True)
        house = house_of(request)
        outcome = await attended(request, house.searching.search(request.user, ask), house.settings.limits.question_s)
        if not isinstance(outcome, Results):
            return refused(request, *outcome)
        cites(request, [document for each in outcome.findings.passages for document in each.documents])
        return search_out(outcome)
