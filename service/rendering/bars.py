"""bars: figures of an evaluation as SVG, a group of bars for each language; the table beside it says the same.

Rules kept here: those of `charts.py`: no script, no style attribute, no foreign host, every number written beside its
shape, colours never the only sign.
"""

from collections.abc import Mapping
from typing import Any, Final
from xml.sax.saxutils import escape

from service.rendering.charts import PALETTE

SHOWN: Final = (
    ("hit@5", "right passage among 5"),
    ("mrr@10", "MRR@10"),
    ("right", "right answers"),
    ("wrong_answers", "wrong answers"),
    ("wrong_refusals", "wrong refusals"),
    ("abstained_rightly", "abstained rightly"),
)
LEFT: Final = 170
FULL: Final = 480
ROW: Final = 22


def bars(summary: Mapping[str, Mapping[str, Any]], title: str, *, font: str = "system-ui, sans-serif") -> str:
    """Draw shares from 0 to 1; one that is of nothing is left out and said so."""
    parts: list[str] = []
    top = 40
    for group, figures in summary.items():
        parts.append(
            f'<text x="10" y="{top + 14}" font-weight="bold">{escape(group)}'
            f" ({int(figures['questions'])} questions)</text>"
        )
        top += ROW
        for at, (key, words) in enumerate(SHOWN):
            value = figures.get(key)
            parts.append(f'<text x="{LEFT - 8}" y="{top + 13}" text-anchor="end">{escape(words)}</text>')
            width = FULL * value if value is not None else 0
            parts.append(f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="{ROW - 6}" fill="{PALETTE[at]}"/>')
            said = "none" if value is None else f"{value:.3f}"
            parts.append(f'<text x="{LEFT + width + 6:.1f}" y="{top + 13}">{said}</text>')
            top += ROW
        top += 10
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + FULL + 70} {top}" width="{LEFT + FULL + 70}" '
        f'height="{top}" role="img" font-family="{escape(font)}" font-size="12">'
    )
    named = f"<title>{escape(title)}</title>"
    shown = (
        f'<rect width="100%" height="100%" fill="#ffffff"/><text x="10" y="22" font-size="15">{escape(title)}</text>'
    )
    return head + named + shown + "".join(parts) + "</svg>\n"
