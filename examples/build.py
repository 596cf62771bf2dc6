"""Make the binary examples again: PDF from Typst sources, DOCX from Markdown sources.

`python examples/build.py` writes `examples/documents/*.pdf` and `*.docx`; the other formats are their own source.
The same sources give the same bytes: fixed dates, fonts from inside the typst package, fixed times in the ZIP.
Nothing is fetched, and a warning of Typst (a missing font, say) stops the build.
"""

import io
import re
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import typst
from docx import Document
from docx.document import Document as DocumentType
from docx.enum.text import WD_TAB_ALIGNMENT
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.shared import Cm, Pt, RGBColor
from docx.text.paragraph import Paragraph
from markdown_it import MarkdownIt
from markdown_it.token import Token

HERE = Path(__file__).parent
SOURCES = HERE / "sources"
DOCUMENTS = HERE / "documents"
MADE = datetime(2026, 1, 1, tzinfo=UTC)
ACCENT = RGBColor(0x1D, 0x4E, 0x6B)
PAGE_WORDS = {"en": ("Page", "of"), "de": ("Seite", "von"), "fr": ("Page", "sur")}


def pdf(source: Path) -> bytes:
    """Compile one Typst source. Raises `ValueError` on any warning, `typst.TypstError` on an error."""
    made, warnings = typst.compile_with_warnings(
        str(source), root=str(SOURCES), format="pdf", ignore_system_fonts=True, timestamp=int(MADE.timestamp())
    )
    if warnings:
        raise ValueError(f"{source.name}: {'; '.join(str(warning.message) for warning in warnings)}")
    return bytes(made)


def docx(source: Path) -> tuple[str, bytes]:
    """Build one DOCX from a Markdown source with a head of `key: value` lines; gives its file name and bytes."""
    _, head, body = source.read_text("utf-8").split("---\n", 2)
    facts = dict(line.split(": ", 1) for line in head.strip().splitlines())
    document = Document()
    _style(document)
    for spoken in document.styles.element.iter(qn("w:lang")):
        spoken.set(qn("w:val"), facts["language"])
    properties = document.core_properties
    properties.title, properties.author, properties.language = facts["title"], facts["organisation"], facts["language"]
    properties.created = properties.modified = MADE.replace(tzinfo=None)
    properties.comments, properties.last_modified_by = "A plainly fictional example", facts["organisation"]
    _head_and_foot(document, facts)
    document.add_paragraph(facts["title"], style="Title")
    document.add_paragraph(facts["subtitle"], style="Subtitle")
    _blocks(document, MarkdownIt("commonmark").enable("table").parse(body))
    raw = io.BytesIO()
    document.save(raw)
    return facts["file"], _timeless(raw.getvalue())


def _style(document: DocumentType) -> None:
    """Set paper, fonts and colours; the fonts are common ones, so that any word processor shows the same."""
    section = document.sections[0]
    section.page_width, section.page_height = Cm(21), Cm(29.7)
    section.left_margin = section.right_margin = Cm(2.6)
    section.top_margin = section.bottom_margin = Cm(2.6)
    for name, size in (("Normal", 11), ("Title", 24), ("Subtitle", 13), ("Heading 2", 14)):
        style = document.styles[name]
        style.font.name, style.font.size = "Georgia", Pt(size)
        fonts = style.element.get_or_add_rPr().get_or_add_rFonts()
        for theme in ("asciiTheme", "hAnsiTheme", "eastAsiaTheme", "cstheme"):
            fonts.attrib.pop(qn(f"w:{theme}"), None)
        if name != "Normal":
            style.font.color.rgb = ACCENT
    document.styles["Normal"].paragraph_format.space_after = Pt(7)
    document.styles["Normal"].paragraph_format.line_spacing = 1.15
    document.styles["Heading 2"].paragraph_format.space_before = Pt(16)
    document.styles["Heading 2"].paragraph_format.space_after = Pt(5)


def _head_and_foot(document: DocumentType, facts: dict[str, str]) -> None:
    """Print organisation and reference above, date and page number below."""
    section = document.sections[0]
    head, foot = section.header.paragraphs[0], section.footer.paragraphs[0]
    for paragraph, left in ((head, facts["organisation"]), (foot, facts["date"])):
        if paragraph.style is not None:  # whose own stop in the middle would catch the tab
            paragraph.style.paragraph_format.tab_stops.clear_all()
        paragraph.paragraph_format.tab_stops.add_tab_stop(Cm(15.8), WD_TAB_ALIGNMENT.RIGHT)
        paragraph.add_run(f"{left}\t").font.size = Pt(9)
    head.add_run(facts["reference"]).font.size = Pt(9)
    page, of = PAGE_WORDS[facts["language"]]
    for word, code in ((f"{page} ", "PAGE"), (f" {of} ", "NUMPAGES")):
        foot.add_run(word).font.size = Pt(9)
        _field(foot, code)


def _field(paragraph: Paragraph, code: str) -> None:
    """Add a field that the word processor fills in, such as PAGE."""
    run = paragraph.add_run()
    run.font.size = Pt(9)
    for kind in ("begin", None, "end"):
        if kind is None:
            part = OxmlElement("w:instrText")
            part.text = code
        else:
            part = OxmlElement("w:fldChar")
            part.set(qn("w:fldCharType"), kind)
        run._r.append(part)  # noqa: SLF001 — python-docx has no public way to write a field


def _blocks(document: DocumentType, tokens: list[Token]) -> None:
    """Turn Markdown blocks into real headings, lists, tables and paragraphs."""
    lists: list[str] = []
    rows: list[list[str]] = []
    style = "Normal"
    for token in tokens:
        match token.type:
            case "heading_open":
                style = f"Heading {token.tag[1]}"
            case "bullet_list_open" | "ordered_list_open":
                lists.append("List Bullet" if token.type.startswith("bullet") else "List Number")
                if lists[-1] == "List Number":
                    _restart_numbers(document)
            case "bullet_list_close" | "ordered_list_close":
                lists.pop()
            case "paragraph_open":
                style = lists[-1] if lists else "Normal"
            case "tr_open":
                rows.append([])
                style = "cell"
            case "th_open" | "td_open":
                style = "cell"
            case "table_close":
                _table(document, rows)
                rows = []
            case "inline" if style == "cell":
                rows[-1].append(token.content)
            case "inline":
                paragraph = document.add_paragraph(style=style)
                if style == "List Number":
                    _numbered(document, paragraph)
                _runs(paragraph, token.content)


def _restart_numbers(document: DocumentType) -> None:
    """Begin a numbered list at 1: a new `w:num` on the abstract list that the style names."""
    numbering = document.part.numbering_part.element
    of_style = document.styles["List Number"].element.pPr.numPr.numId.val
    abstract = numbering.num_having_numId(of_style).abstractNumId.val
    fresh = numbering.add_num(abstract)
    fresh.add_lvlOverride(ilvl=0).add_startOverride(1)


def _numbered(document: DocumentType, paragraph: Paragraph) -> None:
    """Hang a paragraph on the newest numbered list."""
    newest = max(num.numId for num in document.part.numbering_part.element.num_lst)
    properties = paragraph._p.get_or_add_pPr().get_or_add_numPr()  # noqa: SLF001 — no public way either
    properties.get_or_add_ilvl().val = 0
    properties.get_or_add_numId().val = newest


def _table(document: DocumentType, rows: list[list[str]]) -> None:
    table = document.add_table(len(rows), len(rows[0]), style="Light Grid Accent 1")
    for row, cells in zip(table.rows, rows, strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.paragraphs[0].paragraph_format.space_after = Pt(2)
            _runs(cell.paragraphs[0], text)
    document.add_paragraph().paragraph_format.space_after = Pt(2)


def _runs(paragraph: Paragraph, text: str) -> None:
    """Write text with `**bold**` parts."""
    for number, part in enumerate(re.split(r"\*\*", text.replace("\n", " "))):
        if part:
            paragraph.add_run(part).bold = True if number % 2 else None


def _timeless(raw: bytes) -> bytes:
    """Write the ZIP again with one fixed time, so that equal content gives equal bytes."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), old.read(name), zipfile.ZIP_DEFLATED)
    return made.getvalue()


def build() -> dict[str, bytes]:
    """Make every binary example in memory, by file name."""
    made = {f"{source.stem}.pdf": pdf(source) for source in sorted(SOURCES.glob("*.typ")) if source.stem != "paper"}
    made |= dict(docx(source) for source in sorted(SOURCES.glob("*.md")))
    return made


def main() -> int:
    """Write all binaries and say what was written."""
    DOCUMENTS.mkdir(exist_ok=True)
    for name, data in build().items():
        (DOCUMENTS / name).write_bytes(data)
        print(f"{name:44} {len(data):>8} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
