"""Ledger first, release second: when nothing can be recorded, nothing is served."""

from collections.abc import Callable, Iterator

import httpx
import pytest
import sqlalchemy as sa

from ingestion.rows import document
from residency.appending import Writer
from residency.errors import LedgerError
from residency.keytables import dek_wrapped
from tests.doubles.serving import Served, live, put

pytestmark = pytest.mark.enable_socket

SECRET = "The combination of the safe is Quittenmus."
CALLS: dict[str, Callable[[httpx.Client], httpx.Response]] = {
    "search": lambda client: client.post("/v1/search", json={"query": "combination of the safe"}),
    "answer": lambda client: client.post("/v1/answers", json={"question": "What is the combination of the safe?"}),
    "stream": lambda client: client.post(
        "/v1/answers", params={"stream": "true"}, json={"question": "What is the combination of the safe?"}
    ),
    "chat": lambda client: client.post(
        "/v1/chat/completions",
        json={"model": "domicile/default", "messages": [{"role": "user", "content": "The combination of the safe?"}]},
    ),
    "embeddings": lambda client: client.post("/v1/embeddings", json={"input": "combination of the safe"}),
    "upload": lambda client: put(client, "unrecorded.txt", SECRET),
    "refusal": lambda client: put(client, "abroad.txt", SECRET, residency="CH"),
    "report": lambda client: client.get("/v1/reports/residency"),
}


@pytest.fixture(scope="module")
def stocked(client: httpx.Client) -> httpx.Client:
    live(client, "safe.txt", SECRET)
    return client


@pytest.fixture
def broken(served: Served, stocked: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the Ledger refuse every entry, as a full disk would."""

    def refuse(*_: object) -> None:
        raise LedgerError("the ledger cannot be written", hint="make room")

    monkeypatch.setattr(Writer, "write", refuse)
    yield


@pytest.mark.parametrize("call", CALLS)
def test_what_cannot_be_recorded_is_not_released(stocked: httpx.Client, broken: None, call: str) -> None:
    reply = CALLS[call](stocked)
    assert (reply.status_code, reply.json()["code"]) == (503, "ledger_unavailable")
    assert int(reply.headers["retry-after"]) >= 1
    assert "Quittenmus" not in reply.text
    assert 'embedding":[' not in reply.text


@pytest.mark.parametrize("call", [name for name in CALLS if name not in {"upload", "refusal"}])
def test_the_same_call_is_served_while_the_ledger_works(stocked: httpx.Client, call: str) -> None:
    assert CALLS[call](stocked).status_code == 200


def test_an_upload_that_cannot_be_recorded_leaves_no_row_no_key_and_no_file(
    served: Served, stocked: httpx.Client, broken: None
) -> None:
    def left() -> tuple[int, int, int]:
        with served.house.database.reading() as connection:
            rows = connection.execute(sa.select(sa.func.count()).select_from(document)).scalar_one()
            keys = connection.execute(sa.select(sa.func.count()).select_from(dek_wrapped)).scalar_one()
        files = sum(1 for each in (served.settings.path / "sites").glob("*/vault/**/*") if each.is_file())
        return int(rows), int(keys), files

    before = left()
    assert put(stocked, "unrecorded-too.txt", SECRET).status_code == 503
    assert left() == before


def test_a_source_is_not_opened_when_its_opening_cannot_be_recorded(
    served: Served, stocked: httpx.Client, broken: None
) -> None:
    listed = stocked.get("/v1/documents").json()["data"]
    (found,) = [each for each in listed if each["name"] == "safe.txt"]
    reader = served.house.accounts.check(served.key())
    with pytest.raises(LedgerError):
        served.do(served.house.catalogue.source(reader, found["id"], version=1, page=1))


def test_every_served_answer_has_its_entry(stocked: httpx.Client) -> None:
    for name in ("search", "answer", "chat", "embeddings"):
        reply = CALLS[name](stocked)
        receipt = reply.headers.get("domicile-receipt") or reply.json()["receipt"]
        assert stocked.get(f"/v1/receipts/{receipt}").status_code == 200
