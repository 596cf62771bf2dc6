"""Violations, every kind of report, and the certificate of an erasure, over HTTP."""

from pathlib import Path

import httpx
import msgspec
import pytest

from residency.verify import verify
from tests.doubles.serving import Served, erased, live

pytestmark = pytest.mark.enable_socket


def trust(client: httpx.Client) -> bytes:
    return f"log {client.get('/v1/ledger/key').text.strip()}\nquorum none\n".encode()


def test_a_violation_is_listed_and_acknowledged(served: Served, client: httpx.Client) -> None:
    made = served.house.violations.found("acme", "service", "aa" * 16, policy="two-books", evidence={"site": "x"})
    found = client.get("/v1/violations", params={"state": "open"}).json()["data"]
    assert [row["id"] for row in found if row["subject"] == "aa" * 16] == [made.id]
    done = client.post(f"/v1/violations/{made.id}/acknowledge", json={"notifiable": "no"})
    assert done.status_code == 200 and done.json()["state"] == "acknowledged"
    assert client.get(f"/v1/violations/{made.id}").json()["notifiable"] == "no"
    report = client.get("/v1/reports/residency").json()["report"]
    assert made.id in {row["id"] for row in report["violations"]}


def test_a_foreign_violation_is_not_there_and_wrong_words_are_refused(served: Served, client: httpx.Client) -> None:
    made = served.house.violations.found("acme", "service", "bb" * 16)
    other = served.client(tenant="harbour")
    assert other.get(f"/v1/violations/{made.id}").status_code == 404
    assert other.post(f"/v1/violations/{made.id}/acknowledge", json={}).status_code == 404
    assert client.post(f"/v1/violations/{made.id}/acknowledge", json={"notifiable": "maybe"}).status_code == 409
    assert client.get("/v1/violations", params={"state": "lost"}).status_code == 400
    assert served.client("ask").get("/v1/violations").status_code == 403


@pytest.mark.parametrize("kind", ["residency", "register", "transfers", "recipients"])
def test_every_kind_of_report_is_served_signed(client: httpx.Client, kind: str) -> None:
    reply = client.get(f"/v1/reports/{kind}")
    assert reply.status_code == 200, reply.text
    verdict = verify({"r.json": reply.content, "trust.txt": trust(client)})
    assert verdict.code == 0, verdict.lines
    assert client.get(f"/v1/reports/{kind}", params={"format": "xlsx"}).content[:2] == b"PK"


def test_oscal_is_served_as_json_and_unknown_kinds_are_refused(client: httpx.Client) -> None:
    assert "assessment-results" in client.get("/v1/reports/oscal").json()
    assert client.get("/v1/reports/gossip").status_code == 400
    assert client.get("/v1/reports/oscal", params={"format": "pdf"}).status_code == 400
    assert client.get("/v1/reports/certificate").status_code == 400


def test_an_erasure_has_a_signed_certificate_and_its_document_no_recipients(client: httpx.Client) -> None:
    document = live(client, "soon-gone.txt", "A note that will be gone.\n")["id"]
    before = client.get("/v1/reports/recipients", params={"document": document}).json()["report"]
    assert before["recipients"]
    erased(client, document)
    found = client.get("/v1/reports/certificate", params={"document": document})
    zones = (Path(__file__).parents[2] / "policies" / "zones.toml").read_bytes()
    given = {"trust.txt": trust(client), "zones.toml": zones}
    verdict = verify({"c.json": found.content, **given})
    assert verdict.code == 0, verdict.lines
    assert [check.name for check in verdict.checks if check.name == "residual"]
    changed = msgspec.json.decode(found.content)
    changed["report"]["erasure"]["residuals"] = []
    assert verify({"c.json": msgspec.json.encode(changed), **given}).code == 1
    after = client.get("/v1/reports/recipients", params={"document": document}).json()["report"]
    assert after["recipients"] == []
