"""The passage behind a Citation: one page of a Document's text with the quoted slice marked; each opening recorded."""

from dataclasses import replace
from itertools import pairwise
from typing import Annotated

from litestar import Controller, Response, get
from litestar.params import FromPath, FromQuery, QueryParameter

from service.api.replies import Asking, house_of
from service.catalogue import Page
from service.portal.pages import is_fragment, page, show_refusal

GONE = "\0"
"""Stands for a sign that is not shown, so that offsets stay what they are."""


class SourcePages(Controller):
    """Open a source."""

    path = "/documents"

    @get("/{document_id:str}/source", opt={"scope": "any"})
    async def source(
        self,
        request: Asking,
        document_id: FromPath[str],
        version: FromQuery[int] = 0,
        number: Annotated[int, QueryParameter(name="page", ge=1)] = 1,
        start: FromQuery[int] = 0,
        end: FromQuery[int] = 0,
    ) -> Response[str]:
        """Show a page of the text; `start` and `end` count code points in the whole text, `version` 0 is the newest."""
        catalogue = house_of(request).catalogue
        wanted = version or (await catalogue.get(request.user, document_id)).document.version
        opened = await catalogue.source(request.user, document_id, version=wanted, page=number)
        if not isinstance(opened, Page):
            return show_refusal(request, *opened)
        document = opened.entry.document
        language = document.language if document.language != "und" else ""
        template = "_source.html" if is_fragment(request) else "source.html"
        if document.media_type == "application/pdf":
            opened = replace(opened, text=flowing(opened.text))
        before, marked, behind = cut(opened, start, end)
        return page(
            request, template, source=opened, before=before, marked=marked, behind=behind, lang=language or None
        )


def flowing(text: str) -> str:
    """Turn the line breaks of a PDF's full lines into spaces, so that text flows; no offset moves until `cut`.

    A line is full when it is nearly as long as the page's long ones and the next one goes on in the sentence.
    """
    text = text.replace("\r\n", GONE + "\n")
    lines = text.split("\n")
    full = 0.72 * sorted(map(len, lines))[len(lines) * 9 // 10]
    joined = lines[0]
    for line, following in pairwise(lines):
        goes_on = len(line) >= full and following[:1].isalpha()
        space = GONE if line.rstrip(GONE)[-1:].isspace() else " "
        joined += (space if goes_on else "\n") + following
    return joined


def cut(opened: Page, start: int, end: int) -> tuple[str, str, str]:
    """Cut a page's text into what stands before, in and behind the slice; the slice is empty where it is elsewhere."""
    begin, stop = max(start, opened.start), min(end, opened.end)
    begin, stop = begin - opened.start, stop - opened.start
    text = opened.text
    pieces = (text[:begin], text[begin:stop], text[stop:]) if begin < stop else (text, "", "")
    before, marked, behind = (piece.replace(GONE, "") for piece in pieces)
    return before, marked, behind
