"""Files of every format that is read, each made by hand or by its own library, for tests of the readers."""

import io
import struct
import zipfile
from email.message import EmailMessage
from typing import Any

import pptx
import xlsxwriter
from pptx.util import Inches

ODF = "urn:oasis:names:tc:opendocument:xmlns"
MIME = "application/vnd.oasis.opendocument."


def zipped(parts: dict[str, str | bytes], *, first: str = "") -> bytes:
    """A ZIP; `first` is its `mimetype` entry, stored at the front as OpenDocument and EPUB want it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        if first:
            archive.writestr(zipfile.ZipInfo("mimetype"), first)
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


def presentation(*slides: tuple[str, str, str], table: list[list[str]] | None = None) -> bytes:
    """A PPTX of slides with title, text and speaker's note; the table stands on the last."""
    show = pptx.Presentation()
    for title, body, note in slides:
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text, slide.placeholders[1].text = title, body
        if note:
            slide.notes_slide.notes_text_frame.text = note
    if table:
        shape = show.slides[-1].shapes.add_table(len(table), len(table[0]), *map(Inches, (1, 4, 4, 1)))
        for at, row in enumerate(table):
            for column, text in enumerate(row):
                shape.table.cell(at, column).text = text
    out = io.BytesIO()
    show.save(out)
    return out.getvalue()


def workbook(sheets: dict[str, list[list[Any]]], **options: Any) -> bytes:
    out = io.BytesIO()
    with xlsxwriter.Workbook(out, {"in_memory": True, "default_date_format": "yyyy-mm-dd", **options}) as book:
        for name, rows in sheets.items():
            sheet = book.add_worksheet(name)
            for at, row in enumerate(rows):
                sheet.write_row(at, 0, row)
    return out.getvalue()


def opendocument(kind: str, body: str, *, manifest: str = "<manifest/>", prolog: str = "") -> bytes:
    """An OpenDocument file of a kind (`text`, `spreadsheet`, `presentation`)."""
    spaces = " ".join(
        f'xmlns:{short}="{ODF}:{name}:1.0"'
        for short, name in (("office", "office"), ("text", "text"), ("table", "table"), ("draw", "drawing"),
                            ("presentation", "presentation"))
    )  # fmt: skip
    content = (
        f'<?xml version="1.0"?>{prolog}<office:document-content {spaces}><office:body><office:{kind}>{body}'
        f"</office:{kind}></office:body></office:document-content>"
    )
    return zipped({"content.xml": content, "META-INF/manifest.xml": manifest}, first=MIME + kind)


def book(*chapters: str, extra: dict[str, str | bytes] | None = None) -> bytes:
    """An EPUB whose spine holds these pages of HTML."""
    container = '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    container += '<rootfile full-path="O/b.opf"/></rootfiles></container>'
    items = "".join(f'<item id="c{n}" href="c%20{n}.xhtml"/>' for n in range(len(chapters)))
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
    opf = f'<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}</manifest><spine>{spine}</spine></package>'
    pages: dict[str, str | bytes] = {f"O/c {n}.xhtml": text for n, text in enumerate(chapters)}
    parts = {"META-INF/container.xml": container, "O/b.opf": opf} | pages | (extra or {})
    return zipped(parts, first="application/epub+zip")


def mail(subject: str, text: str, *, html: str = "", attached: dict[str, bytes] | None = None) -> bytes:
    message = EmailMessage()
    message["From"] = "Ada Example <ada@northwind.example>"
    message["To"] = "Board <board@northwind.example>"
    message["Date"] = "Mon, 02 Mar 2026 09:30:00 +0100"
    message["Subject"] = subject
    if text:
        message.set_content(text)
        if html:
            message.add_alternative(html, subtype="html")
    else:
        message.set_content(html, subtype="html")
    for name, content in (attached or {}).items():
        message.add_attachment(content, maintype="application", subtype="octet-stream", filename=name)
    return message.as_bytes()


def outlook(properties: dict[str, str], attached: dict[str, bytes] | None = None) -> bytes:
    """An MSG file: text properties by number ([MS-OXPROPS]) and attachments by name."""
    streams: dict[tuple[str, ...], bytes] = {("__properties_version1.0",): bytes(32)}
    for number, text in properties.items():
        streams[(f"__substg1.0_{number}001F",)] = text.encode("utf-16-le")
    for at, (name, content) in enumerate((attached or {}).items()):
        storage = f"__attach_version1.0_#{at:08X}"
        streams[(storage, "__substg1.0_3707001F")] = name.encode("utf-16-le")
        streams[(storage, "__substg1.0_37010102")] = content
    return compound(streams)


def compound(streams: dict[tuple[str, ...], bytes]) -> bytes:
    """An OLE compound file of these streams, by their path ([MS-CFB] version 3, sectors of 512 bytes)."""
    free, end = 0xFFFFFFFF, 0xFFFFFFFE
    tree: dict[tuple[str, ...], list[tuple[str, ...]]] = {(): []}
    for path in streams:
        for depth in range(len(path)):
            below = tree.setdefault(path[:depth], [])
            if path[: depth + 1] not in below:
                below.append(path[: depth + 1])
    order: list[tuple[str, ...]] = [()]
    for path in order:
        order += sorted(tree.get(path, []), key=lambda each: (len(each[-1]), each[-1].upper()))
    mini, minifat, big, fat = bytearray(), [], bytearray(), []

    def chain(table: list[int], count: int, size: int, store: bytearray, data: bytes) -> int:
        start = len(table)
        table += [*range(start + 1, start + count), end]
        store += data.ljust(count * size, b"\0")
        return start

    starts: dict[tuple[str, ...], int] = {}
    for path in order[1:]:
        data = streams.get(path)
        if not data:
            starts[path] = end if data is not None else 0
        elif len(data) < 4096:
            starts[path] = chain(minifat, -(-len(data) // 64), 64, mini, data)
        else:
            starts[path] = chain(fat, -(-len(data) // 512), 512, big, data)
    root = chain(fat, max(1, -(-len(mini) // 512)), 512, big, bytes(mini))
    packed = struct.pack(f"<{len(minifat)}I", *minifat)
    padded = packed + b"\xff" * (-len(packed) % 512 or (512 if not packed else 0))
    table_of_mini = chain(fat, len(padded) // 512, 512, big, padded)
    entries = bytearray()
    for path in order:
        below = tree.get(path, [])
        siblings = tree[path[:-1]] if path else []
        ordered = [each for each in order if each in siblings]
        after = ordered[ordered.index(path) + 1 :] if path else []
        name = (path[-1] if path else "Root Entry").encode("utf-16-le") + b"\0\0"
        kind = 5 if not path else 2 if path in streams else 1
        first = next((order.index(each) for each in order if each in below), free)
        size = len(mini) if not path else len(streams.get(path, b""))
        entries += struct.pack("<64sHBBIII16sIQQIQ", name, len(name), kind, 1, free,
                               order.index(after[0]) if after else free, first, b"", 0, 0, 0,
                               root if not path else starts[path], size)  # fmt: skip
    while len(entries) % 512:
        entries += struct.pack("<64sHBBIII16sIQQIQ", b"", 0, 0, 0, free, free, free, b"", 0, 0, 0, 0, 0)
    directory = chain(fat, len(entries) // 512, 512, big, bytes(entries))
    sectors = next(n for n in range(1, 109) if (len(fat) + n) * 4 <= n * 512)
    places = range(len(fat), len(fat) + sectors)
    fat += [0xFFFFFFFD] * sectors
    header = struct.pack("<8s16sHHHHH6sIIIIIIIII", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"", 0x3E, 3, 0xFFFE, 9, 6, b"",
                         0, sectors, directory, 0, 4096, table_of_mini, len(padded) // 512, end, 0)  # fmt: skip
    header += struct.pack("<109I", *places, *[free] * (109 - sectors))
    return header + bytes(big) + struct.pack(f"<{len(fat)}I", *fat).ljust(sectors * 512, b"\xff")
