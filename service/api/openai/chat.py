"""`POST /v1/chat/completions`: a collection as a model, plain and streamed, for every client that speaks OpenAI."""

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from litestar import Controller, Response, post
from litestar.openapi.spec import Schema
from litestar.params import JSONBody

from service.answering import Answer, Question
from service.api.answers import pieces
from service.api.attending import attended
from service.api.describing import EVENTS, described
from service.api.openai.wire import ChatIn, annotations, check, extras, ignored, questions_of
from service.api.repeating import Repeating, cites
from service.api.replies import Asking, Events, house_of, refused
from service.errors import InvalidRequestError
from service.house import House
from service.questions import earlier
from service.wire import AnswerOut, answer_out

PREFIX = "domicile/"


def collection_of(model: str, data: ChatIn) -> str:
    """Read the collection out of a model id, `domicile/<collection>`. Raises `InvalidRequestError` for any other."""
    if not model.startswith(PREFIX) or not model.removeprefix(PREFIX):
        raise InvalidRequestError(
            "a model here is a collection, such as `domicile/default`", param="model", hint="see GET /v1/models"
        )
    return str((data.domicile or {}).get("collection") or model.removeprefix(PREFIX))


class ChatController(Controller):
    """Chat with a collection."""

    path = "/chat/completions"
    tags = ["OpenAI"]  # noqa: RUF012 - Litestar's protocol

    @post(
        "/",
        opt={"scope": "ask"},
        operation_id="createChatCompletion",
        status_code=200,
        middleware=[Repeating()],
        operation_class=described(gives={EVENTS: Schema()}),
    )
    async def complete(self, request: Asking, data: JSONBody[ChatIn]) -> Response[Any] | Events:
        """Answer the last question of the conversation; 403 before the first byte when the policy refuses."""
        check(data)
        house = house_of(request)
        collection = collection_of(data.model, data)
        asked = questions_of(data)
        question = Question(asked[-1], collection, earlier=earlier(asked), param="messages")
        answer = await attended(
            request, house.answering.answer(request.user, question), house.settings.limits.question_s
        )
        if not isinstance(answer, Answer):
            return refused(request, *answer)
        out = answer_out(answer, house.settings.public_url)
        cites(request, [each.document_id for each in out.citations])
        base = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": data.model}
        headers = {"Domicile-Receipt": out.receipt, "Domicile-Zones": ",".join(out.zones), "Cache-Control": "no-store"}
        usage = _usage(house, question.text, out.answer)
        own = extras(out, collection, ignored(data), question.earlier)
        if data.stream:
            wanted = usage if data.stream_options and data.stream_options.include_usage else None
            return Events(_stream(base, out, own, wanted), headers)
        message = {
            "role": "assistant",
            "refusal": None,
            "content": out.answer,
            "annotations": annotations(out),
            "domicile": own,
        }
        body = {
            **base,
            "object": "chat.completion",
            "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, "message": message}],
            "usage": usage,
        }
        return Response(body, headers=headers)


async def _stream(
    base: dict[str, Any], out: AnswerOut, own: dict[str, Any], usage: dict[str, int] | None
) -> AsyncIterator[bytes]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return _line(
            {
                **base,
                "object": "chat.completion.chunk",
                "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
            }
        )

    yield chunk({"role": "assistant", "content": ""})
    for piece in pieces(out.answer, [mark for citation in out.citations for mark in citation.marks]):
        yield chunk({"content": piece})
    # exactly one delta carries these: the SDK's accumulating reader raises on a second list
    yield chunk({"annotations": annotations(out), "domicile": own})
    yield chunk({}, "stop")
    if usage is not None:
        yield _line({**base, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _line(body: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _usage(house: House, question: str, answer: str) -> dict[str, int]:
    """Count tokens as the embedding model does; there is no other tokenizer when answers are extractive."""
    counter = next(iter(house.embedders.values()))
    asked, written = counter.count_tokens(question), counter.count_tokens(answer)
    return {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written}
