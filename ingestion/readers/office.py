"""DOCX, read straight from its ZIP and XML; nothing else of the package is opened.

Rules kept here: deleted (tracked) text is not read; a template, picture or field that lies elsewhere is not fetched.
Format: ECMA-376 part 1, WordprocessingML. Sources: CVE-2016-5851, CVE-2025-65482.
"""

import re
from collections.abc import Iterator
from typing import Final
from zipfile import ZipFile

from lxml import etree  # type: ignore[import-untyped]

from ingestion.readers import Headings, Reading, TextBuilder, package, tidy
from ingestion.readers.kinds import DOCX

W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
STRICT: Final = "{http://purl.oclc.org/ooxml/wordprocessingml/main}"
FALLBACK: Final = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
ITEM: Final = -1
"""Stands for "list item" among heading levels."""
BODY_LEVEL: Final = 9
"""The outline level that stands for body text (ECMA-376 part 1, 17.3.1.20)."""
MAX_HOPS: Final = 20
"""Styles that may stand on one another."""

_HEADING_NAME: Final = re.compile(r"^heading ([1-9])$", re.IGNORECASE)
_HEADING_ID: Final = re.compile(r"^(?:heading|berschrift|titre|ttulo|titolo|kop)([1-9])$", re.IGNORECASE)


def read(data: bytes) -> Reading:
    """Read headers, body, text boxes, footers and notes of a DOCX; deleted (tracked) text is not read.

    A DOCX has no pages until something lays it out: all of it is page 1.
    """
    with package.measured(data) as archive:
        names = sorted(archive.namelist())
        levels = _levels(archive) if "word/styles.xml" in names else {}
        builder = TextBuilder()
        seen: set[str] = set()
        for name in names:
            if re.fullmatch(r"word/header\d*\.xml", name):
                _aside(builder, archive, name, "header", seen)
        _body(builder, archive, levels)
        for name in names:
            if re.fullmatch(r"word/(?:footnotes|endnotes)\.xml", name):
                _aside(builder, archive, name, "note", seen)
            elif re.fullmatch(r"word/footer\d*\.xml", name):
                _aside(builder, archive, name, "header", seen)
    return builder.reading(DOCX)


def _levels(archive: ZipFile) -> dict[str, int]:
    """Give the heading level of each paragraph style, by its name or outline level, also through `basedOn`.

    A style of list items has the level `ITEM`.
    """
    levels: dict[str, int] = {}
    based: dict[str, str] = {}
    for _, element in package.events(archive, "word/styles.xml", ends=(W + "style", STRICT + "style")):
        space = str(element.tag).removesuffix("style")
        style = _value(element, "styleId")
        named, outline = element.find(f"{space}name"), element.find(f"{space}pPr/{space}outlineLvl")
        found = None if named is None else _HEADING_NAME.match(_value(named, "val"))
        level = "" if outline is None else _value(outline, "val")
        if found:
            levels[style] = int(found[1])
        elif level.isdigit() and int(level) < BODY_LEVEL:
            levels[style] = int(level) + 1
        elif element.find(f"{space}pPr/{space}numPr") is not None:
            levels[style] = ITEM
        parent = element.find(f"{space}basedOn")
        if parent is not None:
            based[style] = _value(parent, "val")
        element.clear()
    for style in based:
        base, hops = style, 0
        while base not in levels and base in based and hops < MAX_HOPS:
            base, hops = based[base], hops + 1
        if base in levels:
            levels.setdefault(style, levels[base])
    return levels


class _Paragraph:
    """What is known of the paragraph being read."""

    __slots__ = ("item", "level", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.level = 0
        self.item = False


def _body(builder: TextBuilder, archive: ZipFile, levels: dict[str, int]) -> None:
    headings = Headings()
    rows: list[list[str]] = []  # open rows' cells: a table inside a cell is read into that cell
    header = ""
    for item, paragraph in _paragraphs(archive, "word/document.xml", levels):
        text = tidy("".join(paragraph.text)) if paragraph else ""
        if item == "row":
            rows.append([])
        elif item == "cell" and rows:
            rows[-1].append("")
        elif item == "paragraph" and rows:
            if text and rows[-1]:
                rows[-1][-1] = f"{rows[-1][-1]} {text}".strip()
        elif item == "end row":
            cells = rows.pop()
            if rows and rows[-1]:
                rows[-1][-1] = f"{rows[-1][-1]} {tidy(' | '.join(cells))}".strip()
            else:
                header = builder.row(cells, [headings.path], header)
        elif item == "end table" and not rows:
            header = ""
        elif text and paragraph:
            last = builder.blocks[-1].kind if builder.blocks else ""
            if paragraph.level:
                builder.put("heading", text, headings.enter(paragraph.level, text))
            elif paragraph.item:
                builder.put("item", text, headings.path, glue="\n" if last == "item" else "\n\n")
            else:
                builder.put("text", text, headings.path)


def _aside(builder: TextBuilder, archive: ZipFile, name: str, as_kind: str, seen: set[str]) -> None:
    """Read headers, footers and notes; the same header on many sections is read once."""
    for item, paragraph in _paragraphs(archive, name, {}):
        text = tidy("".join(paragraph.text)) if item == "paragraph" and paragraph else ""
        if any(letter.isalpha() for letter in text) and text not in seen:
            seen.add(text)
            builder.put(as_kind, text)


def _paragraphs(archive: ZipFile, name: str, levels: dict[str, int]) -> Iterator[tuple[str, _Paragraph | None]]:
    """Give paragraphs and the edges of rows, cells and tables in the order of the file.

    A text box stands inside a paragraph: it comes before the paragraph that holds it.
    """
    open_paragraphs: list[_Paragraph] = []
    skipping = 0
    for event, element in package.events(archive, name):
        starts, tag = event == "start", _local(element)
        if element.tag == FALLBACK or tag in {"del", "moveFrom"}:
            skipping += 1 if starts else -1
        if skipping:
            if not starts:
                element.clear()
            continue
        here = open_paragraphs[-1] if open_paragraphs else None
        if starts:
            if tag == "p":
                open_paragraphs.append(_Paragraph())
            elif tag in {"tr", "tc"}:
                yield {"tr": "row", "tc": "cell"}[tag], None
            continue
        if tag == "p" and here:
            open_paragraphs.pop()
            yield "paragraph", here
        elif tag in {"tr", "tbl"}:
            yield {"tr": "end row", "tbl": "end table"}[tag], None
        elif here:
            _note(here, tag, element, levels)
        element.clear()


def _note(paragraph: _Paragraph, tag: str, element: etree._Element, levels: dict[str, int]) -> None:
    value = _value(element, "val")
    if tag == "t":
        paragraph.text.append(element.text or "")
    elif tag in {"tab", "br", "cr"} and element.getparent() is not None and _local(element.getparent()) == "r":
        paragraph.text.append(" ")
    elif tag == "noBreakHyphen":
        paragraph.text.append("-")
    elif tag == "pStyle":
        found = _HEADING_ID.match(value)
        paragraph.level = levels.get(value, int(found[1]) if found else 0)
        if paragraph.level == ITEM:
            paragraph.level, paragraph.item = 0, True
    elif tag == "outlineLvl" and value.isdigit() and int(value) < BODY_LEVEL:
        paragraph.level = paragraph.level or int(value) + 1
    elif tag == "numPr":
        paragraph.item = True


def _local(element: etree._Element) -> str:
    """Give an element's name if it is WordprocessingML (either edition), else ""."""
    tag = element.tag
    if not isinstance(tag, str):
        return ""
    for space in (W, STRICT):
        if tag.startswith(space):
            return tag[len(space) :]
    return ""


def _value(element: etree._Element, name: str) -> str:
    return str(element.get(W + name) or element.get(STRICT + name) or "")
