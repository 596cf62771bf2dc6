"""The portal without a browser: its door, its headers, its guard against foreign pages, its walls between tenants."""

import html
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from litestar.routes import HTTPRoute

import service.portal
from service.auth import cookie_name
from service.portal.pages import CSP, headers, own_path
from service.portal.source import flowing
from tests.doubles.serving import Served
from tests.doubles.visiting import FRAGMENT, Visitor, signin_link

pytestmark = pytest.mark.enable_socket

HERE = Path(service.portal.__file__).parent
DEPOT = "The gate of the northern depot closes at 18:30. The key hangs in the porter's lodge.\n"
WILD = 'The depot\'s motto is <script>alert("x")</script> & <b>nothing else</b>, said the porter of the depot.\n'
PAGES = [
    "/sign-in",
    "/sign-in?token=x",
    "/documents",
    "/portal/documents",
    "/ask",
    "/reports",
    "/reviews",
    "/api/swagger",
]
STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
NOBODY = "f" * 32


@pytest.fixture(scope="module")
def depot(visitor: Visitor) -> str:
    """Give the id of a live document."""
    assert visitor.send({"depot.txt": DEPOT}).status_code == 303
    assert 'data-state="live"' in visitor.row("depot.txt")
    return visitor.id("depot.txt")


def ask(visitor: Visitor, question: str, **sent: Any) -> httpx.Response:
    return visitor.http.post("/portal/ask", data={"csrf": visitor.token, "question": question}, **sent)


# --- the door ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/documents", "/ask", "/reports", f"/documents/{NOBODY}/source?page=2"])
def test_whoever_is_not_signed_in_is_sent_to_the_door(served: Served, path: str) -> None:
    reply = served.bare().get(path)
    assert reply.status_code == 303
    assert reply.headers["location"].startswith("/sign-in")


def test_a_link_in_a_mail_leads_on_to_its_page_after_signing_in(served: Served) -> None:
    wanted, visitor = f"/documents/{NOBODY}/source?page=2&start=5", Visitor(served)
    door = visitor.get(wanted).headers["location"]
    assert unquote(door.partition("next=")[2]) == wanted
    assert html.unescape(re.findall(r'name="next" value="([^"]*)"', visitor.get(door).text)[0]) == wanted
    reply = visitor.http.post("/sign-in", data={"token": served.key(), "next": wanted})
    assert reply.headers["location"] == wanted


@pytest.mark.parametrize(
    "path",
    ["//evil.example/documents", "https://evil.example/ask", "/\\evil.example", "/elsewhere", "documents", "/as\nk"],
)
def test_signing_in_leads_to_no_other_place(path: str) -> None:
    assert own_path(path) == "/documents"
    assert own_path("/receipts/0190?x=1") == "/receipts/0190?x=1"


def test_opening_a_one_time_link_does_not_spend_it_and_its_button_does(served: Served) -> None:
    token = signin_link(served)
    for _ in range(2):  # a mail program looks ahead
        page = served.bare().get("/sign-in", params={"token": token})
        assert page.status_code == 200
        assert "Sign in with this link" in page.text
    assert served.bare().post("/sign-in", data={"token": token}).headers["location"] == "/documents"
    again = served.bare().post("/sign-in", data={"token": token})
    assert again.status_code == 401
    assert "not good" in again.text


def test_the_cookie_is_out_of_reach_of_script_and_survives_a_link(served: Served) -> None:
    reply = served.bare().post("/sign-in", data={"token": served.key()})
    cookie = reply.headers["set-cookie"].lower()
    assert cookie.startswith("domicile_session=")
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=/" in cookie
    assert served.key() not in reply.headers["set-cookie"]


def test_behind_tls_the_cookie_is_bound_to_its_host_and_pages_demand_tls() -> None:
    assert cookie_name(secure=True) == "__Host-domicile_session"
    assert "Strict-Transport-Security" in headers(secure=True)
    assert "Strict-Transport-Security" not in headers(secure=False)


def test_signing_out_ends_the_session_for_a_kept_cookie_too(served: Served) -> None:
    visitor = Visitor(served).sign_in()
    kept = dict(visitor.http.cookies)
    assert visitor.get("/documents").status_code == 200
    assert visitor.post("/sign-out").headers["location"] == "/sign-in"
    assert served.bare(Cookie=f"domicile_session={kept['domicile_session']}").get("/documents").status_code == 303


def test_a_session_opens_no_door_of_the_api(visitor: Visitor) -> None:
    assert visitor.get("/v1/documents").status_code == 401


# --- headers, and no foreign host -------------------------------------------------------------------------------------


def test_the_policy_is_the_strict_one() -> None:
    assert CSP == STRICT


@pytest.mark.parametrize(
    "path", [*PAGES, "/nowhere", f"/documents/{NOBODY}/source", "/receipts/x", "/static/app.js", "/"]
)
def test_every_response_carries_the_policy_and_its_sisters(visitor: Visitor, path: str) -> None:
    reply = visitor.get(path, headers={"Accept": "text/html"})
    wanted = STRICT.replace("img-src 'self'", "img-src 'self' data:") if "swagger" in path else STRICT
    assert reply.headers["content-security-policy"] == wanted
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["cross-origin-opener-policy"] == "same-origin"
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in reply.headers["permissions-policy"]
    assert reply.headers["cache-control"] == ("no-cache" if "static" in path else "no-store")


def test_no_page_holds_inline_script_or_style(visitor: Visitor, depot: str) -> None:
    answer = ask(visitor, "When does the gate of the northern depot close?").text
    shown = [visitor.get(path).text for path in [*PAGES, f"/documents/{depot}/source", f"/documents/{depot}/erase"]]
    shown += [answer, visitor.get("/reports?from=2026-01-01&to=2099-01-01").text]
    for page in shown:
        assert not re.findall(r"<script(?![^>]*\ssrc=)", page)
        assert not re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", page)
        for address in re.findall(r'(?:href|src|action|formaction)="([^"]*)"', page):
            assert address.startswith(("/", "#")), address
            assert not address.startswith("//"), address


def test_no_template_and_no_file_of_ours_names_a_foreign_host() -> None:
    files = [path for path in HERE.rglob("*") if path.is_file() and "vendor" not in path.parts]
    files = [path for path in files if path.suffix in {".html", ".css", ".js", ".svg"}]
    assert len(files) > 20
    for path in files:
        text = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.findall(r"https?://|(?<![:\w])//[a-z]+\.[a-z]|@import|url\(", text), path.name


def test_the_api_is_described_and_its_page_starts_from_our_own_files(served: Served) -> None:
    with_nobody = served.bare()
    assert with_nobody.get("/api/openapi.json").json()["info"]["title"] == "Domicile"
    page = with_nobody.get("/api/swagger").text
    for source in re.findall(r'(?:src|href)="(/[^"]*)"', page):
        assert with_nobody.get(source).status_code == 200, source


# --- changes come from our own pages ----------------------------------------------------------------------------------


def changes(served: Served) -> list[tuple[str, str]]:
    """List every change that the portal takes, by method and path."""
    found = []
    for route in served.app.routes:
        if isinstance(route, HTTPRoute) and not route.path.startswith("/v1"):
            for method in sorted({"POST", "PUT", "PATCH", "DELETE"} & set(route.methods)):
                path = re.sub(r"\{document_id:str\}", NOBODY, route.path)
                found.append((method, re.sub(r"\{name:str\}", "a.txt", path)))
    return found


def test_every_change_without_the_sessions_token_is_refused(served: Served, visitor: Visitor) -> None:
    tried = [(method, path) for method, path in changes(served) if path != "/sign-in"]
    assert {"/sign-out", "/documents", "/portal/ask", "/portal/check"} <= {path for _, path in tried}
    boundary = {"Content-Type": "multipart/form-data; boundary=b"}
    for method, path in tried:
        wrong: list[dict[str, str]] = [{}, {"X-CSRF-Token": "0" * 64}]
        for sent in wrong:
            part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nx\r\n--b--\r\n'
            upload = path == "/documents"
            given = {**boundary, **sent} if upload else sent
            reply = visitor.http.request(method, path, content=part if upload else b"", headers=given)
            assert reply.status_code == 403, (method, path)
            assert "did not come from a page of ours" in reply.text
    other = Visitor(served).sign_in().token
    assert visitor.http.post("/portal/check", headers={"X-CSRF-Token": other}).status_code == 403
    assert visitor.http.post("/portal/check", headers={"X-CSRF-Token": visitor.token}).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_change_that_another_site_asks_for_is_refused_even_with_the_token(
    served: Served, visitor: Visitor, sent: dict[str, str]
) -> None:
    token = visitor.token
    for method, path in changes(served):
        reply = visitor.http.request(method, path, headers={**sent, "X-CSRF-Token": token}, data={"token": "x"})
        assert reply.status_code == 403, (method, path)


def test_a_plain_form_of_ours_passes_though_its_origin_reads_null(served: Served) -> None:
    sent = {"Origin": "null", "Sec-Fetch-Site": "same-origin"}
    assert served.bare().post("/sign-in", data={"token": served.key()}, headers=sent).status_code == 303
    own = {"Origin": served.url, "Sec-Fetch-Site": "same-origin"}
    assert served.bare().post("/sign-in", data={"token": served.key()}, headers=own).status_code == 303


# --- walls ------------------------------------------------------------------------------------------------------------


def test_a_foreign_tenants_document_looks_like_none(served: Served, depot: str) -> None:
    stranger = Visitor(served).sign_in(tenant="globex")
    for path in ("/source", "/erase", "/erasure", "/erasure/file"):
        foreign, unknown = (stranger.get(f"/documents/{each}{path}") for each in (depot, NOBODY))
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.text == unknown.text
    for path in ("/erase", "/retry"):
        foreign, unknown = (stranger.post(f"/documents/{each}{path}") for each in (depot, NOBODY))
        assert foreign.status_code == unknown.status_code == 404
    assert "depot.txt" not in stranger.get("/documents").text


def test_a_foreign_tenants_receipt_looks_like_none(served: Served, visitor: Visitor, depot: str) -> None:
    receipt = re.findall(r"/receipts/([0-9a-f-]{36})", visitor.row("depot.txt"))[0]
    assert visitor.get(f"/receipts/{receipt}").status_code == 200
    stranger = Visitor(served).sign_in(tenant="globex")
    assert stranger.get(f"/receipts/{receipt}").status_code == stranger.get(f"/receipts/{NOBODY}").status_code == 404


def test_a_key_that_may_only_ask_sees_no_form_and_no_reports(served: Served, depot: str) -> None:
    asker = Visitor(served).sign_in("ask")
    page = asker.get("/documents").text
    assert 'id="upload"' not in page
    assert "/erase" not in page
    assert 'href="/reports"' not in page
    for path in ("/reports", f"/documents/{depot}/erase"):
        assert asker.get(path).status_code == 403
    put = asker.http.put("/portal/documents/a.txt?jurisdiction=DE", content=b"x", headers={"X-CSRF-Token": asker.token})
    assert put.status_code == 403
    assert "scope" in put.text
    assert asker.get("/ask").status_code == 200


def test_a_key_that_may_not_ask_sees_no_question_field(served: Served) -> None:
    bringer = Visitor(served).sign_in("upload")
    assert 'href="/ask"' not in bringer.get("/documents").text
    assert bringer.get("/ask").status_code == 403


# --- bringing in ------------------------------------------------------------------------------------------------------


def test_before_a_byte_is_sent_the_page_says_where_it_would_lie(visitor: Visitor) -> None:
    reply = visitor.post("/portal/check", jurisdiction="FR", residency="FR")
    assert reply.status_code == 200
    assert "fr-paris" in reply.text
    assert "<!doctype html>" in reply.text
    part = visitor.http.post(
        "/portal/check", data={"jurisdiction": "FR"}, headers={**FRAGMENT, "X-CSRF-Token": visitor.token}
    )
    assert "<!doctype" not in part.text
    assert 'data-permitted="true"' in part.text


def test_a_refused_check_names_the_clause_and_the_remedy(visitor: Visitor) -> None:
    reply = visitor.post("/portal/check", jurisdiction="DE", residency="FR", categories="health")
    assert "forbid-health-de-outside-de" in reply.text
    assert "Health data under German law stays in Germany" in reply.text
    assert "Next:" in reply.text
    assert 'data-permitted="false"' in reply.text


@pytest.mark.parametrize("given", [{}, {"jurisdiction": "XX"}, {"jurisdiction": "DE", "classification": "9"}])
def test_a_check_of_nonsense_names_cause_and_next_step(visitor: Visitor, given: dict[str, str]) -> None:
    reply = visitor.post("/portal/check", **given)
    assert reply.status_code == 200
    assert 'data-permitted="false"' in reply.text
    assert "Next:" in reply.text


def test_a_raw_body_comes_in_with_the_sessions_token(visitor: Visitor) -> None:
    sent = {"X-CSRF-Token": visitor.token, **FRAGMENT}
    reply = visitor.http.put("/portal/documents/gates%20%26%20keys.txt?jurisdiction=DE", content=DEPOT, headers=sent)
    assert reply.status_code == 202
    assert "received and sealed" in reply.text
    again = visitor.http.put("/portal/documents/gates%20%26%20keys.txt?jurisdiction=DE", content=DEPOT, headers=sent)
    assert "nothing changed" in again.text
    assert 'data-state="live"' in visitor.row("gates &amp; keys.txt")


def test_what_is_wrong_with_one_file_is_told_beside_it_and_the_others_come_in(visitor: Visitor) -> None:
    reply = visitor.send({"empty.txt": "", "fine.txt": DEPOT + "Fine.", "..": "x"})
    assert reply.status_code == 200
    assert "<strong>empty.txt</strong>: The file is empty" in reply.text
    assert "<strong>fine.txt</strong>: received and sealed" in reply.text
    assert "path component" in reply.text


def test_a_form_without_a_file_says_so(visitor: Visitor) -> None:
    reply = visitor.send({"": ""})
    assert reply.status_code == 422
    assert "No file was chosen" in reply.text


def test_a_failed_document_says_why_and_can_be_tried_again(visitor: Visitor) -> None:
    visitor.send({"broken.pdf": b"%PDF-1.7\n" + b"no objects here\n" * 20})
    row = visitor.row("broken.pdf")
    assert 'data-state="failed"' in row
    assert "Next:" in row
    assert visitor.post(f"/documents/{visitor.id('broken.pdf')}/retry").headers["location"] == "/documents"
    assert 'data-state="failed"' in visitor.row("broken.pdf")
    assert visitor.post(f"/documents/{visitor.id('fine.txt')}/retry").status_code == 409


# --- asking, opening, reporting, erasing ------------------------------------------------------------------------------


def test_an_answer_carries_marks_sources_places_and_its_receipt(visitor: Visitor, depot: str) -> None:
    reply = ask(visitor, "When does the gate of the northern depot close?")
    assert "<!doctype html>" in reply.text
    assert "closes at 18:30." in reply.text
    assert ">[1]</a>" in reply.text
    assert "Answered in Germany (DE)" in reply.text
    receipt = re.findall(r"/receipts/([0-9a-f-]{36})/file", reply.text)[0]
    bundle = visitor.get(f"/receipts/{receipt}/file")
    assert bundle.json()["receipt"]["kind"] == "answer"
    assert f'filename="receipt-{receipt}.json"' in bundle.headers["content-disposition"]
    assert "Signed, and proven to stand in the ledger" in visitor.get(f"/receipts/{receipt}").text
    assert visitor.get("/portal/trust").text.startswith("log ")
    assert visitor.get(f"/receipts?id={receipt}").headers["location"] == f"/receipts/{receipt}"


def test_a_citations_link_opens_the_page_with_exactly_its_quote_marked(visitor: Visitor, depot: str) -> None:
    reply = ask(visitor, "When does the gate of the northern depot close?", headers=FRAGMENT)
    assert "<!doctype" not in reply.text
    link = html.unescape(re.findall(r'class="citation" href="([^"#]*)', reply.text)[0])
    quote = re.findall(r"<q[^>]*>([^<]*)</q>", reply.text)[0]
    source = visitor.get(link)
    assert source.status_code == 200
    assert f'<mark id="quote">{quote}</mark>' in source.text
    assert "receipt" in source.text


def test_what_is_not_there_is_an_answer_with_a_next_step(visitor: Visitor, depot: str) -> None:
    text = ask(visitor, "What is the melting point of tungsten?").text
    assert "Not in your documents" in text
    assert "Next:" in text


def test_text_and_names_of_documents_are_never_markup(visitor: Visitor) -> None:
    visitor.send({"<b>motto<b>.txt": WILD})
    row = visitor.row("&lt;b&gt;motto&lt;b&gt;.txt")
    assert "<b>motto" not in row
    identifier = re.findall(r'data-key="([0-9a-f]+)"', row)[0]
    source = visitor.get(f"/documents/{identifier}/source").text
    assert "<script>alert" not in source
    assert "&lt;script&gt;alert" in source
    answer = ask(visitor, "What is the motto of the depot, said the porter?").text
    assert "<script>alert" not in answer
    assert "<b>nothing" not in answer


def test_a_report_is_shown_and_given_in_every_format(visitor: Visitor, depot: str) -> None:
    page = visitor.get("/reports", params={"from": "2026-01-01", "to": "2099-12-31"})
    assert "Where documents lie" in page.text
    starts = {"pdf": b"%PDF", "html": b"<!doctype html>", "xlsx": b"PK", "json": b"{", "csv": b""}
    for form, start in starts.items():
        given = visitor.get("/reports/file", params={"from": "2026-01-01", "to": "2099-12-31", "format": form})
        assert given.status_code == 200, form
        assert given.content.startswith(start)
        assert "attachment" in given.headers["content-disposition"]
    assert visitor.get("/reports", params={"from": "yesterday"}).status_code == 400


def test_a_hold_is_shown_with_its_reason_and_stops_an_erasure(visitor: Visitor) -> None:
    visitor.send({"held.txt": DEPOT + "Held."})
    identifier, client = visitor.id("held.txt"), visitor.served.client("admin")
    held = client.post("/v1/holds", json={"document": identifier, "reason": "LG Musterstadt 3 O 17/26"}).json()
    for path in ("/documents", f"/documents/{identifier}/erase"):
        assert "LG Musterstadt 3 O 17/26" in visitor.get(path).text
    assert visitor.post(f"/documents/{identifier}/erase").status_code == 409
    assert 'data-state="live"' in visitor.row("held.txt")
    assert client.delete(f"/v1/holds/{held['id']}").status_code == 200
    assert "LG Musterstadt" not in visitor.get("/documents").text


def test_erasing_asks_first_and_ends_in_a_complete_certificate(visitor: Visitor) -> None:
    visitor.send({"gone.txt": DEPOT + "Gone."})
    identifier = visitor.id("gone.txt")
    assert "cannot be undone" in visitor.get(f"/documents/{identifier}/erase").text
    assert 'data-state="live"' in visitor.row("gone.txt")
    assert visitor.post(f"/documents/{identifier}/erase").headers["location"] == f"/documents/{identifier}/erasure"
    visitor.served.do(visitor.served.house.worker.drain())
    certificate = visitor.get(f"/documents/{identifier}/erasure", headers=FRAGMENT).text
    assert 'data-state="complete"' in certificate
    assert visitor.get(f"/documents/{identifier}/erasure/file").json()["state"] == "complete"
    assert "gone.txt" not in visitor.get("/documents").text


def test_a_pdfs_full_lines_flow_and_no_offset_moves() -> None:
    text = "A heading\r\nThis line is as long as lines on this page are, and\r\ngoes on here.\r\n2 Next\r\nEnd"
    shown = flowing(text)
    assert len(shown) == len(text)
    assert "are, and\0 goes on" in shown
    assert "A heading\0\nThis" in shown
    assert "here.\0\n2 Next" in shown


def test_a_line_that_ends_with_a_space_gets_no_second_one() -> None:
    assert flowing("As long as the lines of this page are \nand on.\nEnd").startswith(
        "As long as the lines of this page are \0and"
    )


def test_a_violation_is_shown_with_the_reports_and_acknowledged_there(served: Served) -> None:
    visitor = Visitor(served).sign_in(tenant="watchful")
    assert "0 violations are unresolved" in visitor.get("/reports").text
    found = served.house.violations.found("watchful", "location", "0" * 32, policy="permit-in-residency")
    assert "permit-in-residency" in visitor.get("/reports").text
    assert visitor.post(f"/reports/violations/{found.id}").status_code in {200, 303}
    assert served.house.violations.get("watchful", found.id).state == "acknowledged"
    assert "Acknowledge</button>" not in visitor.get("/reports").text
    assert "0 violations are unresolved" in Visitor(served).sign_in(tenant="elsewhere").get("/reports").text
