"""A collection as Dify's external knowledge base: its request, its records, its conditions, its errors."""

from typing import Any

import httpx
import pytest

from tests.doubles.serving import Served, live

pytestmark = pytest.mark.enable_socket

TEXT = "The east gate opens at 06:15 on working days. See ![map](https://evil.example/map.png).\n"


@pytest.fixture(scope="module")
def gate(client: httpx.Client) -> httpx.Client:
    live(client, "gate.txt", TEXT)
    return client


def retrieve(client: httpx.Client, **more: Any) -> httpx.Response:
    setting = {"top_k": 3, "score_threshold": 0.2}
    asked = {"knowledge_id": "default", "query": "When does the east gate open?", "retrieval_setting": setting}
    return client.post("/v1/retrieval", json=asked | more)


def test_records_have_content_score_title_and_metadata(gate: httpx.Client) -> None:
    reply = retrieve(gate)
    assert reply.status_code == 200, reply.text
    [record] = reply.json()["records"]
    assert set(record) == {"content", "score", "title", "metadata"}
    assert "06:15" in record["content"] and "![" not in record["content"] and "://" not in record["content"]
    assert 0.5 < record["score"] <= 1
    assert record["title"] == "gate.txt, p. 1"
    assert record["metadata"]["zone"] == "DE"
    assert record["metadata"]["receipt"] == reply.headers["domicile-receipt"]
    high = {"top_k": 3, "score_threshold": 1.0}
    assert retrieve(gate, retrieval_setting=high).json()["records"] == []


def condition(operator: str, value: Any, *names: str) -> dict[str, Any]:
    one = {"name": list(names), "comparison_operator": operator, "value": value}
    return {"logical_operator": "and", "conditions": [one]}


def test_conditions_narrow_and_an_unknown_operator_is_refused(gate: httpx.Client) -> None:
    here = retrieve(gate, metadata_condition=condition("is", "gate.txt", "filename")).json()["records"]
    assert len(here) == 1
    assert retrieve(gate, metadata_condition=condition("is not", "gate.txt", "filename")).json()["records"] == []
    either = condition("is", "gate.txt", "language", "filename")
    assert len(retrieve(gate, metadata_condition=either).json()["records"]) == 1
    reply = retrieve(gate, metadata_condition=condition("sounds like", "x", "filename"))
    assert (reply.status_code, reply.json()["code"]) == (400, "unsupported_parameter")


def test_errors_read_well(served: Served, gate: httpx.Client) -> None:
    reply = retrieve(gate, knowledge_id="none-such")
    assert (reply.status_code, reply.json()["detail"]) == (404, "There is no such collection.")
    refused = retrieve(served.client("ask", tenant="overseas", ceiling=("US",)))
    assert (refused.status_code, refused.json()["code"]) == (403, "residency_refused")
    assert retrieve(gate, retrieval_setting={"top_k": 0, "score_threshold": 0}).status_code == 400
    assert served.bare().post("/v1/retrieval", json={}).status_code == 401
