"""`POST /v1/embeddings`: vectors of the text just sent, ruled on like a question; no route returns a stored vector."""

import asyncio
import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Controller, Response, post
from litestar.params import JSONBody

from residency.decision import Principal
from residency.journal import recording
from residency.ports import Embedder, Vectors
from residency.receipt import Draft, steps
from residency.route import Action, Route
from residency.tag import Tag
from service.api.attending import attended
from service.api.replies import Asking, house_of, refused
from service.errors import InvalidRequestError
from service.house import House
from service.searching import question_tag

MOST_TEXTS = 256


class EmbeddingsIn(msgspec.Struct):
    """OpenAI's CreateEmbeddingRequest, text inputs only."""

    input: str | list[str]
    model: str = "domicile/embedding"
    encoding_format: str = "float"
    user: str | None = None
    dimensions: int | None = None


class EmbeddingsController(Controller):
    """Embed text at a permitted Site."""

    path = "/embeddings"
    tags = ["OpenAI"]  # noqa: RUF012 - Litestar's protocol

    @post("/", opt={"scope": "ask"}, operation_id="createEmbedding", status_code=200)
    async def embed(self, request: Asking, data: JSONBody[EmbeddingsIn]) -> Response[Any]:
        """Give unit vectors, float or base64 (little-endian float32)."""
        house, principal = house_of(request), request.user
        texts = [data.input] if isinstance(data.input, str) else data.input
        if not texts or len(texts) > MOST_TEXTS or not all(text.strip() for text in texts):
            raise InvalidRequestError(f"1 to {MOST_TEXTS} texts that are not empty", param="input")
        tag = question_tag(house.engine, principal)
        permits, refusals = house.engine.permitted(principal, Action.EMBED, (tag,), "embedder")
        if not permits:
            receipt = await house.searching.drafting.refusal(principal, refusals[0], "\n".join(texts), "search")
            return refused(request, refusals[0], receipt)
        embedder = house.embedders[permits[0].route.site]
        if data.dimensions not in (None, embedder.dimension):
            raise InvalidRequestError(f"this model gives {embedder.dimension} dimensions", param="dimensions")
        for at, text in enumerate(texts):
            if embedder.count_tokens(text) > embedder.max_tokens:
                raise InvalidRequestError(
                    f"input {at} is longer than {embedder.max_tokens} tokens", param="input", hint="split it"
                )
        story = _embed(house, principal, permits[0].route, embedder, texts, tag)
        vectors, receipt = await attended(request, story, house.settings.limits.question_s)
        encode = data.encoding_format == "base64"
        count = sum(embedder.count_tokens(text) for text in texts)
        body = {
            "object": "list",
            "model": data.model,
            "data": [
                {
                    "object": "embedding",
                    "index": at,
                    "embedding": base64.b64encode(row.astype("<f4").tobytes()).decode() if encode else row.tolist(),
                }
                for at, row in enumerate(vectors)
            ],
            "usage": {"prompt_tokens": count, "total_tokens": count},
            "domicile": {"receipt": receipt},
        }
        return Response(body, headers={"Domicile-Receipt": receipt})


async def _embed(
    house: House, principal: Principal, route: Route, embedder: Embedder, texts: Sequence[str], tag: Tag
) -> tuple[Vectors, str]:
    """Embed, record, and give the vectors with the id of their Receipt; also who went away leaves one."""
    text = "\n".join(texts)
    with recording() as touches:
        try:
            vectors = await embedder.embed(route, texts)
        except asyncio.CancelledError:
            await house.searching.drafting.cancelled("search", principal, text, "search", (tag,), touches)
            raise
    draft = Draft(
        kind="search",
        tenant=principal.tenant,
        activity="search",
        tags=(tag,),
        steps=steps(touches, house.engine.fleet, datetime.now(UTC)),
        refused=[],
        commits={"principal": principal.id.encode(), "question": text.encode()},
    )
    return vectors, (await house.ledger.record(draft)).id
