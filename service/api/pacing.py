"""Pacing: a guard that counts each call against its key, and the headers that tell what is left."""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Message, Scope

from service.limits import headers


def paced(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Count a call of the API against its key. Raises `LimitError`."""
    if connection.scope.get("method") != "OPTIONS" and connection.scope.get("user") is not None:
        allowance = connection.app.state.house.limits.take(connection.user.id)
        connection.scope.setdefault("state", {})["allowance"] = allowance


async def told(message: Message, scope: Scope) -> None:
    """Put what a key has left on its reply."""
    allowance = scope.get("state", {}).get("allowance")
    if message["type"] == "http.response.start" and allowance is not None:
        made = headers(allowance.limit, allowance.left, allowance.seconds)
        message["headers"] = [
            *message.get("headers", ()),
            *((name.lower().encode(), value.encode()) for name, value in made.items()),
        ]
