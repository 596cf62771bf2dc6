"""Spreadsheets and CSV: a page per sheet, a line per row, each under its sheet's name and its table's header row.

XLSX, XLSB, XLS and ODS are read by calamine: values as they were last computed; no formula, macro or link runs. Cells
carry their values without their formats: 19 % is 0.19. Rules kept here: empty rows part tables; empty columns are left
out at the edges alone, so that a cell stays under its header.
"""

import csv
import datetime
import io
from collections.abc import Iterable
from itertools import islice
from typing import Final

import python_calamine as calamine

from ingestion.readers import Reading, TextBuilder, UnreadableError, package, tidy
from ingestion.readers.kinds import CSV, XLS

SAMPLE: Final = 16 * 1024
"""Code points of the first line that a CSV's separator is told from."""
SEPARATORS: Final = ",;\t|"
WIDEST: Final = 1_000
"""Cells of a row that are read."""

csv.field_size_limit(1 << 20)


def read(data: bytes, media_type: str) -> Reading:
    """Read every sheet, hidden ones too. Raises `UnreadableError`: `encrypted_file`, `broken_file`, `empty_text`."""
    if media_type != XLS:
        package.measured(data).close()
    builder = TextBuilder()
    try:
        book = calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        for name in book.sheet_names:
            sheet = book.get_sheet_by_name(name)
            builder.put("heading", tidy(name), tidy(name))
            _table(builder, sheet.iter_rows(), tidy(name))
            builder.end_page()
    except calamine.PasswordError:
        raise UnreadableError("encrypted_file", "office") from None
    except (calamine.CalamineError, OSError, ValueError):
        raise UnreadableError("broken_file", "sheet") from None
    if all(block.kind == "heading" for block in builder.blocks):
        raise UnreadableError("empty_text", "blank")
    return builder.reading(media_type)


def read_csv(text: str) -> Reading:
    """Read comma, semicolon or tab separated values; each record becomes one line."""
    builder = TextBuilder()
    text = text.removeprefix("\ufeff")
    first = text.lstrip()[:SAMPLE].partition("\n")[0]
    separator = max(SEPARATORS, key=first.count)
    try:
        _table(builder, csv.reader(io.StringIO(text, newline=""), delimiter=separator), "")
    except csv.Error:
        raise UnreadableError("broken_file", "sheet") from None
    return builder.reading(CSV)


def _table(builder: TextBuilder, rows: Iterable[Iterable[object]], above: str) -> None:
    header = ""
    for row in rows:
        cells = [tidy(_written(cell)).replace(" | ", " / ") for cell in islice(row, WIDEST)]
        while cells and not cells[-1]:
            cells.pop()
        filled = sum(map(bool, cells))
        if not filled:
            header = ""
        elif not header and filled == 1:  # a title or a remark above a table
            builder.put("text", "".join(cells), above)
        else:
            header = builder.row(cells, [above], header)


def _written(cell: object) -> str:
    """Write a value as a reader would look for it."""
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    if isinstance(cell, datetime.datetime):
        return cell.date().isoformat() if cell.time() == datetime.time() else cell.isoformat(" ", "seconds")
    return str(cell)
