"""A generator that misbehaves: each fault has its outcome and its reason, quotes answer instead, nothing leaks."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_socket

from tests.doubles.generating import Writer, generating
from tests.doubles.serving import Served, live

pytestmark = pytest.mark.enable_socket

TEXT = "Batteries are stored at 15 degrees in hall 7. The hall is inspected every 30 days.\n"
QUESTION = "At how many degrees are batteries stored?"
CANARY = "Zwitscherkanari"
TOOL = {"tool_calls": [{"index": 0, "id": "t", "type": "function", "function": {"name": CANARY, "arguments": "{}"}}]}
ERROR = f'data: {{"error": {{"message": "{CANARY}"}}}}\n\n'.encode()
LONG_AGO, FAR_OFF = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, onnx_model: Path) -> Iterator[tuple[Served, Writer]]:
    pytest_socket.enable_socket()
    folder = tmp_path_factory.mktemp("generated") / "home"
    with generating(folder, onnx_model) as (served, writer):
        body: Any = served.house.answering._generators["de"]
        assert body._within == served.settings.limits.question_s * 2 / 3, "a hung generator would take the whole time"
        live(served.client(), "rules.txt", TEXT)
        ask(served)  # the first one waits for llama-index to be read
        body._within = 0.7  # so that no test waits for it
        yield served, writer


def ask(served: Served, **more: Any) -> dict[str, Any]:
    """Ask, and give the message with the Receipt's own body."""
    body = {"model": "domicile/default", "messages": [{"role": "user", "content": QUESTION}], **more}
    reply = served.client().post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    message: dict[str, Any] = reply.json()["choices"][0]["message"]
    receipt = served.client().get(f"/v1/receipts/{message['domicile']['receipt']}").json()["receipt"]
    return message | {"receipt": receipt}


FAULTS = {
    "is silent": ({"silent": True}, "generator_unavailable"),
    "hangs after a while": ({"pieces": ["Batteries are ", "stored"], "hang_after": 1}, "generator_unavailable"),
    "drips": ({"pieces": ["a "] * 500, "drip": 0.1}, "generator_unavailable"),
    "fails": ({"status": 500}, "generator_unavailable"),
    "is overloaded": ({"status": 429}, "generator_unavailable"),
    "redirects": ({"redirect": "https://evil.example/v1"}, "generator_unavailable"),
    "ends in the middle": ({"pieces": ["Batteries are stored", " [1]."], "cut_after": 1}, "generator_unavailable"),
    "sends no JSON": ({"pieces": [f"data: {{{CANARY}\n\n".encode()]}, "generator_unavailable"),
    "sends JSON of another shape": ({"pieces": [b'data: {"choices": 7}\n\n']}, "generator_unavailable"),
    "sends bytes that are no text": ({"pieces": [b"data: \xff\xfe\x00\n\n"]}, "generator_unavailable"),
    "sends an error event": ({"pieces": [ERROR]}, "generator_unavailable"),
    "does not stop": ({"pieces": ["Batteries are stored at 15 degrees [1]. " * 100] * 20}, "generator_unavailable"),
    "talks nonsense": ({"pieces": [f"{CANARY} ! \x00 \u202e 12 [1]."]}, "generator_unsupported"),
    "cites what is not there": ({"pieces": ["Batteries are stored at 15 degrees [9]."]}, "generator_unsupported"),
    "cites nothing": ({"pieces": ["Batteries are stored at 15 degrees."]}, "generator_unsupported"),
    "invents a figure": ({"pieces": ["Batteries are stored at 16 degrees [1]."]}, "generator_unsupported"),
    "calls a tool": ({"pieces": [TOOL]}, "generator_unsupported"),
    "says nothing": ({"pieces": []}, "generator_unsupported"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_generator_that_misbehaves_leaves_the_quotes_and_a_reason(
    both: tuple[Served, Writer], fault: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    served, writer = both
    how, reason = FAULTS[fault]
    writer.behave(**how)
    message = ask(served)
    own = message["domicile"]
    assert (own["answered_by"], own["fallback"]) == ("extractive", reason)
    assert message["content"].startswith("Batteries are stored at 15 degrees in hall 7. [1]")
    assert message["receipt"]["facts"] == {"fallback": reason}
    assert {step["action"] for step in message["receipt"]["steps"]} >= {"embed", "search", "generate"}
    assert len(writer.end.asked) == 1
    logged = "".join(capfd.readouterr()) + caplog.text
    assert CANARY not in logged + json.dumps(message)
    assert "atteries" not in logged


def test_a_generator_that_behaves_answers_and_the_receipt_holds_no_fault(both: tuple[Served, Writer]) -> None:
    served, writer = both
    writer.behave(pieces=["Batteries are stored ", "at 15 degrees [1]."])
    message = ask(served)
    assert (message["domicile"]["answered_by"], message["domicile"]["fallback"]) == ("generator", None)
    assert message["content"] == "Batteries are stored at 15 degrees. [1]"
    assert "facts" not in message["receipt"]


@pytest.mark.parametrize("stream", [False, True])
def test_who_goes_away_ends_the_call_at_the_generator(
    both: tuple[Served, Writer], stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, writer = both
    writer.behave(pieces=["Batteries "], hang_after=0)
    body: Any = served.house.answering._generators["de"]
    monkeypatch.setattr(body, "_within", 600.0)  # so that no deadline ends it
    asked = json.dumps(
        {"model": "domicile/default", "stream": stream, "messages": [{"role": "user", "content": QUESTION}]}
    )
    head = f"Host: x\r\nAuthorization: Bearer {served.key()}\r\nContent-Length: {len(asked)}\r\n\r\n"
    before = len(cancelled(served))
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2])), timeout=20) as connection:
        connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{head}{asked}".encode())
        until = time.monotonic() + 20
        while not writer.end.asked and time.monotonic() < until:
            time.sleep(0.01)
    writer.do(gone(writer))
    until = time.monotonic() + 20
    while len(cancelled(served)) == before and time.monotonic() < until:
        time.sleep(0.02)
    last = cancelled(served)[-1]
    assert last["kind"] == "answer"
    assert {step["action"] for step in last["steps"]} >= {"embed", "search", "generate"}
    assert httpx.get(f"{served.url}/readyz", trust_env=False).status_code == 200


async def gone(writer: Writer) -> None:
    """Wait until the endpoint's caller has hung up, well before any deadline."""
    await asyncio.wait_for(writer.end.gone.wait(), 20)


def cancelled(served: Served) -> list[dict[str, Any]]:
    """Give the entries of the Ledger that say so, oldest first."""
    entries = served.house.ledger.entries("acme", LONG_AGO, FAR_OFF)
    return [entry for entry in entries if entry.get("facts", {}).get("outcome") == "cancelled"]
