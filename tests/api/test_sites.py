"""Sites, Zones and moves over HTTP, against a really served house of four Sites."""

import httpx
import pytest

from tests.doubles.serving import Served, live, settled

pytestmark = pytest.mark.enable_socket


def moved(client: httpx.Client, document_id: str) -> dict[str, str]:
    import time

    for _ in range(600):
        found: dict[str, str] = client.get(f"/v1/documents/{document_id}/move").json()
        if found["state"] in {"done", "failed"}:
            return found
        time.sleep(0.05)
    raise AssertionError("the move came to no end")


def test_sites_are_listed_with_their_state_and_without_their_addresses(client: httpx.Client) -> None:
    body = client.get("/v1/sites").json()
    sites = {site["id"]: site for site in body["data"]}
    assert len(sites) == 4 and {site["state"] for site in sites.values()} == {"open"}
    for site in sites.values():
        assert site["zone"] and site["operator"]["zone"] and site["verified_until"] and site["since"]
        assert 0 <= site["grade"] <= 6 and site["evidence"] and not site["cause"]
    assert "url" not in str(body) and "key" not in str([site["facts"] for site in sites.values()])


def test_zones_are_listed_with_what_they_rest_on(client: httpx.Client) -> None:
    body = client.get("/v1/zones").json()
    zones = {zone["code"]: zone for zone in body["data"]}
    assert {"EU", "EEA"} <= set(zones["DE"]["inside"]) and zones["EU"]["kind"] == "group"
    assert all(edge["source"] and edge["from"] for zone in zones.values() for edge in zone["within"])
    assert body["digest"].startswith("sha256:")


def test_both_are_for_every_key_and_for_nobody_without_one(served: Served) -> None:
    asking = served.client("ask")
    for path in ("/v1/sites", "/v1/zones"):
        assert asking.get(path).status_code == 200
        assert served.bare().get(path).status_code == 401


def test_a_closed_site_is_told_with_cause_and_since(served: Served, client: httpx.Client) -> None:
    name = client.get("/v1/sites").json()["data"][0]["id"]
    served.house.probing.lost(name, "its process died 3 times in 10 minutes")
    ready = served.bare().get("/readyz")
    told = ready.json().get("closed", {}).get(name)
    served.do(served.house.probing.once())
    assert ready.status_code == 200
    assert told is None or told["cause"] == "its process died 3 times in 10 minutes"  # the next probe may be quick
    assert "closed" not in served.bare().get("/readyz").json()


def test_a_document_is_moved_by_an_admin(served: Served, client: httpx.Client) -> None:
    held = live(client, "to-move.txt", "The lamp oil is kept in the north cellar.", residency="EU")
    open_to = [site["id"] for site in client.get("/v1/sites").json()["data"] if site["zone"] in {"DE", "FR"}]
    (target,) = [name for name in open_to if name != held["site"]][:1]
    assert served.client("upload").post(f"/v1/documents/{held['id']}/move", json={"site": target}).status_code == 403
    begun = client.post(f"/v1/documents/{held['id']}/move", json={"site": target})
    assert begun.status_code == 202 and begun.json()["to"] == target
    assert moved(client, held["id"]) == {
        "id": held["id"], "version": 2, "from": held["site"], "to": target, "state": "done", "cause": "",
    }  # fmt: skip
    now = settled(client, held["id"])
    assert (now["site"], now["name"], now["state"]) == (target, "to-move.txt", "live")
    found = client.post("/v1/search", json={"query": "where is the lamp oil kept"}).json()
    assert [result["site"] for result in found["results"] if result["document_id"] == held["id"]] == [target]


def test_a_move_beyond_the_residency_is_refused_with_its_clause(client: httpx.Client) -> None:
    held = live(client, "stays.txt", "This one stays in Germany.", residency="DE")
    abroad = next(site["id"] for site in client.get("/v1/sites").json()["data"] if site["zone"] == "FR")
    refused = client.post(f"/v1/documents/{held['id']}/move", json={"site": abroad})
    body = refused.json()
    assert refused.status_code == 403 and body["code"] == "residency_refused", body
    assert client.get(f"/v1/receipts/{body['receipt']}").json()["receipt"]["facts"]["to"] == abroad
    assert client.get(f"/v1/documents/{held['id']}").json()["site"] == held["site"]


def test_an_unknown_site_and_an_unknown_document_are_said_to_be_so(client: httpx.Client) -> None:
    held = live(client, "here.txt", "It lies here.", residency="EU")
    wrong = client.post(f"/v1/documents/{held['id']}/move", json={"site": "atlantis"})
    assert wrong.status_code in {400, 404, 503} and wrong.json()["hint"]
    assert client.post(f"/v1/documents/{'0' * 32}/move", json={"site": "atlantis"}).status_code == 404
    assert client.get(f"/v1/documents/{held['id']}/move").status_code == 404
