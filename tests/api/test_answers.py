"""Answers over HTTP: quotes that are the source's own text, marks that belong to them, abstentions, streams."""

from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from residency.decision import Principal
from service.accounts import ACTIVITIES
from service.catalogue import Page
from tests.doubles.serving import Served, live

pytestmark = pytest.mark.enable_socket

DOCUMENTS = Path(__file__).parents[2] / "examples" / "documents"
QUESTIONS = {
    "security-handbook.pdf": "How soon do I have to tell the service desk that I lost my hardware key?",
    "betriebsvereinbarung-mobile-arbeit.pdf": "Wie viel Euro bekommt man bei mobiler Arbeit je Arbeitstag für Strom?",
    "consignes-evacuation.txt": "Où se trouve le point de rassemblement en cas d'évacuation ?",
}
EMOJI = "The 🦦 code [7] is ÄÖÜ‑42. Its e\u0301tude hangs in room נ٣. The bell rings at 07:45.\n"


@pytest.fixture(scope="module")
def stocked(client: httpx.Client) -> httpx.Client:
    for name in QUESTIONS:
        live(client, name, (DOCUMENTS / name).read_bytes(), residency="EU", personal="false")
    live(client, "emoji.txt", EMOJI, collection="emoji")
    return client


def ask(client: httpx.Client, question: str, **more: Any) -> dict[str, Any]:
    reply = client.post("/v1/answers", json={"question": question, **more})
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


def hold(body: dict[str, Any]) -> None:
    """Every letter lies in a claim or a mark; marks say their citation's number and overlap nothing."""
    text, inside = body["answer"], set[int]()
    assert [each["index"] for each in body["citations"]] == list(range(1, len(body["citations"]) + 1))
    spans = []
    for citation in body["citations"]:
        assert len(citation["claims"]) == len(citation["marks"]) >= 1
        for start, end in citation["marks"]:
            assert text[start:end] == f"[{citation['index']}]"
            spans.append((start, end))
        for start, end in citation["claims"]:
            assert text[start:end].strip()
            spans.append((start, end))
    for start, end in set(spans):
        assert not inside & set(range(start, end))
        inside |= set(range(start, end))
    assert all(text[at].isspace() for at in set(range(len(text))) - inside)


@pytest.mark.parametrize("name", QUESTIONS)
def test_each_quote_is_the_stored_text_at_its_offsets(served: Served, stocked: httpx.Client, name: str) -> None:
    body = ask(stocked, QUESTIONS[name])
    assert not body["abstained"]
    assert name in {each["name"] for each in body["citations"]}
    hold(body)
    reader = Principal("reader", "acme", ACTIVITIES, frozenset({"ask"}), "DE")
    for each in body["citations"]:
        source = served.do(
            served.house.catalogue.source(reader, each["document_id"], version=each["version"], page=each["page"])
        )
        assert isinstance(source, Page)
        assert source.page == each["page"]
        assert source.text[each["start"] - source.start : each["end"] - source.start] == each["quote"]
        assert each["url"].startswith(f"{served.settings.public_url}/documents/{each['document_id']}/source?")


def test_a_bracketed_number_in_a_source_is_never_taken_for_a_mark(stocked: httpx.Client) -> None:
    body = ask(stocked, "What is the otter code?", collection="emoji")
    assert not body["abstained"]
    hold(body)
    assert "[7]" not in body["answer"]
    for each in body["citations"]:
        assert EMOJI[each["start"] : each["end"]] == each["quote"]
    assert any("[7]" in each["quote"] for each in body["citations"])


def test_an_answer_names_who_wrote_it_where_and_its_receipt(stocked: httpx.Client) -> None:
    body = ask(stocked, QUESTIONS["security-handbook.pdf"])
    assert (body["answered_by"], body["fallback"], body["withheld"], body["unreached"]) == ("extractive", None, 0, [])
    assert body["zones"] == ["DE"]
    assert 0.5 <= body["confidence"] < 1
    receipt = stocked.get(f"/v1/receipts/{body['receipt']}").json()["receipt"]
    assert receipt["kind"] == "answer"
    assert "hardware" not in msgspec.json.encode(receipt).decode()


@pytest.mark.parametrize(
    ("question", "begins"),
    [
        ("What is the name of the captain of the ferry to Tromsø?", "The documents you may search"),
        ("Wie heißt der Kapitän der Fähre nach Tromsø?", "Die Dokumente, die Sie durchsuchen dürfen"),
    ],
)
def test_a_question_without_an_answer_gets_an_honest_sentence_in_its_language(
    stocked: httpx.Client, question: str, begins: str
) -> None:
    body = ask(stocked, question)
    assert (body["abstained"], body["reason"], body["citations"]) == (True, "no_support", [])
    assert body["answer"].startswith(begins)
    assert body["confidence"] < 0.5
    assert body["receipt"]


def test_a_question_whose_words_tell_no_language_abstains_in_the_one_that_was_named(stocked: httpx.Client) -> None:
    body = ask(stocked, "Tromsø 1873?", language="fr")
    assert body["answer"].startswith("Les documents que vous pouvez consulter")
    assert stocked.post("/v1/answers", json={"question": "Tromsø?", "language": "?"}).status_code == 400


def test_an_abstention_looks_the_same_whether_nothing_is_there_or_nothing_fits(stocked: httpx.Client) -> None:
    question = "What is the name of the captain of the ferry to Tromsø?"
    stocked.post("/v1/vector_stores", json={"name": "empty"}).raise_for_status()
    empty, other = ask(stocked, question, collection="empty"), ask(stocked, question)
    differ = {"receipt", "confidence", "zones"}
    assert {k: v for k, v in empty.items() if k not in differ} == {k: v for k, v in other.items() if k not in differ}


def test_a_stream_tells_the_same_answer_event_by_event(stocked: httpx.Client) -> None:
    question = QUESTIONS["security-handbook.pdf"]
    plain = ask(stocked, question)
    events: list[tuple[str, Any]] = []
    with stocked.stream("POST", "/v1/answers", params={"stream": "true"}, json={"question": question}) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["cache-control"] == "no-store"
        for block in "".join(reply.iter_text()).split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
            if lines:
                events.append((lines["event"], msgspec.json.decode(lines["data"])))
    names = [name for name, _ in events]
    assert names == ["token"] * (len(events) - 3) + ["citations", "receipt", "done"]
    told = dict(events[-3:])
    assert "".join(data["text"] for name, data in events if name == "token") == plain["answer"]
    assert told["citations"]["citations"] == plain["citations"]
    assert told["receipt"]["receipt"] == told["done"]["receipt"] != plain["receipt"]
    assert told["done"] | {"receipt": ""} == plain | {"receipt": ""}
    for name, data in events:
        if name == "token":
            assert data["text"].count("[") == data["text"].count("]")


@pytest.mark.parametrize("stream", ["false", "true"])
def test_a_refused_question_is_a_status_code_with_its_clause_and_a_remedy(served: Served, stream: str) -> None:
    client = served.client(tenant="overseas", ceiling=("US",))
    reply = client.post("/v1/answers", params={"stream": stream}, json={"question": "Where is the gate key?"})
    assert reply.status_code == 403
    body = reply.json()
    assert (body["code"], body["error"]["type"]) == ("residency_refused", "permission_error")
    assert body["reasons"]
    assert all(each["policy"] and each["text"] and each["law"] for each in body["reasons"])
    assert body["remedy"]
    assert reply.headers["x-should-retry"] == "false"
    assert "gate" not in reply.text
    receipt = client.get(f"/v1/receipts/{body['receipt']}").json()["receipt"]
    assert receipt["kind"] == "refusal"
    assert body["error"]["receipt"] == body["receipt"]


def test_a_question_narrowed_to_documents_cites_only_those(stocked: httpx.Client) -> None:
    listed = {each["name"]: each["id"] for each in stocked.get("/v1/documents").json()["data"]}
    only = listed["betriebsvereinbarung-mobile-arbeit.pdf"]
    body = ask(stocked, "How long must a passphrase be?", filters={"documents": [only]})
    assert {each["document_id"] for each in body["citations"]} <= {only}
