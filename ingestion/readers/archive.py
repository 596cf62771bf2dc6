"""ZIP as a folder: its text is the list of what lies in it, and each file in it is handed on to be read by itself.

Rules kept here: the measures of `package.py` hold before anything is opened; archives within it are opened no deeper
than three, under one budget of entries and bytes; what a program leaves beside the files (`__MACOSX`, `.DS_Store`) is
left out.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

from ingestion.readers import MAX_MEMBER, MAX_MEMBERS, Member, Reading, TextBuilder, UnreadableError, package, tidy
from ingestion.readers.kinds import ZIP

DEPTH: Final = 3
"""How many archives may lie in each other."""
LEFTOVERS: Final = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"})


def read(data: bytes) -> Reading:
    """List an archive, a line for each file, under the folder it lies in."""
    builder = TextBuilder()
    members = [Member(name[:1_000]) for name, _ in _files(data)]
    for member in members:
        folder, _, name = member.name.rpartition("/")
        builder.put("item", tidy(name) or "?", tidy(folder.replace("/", " › ")), glue="\n")
    return builder.reading(ZIP)


def unpack(data: bytes) -> Iterator[tuple[Member, bytes]]:
    """Give each file of an archive."""
    for name, content in _files(data):
        yield Member(name[:1_000]), content


def _files(data: bytes) -> Iterator[tuple[str, bytes]]:
    waiting = [("", data, 1)]
    count = total = 0
    while waiting:
        above, packed, depth = waiting.pop(0)
        with package.measured(packed) as archive:
            for entry in archive.infolist():
                place = PurePosixPath(entry.filename.replace("\\", "/"))
                if entry.is_dir() or LEFTOVERS & set(place.parts) or not place.name:
                    continue
                count, total = count + 1, total + entry.file_size
                if count > MAX_MEMBERS:
                    raise UnreadableError("bomb", "entries")
                if total > package.MAX_TOTAL or entry.file_size > MAX_MEMBER:
                    raise UnreadableError("bomb", "size")
                content = package.part(archive, entry.filename)
                name = above + str(place)
                if place.suffix.lower() != ".zip":
                    yield name, content
                elif depth >= DEPTH:
                    raise UnreadableError("bomb", "depth")
                else:
                    waiting.append((f"{name}/", content, depth + 1))
