"""Scans and images are read by the Tesseract that is installed, inside the walls; where none is, the error says so."""

import io
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen import canvas

from ingestion import sandbox
from ingestion.errors import ReaderError
from ingestion.sandbox import read_file

FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"
missing = not sandbox.recognises() or not Path(FONT).is_file()
if missing and os.environ.get("DOMICILE_TEST_INSIST"):
    pytest.fail("Tesseract (tesseract-ocr) or fonts-dejavu-core is not installed", pytrace=False)
needs_tesseract = pytest.mark.skipif(missing, reason="needs tesseract-ocr and fonts-dejavu-core")


def picture(*lines: str) -> Image.Image:
    image = Image.new("L", (1200, 120 + 80 * len(lines)), 255)
    for at, line in enumerate(lines):
        ImageDraw.Draw(image).text((60, 60 + 80 * at), line, font=ImageFont.truetype(FONT, 44), fill=0)
    return image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def scan(*pages: str | Image.Image) -> bytes:
    out = io.BytesIO()
    sheet = canvas.Canvas(out)
    for page in pages:
        if isinstance(page, str):
            sheet.drawString(72, 720, page)
        else:
            sheet.drawImage(ImageReader(page), 40, 500, 500, 500 * page.height / page.width)
        sheet.showPage()
    sheet.save()
    return out.getvalue()


@needs_tesseract
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
async def test_an_image_is_read_and_marked_as_recognised(kind: str) -> None:
    reading = await read_file(saved(picture("The ferry leaves at nine."), kind), name_suffix=f".{kind.lower()}")
    assert reading.text == "The ferry leaves at nine."
    assert [block.kind for block in reading.blocks] == ["ocr"]
    assert reading.recognised == [1]


@needs_tesseract
async def test_the_sheets_of_a_tiff_are_pages() -> None:
    data = saved(picture("First sheet"), "TIFF", save_all=True, append_images=[picture("Second sheet")])
    reading = await read_file(data)
    assert [reading.text[page.start : page.end] for page in reading.pages] == ["First sheet", "Second sheet"]


@needs_tesseract
async def test_of_a_pdf_only_the_scanned_pages_are_recognised() -> None:
    reading = await read_file(scan("Typed words.", picture("Scanned words."), ""))
    assert [(block.kind, block.page, reading.text[block.start : block.end]) for block in reading.blocks] == [
        ("text", 1, "Typed words."),
        ("ocr", 2, "Scanned words."),
    ]
    assert (reading.recognised, reading.unread) == ([2], [])


@needs_tesseract
async def test_a_picture_without_words_says_that_none_were_found() -> None:
    with pytest.raises(ReaderError, match="found no text") as caught:
        await read_file(saved(Image.new("L", (400, 400), 255), "PNG"))
    assert caught.value.reason == "empty_text"


async def test_without_tesseract_a_scan_says_what_to_install() -> None:
    bare = sandbox.Sandbox(module="planted_no_ocr", paths=(str(Path(__file__).parents[1] / "security"),))
    try:
        for data in (saved(Image.new("L", (40, 40), 0), "PNG"), scan(Image.new("L", (40, 40), 0))):
            with pytest.raises(ReaderError, match="no Tesseract") as caught:
                await bare.read_file(data)
            assert (caught.value.reason, "tesseract-ocr" in caught.value.hint) == ("empty_text", True)
        mixed = await bare.read_file(scan("Typed words.", Image.new("L", (40, 40), 0)))
        assert (mixed.text.strip(), mixed.unread) == ("Typed words.", [2])
    finally:
        bare.close()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "broken_file"),
        (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(bytes(1000)))
            + chunk(b"IEND", b""),
            "bomb",
        ),
        (b"II*\x00\xff\xff\xff\xff" + bytes(50), "broken_file"),
    ],
)
@needs_tesseract
async def test_a_broken_or_boundless_image_ends_in_its_code(data: bytes, reason: str) -> None:
    with pytest.raises(ReaderError) as caught:
        await read_file(data)
    assert caught.value.reason == reason
