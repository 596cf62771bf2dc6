"""Harmless: text that may be rendered as Markdown or HTML and makes nobody fetch or follow anything; pure.

Words stay; what would make of them a link, an image, a tag or a mark of ours comes apart by a blank, and characters
that show nothing or turn the writing round are left out. A Citation's `quote` stays exact: it is data, with offsets.
"""

import re
from typing import Final

_SPACE: Final = re.compile(r"\s+")
_MARK: Final = re.compile(r"\[(\d{1,3})\]")
_UNSEEN: Final = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Soft hyphens, zero-width blanks, directional marks and overrides, tags; joiners stay, since scripts need them."""
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_TIES: Final = (
    (re.compile(r"!(?=\[)"), "! "),  # an image
    (re.compile(r"\](?=[(\[:])"), "] "),  # a link, a reference, the definition of one
    (re.compile(r"<(?=[A-Za-z/!?])"), "< "),  # a tag, a comment, an address between angle brackets
    (re.compile(r":(?=[/\\]{2})"), ": "),  # an address with a host
    (re.compile(r"\bwww\.(?=\S)", re.IGNORECASE), "www. "),  # an address that renderers complete
    (re.compile(r"\b(javascript|vbscript|data|blob|file|filesystem):(?=\S)", re.IGNORECASE), r"\1: "),
)
_ADDRESS: Final = re.compile(
    r":\s?[/\\]{2}|[/\\]{2}\w|\bwww\.|\]\s*\(|\b(?:javascript|vbscript|data|blob|file):\S", re.IGNORECASE
)


def harmless(text: str) -> str:
    """Put a text on one line, with whatever could be rendered as more than words taken apart."""
    line = _SPACE.sub(" ", _CONTROL.sub(" ", _UNSEEN.sub("", text))).strip()
    line = _MARK.sub(r"(\1)", line)
    for found, apart in _TIES:
        line = found.sub(apart, line)
    return line


def harmless_lines(text: str) -> str:
    """Make a text harmless that keeps its lines."""
    return "\n".join(harmless(line) for line in text.splitlines())


def addressed(text: str) -> bool:
    """Say whether a text holds an address or a link."""
    return _ADDRESS.search(_UNSEEN.sub("", text)) is not None
