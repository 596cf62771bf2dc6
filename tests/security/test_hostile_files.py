"""Files made to harm or to confuse: each ends in its outcome code, none touches disk or network."""

import io
import random
import struct
import zipfile
from collections.abc import Callable

import pytest
from reportlab.lib import pdfencrypt
from reportlab.pdfgen import canvas

from ingestion.errors import ReaderError
from ingestion.readers.kinds import DOCX, HTML, PDF, PLAIN, RTF
from ingestion.sandbox import Limits, read_file
from tests.doubles import files

TYPES = (
    '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Override '
    f'PartName="/word/document.xml" ContentType="{DOCX}.main+xml"/></Types>'
)
W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def document(body: str, prolog: str = "") -> str:
    return f'<?xml version="1.0"?>{prolog}<w:document xmlns:w="{W}"><w:body>{body}</w:body></w:document>'


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def docx(parts: dict[str, str | bytes], **options: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        archive.writestr("[Content_Types].xml", TYPES)
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


def pdf(*pages: str, password: str = "") -> bytes:
    out = io.BytesIO()
    sheet = canvas.Canvas(out, encrypt=pdfencrypt.StandardEncryption(password) if password else None)
    for text in pages:
        if text:
            sheet.drawString(72, 720, text)
        else:
            sheet.rect(100, 100, 50, 50, fill=1)
        sheet.showPage()
    sheet.save()
    return out.getvalue()


def no_pages() -> bytes:
    """A PDF that is whole and has no page, with a true cross-reference table."""
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for body in (b"1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n", b"2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n"):
        offsets.append(len(out))
        out += body
    start = len(out)
    out += b"xref\n0 3\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer<</Size 3/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % start
    return bytes(out)


def overlapping() -> bytes:
    """A DOCX whose directory names one stretch of bytes twice."""
    whole = bytearray(docx({"word/document.xml": document(paragraph("x")), "word/other.xml": "y" * 50}))
    first = whole.index(b"PK\x01\x02")
    entries = [at for at in range(first, len(whole)) if whole[at : at + 4] == b"PK\x01\x02"]
    offset = struct.unpack_from("<I", whole, entries[1] + 42)[0]
    struct.pack_into("<I", whole, entries[2] + 42, offset + 1)
    return bytes(whole)


def encrypted_office() -> bytes:
    return files.compound({("EncryptionInfo",): bytes(200), ("EncryptedPackage",): bytes(9000)})


def encrypted_entry() -> bytes:
    whole = bytearray(docx({"word/document.xml": document(paragraph("x"))}))
    at = whole.index(b"PK\x01\x02")
    whole[at + 8] |= 1
    return bytes(whole)


BILLION = "<!DOCTYPE w:document [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {chr(98 + n)} '{f'&{chr(97 + n)};' * 10}'>" for n in range(9)
)

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "empty_text"),
    "only white space": (lambda: b" \n\t\r\n ", "empty_text"),
    "an encrypted PDF": (lambda: pdf("secret", password="pw"), "encrypted_file"),
    "a PDF cut off in its header": (lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", "broken_file"),
    "a PDF without pages": (no_pages, "empty_text"),
    "a scanned PDF": (lambda: pdf("", ""), "empty_text"),
    "an encrypted office file": (encrypted_office, "encrypted_file"),
    "a ZIP with an encrypted entry": (encrypted_entry, "encrypted_file"),
    "a DOCX that inflates 1000 : 1": (
        lambda: docx({"word/document.xml": document(paragraph("a" * 40_000_000))}),
        "bomb",
    ),
    "a DOCX of 20,000 entries": (
        lambda: docx({"word/document.xml": document("")} | {f"x/{n}": b"" for n in range(20_000)}),
        "bomb",
    ),
    "overlapping entries": (overlapping, "bomb"),
    "zip slip": (lambda: docx({"word/document.xml": document(""), "../../etc/passwd": "x"}), "bomb"),
    "an absolute path": (lambda: docx({"word/document.xml": document(""), "/etc/passwd": "x"}), "bomb"),
    "a path of Windows": (lambda: docx({"word/document.xml": document(""), "C:\\x": "x"}), "bomb"),
    "an external entity": (
        lambda: docx(
            {
                "word/document.xml": document(
                    paragraph("&x;"), '<!DOCTYPE w:document [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
                )
            }
        ),
        "bomb",
    ),
    "an external entity in UTF-16": (
        lambda: docx(
            {
                "word/document.xml": document(
                    paragraph("&x;"), '<!DOCTYPE w:document [<!ENTITY x SYSTEM "http://127.0.0.1/">]>'
                )
                .replace('version="1.0"', 'version="1.0" encoding="utf-16"')
                .encode("utf-16")
            }
        ),
        "bomb",
    ),
    "a billion laughs": (
        lambda: docx({"word/document.xml": document(paragraph("&j;"), BILLION + "]>")}),
        "bomb",
    ),
    "entities in a header": (
        lambda: docx(
            {
                "word/document.xml": document(paragraph("x")),
                "word/header1.xml": '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
            }
        ),
        "bomb",
    ),
    "a DOCX whose XML breaks off": (
        lambda: docx({"word/document.xml": document(paragraph("x"))[:-20]}),
        "broken_file",
    ),
    "a DOCX without a word": (lambda: docx({"word/document.xml": document("")}), "empty_text"),
    "a ZIP cut in half": (lambda: docx({"word/document.xml": document(paragraph("x" * 999))})[:300], "broken_file"),
    "noise": (lambda: random.Random(7).randbytes(5000), "unsupported_type"),
    "UTF-16 that breaks off": (lambda: b"\xff\xfeh\x00i\x00\xd8", "broken_file"),
    "a script-only page": (lambda: b"<!doctype html><script>var text = 1</script>", "empty_text"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_file_ends_in_its_outcome_code(name: str) -> None:
    make, reason = HOSTILE[name]
    with pytest.raises(ReaderError) as caught:
        await read_file(make(), limits=Limits(wall_s=20))
    assert caught.value.reason == reason
    assert caught.value.hint


async def test_the_same_docx_without_its_poison_is_read() -> None:
    reading = await read_file(docx({"word/document.xml": document(paragraph("wholesome"))}))
    assert (reading.text, reading.media_type) == ("wholesome", DOCX)


@pytest.mark.parametrize("encoding", ["cp1252", "iso-8859-2", "utf-16", "koi8-r", "big5"])
async def test_a_page_in_any_encoding_is_read_inside_the_walls(encoding: str) -> None:
    words = {"koi8-r": "Съешь ещё этих", "big5": "資料保護", "iso-8859-2": "Zażółć gęślą"}.get(encoding, "Größe prüfen")
    page = f"<!doctype html><meta charset='{encoding}'><p>{words}"
    assert (await read_file(page.encode(encoding))).text == words


async def test_plain_text_of_an_unnamed_encoding_is_read_inside_the_walls() -> None:
    text = "Die Geschäftsführung prüft die Verträge regelmäßig, auch für größere Aufträge. " * 5
    assert (await read_file(text.encode("cp1252"))).text == text


async def test_deep_nesting_in_a_page_breaks_nothing() -> None:
    reading = await read_file(b"<!doctype html>" + b"<div><b>" * 5_000 + b"bottom", name_suffix=".html")
    assert reading.text == "bottom"


async def test_deep_nesting_in_a_docx_ends_in_a_code_or_a_text() -> None:
    deep = "<w:tbl><w:tr><w:tc>" * 5_000 + paragraph("x") + "</w:tc></w:tr></w:tbl>" * 5_000
    try:
        reading = await read_file(docx({"word/document.xml": document(deep)}))
    except ReaderError as error:
        assert error.reason in {"broken_file", "bomb", "parse_memory"}
    else:
        assert reading.text == "x"


@pytest.mark.parametrize(
    ("data", "suffix", "media_type"),
    [
        (b"just words", "", PLAIN),
        (b"<!doctype html><p>words", ".txt", HTML),
        (pdf("words"), "", PDF),
        (b"junk before\n" + pdf("words"), ".pdf", PDF),
        (rb"{\rtf1\ansi words}", ".doc", RTF),
        (b"<html><body>about %PDF-1.7 and other words", ".html", HTML),
    ],
)
async def test_a_file_is_read_as_what_its_bytes_are(data: bytes, suffix: str, media_type: str) -> None:
    reading = await read_file(data, name_suffix=suffix)
    assert reading.media_type == media_type
    assert "words" in reading.text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"just words", {"name_suffix": ".pdf"}),
        (b"just words", {"declared_type": "application/pdf"}),
        (pdf("words"), {"name_suffix": ".docx"}),
        (pdf("words"), {"name_suffix": ".pdf", "declared_type": "video/mp4"}),
        (files.zipped({"a.txt": "words"}), {"name_suffix": ".xlsx"}),
        (files.workbook({"S": [["a", "b"]]}), {"name_suffix": ".docx"}),
    ],
)
async def test_a_file_that_is_not_what_its_name_or_type_says_is_not_read(data: bytes, said: dict[str, str]) -> None:
    with pytest.raises(ReaderError, match="not of the type") as caught:
        await read_file(data, **said)
    assert caught.value.reason == "unsupported_type"


@pytest.mark.parametrize("seed", range(12))
async def test_a_flipped_pdf_or_docx_gives_a_text_or_a_code(seed: int) -> None:
    chance = random.Random(seed)
    whole = bytearray(pdf("one", "two") if seed % 2 else docx({"word/document.xml": document(paragraph("one"))}))
    for _ in range(20):
        whole[chance.randrange(len(whole))] = chance.randrange(256)
    try:
        reading = await read_file(bytes(whole))
    except ReaderError as error:
        assert error.reason
    else:
        assert all(0 <= span.start <= span.end <= len(reading.text) for span in reading.pages)
