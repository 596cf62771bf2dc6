"""ODT and ODP, read straight from `content.xml`; ODS goes through `sheets.py`.

Rules kept here: deleted (tracked) text is not read; pictures, objects and links are not opened. An ODT is one page, an
ODP has a page per slide. Format: OASIS OpenDocument 1.3, part 3.
"""

from collections.abc import Iterator
from typing import Final

from lxml import etree  # type: ignore[import-untyped]

from ingestion.readers import Headings, Reading, TextBuilder, package, tidy
from ingestion.readers.kinds import ODP

TEXT: Final = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
TABLE: Final = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
DRAW: Final = "{urn:oasis:names:tc:opendocument:xmlns:drawing:1.0}"
PRESENTATION: Final = "{urn:oasis:names:tc:opendocument:xmlns:presentation:1.0}"
OFFICE: Final = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
NOTES: Final = frozenset({TEXT + "note", OFFICE + "annotation", PRESENTATION + "notes"})
SKIPPED: Final = frozenset({TEXT + "tracked-changes", TEXT + "note-citation", OFFICE + "forms", OFFICE + "scripts"})
PARAGRAPHS: Final = frozenset({TEXT + "p", TEXT + "h"})
LEVELS: Final = frozenset("123456789")
SPACES: Final = frozenset({TEXT + "s", TEXT + "tab", TEXT + "line-break"})
MAX_REPEATED: Final = 64
"""Cells that one cell may stand for."""


def read(data: bytes, media_type: str) -> Reading:
    """Read headings, paragraphs, lists, tables and notes in their order."""
    with package.measured(data) as archive:
        reader = _Reader(slides=media_type == ODP)
        for event, element in package.events(archive, "content.xml"):
            reader.take(element, starts=event == "start")
        for notes in reader.left_notes():
            reader.builder.put("note", notes)
    return reader.builder.reading(media_type)


class _Reader:
    """Where the walk stands: open rows, lists and notes, and what is being passed over."""

    def __init__(self, *, slides: bool) -> None:
        self.builder = TextBuilder()
        self._headings = Headings()
        self._slides = slides
        self._title = False
        self._rows: list[list[str]] = []
        self._header = ""
        self._paragraphs = self._skipping = self._in_note = self._in_list = 0
        self._notes: list[str] = []

    def take(self, element: etree._Element, *, starts: bool) -> None:
        """Take the start or the end of an element."""
        tag = element.tag
        if tag in SKIPPED:
            self._skipping += 1 if starts else -1
        elif not self._skipping:
            (self._start if starts else self._end)(tag, element)
        if not starts and not self._paragraphs:
            element.clear()

    def left_notes(self) -> list[str]:
        """Give and forget the notes of the page."""
        notes, self._notes = self._notes, []
        return notes

    def _start(self, tag: str, element: etree._Element) -> None:
        if tag in PARAGRAPHS:
            self._paragraphs += 1
        elif tag in NOTES:
            self._in_note += 1
        elif tag == TEXT + "list":
            self._in_list += 1
        elif tag == TABLE + "table-row":
            self._rows.append([])
        elif tag in {TABLE + "table-cell", TABLE + "covered-table-cell"} and self._rows:
            self._rows[-1].append("")
        elif tag == DRAW + "page":
            self._headings = Headings()
        elif tag == DRAW + "frame":
            self._title = element.get(PRESENTATION + "class") == "title"

    def _end(self, tag: str, element: etree._Element) -> None:
        if tag in PARAGRAPHS:
            self._paragraphs -= 1
            self._paragraph(tidy("".join(_inline(element))), tag, element)
        elif tag in NOTES:
            self._in_note -= 1
        elif tag == TEXT + "list":
            self._in_list -= 1
        elif tag == TABLE + "table-cell" and self._rows and self._rows[-1]:
            again = element.get(TABLE + "number-columns-repeated") or "1"
            if again.isdecimal() and self._rows[-1][-1]:
                self._rows[-1] += [self._rows[-1][-1]] * (min(int(again[:3]), MAX_REPEATED) - 1)
        elif tag == TABLE + "table-row" and self._rows:
            cells = self._rows.pop()
            if self._rows and self._rows[-1]:
                self._rows[-1][-1] = f"{self._rows[-1][-1]} {' | '.join(cells)}".strip(" |")
            else:
                self._header = self.builder.row(cells, [self._headings.path], self._header)
        elif tag == TABLE + "table" and not self._rows:
            self._header = ""
        elif tag == DRAW + "frame":
            self._title = False
        elif tag == DRAW + "page" and self._slides:
            for note in self.left_notes():
                self.builder.put("note", note, self._headings.path)
            self.builder.end_page()

    def _paragraph(self, text: str, tag: str, element: etree._Element) -> None:
        if not text:
            return
        builder, above = self.builder, self._headings.path
        if self._in_note:
            self._notes.append(text)
        elif self._rows:
            if self._rows[-1]:
                self._rows[-1][-1] = f"{self._rows[-1][-1]} {text}".strip()
        elif tag == TEXT + "h" or self._title:
            level = element.get(TEXT + "outline-level") or "1"
            builder.put("heading", text, self._headings.enter(int(level) if level in LEVELS else 1, text))
        elif self._in_list:
            last = builder.blocks[-1].kind if builder.blocks else ""
            builder.put("item", text, above, glue="\n" if last == "item" else "\n\n")
        else:
            builder.put("text", text, above)


def _inline(element: etree._Element) -> Iterator[str]:
    """Give the text of a paragraph; frames and notes in it have been read by then. XML nests 256 deep at most."""
    yield element.text or ""
    for child in element:
        if child.tag in SPACES:
            yield " "
        elif child.tag not in NOTES | SKIPPED and not str(child.tag).startswith(DRAW):
            yield from _inline(child)
        yield child.tail or ""
