"""Hostile files of the wider formats, and readers under fuzz: each ends in a text or a named cause."""

import io
import random
import zipfile
from collections.abc import Callable

import pytest

from ingestion.errors import ReaderError
from ingestion.readers import REASONS, Job, UnreadableError, main, sniff
from ingestion.sandbox import Limits, read_file
from tests.doubles import files

sniff.model()
LAUGHS = "<!DOCTYPE a [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {chr(98 + n)} '{f'&{chr(97 + n)};' * 10}'>" for n in range(9)
)
LEAK = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
TYPES = '<Types><Override ContentType="application/vnd.openxmlformats-officedocument.{}.main+xml"/></Types>'


def office(kind: str, parts: dict[str, str | bytes]) -> bytes:
    return files.zipped({"[Content_Types].xml": TYPES.format(kind)} | parts)


def nested(levels: int) -> bytes:
    data = files.zipped({"end.txt": "bottom"})
    for _ in range(levels):
        data = files.zipped({"in.zip": data})
    return data


def replaced(data: bytes, name: str, content: str) -> bytes:
    """The same package with one part of another content."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts: dict[str, str | bytes] = {each: archive.read(each) for each in archive.namelist()}
    return files.zipped(parts | {name: content})


def linked() -> bytes:
    entry = zipfile.ZipInfo("link.txt")
    entry.external_attr = 0o120777 << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    return out.getvalue()


SLIDES = files.presentation(("One", "Two", "Three"))
SHEETS = files.workbook({"S": [["a", "b"], [1, 2]]})
TEXT = files.opendocument("text", "<text:p>words</text:p>")
BOOK = files.book("<p>words")
SECRET = '<manifest xmlns:m="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"><m:encryption-data/></manifest>'
RIGHTS = '<e xmlns:x="http://www.w3.org/2001/04/xmlenc#"><x:EncryptionMethod Algorithm="aes"/></e>'

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a PPTX with an outside entity": (lambda: replaced(SLIDES, "ppt/slides/slide1.xml", LEAK + "<a>&x;</a>"), "bomb"),
    "a PPTX of laughs": (lambda: replaced(SLIDES, "ppt/presentation.xml", LAUGHS + "]><a>&j;</a>"), "bomb"),
    "a PPTX without its slides": (lambda: office("presentationml.presentation", {"a": "b"}), "broken_file"),
    "a PPTX cut in half": (lambda: SLIDES[: len(SLIDES) // 2], "broken_file"),
    "an XLSX without a workbook": (lambda: office("spreadsheetml.sheet", {"a": "b"}), "broken_file"),
    "an XLSX cut in half": (lambda: SHEETS[: len(SHEETS) // 2], "broken_file"),
    "an XLSX that inflates": (lambda: replaced(SHEETS, "xl/worksheets/sheet1.xml", " " * 40_000_000), "bomb"),
    "an XLSX of nothing": (lambda: files.workbook({"S": []}), "empty_text"),
    "an ODT with an outside entity": (lambda: files.opendocument("text", "<text:p>&x;</text:p>", prolog=LEAK), "bomb"),
    "an encrypted ODT": (lambda: files.opendocument("text", "<text:p>x</text:p>", manifest=SECRET), "encrypted_file"),
    "an ODT whose XML breaks off": (lambda: files.opendocument("text", "<text:p>"), "broken_file"),
    "an ODT without a manifest": (
        lambda: files.zipped({"content.xml": "<a/>"}, first="application/vnd.oasis.opendocument.text"),
        "broken_file",
    ),
    "an RTF that breaks off": (lambda: rb"{\rtf1\ansi {\b words", "broken_file"),
    "an RTF of pictures alone": (lambda: rb"{\rtf1\ansi {\pict 00ff}}", "empty_text"),
    "a book under rights": (lambda: files.book("<p>x", extra={"META-INF/encryption.xml": RIGHTS}), "encrypted_file"),
    "a book with an outside entity": (lambda: replaced(BOOK, "O/b.opf", LEAK + "<a>&x;</a>"), "bomb"),
    "a book without its list": (lambda: files.zipped({"x": "y"}, first="application/epub+zip"), "broken_file"),
    "a sealed mail": (
        lambda: b"From: a@b.example\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data\n\nMIIB\n",
        "encrypted_file",
    ),
    "a compound file cut off": (lambda: files.outlook({"0037": "x" * 5000})[:700], "broken_file"),
    "an old Word file": (lambda: files.compound({("WordDocument",): bytes(5000)}), "unsupported_type"),
    "an archive that climbs out": (lambda: files.zipped({"../up.txt": "x"}), "bomb"),
    "an archive with a link": (linked, "bomb"),
    "archives nested too deep": (lambda: nested(3), "bomb"),
    "an archive of archives that inflate": (
        lambda: files.zipped({f"{n}.zip": files.zipped({"a": b"\0" * 9_000_000}) for n in range(3)}),
        "bomb",
    ),
    "a ZIP that is a PDF as well": (lambda: b"PK\x03\x04%PDF-1.4\n" + files.zipped({"a": "b"}), "unsupported_type"),
    "a picture that is none": (lambda: b"\xff\xd8\xff\xe0" + bytes(200), "broken_file"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_file_ends_in_its_cause(name: str) -> None:
    make, reason = HOSTILE[name]
    with pytest.raises(ReaderError) as caught:
        await read_file(make(), limits=Limits(wall_s=20))
    assert caught.value.reason == reason
    assert caught.value.hint


async def test_a_sheet_with_a_cell_at_its_far_corner_stays_within_its_memory() -> None:
    rows = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>2</v></c></row>'
    sheet = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
    data = replaced(SHEETS, "xl/worksheets/sheet1.xml", f"{sheet}{rows}</sheetData></worksheet>")
    with pytest.raises(ReaderError) as caught:
        await read_file(data)
    assert caught.value.reason in {"parse_crash", "parse_memory"}


async def test_one_locked_file_does_not_cost_an_archive_the_others() -> None:
    data = files.zipped(
        {"a.txt": "kept", "b.docx": files.compound({("EncryptedPackage",): bytes(5000)}), "ü\u202e.txt": "odd"}
    )
    reading = await read_file(data, name_suffix=".zip")
    assert "kept" in reading.text
    assert "b.docx: not read (encrypted_file)" in reading.text
    assert "odd" in reading.text


SEEDS: dict[str, bytes] = {
    ".pptx": SLIDES,
    ".xlsx": SHEETS,
    ".odt": TEXT,
    ".epub": BOOK,
    ".rtf": rb"{\rtf1\ansi{\fonttbl{\f0 Arial;}}\f0 one\par \trowd a\cell b\cell\row \u8364? \'fc}",
    ".eml": files.mail("Subject", "text", html="<p>x", attached={"a.zip": nested(1), "b.txt": b"words"}),
    ".msg": files.outlook({"0037": "Subject", "1000": "text"}, {"a.txt": b"words" * 999}),
    ".zip": files.zipped({"a.txt": "words", "b.html": "<html><p>words"}),
    ".csv": b'a;b\n1;"2\n3"\n',
    ".html": b"<html><body><table><tr><td>a<td>b</table><ul><li>c</ul>",
    ".md": b"# A\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
}


def bent(whole: bytes, chance: random.Random) -> bytes:
    out = bytearray(whole)
    for _ in range(chance.choice((1, 3, 20))):
        at, how = chance.randrange(len(out) or 1), chance.randrange(4)
        if how == 0:
            out[at : at + 1] = chance.randbytes(1)
        elif how == 1:
            del out[at : at + chance.randrange(1, 40)]
        elif how == 2:
            out[at:at] = out[at : at + 30] * chance.randrange(1, 4)
        else:
            out[at : at + 1] = chance.choice((b"\0", b"<", b"{", b"\xff\xff\xff\xff", b'"', b"\r\n"))
    return bytes(out)


def bent_inside(whole: bytes, chance: random.Random) -> bytes:
    """Bend one part of a package and pack it anew, so that its checksum holds."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        parts: dict[str, str | bytes] = {each: archive.read(each) for each in archive.namelist()}
    name = chance.choice([each for each in parts if each.endswith((".xml", ".rels", "html", ".opf", ".txt"))])
    content = parts[name]
    assert isinstance(content, bytes)
    return files.zipped(parts | {name: bent(content, chance)})


@pytest.mark.parametrize("suffix", SEEDS)
def test_bent_bytes_give_a_text_whose_places_hold_or_a_named_cause(suffix: str) -> None:
    """Bounded fuzzing without a child: nothing but `UnreadableError` may come out of a reader."""
    chance, whole = random.Random(suffix), SEEDS[suffix]
    ways = (bent, bent_inside) if whole.startswith(b"PK") else (bent,)
    for turn in range(60):
        try:
            reading = main.read(ways[turn % len(ways)](whole, chance), Job(suffix=suffix))
        except UnreadableError as error:
            assert error.reason in REASONS
        else:
            at = 0
            for block in reading.blocks:
                assert at <= block.start <= block.end <= len(reading.text)
                at = block.end
            reading.text.encode()
