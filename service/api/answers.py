"""`POST /v1/answers`: grounded answers, whole or as server-sent events.

Residency is ruled on and recorded before the first byte of a stream, so a Refusal is a status code and never a broken
stream. Events: `token` (text with its marks), `citations`, `receipt`, `done`.
"""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from litestar import Controller, Response, post
from litestar.openapi.spec import Schema
from litestar.params import FromQuery, JSONBody

from service.answering import Answer, Question
from service.api.attending import attended
from service.api.describing import EVENTS, described, gives
from service.api.repeating import Repeating, cites
from service.api.replies import Asking, Events, documents_of, house_of, refused
from service.questions import earlier, spoken_in
from service.wire import AnswerOut, QuestionIn, answer_out


class AnswersController(Controller):
    """Ask a collection."""

    path = "/answers"
    tags = ["Ask"]  # noqa: RUF012 - Litestar's protocol

    @post(
        "/",
        opt={"scope": "ask"},
        operation_id="ask",
        status_code=200,
        middleware=[Repeating()],
        responses={200: gives(AnswerOut)},
        operation_class=described(gives={EVENTS: Schema()}),
    )
    async def ask(
        self, request: Asking, data: JSONBody[QuestionIn], stream: FromQuery[bool] = False
    ) -> AnswerOut | Events | Response[dict[str, Any]]:
        """Answer from the documents, with citations and a receipt; an abstention is an answer (`abstained`)."""
        house = house_of(request)
        before = earlier([*data.earlier, data.question])
        question = Question(
            data.question,
            data.collection,
            documents_of(data.filters),
            earlier=before,
            language=spoken_in(data.language),
        )
        answer = await attended(
            request, house.answering.answer(request.user, question), house.settings.limits.question_s
        )
        if not isinstance(answer, Answer):
            return refused(request, *answer)
        out = answer_out(answer, house.settings.public_url)
        cites(request, [each.document_id for each in out.citations])
        if stream:
            return Events(_events(out))
        return out


def pieces(text: str, marks: list[tuple[int, int]]) -> list[str]:
    """Cut an answer into deltas, each ending behind a claim's last mark, so that no mark is split."""
    ends = sorted(end for _, end in marks)
    cuts = [end for end in ends if text[end : end + 1] != "["]
    result, last = [], 0
    for cut in dict.fromkeys(cuts):
        result.append(text[last:cut])
        last = cut
    if last < len(text):
        result.append(text[last:])
    return result


async def _events(out: AnswerOut) -> AsyncIterator[bytes]:
    marks = [mark for citation in out.citations for mark in citation.marks]
    for piece in pieces(out.answer, marks):
        yield _event("token", {"text": piece})
    whole = msgspec.to_builtins(out)
    yield _event("citations", {"citations": whole["citations"]})
    yield _event("receipt", {"receipt": out.receipt})
    yield _event("done", whole)


def _event(name: str, data: object) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"
