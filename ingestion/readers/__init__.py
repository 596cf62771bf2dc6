"""Readers turn the bytes of a file into one text with places in it; they run in the sandbox's child alone.

This module holds what crosses the pipe. Rules kept here: offsets are Unicode code points of `Reading.text`, blocks and
pages are slices of it in order; a reader imports nothing of the engine and quotes nothing in what it raises.
"""

import re
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

PDF: Final = "application/pdf"
DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
HTML: Final = "text/html"
MARKDOWN: Final = "text/markdown"
PLAIN: Final = "text/plain"

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
    """A stretch of one kind on one page: `heading`, `text`, `item`, `row`, `header` or `note`.

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
    pages_without_text: int = 0


class Failure(msgspec.Struct, frozen=True, array_like=True, tag="failure"):
    """Why a file could not be read: one of `REASONS`, and what was found instead (a slug such as `scan`)."""

    reason: str
    found: str = ""


class Job(msgspec.Struct, frozen=True, array_like=True):
    """What the child is told about the bytes that follow; `probe` asks only how it is confined."""

    declared_type: str = ""
    suffix: str = ""
    probe: bool = False


class Confinement(msgspec.Struct, frozen=True, array_like=True):
    """Limits that the child puts on itself before it reads; see `sandbox.Limits` for their grounds."""

    memory: int
    cpu_s: int
    files: int


class Reading(msgspec.Struct, frozen=True):
    """One file as text: `pages` and `blocks` are slices of `text` in code points, in order."""

    text: str
    pages: list[PageSpan]
    blocks: list[Block]
    media_type: str
    pages_without_text: int = 0


class UnreadableError(Exception):
    """A file that a reader gives up on; never leaves the child but as a Failure."""

    def __init__(self, reason: str, found: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.found = found


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

    def reading(self, media_type: str, *, pages_without_text: int = 0) -> Reading:
        """Give what was put together; an open page is closed first."""
        if self._length > self._page_start or not self.pages:
            self.end_page()
        text = "".join(self._parts)[: self.pages[-1].end]
        return Reading(text, self.pages, self.blocks, media_type, pages_without_text)

    def _add(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)


_SPACES: Final = re.compile(r"\s+")


def tidy(text: str) -> str:
    """Put one space for every stretch of white space and none at the ends."""
    return _SPACES.sub(" ", text).strip()
