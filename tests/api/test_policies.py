"""`/v1/policies` over HTTP: reading the rules, proposing others, two officers, and a service that goes on meanwhile."""

from functools import partial

import pytest

from residency import impact, product
from residency.rulebook import Rulebook
from tests.doubles.rules import POLICIES
from tests.doubles.serving import Served

pytestmark = pytest.mark.enable_socket
KEPT = {"cases/fleet.toml", "cases/residency.toml"}
SHIPPED = {
    name: raw.decode()
    for name, raw in Rulebook.read(POLICIES).files.items()
    if not name.startswith("cases/") or name in KEPT
}
STRICTER = {**SHIPPED, "sets.toml": 'use = ["home-country"]'}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(impact, "product", partial(product.product, limit=4))
    monkeypatch.setattr(product, "_foils", lambda *_: [])


def test_anybody_with_a_key_reads_the_rules(served: Served) -> None:
    told = served.client("ask").get("/v1/policies").json()
    assert told["policy"] == served.house.engine.policy.digest
    assert {clause["id"] for clause in told["clauses"]} == set(served.house.engine.policy.clauses)
    assert all(clause["law"] and clause["text"] and clause["place"] for clause in told["clauses"])
    assert (told["set"], told["state"]) == (None, "ok")
    assert served.bare().get("/v1/policies").status_code == 401
    checks = served.bare().get("/readyz").json()["checks"]
    assert (checks["policy"], checks["clock"]) == ("ok", "ok")


def test_an_admin_of_another_tenant_may_not_touch_the_rules(served: Served) -> None:
    for client in (served.client("admin", tenant="acme"), served.client("ask", tenant="default")):
        refused = client.post("/v1/policies/proposals", json={"files": STRICTER})
        assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "zones.toml is missing"),
        ({"../evil.cedar": ""}, "no file of a policies folder"),
        ({**SHIPPED, "own.cedar": "permit (principal"}, "own.cedar does not parse"),
        ({**SHIPPED, "sets.toml": 'use = ["eu-onyl"]'}, "no set of the folder"),
    ],
)
def test_rules_that_cannot_stand_are_answered_with_their_problems(
    served: Served, files: dict[str, str], says: str
) -> None:
    refused = served.client("admin", tenant="default").post("/v1/policies/proposals", json={"files": files})
    assert (refused.status_code, refused.json()["code"]) == (422, "policy_rejected")
    assert says in refused.json()["problems"][0]
    assert refused.json()["error"]["code"] == "policy_rejected"


def test_two_officers_put_rules_in_force_while_the_service_runs(served: Served) -> None:
    first = served.client("admin", tenant="default")
    second = served.client("admin", "report", tenant="default")
    before = first.get("/v1/policies").json()["policy"]
    made = first.post("/v1/policies/proposals", json={"files": STRICTER})
    assert (made.status_code, made.json()["state"]) == (201, "activated")
    told = first.get("/v1/policies").json()
    assert told["policy"] != before
    assert told["set"] == made.json()["digest"]
    assert "forbid-de-outside-home" in {clause["id"] for clause in told["clauses"]}
    back = first.post("/v1/policies/proposals", json={"files": SHIPPED})
    assert (back.status_code, back.json()["state"]) == (202, "waiting")
    path = f"/v1/policies/proposals/{back.json()['digest']}/approve"
    own = first.post(path)
    assert (own.status_code, own.json()["code"]) == (409, "state_conflict")
    done = second.post(path)
    assert (done.status_code, done.json()["state"]) == (200, "activated")
    assert done.json()["proposed_by"] != done.json()["approved_by"]
    assert first.get("/v1/policies").json()["policy"] == before
    listed = first.get("/v1/policies/proposals").json()["proposals"]
    assert [each["state"] for each in listed] == ["activated", "activated"]
    assert served.bare().get("/readyz").json()["checks"]["policy"] == "ok"
