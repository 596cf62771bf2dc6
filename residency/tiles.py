"""tiles: the paths by which a tree is served in pieces of 256 hashes, as C2SP tlog-tiles names them.

Rules kept here: pure; one spelling for each tile, anything else is refused. Numbers are written in groups of three
digits, all but the last with an `x` before it: 1234067 is `x001/x234/067`; `.p/5` behind it is a tile of five hashes.
"""

import re
from typing import Final

from residency.errors import LeafError

FULL: Final = 256
"""Hashes in a full tile."""
_PLACE: Final = re.compile(r"((?:x\d{3}/){0,6}\d{3})(?:\.p/([1-9]\d{0,2}))?")


def parse(place: str) -> tuple[int, int]:
    """Read `x001/x234/067.p/5` as (index, width); raises `LeafError` for any other spelling."""
    match = _PLACE.fullmatch(place.strip("/"))
    if match is None:
        raise LeafError("that is no tile's path", hint="see c2sp.org/tlog-tiles")
    index = int(match[1].replace("x", "").replace("/", ""))
    width = int(match[2] or FULL)
    if place.strip("/") != path(index, width):
        raise LeafError("that is no tile's path", hint="see c2sp.org/tlog-tiles")
    return index, width


def path(index: int, width: int = FULL) -> str:
    """Write a tile's place below its level."""
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    whole = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return whole if width == FULL else f"{whole}.p/{width}"
