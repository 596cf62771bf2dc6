"""OCR: text out of images and scanned pages, by the Tesseract that is installed, called as a library.

The child may start no program and write no file, so Tesseract's C interface is called in the child itself; the nursery
loads library and models' place before any file comes. Rules kept here: at most 50 megapixels an image and 200 pages a
file; what OCR gave is a Block of kind `ocr` on its page, so that nobody takes it for the file's own text.
Source: tesseract/capi.h (5.x); Debian packages tesseract-ocr and tesseract-ocr-<language>.
"""

import ctypes
import ctypes.util
import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pypdfium2
from PIL import Image, ImageSequence, UnidentifiedImageError

from ingestion.readers import Reading, TextBuilder, UnreadableError, pdf
from ingestion.readers.confine import models

MAX_PIXELS: Final = 50_000_000
MAX_SCANS: Final = 200
"""Pages of one file that are recognised."""
RESOLUTION: Final = 200
"""Dots per inch that a PDF's page is drawn with."""
LANGUAGES: Final = ("eng", "deu", "fra", "spa", "ita", "nld", "pol", "por")
"""Models that are used where they are installed, the first `MOST`; each more makes recognition slower."""
MOST: Final = 4

Image.MAX_IMAGE_PIXELS = MAX_PIXELS


@cache
def engine() -> tuple[Any, str, str] | None:
    """Give Tesseract's library, the folder of its models and the languages used; None where it is not installed."""
    folder = models()
    known = [each for each in LANGUAGES if Path(folder, f"{each}.traineddata").is_file()] if folder else []
    if not known:
        return None
    for name in ("libtesseract.so.5", "libtesseract.so.4"):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.TessBaseAPICreate.restype = ctypes.c_void_p
        library.TessBaseAPIGetUTF8Text.restype = ctypes.c_void_p
        return library, folder, "+".join(known[:MOST])
    return None


def read_image(data: bytes, media_type: str) -> Reading:
    """Recognise an image; each of its frames (a TIFF of many sheets) is a page.

    Raises `UnreadableError`: `empty_text` (`no ocr`, `blank scan`), `broken_file`, `bomb`.
    """
    builder = TextBuilder()
    with _Recogniser() as recognise:
        for number, page in enumerate(_frames(data), 1):
            if number > MAX_SCANS:
                raise UnreadableError("bomb", "pages")
            builder.put("ocr", recognise(page.tobytes(), page.width, page.height, 1))
            builder.end_page()
    if not builder.blocks:
        raise UnreadableError("empty_text", "blank scan")
    builder.recognised += sorted({block.page for block in builder.blocks})
    return builder.reading(media_type)


def read_pages(data: bytes, pages: list[int]) -> dict[int, str]:
    """Recognise pages of a PDF (numbers from 1); gives the text of each that has one. Raises as `read_image` does."""
    if len(pages) > MAX_SCANS:
        raise UnreadableError("bomb", "pages")
    document, found = pdf.open_file(data), {}
    with _Recogniser() as recognise:
        for number in pages:
            try:
                page = document[number - 1]
                width, height = page.get_size()
                scale = min(RESOLUTION / 72, (MAX_PIXELS / max(width * height, 1)) ** 0.5)
                bitmap = page.render(scale=scale, grayscale=True, may_draw_forms=False)
            except pypdfium2.PdfiumError:
                continue
            text = recognise(bytes(bitmap.buffer), bitmap.width, bitmap.height, 1, bitmap.stride)
            bitmap.close()
            page.close()
            if text:
                found[number] = text
    return found


def _frames(data: bytes) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")) as image:
            for frame in ImageSequence.Iterator(image):
                if frame.width * frame.height > MAX_PIXELS:
                    raise UnreadableError("bomb", "pixels")
                yield frame.convert("L")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableError("bomb", "pixels") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError):
        raise UnreadableError("broken_file", "image") from None


class _Recogniser:
    """One Tesseract for one file."""

    def __enter__(self) -> "_Recogniser":
        found = engine()
        if found is None:
            raise UnreadableError("empty_text", "no ocr")
        self._library, folder, languages = found
        self._api = ctypes.c_void_p(self._library.TessBaseAPICreate())
        if self._library.TessBaseAPIInit3(self._api, folder.encode(), languages.encode()) != 0:
            raise UnreadableError("empty_text", "no ocr")
        return self

    def __exit__(self, *_: object) -> None:
        self._library.TessBaseAPIDelete(self._api)

    def __call__(self, pixels: bytes, width: int, height: int, depth: int, stride: int = 0) -> str:
        """Give the text of an image of grey pixels, paragraphs parted by an empty line; "" where there is none."""
        self._library.TessBaseAPISetImage(self._api, pixels, width, height, depth, stride or width * depth)
        self._library.TessBaseAPISetSourceResolution(self._api, RESOLUTION)
        raw = self._library.TessBaseAPIGetUTF8Text(self._api)
        if not raw:
            return ""
        text = ctypes.cast(raw, ctypes.c_char_p).value or b""
        self._library.TessDeleteText(ctypes.c_void_p(raw))
        return pdf.clean(text.decode("utf-8", "replace").replace("\f", ""))
