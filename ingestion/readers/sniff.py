"""Sniffing: what a file is by its bytes, and whether that is what was said of it.

Rules kept here: signatures and the content lists of packages come first; where they say nothing magika's model tells
texts apart and stops what is no text; a kind that contradicts name or declared type is not read. The model is loaded
from its package, on one thread and without onnxruntime's telemetry: nothing is fetched or written.
"""

import io
import re
from functools import cache
from typing import Any, Final

import olefile

from ingestion.readers import Job, UnreadableError, package, plain
from ingestion.readers.kinds import (
    BMP,
    CSV,
    EML,
    EPUB,
    GIF,
    HTML,
    JPEG,
    MARKDOWN,
    MSG,
    ODP,
    ODS,
    ODT,
    PACKAGES,
    PDF,
    PLAIN,
    PNG,
    RTF,
    TEXT_BY_NAME,
    TIFF,
    WEBP,
    XLS,
    ZIP,
    claimed,
)

IMAGE_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"II*\x00", TIFF),
    (b"MM\x00*", TIFF),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
)
FOREIGN: Final = (
    (b"\x1f\x8b", "archive"),
    (b"7z\xbc\xaf", "archive"),
    (b"Rar!", "archive"),
    (b"BZh", "archive"),
    (b"\xfd7zXZ", "archive"),
    (b"\x7fELF", "program"),
    (b"MZ", "program"),
    (b"SQLite format 3\x00", "database"),
)
"""First bytes of types that we name but do not read."""
_MAGIKA: Final = {"csv": CSV, "tsv": CSV, "markdown": MARKDOWN, "html": HTML, "eml": EML, "txt": PLAIN}
_UNSURE: Final = frozenset({"unknown", "undefined", "empty", "txt", "randombytes", "randomtxt"})
_GROUPS: Final = {"executable": "program", "archive": "archive", "audio": "media", "video": "media"}

_EML: Final = re.compile(
    rb"(?:[!-9;-~]{1,76}:[^\r\n]*(?:\r?\n[ \t][^\r\n]*)*\r?\n){0,60}?"
    rb"(?:From|Received|Return-Path|Message-ID|MIME-Version):[^\r\n]*(?:\r?\n[ \t][^\r\n]*)*\r?\n"
    rb"(?:[!-9;-~]{1,76}:[^\r\n]*(?:\r?\n[ \t][^\r\n]*)*\r?\n)+",
    re.IGNORECASE,
)


def sniff(data: bytes, job: Job) -> tuple[str, str | None]:
    """Say what a file is; gives the text too where it had to decode.

    Raises `UnreadableError`: `unsupported_type` (found `mismatch` where name or declared type say otherwise),
    `encrypted_file`, `empty_text`, `broken_file`, or what a ZIP's check found.
    """
    if not data:
        raise UnreadableError("empty_text", "nothing")
    allowed = claimed(job.declared_type, job.suffix)
    kind, text = _kind(data, job, wants_pdf=allowed is not None and PDF in allowed)
    if allowed is not None and kind not in allowed:
        raise UnreadableError("unsupported_type", "mismatch")
    return kind, text


def _kind(data: bytes, job: Job, *, wants_pdf: bool) -> tuple[str, str | None]:
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n\x00")
    if head.startswith(b"%PDF-"):
        return PDF, None
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        if b"%PDF-" in data[:1024]:
            raise UnreadableError("unsupported_type", "polyglot")
        return _package(data), None
    # readers allow as much before a PDF's header: ISO 32000-1, annex H.3, note 13
    if b"%PDF-" in data[:1024] and (wants_pdf or plain.is_binary(data)):
        return PDF, None
    if data.startswith(olefile.MAGIC):
        return _compound(data), None
    if head.startswith(b"{\\rtf"):
        return RTF, None
    for magic, kind in IMAGE_MAGIC:
        if data.startswith(magic):
            return kind, None
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WEBP, None
    if plain.is_binary(data):
        for magic, found in FOREIGN:
            if data.startswith(magic):
                raise UnreadableError("unsupported_type", found)
        if data.startswith(b"BM"):
            return BMP, None
    return _text(data, job)


def _package(data: bytes) -> str:
    """Tell the kind of a ZIP by its list of contents, once it has been measured."""
    with package.measured(data) as archive:
        names = archive.NameToInfo
        if "[Content_Types].xml" in names:
            types = package.part(archive, "[Content_Types].xml").lower()
            for mark, kind in PACKAGES.items():
                if mark in types:
                    return kind
        if "mimetype" in names:
            said = package.part(archive, "mimetype")[:200].decode("ascii", "replace").strip().removesuffix("-template")
            if said in {ODT, ODS, ODP, EPUB}:
                if said != EPUB and b"encryption-data" in package.part(archive, "META-INF/manifest.xml"):
                    raise UnreadableError("encrypted_file", "office")
                return said
            raise UnreadableError("unsupported_type", "open document")
    return ZIP


def _compound(data: bytes) -> str:
    """Tell the kind of an OLE compound file by its streams ([MS-CFB])."""
    try:
        with olefile.OleFileIO(io.BytesIO(data)) as file:
            names = {entry[0].lower() for entry in file.listdir()}
    except (OSError, ValueError, IndexError, KeyError, TypeError, AttributeError):
        raise UnreadableError("broken_file", "compound") from None
    if "encryptedpackage" in names:
        raise UnreadableError("encrypted_file", "office")
    if "__properties_version1.0" in names:
        return MSG
    if names & {"workbook", "book"}:
        return XLS
    raise UnreadableError("unsupported_type", "old office")


def _text(data: bytes, job: Job) -> tuple[str, str]:
    text = plain.decode(data)
    seen = model().identify_bytes(data).output
    # what decodes as UTF-8 is text: the model has taken a short CSV for a program
    if not seen.is_text and seen.label not in _UNSURE and not _is_utf8(data):
        raise UnreadableError("unsupported_type", _GROUPS.get(seen.group, "binary"))
    if plain.looks_like_html(text):
        return HTML, text
    named = TEXT_BY_NAME.get(job.declared_type) or TEXT_BY_NAME.get(job.suffix)
    if named is None and _EML.match(data[:65_536]):
        named = EML
    if named is None and job.declared_type != PLAIN:
        named = _MAGIKA.get(seen.label, PLAIN)
    return named or PLAIN, text


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


@cache
def model() -> Any:
    """Give magika's model, loaded once by the nursery (0.2 s, 25 MB); 5 ms a file."""
    import onnxruntime
    from magika import Magika

    class OneThread(Magika):
        """Magika whose session starts no threads: a forked child would wait for them for ever."""

        def _init_onnx_session(self) -> Any:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            return onnxruntime.InferenceSession(
                self._model_path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )

    return OneThread()
