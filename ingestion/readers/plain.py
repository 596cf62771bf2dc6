"""Plain text, Markdown and HTML.

Rules kept here: plain text and Markdown are the decoded bytes, no code point changed, so that an offset found in the
file is an offset in the text; HTML is put into our own words (one line per block) once, before offsets exist.
"""

import re
from collections.abc import Callable
from typing import Final

from charset_normalizer import from_bytes
from markdown_it import MarkdownIt
from selectolax.lexbor import LexborHTMLParser, LexborNode

from ingestion.readers import Block, Headings, PageSpan, Reading, TextBuilder, UnreadableError, path, tidy
from ingestion.readers.kinds import HTML, MARKDOWN

SAMPLE: Final = 256 * 1024
"""Bytes that the encoding is guessed from."""
BOMS: Final = (
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
CONTROLS: Final = bytes(code for code in range(32) if code not in b"\t\n\v\f\r\x1b")
MAX_CONTROLS: Final = 0.01
"""Share of control characters from which bytes are no text."""

_META_CHARSET: Final = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{2,40})", re.IGNORECASE)
_HTML_START: Final = re.compile(
    r"\s*(?:<\?xml[^>]{0,200}\?>\s*)?(?:<!--.{0,4000}?-->\s*)*<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
_NEWLINE: Final = re.compile(r"\r\n?|\n")
_PARAGRAPH: Final = re.compile(r"(?:\r\n?|\n)[^\S\r\n]*(?:\r\n?|\n)")


def decode(data: bytes) -> str:
    """Turn bytes into text: by byte order mark, as UTF-8, as the page declares, else by charset-normalizer's guess.

    The byte order mark stays as U+FEFF. Raises `UnreadableError` (`unsupported_type`) for bytes that are no text.
    """
    for mark, encoding in BOMS:
        if data.startswith(mark):
            return _strictly(data, encoding)
    if is_binary(data):
        raise UnreadableError("unsupported_type", "binary")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    declared = _META_CHARSET.search(data[:4096])
    if declared:
        try:
            return data.decode(declared[1].decode("ascii"))
        except (LookupError, UnicodeDecodeError, ValueError):
            pass
    guesses = from_bytes(data[:SAMPLE])
    best = guesses.best()
    if best is None:
        raise UnreadableError("unsupported_type", "binary")
    encoding = best.encoding
    if "cp1252" in best.could_be_from_charset:  # equal on these bytes; in Europe the likelier for the rest
        encoding = "cp1252"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return _strictly(data, "latin-1")


def is_binary(data: bytes) -> bool:
    """Say whether bytes hold NULs or more control characters than a text would."""
    sample = data[:SAMPLE]
    found = len(sample) - len(sample.translate(None, CONTROLS))
    return b"\x00" in sample or found > len(sample) * MAX_CONTROLS


def looks_like_html(text: str) -> bool:
    """Say whether a text opens as an HTML page does."""
    return _HTML_START.match(text.removeprefix("\ufeff")[:8192]) is not None


def read(text: str, media_type: str) -> Reading:
    """Read a decoded text. Raises `UnreadableError` (`empty_text`) when nothing but white space is in it."""
    if media_type == HTML:
        builder = TextBuilder()
        html(builder, text)
        reading = builder.reading(HTML)
    else:
        blocks = _markdown(text) if media_type == MARKDOWN else _paragraphs(text)
        reading = Reading(text, [PageSpan(1, 0, len(text))], blocks, media_type)
    if not reading.text.strip("\ufeff \t\r\n\f\v\xa0"):
        raise UnreadableError("empty_text", "blank")
    return reading


def _strictly(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise UnreadableError("broken_file", "encoding") from None


def _paragraphs(text: str) -> list[Block]:
    return [Block("text", 1, 0, len(text))]


def _markdown(text: str) -> list[Block]:
    """Find headings, tables and the text between them; markdown-it counts lines, we turn them into offsets."""
    starts = [0, *(found.end() for found in _NEWLINE.finditer(text)), len(text)]
    last = len(starts) - 1
    headings, blocks = Headings(), []
    at, header = 0, ""

    def text_until(end: int) -> None:
        nonlocal at
        if text[at:end].strip():
            blocks.append(Block("text", 1, at, end, headings.path))
        at = max(at, end)

    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for index, token in enumerate(tokens):
        if token.map is None or token.level > (2 if token.type == "tr_open" else 0):
            continue
        start, end = starts[min(token.map[0], last)], starts[min(token.map[1], last)]
        if token.type == "heading_open":
            text_until(start)
            blocks.append(
                Block("heading", 1, start, end, headings.enter(int(token.tag[1]), _inline(tokens[index + 1])))
            )
            at = end
        elif token.type == "table_open":
            text_until(start)
            header = tidy(text[start : starts[min(token.map[0] + 1, last)]]).strip("| ")
            blocks.append(Block("row", 1, start, end, path([headings.path, header])))
            at = end
    text_until(len(text))
    return blocks


def _inline(token: object) -> str:
    children = getattr(token, "children", None) or []
    return "".join(" " if child.type == "softbreak" else child.content for child in children)


DROPPED: Final = frozenset({"script", "style", "noscript", "template", "head", "svg", "iframe", "object", "-comment"})
BLOCKS: Final = frozenset({
    "address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "dialog", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "html",
    "legend", "li", "main", "nav", "ol", "p", "pre", "section", "summary", "table", "tbody", "td", "tfoot", "th",
    "thead", "tr", "ul",
})  # fmt: skip
_HIDDEN: Final = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)


def html(builder: TextBuilder, source: str, headings: Headings | None = None) -> None:
    """Walk the page in order and write one line per block; a table row is one line with ` | ` between its cells."""
    headings = headings or Headings()
    run: list[str] = []  # inline text of the open block
    cells: list[str] = []
    in_cell = 0
    header = ""
    root = LexborHTMLParser(source.removeprefix("\ufeff")).root

    def flush(kind: str = "text") -> None:
        text = tidy("".join(run))
        run.clear()
        if text:
            last = builder.blocks[-1].kind if builder.blocks else ""
            builder.put(kind, text, headings.path, glue="\n" if kind == last == "item" else "\n\n")

    def leave(tag: str) -> None:
        nonlocal header, in_cell
        if tag in {"td", "th"}:
            in_cell -= 1
            cells.append(tidy("".join(run)))
            run.clear()
        elif tag == "tr":
            header = builder.row(cells, [headings.path], header)
            cells.clear()
        elif tag == "table":
            header = ""
        elif tag in {"h1", "h2", "h3", "h4", "h5", "h6"} and not cells:
            title = tidy("".join(run))
            if title:
                headings.enter(int(tag[1]), title)
            flush("heading")
        elif tag == "li":
            flush("item")
        elif tag in BLOCKS:
            separate(tag)

    def separate(tag: str) -> None:
        if in_cell:
            run.append(" ")
        else:
            flush("item" if tag == "li" else "text")

    node = root
    while node is not None:
        tag = node.tag or ""
        if tag == "-text":
            run.append(node.text_content or "")
        elif tag == "br":
            run.append(" ")
        elif tag not in DROPPED and not _is_hidden(node):
            if tag in {"td", "th"}:
                run.clear()
                in_cell += 1
            elif tag in BLOCKS:
                separate("")
            if node.child is not None:
                node = node.child
                continue
            leave(tag)
        node = _next(node, leave)
    flush()


def _next(node: LexborNode, leave: Callable[[str], None]) -> LexborNode | None:
    """Give the node that follows in reading order, leaving elements on the way up; no recursion: depth is theirs."""
    while node.next is None:
        above = node.parent
        if above is None or above.tag in {None, "-document"}:
            return None
        leave(above.tag or "")
        node = above
    return node.next


def _is_hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    return "hidden" in attributes or _HIDDEN.search(attributes.get("style") or "") is not None
