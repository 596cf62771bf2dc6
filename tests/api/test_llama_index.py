"""LlamaIndex's own client for OpenAI-like services against the served API: plain, streamed, with a follow-up."""

import httpx
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

from tests.doubles.serving import Served, live

pytestmark = pytest.mark.enable_socket

QUESTION = "How long must a passphrase be?"


@pytest.fixture(scope="module")
def llm(served: Served, client: httpx.Client) -> OpenAILike:
    live(client, "rules.txt", "A passphrase must have at least 16 characters. It is changed every second March.\n")
    return OpenAILike(
        model="domicile/default",
        api_base=f"{served.url}/v1",
        api_key=served.key("ask"),
        is_chat_model=True,
        http_client=httpx.Client(trust_env=False),
    )


def test_it_chats(llm: OpenAILike) -> None:
    reply = llm.chat([ChatMessage(role="user", content=QUESTION)])
    assert (reply.message.content or "").startswith("A passphrase must have at least 16 characters.")


def test_it_streams_the_same(llm: OpenAILike) -> None:
    asked = [ChatMessage(role="user", content=QUESTION)]
    assert "".join(part.delta or "" for part in llm.stream_chat(asked)) == llm.chat(asked).message.content


def test_it_follows_up(llm: OpenAILike) -> None:
    said = [("user", QUESTION), ("assistant", "16. [1]"), ("user", "How often is it changed?")]
    reply = llm.chat([ChatMessage(role=role, content=text) for role, text in said])
    assert "every second March" in (reply.message.content or "")
