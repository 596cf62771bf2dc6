"""The residency report over HTTP, in its five formats."""

import csv
import io
import zipfile

import httpx
import msgspec
import pytest

from residency.verify import verify
from tests.doubles.serving import Served, erased, live

pytestmark = pytest.mark.enable_socket

FORMATS = {
    "json": ("application/json", b"{"),
    "html": ("text/html", b"<!"),
    "pdf": ("application/pdf", b"%PDF-"),
    "csv": ("text/csv", b""),
    "xlsx": ("application/vnd.openxmlformats", b"PK\x03\x04"),
}


@pytest.fixture(scope="module")
def busy(served: Served, client: httpx.Client) -> httpx.Client:
    live(client, "kept-marmot.txt", "The marmot burrow lies above the tree line.\n", residency="EU")
    gone = live(client, "gone-marmot.txt", "The marmot whistles twice when an eagle comes.\n")
    client.post("/v1/search", json={"query": "marmot"})
    erased(client, gone["id"])
    client.put("/v1/documents/refused.txt", params={"jurisdiction": "CH"}, content=b"The marmot sleeps.\n")
    return client


@pytest.mark.parametrize("form", FORMATS)
def test_a_report_comes_in_its_format_with_a_name_and_a_receipt(busy: httpx.Client, form: str) -> None:
    reply = busy.get("/v1/reports/residency", params={"format": form})
    media_type, begins = FORMATS[form]
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith(media_type)
    assert reply.content.startswith(begins)
    assert f'.{form}"' in reply.headers["content-disposition"]
    assert reply.headers["cache-control"] == "no-store"
    assert busy.get(f"/v1/receipts/{reply.headers['domicile-receipt']}").status_code == 200
    text = reply.content if form != "xlsx" else b"".join(_parts(reply.content))
    assert b"marmot" not in text.lower()


def _parts(data: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as book:
        return [book.read(name) for name in book.namelist()]


def test_the_signed_report_holds_offline(busy: httpx.Client) -> None:
    data = busy.get("/v1/reports/residency").content
    key = busy.get("/v1/ledger/key").text.strip()
    verdict = verify({"report.json": data, "trust.txt": f"log {key}\nquorum none\n".encode()})
    assert not [check for check in verdict.checks if check.state == "false"], verdict.lines
    changed = data.replace(b'"acme"', b'"emca"', 1)
    assert verify({"report.json": changed, "trust.txt": f"log {key}\nquorum none\n".encode()}).code == 1


def test_a_report_counts_what_happened(busy: httpx.Client) -> None:
    report = msgspec.json.decode(busy.get("/v1/reports/residency").content)["report"]
    assert report["head"]["tenant"] == "acme"
    assert sum(row["documents"] for row in report["inventory"]) == 1
    assert report["erasures"]
    assert report["refusals"]


def test_a_report_of_days_before_anything_happened_is_empty_and_says_so(busy: httpx.Client) -> None:
    query = {"from": "2021-01-01", "to": "2021-12-31", "format": "csv"}
    reply = busy.get("/v1/reports/residency", params=query)
    assert reply.status_code == 200
    assert list(csv.reader(io.StringIO(reply.text)))


def test_one_tenants_report_holds_nothing_of_anothers(served: Served, busy: httpx.Client) -> None:
    stranger = served.client("report", tenant="stranger")
    report = msgspec.json.decode(stranger.get("/v1/reports/residency").content)["report"]
    assert report["head"]["tenant"] == "stranger"
    assert not report["inventory"]
    assert not report["erasures"]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"format": "docx"}, "format"),
        ({"from": "soon"}, "from"),
        ({"to": "31.12.2026"}, "to"),
        ({"from": "2026-05-01", "to": "2026-04-01"}, "to"),
    ],
)
def test_a_report_that_cannot_be_made_says_which_field_is_wrong(
    busy: httpx.Client, query: dict[str, str], param: str
) -> None:
    reply = busy.get("/v1/reports/residency", params=query)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param
    assert reply.json()["hint"]
