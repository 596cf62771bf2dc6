"""Who is asking: a bearer key on `/v1`, a session cookie on the portal; one guard reads each handler's scope.

Rules kept here: a route under `/v1` without a declared scope is refused for everybody; identity comes from the
credential alone; an unknown, a revoked and an expired credential look the same.
"""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult

from residency.decision import Principal
from service.errors import CredentialError, ScopeError
from service.house import House

COOKIE = "domicile_session"


def cookie_name(*, secure: bool) -> str:
    """Name the session cookie; behind TLS its prefix binds it to this host alone (RFC 6265bis 4.1.3.2)."""
    return f"__Host-{COOKIE}" if secure else COOKIE


class BearerAuth(AbstractAuthenticationMiddleware):
    """Check the credential in the database's threads, on every call."""

    async def authenticate_request(self, connection: ASGIConnection[Any, Any, Any, Any]) -> AuthenticationResult:
        """Give the Principal. Raises `CredentialError`."""
        house: House = connection.app.state.house
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        kind = "key"
        if not token and not connection.url.path.startswith(("/v1", "/mcp")):
            cookie = cookie_name(secure=house.settings.server.secure_cookies)
            kind, scheme, token = "session", "bearer", connection.cookies.get(cookie, "")
        if scheme.lower() != "bearer" or not token.strip():
            raise CredentialError("no API key was sent", hint="send `Authorization: Bearer <key>`")
        principal, ceiling = await house.database.run(house.accounts.identify, token.strip(), kind=kind)
        house.engine.admit(principal.tenant, ceiling)
        return AuthenticationResult(user=principal, auth=kind)


def scoped(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Refuse unless the Principal holds the scope that the handler declares in `opt["scope"]`."""
    if connection.scope.get("method") == "OPTIONS" or handler.opt.get("exclude_from_auth"):
        return
    scope = str(handler.opt.get("scope", ""))
    principal: Principal = connection.user
    if not scope:
        raise ScopeError("this route declares no scope, so nobody may call it", scope="none")
    if scope != "any" and scope not in principal.scopes:
        raise ScopeError(
            f"this call needs the scope `{scope}`", scope=scope, hint=f"ask for a key with --scope {scope}"
        )
