"""PDF by PDFium: the text layer page by page; no script runs; what a form was filled with is read.

Rules kept here: page numbers are the file's own order from 1; a hyphen that PDFium swallowed (U+FFFE) joins its word
again; control characters of fonts without a map do not pass for text; a file without a letter fails, it is never live
and empty. PDFium is not thread-safe: one file per child.
"""

import ctypes
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import pypdfium2
import pypdfium2.raw as pdfium

from ingestion.readers import MAX_MEMBERS, MAX_PAGES, Headings, Member, Reading, TextBuilder, UnreadableError, tidy
from ingestion.readers.kinds import PDF

MAX_CONTROLS: Final = 0.1
"""Share of control characters from which a page counts as without text."""
MAX_BOOKMARKS: Final = 2_000
MAX_DEPTH: Final = 6

MAX_FIELDS: Final = 2_000
"""Fields of a page's form that are read."""
MAX_FIELD: Final = 64 * 1024
"""Bytes of UTF-16 of one of them."""
EDGE: Final = 2
"""Lines at the head and the foot of a page that may run through the file."""
RUNNING_PAGES: Final = 3

_PAGE_NUMBER: Final = re.compile(
    r"\s*[-–]?\s*(?:page|seite|pagina|página|strona|side|sida|sivu|p\.|s\.)?\s*\d{1,5}"
    r"(?:\s*(?:/|of|von|de|di|sur|van|z|av|af)\s*\d{1,5})?\s*[-–]?\s*",
    re.IGNORECASE,
)
_LEADERS: Final = re.compile(r"(?:[ \t]?[.·_…]){5,}[ \t]?")
_NO_PAGES: Final = re.compile(rb"/Kids\s*\[\s*\]")
_SWALLOWED: Final = re.compile("\ufffe(.?)", re.DOTALL)
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_LETTER: Final = re.compile(r"[^\W_]")
_ITEM: Final = re.compile(r"\n(?=[•▪◦‣●] ?)")


Recognise = Callable[[bytes, list[int]], dict[int, str]]


def read(data: bytes, recognise: Recognise | None = None) -> Reading:
    """Read a PDF's text layer; `recognise` gives the text of pages that something is drawn on, but no text.

    Raises `UnreadableError`: `encrypted_file`, `broken_file`, `empty_text` (found `scan` or `no pages`), `bomb`.
    """
    document = open_file(data)
    marks = _bookmarks(document)
    members = [member for member, _ in _attached(document)]
    builder, headings = TextBuilder(), Headings()
    texts = without_running_lines([_page(document, index) for index in range(len(document))])
    unread = [number for number, text in enumerate(texts, 1) if not text and _is_drawn(document, number - 1)]
    seen = recognise(data, unread) if recognise and unread else {}
    for index, text in enumerate(texts):
        builder.put("ocr", seen.get(index + 1, ""), headings.path)
        _write(builder, headings, text, marks.get(index, []))
        builder.put("row", _filled(document, index), headings.path)
        if members and index + 1 == len(texts):
            builder.put("note", "Attachments: " + ", ".join(member.name for member in members))
        builder.end_page()
    if not any(texts) and not seen and not members:
        found = "blank scan" if recognise else "scan"
        raise UnreadableError("empty_text", found if unread else "blank")
    builder.unread += [number for number in unread if number not in seen]
    builder.recognised += sorted(seen)
    return builder.reading(PDF)


def open_file(data: bytes) -> pypdfium2.PdfDocument:
    """Open a PDF with at least one page; raises as `read` does."""
    try:
        document = pypdfium2.PdfDocument(data)
        count = len(document)
    except pypdfium2.PdfiumError as error:
        # PDFium's own code; its words are no guide: one broken file fails with "Success"
        locked = getattr(error, "err_code", None) in {pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY}
        if not locked and _NO_PAGES.search(data):  # PDFium calls a whole file without pages broken
            raise UnreadableError("empty_text", "no pages") from None
        raise UnreadableError("encrypted_file" if locked else "broken_file", "pdf") from None
    if count == 0:
        raise UnreadableError("empty_text", "no pages")
    if count > MAX_PAGES:
        raise UnreadableError("bomb", "pages")
    if document.get_formtype() != pdfium.FORMTYPE_NONE:
        document.init_forms()
    return document


def unpack(data: bytes) -> Iterator[tuple[Member, bytes]]:
    """Give the files attached to a PDF."""
    for member, attachment in _attached(open_file(data)):
        yield member, bytes(attachment.get_data())


def _attached(document: pypdfium2.PdfDocument) -> Iterator[tuple[Member, pypdfium2.PdfAttachment]]:
    count = document.count_attachments()
    if count > MAX_MEMBERS:
        raise UnreadableError("bomb", "entries")
    for index in range(count):
        try:
            attachment = document.get_attachment(index)
            name = tidy(_CONTROLS.sub(" ", attachment.get_name()))[:1_000]
        except pypdfium2.PdfiumError:
            continue
        yield Member(name or f"attachment {index + 1}"), attachment


def _page(document: pypdfium2.PdfDocument, index: int) -> str:
    """Give the clean text of one page, or "" where it has no letter or cannot be loaded."""
    try:
        page = document[index]
        try:
            raw = page.get_textpage().get_text_bounded()
        finally:
            page.close()
    except pypdfium2.PdfiumError:
        return ""
    return clean(raw)


def _filled(document: pypdfium2.PdfDocument, index: int) -> str:
    """Give the filled fields of a page's form, a line for each; they stand in no text layer."""
    if document.formenv is None:
        return ""
    lines = []
    try:
        page = document[index]
        for at in range(min(pdfium.FPDFPage_GetAnnotCount(page), MAX_FIELDS)):
            field = pdfium.FPDFPage_GetAnnot(page, at)
            if pdfium.FPDFAnnot_GetSubtype(field) == pdfium.FPDF_ANNOT_WIDGET:
                name, value = (
                    _field(ask, document, field)
                    for ask in (pdfium.FPDFAnnot_GetFormFieldName, pdfium.FPDFAnnot_GetFormFieldValue)
                )
                if value and value != "Off":
                    lines.append(f"{name or 'field'} | {value}")
            pdfium.FPDFPage_CloseAnnot(field)
        page.close()
    except pypdfium2.PdfiumError:
        return ""
    return "\n".join(dict.fromkeys(lines))


def _field(ask: Callable[..., int], document: pypdfium2.PdfDocument, field: object) -> str:
    size = ask(document.formenv, field, None, 0)
    if not 2 < size <= MAX_FIELD:
        return ""
    held = (ctypes.c_ushort * (size // 2))()
    ask(document.formenv, field, held, size)
    return tidy(_CONTROLS.sub(" ", bytes(held).decode("utf-16-le", "replace").rstrip("\x00")))


def _is_drawn(document: pypdfium2.PdfDocument, index: int) -> bool:
    """Say whether something stands on a page; one that cannot be loaded counts, so that it is not passed over."""
    try:
        page = document[index]
        try:
            return bool(pdfium.FPDFPage_CountObjects(page) != 0)
        finally:
            page.close()
    except pypdfium2.PdfiumError:
        return True


def clean(raw: str) -> str:
    """Join swallowed hyphens, shorten dot leaders, make line ends LF and control characters spaces.

    Gives "" where control characters outweigh the text, or where there is no letter or digit.
    """
    text = raw.replace("\r\n", "\n").replace("\r", "\n")
    if len(_CONTROLS.findall(text)) > len(text) * MAX_CONTROLS:
        return ""
    text = _SWALLOWED.sub(lambda found: ("-" if found[1].isdigit() else "") + found[1], text)
    text = _LEADERS.sub(" … ", _CONTROLS.sub(" ", text)).strip()
    return text if _LETTER.search(text) else ""


def without_running_lines(pages: list[str]) -> list[str]:
    """Take from each page but the first the lines at its head and foot that most pages share, and page numbers.

    They would tear the sentence that crosses the page. A line counts when it stands, letter for letter, at the edge of
    at least `RUNNING_PAGES` pages and of half of them; a page is never emptied.
    """
    split = [page.split("\n") for page in pages]
    edges = Counter(line for lines in split for line in {*lines[:EDGE], *lines[-EDGE:]})
    enough = max(RUNNING_PAGES, (sum(map(bool, pages)) + 1) // 2)
    running = {line for line, count in edges.items() if line.strip() and count >= enough}
    out = pages[:1]
    for lines in split[1:]:
        kept = lines
        for _ in range(EDGE):
            if len(kept) > 1 and (kept[0] in running or _PAGE_NUMBER.fullmatch(kept[0])):
                kept = kept[1:]
            if len(kept) > 1 and (kept[-1] in running or _PAGE_NUMBER.fullmatch(kept[-1])):
                kept = kept[:-1]
        out.append("\n".join(kept).strip())
    return out


def _write(builder: TextBuilder, headings: Headings, text: str, marks: list[tuple[int, str]]) -> None:
    """Write one page, cut where its bookmarks' titles stand; a title not found in the page opens it."""
    at = 0
    for level, title in marks:
        words = [re.escape(word) for word in title.split()]
        found = re.compile(r"\s+".join(words)).search(text, at) if words else None
        if found:
            _items(builder, text[at : found.start()], headings.path)
            builder.put("heading", found[0], headings.enter(level, title), glue="\n")
            at = found.end()
        else:
            headings.enter(level, title)
    _items(builder, text[at:], headings.path)


def _items(builder: TextBuilder, text: str, heading: str) -> None:
    for number, part in enumerate(_ITEM.split(text)):
        builder.put("item" if number else "text", part.strip("\n"), heading, glue="\n")


def _bookmarks(document: pypdfium2.PdfDocument) -> dict[int, list[tuple[int, str]]]:
    """Give the outline as page index -> (level from 1, title) in order; {} where it is damaged."""
    marks: dict[int, list[tuple[int, str]]] = {}
    try:
        for number, mark in enumerate(document.get_toc(max_depth=MAX_DEPTH)):
            if number >= MAX_BOOKMARKS:
                break
            target = mark.get_dest()
            index = None if target is None else target.get_index()
            title = tidy(_CONTROLS.sub(" ", mark.get_title()))
            if index is not None and title:
                marks.setdefault(index, []).append((mark.level + 1, title))
    except (pypdfium2.PdfiumError, ValueError, RecursionError):
        return {}
    return marks
