"""OpenAI's shapes, as far as we speak them; everything of our own stands under one key, `domicile`.

Citations are `url_citation` annotations with indices in code points, end exclusive; `cited_text` stands beside them so
that a client can check. Source: openai/openai-openapi, CreateChatCompletionResponse; docs/api.md says what differs.
"""

from typing import Any

import msgspec

from service.errors import InvalidRequestError, UnsupportedParameterError
from service.wire import AnswerOut


class Message(msgspec.Struct):
    """One message of a conversation handed in by the client."""

    role: str
    content: str | list[dict[str, Any]] | None = None


class StreamOptions(msgspec.Struct):
    """`stream_options`."""

    include_usage: bool = False


class ChatIn(msgspec.Struct):
    """`POST /v1/chat/completions`; fields we ignore are listed back, fields that change the meaning are refused."""

    model: str
    messages: list[Message]
    stream: bool = False
    stream_options: StreamOptions | None = None
    domicile: dict[str, Any] | None = None
    n: int | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    logprobs: bool | None = None
    response_format: dict[str, Any] | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    user: str | None = None


IGNORED = (
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "presence_penalty",
    "frequency_penalty",
    "stop",
    "seed",
    "user",
)


def check(data: ChatIn) -> None:
    """Refuse what would be misread. Raises `UnsupportedParameterError` with `param`."""
    if data.n not in (None, 1):
        raise UnsupportedParameterError("one answer is given; `n` above 1 is not supported", param="n")
    for name in ("tools", "functions"):
        if getattr(data, name):
            raise UnsupportedParameterError(
                f"`{name}` is not supported: documents cannot call anything", param=name, hint=f"leave `{name}` out"
            )
    if data.logprobs:
        raise UnsupportedParameterError("`logprobs` is not supported", param="logprobs")
    if data.response_format and data.response_format.get("type", "text") != "text":
        raise UnsupportedParameterError("only text is supported", param="response_format")
    unknown = set(data.domicile or {}) - {"collection"}
    if unknown:
        raise UnsupportedParameterError(
            f"unknown `domicile.{sorted(unknown)[0]}`", param="domicile", hint="known: collection"
        )


def ignored(data: ChatIn) -> list[str]:
    """List the parameters that were sent and have no effect."""
    return [name for name in IGNORED if getattr(data, name) is not None]


def questions_of(data: ChatIn) -> list[str]:
    """Give every message of role user as text, the last one being the question. Raises `InvalidRequestError`.

    What assistant, system and tool messages say is not read: it may quote documents under another Tag, and it asks
    nothing.
    """
    asked: list[str] = []
    for message in data.messages:
        if message.role != "user":
            continue
        if isinstance(message.content, str):
            asked.append(message.content)
        else:
            parts = [str(part.get("text", "")) for part in message.content or [] if part.get("type") == "text"]
            asked.append("\n".join(parts))
    if not asked:
        raise InvalidRequestError(
            "no message of role `user`", param="messages", hint="add the question as the last message"
        )
    return asked


def annotations(out: AnswerOut) -> list[dict[str, Any]]:
    """Give one `url_citation` per mark, in the order of the text; never `file_citation` (clients reject the reply)."""
    placed: list[tuple[int, dict[str, Any]]] = []
    for citation in out.citations:
        for claim, mark in zip(citation.claims, citation.marks, strict=True):
            page = f", p. {citation.page}" if citation.page else ""
            body = {
                "start_index": claim[0],
                "end_index": claim[1],
                "title": f"{citation.name}{page}",
                "url": citation.url,
                "citation": citation.index,
                "document_id": citation.document_id,
                "version": citation.version,
                "page": citation.page,
                "start": citation.start,
                "end": citation.end,
                "cited_text": citation.quote,
                "score": citation.score,
            }
            placed.append((mark[0], {"type": "url_citation", "url_citation": body}))
    return [each for _, each in sorted(placed, key=lambda item: item[0])]


def extras(out: AnswerOut, collection: str, left_out: list[str], earlier: str) -> dict[str, Any]:
    """Give what stands under `domicile` on the message, and on exactly one delta of a stream."""
    return {
        "receipt": out.receipt,
        "collection": collection,
        "zones": out.zones,
        "abstained": out.abstained,
        "reason": out.reason,
        "confidence": out.confidence,
        "answered_by": out.answered_by,
        "fallback": out.fallback,
        "citations": [{k: v for k, v in msgspec.to_builtins(each).items() if k != "url"} for each in out.citations],
        "withheld": out.withheld,
        "unreached": out.unreached,
        "ignored": [*left_out, *out.ignored],
        "earlier": earlier or None,
    }
