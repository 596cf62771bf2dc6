"""The passage behind a Citation: one page of a Document's text with the quoted slice marked; each opening recorded."""

from typing import Annotated

from litestar import Controller, Response, get
from litestar.params import FromPath, FromQuery, QueryParameter

from service.api.replies import Asking, house_of
from service.catalogue import Page
from service.portal.pages import is_fragment, page, show_refusal


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
        before, marked, behind = cut(opened, start, end)
        return page(
            request, template, source=opened, before=before, marked=marked, behind=behind, lang=language or None
        )


def cut(opened: Page, start: int, end: int) -> tuple[str, str, str]:
    """Cut a page's text into what stands before, in and behind the slice; the slice is empty where it is elsewhere."""
    begin, stop = max(start, opened.start), min(end, opened.end)
    if begin >= stop:
        return opened.text, "", ""
    begin, stop = begin - opened.start, stop - opened.start
    return opened.text[:begin], opened.text[begin:stop], opened.text[stop:]
