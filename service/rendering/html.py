"""html: a report as a page that stands alone, or as a page of the portal.

Rules kept here: no script, no style attribute, no foreign host. The file to keep carries its style inside and a policy
of its own that allows that style alone; the portal's page links the same style sheet from the portal.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from service.rendering import charts
from service.rendering.kinds import sheet

TEMPLATES: Final = Path(__file__).parent / "templates"
LONGEST: Final = 24
"""Characters; a longer word, such as a digest, may break anywhere."""
SHORT: Final = 16
"""Characters; an id up to that, such as de-frankfurt, is not broken at its hyphen."""
_environment: Final = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_environment.tests["long"] = lambda cell: (
    isinstance(cell, str) and any(len(word) > LONGEST for word in re.split(r"[\s-]", cell))
)
_environment.tests["slug"] = lambda cell: isinstance(cell, str) and len(cell) <= SHORT and " " not in cell
_environment.filters["figure"] = lambda cell: f"{cell:,}" if isinstance(cell, int) else cell


def style() -> str:
    """Give the style sheet of reports, for the portal to serve."""
    return (TEMPLATES / "report.css").read_text(encoding="utf-8")


def page(bundle: Mapping[str, Any], *, stylesheet: str | None = None) -> bytes:
    """Draw a signed report as an HTML page, UTF-8.

    Without `stylesheet` the page carries its style and stands alone; with it, the page links that path instead.
    """
    css = style()
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    text = _environment.get_template("report.html").render(
        sheet=sheet(bundle),
        lang="en",
        chart=_chart(bundle["report"]),
        css=Markup(css) if stylesheet is None else None,  # noqa: S704 - our own file
        csp=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'",
        stylesheet=stylesheet,
    )
    return text.encode()


def _chart(report: Mapping[str, Any]) -> Markup:
    """Draw where documents lie, in reports that say so."""
    if "placement" not in report:
        return Markup()
    return Markup(charts.flow(report))  # noqa: S704 - made of our own shapes, its texts escaped


def fragment(bundle: Mapping[str, Any]) -> str:
    """Draw the body of a signed report, to stand inside a page of the portal."""
    return _environment.get_template("report_body.html").render(
        sheet=sheet(bundle),
        chart=_chart(bundle["report"]),
    )
