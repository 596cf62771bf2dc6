"""Describing: what the API's description says beyond what a handler's signature tells: problems, bodies, other types.

Rule kept here: every call under `/v1` names the statuses that it may end with, so that a reply outside its description
is a fault; `tests/api/test_description.py` holds them against the served API.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, OpenAPIType, Operation, RequestBody, Schema
from litestar.plugins import ReceiveRoutePlugin
from litestar.routes import BaseRoute, HTTPRoute

from service.errors import InvalidRequestError
from service.problems import STATUS

PROBLEM = "application/problem+json"
EVENTS = "text/event-stream"
BYTES = "application/octet-stream"
ALWAYS = (400, 401, 403, 429, 500, 503)
"""A call may be misread, come without a key or scope, too often, or while something is broken or away."""
CHANGING = (409, 413, 422)
"""One that brings something may come twice, be too large, or say what cannot be."""


class ErrorOut(msgspec.Struct):
    """OpenAI's error, for clients that read it."""

    message: str
    type: str
    param: str | None
    code: str


class ProblemOut(msgspec.Struct):
    """Every error's body (RFC 9457); further members by code, see docs/api.md."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    help: str
    error: ErrorOut


class Described(ReceiveRoutePlugin):
    """Says of every call under `/v1` with which problems it may end; more of them stand in its `opt["problems"]`.

    It also notes which query parameters a call knows, for `spelled`.
    """

    def receive_route(self, route: BaseRoute) -> None:
        """Add both to the handlers of a route."""
        if isinstance(route, HTTPRoute) and route.path.startswith("/v1"):
            for handler in route.route_handlers:
                known = handler.create_kwargs_model(route.path_parameters).expected_query_params
                handler.opt["query"] = frozenset(each.field_alias for each in known)
                handler.opt["lenient"] = "OpenAI" in (handler.resolve_tags() or ())
                own = {status: _problem(status) for status in sorted(_statuses(route.path, handler))}
                handler.responses = own | dict(handler.responses or {})


def spelled(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Refuse a query parameter that a native call does not know: a misspelt one would leave its default in force.

    Raises `InvalidRequestError`. OpenAI's calls pass it over, as its clients expect.
    """
    known = handler.opt.get("query")
    if connection.scope.get("method") == "OPTIONS" or known is None or handler.opt["lenient"]:
        return
    if unknown := sorted(set(connection.query_params) - known):
        hint = f"known: {', '.join(sorted(known))}" if known else "this call takes none"
        raise InvalidRequestError("a query parameter is not known here", param=unknown[0][:64], hint=hint)


def _statuses(path: str, handler: HTTPRouteHandler) -> set[int]:
    found = {*ALWAYS, *handler.opt.get("problems", ())}
    asks = handler.opt.get("scope") == "ask"
    if "{" in path or asks:
        found.add(404)
    if handler.http_methods & {"POST", "PUT", "DELETE"}:
        found.update(CHANGING)
    if asks and "POST" in handler.http_methods:
        found.add(504)
    return found


def _problem(status: int) -> ResponseSpec:
    titles = sorted(title for known, title in STATUS.values() if known == status)
    return ResponseSpec(ProblemOut, generate_examples=False, description="; ".join(titles), media_type=PROBLEM)


def gives(data: Any, description: str = "Done") -> ResponseSpec:
    """Say what JSON a call gives, where its handler's signature says it too loosely."""
    return ResponseSpec(data, generate_examples=False, description=description)


def described(
    *, takes: Mapping[str, Schema] | None = None, gives: Mapping[str, Schema] | None = None, key: bool = True
) -> type[Operation]:
    """Make the description of a call that reads its body as a stream, gives more than JSON, or asks for no key."""

    @dataclass
    class Own(Operation):
        def __post_init__(self) -> None:
            if not key:
                self.security = []
            if takes:
                content = {kind: OpenAPIMediaType(schema=schema) for kind, schema in takes.items()}
                self.request_body = RequestBody(content=content, required=True)
            done: Any = next((made for code, made in (self.responses or {}).items() if code.startswith("2")), None)
            if gives and isinstance(done, OpenAPIResponse):
                done.content = (done.content or {}) | {
                    kind: OpenAPIMediaType(schema=schema) for kind, schema in gives.items()
                }

    return Own


TEXT = Schema(type=OpenAPIType.STRING)
RAW = Schema(type=OpenAPIType.STRING, content_media_type=BYTES)
