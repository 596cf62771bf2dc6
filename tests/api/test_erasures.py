"""`/v1/erasures` and `/v1/holds`: many documents by one order, and a hold that stops it; never another tenant's."""

import time

import httpx
import pytest

from tests.doubles.serving import Served, live

pytestmark = pytest.mark.enable_socket

TEXT = "The gate of the northern depot closes at 18:30.\n"
REASON = "LG Musterstadt 3 O 17/26"


def test_a_hold_stops_an_order_with_its_reason_and_without_it_the_order_is_completed(client: httpx.Client) -> None:
    ids = [live(client, f"{n}.txt", TEXT + str(n), collection="jobs")["id"] for n in range(2)]
    held = client.post("/v1/holds", json={"collection": "jobs", "reason": REASON})
    assert held.status_code == 201 and held.json()["collection"] == "jobs"
    for reply in (client.post("/v1/erasures", json={"collection": "jobs"}), client.delete(f"/v1/documents/{ids[0]}")):
        assert (reply.status_code, reply.json()["code"]) == (409, "on_hold")
        assert REASON in reply.json()["detail"] and held.json()["id"] in reply.json()["hint"]
    assert [client.get(f"/v1/documents/{each}").json()["state"] for each in ids] == ["live", "live"]
    assert client.delete(f"/v1/holds/{held.json()['id']}").json()["lifted"] is not None
    assert client.get("/v1/holds").json()["data"] == []
    assert [each["id"] for each in client.get("/v1/holds", params={"lifted": True}).json()["data"]] == [
        held.json()["id"]
    ]
    order = client.post("/v1/erasures", json={"collection": "jobs"})
    assert (order.status_code, order.json()["documents"]) == (202, 2)
    until = time.monotonic() + 60
    while (done := client.get(f"/v1/erasures/{order.json()['id']}").json())["state"] != "complete":
        assert time.monotonic() < until
        time.sleep(0.05)
    assert done["erased"] == 2 and {line["store"] for line in done["stores"]} >= {"keys", "points", "sealed files"}
    assert [each["id"] for each in client.get("/v1/erasures").json()["data"]] == [done["id"]]


def test_what_is_no_order_and_what_is_anothers_is_refused(client: httpx.Client, served: Served) -> None:
    document = live(client, "kept.txt", TEXT)["id"]
    for body in ({}, {"collection": "default", "everything": True}):
        assert client.post("/v1/erasures", json=body).status_code == 400
    assert client.post("/v1/erasures", json={"collection": "nowhere"}).status_code == 404
    assert client.post("/v1/holds", json={"document": document, "reason": " "}).json()["code"] == "state_conflict"
    held = client.post("/v1/holds", json={"document": document, "reason": REASON}).json()["id"]
    other = served.client(tenant="other")
    assert other.post("/v1/holds", json={"document": document, "reason": "x"}).status_code == 404
    assert other.delete(f"/v1/holds/{held}").status_code == 404
    assert other.get("/v1/holds").json()["data"] == []
    assert other.get(f"/v1/erasures/{'0' * 32}").status_code == 404
    weak = served.client("ask")
    assert weak.post("/v1/erasures", json={"everything": True}).status_code == 403
    assert weak.post("/v1/holds", json={"document": document, "reason": "x"}).status_code == 403
