"""Forms: bodies of forms, small ones as fields, uploads part by part as a stream.

Rules kept here: no body is spooled to a file; a part is handed on while it is read, so that the intake seals it Block
by Block; fields are bounded. Source: RFC 7578.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from litestar.exceptions import ClientException
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from ingestion.claims import Claim
from service.api.replies import Asking
from service.errors import InvalidRequestError

Fields = dict[str, list[str]]
MOST_FIELD = 4096
"""Bytes of a field that is no file."""
MOST_PARTS = 1000


async def fields(request: Asking) -> Fields:
    """Read a form that carries no files; anything else gives no fields."""
    kind, _ = parse_options_header(request.headers.get("content-type", ""))
    if kind != "application/x-www-form-urlencoded":
        return {}
    raw = await request.body()
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=100)
    except ValueError as error:
        raise ClientException("the form cannot be read") from error
    found: Fields = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def one(given: Mapping[str, Sequence[str]], name: str, default: str = "") -> str:
    """Give the first value of a field."""
    values = given.get(name) or [default]
    return values[0]


def claim_of(given: Mapping[str, Sequence[str]], name: str, media_type: str = "") -> Claim:
    """Read what the upload form says of a Document; an empty residency asks for the default of its jurisdictions."""
    residency = _codes(given, "residency")
    level = one(given, "classification", "1")
    if not level.isdigit():
        raise InvalidRequestError("the classification is no number", param="classification", hint="choose 0 to 4")
    return Claim(
        name=name,
        jurisdictions=_codes(given, "jurisdiction"),
        collection=one(given, "collection") or "default",
        residency=residency or None,
        personal=one(given, "personal", "true") != "false",
        categories=_codes(given, "categories"),
        classification=int(level),
        media_type=media_type,
    )


def _codes(given: Mapping[str, Sequence[str]], name: str) -> frozenset[str]:
    return frozenset(code.strip() for value in given.get(name, ()) for code in value.split(",") if code.strip())


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
        raise InvalidRequestError("this is no upload form", hint="use the form on the documents page")
    events = _events(request, PushMultipartParser(boundary, max_segment_count=MOST_PARTS))
    async for event in events:
        if isinstance(event, MultipartSegment):  # what a caller left unread of the part before is skipped
            yield Part(event.name, event.filename, event.content_type, _body(events))


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
