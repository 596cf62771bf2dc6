"""Repeating: the `Idempotency-Key` header, for calls whose reply may be given again.

It stands around the handler: what leaves is taken down as it leaves and kept when it was a success, streams as well.
A call that failed, or whose client went away, gives its key back, so that it may be made again.
"""

from collections.abc import Iterable
from typing import Any

from litestar.enums import ScopeType
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from service.api.replies import Asking
from service.errors import InvalidRequestError
from service.house import House
from service.repeats import Kept, Turn

HEADER = b"idempotency-key"
LONGEST = 255
MOST_BODY = 10_000_000
MOST_REPLY = 4 * 1024 * 1024
"""Bytes of a reply that is kept; a larger one is made anew."""
_KEPT = frozenset({b"content-type", b"cache-control", b"x-accel-buffering"})


def cites(request: Asking, documents: Iterable[str]) -> None:
    """Note which Documents stand in the reply: it is kept no longer than they are live."""
    request.scope.setdefault("state", {})["cites"] = list(documents)


class Repeating(ASGIMiddleware):
    """Keep and give again."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Run the call, or give the reply that it got before."""
        given = next((value for name, value in scope.get("headers", ()) if name == HEADER), None)
        if given is None:
            await next_app(scope, receive, send)
            return
        key = given.decode("latin-1").strip()
        if not 0 < len(key) <= LONGEST or not (key.isascii() and key.isprintable()):
            raise InvalidRequestError(
                "the Idempotency-Key cannot be read",
                param="Idempotency-Key",
                hint="send 1 to 255 characters of ASCII",
            )
        body = await whole(receive)
        house: House = scope["litestar_app"].state.house
        call = f"POST {scope['path']}?{scope.get('query_string', b'').decode('latin-1')}"
        turn = await house.database.run(house.repeats.begin, scope["user"], call, key, body)
        if isinstance(turn, Kept):
            await _give(turn, send)
            return
        await _run(house, turn, scope, Again(body, receive), send, next_app)


async def _run(house: House, turn: Turn, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
    status, headers, parts, kept = 0, list[tuple[bytes, bytes]](), list[bytes](), False

    async def noted(message: Message) -> None:
        nonlocal status, headers, kept
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = [
                (name, value)
                for name, value in message.get("headers", ())
                if name.lower() in _KEPT or name.lower().startswith(b"domicile-")
            ]
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))
            whole = not message.get("more_body", False)
            if whole and status == 200 and sum(map(len, parts)) <= MOST_REPLY:
                reply = Kept(headers, b"".join(parts))
                documents = scope.get("state", {}).get("cites", [])
                await house.database.run(house.repeats.finish, turn, reply, documents)
                kept = True
        await send(message)

    try:
        await next_app(scope, receive, noted)
    finally:
        if not kept:
            await house.database.run(house.repeats.drop, turn)


class Again:
    """A body that was read already, and then what the connection says next."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Any:
        """Give the body once, then what the connection says."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._receive()


async def whole(receive: Receive) -> bytes:
    """Read a body to its end. Raises `InvalidRequestError` when it breaks off, and 413 beyond `MOST_BODY`."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise InvalidRequestError("the body broke off", hint="send it again")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BODY:
            raise RequestEntityTooLarge
        if not message.get("more_body", False):
            return b"".join(parts)


async def _give(kept: Kept, send: Send) -> None:
    headers = [*kept.headers, (b"idempotent-replayed", b"true"), (b"content-length", str(len(kept.body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": kept.body, "more_body": False})
