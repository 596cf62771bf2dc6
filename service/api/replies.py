"""Replies that every part of the API shares: problems, refusals, the house of a request, filters."""

import logging
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import structlog
from litestar import Litestar, Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.response import Stream
from litestar.response.base import ASGIResponse

from residency.decision import Principal, Refusal
from residency.errors import DomicileError
from service.errors import InvalidRequestError
from service.house import House
from service.problems import Problem, of_error, of_refusal, problem

Asking = Request[Principal, str, State]
log: structlog.stdlib.BoundLogger = structlog.get_logger("domicile")

_BY_STATUS = {
    400: "invalid_request",
    401: "unauthenticated",
    403: "scope_missing",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_type",
    429: "rate_limited",
}


def house_of(request: Request[Any, Any, State]) -> House:
    """Give the House that the app was started with."""
    house: House = request.app.state.house
    return house


def request_id(request: Request[Any, Any, State]) -> str:
    """Give this request's id; made once, kept on its state."""
    known = request.scope.setdefault("state", {}).get("request_id")
    if not known:
        known = f"req_{secrets.token_hex(8)}"
        request.scope["state"]["request_id"] = known
    return str(known)


def reply(made: Problem) -> Response[dict[str, Any]]:
    """Send a problem."""
    return Response(made.body, status_code=made.status, headers=made.headers, media_type="application/problem+json")


def refused(request: Request[Any, Any, State], refusal: Refusal, receipt: str) -> Response[dict[str, Any]]:
    """Send a Refusal: 403 with its clauses, its remedy and its Receipt."""
    return reply(of_refusal(refusal, receipt=receipt, instance=_place(request), request_id=request_id(request)))


class Events(Stream):
    """A stream of server-sent events, never kept by whoever passes it on."""

    def __init__(self, events: AsyncIterator[bytes], headers: Mapping[str, str] | None = None) -> None:
        own = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers={**own, **(headers or {})}, status_code=200)

    def to_asgi_response(self, app: Litestar | None, request: Request[Any, Any, Any], **options: Any) -> ASGIResponse:
        """Send it under its own type; the framework would take that of the handler's other, plain reply."""
        return super().to_asgi_response(app, request, **(options | {"media_type": self.media_type}))


def on_error(request: Request[Any, Any, State], error: DomicileError) -> Response[dict[str, Any]]:
    """Answer an error that was raised on purpose."""
    return reply(of_error(error, instance=_place(request), request_id=request_id(request)))


def on_http(request: Request[Any, Any, State], error: HTTPException) -> Response[dict[str, Any]]:
    """Answer what the framework refused: bad JSON, unknown paths, bodies too large."""
    code = _BY_STATUS.get(error.status_code, "internal" if error.status_code >= 500 else "invalid_request")
    detail = {
        "not_found": "There is nothing here.",
        "method_not_allowed": "This path does not serve that method.",
        "too_large": "The body is larger than this call takes.",
    }.get(code, _shape(error))
    hint = {
        "not_found": "see GET /api/openapi.json for what there is",
        "method_not_allowed": "see GET /api/openapi.json for the methods of each path",
        "too_large": "send less at once",
        "invalid_request": "compare the request with GET /api/openapi.json",
    }.get(code, "")
    made = problem(code, detail, hint=hint, instance=_place(request), request_id=request_id(request))
    return reply(Problem(made.status, made.body, {**made.headers, **dict(error.headers or {})}))


def on_unread(
    request: Request[Any, Any, State], error: RecursionError | UnicodeDecodeError
) -> Response[dict[str, Any]]:
    """Answer JSON that is nested too deeply or is no UTF-8 for its reader; anywhere else such an error is a crash."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or "/litestar/" not in trace.tb_frame.f_code.co_filename:
        return on_crash(request, error)
    deep = isinstance(error, RecursionError)
    detail = "The request is nested too deeply." if deep else "The body is no JSON: it holds bytes that are no UTF-8."
    return reply(problem("invalid_request", detail, instance=_place(request), request_id=request_id(request)))


def on_crash(request: Request[Any, Any, State], error: Exception) -> Response[dict[str, Any]]:
    """Answer what nobody foresaw: 500 without a message; the log gets type and place, never the text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else ""
    log.error("request_failed", error=type(error).__name__, place=place, request_id=request_id(request))
    return reply(problem("internal", "The request failed.", instance=_place(request), request_id=request_id(request)))


def _place(request: Request[Any, Any, State]) -> str:
    """Name the called route by its template: a path may hold a file's name."""
    return str(request.scope.get("path_template", "") or "")


def _shape(error: HTTPException) -> str:
    """Say what is wrong with a body's shape: msgspec names fields and types, never values; else a fixed sentence."""
    extra = error.extra
    if isinstance(extra, list) and extra and isinstance(extra[0], dict):
        return "; ".join(f"{item.get('key', '')}: {item.get('message', '')}".strip(": ") for item in extra[:3])
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, msgspec.DecodeError):
        cause = cause.__cause__ or cause.__context__
    text = str(cause or error.detail)
    if "Object " in text or "Expected" in text:
        return text
    if cause is not None:  # says what and at which byte, never which text
        return f"The body is no JSON: {text}."
    return "The request cannot be understood."


def documents_of(filters: dict[str, Any] | None) -> tuple[str, ...] | None:
    """Read `{"documents": [...]}`; anything else is refused rather than ignored."""
    if not filters:
        return None
    unknown = set(filters) - {"documents"}
    if unknown:
        raise InvalidRequestError(
            f"unknown filter `{sorted(unknown)[0]}`", param="filters", hint='known: {"documents": ["<id>", …]}'
        )
    names = filters["documents"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidRequestError("`filters.documents` is a list of ids", param="filters.documents")
    return tuple(names)


def quiet_logs() -> None:
    """Set up logs: JSON lines of event, ids, codes and counts on stderr; no library's own request lines."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
    for name in ("httpx", "httpcore", "uvicorn.access", "openai", "qdrant_client"):
        logging.getLogger(name).setLevel(logging.WARNING)
