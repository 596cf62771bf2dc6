"""Packages: ZIP archives and the XML parts in them, measured before anything of them is opened.

Rules kept here: at most 10,000 entries, 1 GiB and 100 : 1 in all, no overlap, no doubles, no path that leaves its
folder, no link; entries are measured again while they inflate; an XML with a document type is refused, so there are no
entities to expand and no addresses to fetch.
Sources: APPNOTE.TXT 6.3.10; CVE-2016-5851, CVE-2025-65482; Fifield, "A better zip bomb" (2019).
"""

import io
import posixpath
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from typing import Final
from zipfile import BadZipFile, ZipFile

from lxml import etree  # type: ignore[import-untyped]

from ingestion.readers import UnreadableError

MAX_ENTRIES: Final = 10_000
MAX_TOTAL: Final = 1024 * 1024 * 1024
"""Bytes that all entries may inflate to."""
MAX_PART: Final = 256 * 1024 * 1024
"""Bytes that one part of the text may inflate to."""
MAX_RATIO: Final = 100
SMALL: Final = 8 * 1024 * 1024
"""Bytes below which a high ratio harms nobody (a form repeated a thousand times)."""

RELATION: Final = "{http://schemas.openxmlformats.org/package/2006/relationships}Relationship"


def measured(data: bytes) -> ZipFile:
    """Open a ZIP and measure it by its directory."""
    end = data.rfind(b"PK\x05\x06")
    if end < 0 or end + 22 > len(data):
        raise UnreadableError("broken_file", "zip")
    (entries,) = struct.unpack_from("<H", data, end + 10)  # APPNOTE.TXT 4.3.16; 65,535 stands for "see ZIP64"
    if entries > MAX_ENTRIES:
        raise UnreadableError("bomb", "entries")
    try:
        archive = ZipFile(io.BytesIO(data))
    except (BadZipFile, ValueError, NotImplementedError, struct.error):
        raise UnreadableError("broken_file", "zip") from None
    entered = archive.infolist()
    total, packed, at = sum(each.file_size for each in entered), sum(each.compress_size for each in entered), 0
    if len(entered) > MAX_ENTRIES or total > MAX_TOTAL or (total > SMALL and total > MAX_RATIO * max(packed, 1)):
        raise UnreadableError("bomb", "size")
    for entry in sorted(entered, key=lambda each: each.header_offset):
        if entry.flag_bits & 1:
            raise UnreadableError("encrypted_file", "zip")
        if entry.header_offset < at:
            raise UnreadableError("bomb", "overlap")
        at = entry.header_offset + 30 + entry.compress_size
        parts = re.split(r"[/\\]", entry.orig_filename)
        if ".." in parts or parts[0] in {"", "."} or ":" in parts[0] or stat.S_ISLNK(entry.external_attr >> 16):
            raise UnreadableError("bomb", "paths")
    if len({entry.filename for entry in entered}) != len(entered):
        raise UnreadableError("bomb", "doubles")  # which of two equals is read is anyone's guess: refuse to guess
    return archive


def part(archive: ZipFile, name: str) -> bytes:
    """Inflate one entry, counting; the declared size is a claim."""
    out, size = [], 0
    try:
        with archive.open(name) as stream:
            while piece := stream.read(1 << 20):
                size += len(piece)
                if size > MAX_PART:
                    raise UnreadableError("bomb", "size")
                out.append(piece)
    except (BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError, OSError):
        raise UnreadableError("broken_file", "zip") from None
    return b"".join(out)


def events(archive: ZipFile, name: str, *, ends: tuple[str, ...] | None = None) -> Iterator[tuple[str, etree._Element]]:
    """Walk an XML part; anything with a document type is refused at the first event.

    Gives starts and ends of all elements, or, with `ends`, only the ends of elements with those tags.
    """
    source = io.BytesIO(part(archive, name))
    walk = etree.iterparse(
        source, events=("end",) if ends else ("start", "end"), tag=ends, resolve_entities=False, no_network=True,
        load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True,
    )  # fmt: skip
    first = True
    try:
        for event, element in walk:
            if first and element.getroottree().docinfo.doctype:
                raise UnreadableError("bomb", "entities")
            first = False
            yield event, element
        if first and walk.root is not None and walk.root.getroottree().docinfo.doctype:
            raise UnreadableError("bomb", "entities")
    except etree.XMLSyntaxError:
        raise UnreadableError("broken_file", "xml") from None


def relations(archive: ZipFile, name: str) -> dict[str, tuple[str, str]]:
    """Give the relations of an OOXML part: id -> (last word of its type, part); what lies outside is left out.

    A part without relations has none. Source: ECMA-376 part 2, 6.5.
    """
    folder, base = posixpath.split(name)
    source = f"{folder}/_rels/{base}.rels"
    found: dict[str, tuple[str, str]] = {}
    if source.lstrip("/") not in archive.NameToInfo:
        return found
    for _, element in events(archive, source.lstrip("/"), ends=(RELATION,)):
        if element.get("TargetMode") == "External":
            continue
        target = str(element.get("Target") or "")
        there = posixpath.normpath(posixpath.join(folder, target)) if target[:1] != "/" else target[1:]
        found[str(element.get("Id"))] = str(element.get("Type") or "").rpartition("/")[2], there
    return found
