"""RTF by striprtf: the text of it; pictures, embedded objects and fields are passed over.

Rules kept here: nothing embedded is unpacked; a table's row is one line. RTF has no pages until it is laid out, and
its headings are mere formats: all of it is page 1 without headings.
"""

import re
from typing import Final

from striprtf.striprtf import rtf_to_text

from ingestion.readers import Reading, TextBuilder, UnreadableError, tidy
from ingestion.readers.kinds import RTF

_ROW: Final = re.compile(r"\|\s*$")


def read(data: bytes) -> Reading:
    """Read an RTF file. Raises `UnreadableError`: `broken_file` where its groups do not close, `empty_text`."""
    if not data.rstrip(b"\x00 \t\r\n").endswith(b"}"):
        raise UnreadableError("broken_file", "rtf")
    builder = TextBuilder()
    header = ""
    for line in text_of(data).split("\n"):
        if _ROW.search(line):
            header = builder.row([tidy(cell) for cell in line.rstrip().rstrip("|").split("|")], [], header)
        elif tidy(line):
            header = ""
            builder.put("text", tidy(line))
    return builder.reading(RTF)


def text_of(data: bytes) -> str:
    """Give the text of RTF; raises `UnreadableError` (`broken_file`) for what is none."""
    try:
        text = rtf_to_text(data.decode("latin-1"), errors="replace")  # type: ignore[no-untyped-call]
    except (ValueError, LookupError, IndexError, OverflowError):
        raise UnreadableError("broken_file", "rtf") from None
    # characters beyond the first plane are written as two halves
    return str(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
