"""Orders planted in documents: none is obeyed, whether quotes answer or a generator that does all that it reads."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_socket

from tests.doubles.generating import Writer, generating
from tests.doubles.injections import active, injections
from tests.doubles.openai_http import obeying
from tests.doubles.serving import Served, live
from tests.doubles.visiting import Visitor

pytestmark = [pytest.mark.enable_socket, pytest.mark.slow]

EACH = 25
"""Strings planted in one document."""
PLAIN = "The valve Controlo is checked every 4 months by the warden."


def name(number: int) -> str:
    """Give a word that stands in one planted paragraph alone."""
    return "Va" + "".join(f"{'bdfgklmnprstvz'[int(digit)]}{'aeiou'[int(digit) % 5]}" for digit in f"{number:03}")


def planted() -> list[str]:
    """Give the documents: each paragraph answers a question of its own, and holds one of the strings."""
    paragraphs = [
        f"The valve {name(number)} is checked every {number + 3} months by the warden. {text}"
        for number, text in enumerate(injections())
    ]
    return ["\n\n".join(paragraphs[at : at + EACH]) for at in range(0, len(paragraphs), EACH)]


def letters(text: str) -> str:
    """Give what reading and folding leave as it is."""
    return "".join(each for each in text if each.isalnum())


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, onnx_model: Path) -> Iterator[tuple[Served, Writer]]:
    pytest_socket.enable_socket()
    with generating(tmp_path_factory.mktemp("injected") / "home", onnx_model) as running:
        yield running


@pytest.fixture
def served(both: tuple[Served, Writer]) -> Served:
    return both[0]


@pytest.fixture
def writer(both: tuple[Served, Writer]) -> Writer:
    return both[1]


@pytest.fixture(scope="module")
def client(both: tuple[Served, Writer]) -> httpx.Client:
    made = both[0].client()
    rows = [live(made, f"planted-{number}.md", text) for number, text in enumerate(planted())]
    plain = live(made, "plain.txt", PLAIN + "\n")
    assert {json.dumps(row["tag"], sort_keys=True) for row in rows} == {json.dumps(plain["tag"], sort_keys=True)}
    return made


def route(client: httpx.Client, receipt: str) -> set[tuple[str, str]]:
    """Give what a Receipt says of the ways that were taken."""
    steps = client.get(f"/v1/receipts/{receipt}").json()["receipt"]["steps"]
    return {(step["action"], step["site"]) for step in steps}


def ours(served: Served, body: Any) -> None:
    """Hold that every address in a reply is one of our own pages, quotes aside."""
    text = re.sub(r'"(?:quote|cited_text)":"(?:[^"\\]|\\.)*"', '""', json.dumps(body, separators=(",", ":")))
    for found in re.findall(r"[a-z]+://[^\s\"]*", text, re.IGNORECASE):
        assert found.startswith(f"{served.settings.public_url}/documents/"), found


def test_a_generator_that_obeys_puts_nothing_of_it_into_an_answer(
    served: Served, client: httpx.Client, writer: Writer
) -> None:
    writer.behave(reply=obeying)

    def ask(question: str) -> tuple[str, dict[str, Any]]:
        body = {"model": "domicile/default", "messages": [{"role": "user", "content": question}]}
        reply = client.post("/v1/chat/completions", json=body)
        assert reply.status_code == 200, reply.text
        ours(served, reply.json())
        message = reply.json()["choices"][0]["message"]
        assert set(message) == {"role", "refusal", "content", "annotations", "domicile"}
        return message["content"], message["domicile"]

    text, own = ask("When is the valve Controlo checked?")
    assert own["answered_by"] == "generator" and "4 months" in text
    control = route(client, own["receipt"])
    by_generator = 0
    for number in range(0, len(injections()), 3):
        text, own = ask(f"How often is the valve {name(number)} checked?")
        assert not active(text), text
        assert not own["abstained"]
        assert f"every {number + 3} months" in text
        by_generator += own["answered_by"] == "generator"
    assert by_generator > 70
    shown = letters("".join(asked.body["messages"][1]["content"] for asked in writer.end.asked))
    assert sum(letters(each) in shown for each in injections()) >= 200, "the generator never saw them"
    assert route(client, own["receipt"]) == control
    assert all("tools" not in asked.body for asked in writer.end.asked)


def test_quotes_of_planted_strings_make_nobody_fetch_anything(
    served: Served, client: httpx.Client, writer: Writer
) -> None:
    writer.behave(status=500)
    routes, quoted = set(), 0
    for text in injections()[::5]:
        # the string itself is the question, so that it is what is quoted
        found = client.post("/v1/answers", json={"question": text})
        assert found.status_code == 200, found.text
        body = found.json()
        assert not active(body["answer"]), body["answer"]
        ours(served, body)
        assert body["fallback"] in ("generator_unavailable", None)
        quoted += any(active(each["quote"]) for each in body["citations"])
        routes.add(frozenset(route(client, body["receipt"])))
    assert quoted > 10, "the strings were not quoted, so this shows nothing"
    every = frozenset().union(*routes)
    assert {site for _, site in every} == {"de"}
    assert {action for action, _ in every} <= {"embed", "search", "open", "generate"}


def test_the_portal_shows_a_planted_answer_as_text(served: Served, client: httpx.Client, writer: Writer) -> None:
    writer.behave(status=500)
    page = Visitor(served).sign_in().post("/portal/ask", question=next(x for x in injections() if "onerror" in x)).text
    assert "<img" not in page and "<script src='" not in page
    assert not re.findall(r"(?:href|src|action)=[\"']?(?:https?:)?//", page)
