"""The review queue over HTTP: who sees it, what evidence shows, one decision, and retagging."""

import json
import time

import httpx
import pytest

from tests.doubles.serving import Served, live, put, settled

pytestmark = pytest.mark.enable_socket

BILL = "IBAN FR14 2004 1010 0505 0001 3M02 606. TVA FR40303265045. Merci de payer la facture sous trente jours.\n"
ACCEPT = {"action": "accept", "ground": "declaration-right"}


def disputed(client: httpx.Client, name: str) -> str:
    found = settled(client, put(client, name, BILL + name).json()["id"])
    assert found["error"]["code"] == "tag_disputed"
    return str(found["id"])


def until_live(client: httpx.Client, identifier: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for _ in range(600):
        found = client.get(f"/v1/documents/{identifier}").json()
        if found["state"] == "live":
            return found
        time.sleep(0.05)
    raise AssertionError(found)


def test_evidence_is_shown_by_place_and_its_text_by_a_recorded_opening(client: httpx.Client) -> None:
    identifier = disputed(client, "bill.txt")
    assert identifier in {row["id"] for row in client.get("/v1/reviews").json()["data"]}
    seen = client.get(f"/v1/reviews/{identifier}").json()
    assert seen["suggested"]["jurisdictions"] == ["DE", "FR"] and seen["decision"] is None
    assert "2004" not in json.dumps(seen["evidence"])
    [number] = [at for at, item in enumerate(seen["evidence"]) if item["kind"] == "iban"]
    opened = client.get(f"/v1/reviews/{identifier}/evidence/{number}").json()
    place = slice(opened["start"] - opened["text_start"], opened["end"] - opened["text_start"])
    assert opened["text"][place] == "FR14 2004 1010 0505 0001 3M02 606"
    steps = client.get(f"/v1/receipts/{opened['receipt']}").json()["receipt"]["steps"]
    assert {step.get("reason") for step in steps if step["action"] == "open"} == {"review"}
    assert client.get(f"/v1/reviews/{identifier}/evidence/0").status_code == 400  # what was declared stands nowhere


def test_the_first_decision_stands_and_is_named_to_whoever_comes_second(served: Served, client: httpx.Client) -> None:
    identifier = disputed(client, "twice.txt")
    made = client.post(f"/v1/reviews/{identifier}", json=ACCEPT)
    assert made.status_code == 200 and made.headers["Domicile-Receipt"] == made.json()["receipt"]
    assert client.post(f"/v1/reviews/{identifier}", json=ACCEPT).json() == made.json()
    other = served.client("review")
    late = other.post(f"/v1/reviews/{identifier}", json={"action": "reject", "ground": "other"})
    assert late.status_code == 409 and late.json()["decision"] == made.json()
    facts = client.get(f"/v1/receipts/{made.json()['receipt']}").json()["receipt"]["facts"]
    assert (facts["stage"], facts["action"]) == ("reviewed", "accept") and facts["by"].startswith("key:")
    assert until_live(client, identifier)["version"] == 1


def test_a_live_document_is_retagged_and_widening_is_refused(client: httpx.Client) -> None:
    identifier = live(client, "pay.txt", "The pay of a porter rises by one step each year.\n")["id"]
    path = f"/v1/documents/{identifier}/retag"
    assert client.post(path, json={"ground": "other", "residency": ["GDPR-ADEQUATE"]}).status_code == 400
    nowhere = client.post(path, json={"ground": "other", "residency": ["MT"]})
    assert nowhere.status_code == 403 and nowhere.json()["code"] == "residency_refused"
    made = client.post(path, json={"ground": "found-by-hand", "categories": ["employment"]})
    assert made.status_code == 202, made.text
    now = until_live(client, identifier)
    assert now["version"] == 2 and now["tag"]["categories"] == ["employment"]  # type: ignore[index]


def test_only_reviewers_of_the_tenant_see_the_queue(served: Served, client: httpx.Client) -> None:
    identifier = disputed(client, "mine.txt")
    assert served.client("ask", "upload", "report").get("/v1/reviews").status_code == 403
    other = served.client(tenant="harbour")
    assert other.get(f"/v1/reviews/{identifier}").status_code == 404
    assert other.post(f"/v1/reviews/{identifier}", json=ACCEPT).status_code == 404
    assert client.post(f"/v1/reviews/{identifier}", json=ACCEPT | {"action": "widen"}).status_code == 400
    assert client.post(f"/v1/reviews/{identifier}", json={"action": "accept", "ground": "mood"}).status_code == 400
