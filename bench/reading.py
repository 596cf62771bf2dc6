"""What reading a PDF of 2,000 pages costs: memory of the service and of the child, and time, beside one of 200 pages.

Run: `python -m bench.reading`
"""

import asyncio
import io
import resource
import time
from pathlib import Path

from reportlab.pdfgen import canvas

from ingestion import sandbox


def a_pdf(pages: int) -> bytes:
    out = io.BytesIO()
    sheet = canvas.Canvas(out, pageCompression=1)
    for page in range(pages):
        for line in range(45):
            sheet.drawString(
                60, 780 - 16 * line, f"Page {page}, line {line}: the supplier keeps records for {line} years."
            )
        sheet.showPage()
    sheet.save()
    return out.getvalue()


def resident() -> int:
    """Give the bytes this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def main() -> None:
    sandbox.warm()
    await sandbox.read_file(a_pdf(1))
    print(f"{'pages':>6} {'MB':>6} {'s':>6} {'service +MB':>12} {'pages/s':>8}")
    for pages in (200, 2_000):
        data = a_pdf(pages)
        before, start = resident(), time.perf_counter()
        reading = await sandbox.read_file(data)
        took, grown = time.perf_counter() - start, resident() - before
        assert len(reading.pages) == pages
        print(f"{pages:>6} {len(data) / 1e6:>6.1f} {took:>6.2f} {grown / 1e6:>12.1f} {pages / took:>8.0f}")
        del reading
    print(f"the child may add {sandbox.Limits().memory / 1e6:.0f} MB and eight times the file; past it, parse_memory")


asyncio.run(main())
