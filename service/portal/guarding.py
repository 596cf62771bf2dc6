"""Guarding: a change made with a session cookie must come from our own page.

Rules kept here: a foreign `Origin` or `Sec-Fetch-Site` is refused before anything else, also at sign-in; then the
session's own token (an HMAC over its id) must come back, in a header or in the form. A call with a bearer key has no
cookie to abuse and needs no token. Our pages send no referrer, so browsers write `Origin: null` on plain forms: that is
taken only where `Sec-Fetch-Site` says that the page was ours.
"""

import hmac
from typing import Any
from urllib.parse import urlsplit

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.exceptions import PermissionDeniedException
from litestar.handlers import BaseRouteHandler

from service.api.replies import Asking, house_of
from service.portal.forms import fields, one

TOKEN = "csrf"  # noqa: S105 - the name of a field
HEADER = "x-csrf-token"
IN_BODY = {"csrf_in_body": True}
"""For a handler that reads its own stream and calls `must_match` before it does anything with it."""


async def same_site(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Refuse a change that a foreign page asks for. Raises `PermissionDeniedException`."""
    if connection.scope.get("method") in {"GET", "HEAD", "OPTIONS"}:
        return
    assert isinstance(connection, Request)  # noqa: S101 - guards of HTTP handlers get the request
    _own_origin(connection)
    if connection.scope.get("user") is None or connection.auth != "session" or handler.opt.get("csrf_in_body"):
        return
    sent = connection.headers.get(HEADER)
    must_match(connection, one(await fields(connection), TOKEN) if sent is None else sent)


def must_match(request: Asking, sent: str) -> None:
    """Refuse unless this is the session's own token."""
    if request.auth != "session":
        return
    wanted = house_of(request).accounts.csrf(request.user)
    if not hmac.compare_digest(wanted.encode(), sent.encode()):
        raise PermissionDeniedException(detail="The form's own token is missing or belongs to another session.")


def _own_origin(request: Asking) -> None:
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    foreign = site not in {None, "same-origin", "none"}
    if origin == "null":
        foreign = foreign or site != "same-origin"
    elif origin is not None:
        public = urlsplit(house_of(request).settings.public_url).netloc
        foreign = foreign or urlsplit(origin).netloc not in {request.headers.get("host", ""), public}
    if foreign:
        raise PermissionDeniedException(detail="Another site asked for this change.")
