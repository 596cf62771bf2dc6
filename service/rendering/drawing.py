"""drawing: a signed report as a file of the format that somebody asks for.

Rules kept here: every format is drawn from the signed master, so that no two of them differ in a number; which kinds
come in which formats is said here alone.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from residency import oscal
from residency.receipt import canonical
from service.errors import InvalidRequestError
from service.rendering import html, pdf, sheets

KINDS: Final = ("residency", "register", "transfers", "recipients", "oscal", "certificate")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A report as a file."""

    data: bytes
    media_type: str
    name: str


def _json(bundle: Mapping[str, Any]) -> bytes:
    return canonical(bundle) + b"\n"


FORMATS: Final[dict[str, tuple[str, Callable[[Mapping[str, Any]], bytes]]]] = {
    "json": ("application/json", _json),
    "html": ("text/html", html.page),
    "pdf": ("application/pdf", pdf.document),
    "csv": ("text/csv", sheets.csv_file),
    "xlsx": ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", sheets.workbook),
}
"""Media type and drawing of each format."""


async def render(
    bundle: Mapping[str, Any],
    format: str,  # noqa: A002 - the word of the contract
    *,
    kind: str = "residency",
) -> Rendered:
    """Draw a signed report as `json`, `html`, `pdf`, `csv` or `xlsx`; raises `InvalidRequestError` for others."""
    formats_of(kind, format)
    media_type, draw = FORMATS[format]
    if kind == "oscal":
        draw = _oscal
    head = bundle["report"]["head"]
    days = "-to-".join(head["period"][end][:10] for end in ("from", "to"))
    data = await asyncio.to_thread(draw, bundle)
    return Rendered(data, media_type, f"{kind}-{head['tenant']}-{days}.{format}")


def _oscal(bundle: Mapping[str, Any]) -> bytes:
    return canonical(oscal.results(bundle)) + b"\n"


def formats_of(kind: str, form: str) -> None:
    """Raise `InvalidRequestError` unless reports of this kind come in this form."""
    if kind not in KINDS:
        raise InvalidRequestError("no such kind of a report", param="kind", hint="one of " + ", ".join(KINDS))
    known = {"residency": set(FORMATS), "oscal": {"json"}, "certificate": {"json"}}.get(kind, set(FORMATS) - {"pdf"})
    if form not in known:
        raise InvalidRequestError(
            "no such format of a report", param="format", hint="one of " + ", ".join(sorted(known))
        )
