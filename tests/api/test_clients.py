"""Clients that people bring along against the served API: OpenAI's 2.x and 3.x and LangChain as programs of their own,
LlamaIndex, and the examples of `examples/clients/`."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.doubles.serving import Served, live

pytestmark = pytest.mark.enable_socket

ROOT = Path(__file__).parents[2]
PROGRAMS, EXAMPLES = ROOT / "tests" / "clients", ROOT / "examples" / "clients"
APART = Path(sys.prefix) / "clients"
"""Where `make setup` puts the packages of tests/clients/requirements.txt."""
TEXT = (
    "Visitors sign the book at the east gate. The east gate opens at 06:15 on working days. "
    "Dogs wait in the yard. The yard is swept on Fridays.\n"
)
QUESTION = "When does the east gate open on working days?"


@pytest.fixture(scope="module")
def gate(served: Served, client: httpx.Client) -> Served:
    live(client, "gate.txt", TEXT)
    return served


def run(served: Served, program: str, *, apart: bool) -> dict[str, Any]:
    """Run a program to its end and give what it told; apart, it sees the clients' folder and nothing else of ours."""
    if apart and not (APART / "openai").is_dir():
        if os.environ.get("DOMICILE_TEST_INSIST"):
            pytest.fail(f"no clients in {APART}: run `make setup`")
        pytest.skip(f"no clients in {APART}: `make setup` puts them there")
    refused = served.key("ask", tenant="overseas", ceiling=("US",))
    keys = (served.key(tenant="acme"), refused)
    own = {"PYTHONPATH": str(APART)} if apart else {}
    # a proxy or an address from the environment would be asked first; LangChain would report to its maker if told to
    quiet = {"PATH": os.environ["PATH"], "LANGSMITH_TRACING": "false", "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, *(["-S"] if apart else []), str(PROGRAMS / program), served.url, *keys],
        env=own | quiet,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("major", ["2", "3"])
def test_openais_client_does_what_an_application_needs(gate: Served, major: str) -> None:
    told = run(gate, "openai_app.py", apart=major == "3")
    assert told["version"].split(".")[0] == major
    message = told["plain"]
    assert "The east gate opens at 06:15 on working days. [1]" in message["content"]
    [cited, *_] = [each["url_citation"] for each in message["annotations"]]
    assert TEXT[cited["start"] : cited["end"]] == cited["cited_text"]
    assert message["domicile"]["receipt"]
    assert told["streamed"] == told["accumulated"]["content"] == message["content"]
    assert told["accumulated"]["annotations"] == message["annotations"]
    assert told["accumulated"]["domicile"]["receipt"]
    assert (told["carrying"], told["finish"]) == (1, "stop")
    assert told["usage"] > 0
    assert {"domicile/default", "domicile/embedding"} <= set(told["models"])
    assert told["embedding"] == 384
    assert told["refusal"] == ["PermissionDeniedError", "residency_refused"]
    assert told["calls_of_refusal"] == 1
    assert told["errors"] == [
        ["NotFoundError", "not_found"],
        ["BadRequestError", "unsupported_parameter"],
        ["AuthenticationError", "unauthenticated"],
    ]
    files = told["files"]
    assert files["state"] == "completed"
    assert [(name, own) for name, own, _ in files["found"]] == [("crane.txt", {"berth": 7})]
    assert "forty tonnes" in files["found"][0][2]
    assert "forty tonnes" in files["back"]
    assert files["deleted"]


def test_langchain_chats_streams_embeds_and_retrieves(gate: Served) -> None:
    told = run(gate, "langchain_app.py", apart=True)
    assert "The east gate opens at 06:15" in told["plain"]
    assert told["streamed"] == told["plain"]
    assert told["embedding"] == [384, 384]
    assert "06:15" in told["retrieved"]["text"]
    metadata = told["retrieved"]["metadata"]
    assert (metadata["name"], metadata["zone"]) == ("gate.txt", "DE")
    assert metadata["receipt"]
    assert told["refused"]


def test_the_llamaindex_example_retrieves_and_answers(gate: Served) -> None:
    ours = runpy.run_path(str(EXAMPLES / "llamaindex_retriever.py"))
    [first, *_] = ours["DomicileRetriever"](gate.url, gate.key("ask"), top_k=3).retrieve(QUESTION)
    assert "06:15" in first.node.get_content()
    assert first.node.metadata["name"] == "gate.txt"
    answer = ours["DomicileQueryEngine"](gate.url, gate.key("ask")).query(QUESTION)
    assert "The east gate opens at 06:15" in str(answer)
    assert answer.metadata["receipt"]
    assert {node.node.metadata["name"] for node in answer.source_nodes} == {"gate.txt"}
    refused = ours["DomicileRetriever"](gate.url, gate.key("ask", tenant="overseas", ceiling=("US",)))
    with pytest.raises(ours["DomicileRefusedError"]):
        refused.retrieve(QUESTION)


def test_the_openai_example_prints_answer_source_and_receipt(gate: Served) -> None:
    ours = runpy.run_path(str(EXAMPLES / "openai_chat.py"))
    with ours["connect"](gate.url, gate.key("ask"), http_client=httpx.Client(trust_env=False)) as client:
        lines = list(ours["ask"](client, QUESTION))
        assert "The east gate opens at 06:15" in lines[0]
        assert "[1] gate.txt, page 1" in lines[1]
        assert "processed in DE" in lines[-1]
        assert "".join(ours["stream"](client, QUESTION)) == lines[0]
