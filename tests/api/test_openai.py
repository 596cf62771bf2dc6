"""The real OpenAI client against the served API: plain, streamed, accumulated, refused."""

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI

from tests.doubles.serving import Served, live

pytestmark = pytest.mark.enable_socket

TEXT = (
    "Visitors sign the book at the east gate. The east gate opens at 06:15 on working days. "
    "Dogs wait in the yard. The yard is swept on Fridays.\n"
)
QUESTION = [{"role": "user", "content": "When does the east gate open on working days?"}]
MODEL = "domicile/default"


class Counting(httpx.HTTPTransport):
    """The ordinary transport, with a count of what went over it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        return super().handle_request(request)


@pytest.fixture(scope="module")
def transport() -> Counting:
    return Counting()


@pytest.fixture(scope="module")
def sdk(served: Served, client: httpx.Client, transport: Counting) -> Iterator[OpenAI]:
    live(client, "gate.txt", TEXT)
    live(client, "minutes.txt", "The minutes of the council are kept in the blue binder.\n", collection="council")
    with OpenAI(
        api_key=served.key("ask"),
        base_url=f"{served.url}/v1",
        http_client=httpx.Client(transport=transport, trust_env=False),
    ) as made:
        yield made


def as_tenant(served: Served, transport: Counting, **account: Any) -> OpenAI:
    http = httpx.Client(transport=transport, trust_env=False)
    return OpenAI(api_key=served.key("ask", **account), base_url=f"{served.url}/v1", http_client=http)


def test_a_chat_answers_with_annotations_that_fit_its_text(sdk: OpenAI) -> None:
    done = sdk.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0.2)  # type: ignore[arg-type]
    message = done.choices[0].message
    text, annotations = message.content or "", message.annotations or []
    assert done.object == "chat.completion"
    assert done.model == MODEL
    assert done.choices[0].finish_reason == "stop"
    assert "06:15" in text
    own: dict[str, Any] = message.domicile  # type: ignore[attr-defined]
    assert own["ignored"] == ["temperature"]
    assert own["receipt"]
    marks = sum(len(citation["marks"]) for citation in own["citations"])
    assert len(annotations) == marks >= 1
    for each in annotations:
        cited: Any = each.url_citation
        assert each.type == "url_citation"
        assert text[cited.end_index :].startswith(f" [{cited.citation}]")
        assert TEXT[cited.start : cited.end] == cited.cited_text
        assert text[cited.start_index : cited.end_index] == " ".join(cited.cited_text.split())
        assert cited.title == "gate.txt, p. 1"
    assert done.usage is not None
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens > 0


def test_a_model_names_its_collection(sdk: OpenAI) -> None:
    done = sdk.chat.completions.create(
        model="domicile/council",
        messages=[{"role": "user", "content": "Where are the minutes of the council kept?"}],
    )
    assert "blue binder" in (done.choices[0].message.content or "")


def test_extra_body_may_choose_the_collection_and_nothing_unknown(sdk: OpenAI) -> None:
    asked = [{"role": "user", "content": "Where are the minutes of the council kept?"}]
    done = sdk.chat.completions.create(model=MODEL, messages=asked, extra_body={"domicile": {"collection": "council"}})  # type: ignore[arg-type]
    assert "blue binder" in (done.choices[0].message.content or "")
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(model=MODEL, messages=asked, extra_body={"domicile": {"widen": True}})  # type: ignore[arg-type]
    assert caught.value.code == "unsupported_parameter"


def test_content_in_parts_is_read(sdk: OpenAI) -> None:
    parts = [{"type": "text", "text": "When does the east gate open"}, {"type": "text", "text": "on working days?"}]
    done = sdk.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])  # type: ignore[list-item,misc]
    assert "06:15" in (done.choices[0].message.content or "")


def test_a_stream_carries_one_list_of_annotations_and_ends_with_a_stop(sdk: OpenAI) -> None:
    plain = sdk.chat.completions.create(model=MODEL, messages=QUESTION).choices[0].message  # type: ignore[arg-type]
    chunks: list[Any] = list(sdk.chat.completions.create(model=MODEL, messages=QUESTION, stream=True))  # type: ignore[arg-type]
    deltas: list[Any] = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == plain.content
    carrying = [delta for delta in deltas if getattr(delta, "annotations", None) is not None]
    assert len(carrying) == 1
    assert carrying[0].annotations == [each.model_dump() for each in plain.annotations or []]
    own = plain.domicile  # type: ignore[attr-defined]
    assert carrying[0].domicile | {"receipt": ""} == own | {"receipt": ""}
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_says_that_it_is_one_and_names_its_receipt(sdk: OpenAI) -> None:
    raw = sdk.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION, stream=True)  # type: ignore[arg-type]
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert raw.headers["cache-control"] == "no-store"
    assert raw.headers["domicile-receipt"]
    assert raw.headers["domicile-zones"] == "DE"
    assert len(list(raw.parse())) > 3


def test_usage_comes_last_when_it_is_wished_for(sdk: OpenAI) -> None:
    chunks = list(
        sdk.chat.completions.create(  # type: ignore[call-overload]
            model=MODEL, messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_the_accumulating_stream_ends_with_the_same_message(sdk: OpenAI) -> None:
    plain = sdk.chat.completions.create(model=MODEL, messages=QUESTION).choices[0].message  # type: ignore[arg-type]
    with sdk.chat.completions.stream(model=MODEL, messages=QUESTION) as stream:  # type: ignore[arg-type]
        told = "".join(event.delta for event in stream if event.type == "content.delta")
        final: Any = stream.get_final_completion().choices[0].message
    assert told == plain.content == final.content
    assert [each.model_dump() for each in final.annotations] == [each.model_dump() for each in plain.annotations or []]
    assert final.domicile["receipt"]


def test_an_abstention_is_an_ordinary_message_without_annotations(sdk: OpenAI) -> None:
    asked = [{"role": "user", "content": "Who conducted the opera premiere in Valparaíso?"}]
    done = sdk.chat.completions.create(model=MODEL, messages=asked)  # type: ignore[arg-type]
    message: Any = done.choices[0].message
    assert done.choices[0].finish_reason == "stop"
    assert message.annotations == []
    assert (message.domicile["abstained"], message.domicile["reason"]) == (True, "no_support")


def test_models_are_the_tenants_collections(served: Served, sdk: OpenAI, transport: Counting) -> None:
    ids = [model.id for model in sdk.models.list()]
    assert ids == ["domicile/council", "domicile/default", "domicile/embedding"]
    assert sdk.models.retrieve("domicile/council").owned_by == "domicile"
    with as_tenant(served, transport, tenant="stranger") as stranger:
        assert [model.id for model in stranger.models.list()] == ["domicile/default", "domicile/embedding"]
        with pytest.raises(openai.NotFoundError):
            stranger.models.retrieve("domicile/council")


def test_embeddings_come_as_numbers_and_as_base64_and_are_the_same(sdk: OpenAI) -> None:
    texts = ["The east gate opens early.", "Dogs wait in the yard."]
    numbers = sdk.embeddings.create(model="domicile/embedding", input=texts, encoding_format="float")
    packed = sdk.embeddings.create(model="domicile/embedding", input=texts, encoding_format="base64")
    decoded = [np.frombuffer(base64.b64decode(str(each.embedding)), dtype="<f4") for each in packed.data]
    for at, each in enumerate(numbers.data):
        assert each.index == at
        assert len(each.embedding) == 384
        assert np.allclose(each.embedding, decoded[at], atol=1e-6)
        assert abs(float(np.linalg.norm(each.embedding)) - 1) < 1e-4
    by_default = sdk.embeddings.create(model="domicile/embedding", input=texts[0])
    assert np.allclose(by_default.data[0].embedding, numbers.data[0].embedding, atol=1e-6)
    assert numbers.usage.total_tokens > 0


@pytest.mark.parametrize("given", ["", [], ["good", "  "], "word " * 3000])
def test_texts_that_cannot_be_embedded_are_refused_with_the_field(sdk: OpenAI, given: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.embeddings.create(model="domicile/embedding", input=given)
    assert caught.value.param == "input"


def test_a_refusal_is_one_call_and_says_its_clause(served: Served, transport: Counting) -> None:
    with as_tenant(served, transport, tenant="overseas", ceiling=("US",)) as refused:
        for call in (
            lambda: refused.chat.completions.create(model=MODEL, messages=QUESTION),  # type: ignore[arg-type]
            lambda: refused.chat.completions.create(model=MODEL, messages=QUESTION, stream=True),  # type: ignore[arg-type]
            lambda: refused.embeddings.create(model="domicile/embedding", input="gate"),
        ):
            transport.seen.clear()
            with pytest.raises(openai.PermissionDeniedError) as caught:
                call()
            assert len(transport.seen) == 1
            assert caught.value.code == "residency_refused"
            assert caught.value.type == "permission_error"
            assert caught.value.body["receipt"]  # type: ignore[index]
            whole = caught.value.response.json()
            assert whole["reasons"]
            assert whole["remedy"]


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_what_would_change_the_meaning_is_refused_and_named(sdk: OpenAI, sent: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(model=MODEL, messages=QUESTION, **sent)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", param)


def test_a_model_that_is_no_collection_is_refused(sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(model="gpt-oss", messages=QUESTION)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.param) == ("invalid_request", "model")


def test_a_conversation_without_a_question_is_refused(sdk: OpenAI) -> None:
    for messages in ([], [{"role": "system", "content": "be kind"}], [{"role": "user", "content": "  "}]):
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.chat.completions.create(model=MODEL, messages=messages)  # type: ignore[arg-type]
        assert caught.value.code == "invalid_request"


def test_a_wrong_key_is_an_authentication_error(served: Served) -> None:
    nobody = OpenAI(api_key="dom_wrong", base_url=f"{served.url}/v1", http_client=httpx.Client(trust_env=False))
    with nobody, pytest.raises(openai.AuthenticationError) as caught:
        nobody.models.list()
    assert caught.value.code == "unauthenticated"
    assert caught.value.response.headers["www-authenticate"] == "Bearer"
