"""pdf: a report as PDF/A-3a and PDF/UA-1, with the signed evidence attached.

Rules kept here: the template is a file and holds no data; data goes in as JSON and stays text; no package, no system
font and no file is read; a warning of the typesetter is an error, so a missing font or letter does not pass.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import typst

from residency.receipt import canonical
from service.errors import ServiceError
from service.rendering import charts
from service.rendering.tables import sheet

TEMPLATE: Final = Path(__file__).with_name("report.typ")
STANDARDS: Final = ("a-3a", "ua-1")
FONT: Final = "Libertinus Serif"
"""Comes with the typesetter (SIL OFL)."""
ATTACHMENT: Final = "evidence.json"


class TypesettingError(ServiceError):
    """The typesetter warned; its message names the place in our template."""


def document(bundle: Mapping[str, Any]) -> bytes:
    """Draw a signed report as PDF; the same report gives the same bytes.

    Raises `TypesettingError` when the typesetter warns.
    """
    generated = datetime.fromisoformat(bundle["report"]["head"]["generated"])
    inputs = {
        "sheet": json.dumps(asdict(sheet(bundle)), ensure_ascii=False),
        "evidence": canonical(bundle).decode(),
        "chart": charts.flow(bundle["report"], font=FONT),
        "date": json.dumps([generated.year, generated.month, generated.day]),
    }
    data, warnings = typst.compile_with_warnings(
        TEMPLATE.read_bytes(),
        format="pdf",
        pdf_standards=list(STANDARDS),
        ignore_system_fonts=True,
        sys_inputs=inputs,
        timestamp=int(generated.timestamp()),
    )
    if warnings:
        raise TypesettingError("; ".join(str(warning) for warning in warnings))
    return bytes(data)
