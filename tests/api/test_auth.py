"""Who may call what: every call of the description, without a key, with a wrong one, and without its scope."""

from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from litestar.routes import HTTPRoute

from service.accounts import SCOPES
from service.app import create_app
from service.settings import Settings
from tests.doubles.serving import Served, same

pytestmark = pytest.mark.enable_socket

DESCRIPTION = msgspec.json.decode((Path(__file__).parents[2] / "openapi.json").read_bytes())
OPEN = {("GET", "/livez"), ("GET", "/readyz")}
SCOPE_OF = {
    "search": "ask",
    "ask": "ask",
    "createChatCompletion": "ask",
    "listModels": "ask",
    "retrieveModel": "ask",
    "createEmbedding": "ask",
    "putDocument": "upload",
    "documentPassages": "ask",
    "retryDocument": "upload",
    "pauseDocument": "upload",
    "resumeDocument": "upload",
    "cancelDocument": "upload",
    "workProgress": "upload",
    "pauseWork": "admin",
    "cutPassages": "admin",
    "resumeWork": "admin",
    "eraseDocument": "upload",
    "listDocuments": "any",
    "receipt": "any",
}
"""Scopes that do not change: people have keys for them."""


def declared() -> dict[str, str]:
    """Give each operation's scope as its handler declares it."""
    handlers = [
        each for route in create_app(Settings()).routes if isinstance(route, HTTPRoute) for each in route.route_handlers
    ]
    return {str(each.operation_id): str(each.opt.get("scope", "")) for each in handlers if each.operation_id}


DECLARED = declared()
CALLS = [
    (method.upper(), path, str(call["operationId"]))
    for path, calls in sorted(DESCRIPTION["paths"].items())
    for method, call in sorted(calls.items())
    if (method.upper(), path) not in OPEN
]


def call(client: httpx.Client, method: str, path: str) -> httpx.Response:
    """Call with every part of the path filled in and nothing in the body."""
    for each in [part for part in path.split("/") if part.startswith("{")]:
        path = path.replace(each, "0" if "index" in each else "0" * 32)
    return client.request(method, path)


def test_scopes_that_people_hold_keys_for_stay_what_they_are() -> None:
    assert {operation: DECLARED[operation] for operation in SCOPE_OF} == SCOPE_OF


def test_the_description_was_read() -> None:
    assert len(CALLS) >= 18
    assert {path for _, path, _ in CALLS if not path.startswith("/v1/")} == set()


@pytest.mark.parametrize(("method", "path", "operation"), CALLS)
def test_a_call_without_a_key_is_refused(served: Served, method: str, path: str, operation: str) -> None:
    reply = call(served.bare(), method, path)
    assert reply.status_code == 401, operation
    assert method == "HEAD" or reply.json()["code"] == "unauthenticated", operation  # a reply to HEAD has no body
    assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path", "operation"), CALLS)
def test_a_call_without_its_scope_is_refused_and_with_any_other_key_is_not(
    served: Served, method: str, path: str, operation: str
) -> None:
    needed = DECLARED[operation]
    for scope in SCOPES:
        reply = call(served.client(scope, tenant="default"), method, path)  # whose admins may do everything
        if needed in ("any", scope):
            assert reply.status_code != 401, (operation, scope)
            assert "scope_missing" not in reply.text, (operation, scope)
        else:
            assert reply.status_code == 403, (operation, scope)
            if method == "HEAD":
                continue
            body = reply.json()
            assert (body["code"], body["scope"]) == ("scope_missing", needed)
            assert f"--scope {needed}" in body["hint"]
            assert reply.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(("method", "path"), sorted(OPEN))
def test_what_operation_asks_needs_no_key_and_names_no_tenant(served: Served, method: str, path: str) -> None:
    served.key(tenant="acme")
    reply = served.bare().request(method, path)
    assert reply.status_code == 200
    assert "acme" not in reply.text


def test_metrics_are_open_and_hold_no_name(served: Served) -> None:
    served.client().post("/v1/search", json={"query": "nightingale"})
    reply = served.bare().get("/metrics")
    assert reply.status_code == 200
    assert "nightingale" not in reply.text
    assert "acme" not in reply.text


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Basic YTpi", "Bearer dom_", "bearer\tx", "Bearer " + "x" * 5000, "Bearer a b c"]
)
def test_a_header_that_holds_no_good_key_is_a_401(served: Served, value: str) -> None:
    reply = served.bare(Authorization=value).get("/v1/models")
    assert (reply.status_code, reply.json()["code"]) == (401, "unauthenticated")
    assert "dom_" not in reply.text


def test_a_good_key_is_taken_whatever_the_case_of_its_scheme(served: Served) -> None:
    assert served.bare(Authorization=f"bEaReR {served.key('ask')}").get("/v1/models").status_code == 200


def test_unknown_revoked_and_expired_keys_look_the_same(served: Served) -> None:
    accounts = served.house.accounts
    expired = accounts.issue(served.do(_tenant(served)), scopes=["ask"], lifetime=-1.0)
    revoked = served.key("ask", tenant="parting")
    accounts.revoke(accounts.listing("parting")[0]["id"])
    replies = [served.bare(Authorization=f"Bearer {token}").get("/v1/models") for token in ("dom_x", expired, revoked)]
    assert {reply.status_code for reply in replies} == {401}
    assert same(replies[0], replies[1])
    assert same(replies[1], replies[2])


async def _tenant(served: Served) -> str:
    served.house.accounts.ensure_tenant("lapsed", ceiling=["EEA"], zone="DE")
    return "lapsed"


@pytest.mark.parametrize("kind", ["signin", "session"])
def test_a_token_of_the_portal_opens_nothing_of_the_api(served: Served, kind: str) -> None:
    served.key(tenant="acme")
    token = served.house.accounts.issue("acme", scopes=SCOPES, kind=kind)
    assert served.bare(Authorization=f"Bearer {token}").get("/v1/models").status_code == 401
    assert served.bare(Cookie=f"domicile_session={token}").get("/v1/models").status_code == 401


def test_a_key_works_from_the_moment_it_is_made_and_no_longer_than_until_it_is_revoked(served: Served) -> None:
    key = served.key("ask", tenant="newcomer")
    client = served.bare(Authorization=f"Bearer {key}")
    assert client.get("/v1/models").status_code == 200
    (row,) = served.house.accounts.listing("newcomer")
    assert row["revoked"] is None
    assert served.house.accounts.revoke(f"key:{row['id']}")
    assert client.get("/v1/models").status_code == 401
    assert not served.house.accounts.revoke(row["id"])


def test_no_header_lets_a_caller_choose_its_tenant(served: Served) -> None:
    sent: dict[str, Any] = {"X-Tenant": "acme", "Domicile-Tenant": "acme", "X-Forwarded-User": "admin"}
    client = served.bare(Authorization=f"Bearer {served.key('ask', tenant='modest')}", **sent)
    body = client.post("/v1/search", json={"query": "anything"}).json()
    receipt = client.get(f"/v1/receipts/{body['receipt']}").json()["receipt"]
    assert receipt["tenant"] == "modest"
