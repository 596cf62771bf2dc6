"""What readers make of honest files: text, pages, blocks, all as offsets that hold."""

import io

import docx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reportlab.pdfgen import canvas

from ingestion.readers import Headings, Job, Reading, UnreadableError, package, pdf, plain, sniff
from ingestion.readers.kinds import HTML, MARKDOWN, PLAIN
from ingestion.readers.main import read

sniff.model()  # now, so that no test's clock counts it


def stretches(reading: Reading) -> list[tuple[str, str, str]]:
    return [(block.kind, reading.text[block.start : block.end], block.heading) for block in reading.blocks]


def a_pdf(*pages: list[str], outline: dict[int, str] | None = None) -> bytes:
    out = io.BytesIO()
    sheet = canvas.Canvas(out)
    for number, lines in enumerate(pages):
        for title in [outline[number]] if outline and number in outline else []:
            sheet.bookmarkPage(str(number))
            sheet.addOutlineEntry(title, str(number))
        for at, line in enumerate(lines):
            sheet.drawString(72, 720 - 15 * at, line)
        sheet.showPage()
    sheet.save()
    return out.getvalue()


# --- plain text ---------------------------------------------------------------------------------------------------


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1))
def test_utf_8_text_is_kept_code_point_by_code_point(text: str) -> None:
    if text.strip("\ufeff \t\r\n\f\v\xa0") and not plain.looks_like_html(text):
        reading = read(text.encode(), Job(suffix=".txt"))
        assert reading.text == text
        assert reading.pages[0].end == len(text)


def test_line_ends_soft_hyphens_and_the_byte_order_mark_stay() -> None:
    text = "\ufeffZeile\r\nzwei\u00adteilig\rdrei e\u0301"
    assert read(text.encode(), Job()).text == text


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_are_recognised(encoding: str) -> None:
    text = "Die Geschäftsführung prüft die Verträge regelmäßig, auch für größere Aufträge – „jährlich“. " * 5
    data = (b"\xff\xfe" if encoding == "utf-16-le" else b"") + text.encode(encoding)
    assert read(data, Job()).text.lstrip("\ufeff") == text


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(UnreadableError, match="unsupported_type"):
        read(bytes(range(256)) * 4, Job(suffix=".txt"))


# --- Markdown -----------------------------------------------------------------------------------------------------


def test_markdown_keeps_its_source_and_knows_its_headings() -> None:
    source = (
        "Intro.\r\n\r\n# A *bold* title\r\n\r\nText a.\r\n\r\nSub\r\n---\r\n\r\n- one\r\n\r\n# Next\r\n\r\nText b.\r\n"
    )
    reading = read(source.encode(), Job(suffix=".md"))
    assert (reading.text, reading.media_type) == (source, MARKDOWN)
    assert [(kind, text.strip(), heading) for kind, text, heading in stretches(reading)] == [
        ("text", "Intro.", ""),
        ("heading", "# A *bold* title", "A bold title"),
        ("text", "Text a.", "A bold title"),
        ("heading", "Sub\r\n---", "A bold title › Sub"),
        ("text", "- one", "A bold title › Sub"),
        ("heading", "# Next", "Next"),
        ("text", "Text b.", "Next"),
    ]


def test_a_markdown_table_carries_its_first_row_as_heading() -> None:
    reading = read(b"# T\n\n| Key | Days |\n|---|---|\n| A | 3 |\n", Job(declared_type="text/markdown"))
    assert stretches(reading)[-1] == ("row", "| Key | Days |\n|---|---|\n| A | 3 |\n", "T › Key | Days")


def test_a_fence_holds_no_headings() -> None:
    reading = read(b"```\n# not a title\n```\n", Job(suffix=".md"))
    assert [block.kind for block in reading.blocks] == ["text"]


# --- HTML ---------------------------------------------------------------------------------------------------------

PAGE = """<!DOCTYPE html><html><head><title>x</title><style>p{}</style></head><body>
<h1>Notice   of
 rent</h1><p>Pay <b>by</b> the 3<sup>rd</sup>.</p><script>bad()</script><noscript>no</noscript>
<p hidden>unseen</p><p style="display: none">unseen</p><!-- comment -->
<h2>Terms</h2><ul><li>One</li><li>Two <a href="/x">more</a></li></ul>
<table><tr><th>Fee</th><th>Sum</th></tr><tr><td>Late</td><td><p>5</p><p>EUR</p></td></tr></table>
<div>Tail<br>line</div></body></html>"""


def test_a_page_becomes_one_line_a_block_without_what_is_not_seen() -> None:
    reading = read(PAGE.encode(), Job())
    assert reading.media_type == HTML
    assert stretches(reading) == [
        ("heading", "Notice of rent", "Notice of rent"),
        ("text", "Pay by the 3rd.", "Notice of rent"),
        ("heading", "Terms", "Notice of rent › Terms"),
        ("item", "One\nTwo more", "Notice of rent › Terms"),
        ("row", "Fee | Sum\nLate | 5 EUR", "Notice of rent › Terms › Fee | Sum"),
        ("text", "Tail line", "Notice of rent › Terms"),
    ]


def test_a_page_says_its_encoding_in_a_meta_element() -> None:
    page = "<!doctype html><meta charset='iso-8859-2'><p>Zażółć gęślą jaźń"
    assert read(page.encode("iso-8859-2"), Job()).text == "Zażółć gęślą jaźń"


def test_angle_brackets_in_plain_text_do_not_make_it_a_page() -> None:
    assert read(b"if a < b and <html> is mentioned", Job(suffix=".txt")).media_type == PLAIN


# --- PDF ----------------------------------------------------------------------------------------------------------


def test_a_pdf_has_one_text_and_a_span_for_each_page() -> None:
    reading = read(a_pdf(["Page one."], ["Page two.", "More."], ["Page three."]), Job())
    assert [reading.text[page.start : page.end] for page in reading.pages] == [
        "Page one.",
        "Page two.\nMore.",
        "Page three.",
    ]
    assert [page.number for page in reading.pages] == [1, 2, 3]
    assert reading.text == "Page one.\n\nPage two.\nMore.\n\nPage three."


def test_pages_without_text_are_named_and_keep_their_number() -> None:
    reading = read(a_pdf(["One."], [], [" "], ["Four."]), Job())
    assert reading.unread == [3]  # nothing is drawn on the second
    assert [block.page for block in reading.blocks] == [1, 4]


def test_what_a_form_was_filled_with_is_read() -> None:
    out = io.BytesIO()
    sheet = canvas.Canvas(out)
    sheet.drawString(72, 720, "Application")
    sheet.acroForm.textfield(name="Family name", value="Exempelsson", x=72, y=600, width=200)
    sheet.acroForm.textfield(name="Empty", x=72, y=500, width=200)
    sheet.save()
    assert read(out.getvalue(), Job()).text == "Application\n\nFamily name | Exempelsson"


def test_the_outline_of_a_pdf_gives_its_headings() -> None:
    data = a_pdf(
        ["Chapter I", "Body one."], ["Body goes on."], ["Chapter II", "Two."], outline={0: "Chapter I", 2: "Chapter II"}
    )
    assert stretches(read(data, Job())) == [
        ("heading", "Chapter I", "Chapter I"),
        ("text", "Body one.", "Chapter I"),
        ("text", "Body goes on.", "Chapter I"),
        ("heading", "Chapter II", "Chapter II"),
        ("text", "Two.", "Chapter II"),
    ]


def test_running_heads_and_page_numbers_stay_on_the_first_page_alone() -> None:
    sheets = [
        ["Handbook 4.2", f"Body of {name}.", f"End of {name}.", f"Page {at} of 4"] for at, name in enumerate("abcd", 1)
    ]
    reading = read(a_pdf(*sheets), Job())
    assert [reading.text[page.start : page.end] for page in reading.pages] == [
        "Handbook 4.2\nBody of a.\nEnd of a.\nPage 1 of 4",
        "Body of b.\nEnd of b.",
        "Body of c.\nEnd of c.",
        "Body of d.\nEnd of d.",
    ]


@pytest.mark.parametrize(
    "pages",
    [
        ["same\none", "same\ntwo"],  # two pages prove nothing
        ["Pay slip 1\na", "Pay slip 2\nb", "Pay slip 3\nc"],  # alike but for a number: that number may matter
        ["only", "only", "only"],  # a page is never emptied
        ["", "", ""],
    ],
)
def test_lines_that_may_matter_are_not_taken_for_running_heads(pages: list[str]) -> None:
    assert pdf.without_running_lines(pages) == pages


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Daten\ufffeschutz", "Datenschutz"),
        ("COVID\ufffe19", "COVID-19"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("Scope . . . . . . . . 4\r\nWait... so", "Scope … 4\nWait... so"),
        ("twenty letters here, \x07", "twenty letters here,"),
        ("\x01\x02\x03ab", ""),
        (" .. -- ", ""),
    ],
)
def test_what_pdfium_gives_is_cleaned(raw: str, clean: str) -> None:
    assert pdf.clean(raw) == clean


# --- DOCX ---------------------------------------------------------------------------------------------------------


def test_a_docx_gives_headings_lists_tables_and_headers() -> None:
    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = "Northwind Works"
    document.add_heading("Agreement", 1)
    document.add_paragraph("First\tpart.")
    document.add_heading("Times", 2)
    document.add_paragraph("one", style="List Bullet")
    document.add_paragraph("two", style="List Bullet")
    table = document.add_table(2, 2)
    for at, text in enumerate(["Day", "Hours", "Monday", "8"]):
        table.cell(at // 2, at % 2).text = text
    document.add_paragraph("End.")
    out = io.BytesIO()
    document.save(out)
    assert stretches(read(out.getvalue(), Job())) == [
        ("header", "Northwind Works", ""),
        ("heading", "Agreement", "Agreement"),
        ("text", "First part.", "Agreement"),
        ("heading", "Times", "Agreement › Times"),
        ("item", "one\ntwo", "Agreement › Times"),
        ("row", "Day | Hours\nMonday | 8", "Agreement › Times › Day | Hours"),
        ("text", "End.", "Agreement › Times"),
    ]


def test_a_zip_that_is_no_docx_says_what_it_is() -> None:
    with pytest.raises(UnreadableError) as caught:
        package.measured(b"PK\x03\x04 and no more")
    assert caught.value.reason == "broken_file"


# --- heading paths ------------------------------------------------------------------------------------------------


def test_a_heading_path_forgets_its_deeper_levels() -> None:
    headings = Headings()
    headings.enter(1, "A")
    headings.enter(3, "deep")
    assert headings.enter(2, "B") == "A › B"
    assert headings.enter(1, "C") == "C"


@given(st.lists(st.tuples(st.integers(1, 9), st.text(max_size=400))))
def test_a_heading_path_stays_short(entered: list[tuple[int, str]]) -> None:
    headings = Headings()
    for level, title in entered:
        assert len(headings.enter(level, title)) <= 240
