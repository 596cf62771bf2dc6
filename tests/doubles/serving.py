"""A really served instance: the app on uvicorn, on loopback, in a thread of its own, over a really built house."""

import asyncio
import socket
import threading
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
import uvicorn
from litestar import Litestar

from service.app import create_app
from service.house import House
from service.settings import Settings
from tests.doubles.homes import key

T = TypeVar("T")
ENDS = {"live", "quarantined", "failed", "erased"}
EVERYTHING = ("ask", "upload", "report", "admin", "review")


class Served:
    """What a test of the API handles: keys, an HTTP client for each, and the house behind it."""

    def __init__(self, settings: Settings, port: int) -> None:
        self.settings = settings
        self.url = f"http://127.0.0.1:{port}"
        self.app: Litestar = create_app(settings)
        self.loop = asyncio.new_event_loop()
        self._keys: dict[tuple[Any, ...], str] = {}
        self._clients: list[httpx.Client] = []

    @property
    def house(self) -> House:
        found: House = self.app.state.house
        return found

    def do(self, story: Coroutine[Any, Any, T]) -> T:
        """Run something of the house on the house's own loop."""
        return asyncio.run_coroutine_threadsafe(story, self.loop).result(60)

    def key(self, *scopes: str, tenant: str = "acme", groups: Iterable[str] = (), ceiling: Iterable[str] = ()) -> str:
        """Give an API key; the same one for the same wishes."""
        wished = (tenant, scopes or EVERYTHING, tuple(groups), tuple(ceiling))
        if wished not in self._keys:
            self._keys[wished] = key(self.settings, tenant, *wished[1], groups=groups, ceiling=ceiling)
        return self._keys[wished]

    def client(self, *scopes: str, **account: Any) -> httpx.Client:
        """Give an HTTP client that sends such a key."""
        made = self.bare(Authorization=f"Bearer {self.key(*scopes, **account)}")
        self._clients.append(made)
        return made

    def bare(self, **headers: str) -> httpx.Client:
        """Give an HTTP client without a key."""
        made = httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)
        self._clients.append(made)
        return made

    def close(self) -> None:
        for each in self._clients:
            each.close()


def settled(client: httpx.Client, document_id: str) -> dict[str, Any]:
    """Wait until a document has come to one of its ends."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found: dict[str, Any] = client.get(f"/v1/documents/{document_id}").json()
        if found["state"] in ENDS:
            return found
        time.sleep(0.03)
    raise AssertionError("the document came to no end")


def put(client: httpx.Client, name: str, body: bytes | str, **claim: str) -> httpx.Response:
    """Send a document under German law, unless the claim says otherwise."""
    data = body.encode() if isinstance(body, str) else body
    return client.put(f"/v1/documents/{name}", params={"jurisdiction": "DE", **claim}, content=data)


def live(client: httpx.Client, name: str, body: bytes | str, **claim: str) -> dict[str, Any]:
    """Send a document and wait until it can be asked about."""
    taken = put(client, name, body, **claim)
    assert taken.status_code == 202, taken.text
    found = settled(client, taken.json()["id"])
    assert found["state"] == "live", found
    return found


def erased(client: httpx.Client, document_id: str) -> dict[str, Any]:
    """Erase a document and wait for the whole certificate."""
    assert client.delete(f"/v1/documents/{document_id}").status_code == 202
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found: dict[str, Any] = client.get(f"/v1/documents/{document_id}/erasure").json()
        if found["state"] == "complete":
            return found
        time.sleep(0.03)
    raise AssertionError("the erasure came to no end")


def same(one: httpx.Response, other: httpx.Response, *, without: Mapping[str, Any] | None = None) -> bool:
    """Say whether two replies are equal but for their request ids and what their keys have left."""
    bodies = [
        {k: v for k, v in each.json().items() if k not in {"request_id", *(without or {})}} for each in (one, other)
    ]
    own = {"date", "content-length", "ratelimit"}
    heads = [{k: v for k, v in each.headers.items() if k not in own} for each in (one, other)]
    return one.status_code == other.status_code and bodies[0] == bodies[1] and heads[0] == heads[1]


@contextmanager
def serving(settings: Settings) -> Iterator[Served]:
    """Serve until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = Served(settings, listener.getsockname()[1])
        config = uvicorn.Config(served.app, access_log=False, log_level="warning", lifespan="on", server_header=False)
        server = uvicorn.Server(config)

        def run() -> None:
            asyncio.set_event_loop(served.loop)
            served.loop.run_until_complete(server.serve(sockets=[listener]))
            served.loop.close()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        assert server.started, "the app did not start"
        try:
            yield served
        finally:
            served.close()
            server.should_exit = True
            thread.join(30)
