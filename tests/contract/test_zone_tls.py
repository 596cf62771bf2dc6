"""A Site is believed by its own Zone's root and by nothing else, and who is not believed hears not one byte of payload.

Every body that speaks to a Site is held to it, against a server that counts what reaches it after the handshake.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from residency.errors import SiteError
from residency.fleet import Fleet
from residency.outlets.generators.openai_like import OpenAILikeGenerator
from residency.outlets.shards.remote import RemoteShard
from residency.outlets.tls import expires, handshake, keys_of, known_to_all, loaded, spki, trust
from residency.ports import Prompt
from residency.route import Action
from service.certifying import certify
from tests.doubles.qdrant_http import QdrantDouble, serving
from tests.doubles.routes import route_for
from tests.doubles.rules import zones
from tests.doubles.tls_counting import counting, server

pytestmark = pytest.mark.enable_socket

SITE = "fra"
FLEET = "".join(
    f'[[site]]\nid = "{name}"\nzone = "{zone}"\noperator = {{ name = "Example Hosting", zone = "DE" }}\n'
    'holds = [{ kind = "shard", url = "https://127.0.0.1:6333" }]\n'
    for name, zone in [("fra", "DE"), ("par", "FR")]
)
Talk = Callable[[str, ssl.SSLContext], Awaitable[None]]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder with an authority for Germany and one for France, both for 127.0.0.1."""
    certify(Fleet.parse(FLEET, zones()), tmp_path)
    return tmp_path


async def by_shard(url: str, context: ssl.SSLContext) -> None:
    shard = RemoteShard(SITE, url, api_key="secret-key", ssl_context=context, collection="c", dimension=4)
    try:
        await shard.start()
    finally:
        await shard.aclose()


async def by_generator(url: str, context: ssl.SSLContext) -> None:
    generator = OpenAILikeGenerator(SITE, f"{url}/v1", "m", "secret-key", context, within=5.0)
    try:
        async for _ in generator.generate(route_for(Action.GENERATE, SITE), Prompt("rules", "a private question")):
            pass
    finally:
        await generator.aclose()


async def by_handshake(url: str, context: ssl.SSLContext) -> None:
    await handshake(SITE, "127.0.0.1", int(url.rpartition(":")[2]), context)


WAYS = pytest.mark.parametrize("talk", [by_shard, by_generator, by_handshake])


@WAYS
async def test_another_zones_certificate_gets_no_byte_of_payload(made: Path, talk: Talk) -> None:
    with counting(server(made / "fr" / "par.pem", made / "fr" / "par.key")) as seen:
        with pytest.raises(SiteError, match="its Zone's root did not sign") as refused:
            await talk(seen.url, trust(made / "de" / "root.pem"))
        assert "trust_root" in refused.value.hint and refused.value.site == SITE
    assert seen.begun > 0 and (seen.finished, seen.payload) == (0, 0)


@WAYS
async def test_the_twin_its_own_zones_certificate_is_spoken_to(made: Path, talk: Talk) -> None:
    with counting(server(made / "de" / "fra.pem", made / "de" / "fra.key")) as seen:
        try:
            await talk(seen.url, trust(made / "de" / "root.pem"))
        except SiteError:
            assert talk is not by_handshake  # the others want an answer that never comes
        await asyncio.sleep(0)
    assert seen.finished > 0 and (seen.payload > 0) is (talk is not by_handshake)


@WAYS
async def test_an_expired_certificate_is_refused_with_cause_and_remedy(made: Path, tmp_path: Path, talk: Talk) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=500)
    certify(Fleet.parse(FLEET, zones()), tmp_path / "old", clock=lambda: long_ago)
    old = tmp_path / "old" / "de"
    assert expires(old / "fra.pem") < datetime.now(UTC) < expires(old / "root.pem")
    with counting(server(old / "fra.pem", old / "fra.key")) as seen:
        with pytest.raises(SiteError, match="certificate that has expired") as refused:
            await talk(seen.url, trust(old / "root.pem"))
        assert "domicile sites certify" in refused.value.hint
    assert seen.payload == 0


@WAYS
async def test_a_key_that_is_not_pinned_gets_no_byte_though_its_root_is_right(made: Path, talk: Talk) -> None:
    pin = spki(loaded(made / "fr" / "par.pem")[0])
    with counting(server(made / "de" / "fra.pem", made / "de" / "fra.key")) as seen:
        with pytest.raises(SiteError, match="not pinned") as refused:
            await talk(seen.url, trust(made / "de" / "root.pem", pins=[pin]))
        assert "peer_spki" in refused.value.hint
    assert seen.payload == 0


async def test_a_pinned_key_is_spoken_to_and_the_handshake_says_who_answered(made: Path) -> None:
    own = loaded(made / "de" / "fra.pem")[0]
    with counting(server(made / "de" / "fra.pem", made / "de" / "fra.key")) as seen:
        context = trust(made / "de" / "root.pem", pins=[spki(own)])
        peer = await handshake(SITE, "127.0.0.1", seen.port, context)
    assert (peer.spki, peer.expires) == (spki(own), own.not_valid_after_utc)
    assert len(bytes.fromhex(peer.certificate)) == 32 and seen.payload == 0


async def test_certificates_are_shown_both_ways_and_a_server_may_demand_one_of_its_zone(made: Path) -> None:
    german = made / "de"
    demanding = server(german / "fra.pem", german / "fra.key", clients=german / "root.pem")
    with serving(QdrantDouble(api_key="secret-key"), tls=demanding) as double:
        ours = trust(german / "root.pem", certificate=german / "service.pem", key=german / "service.key")
        await by_shard(double.url, ours)
        assert double.collections
        double.log.clear()
        foreign = made / "fr"
        for context in (
            trust(german / "root.pem"),
            trust(german / "root.pem", certificate=foreign / "service.pem", key=foreign / "service.key"),
        ):
            with pytest.raises(SiteError, match="out of reach"):
                await by_shard(double.url, context)
        assert double.log == []


async def test_a_server_that_is_not_there_is_named_with_what_to_do(made: Path) -> None:
    with counting(server(made / "de" / "fra.pem", made / "de" / "fra.key")) as seen:
        port = seen.port
    with pytest.raises(SiteError, match="does not answer") as refused:
        await handshake(SITE, "127.0.0.1", port, trust(made / "de" / "root.pem"))
    assert refused.value.hint


def test_two_files_of_one_authority_have_the_same_key_and_no_zones_root_is_the_systems(made: Path) -> None:
    german = keys_of(loaded(made / "de" / "root.pem"))
    assert german == keys_of(loaded(made / "de" / "root.pem")) != keys_of(loaded(made / "fr" / "root.pem"))
    assert not known_to_all(loaded(made / "de" / "root.pem"))
