"""What readers make of Office files, mail, books and archives: pages, headings, rows and members."""

import datetime
from typing import Any

import pytest

from ingestion.readers import Job, Reading, UnreadableError, sniff
from ingestion.readers.kinds import CSV, EML, EPUB, MARKDOWN, MSG, ODP, ODS, ODT, PLAIN, PPTX, RTF, XLSX, ZIP
from ingestion.readers.main import read
from tests.doubles import files

sniff.model()  # now, so that no test's clock counts it


def stretches(reading: Reading) -> list[tuple[str, int, str, str]]:
    return [(each.kind, each.page, reading.text[each.start : each.end], each.heading) for each in reading.blocks]


def test_a_slide_is_a_page_with_its_title_table_and_notes() -> None:
    slides = ("Ferries", "Nine\nTen", "Say it slowly"), ("Fares", "From May", "")
    reading = read(files.presentation(*slides, table=[["To", "EUR"], ["Oslo", "40"]]), Job(suffix=".pptx"))
    assert reading.media_type == PPTX
    assert stretches(reading) == [
        ("heading", 1, "Ferries", "Ferries"),
        ("item", 1, "Nine\nTen", "Ferries"),
        ("note", 1, "Say it slowly", "Ferries"),
        ("heading", 2, "Fares", "Fares"),
        ("item", 2, "From May", "Fares"),
        ("row", 2, "To | EUR\nOslo | 40", "Fares › To | EUR"),
    ]


def test_a_sheet_is_a_page_and_every_row_stands_under_its_header() -> None:
    rows: list[list[Any]] = [["Rates of 2026"], [], ["Land", "Rate", "From"], ["DE", 0.19, datetime.date(2026, 1, 1)],
                             ["FR", 20, None], [], ["Name", "Ok"], ["x", True]]  # fmt: skip
    reading = read(files.workbook({"Tax": rows, "Rest": [["alone"]]}), Job(suffix=".xlsx"))
    assert reading.media_type == XLSX
    assert stretches(reading) == [
        ("heading", 1, "Tax", "Tax"),
        ("text", 1, "Rates of 2026", "Tax"),
        ("row", 1, "Land | Rate | From\nDE | 0.19 | 2026-01-01\nFR | 20", "Tax › Land | Rate | From"),
        ("row", 1, "Name | Ok\nx | TRUE", "Tax › Name | Ok"),
        ("heading", 2, "Rest", "Rest"),
        ("text", 2, "alone", "Rest"),
    ]


@pytest.mark.parametrize("text", ['Land;Rate;Note\nDE;19;"a;\nb"\n', 'Land\tRate\tNote\r\nDE\t19\t"a;\r\nb"\r\n'])
def test_a_csv_becomes_rows_whatever_parts_its_values(text: str) -> None:
    reading = read(text.encode("utf-8-sig"), Job(suffix=".csv"))
    assert (reading.media_type, reading.text) == (CSV, "Land | Rate | Note\nDE | 19 | a; b")


ODT_BODY = """<text:tracked-changes><text:p>deleted</text:p></text:tracked-changes>
<text:h text:outline-level="1">Lease</text:h><text:p>Rent <text:span>is</text:span> due<text:s/>on
 the<office:annotation><text:p>ask Ada</text:p></office:annotation> 3rd.</text:p>
<text:list><text:list-item><text:p>one</text:p></text:list-item><text:list-item><text:p>two</text:p></text:list-item>
</text:list><table:table><table:table-row><table:table-cell><text:p>Day</text:p></table:table-cell><table:table-cell>
<text:p>Hours</text:p></table:table-cell></table:table-row><table:table-row><table:table-cell
 table:number-columns-repeated="2"><text:p>8</text:p></table:table-cell></table:table-row></table:table>"""


def test_an_odt_gives_headings_lists_tables_and_remarks() -> None:
    reading = read(files.opendocument("text", ODT_BODY), Job(suffix=".odt"))
    assert reading.media_type == ODT
    assert stretches(reading) == [
        ("heading", 1, "Lease", "Lease"),
        ("text", 1, "Rent is due on the 3rd.", "Lease"),
        ("item", 1, "one\ntwo", "Lease"),
        ("row", 1, "Day | Hours\n8 | 8", "Lease › Day | Hours"),
        ("note", 1, "ask Ada", ""),
    ]


def test_an_odp_has_a_page_for_each_slide() -> None:
    slide = '<draw:page><draw:frame presentation:class="title"><draw:text-box><text:p>One</text:p></draw:text-box>'
    slide += "</draw:frame><presentation:notes><text:p>Say it</text:p></presentation:notes></draw:page>"
    reading = read(files.opendocument("presentation", slide + "<draw:page><text:p>Two</text:p></draw:page>"), Job())
    assert reading.media_type == ODP
    assert stretches(reading) == [("heading", 1, "One", "One"), ("note", 1, "Say it", "One"), ("text", 2, "Two", "")]


def test_an_ods_is_read_as_a_workbook() -> None:
    cells = "".join(
        f'<table:table-row><table:table-cell office:value-type="string"><text:p>{left}</text:p></table:table-cell>'
        f'<table:table-cell office:value-type="string"><text:p>{right}</text:p></table:table-cell></table:table-row>'
        for left, right in (("Land", "Rate"), ("DE", "19"))
    )
    manifest = '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>'
    data = files.opendocument("spreadsheet", f'<table:table table:name="Tax">{cells}</table:table>', manifest=manifest)
    reading = read(data, Job(suffix=".ods"))
    assert (reading.media_type, reading.text) == (ODS, "Tax\n\nLand | Rate\nDE | 19")


def test_an_rtf_gives_its_text_and_rows_and_no_picture() -> None:
    data = (
        rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}{\pict 00ff00ff}\f0 Gr\'fc\'dfe \u8364? \u-10179?\u-8704?\par"
        rb"\trowd\cellx1 Day\cell Hours\cell\row \trowd Monday\cell 8\cell\row}"
    )
    reading = read(data, Job(suffix=".rtf"))
    assert (reading.media_type, reading.text) == (RTF, "Grüße € 😀\n\nDay | Hours\nMonday | 8")


def test_a_book_has_a_page_for_each_document_of_its_spine() -> None:
    reading = read(files.book("<h1>I</h1><p>First.", "<h1>II</h1><p>Second.<script>no()</script>"), Job())
    assert reading.media_type == EPUB
    assert [reading.text[page.start : page.end] for page in reading.pages] == ["I\n\nFirst.", "II\n\nSecond."]


def test_a_mail_gives_head_and_body_and_then_its_attachments_under_their_names() -> None:
    inner = files.mail("Older", "The older text.", attached={"deep.txt": b"Deep down."})
    sheet = files.workbook({"Fares": [["To", "EUR"], ["Oslo", 40]]})
    attached = {"fares.xlsx": sheet, "old.eml": inner, "locked.bin": bytes(range(256)) * 9}
    data = files.mail("Ferry", "It leaves at nine.", html="<p>other", attached=attached)
    reading = read(data, Job())
    assert reading.media_type == EML
    head = "From: Ada Example <ada@northwind.example>\nTo: Board <board@northwind.example>\n"
    head += "Date: Mon, 02 Mar 2026 09:30:00 +0100"
    assert stretches(reading) == [
        ("heading", 1, "Ferry", "Ferry"),
        ("header", 1, head, "Ferry"),
        ("text", 1, "It leaves at nine.", "Ferry"),
        ("note", 1, "Attachments: fares.xlsx, old.eml, locked.bin", ""),
        ("heading", 2, "Fares", "fares.xlsx › Fares"),
        ("row", 2, "To | EUR\nOslo | 40", "fares.xlsx › Fares › To | EUR"),
        ("heading", 3, "Older", "old.eml › Older"),
        ("header", 3, head, "old.eml › Older"),
        ("text", 3, "The older text.", "old.eml › Older"),
        ("note", 3, "Attachments: deep.txt", "old.eml"),
        ("text", 4, "Deep down.", "old.eml › deep.txt"),
        ("note", 5, "locked.bin: not read (unsupported_type)", "locked.bin"),
    ]
    assert [page.number for page in reading.pages] == [1, 2, 3, 4, 5]


def test_a_mail_of_html_alone_is_read_under_its_subject() -> None:
    reading = read(
        files.mail("Ferry", "", html="<h1>Times</h1><p>At nine.<img src='http://x.example/pixel.png'>"), Job()
    )
    assert stretches(reading)[-1] == ("text", 1, "At nine.", "Ferry › Times")


def test_an_outlook_message_is_read_with_its_attachments() -> None:
    text = "It leaves at nine.\r\n\r\n" + "And again. " * 500
    attached = {"a.txt": b"Attached words. " * 500, "b.txt": b"More."}
    reading = read(files.outlook({"0037": "Ferry", "0C1A": "Ada", "0E04": "Board", "1000": text}, attached), Job())
    assert reading.media_type == MSG
    assert reading.text.startswith("Ferry\n\nFrom: Ada\nTo: Board\n\nIt leaves at nine.\n\nAnd again.")
    assert [(each.kind, each.page, each.heading) for each in reading.blocks[-2:]] == [
        ("text", 2, "a.txt"),
        ("text", 3, "b.txt"),
    ]
    assert reading.text.endswith("Attached words. \n\nMore.")


def test_an_archive_is_a_list_of_its_files_and_then_their_texts() -> None:
    inner = files.zipped({"z.txt": "deep"})
    data = files.zipped({"a/ü.txt": "x", "c.txt": "y", "__MACOSX/c.txt": "", "in.zip": inner, "a/": ""})
    reading = read(data, Job(suffix=".zip"))
    assert (reading.media_type, reading.text) == (ZIP, "ü.txt\nc.txt\nz.txt\n\nx\n\ny\n\ndeep")
    assert [each.heading for each in reading.blocks][-3:] == ["a/ü.txt", "c.txt", "in.zip/z.txt"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Land,Rate\nDE,19\nFR,20\nIT,22\n", CSV),
        ("# Lease\n\nThe *rent* is due.\n\n- one\n- [two](x)\n\n## Times\n\nAt nine.\n", MARKDOWN),
        ("Dear Board,\nthe ferry leaves at nine, and the rent is due on the third.\nYours, Ada\n", PLAIN),
    ],
)
def test_a_text_without_a_name_is_told_by_its_words(text: str, kind: str) -> None:
    assert read(text.encode(), Job()).media_type == kind


def test_an_old_office_file_is_named_as_one() -> None:
    with pytest.raises(UnreadableError) as caught:
        read(files.compound({("WordDocument",): bytes(5000)}), Job(suffix=".doc"))
    assert (caught.value.reason, caught.value.found) == ("unsupported_type", "old office")
