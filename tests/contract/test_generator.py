"""What the remote body of the Generator port must do, against a real HTTP endpoint on loopback."""

import asyncio
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from residency.errors import RouteError, SiteError
from residency.journal import recording
from residency.outlets.connect import trust
from residency.outlets.generators.openai_like import OpenAILikeGenerator
from residency.ports import Prompt
from residency.route import Action, Route
from tests.doubles.certificates import authority
from tests.doubles.openai_http import OpenAIEndpoint
from tests.doubles.routes import route_for

pytestmark = pytest.mark.enable_socket

SITE = "de-frankfurt"
PROMPT = Prompt(system="Answer from the sources.", user="CANARY-7f3a: how long are invoices kept?")


def generating() -> Route:
    return route_for(Action.GENERATE, SITE)


async def said(generator: OpenAILikeGenerator, route: Route | None = None) -> list[str]:
    return [piece async for piece in generator.generate(route or generating(), PROMPT)]


async def test_the_reply_is_streamed_in_its_pieces() -> None:
    async with OpenAIEndpoint(pieces=("Ten ", "", "years ", "[1].")) as endpoint:
        generator = OpenAILikeGenerator(SITE, endpoint.url, "demo", "secret-key")
        assert await said(generator) == ["Ten ", "years ", "[1]."]
        await generator.aclose()
    (asked,) = endpoint.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == "Bearer secret-key"
    assert asked.body["model"] == "demo"
    assert [message["content"] for message in asked.body["messages"]] == [PROMPT.system, PROMPT.user]
    assert asked.body["stream"] is True


async def test_a_long_reply_reaches_a_slow_listener_whole() -> None:
    pieces = [f"{number} " for number in range(500)]
    async with OpenAIEndpoint(pieces=pieces) as endpoint:
        generator = OpenAILikeGenerator(SITE, endpoint.url, "demo")
        heard = []
        async for piece in generator.generate(generating(), PROMPT):
            heard.append(piece)
            await asyncio.sleep(0)
        assert heard == pieces
        await generator.aclose()


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_a_failing_endpoint_is_a_site_error_asked_once_and_quotes_nothing(status: int) -> None:
    async with OpenAIEndpoint(status=status) as endpoint:
        generator = OpenAILikeGenerator(SITE, endpoint.url, "demo")
        with pytest.raises(SiteError, match=f"generator at {SITE} failed") as caught:
            await said(generator)
        await generator.aclose()
    assert len(endpoint.asked) == 1
    assert caught.value.site == SITE
    assert "CANARY" not in "".join(traceback.format_exception(caught.value)) + caught.value.hint


async def test_a_stream_that_breaks_off_is_a_site_error_after_what_was_heard() -> None:
    async with OpenAIEndpoint(cut_after=2) as endpoint:
        generator = OpenAILikeGenerator(SITE, endpoint.url, "demo")
        heard: list[str] = []
        with pytest.raises(SiteError):
            async for piece in generator.generate(generating(), PROMPT):
                heard.append(piece)  # noqa: PERF401
        assert heard == ["Ten ", "years "]
        await generator.aclose()


async def test_a_line_that_never_ends_is_cut_off_by_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("residency.outlets.generators.openai_like.MOST_BYTES", 100_000)
    async with OpenAIEndpoint(pieces=[b"data: ", *[b"x" * 20_000] * 10]) as endpoint:
        generator = OpenAILikeGenerator(SITE, endpoint.url, "demo")
        with pytest.raises(SiteError, match=f"the reply of {SITE} is longer than 100000 bytes") as caught:
            await said(generator)
        await generator.aclose()
    assert endpoint.asked[0].headers["accept-encoding"] == "identity"
    assert caught.value.site == SITE


async def test_a_slow_endpoint_ends_at_the_deadline() -> None:
    async with OpenAIEndpoint(hang_after=1) as endpoint:
        generator = OpenAILikeGenerator(SITE, endpoint.url, "demo", within=0.2)
        with pytest.raises(SiteError):
            await said(generator)
        await asyncio.wait_for(endpoint.gone.wait(), 10)
        await generator.aclose()


async def test_a_deadline_never_strikes_inside_whoever_listens() -> None:
    async with OpenAIEndpoint(hang_after=1) as endpoint:
        generator = OpenAILikeGenerator(SITE, endpoint.url, "demo", within=0.1)
        with pytest.raises(SiteError):
            async for _ in generator.generate(generating(), PROMPT):
                await asyncio.sleep(0.3)  # would be cancelled if the deadline were this task's
        await generator.aclose()


async def test_a_listener_that_goes_away_ends_the_call_at_the_endpoint() -> None:
    async with OpenAIEndpoint(hang_after=1) as endpoint:
        generator = OpenAILikeGenerator(SITE, endpoint.url, "demo")
        stream = generator.generate(generating(), PROMPT)
        assert await anext(stream) == "Ten "
        await stream.aclose()
        await asyncio.wait_for(endpoint.gone.wait(), 10)
        await generator.aclose()


async def test_a_listener_that_goes_away_before_a_full_queue_is_no_deadlock() -> None:
    async with OpenAIEndpoint(pieces=["x"] * 1_000) as endpoint:
        generator = OpenAILikeGenerator(SITE, endpoint.url, "demo")
        stream = generator.generate(generating(), PROMPT)
        await anext(stream)
        await asyncio.sleep(0.05)
        await asyncio.wait_for(stream.aclose(), 10)
        await generator.aclose()


async def test_nobody_there_is_a_site_error() -> None:
    async with OpenAIEndpoint() as endpoint:
        pass
    generator = OpenAILikeGenerator(SITE, endpoint.url, "demo")
    with pytest.raises(SiteError):
        await said(generator)
    await generator.aclose()


async def test_a_redirect_is_not_followed() -> None:
    async with OpenAIEndpoint() as elsewhere, OpenAIEndpoint(redirect=f"{elsewhere.url}/chat/completions") as endpoint:
        generator = OpenAILikeGenerator(SITE, endpoint.url, "demo")
        with pytest.raises(SiteError):
            await said(generator)
        await generator.aclose()
    assert (len(endpoint.asked), elsewhere.connections) == (1, 0)


async def test_proxies_and_endpoints_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with OpenAIEndpoint() as hostile, OpenAIEndpoint() as endpoint:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
            monkeypatch.setenv(name, hostile.url.removesuffix("/v1"))
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        assert "HTTP_PROXY" in os.environ
        generator = OpenAILikeGenerator(SITE, endpoint.url, "demo")
        assert await said(generator) == ["Ten ", "years ", "[1]."]
        await generator.aclose()
    assert hostile.connections == 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: route_for(Action.EMBED, SITE),
        lambda: route_for(Action.GENERATE, "us-virginia"),
        lambda: route_for(Action.GENERATE, SITE, seconds=-1),
    ],
    ids=["another action", "another Site", "expired"],
)
async def test_a_wrong_route_is_refused_before_anything_is_sent(wrong: Callable[[], Route]) -> None:
    async with OpenAIEndpoint() as endpoint:
        generator = OpenAILikeGenerator(SITE, endpoint.url, "demo")
        with pytest.raises(RouteError):
            await said(generator, wrong())
        await generator.aclose()
    assert endpoint.connections == 0


async def test_the_pass_is_recorded_with_the_id_the_endpoint_saw() -> None:
    async with OpenAIEndpoint() as endpoint:
        generator = OpenAILikeGenerator(SITE, endpoint.url, "demo")
        with recording() as touches:
            await said(generator)
        await generator.aclose()
    (touch,) = touches
    assert (touch.action, touch.site, touch.kind, touch.peer) == (Action.GENERATE, SITE, "generator", "local")
    assert touch.bytes == len(PROMPT.system) + len(PROMPT.user)
    assert endpoint.asked[0].headers["x-request-id"] == touch.request


# --- TLS by the Zone's own root -------------------------------------------------------------------------------------


async def test_the_certificate_that_answered_is_recorded(tmp_path: Path) -> None:
    german = authority("DE", tmp_path)
    async with OpenAIEndpoint(tls=german.serving) as endpoint:
        generator = OpenAILikeGenerator(SITE, endpoint.url, "demo", context=trust(german.root))
        with recording() as touches:
            assert await said(generator) == ["Ten ", "years ", "[1]."]
        await generator.aclose()
    assert len(bytes.fromhex(touches[0].peer)) == 32


@pytest.mark.parametrize("root", ["another Zone's", "the system's"])
async def test_a_server_of_another_zone_gets_not_one_byte_of_the_prompt(tmp_path: Path, root: str) -> None:
    german, american = authority("DE", tmp_path), authority("US", tmp_path)
    async with OpenAIEndpoint(tls=american.serving) as endpoint:
        context = trust(german.root) if root == "another Zone's" else trust()
        generator = OpenAILikeGenerator(SITE, endpoint.url, "demo", context=context)
        with pytest.raises(SiteError):
            await said(generator)
        await generator.aclose()
    assert endpoint.bytes_read == 0


def test_a_trust_root_that_does_not_load_is_a_site_error(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_text("no certificate")
    for path in (tmp_path / "root.pem", tmp_path / "absent.pem"):
        with pytest.raises(SiteError, match="does not load"):
            trust(path)


@pytest.mark.parametrize(
    "url",
    [
        "http://models.example/v1",
        "http://198.51.100.7/v1",
        "https://name:word@models.example/v1",
        "ftp://models.example/",
        "models.example/v1",
        "https:///v1",
        "https://models.example/v1?key=x",
        "http://127.0.0.1.models.example/v1",
    ],
)
def test_an_address_that_is_no_plain_https_address_is_refused(url: str) -> None:
    with pytest.raises(SiteError, match=r"address|loopback"):
        OpenAILikeGenerator(SITE, url, "demo")
