"""Evidence over HTTP: what is served can be checked by somebody who has nothing but the files."""

import copy
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from residency import notes, tlog
from residency.receipt import leaf
from residency.verify import Verdict, verify
from tests.doubles.homes import FOUR_SITES
from tests.doubles.serving import Served, live, same

pytestmark = pytest.mark.enable_socket

POLICIES = Path(__file__).parents[2] / "policies"
TEXT = "The lighthouse keeper winds the clock at noon.\n"


@pytest.fixture(scope="module")
def receipt(client: httpx.Client) -> str:
    live(client, "lighthouse.txt", TEXT)
    answer = client.post("/v1/answers", json={"question": "When does the keeper wind the clock?"}).json()
    assert not answer["abstained"]
    return str(answer["receipt"])


def bundle(client: httpx.Client, receipt: str) -> dict[str, Any]:
    """Fetch a receipt with its proof."""
    found: dict[str, Any] = client.get(f"/v1/receipts/{receipt}").json()
    return found


def checked(client: httpx.Client, found: dict[str, Any]) -> Verdict:
    """Check a receipt as an outsider would: beside the key, the rules and the fleet."""
    key = client.get("/v1/ledger/key").text.strip()
    given = {"receipt.json": msgspec.json.encode(found), "trust.txt": f"log {key}\nquorum none\n".encode()}
    given |= {str(each): each.read_bytes() for each in POLICIES.rglob("*") if each.is_file()}
    return verify(given | {"fleet.toml": FOUR_SITES.read_bytes()})


def test_a_receipt_holds_offline_against_key_rules_and_fleet(client: httpx.Client, receipt: str) -> None:
    found = bundle(client, receipt)
    assert found["proof"]
    verdict = checked(client, found)
    assert verdict.code == 0, verdict.lines


@pytest.mark.parametrize("field", ["time", "kind", "withheld", "tenant"])
def test_a_receipt_that_was_changed_does_not_hold(client: httpx.Client, receipt: str, field: str) -> None:
    changed = copy.deepcopy(bundle(client, receipt))
    before = changed["receipt"][field]
    changed["receipt"][field] = before + 1 if isinstance(before, int) else before + "x"
    assert checked(client, changed).code == 1


def test_a_receipt_names_sites_rules_and_commitments_and_no_content(client: httpx.Client, receipt: str) -> None:
    found = bundle(client, receipt)["receipt"]
    assert (found["tenant"], found["activity"]) == ("acme", "search")
    assert set(found["commits"]) >= {"question", "documents", "answer", "principal"}
    assert {step["zone"] for step in found["steps"]} == {"DE"}
    assert all({"site", "action", "policies"} <= set(step) for step in found["steps"])
    text = msgspec.json.encode(found).decode().lower()
    assert not any(word in text for word in ("keeper", "clock", "lighthouse"))


def test_another_tenants_receipt_looks_exactly_like_one_that_never_was(served: Served, receipt: str) -> None:
    stranger = served.client(tenant="stranger")
    foreign = stranger.get(f"/v1/receipts/{receipt}")
    unknown = stranger.get("/v1/receipts/01890000-0000-7000-8000-000000000000")
    assert foreign.status_code == 404
    assert same(foreign, unknown)


def test_the_checkpoint_is_signed_by_the_served_key(client: httpx.Client, receipt: str) -> None:
    note = client.get("/v1/ledger/checkpoint")
    assert note.headers["content-type"].startswith("text/plain")
    text, lines = notes.split(note.text)
    point = tlog.Checkpoint.parse(text)
    key = client.get("/v1/ledger/key").text.strip()
    assert point.size > 0
    assert point.origin == key.split("+")[0]
    assert lines


def test_a_proof_by_index_leads_from_the_leaf_to_the_checkpoint(client: httpx.Client, receipt: str) -> None:
    found = bundle(client, receipt)
    index = tlog.Proof.parse(found["proof"]).index
    reply = client.get(f"/v1/ledger/proof/{index}")
    assert reply.status_code == 200
    proof = tlog.Proof.parse(reply.text)
    point = tlog.Checkpoint.parse(notes.split(proof.checkpoint)[0])
    held = tlog.included(tlog.leaf_hash(leaf(found["receipt"])), index, point.size, proof.hashes, point.root)
    assert held


def test_a_later_checkpoint_continues_an_earlier_one(client: httpx.Client, receipt: str) -> None:
    def point() -> tlog.Checkpoint:
        return tlog.Checkpoint.parse(notes.split(client.get("/v1/ledger/checkpoint").text)[0])

    old = point()
    for _ in range(3):
        client.post("/v1/search", json={"query": "clock"})
    new = point()
    assert new.size > old.size
    reply = client.get("/v1/ledger/consistency", params={"old": old.size, "new": new.size}).json()
    hashes = [tlog.decode(each) for each in reply["hashes"]]
    assert tlog.consistent(old.size, new.size, old.root, new.root, hashes)
    assert not tlog.consistent(old.size, new.size, new.root, old.root, hashes)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/ledger/proof/999999",
        "/v1/ledger/consistency?old=1&new=999999",
        "/v1/ledger/consistency?old=3&new=1",
    ],
)
def test_a_leaf_or_size_that_is_not_there_is_not_found(client: httpx.Client, receipt: str, path: str) -> None:
    reply = client.get(path)
    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")
    assert reply.json()["hint"]


def test_a_size_below_nothing_is_refused(client: httpx.Client) -> None:
    reply = client.get("/v1/ledger/consistency?old=-1&new=1")
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_request")
