"""Outcomes: how it is said that a file cannot be read, and what to do next.

Rules kept here: a child sends slugs alone; every word that a person sees stands in these lists.
"""

from typing import Final

from ingestion.errors import ReaderError
from ingestion.readers import REASONS

_TYPES: Final = "PDF, an Office or OpenDocument file, RTF, EPUB, mail, HTML, Markdown, CSV, text, an image or a ZIP"
_FAILED: Final[dict[str, tuple[str, str]]] = {
    "encrypted_file": ("the file is protected by a password", "remove the protection and send it again"),
    "broken_file": ("the file is damaged and cannot be opened", "open it in its own program, save it anew, send that"),
    "empty_text": ("the file holds no text", "send a file with text in it"),
    "unsupported_type": ("files of this type are not read", f"send {_TYPES}"),
    "bomb": (
        "the file unpacks to far more than it should or hides entities; it was not opened",
        "save it anew in its own program and send that; if it came from outside, ask who made it",
    ),
    "parse_timeout": ("reading the file took too long and was stopped", "split the file, or save it anew"),
    "parse_memory": ("reading the file took too much memory and was stopped", "split the file, or save it anew"),
    "parse_crash": ("the reader broke on this file and was stopped", "save the file anew in its own program"),
}
_NO_OCR: Final = (
    "ask your operator to install Tesseract for text recognition (OCR; Debian: tesseract-ocr) and retry,"
    " or send a file with its text"
)
_FOUND: Final[dict[tuple[str, str], tuple[str, str]]] = {
    ("empty_text", "scan"): ("none of the file's pages holds text: it is scanned", _NO_OCR),
    ("empty_text", "image"): ("the file is an image", _NO_OCR),
    ("empty_text", "no ocr"): (
        "the file is scanned, and no Tesseract is installed here to recognise its text",
        _NO_OCR,
    ),
    ("empty_text", "blank scan"): ("text recognition (OCR) found no text in it", "scan it anew, upright and sharp"),
    ("empty_text", "no pages"): ("the file has no pages", "send a file with text in it"),
    ("broken_file", "image"): ("the image is damaged and cannot be opened", "scan or save it anew and send that"),
    ("unsupported_type", "mismatch"): (
        "the file's content is not of the type that its name or its declared type says",
        "give it the ending and the type of what it is, and send it again",
    ),
    ("unsupported_type", "polyglot"): ("the file is of two types at once", "save it anew in its own program"),
    ("unsupported_type", "old office"): ("the file is of an old Office format", "save it as DOCX, PPTX or PDF"),
    ("unsupported_type", "open document"): ("the file is of a rare OpenDocument type", "save it as ODT or PDF"),
    ("unsupported_type", "archive"): ("the file is an archive that is not opened", "send a ZIP or the files in it"),
    ("unsupported_type", "program"): ("the file is a program", f"send {_TYPES}"),
    ("unsupported_type", "media"): ("the file is sound or film", "send a transcript of it"),
    ("unsupported_type", "database"): ("the file is a database", "export it as CSV or text and send that"),
    ("bomb", "paths"): ("the archive names files outside its own folder", "pack the files anew; ask who made it"),
    ("bomb", "depth"): ("the file holds archives nested too deep", "unpack it and send the files in it"),
    ("bomb", "entries"): ("the file holds too many files or parts", "split it and send the parts"),
    ("bomb", "pages"): ("the file has too many pages", "split it and send the parts"),
    ("bomb", "pixels"): ("the image has too many pixels", "scan it with fewer dots per inch"),
}


def outcome(reason: str, found: str = "") -> ReaderError:
    """Word an outcome; both words come from our own lists, whatever the child sent."""
    if reason not in REASONS:
        reason = "parse_crash"
    message, hint = _FOUND.get((reason, found), _FAILED[reason])
    return ReaderError(message, reason=reason, hint=hint)
