"""Kinds: the types of files that are read, and which names and declarations each may come under.

A file is what its bytes are (`sniff.py`); what its sender says of it must not contradict that, or it is not read.
"""

from typing import Final

PDF: Final = "application/pdf"
DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX: Final = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
XLSB: Final = "application/vnd.ms-excel.sheet.binary.macroenabled.12"
XLS: Final = "application/vnd.ms-excel"
ODT: Final = "application/vnd.oasis.opendocument.text"
ODS: Final = "application/vnd.oasis.opendocument.spreadsheet"
ODP: Final = "application/vnd.oasis.opendocument.presentation"
RTF: Final = "application/rtf"
EPUB: Final = "application/epub+zip"
EML: Final = "message/rfc822"
MSG: Final = "application/vnd.ms-outlook"
ZIP: Final = "application/zip"
HTML: Final = "text/html"
MARKDOWN: Final = "text/markdown"
CSV: Final = "text/csv"
PLAIN: Final = "text/plain"
PNG: Final = "image/png"
JPEG: Final = "image/jpeg"
TIFF: Final = "image/tiff"
BMP: Final = "image/bmp"
WEBP: Final = "image/webp"
GIF: Final = "image/gif"

IMAGES: Final = frozenset({PNG, JPEG, TIFF, BMP, WEBP, GIF})
TEXTS: Final = frozenset({PLAIN, MARKDOWN, CSV, HTML, EML})
"""Told apart by their words alone: any of them may stand under another's name."""
WORDS: Final = frozenset({DOCX, ODT, RTF, HTML})
"""What programs have saved under `.doc`."""
SHEETS: Final = frozenset({XLSX, XLSB, XLS, ODS})
PACKAGES: Final = {
    b"wordprocessingml.document.main": DOCX,
    b"wordprocessingml.template.main": DOCX,
    b"ms-word.document.macroenabled": DOCX,
    b"ms-word.template.macroenabledtemplate": DOCX,
    b"presentationml.presentation.main": PPTX,
    b"presentationml.slideshow.main": PPTX,
    b"presentationml.template.main": PPTX,
    b"ms-powerpoint.presentation.macroenabled": PPTX,
    b"ms-powerpoint.slideshow.macroenabled": PPTX,
    b"spreadsheetml.sheet.main": XLSX,
    b"spreadsheetml.template.main": XLSX,
    b"ms-excel.sheet.macroenabled": XLSX,
    b"ms-excel.sheet.binary": XLSB,
}
"""What the content list of an OOXML package calls its main part, in small letters (ECMA-376 part 1, 11 to 13)."""

_SUFFIXES: Final[dict[str, frozenset[str]]] = {
    suffix: kinds
    for suffixes, kinds in (
        (".pdf", {PDF}),
        (".docx .docm .dotx .dotm", {DOCX}),
        (".doc .dot", WORDS),
        (".pptx .pptm .ppsx .ppsm .potx", {PPTX}),
        (".ppt .pps", {PPTX, ODP}),
        (".xlsx .xlsm .xltx .xltm", {XLSX}),
        (".xlsb", {XLSB}),
        (".xls .xlt", {*SHEETS, *TEXTS}),
        (".odt .ott", {ODT}),
        (".ods .ots", {ODS}),
        (".odp .otp", {ODP}),
        (".rtf", {RTF}),
        (".epub", {EPUB}),
        (".msg", {MSG}),
        (".zip", {ZIP}),
        (".html .htm .xhtml .md .markdown .txt .text .csv .tsv .eml .log", TEXTS),
        (".png .jpg .jpeg .jpe .tif .tiff .bmp .webp .gif", IMAGES),
    )
    for suffix in suffixes.split()
    for kinds in (frozenset(kinds),)
}
_DECLARED: Final[dict[str, frozenset[str]]] = {
    **{kind: frozenset({kind}) for kind in (PDF, DOCX, PPTX, XLSX, XLSB, ODT, ODS, ODP, RTF, EPUB, MSG, ZIP)},
    "application/msword": WORDS,
    "text/rtf": frozenset({RTF}),
    "application/x-rtf": frozenset({RTF}),
    "application/x-zip-compressed": frozenset({ZIP}),
    XLS: SHEETS | TEXTS,  # what browsers on Windows call a CSV
    "application/vnd.ms-powerpoint": frozenset({PPTX, ODP}),
    "application/xhtml+xml": TEXTS,
    EML: TEXTS,
}
_BARRED: Final = ("audio/", "video/", "font/", "model/")


def claimed(declared_type: str, suffix: str) -> frozenset[str] | None:
    """Give the kinds that a file may be by what is said of it; None when nothing definite is said.

    Both are in small letters; a general type (`application/octet-stream`) and an unknown ending say nothing.
    """
    said = _declared(declared_type), _SUFFIXES.get(suffix)
    known = [kinds for kinds in said if kinds is not None]
    if not known:
        return None
    return frozenset.intersection(*known)


def _declared(declared_type: str) -> frozenset[str] | None:
    if declared_type in _DECLARED:
        return _DECLARED[declared_type]
    if declared_type.startswith("text/"):
        return TEXTS
    if declared_type.startswith("image/") and "svg" not in declared_type:
        return IMAGES
    return frozenset() if declared_type.startswith(_BARRED) else None


TEXT_BY_NAME: Final[dict[str, str]] = {
    **dict.fromkeys((".html", ".htm", ".xhtml", HTML, "application/xhtml+xml"), HTML),
    **dict.fromkeys((".md", ".markdown", MARKDOWN, "text/x-markdown"), MARKDOWN),
    **dict.fromkeys((".csv", ".tsv", CSV, "text/tab-separated-values"), CSV),
    **dict.fromkeys((".eml", EML), EML),
    **dict.fromkeys((".txt", ".text", ".log"), PLAIN),
}
"""Which text a name or a declaration makes of words that show no kind of their own."""
