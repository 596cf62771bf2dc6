"""Search over HTTP: passages from permitted places, exact slices, and what was held back."""

from typing import Any

import httpx
import pytest

from service.home import office
from tests.doubles.serving import Served, live, same

pytestmark = pytest.mark.enable_socket

OTTER = "The otter sleeps under the third arch of the bridge. It fishes at dusk.\n"
CRANE = "The crane in hall two lifts at most 3,200 kg. Its rope is checked every March.\n"


@pytest.fixture(scope="module")
def stocked(client: httpx.Client) -> httpx.Client:
    live(client, "otter.txt", OTTER, residency="EU")
    live(client, "crane.md", CRANE, residency="DE")
    return client


def search(client: httpx.Client, query: str, **more: Any) -> httpx.Response:
    return client.post("/v1/search", json={"query": query, **more})


def test_a_search_gives_the_passage_its_place_and_a_receipt(stocked: httpx.Client) -> None:
    body = search(stocked, "Where does the otter sleep?", top_k=1).json()
    (found,) = body["results"]
    assert found["name"] == "otter.txt"
    assert found["text"] == OTTER[found["start"] : found["end"]]
    assert (found["site"], found["zone"], found["page"], found["version"]) == ("de-frankfurt", "DE", 1, 1)
    assert 0 < found["score"] <= 1
    assert (body["withheld"], body["unreached"]) == (0, [])
    receipt = stocked.get(f"/v1/receipts/{body['receipt']}").json()["receipt"]
    assert receipt["kind"] == "search"
    assert {step["site"] for step in receipt["steps"]} == {"de-frankfurt"}


def test_results_come_best_first_and_no_more_than_asked_for(stocked: httpx.Client) -> None:
    results = search(stocked, "crane rope checked", top_k=2).json()["results"]
    assert results[0]["name"] == "crane.md"
    assert [each["score"] for each in results] == sorted((each["score"] for each in results), reverse=True)
    assert len(search(stocked, "crane rope checked", top_k=1).json()["results"]) == 1


def test_a_filter_narrows_a_search_to_documents(stocked: httpx.Client) -> None:
    listed = {each["name"]: each["id"] for each in stocked.get("/v1/documents").json()["data"]}
    results = search(stocked, "crane rope", filters={"documents": [listed["otter.txt"]]}).json()["results"]
    assert {each["name"] for each in results} == {"otter.txt"}
    assert search(stocked, "crane rope", filters={"documents": []}).json()["results"] == []
    assert search(stocked, "crane rope", filters={}).json()["results"] != []


def test_an_empty_collection_gives_nothing_and_an_unknown_one_is_not_found(stocked: httpx.Client) -> None:
    stocked.post("/v1/vector_stores", json={"name": "empty"}).raise_for_status()
    body = search(stocked, "otter", collection="empty").json()
    assert (body["results"], body["withheld"]) == ([], 0)
    assert body["receipt"]
    reply = search(stocked, "otter", collection="none-such")
    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")
    chat = {"model": "domicile/none-such", "messages": [{"role": "user", "content": "Where are the otters?"}]}
    for path, asked in (
        ("/v1/answers", {"question": "Where are the otters?", "collection": "none-such"}),
        ("/v1/chat/completions", chat),
    ):
        assert stocked.post(path, json=asked).json()["code"] == "not_found"


def test_a_strangers_collection_looks_like_one_that_never_was(served: Served, stocked: httpx.Client) -> None:
    stocked.post("/v1/vector_stores", json={"name": "mergers"}).raise_for_status()
    stranger = served.client("ask", tenant="stranger")
    assert same(search(stranger, "otter", collection="mergers"), search(stranger, "otter", collection="none-such"))
    assert search(stranger, "otter").json()["results"] == []


def test_nothing_crosses_tenants(served: Served, stocked: httpx.Client) -> None:
    stranger = served.client(tenant="stranger")
    assert search(stranger, "otter bridge").json()["results"] == []
    ids = [each["id"] for each in stocked.get("/v1/documents").json()["data"]]
    assert search(stranger, "otter bridge", filters={"documents": ids}).json()["results"] == []


def test_passages_out_of_reach_are_counted_and_not_shown(served: Served) -> None:
    client = served.client(tenant="narrowed", ceiling=("DE", "FR"))
    live(client, "here.txt", OTTER, residency="DE")
    there = live(client, "la.txt", CRANE, jurisdiction="FR", residency="FR")
    assert there["site"] == "fr-paris"
    with office(served.settings) as accounts:
        accounts.set_ceiling("narrowed", ["DE"])
    body = search(client, "crane in hall two").json()
    assert {each["name"] for each in body["results"]} == {"here.txt"}
    assert body["withheld"] == 1
    receipt = client.get(f"/v1/receipts/{body['receipt']}").json()["receipt"]
    assert {step["site"] for step in receipt["steps"]} == {"de-frankfurt"}
    assert receipt["withheld"] == 1
    assert "forbid-outside-tenant-ceiling" in {each for one in receipt["refused"] for each in one["policies"]}


def test_a_search_that_may_reach_nothing_is_refused_with_its_clause(served: Served) -> None:
    client = served.client(tenant="shut", ceiling=("FR",))
    live(client, "la.txt", CRANE, jurisdiction="FR", residency="FR")
    with office(served.settings) as accounts:
        accounts.set_ceiling("shut", ["DE"])
    reply = search(client, "crane")
    assert reply.status_code == 403
    body = reply.json()
    assert body["code"] == "residency_refused"
    assert [each["policy"] for each in body["reasons"]] == ["forbid-outside-tenant-ceiling"]
    assert "crane" not in reply.text


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"query": "otter", "top_k": 0}, "top_k"),
        ({"query": "otter", "top_k": 51}, "top_k"),
        ({"query": "otter", "top_k": "many"}, "top_k"),
        ({"query": "   "}, "empty"),
        ({}, "query"),
        ({"query": "otter", "collektion": "default"}, "collektion"),
        ({"query": "otter", "language": "what they speak"}, "language"),
        ({"query": "otter", "filters": {"author": "me"}}, "author"),
        ({"query": "otter", "filters": {"documents": "all"}}, "documents"),
    ],
)
def test_a_search_that_cannot_be_understood_says_what_is_wrong(
    stocked: httpx.Client, body: dict[str, Any], says: str
) -> None:
    reply = stocked.post("/v1/search", json=body)
    assert reply.status_code == 400
    assert reply.headers["content-type"].startswith("application/problem+json")
    assert says in reply.json()["detail"]
    assert "otter" not in reply.text


def test_a_text_that_lies_there_twice_is_one_result_and_the_next_best_takes_the_place(client: httpx.Client) -> None:
    rule = "Skates are rented at the east gate of the rink until nine in the evening. "
    texts = {
        "one.txt": rule,
        "two.txt": rule.replace(" ", "\n"),
        "ten.txt": rule.replace("nine", "10"),
        "bus.txt": "The bus to the rink leaves at noon.",
    }
    for name, text in texts.items():
        live(client, name, text, residency="EU", collection="rink")
    results = search(client, "Where are skates rented?", collection="rink", top_k=3).json()["results"]
    names = {"one.txt", "two.txt"}
    (folded,) = [each for each in results if each["name"] in names]
    (other,) = folded["also"]
    assert {folded["name"], other["name"]} == names
    assert sorted(each["name"] for each in results if each is not folded) == ["bus.txt", "ten.txt"]
    answer = client.post("/v1/answers", json={"question": "Where are skates rented?", "collection": "rink"}).json()
    cited = next(each for each in answer["citations"] if each["name"] in names)
    assert {cited["name"], *(each["name"] for each in cited["also"])} == names
