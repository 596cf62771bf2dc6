"""sheets: a report as CSV and as XLSX.

Rules kept here: no cell becomes a formula or a link, whatever it holds (OWASP, CSV injection): texts that begin with
`= + - @`, a tab or a carriage return get a leading apostrophe in CSV, and are stored as text in XLSX. The same report
gives the same bytes.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import xlsxwriter

from service.rendering.kinds import sheet
from service.rendering.tables import Cell, Table

RISKY: Final = ("=", "+", "-", "@", "\t", "\r")
WIDEST: Final = 60
"""Characters; wider columns wrap."""


def safe(cell: Cell) -> Cell:
    """Give a cell that no spreadsheet runs as a formula; integers stay as they are."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(RISKY) else cell


def _tables(bundle: Mapping[str, Any]) -> Iterable[Table]:
    """Give all tables, the head and the numbers first, evidence and limits last."""
    found = sheet(bundle)
    yield Table("report", "Report", ("Fact", "Value"), (*found.head, ("Verdict", found.sentence)), "")
    yield Table("numbers", "Numbers", ("Number", "Value"), found.numbers, "")
    yield from found.tables
    yield Table("limits", "Coverage and unknowns", ("Limit",), tuple((line,) for line in found.limits), "")
    yield Table("evidence", "Evidence", ("Fact", "Value"), found.evidence, "")
    yield Table("verify", "How to verify", ("Step",), tuple((line,) for line in found.verify), "")


def csv_file(bundle: Mapping[str, Any]) -> bytes:
    """Draw a signed report as CSV, UTF-8 with CRLF (RFC 4180).

    Each table stands below its heads; the first column names the table, so the file can be filtered.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    for table in _tables(bundle):
        writer.writerow(("table", *table.columns))
        writer.writerows((table.id, *map(safe, row)) for row in table.rows or ((table.nil,),))
        writer.writerow(())
    return out.getvalue().encode()


def workbook(bundle: Mapping[str, Any]) -> bytes:
    """Draw a signed report as XLSX: a sheet "list" with head and numbers, and one sheet for each table."""
    out = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    book = xlsxwriter.Workbook(out, options)
    generated = datetime.fromisoformat(bundle["report"]["head"]["generated"]).replace(tzinfo=None)
    book.set_properties({"title": sheet(bundle).title, "created": generated})
    bold = book.add_format({"bold": True, "bottom": 1, "text_wrap": True, "valign": "bottom"})
    text = book.add_format({"text_wrap": True, "valign": "top"})
    number = book.add_format({"num_format": "#,##0", "valign": "top"})
    report, numbers, *rest = _tables(bundle)
    for name, group in [("list", [report, numbers]), *((table.id, [table]) for table in rest)]:
        page = book.add_worksheet(name)
        at = 0
        for table in group:
            rows = table.rows or ((table.nil,),)
            page.write_row(at, 0, table.columns, bold)
            for row in rows:
                at += 1
                for column, cell in enumerate(row):
                    if isinstance(cell, int):
                        page.write_number(at, column, cell, number)
                    else:
                        page.write_string(at, column, cell, text)
            at += 2
        for column in range(max(len(table.columns) for table in group)):
            cells = [str(row[column]) for table in group for row in (table.columns, *table.rows) if column < len(row)]
            page.set_column(column, column, min(WIDEST, max(map(len, cells)) + 2))
        page.freeze_panes(1, 0)
    book.close()
    return out.getvalue()
