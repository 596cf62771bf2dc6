"""Multipart bodies, part by part as a stream: for the portal's form and for clients that upload as OpenAI's do.

Rules kept here: no body is spooled to a file; a part is handed on while it is read, so that the intake seals it Block
by Block; fields are bounded. Source: RFC 7578.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from service.api.replies import Asking
from service.errors import InvalidRequestError

MOST_FIELD = 4096
"""Bytes of a field that is no file."""
MOST_PARTS = 1000


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an upload form: a field, or a file whose `body` must be read before the next part comes."""

    name: str
    filename: str | None
    media_type: str
    body: AsyncIterator[bytes]

    async def text(self) -> str:
        """Read a field. Raises `InvalidRequestError` when it is longer than fields are."""
        raw = b""
        async for block in self.body:
            raw += block
            if len(raw) > MOST_FIELD:
                raise InvalidRequestError("a field of the form is too long", param=self.name)
        return raw.decode("utf-8", errors="replace")


async def parts(request: Asking) -> AsyncIterator[Part]:
    """Give the parts of an upload form in their order, each while it comes in."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not boundary:
        raise InvalidRequestError("this is no upload form", hint="send multipart/form-data with its boundary")
    events = _events(request, PushMultipartParser(boundary, max_segment_count=MOST_PARTS))
    async for event in events:
        if isinstance(event, MultipartSegment):  # what a caller left unread of the part before is skipped
            yield Part(event.name, event.filename, event.content_type or "", _body(events))


async def _events(request: Asking, parser: PushMultipartParser) -> AsyncIterator[Any]:
    try:
        async for block in request.stream():
            for event in parser.parse(block):
                yield event
        for event in parser.parse(b""):
            yield event
    except MultipartError as error:
        raise InvalidRequestError("the upload broke off or is damaged", hint="send the files again") from error


async def _body(events: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    async for event in events:
        if event is None:
            return
        yield bytes(event)
