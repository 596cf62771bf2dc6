"""PPTX: a page per slide, in the order of the show; title, text, tables, diagrams, then the speaker's notes.

Rules kept here: only parts inside the package are opened, by its own relations; pictures, sounds and macros are not.
Format: ECMA-376 part 1, PresentationML and DrawingML.
"""

from typing import Final
from zipfile import ZipFile

from lxml import etree  # type: ignore[import-untyped]

from ingestion.readers import Headings, Reading, TextBuilder, UnreadableError, package, tidy
from ingestion.readers.kinds import PPTX

MAIN: Final = "ppt/presentation.xml"
TITLES: Final = frozenset({"title", "ctrTitle"})
PASSING: Final = frozenset({"dt", "ftr", "sldNum", "hdr", "sldImg"})
"""Placeholders for date, footer and number: alike on every slide."""


def read(data: bytes) -> Reading:
    """Read the slides of a PPTX; hidden ones as well. A slide without text keeps its number."""
    with package.measured(data) as archive:
        parts = package.relations(archive, MAIN)
        slides = [
            parts[key][1]
            for _, element in package.events(archive, MAIN)
            if _ == "end" and _local(element) == "sldId" and (key := _related(element)) in parts
        ]
        builder = TextBuilder()
        for slide in slides:
            _slide(builder, archive, slide)
            builder.end_page()
    if not slides:
        raise UnreadableError("empty_text", "no pages")
    return builder.reading(PPTX)


def _slide(builder: TextBuilder, archive: ZipFile, name: str) -> None:
    headings = Headings()
    shapes = _shapes(archive, name)
    shapes.sort(key=lambda shape: shape[0] not in TITLES)  # the title first, wherever it lies
    for role, lines in shapes:
        if role in TITLES:
            title = tidy(" ".join(text for _, text in lines))
            if title:
                builder.put("heading", title, headings.enter(1, title))
        elif role not in PASSING:
            _lines(builder, lines, headings.path)
    for kind, part in sorted(package.relations(archive, name).values()):
        if kind == "diagramData" and part in archive.NameToInfo:
            for _, lines in _shapes(archive, part):
                _lines(builder, lines, headings.path)
        elif kind == "notesSlide" and part in archive.NameToInfo:
            for role, lines in _shapes(archive, part):
                if role not in PASSING | TITLES:
                    builder.put("note", "\n".join(text for _, text in lines), headings.path)


def _lines(builder: TextBuilder, lines: list[tuple[str, str]], above: str) -> None:
    header = ""
    for kind, text in lines:
        if kind == "row":
            header = builder.row(text.split("\x00"), [above], header)
        else:
            header = ""
            last = builder.blocks[-1] if builder.blocks else None
            near = last is not None and (last.kind, last.page) == (kind, len(builder.pages) + 1)
            builder.put(kind, text, above, glue="\n" if near else "\n\n")


def _shapes(archive: ZipFile, name: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Give each shape of a part: the role of its placeholder, and its paragraphs and rows as (kind, text)."""
    shapes: list[tuple[str, list[tuple[str, str]]]] = [("", [])]
    words: list[str] = []
    cells: list[str] | None = None
    for event, element in package.events(archive, name):
        tag, starts = _local(element), event == "start"
        if starts:
            if tag in {"sp", "graphicFrame", "pt"}:
                shapes.append(("", []))
            elif tag == "tr":
                cells = []
            elif tag == "tc" and cells is not None:
                cells.append("")
            continue
        if tag == "ph":
            shapes[-1] = (element.get("type") or "body", shapes[-1][1])
        elif tag == "t":
            words.append(element.text or "")
        elif tag in {"br", "tab"}:
            words.append(" ")
        elif tag == "p":
            text = tidy("".join(words))
            words.clear()
            if cells:
                cells[-1] = f"{cells[-1]} {text}".strip()
            elif text:
                shapes[-1][1].append(("item" if shapes[-1][0] == "body" else "text", text))
        elif tag == "tr" and cells is not None:
            shapes[-1][1].append(("row", "\x00".join(cells)))
            cells = None
        if tag in {"sp", "graphicFrame", "pic", "p", "tr"}:
            element.clear()
    return [shape for shape in shapes if shape[1]]


def _local(element: etree._Element) -> str:
    return etree.QName(element).localname if isinstance(element.tag, str) else ""


def _related(element: etree._Element) -> str:
    return next((str(value) for key, value in element.attrib.items() if key.endswith("}id")), "")
