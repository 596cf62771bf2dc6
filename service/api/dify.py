"""`POST /v1/retrieval`: a Collection as an external knowledge base of Dify, whose endpoint is then this API's `/v1`.

Source: langgenius/dify-docs, "External Knowledge API". Scores are those of a vector store's search. The tool that asks
is a recipient of data, so the key's own Zone is ruled on.
"""

from typing import Any

import msgspec
from litestar import Controller, Response, post
from litestar.params import JSONBody

from service.api.attending import attended
from service.api.replies import Asking, house_of, refused
from service.errors import InvalidRequestError, UnsupportedParameterError
from service.filters import Filter, parse
from service.grounding import confidence
from service.harmless import harmless, harmless_lines
from service.house import House
from service.searching import Results, Search

MOST_RESULTS = 50
_COMPARED = {
    "is": "eq", "=": "eq", "is not": "ne", "≠": "ne", ">": "gt", "≥": "gte", "<": "lt", "≤": "lte",
    "in": "in", "not in": "nin",
}  # fmt: skip


class Wanted(msgspec.Struct, frozen=True):
    """`retrieval_setting`."""

    top_k: int = 5
    score_threshold: float = 0.0


class Compared(msgspec.Struct):
    """One of `metadata_condition.conditions`."""

    name: list[str]
    comparison_operator: str
    value: Any = None


class Conditions(msgspec.Struct):
    """`metadata_condition`."""

    conditions: list[Compared] = []
    logical_operator: str = "and"


class RetrievalIn(msgspec.Struct):
    """What Dify asks; `knowledge_id` is the name of a Collection."""

    knowledge_id: str
    query: str
    retrieval_setting: Wanted = Wanted()
    metadata_condition: Conditions | None = None


class DifyController(Controller):
    """Search as Dify asks for it."""

    path = "/retrieval"
    tags = ["Ask"]  # noqa: RUF012 - Litestar's protocol

    @post("/", opt={"scope": "ask"}, operation_id="retrieve", status_code=200)
    async def retrieve(self, request: Asking, data: JSONBody[RetrievalIn]) -> Response[dict[str, Any]]:
        """Give passages with score, title and metadata; those below `score_threshold` are left out."""
        house, principal, setting = house_of(request), request.user, data.retrieval_setting
        if not 1 <= setting.top_k <= MOST_RESULTS:
            raise InvalidRequestError(f"`top_k` is 1 to {MOST_RESULTS}", param="retrieval_setting.top_k")
        if not 0 <= setting.score_threshold <= 1:
            raise InvalidRequestError("`score_threshold` is 0 to 1", param="retrieval_setting.score_threshold")
        documents = await _matching(house, request, data)
        ask = Search(data.query, setting.top_k, data.knowledge_id, documents)
        outcome = await attended(request, house.searching.search(principal, ask), house.settings.limits.question_s)
        if not isinstance(outcome, Results):
            return refused(request, *outcome)
        records = [
            {
                "content": harmless_lines(passage.text),
                "score": score,
                "title": harmless(f"{passage.name}, p. {passage.page}"),
                "metadata": {
                    "document_id": passage.document_id,
                    "version": passage.version,
                    "page": passage.page,
                    "start": passage.start,
                    "end": passage.end,
                    "site": passage.site,
                    "zone": passage.zone,
                    "receipt": outcome.receipt,
                },
            }
            for passage in outcome.findings.passages
            if (score := confidence([passage], outcome.findings.calibration)) >= setting.score_threshold
        ]
        return Response({"records": records}, headers={"Domicile-Receipt": outcome.receipt})


async def _matching(house: House, request: Asking, data: RetrievalIn) -> tuple[str, ...] | None:
    if data.metadata_condition is None or not data.metadata_condition.conditions:
        return None
    wanted = _filter(data.metadata_condition)
    stores = await house.database.run(house.filing.stores.listing, request.user.tenant)
    store = next((each for each in stores if each.name == data.knowledge_id), None)
    return None if store is None else await house.filing.matching(request.user, store, wanted)


def _filter(given: Conditions) -> Filter:
    """Read Dify's conditions as a filter; an operator that filters do not know is refused, never passed over."""
    if given.logical_operator not in ("and", "or"):
        raise InvalidRequestError("`logical_operator` is and or or", param="metadata_condition.logical_operator")
    parts = []
    for each in given.conditions:
        kind = _COMPARED.get(each.comparison_operator)
        if kind is None:
            raise UnsupportedParameterError(
                "that `comparison_operator` is not supported",
                param="metadata_condition",
                hint=f"known: {', '.join(_COMPARED)}",
            )
        named = [{"type": kind, "key": name, "value": each.value} for name in each.name]
        parts.append({"type": "or", "filters": named})
    return parse({"type": given.logical_operator, "filters": parts})
