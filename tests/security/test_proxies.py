"""Proxies from the environment are ignored by every client that speaks to a Site, even where silence was not kept.

The service deletes these variables at its start; these tests set them again afterwards, so each client has to stand for
itself. What listens at the proxy's place writes down who came.
"""

import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from residency.outlets.connect import connect, connect_blocking
from residency.outlets.generators.openai_like import OpenAILikeGenerator
from residency.outlets.keys.bao import BaoKeys
from residency.outlets.shards.remote import RemoteShard
from residency.ports import Prompt
from residency.route import Action
from residency.silence import missing
from tests.doubles.bao_http import SERVICE, bao
from tests.doubles.openai_http import OpenAIEndpoint
from tests.doubles.qdrant_http import QdrantDouble, serving
from tests.doubles.routes import route_for

pytestmark = pytest.mark.enable_socket

NAMES = [f"{name}_proxy" for name in ("http", "https", "all", "grpc")]
Call = Callable[[], Awaitable[None]]


@pytest.fixture
def came(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Set every proxy variable to a listener, and take `NO_PROXY` away; gives what came to the listener."""
    seen: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def _note(self) -> None:
            seen.append(self.requestline)
            self.send_error(502)

        do_GET = do_POST = do_PUT = do_CONNECT = _note  # noqa: N815 - names that http.server looks for

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        for name in (*NAMES, *[each.upper() for each in NAMES]):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_address[1]}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield seen
        server.shutdown()
        thread.join()


async def by_our_client() -> None:
    with serving(QdrantDouble()) as site:
        async with connect(None) as line:
            assert (await line.get(site.url)).status_code == 200


async def by_our_blocking_client() -> None:
    with serving(QdrantDouble()) as site, connect_blocking(None) as line:
        assert line.get(site.url).status_code == 200


async def by_qdrant_client() -> None:
    with serving(QdrantDouble()) as site:
        shard = RemoteShard("de", site.url, api_key="key", ssl_context=None, collection="c", dimension=4)
        try:
            await shard.start()
            await shard.probe()
        finally:
            await shard.aclose()
        assert site.calls("/collections")


async def by_llama_index() -> None:
    async with OpenAIEndpoint() as endpoint:
        generator = OpenAILikeGenerator("de", endpoint.url, "m", "key")
        try:
            pieces = [p async for p in generator.generate(route_for(Action.GENERATE, "de"), Prompt("rules", "text"))]
        finally:
            await generator.aclose()
        assert "".join(pieces) == "Ten years [1]."
        assert len(endpoint.asked) == 1


async def by_hvac() -> None:
    with bao() as site, open_token() as token:
        keys = BaoKeys(site="de", url=site.url, token=token)
        try:
            assert (await keys.status())["provider"] == "transit"
        finally:
            await keys.aclose()
        assert site.seen


@contextmanager
def open_token() -> Iterator[Path]:
    """Give a token's file in memory."""
    descriptor = os.memfd_create("token")
    os.write(descriptor, SERVICE.encode())
    os.fchmod(descriptor, 0o600)
    yield Path(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)


@pytest.mark.parametrize("call", [by_our_client, by_our_blocking_client, by_qdrant_client, by_llama_index, by_hvac])
async def test_a_call_to_a_site_goes_to_the_site(came: list[str], call: Call) -> None:
    assert set(NAMES) <= set(missing())  # nothing is silent here
    await call()
    assert came == []


async def test_a_client_that_trusts_its_environment_goes_to_the_proxy(came: list[str]) -> None:
    with serving(QdrantDouble()) as site:
        async with httpx.AsyncClient() as line:
            assert (await line.get(site.url)).status_code == 502
    assert len(came) == 1
