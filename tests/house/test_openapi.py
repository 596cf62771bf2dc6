"""The committed description is the served one; every call has a name and a scope."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from litestar import Litestar, get
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from service.accounts import SCOPES
from service.app import create_app
from service.openapi import described
from service.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def app() -> Litestar:
    return create_app(Settings())


def handlers(app: Litestar) -> Iterator[tuple[str, HTTPRouteHandler]]:
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                if "OPTIONS" not in handler.http_methods:
                    yield route.path, handler


def wrong(app: Litestar) -> list[str]:
    """List what is open without saying so, and what under /v1 has no operation id or no known scope."""
    found = []
    for path, handler in handlers(app):
        if handler.opt.get("exclude_from_auth"):
            continue
        scope = handler.opt.get("scope")
        if scope not in {*SCOPES, "any"}:
            found.append(f"{path}: scope {scope!r}")
        if path.startswith("/v1") and not handler.operation_id:
            found.append(f"{path}: no operation id")
    return found


def test_the_committed_description_is_the_served_one() -> None:
    committed = (ROOT / "openapi.json").read_bytes()
    assert committed == described(), "run `make openapi` and look at what changed"


def test_every_call_has_an_operation_id_and_a_scope_or_says_that_it_is_open(app: Litestar) -> None:
    assert wrong(app) == []


def test_operation_ids_are_used_once() -> None:
    paths = msgspec.json.decode((ROOT / "openapi.json").read_bytes())["paths"]
    ids = [call["operationId"] for calls in paths.values() for call in calls.values()]
    assert len(ids) == len(set(ids))
    assert all(call.get("summary") and call.get("description") for calls in paths.values() for call in calls.values())


def test_nothing_under_v1_is_open(app: Litestar) -> None:
    opened = {path for path, handler in handlers(app) if handler.opt.get("exclude_from_auth")}
    assert {"/livez", "/readyz", "/metrics"} <= opened
    assert not {path for path in opened if path.startswith("/v1")}


def test_a_call_without_a_scope_is_found() -> None:
    @get("/v1/planted")
    async def planted() -> None:
        """Stand here without a scope."""

    found = wrong(Litestar([planted], openapi_config=None))
    assert found == ["/v1/planted: scope None", "/v1/planted: no operation id"]


def test_the_router_stops_the_whole_v1_by_one_guard(app: Litestar) -> None:
    guarded = [handler for path, handler in handlers(app) if path.startswith("/v1")]
    assert guarded
    for handler in guarded:
        assert "scoped" in {getattr(guard, "func", guard).__name__ for guard in handler.resolve_guards()}
