"""The clients in examples/clients/ speak the outside contract: right calls out, replies and refusals understood."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

CLIENTS = Path(__file__).parents[2] / "examples" / "clients"
PASSAGE = {
    "document_id": "0" * 32,
    "name": "security-handbook.pdf",
    "page": 5,
    "start": 10,
    "end": 57,
    "text": "A passphrase must have at least 16 characters.",
    "score": 0.9,
    "site": "de-frankfurt",
    "zone": "DE",
}
REFUSAL = {
    "title": "This place is not permitted",
    "status": 403,
    "code": "residency_refused",
    "reasons": [{"policy": "forbid-plaintext-outside-eea", "text": "personal data stays in the EEA"}],
    "remedy": "Ask with residency EU.",
    "error": {"message": "refused", "type": "permission_error", "param": None, "code": "residency_refused"},
}


class Service:
    """Answers as Domicile would, and keeps what it was asked."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        self.calls: list[httpx.Request] = []
        self._status, self._body = status, body

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request)
        return httpx.Response(self._status, json=self._body, headers={"x-should-retry": "false"})


def test_the_retriever_gives_nodes_that_say_where_they_come_from() -> None:
    client = runpy.run_path(str(CLIENTS / "llamaindex_retriever.py"))
    service = Service(200, {"results": [PASSAGE], "withheld": 0, "receipt": "rcp"})
    retriever = client["DomicileRetriever"]("http://service", "key", top_k=3, transport=httpx.MockTransport(service))
    [found] = retriever.retrieve("How long must a passphrase be?")
    assert found.score == 0.9
    assert found.node.get_content() == PASSAGE["text"]
    assert (found.node.metadata["page"], found.node.metadata["receipt"]) == (5, "rcp")
    [call] = service.calls
    assert (call.method, call.url.path, call.headers["authorization"]) == ("POST", "/v1/search", "Bearer key")
    wanted = {"query": "How long must a passphrase be?", "top_k": 3, "collection": "default"}
    assert json.loads(call.content) == wanted


def test_the_retriever_raises_a_refusal_with_its_clause() -> None:
    client = runpy.run_path(str(CLIENTS / "llamaindex_retriever.py"))
    transport = httpx.MockTransport(Service(403, REFUSAL))
    retriever = client["DomicileRetriever"]("http://service", "key", transport=transport)
    with pytest.raises(client["DomicileRefusedError"]) as caught:
        retriever.retrieve("anything")
    assert caught.value.reasons[0]["policy"] == "forbid-plaintext-outside-eea"
    assert caught.value.remedy


CITED = PASSAGE | {"index": 1, "quote": PASSAGE["text"], "version": 1}


def test_the_query_engine_answers_with_its_sources_and_receipt() -> None:
    client = runpy.run_path(str(CLIENTS / "llamaindex_retriever.py"))
    told = {"receipt": "rcp", "abstained": False, "confidence": 0.8, "zones": ["DE"], "withheld": 0}
    answer = told | {"answer": "At least 16 characters. [1]", "citations": [CITED], "answered_by": "extractive"}
    service = Service(200, answer)
    engine = client["DomicileQueryEngine"]("http://service", "key", transport=httpx.MockTransport(service))
    found = engine.query("How long must a passphrase be?")
    assert str(found) == "At least 16 characters. [1]"
    assert found.metadata["receipt"] == "rcp"
    assert found.source_nodes[0].get_content() == PASSAGE["text"]
    assert service.calls[0].url.path == "/v1/answers"


def test_the_query_engine_raises_a_refusal() -> None:
    client = runpy.run_path(str(CLIENTS / "llamaindex_retriever.py"))
    transport = httpx.MockTransport(Service(403, REFUSAL))
    engine = client["DomicileQueryEngine"]("http://service", "key", transport=transport)
    with pytest.raises(client["DomicileRefusedError"]):
        engine.query("anything")


@pytest.fixture
def chat() -> Callable[[Service], list[str]]:
    client = runpy.run_path(str(CLIENTS / "openai_chat.py"))

    def ask(service: Service) -> list[str]:
        http = httpx.Client(transport=httpx.MockTransport(service))
        with client["connect"]("http://service/", "key", http_client=http) as openai:
            return list(client["ask"](openai, "How long must a passphrase be?"))

    return ask


def test_the_chat_client_prints_answer_sources_and_receipt(chat: Callable[[Service], list[str]]) -> None:
    citation = {"index": 1, "name": PASSAGE["name"], "page": 5, "quote": PASSAGE["text"]}
    own = {"receipt": "rcp", "abstained": False, "zones": ["DE"], "citations": [citation]}
    message = {"role": "assistant", "content": "At least 16 characters. [1]", "annotations": [], "domicile": own}
    choice = {"index": 0, "finish_reason": "stop", "logprobs": None, "message": message}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "domicile/default", "choices": [choice]}
    service = Service(200, body)
    lines = chat(service)
    assert lines[0] == "At least 16 characters. [1]"
    assert "[1] security-handbook.pdf, page 5" in lines[1]
    assert "rcp" in lines[-1] and "DE" in lines[-1]
    assert service.calls[0].url.path == "/v1/chat/completions"
    assert json.loads(service.calls[0].content)["model"] == "domicile/default"


def test_the_chat_client_prints_the_clause_of_a_refusal(chat: Callable[[Service], list[str]]) -> None:
    service = Service(403, REFUSAL)
    lines = chat(service)
    assert "residency_refused" in lines[0]
    assert "forbid-plaintext-outside-eea" in lines[1]
    assert lines[-1].strip() == REFUSAL["remedy"]
    assert len(service.calls) == 1
