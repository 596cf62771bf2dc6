"""charts: pictures of a report as SVG, made of shapes and text alone; each has its table as the text alternative.

Rules kept here: no script, no style attribute (the portal's policy forbids them), no foreign host; colours have a
contrast of at least 3:1 on white and never carry meaning alone; every shape's number is written beside it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

from service.rendering.tables import origin_name, zone_name

PALETTE: Final = ("#1d5b8f", "#0f766e", "#8a5a00", "#6b4fa0", "#a2385b", "#55642a")
WIDTH: Final = 760
LEFT, RIGHT = 200, 500
"""Where the bands begin and end."""
GAP: Final = 16
LEAST: Final = 30
"""Height of the smallest box, so that its text fits."""


def flow(report: Mapping[str, Any], *, font: str = "system-ui, sans-serif") -> str:
    """Draw where documents lie: jurisdictions on the left, Sites on the right, bands as thick as their documents.

    Sites that hold shards and no document are drawn empty, with their 0.
    """
    rows = [row for row in report["placement"] if row["documents"]]
    total = sum(row["documents"] for row in rows)
    held = {row["site"] for row in rows}
    sites = [
        (site["id"], site["zone"])
        for site in report["sites"]
        if site["id"] in held or "shard" in site["holds"] or "vault" in site["holds"]
    ]
    known = {site for site, _ in sites}
    sites += sorted({(row["site"], row["zone"]) for row in rows if row["site"] not in known})
    origins = sorted({row["jurisdiction"] for row in rows})
    scale = 170 / total if total else 0.0

    def boxes(names: Sequence[str], key: str) -> dict[str, tuple[float, float, int]]:
        """Place a column: top, height and documents of each box."""
        placed, top = {}, 8.0
        for name in names:
            count = sum(row["documents"] for row in rows if row[key] == name)
            height = max(LEAST, count * scale)
            placed[name] = (top, height, count)
            top += height + GAP
        return placed

    left, right = boxes(origins, "jurisdiction"), boxes([site for site, _ in sites], "site")
    height = max([top + size for top, size, _ in [*left.values(), *right.values()]], default=LEAST) + 8
    colours = {name: PALETTE[no % len(PALETTE)] for no, name in enumerate(origins)}
    parts: list[str] = []
    # 1. Bands, each from the next free stretch of its left box to the next free stretch of its right box.
    used_left = {name: top + (size - count * scale) / 2 for name, (top, size, count) in left.items()}
    used_right = {name: top + (size - count * scale) / 2 for name, (top, size, count) in right.items()}
    for row in sorted(rows, key=lambda r: (origins.index(r["jurisdiction"]), list(right).index(r["site"]))):
        thick = row["documents"] * scale
        a, b = used_left[row["jurisdiction"]], used_right[row["site"]]
        used_left[row["jurisdiction"]] += thick
        used_right[row["site"]] += thick
        middle = (LEFT + RIGHT) / 2
        parts.append(
            f'<path d="M{LEFT} {a:.1f}C{middle} {a:.1f} {middle} {b:.1f} {RIGHT} {b:.1f}V{b + thick:.1f}'
            f'C{middle} {b + thick:.1f} {middle} {a + thick:.1f} {LEFT} {a + thick:.1f}Z" '
            f'fill="{colours[row["jurisdiction"]]}" fill-opacity="0.32"/>'
        )
    # 2. Boxes and their words.
    for name, (top, size, count) in left.items():
        parts.append(_box(LEFT - 10, top, size, colours[name], empty=False))
        parts.append(_words(LEFT - 22, top + size / 2, "end", f"law of {origin_name(name)}", count))
    for name, zone in sites:
        top, size, count = right[name]
        parts.append(_box(RIGHT, top, size, "#33475b", empty=not count))
        parts.append(_words(RIGHT + 22, top + size / 2, "start", f"{name}, {zone_name(zone)}", count))
    said = "Documents by jurisdiction and the Site where they lie; the same numbers stand in the table below"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" role="img" aria-label={quoteattr(said)} font-family={quoteattr(font)} '
        f'font-size="13">{"".join(parts)}</svg>'
    )


def _box(x: float, top: float, height: float, colour: str, *, empty: bool) -> str:
    look = f'fill="none" stroke="{colour}" stroke-dasharray="3 3"' if empty else f'fill="{colour}"'
    return f'<rect x="{x}" y="{top:.1f}" width="10" height="{height:.1f}" {look}/>'


def _words(x: float, y: float, anchor: str, name: str, count: int) -> str:
    documents = f"{count:,} document{'' if count == 1 else 's'}"
    return (
        f'<text x="{x}" y="{y - 3:.1f}" text-anchor="{anchor}" fill="#1b2733">{escape(name)}</text>'
        f'<text x="{x}" y="{y + 13:.1f}" text-anchor="{anchor}" fill="#4a5a6a" font-size="12">{documents}</text>'
    )
