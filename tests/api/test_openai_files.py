"""The real OpenAI client's files and vector stores: uploads as a stream, attributes, filters, thresholds, refusals."""

import io
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import sqlalchemy as sa
from openai import OpenAI

from ingestion.attributes import table
from tests.doubles.serving import Served, erased

pytestmark = pytest.mark.enable_socket

GERMAN = {"Domicile-Jurisdiction": "DE", "Domicile-Personal": "false"}
HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n'
FERRY = b"The ferry to the island leaves at nine. Tickets are sold at the red kiosk.\n"
CRANE = b"The crane in the north yard lifts forty tonnes. It is inspected each May.\n"


@pytest.fixture(scope="module")
def sdk(served: Served) -> Iterator[OpenAI]:
    with OpenAI(
        api_key=served.key(), base_url=f"{served.url}/v1", http_client=httpx.Client(trust_env=False), max_retries=0
    ) as made:
        yield made


def sent(sdk: OpenAI, name: str, body: bytes, **headers: str) -> Any:
    return sdk.files.create(file=(name, io.BytesIO(body)), purpose="assistants", extra_headers=GERMAN | headers)


@pytest.fixture(scope="module")
def store(sdk: OpenAI) -> Any:
    """A vector store of two files with attributes."""
    made = sdk.vector_stores.create(name="harbour")
    for name, body, attributes in (
        ("ferry.txt", FERRY, {"team": "passengers", "year": 2025.0, "draft": False}),
        ("crane.txt", CRANE, {"team": "freight", "year": 2026.0}),
    ):
        file = sent(sdk, name, body)
        done = sdk.vector_stores.files.create_and_poll(
            file.id, vector_store_id=made.id, attributes=attributes, poll_interval_ms=50
        )
        assert done.status == "completed"
        assert done.attributes == attributes
    return sdk.vector_stores.retrieve(made.id)


def found(sdk: OpenAI, store: Any, query: str, **options: Any) -> list[str]:
    return [each.filename for each in sdk.vector_stores.search(store.id, query=query, **options).data]


def test_an_uploaded_file_waits_sealed_until_it_is_put_somewhere(served: Served, sdk: OpenAI) -> None:
    file = sent(sdk, "waiting.txt", b"Nobody asked for this yet.\n")
    assert (file.object, file.filename, file.bytes, file.status) == ("file", "waiting.txt", 27, "uploaded")
    assert file.domicile["tag"]["jurisdictions"] == ["DE"]
    assert file.domicile["tag"]["personal"] is False
    assert file.domicile["receipt"]
    served.house.worker.wake()
    time.sleep(0.3)
    assert sdk.files.retrieve(file.id).domicile["state"] == "sealed"  # type: ignore[attr-defined]
    assert sdk.files.content(file.id).read() == b"Nobody asked for this yet.\n"
    assert file.id in [each.id for each in sdk.files.list()]
    assert "domicile/files.unattached" not in [each.id for each in sdk.models.list()]
    assert sdk.files.delete(file.id).deleted
    with served.client() as client:
        assert erased(client, file.id)["state"] == "complete"


def test_a_header_puts_a_file_into_its_collection_at_once(sdk: OpenAI) -> None:
    file = sent(sdk, "tide.txt", b"High water is at six in the evening.\n", **{"Domicile-Collection": "tides"})
    done = sdk.files.wait_for_processing(file.id, poll_interval=0.05)
    assert done.status == "processed"
    asked: Any = [{"role": "user", "content": "When is high water?"}]
    answer = sdk.chat.completions.create(model="domicile/tides", messages=asked)
    assert "six in the evening" in (answer.choices[0].message.content or "")


def test_a_file_without_a_jurisdiction_is_refused_before_its_body(served: Served, sdk: OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        sdk.files.create(file=("x.txt", b"x"), purpose="assistants")
    assert caught.value.code == "jurisdiction_missing"
    assert "Domicile-Jurisdiction" in str(caught.value)

    # a body is announced and none is sent: the answer comes all the same
    head = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.key()}\r\nContent-Length: 5000\r\n"
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2])), timeout=20) as connection:
        connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 422 ")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Domicile-Jurisdiction": "GERMANY"}, 422),
        ({"Domicile-Personal": "perhaps"}, 400),
        ({"Domicile-Classification": "secret"}, 400),
        ({"Domicile-Residency": "CH"}, 403),
        ({"Domicile-Collection": "../up"}, 400),
    ],
)
def test_a_claim_that_cannot_be_is_refused(sdk: OpenAI, headers: dict[str, str], status: int) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        sent(sdk, "x.txt", b"x", **headers)
    assert caught.value.status_code == status


@pytest.mark.parametrize(
    ("fields", "param"), [({"purpose": "fine-tune"}, "purpose"), ({"expires_after[anchor]": "created_at"}, None)]
)
def test_what_a_form_asks_and_we_do_not_serve_is_refused(
    served: Served, fields: dict[str, str], param: str | None
) -> None:
    reply = served.client().post("/v1/files", data=fields, files={"file": ("x.txt", b"x")}, headers=GERMAN)
    assert (reply.status_code, reply.json()["code"]) == (400, "unsupported_parameter")
    assert param is None or reply.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data; boundary=b", HEAD),
        ("multipart/form-data; boundary=b", b"--b--\r\n"),
        ("multipart/form-data", b""),
        ("application/json", b"{}"),
        ("multipart/form-data; boundary=b", HEAD + b"\r\nab"),
    ],
)
def test_a_damaged_form_leaves_nothing(served: Served, kind: str, body: bytes) -> None:
    client = served.client()
    before = len(client.get("/v1/files").json()["data"])
    reply = client.post("/v1/files", content=body, headers=GERMAN | {"Content-Type": kind})
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_request")
    assert len(client.get("/v1/files").json()["data"]) == before


def test_a_vector_store_counts_its_files(sdk: OpenAI, store: Any) -> None:
    assert (store.object, store.name, store.status) == ("vector_store", "harbour", "completed")
    assert (store.file_counts.completed, store.file_counts.total) == (2, 2)
    assert store.usage_bytes == len(FERRY) + len(CRANE)
    assert store.id in [each.id for each in sdk.vector_stores.list()]
    again = sdk.vector_stores.create(name="harbour")
    assert again.id == store.id


def test_its_files_are_listed_in_pages_either_way(sdk: OpenAI, store: Any) -> None:
    names = {each.id: each.domicile["name"] for each in sdk.vector_stores.files.list(store.id)}  # type: ignore[attr-defined]
    assert sorted(names.values()) == ["crane.txt", "ferry.txt"]
    newest = sdk.vector_stores.files.list(store.id, limit=1)
    assert newest.has_more
    assert [names[each.id] for each in newest.data] == ["crane.txt"]
    assert [names[each.id] for each in newest.get_next_page().data] == ["ferry.txt"]
    assert [names[each.id] for each in sdk.vector_stores.files.list(store.id, order="asc")] == [
        "ferry.txt",
        "crane.txt",
    ]
    ferry = next(each for each, name in names.items() if name == "ferry.txt")
    assert [names[each.id] for each in sdk.vector_stores.files.list(store.id, before=ferry).data] == ["crane.txt"]
    assert not sdk.vector_stores.files.list(store.id, filter="failed").data
    with pytest.raises(openai.BadRequestError):
        sdk.vector_stores.files.list(store.id, filter="lost")  # type: ignore[arg-type]


def test_a_search_gives_passages_with_scores_and_attributes(sdk: OpenAI, store: Any) -> None:
    page = sdk.vector_stores.search(store.id, query="When does the ferry leave?", max_num_results=2)
    best = page.data[0]
    assert (best.filename, best.attributes) == ("ferry.txt", {"team": "passengers", "year": 2025.0, "draft": False})
    assert "nine" in best.content[0].text
    assert 0.5 < best.score <= 1
    assert page.domicile["receipt"]  # type: ignore[attr-defined]
    assert best.domicile["zone"] == "DE"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"type": "eq", "key": "team", "value": "freight"}, ["crane.txt"]),
        ({"type": "ne", "key": "team", "value": "freight"}, ["ferry.txt"]),
        ({"type": "gte", "key": "year", "value": 2026}, ["crane.txt"]),
        ({"type": "in", "key": "filename", "value": ["ferry.txt", "other.txt"]}, ["ferry.txt"]),
        ({"type": "eq", "key": "jurisdiction", "value": "FR"}, []),
        (
            {
                "type": "or",
                "filters": [
                    {"type": "eq", "key": "draft", "value": False},
                    {"type": "eq", "key": "year", "value": 2026},
                ],
            },
            ["crane.txt", "ferry.txt"],
        ),
    ],
)
def test_filters_narrow_before_the_search(sdk: OpenAI, store: Any, filters: Any, names: list[str]) -> None:
    assert sorted(set(found(sdk, store, "ferry crane yard island", filters=filters))) == names


def test_an_unknown_attribute_is_an_error_and_no_empty_page(sdk: OpenAI, store: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        found(sdk, store, "ferry", filters={"type": "eq", "key": "taem", "value": "x"})
    assert caught.value.param == "filters"
    assert "team" in str(caught.value)


def test_a_score_threshold_always_acts(sdk: OpenAI, store: Any) -> None:
    every = sdk.vector_stores.search(store.id, query="When does the ferry leave?").data
    middle = (every[0].score + every[-1].score) / 2
    above = sdk.vector_stores.search(
        store.id, query="When does the ferry leave?", ranking_options={"score_threshold": middle}
    ).data
    assert [each.filename for each in above] == [each.filename for each in every if each.score >= middle]
    assert len(above) < len(every)
    assert not found(sdk, store, "opera premieres in Valparaíso", ranking_options={"score_threshold": 0.9})


def test_attributes_can_be_written_anew_and_are_sealed(served: Served, sdk: OpenAI) -> None:
    store = sdk.vector_stores.create(name="notices")
    file = sent(sdk, "notice.txt", b"The bridge is closed on Sunday.\n")
    sdk.vector_stores.files.create_and_poll(file.id, vector_store_id=store.id, poll_interval_ms=50)
    written = sdk.vector_stores.files.update(
        file.id, vector_store_id=store.id, attributes={"secretkey": "Zwitscherkanari", "jurisdiction": "DE"}
    )
    assert written.attributes == {"secretkey": "Zwitscherkanari"}
    with served.house.database.reading() as connection:
        kept = connection.execute(sa.select(table.c.sealed).where(table.c.id == file.id)).scalar_one()
    assert b"Zwitscher" not in kept
    assert b"secretkey" not in kept
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.vector_stores.files.update(file.id, vector_store_id=store.id, attributes={"jurisdiction": "US"})
    assert caught.value.param == "attributes.jurisdiction"
    with pytest.raises(openai.BadRequestError):
        sdk.vector_stores.files.update(file.id, vector_store_id=store.id, attributes={f"a{n}": n for n in range(17)})
    with served.client() as client:
        erased(client, file.id)
    with served.house.database.reading() as connection:
        assert not connection.execute(sa.select(table.c.sealed).where(table.c.id == file.id)).all()


def test_a_file_lies_in_one_vector_store(sdk: OpenAI, store: Any) -> None:
    other = sdk.vector_stores.create(name="second")
    ferry = next(each.id for each in sdk.files.list() if each.filename == "ferry.txt")
    with pytest.raises(openai.ConflictError) as caught:
        sdk.vector_stores.files.create(other.id, file_id=ferry)
    assert caught.value.response.headers["x-should-retry"] == "false"
    with pytest.raises(openai.NotFoundError):
        sdk.vector_stores.files.retrieve(ferry, vector_store_id=other.id)
    twin = sent(sdk, "ferry.txt", b"Another ferry.\n")
    with pytest.raises(openai.ConflictError):
        sdk.vector_stores.files.create(store.id, file_id=twin.id)
    with pytest.raises(openai.ConflictError):
        sdk.vector_stores.delete(store.id)
    assert sdk.vector_stores.delete(other.id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.vector_stores.retrieve(other.id)


def test_a_strangers_files_and_stores_are_not_there(served: Served, sdk: OpenAI, store: Any) -> None:
    ferry = next(each.id for each in sdk.files.list() if each.filename == "ferry.txt")
    http = httpx.Client(trust_env=False)
    with OpenAI(
        api_key=served.key(tenant="stranger"), base_url=f"{served.url}/v1", http_client=http, max_retries=0
    ) as stranger:
        assert not stranger.files.list().data
        assert not stranger.vector_stores.list().data
        for call in (
            lambda: stranger.files.retrieve(ferry),
            lambda: stranger.files.content(ferry),
            lambda: stranger.files.delete(ferry),
            lambda: stranger.vector_stores.retrieve(store.id),
            lambda: stranger.vector_stores.search(store.id, query="ferry"),
            lambda: stranger.vector_stores.files.list(store.id),
        ):
            with pytest.raises(openai.NotFoundError):
                call()


@pytest.mark.parametrize(
    "given", [{"metadata": {"a": "b"}}, {"expires_after": {"anchor": "last_active_at", "days": 3}}]
)
def test_what_a_store_would_not_keep_is_refused(sdk: OpenAI, given: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.vector_stores.create(name="kept", **given)
    assert caught.value.code == "unsupported_parameter"


def test_groups_hide_files_from_lists_and_filters(served: Served, sdk: OpenAI) -> None:
    store = sdk.vector_stores.create(name="council-files")
    headers = {"Domicile-Collection": "council-files", "Domicile-Groups": "works-council"}
    file = sent(sdk, "minutes.txt", b"The council meets in the blue room.\n", **headers)
    sdk.files.wait_for_processing(file.id, poll_interval=0.05)
    plain = served.client("ask", "upload")
    assert plain.get("/v1/files/" + file.id).status_code == 404
    body = {"query": "council", "filters": {"type": "eq", "key": "filename", "value": "minutes.txt"}}
    assert plain.post(f"/v1/vector_stores/{store.id}/search", json=body).json()["data"] == []
    member = served.client("ask", groups=("works-council",))
    assert len(member.post(f"/v1/vector_stores/{store.id}/search", json=body).json()["data"]) == 1
