"""Disguises: in which bytes a text may hide in a file, and how to look through what hides it."""

import base64
import contextlib
import json
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

BLOCK = 4096
LARGEST = 1 << 20


def needles(text: str) -> dict[str, bytes]:
    """Give every disguise of a text that is looked for."""
    raw = text.encode()
    found = {
        "utf-8": raw,
        "utf-16": text.encode("utf-16-le"),
        "decomposed": unicodedata.normalize("NFD", text).encode(),
        "lower case": text.lower().encode(),
        "upper case": text.upper().encode(),
        "json": json.dumps(text)[1:-1].encode(),
        "percent": quote(text).encode(),
        "percent, lower": quote(text).lower().encode(),
        "repr": repr(raw)[2:-1].encode(),
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
    }
    for offset in range(3):  # what stands around the text changes the first and last character of its base64
        packed = base64.b64encode(bytes(offset) + raw + bytes(2))
        whole = packed[(offset * 8 + 5) // 6 : (offset + len(raw)) * 8 // 6]
        found[f"base64 +{offset}"] = whole
        found[f"base64url +{offset}"] = whole.replace(b"+", b"-").replace(b"/", b"_")
    return found


def unpacked(data: bytes) -> Iterator[bytes]:
    """Give what every zlib or gzip stream inside unpacks to, as far as it goes."""
    for magic, bits in (
        (b"\x1f\x8b\x08", 31),
        (b"\x78\x01", 15),
        (b"\x78\x5e", 15),
        (b"\x78\x9c", 15),
        (b"\x78\xda", 15),
    ):
        at = data.find(magic)
        while at >= 0:
            with contextlib.suppress(zlib.error):
                if inner := zlib.decompressobj(bits).decompress(data[at : at + LARGEST], LARGEST):
                    yield inner
            at = data.find(magic, at + 1)


def dense(path: Path) -> bytes:
    """Read a file without its empty blocks: an index keeps room for what is to come."""
    data = path.read_bytes()
    if len(data) < 64 * BLOCK:
        return data
    empty = bytes(BLOCK)
    blocks = (data[at : at + BLOCK] for at in range(0, len(data), BLOCK))
    return b"".join(block for block in blocks if block != empty)
