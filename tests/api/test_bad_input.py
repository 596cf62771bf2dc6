"""Bad input: the right status, a problem that names cause and next step, nothing half-done, and the service goes on."""

import io
import socket
import time
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy as sa
from reportlab.lib import pdfencrypt
from reportlab.pdfgen import canvas

from ingestion.rows import document
from ingestion.states import READY
from residency.keytables import dek_wrapped
from tests.doubles.serving import Served, live, put, same, settled

pytestmark = pytest.mark.enable_socket

MEBIBYTE = 1024 * 1024
CANARY = "Zwitscherkanari"
DOCX_TYPES = (
    '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="xml" ContentType="application/xml"/><Override PartName="/word/document.xml" ContentType='
    '"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
)


def pdf(pages: int, password: str = "") -> bytes:
    out = io.BytesIO()
    sheet = canvas.Canvas(out, encrypt=pdfencrypt.StandardEncryption(password) if password else None)
    for _ in range(pages):
        sheet.drawString(72, 720, f"{CANARY} is named here")
        sheet.showPage()
    sheet.save()
    return out.getvalue()


def no_pages() -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for body in (b"1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n", b"2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n"):
        offsets.append(len(out))
        out += body
    start = len(out)
    out += b"xref\n0 3\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer<</Size 3/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % start
    return bytes(out)


def bomb() -> bytes:
    """A DOCX of a few hundred kilobytes that unpacks to 300 MB."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", DOCX_TYPES)
        with archive.open("word/document.xml", "w") as part:
            part.write(b'<?xml version="1.0"?><w:document xmlns:w="w"><w:body>')
            for _ in range(300):
                part.write(b" " * MEBIBYTE)
    return out.getvalue()


def left(served: Served) -> tuple[int, int, int]:
    """Count rows, wrapped keys and originals, once no worker has anything to do."""
    until = time.monotonic() + 20
    while True:
        with served.house.database.reading() as connection:
            rows, busy = connection.execute(
                sa.select(sa.func.count(), sa.func.count().filter(document.c.state.in_(READY)))
            ).one()
            keys = connection.execute(sa.select(sa.func.count()).select_from(dek_wrapped)).scalar_one()
        if not busy or time.monotonic() > until:
            files = sum(1 for each in (served.settings.path / "sites").glob("*/vault/**/*") if each.is_file())
            return int(rows), int(keys), files
        time.sleep(0.02)


@pytest.fixture
def untouched(served: Served) -> Iterator[None]:
    """Hold that nothing of the test is left: no row, no file, no key; and that the service goes on."""
    before = left(served)
    yield
    until = time.monotonic() + 10  # a torn connection is cleared up a moment after the sender is gone
    while left(served) != before and time.monotonic() < until:
        time.sleep(0.05)
    assert left(served) == before
    assert served.bare().get("/readyz").status_code == 200


def problem(reply: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Hold the shape of every problem: both readers are served, cause and next step named, no content."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"].startswith("application/problem+json")
    body: dict[str, Any] = reply.json()
    assert (body["status"], body["code"], body["error"]["code"]) == (status, code, code)
    assert body["type"] == f"urn:domicile:problem:{code.replace('_', '-')}"
    assert body["detail"]
    assert body["request_id"].startswith("req_")
    assert set(body["error"]) >= {"message", "type", "param", "code"}
    assert CANARY not in reply.text
    return body


# --- bodies ---


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("chunked", [False, True])
def test_an_empty_file_is_refused(client: httpx.Client, *, chunked: bool) -> None:
    body = iter([b"", b""]) if chunked else b""
    reply = client.put("/v1/documents/empty.txt", params={"jurisdiction": "DE"}, content=body)
    assert problem(reply, 422, "empty_file")["hint"]


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("none", no_pages(), "empty_text"),
        ("locked", pdf(1, password="secret"), "encrypted_file"),
        ("broken", pdf(2)[:300], "broken_file"),
        ("bomb", bomb(), "bomb"),
        ("notes.txt", b"\x00\x01\x02\xff" * 500, "unsupported_type"),
        ("blank.txt", b" \n\t \n" * 10, "empty_text"),
    ],
)
def test_a_file_that_cannot_be_read_fails_with_its_cause_and_a_next_step(
    served: Served, client: httpx.Client, name: str, body: bytes, code: str
) -> None:
    taken = put(client, name, body)
    assert taken.status_code == 202
    found = settled(client, taken.json()["id"])
    assert (found["state"], found["error"]["code"]) == ("failed", code)
    assert found["error"]["hint"]
    assert found["passages"] == 0
    again = live(client, name, "Now it can be read: the ferry leaves at nine.\n")
    assert (again["id"], again["version"]) == (found["id"], 2)


@pytest.mark.usefixtures("untouched")
def test_two_hundred_megabytes_are_refused_by_their_announced_length(client: httpx.Client) -> None:
    reply = raw(client, client.headers["authorization"], {"Content-Length": str(200 * MEBIBYTE)}, b"")
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b'"limit_bytes":104857600' in reply
    assert b'"code":"too_large"' in reply


@pytest.mark.usefixtures("untouched")
def test_two_hundred_megabytes_without_a_length_are_cut_off_at_the_cap(client: httpx.Client) -> None:
    blocks = (bytes(MEBIBYTE) for _ in range(200))
    reply = client.put("/v1/documents/large.bin", params={"jurisdiction": "DE"}, content=blocks)
    assert problem(reply, 413, "too_large")["limit_bytes"] == 100 * MEBIBYTE


@pytest.mark.usefixtures("untouched")
def test_a_body_shorter_than_its_announced_length_leaves_nothing(client: httpx.Client) -> None:
    key = client.headers["authorization"]
    reply = raw(client, key, {"Content-Length": "5000"}, b"only this much of it\n", close=True)
    assert b" 202 " not in reply.partition(b"\r\n")[0]


def raw(client: httpx.Client, key: str, headers: dict[str, str], body: bytes, *, close: bool = False) -> bytes:
    """Send a PUT whose headers are not checked against its body; give what came back."""
    lines = {"Host": "localhost", "Authorization": key, "Connection": "close", **headers}
    head = "PUT /v1/documents/raw.txt?jurisdiction=DE HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as connection:
        connection.sendall(head.encode() + b"\r\n" + body)
        if close:
            connection.shutdown(socket.SHUT_WR)
        reply = b""
        while block := connection.recv(65536):
            reply += block
        return reply


# --- names ---


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "..",
        ".",
        "a/b",
        "a/b/c/d/e/f/g.txt",
        "/absolute.txt",
        "back\\slash.txt",
        "line\nbreak.txt",
        "nul\x00.txt",
        "escape\x1b[31m.txt",
        "turned\u202etxt.exe",
        "n" * 256,
        " ",
    ],
)
def test_a_name_that_is_none_is_refused_and_never_quoted(client: httpx.Client, name: str) -> None:
    given = f"{name}{CANARY}" if len(name) > 2 else name
    path = "/v1/documents/" + quote(given, safe="").replace(".", "%2E")
    target = httpx.URL(f"{client.base_url}").copy_with(raw_path=f"{path}?jurisdiction=DE".encode())
    reply = client.put(target, content=b"x")
    body = problem(reply, 400, "invalid_request")
    assert body["hint"]
    assert name not in body["detail"] or len(name) < 3


# --- claims ---


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("claim", "status", "code", "says"),
    [
        ({}, 422, "jurisdiction_missing", "jurisdiction=DE"),
        ({"jurisdiction": ""}, 422, "jurisdiction_missing", "jurisdiction=DE"),
        ({"jurisdiction": "GERMANY"}, 422, "zone_unknown", ""),
        ({"jurisdiction": "de"}, 422, "zone_unknown", "DE"),
        ({"jurisdiction": "DE", "residency": "EUU"}, 422, "zone_unknown", "EU"),
        ({"jurisdiction": "DE", "classification": "secret"}, 400, "invalid_request", ""),
        ({"jurisdiction": "DE", "classification": "99"}, 422, "jurisdiction_missing", ""),
        ({"jurisdiction": "DE", "personal": "perhaps"}, 400, "invalid_request", ""),
        ({"jurisdiction": "DE", "categories": "so called"}, 422, "jurisdiction_missing", "categories"),
        ({"jurisdiction": "DE", "groups": "Not A Slug"}, 400, "invalid_request", "groups"),
        ({"jurisdiction": "DE", "collection": "../up"}, 400, "invalid_request", ""),
    ],
)
def test_a_claim_that_makes_no_tag_is_refused_with_a_next_step(
    client: httpx.Client, claim: dict[str, str], status: int, code: str, says: str
) -> None:
    reply = client.put("/v1/documents/claimed.txt", params=claim, content=b"some bytes")
    body = problem(reply, status, code)
    assert says in f"{body['detail']} {body.get('hint', '')}"


@pytest.mark.usefixtures("untouched")
def test_a_residency_that_excludes_every_site_is_refused_before_the_body_is_read(client: httpx.Client) -> None:
    reply = put(client, "abroad.txt", "x", residency="CH")
    body = problem(reply, 403, "residency_refused")
    assert body["reasons"] or body["why_not"]
    assert body["remedy"]
    assert reply.headers["x-should-retry"] == "false"
    receipt = client.get(f"/v1/receipts/{body['receipt']}").json()["receipt"]
    assert receipt["kind"] == "refusal"
    assert len(receipt["refused"]) >= 4


@pytest.mark.usefixtures("untouched")
def test_health_data_wanted_abroad_is_refused_by_its_clause(client: httpx.Client) -> None:
    body = problem(put(client, "health.txt", "x", residency="US", categories="health"), 403, "residency_refused")
    assert "forbid-health-de-outside-de" in body["detail"] + str(body["reasons"]) + str(
        client.get(f"/v1/receipts/{body['receipt']}").json()["receipt"]["refused"]
    )


# --- JSON ---


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("path", ["/v1/search", "/v1/answers", "/v1/chat/completions", "/v1/embeddings"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"query": "Zwitscherkanari"',
        b"[]",
        b"null",
        b'"Zwitscherkanari"',
        b"\xff\xfe{}",
        b"[" * 5000,
        b'{"query": 7, "question": 7, "model": 7, "messages": 7, "input": 7}',
    ],
)
def test_json_that_is_none_is_a_400_that_quotes_nothing(client: httpx.Client, path: str, body: bytes) -> None:
    problem(client.post(path, content=body, headers={"Content-Type": "application/json"}), 400, "invalid_request")


@pytest.mark.usefixtures("untouched")
def test_a_question_of_many_megabytes_is_too_large(client: httpx.Client) -> None:
    reply = client.post("/v1/answers", json={"question": CANARY * (11 * MEBIBYTE // len(CANARY))})
    problem(reply, 413, "too_large")


@pytest.mark.parametrize(
    "question", ["?", "\x00\x01", "🦦", "a" * 100_000, "\u202e\u2066", "SELECT * FROM document; --"]
)
def test_odd_questions_get_an_answer_or_a_clear_no(client: httpx.Client, question: str) -> None:
    for path, field in (("/v1/answers", "question"), ("/v1/search", "query")):
        reply = client.post(path, json={field: question})
        assert reply.status_code in {200, 400}, reply.text


# --- who ---


@pytest.mark.usefixtures("untouched")
def test_a_missing_a_foreign_and_a_revoked_key_look_the_same(served: Served) -> None:
    revoked = served.key("ask", tenant="leaving")
    (row,) = served.house.accounts.listing("leaving")
    assert served.bare(Authorization=f"Bearer {revoked}").get("/v1/models").status_code == 200
    served.house.accounts.revoke(row["id"])
    foreign = "dom_" + "A" * 43
    replies = [
        served.bare(Authorization=f"Bearer {token}").put(
            "/v1/documents/x.txt", params={"jurisdiction": "DE"}, content=b"x"
        )
        for token in (revoked, foreign)
    ]
    for reply in replies:
        assert problem(reply, 401, "unauthenticated")["hint"]
        assert reply.headers["www-authenticate"] == "Bearer"
    assert same(*replies)
    missing = served.bare().put("/v1/documents/x.txt", params={"jurisdiction": "DE"}, content=b"x")
    assert problem(missing, 401, "unauthenticated")["hint"]


@pytest.mark.parametrize("given", ["0" * 32, "nonsense", "%2e%2e", "é" * 40, "1 OR 1=1"])
def test_an_id_that_is_none_is_not_found(client: httpx.Client, given: str) -> None:
    for method, rest in (("GET", ""), ("DELETE", ""), ("POST", "/retry"), ("GET", "/erasure")):
        problem(client.request(method, f"/v1/documents/{quote(given)}{rest}"), 404, "not_found")


def test_a_path_and_a_method_that_are_not_served_say_so(client: httpx.Client) -> None:
    problem(client.get("/v1/nothing/here"), 404, "not_found")
    reply = client.patch("/v1/search")
    problem(reply, 405, "method_not_allowed")
    assert "POST" in reply.headers["allow"]


def test_a_body_that_is_no_json_is_told_where_and_what_to_compare_it_with(client: httpx.Client) -> None:
    sent = client.post("/v1/search", content=b'{"query": ', headers={"content-type": "application/json"})
    problem = sent.json()
    assert sent.status_code == 400 and problem["code"] == "invalid_request"
    assert "no JSON" in problem["detail"] and "openapi.json" in problem["hint"]
