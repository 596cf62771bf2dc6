"""Documents over HTTP: in, listed, replaced, erased; and never another tenant's."""

import re
from typing import Any

import httpx
import pytest

from tests.doubles.serving import Served, erased, live, put, same, settled

pytestmark = pytest.mark.enable_socket

TEXT = "The gate of the northern depot closes at 18:30. The key hangs in the porter's lodge.\n"
BROKEN = b"%PDF-1.7\n" + b"no objects here\n" * 20
CALLS = [
    *(("POST", f"/{each}") for each in ("retry", "pause", "resume", "cancel")),
    ("GET", ""), ("GET", "/passages/0"), ("DELETE", ""), ("GET", "/erasure"),
]  # fmt: skip


def test_a_document_is_taken_in_with_its_id_its_tag_and_its_receipt(client: httpx.Client) -> None:
    reply = put(client, "depot.txt", TEXT, residency="EU")
    body = reply.json()
    assert reply.status_code == 202
    assert re.fullmatch(r"[0-9a-f]{32}", body["id"])
    assert body["name"] == "depot.txt"
    assert body["version"] == 1
    assert body["created"] is True
    assert body["tag"]["jurisdictions"] == ["DE"]
    assert body["tag"]["residency"] == ["EU"]
    assert reply.headers["location"] == f"/v1/documents/{body['id']}"
    assert reply.headers["domicile-receipt"] == body["receipt"]
    assert client.get(f"/v1/receipts/{body['receipt']}").json()["receipt"]["kind"] == "ingest"


def test_a_document_becomes_live_at_a_site_of_its_own_law(client: httpx.Client) -> None:
    found = live(client, "depot.txt", TEXT, residency="EU")
    assert found["site"] == "de-frankfurt"
    assert found["zone"] == "DE"
    assert found["passages"] == 1
    assert found["progress"] == 1.0
    assert found["error"] is None
    assert set(found) >= {"id", "name", "version", "state", "tag", "site", "zone", "pages", "passages", "progress"}


def test_the_same_bytes_again_change_nothing(client: httpx.Client) -> None:
    first, again = (put(client, "twice.txt", TEXT).json() for _ in range(2))
    assert again["created"] is False
    assert {k: again[k] for k in ("id", "version", "receipt")} == {k: first[k] for k in ("id", "version", "receipt")}
    assert settled(client, first["id"])["version"] == 1


def test_new_bytes_under_the_name_are_a_new_version_that_replaces_the_old(client: httpx.Client) -> None:
    first = live(client, "changing.txt", "The heron nests at the mill pond.\n", collection="changes")
    second = live(client, "changing.txt", "The heron nests at the quarry lake.\n", collection="changes")
    assert (second["id"], second["version"]) == (first["id"], 2)
    found = client.post("/v1/search", json={"query": "heron nests", "collection": "changes"}).json()["results"]
    assert [each["version"] for each in found] == [2]
    assert "quarry" in found[0]["text"]


def test_a_name_in_any_script_comes_back_as_it_was_sent(client: httpx.Client) -> None:
    for name in ("Prüfbericht №7 – Ω.txt", "報告 書.txt", "50% more & less?.txt"):
        reply = client.put(
            "/v1/documents/" + httpx.QueryParams({"n": name})["n"].replace("%", "%25").replace("?", "%3F"),
            params={"jurisdiction": "DE"},
            content=TEXT.encode(),
        )
        assert reply.status_code == 202, reply.text
        assert settled(client, reply.json()["id"])["name"] == name


def test_a_listing_walks_through_every_document_once(served: Served) -> None:
    client = served.client(tenant="lister")
    wanted = [put(client, f"page-{number}.txt", f"{TEXT} {number}").json()["id"] for number in range(5)]
    seen: list[str] = []
    after = ""
    while True:
        page = client.get("/v1/documents", params={"limit": 2, "after": after}).json()
        assert len(page["data"]) <= 2
        seen += [each["id"] for each in page["data"]]
        after = page["next"]
        assert page["has_more"] is bool(after)
        if not after:
            break
    assert seen == wanted[::-1]


def test_a_listing_can_be_narrowed_to_states_and_a_collection(served: Served) -> None:
    client = served.client(tenant="narrow")
    good = live(client, "good.txt", TEXT, collection="a")
    bad = put(client, "bad.pdf", BROKEN, collection="b").json()
    assert settled(client, bad["id"])["state"] == "failed"

    def ids(**chosen: str) -> list[str]:
        return [each["id"] for each in client.get("/v1/documents", params=chosen).json()["data"]]

    assert ids(state="failed") == [bad["id"]]
    assert ids(state="live,failed") == [bad["id"], good["id"]]
    assert ids(collection="a") == [good["id"]]
    assert ids(collection="none-such") == []


@pytest.mark.parametrize(
    ("query", "param"),
    [({"after": "!!"}, "after"), ({"state": "asleep"}, "state"), ({"limit": "0"}, ""), ({"limit": "1000"}, "")],
)
def test_a_listing_refuses_what_it_cannot_read(client: httpx.Client, query: dict[str, str], param: str) -> None:
    reply = client.get("/v1/documents", params=query)
    assert reply.status_code == 400
    assert reply.json()["code"] == "invalid_request"
    if param:
        assert reply.json()["error"]["param"] == param


def test_an_erased_document_leaves_a_certificate_and_nothing_else(client: httpx.Client) -> None:
    found = live(client, "short-lived.txt", "The walnut chest stands in the attic.\n", collection="attic")
    begun = client.delete(f"/v1/documents/{found['id']}")
    assert begun.status_code == 202
    assert begun.json()["state"] == "erasing"
    assert begun.json()["certificate"] == f"/v1/documents/{found['id']}/erasure"
    certificate = erased(client, found["id"])
    assert {each["store"] for each in certificate["stores"]} >= {"keys", "points", "database"}
    left = client.get(f"/v1/documents/{found['id']}").json()
    assert (left["state"], left["name"]) == ("erased", "")
    assert client.post("/v1/search", json={"query": "walnut chest", "collection": "attic"}).json()["results"] == []
    assert client.get("/v1/documents", params={"collection": "attic"}).json()["data"] == []
    assert client.get(f"/v1/receipts/{certificate['receipt']}").json()["receipt"]["kind"] == "erase"


def test_erasing_again_is_harmless_and_the_name_is_free_again(client: httpx.Client) -> None:
    found = live(client, "again.txt", TEXT, collection="again")
    erased(client, found["id"])
    assert client.delete(f"/v1/documents/{found['id']}").status_code == 202
    assert client.get(f"/v1/documents/{found['id']}/erasure").json()["state"] == "complete"
    assert live(client, "again.txt", TEXT, collection="again")["id"] != found["id"]


def test_a_certificate_of_what_nobody_erased_is_a_conflict_that_no_retry_helps(client: httpx.Client) -> None:
    found = live(client, "kept.txt", TEXT)
    reply = client.get(f"/v1/documents/{found['id']}/erasure")
    assert reply.status_code == 409
    assert reply.json()["code"] == "state_conflict"
    assert reply.headers["x-should-retry"] == "false"


def test_a_failed_document_says_why_and_can_be_tried_again(client: httpx.Client) -> None:
    taken = put(client, "broken.pdf", BROKEN).json()
    failed = settled(client, taken["id"])
    assert failed["state"] == "failed"
    assert failed["error"]["code"] == "broken_file"
    assert failed["error"]["hint"]
    again = client.post(f"/v1/documents/{taken['id']}/retry")
    assert again.status_code == 202
    assert again.json()["id"] == taken["id"]
    assert settled(client, taken["id"])["state"] == "failed"


def test_a_live_document_is_not_tried_again(client: httpx.Client) -> None:
    found = live(client, "fine.txt", TEXT)
    reply = client.post(f"/v1/documents/{found['id']}/retry")
    assert (reply.status_code, reply.json()["code"]) == (409, "state_conflict")


def test_a_passage_is_opened_with_its_neighbours_and_recorded(served: Served, client: httpx.Client) -> None:
    text = "\n\n".join(f"# Part {n}\n\nThe lamp of lock {n} burns from dusk until dawn." for n in range(5))
    found = live(client, "lamps.md", text)
    at = f"/v1/documents/{found['id']}/passages"
    reply = client.get(f"{at}/2", params={"around": 1})
    body = reply.json()
    assert [each["number"] for each in body["data"]] == [1, 2, 3] and body["of"] == found["passages"] == 5
    assert all(each["text"] == text[each["start"] : each["end"]] for each in body["data"])
    assert body["data"][1]["heading"] == "Part 2"
    assert client.get(f"/v1/receipts/{body['receipt']}").json()["receipt"]["kind"] == "search"
    assert [each["number"] for each in client.get(f"{at}/0", params={"around": 2}).json()["data"]] == [0, 1, 2]
    assert client.get(f"{at}/5").status_code == 404
    assert client.get(f"{at}/0", params={"around": 11}).status_code == 400
    assert served.client("upload").get(f"{at}/0").status_code == 403


def test_a_collection_says_how_its_passages_are_cut(client: httpx.Client) -> None:
    text = " ".join(f"The lamp of lock {n} burns until dawn." for n in range(30))
    assert live(client, "locks.txt", text, collection="whole")["passages"] == 1
    short = {"collection": "short", "words": 40, "overlap": 10}
    assert client.post("/v1/work/passages", json=short).json() == short
    found = live(client, "locks.txt", text, collection="short")
    assert found["passages"] > 5
    data = client.get(f"/v1/documents/{found['id']}/passages/1", params={"around": 1}).json()["data"]
    assert all(each["text"] == text[each["start"] : each["end"]] for each in data)  # the overlap is not in it
    for wrong in ({"words": 5}, {"words": 40, "overlap": 21}, {"overlap": -1}):
        assert client.post("/v1/work/passages", json={"collection": "short", **wrong}).status_code == 400


def test_work_on_a_collection_is_braked_and_goes_on(client: httpx.Client) -> None:
    live(client, "before.txt", TEXT, collection="braked")
    assert client.post("/v1/work/pause", json={"collection": "braked"}).json() == {
        "collection": "braked",
        "paused": True,
    }
    taken = put(client, "waiting.txt", "A heron.\n", collection="braked").json()
    found = client.get("/v1/work", params={"collection": "braked"}).json()
    assert (found["states"], found["waiting"], found["paused"]) == ({"live": 1, "sealed": 1}, 1, True)
    assert found["eta_s"] is None and 0.5 < found["progress"] < 1
    assert client.get("/v1/work", params={"document": taken["id"]}).json()["progress"] == 0.05
    paused = client.post(f"/v1/documents/{taken['id']}/pause")
    assert (paused.status_code, paused.json()["error"]["code"]) == (202, "paused")
    client.post("/v1/work/resume", json={"collection": "braked"})
    assert client.get(f"/v1/documents/{taken['id']}").json()["state"] == "sealed"
    assert client.post(f"/v1/documents/{taken['id']}/resume").json()["error"] is None
    assert settled(client, taken["id"])["state"] == "live"
    refused = client.post(f"/v1/documents/{taken['id']}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "state_conflict")
    assert client.get("/v1/work", params={"collection": "nowhere"}).status_code == 404


@pytest.mark.parametrize(("method", "rest"), CALLS)
def test_another_tenants_id_looks_exactly_like_one_that_never_was(
    served: Served, client: httpx.Client, method: str, rest: str
) -> None:
    mine = live(client, "mine.txt", TEXT)["id"]
    stranger = served.client(tenant="stranger")
    foreign = stranger.request(method, f"/v1/documents/{mine}{rest}")
    unknown = stranger.request(method, f"/v1/documents/{'0' * 32}{rest}")
    assert foreign.status_code == 404
    assert foreign.json()["code"] == "not_found"
    assert same(foreign, unknown)
    assert client.get(f"/v1/documents/{mine}").json()["state"] == "live"


def test_a_document_of_a_group_is_seen_by_that_group_alone(served: Served, client: httpx.Client) -> None:
    taken = put(client, "council.txt", TEXT, groups="works-council", collection="council").json()
    settled(client, taken["id"])
    member = served.client("ask", groups=("works-council",))
    other = served.client("ask", groups=("kitchen",))
    query: dict[str, Any] = {"query": "northern depot gate", "collection": "council"}
    assert len(member.post("/v1/search", json=query).json()["results"]) == 1
    assert other.post("/v1/search", json=query).json()["results"] == []
    assert other.get(f"/v1/documents/{taken['id']}").status_code == 404
    assert other.get("/v1/documents", params={"collection": "council"}).json()["data"] == []


def test_two_tenants_may_use_the_same_name_for_the_same_bytes(served: Served, client: httpx.Client) -> None:
    other = served.client(tenant="neighbour")
    ids = [live(each, "shared-name.txt", TEXT)["id"] for each in (client, other)]
    assert ids[0] != ids[1]
