"""pdf: a report as PDF/A-3a and PDF/UA-1, with the signed evidence attached.

Rules kept here: the template is a file and holds no data; data goes in as JSON and stays text; no package, no system
font and no file is read; a warning of the typesetter is an error, so a missing font does not pass. A letter that the
fonts do not have is shown as `?` rather than failing the report: the attached evidence holds it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import typst

from residency.receipt import canonical
from service.errors import ServiceError
from service.rendering import charts
from service.rendering.kinds import sheet

TEMPLATE: Final = Path(__file__).with_name("report.typ")
STANDARDS: Final = ("a-3a", "ua-1")
FONT: Final = "Libertinus Serif"
"""Comes with the typesetter (SIL OFL); it has Latin, Greek and Cyrillic letters."""
UNSHOWN: Final = "could not be displayed"
"""How the typesetter says that no font has a letter."""
LETTERS: Final = (
    re.compile(r"(?!)"),
    re.compile(r"[^\n -~\u00a0-\u017f\u0386-\u03ce\u0401-\u045f\u200b\u2010-\u2026\u20ac]"),
    re.compile(r"[^\n -~\u200b]"),
)
"""What is replaced: at first nothing; where that fails, all but common letters; at last all but ASCII."""


class TypesettingError(ServiceError):
    """The typesetter failed or warned; its message names the place in our template."""


def document(bundle: Mapping[str, Any]) -> bytes:
    """Draw a signed report as PDF; the same report gives the same bytes.

    Raises `TypesettingError` when the typesetter fails or warns.
    """
    generated = datetime.fromisoformat(bundle["report"]["head"]["generated"])
    laid_out = asdict(sheet(bundle))
    inputs = {
        "evidence": canonical(bundle).decode(),
        "date": json.dumps([generated.year, generated.month, generated.day]),
    }
    for letters in LETTERS:
        inputs["sheet"] = json.dumps(_lettered(laid_out, letters), ensure_ascii=False)
        inputs["chart"] = letters.sub("?", charts.flow(bundle["report"], font=FONT))
        try:
            return _typeset(inputs, int(generated.timestamp()))
        except typst.TypstError as error:
            if UNSHOWN not in str(error):
                raise TypesettingError("the report could not be typeset", hint=str(error)[:300]) from error
    raise TypesettingError("the report could not be typeset", hint="the fonts lack a letter of the template")


def _lettered(value: Any, letters: re.Pattern[str]) -> Any:
    """Put `?` for every letter to be replaced, in all texts of a laid-out report."""
    match value:
        case str():
            return letters.sub("?", value)
        case dict():
            return {name: _lettered(inner, letters) for name, inner in value.items()}
        case list() | tuple():
            return [_lettered(inner, letters) for inner in value]
        case _:
            return value


def _typeset(inputs: dict[str, str], timestamp: int) -> bytes:
    data, warnings = typst.compile_with_warnings(
        TEMPLATE.read_bytes(),
        format="pdf",
        pdf_standards=list(STANDARDS),
        ignore_system_fonts=True,
        sys_inputs=inputs,
        timestamp=timestamp,
    )
    if warnings:
        raise TypesettingError("the report could not be typeset", hint="; ".join(map(str, warnings))[:300])
    return bytes(data)
