"""Readers turn the bytes of a file into one text with places in it; they run in the sandbox's child alone.

This module holds what crosses the pipe. Rules kept here: offsets are Unicode code points of `Reading.text`, blocks and
pages are slices of it in order; a reader imports nothing of the engine and quotes nothing in what it raises.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

MAX_TEXT: Final = 64 * 1024 * 1024
"""Bytes of UTF-8 that one file's text may take on the wire."""
MAX_PAGES: Final = 20_000
MAX_BLOCKS: Final = 100_000
MAX_OUTLINE: Final = 8 * 1024 * 1024
"""Bytes that pages and blocks may take on the wire."""
MAX_TITLE: Final = 120
"""Code points kept of one heading in a path."""
MAX_PATH: Final = 240
"""Code points of a whole heading path; outer headings are dropped first."""

MAX_MEMBERS: Final = 2_000
"""Attachments, or entries of an archive, that one file may hand on."""
MAX_MEMBER: Final = 100 * 1024 * 1024
"""Bytes of one of them."""

REASONS: Final = frozenset(
    {
        "encrypted_file",
        "broken_file",
        "empty_text",
        "unsupported_type",
        "bomb",
        "parse_timeout",
        "parse_memory",
        "parse_crash",
    }
)
"""Outcome codes of a file that cannot be read."""


class PageSpan(msgspec.Struct, frozen=True, array_like=True):
    """Where one page stands in the text; `number` counts from 1 as the file's pages do."""

    number: int
    start: int
    end: int


class Block(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of one kind on one page: `heading`, `text`, `item`, `row`, `header`, `note` or `ocr`.

    `heading` is the path of headings above it, outermost first, joined with ` › `; a row's path ends with its table's
    first row. Neighbours alike in kind, page and path are one Block.
    """

    kind: str
    page: int
    start: int
    end: int
    heading: str = ""


class Outline(msgspec.Struct, frozen=True, array_like=True, tag="outline"):
    """Everything of a Reading but its text, as it crosses the pipe."""

    media_type: str
    pages: Annotated[list[PageSpan], msgspec.Meta(max_length=MAX_PAGES)]
    blocks: Annotated[list[Block], msgspec.Meta(max_length=MAX_BLOCKS)]
    unread: Annotated[list[int], msgspec.Meta(max_length=MAX_PAGES)] = []
    recognised: Annotated[list[int], msgspec.Meta(max_length=MAX_PAGES)] = []


class Failure(msgspec.Struct, frozen=True, array_like=True, tag="failure"):
    """Why a file could not be read: one of `REASONS`, and what was found instead (a slug such as `scan`)."""

    reason: str
    found: str = ""


class Job(msgspec.Struct, frozen=True, array_like=True):
    """What the child is told about the bytes that follow; `probe` asks only how it is confined.

    `ocr` has scans recognised.
    """

    declared_type: str = ""
    suffix: str = ""
    probe: bool = False
    ocr: bool = False


class Confinement(msgspec.Struct, frozen=True, array_like=True):
    """Limits that the child puts on itself before it reads; see `sandbox.Limits` for their grounds."""

    memory: int
    cpu_s: int
    files: int


class Reading(msgspec.Struct, frozen=True):
    """One file as text: `pages` and `blocks` are slices of `text` in code points, in order.

    A page is a PDF's page, a slide, a sheet or a chapter. `unread` are the numbers of pages without text, `recognised`
    of those that OCR read. A file within the file begins a page of its own, under its name as heading.
    """

    text: str
    pages: list[PageSpan]
    blocks: list[Block]
    media_type: str
    unread: list[int] = []
    recognised: list[int] = []


class UnreadableError(Exception):
    """A file that a reader gives up on; never leaves the child but as a Failure."""

    def __init__(self, reason: str, found: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.found = found


class Member(msgspec.Struct, frozen=True):
    """A file within the file: an attachment, or an entry of an archive; `name` may hold folders (`a/b.pdf`)."""

    name: str
    media_type: str = ""


class Headings:
    """The headings that stand above the place being read."""

    def __init__(self) -> None:
        self._levels: dict[int, str] = {}

    def enter(self, level: int, title: str) -> str:
        """Take a heading of that level, forget those of its level and below, and give the path with it."""
        self._levels = {above: name for above, name in self._levels.items() if above < level}
        self._levels[level] = tidy(title)[:MAX_TITLE].strip()
        return self.path

    @property
    def path(self) -> str:
        """The titles, outermost first; at most `MAX_PATH` code points."""
        return path(list(self._levels.values()))


def path(titles: list[str]) -> str:
    """Join titles to a heading path, dropping outer ones while it is too long."""
    kept = [title for title in titles if title]
    while len(kept) > 1 and len(" › ".join(kept)) > MAX_PATH:
        kept = kept[1:]
    return " › ".join(kept)[:MAX_PATH]


class TextBuilder:
    """Puts a text together piece by piece and notes where each piece stands."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._page_start = 0
        self.pages: list[PageSpan] = []
        self.blocks: list[Block] = []
        self.unread: list[int] = []
        self.recognised: list[int] = []

    def put(self, kind: str, text: str, heading: str = "", *, glue: str = "\n\n") -> None:
        """Append a text as a Block of its kind; `glue` joins it to what stands before it on the page."""
        if not text:
            return
        page = len(self.pages) + 1
        if self._length > self._page_start:
            self._add(glue)
        start = self._length
        self._add(text)
        last = self.blocks[-1] if self.blocks else None
        if last is not None and (last.kind, last.page, last.heading) == (kind, page, heading) and kind != "heading":
            self.blocks[-1] = Block(kind, page, last.start, self._length, heading)
            return
        if len(self.blocks) >= MAX_BLOCKS:
            raise UnreadableError("bomb", "blocks")
        self.blocks.append(Block(kind, page, start, self._length, heading))

    def end_page(self) -> None:
        """Close the page; the next one follows after an empty line."""
        if len(self.pages) >= MAX_PAGES:
            raise UnreadableError("bomb", "pages")
        self.pages.append(PageSpan(len(self.pages) + 1, self._page_start, self._length))
        self._add("\n\n")
        self._page_start = self._length

    def row(self, cells: list[str], above: list[str], header: str, *, kind: str = "row") -> str:
        """Append a table's row, ` | ` between its cells, under the headings `above`; gives the table's header row.

        `header` is "" for a table's first row, which becomes the header.
        """
        line = " | ".join(cells).rstrip(" |")
        if not line.strip(" |"):
            return header
        fresh = not header
        header = header or line
        self.put(kind, line, path([*above, header]), glue="\n\n" if fresh else "\n")
        return header

    def reading(self, media_type: str) -> Reading:
        """Give what was put together; an open page is closed first."""
        if self._length > self._page_start or not self.pages:
            self.end_page()
        text = "".join(self._parts)[: self.pages[-1].end]
        return Reading(text, self.pages, self.blocks, media_type, self.unread, self.recognised)

    def _add(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)


def joined(first: Reading, more: Iterable[tuple[str, Reading]]) -> Reading:
    """Put the readings of a file's members behind its own, each on pages of its own and under its name."""
    parts, at = [first.text], len(first.text)
    pages, blocks, unread, recognised = [*first.pages], [*first.blocks], [*first.unread], [*first.recognised]
    for name, reading in more:
        shift, number = at + 2, len(pages)
        if number + len(reading.pages) > MAX_PAGES or len(blocks) + len(reading.blocks) > MAX_BLOCKS:
            raise UnreadableError("bomb", "pages")
        parts.append(reading.text)
        pages += [PageSpan(each.number + number, each.start + shift, each.end + shift) for each in reading.pages]
        blocks += [
            Block(each.kind, each.page + number, each.start + shift, each.end + shift, path([name, each.heading]))
            for each in reading.blocks
        ]
        unread += [page + number for page in reading.unread]
        recognised += [page + number for page in reading.recognised]
        at = shift + len(reading.text)
        if at > MAX_TEXT:
            raise UnreadableError("bomb", "text")
    return Reading("\n\n".join(parts), pages, blocks, first.media_type, unread, recognised)


_SPACES: Final = re.compile(r"\s+")


def tidy(text: str) -> str:
    """Put one space for every stretch of white space and none at the ends."""
    return _SPACES.sub(" ", text).strip()
