"""The portal's review pages: the queue, evidence with its passage, and a decision from our own page alone."""

import pytest

from tests.doubles.serving import Served
from tests.doubles.visiting import Visitor

pytestmark = pytest.mark.enable_socket

BILL = "IBAN FR14 2004 1010 0505 0001 3M02 606. TVA FR40303265045. Merci de payer la facture <b>vite</b>.\n"


def disputed(visitor: Visitor, name: str) -> str:
    assert visitor.send({name: BILL + name}).status_code == 303
    assert 'data-state="quarantined"' in visitor.row(name)
    return visitor.id(name)


def test_a_reviewer_sees_evidence_and_opens_its_passage(visitor: Visitor) -> None:
    identifier = disputed(visitor, "seen.txt")
    assert f"/reviews/{identifier}" in visitor.get("/reviews").text
    shown = visitor.get(f"/reviews/{identifier}")
    assert shown.status_code == 200 and "Account number" in shown.text and "France" in shown.text
    assert "2004 1010" not in shown.text and 'value="DE, FR"' in shown.text
    opened = visitor.get(f"/documents/{identifier}/source?version=1&page=1&start=5&end=38").text
    assert '<mark id="quote">FR14 2004 1010 0505 0001 3M02 606</mark>' in opened and "&lt;b&gt;" in opened


def test_a_decision_leads_to_its_receipt_and_a_second_one_to_the_first(visitor: Visitor) -> None:
    identifier = disputed(visitor, "ruled.txt")
    wanted = {"action": "accept", "ground": "declaration-right"}
    made = visitor.post(f"/reviews/{identifier}", **wanted)
    assert made.status_code == 303 and made.headers["location"].startswith("/receipts/")
    assert 'data-state="live"' in visitor.row("ruled.txt")
    late = visitor.post(f"/reviews/{identifier}", action="reject", ground="other")
    assert late.status_code == 409 and "Another decision stands" in late.text


def test_widening_and_half_forms_are_refused_with_what_to_do(visitor: Visitor) -> None:
    identifier = disputed(visitor, "wide.txt")
    narrow = {
        "action": "narrow",
        "ground": "evidence-right",
        "jurisdictions": "FR",
        "residency": "EU",
        "personal": "true",
    }
    wider = visitor.post(f"/reviews/{identifier}", **narrow)
    assert wider.status_code == 400 and "wider" in wider.text
    assert visitor.post(f"/reviews/{identifier}", ground="other").status_code == 400
    assert visitor.post(f"/reviews/{identifier}", action="reject").status_code == 400
    assert f"/reviews/{identifier}" in visitor.get("/reviews").text


def test_only_reviewers_come_in_and_only_from_our_own_page(served: Served, visitor: Visitor) -> None:
    identifier = disputed(visitor, "mine.txt")
    other = Visitor(served).sign_in("ask", "upload")
    assert other.get("/reviews").status_code == 403 and 'href="/reviews"' not in other.get("/documents").text
    assert visitor.http.post(f"/reviews/{identifier}", data={"action": "reject", "ground": "other"}).status_code == 403
    assert Visitor(served).sign_in(tenant="harbour").get(f"/reviews/{identifier}").status_code == 404
