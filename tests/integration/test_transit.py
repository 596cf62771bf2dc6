"""KEKs in a Transit engine: what it answers is read and not believed, and nothing but its Zone's root is trusted."""

import asyncio
import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from residency.errors import KeyRefusedError, KeyringError, SiteError
from residency.outlets.connect import trust
from residency.outlets.keys.bao import BaoKeys
from residency.ports import KekRef
from residency.route import Action
from tests.doubles.bao_http import OPERATOR, SERVICE, BaoDouble, TransitKey, bao
from tests.doubles.certificates import authority
from tests.doubles.routes import route_for

pytestmark = pytest.mark.enable_socket

SITE = "de-frankfurt"
KEK = KekRef(b"\x30" * 16, 1, "northwind", "DE", SITE)
SECOND = replace(KEK, version=2)
STORE, OPEN, ERASE = (route_for(action, SITE, lasting=True) for action in (Action.STORE, Action.OPEN, Action.ERASE))


def put(path: Path, text: str) -> Path:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


class Setting:
    """A double and the providers that speak to it."""

    def __init__(self, double: BaoDouble, folder: Path) -> None:
        self.double = double
        self.token = put(folder / "token", SERVICE)
        self.operator = put(folder / "operator", OPERATOR)

    def keys(self, *, operator: bool = True, **changed: Any) -> BaoKeys:
        facts: dict[str, Any] = {
            "site": SITE,
            "url": self.double.url,
            "token": self.token,
            "operator": self.operator if operator else None,
        }
        return BaoKeys(**facts | changed)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Setting]:
    with bao() as double:
        yield Setting(double, tmp_path)


async def test_the_everyday_token_makes_wraps_and_opens_and_never_rotates(here: Setting) -> None:
    keys = here.keys(operator=False)
    await keys.create(STORE, KEK)
    [wrapped] = await keys.wrap(STORE, KEK, [(bytes(32), b"a")])
    assert wrapped.startswith(b"vault:v1:")
    assert await keys.unwrap(OPEN, KEK, [(wrapped, b"a")]) == [bytes(32)]
    for call in (keys.create(STORE, SECOND), keys.destroy(ERASE, KEK)):
        with pytest.raises(KeyringError, match="operator's token"):
            await call
    assert {token for _, _, token in here.double.seen} == {SERVICE}
    await here.keys().create(STORE, SECOND)
    operators = {path.rpartition("/")[2] for _, path, token in here.double.seen if token == OPERATOR}
    assert operators == {"rotate"}
    assert not [path for _, path, _ in here.double.seen if "rewrap" in path or "datakey" in path]


async def test_what_is_bound_goes_over_the_wire_in_base64_and_no_key_in_clear_comes_back_from_a_wrap(
    here: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, bodies = here.keys(), []
    real = BaoDouble.answer

    def watched(self: BaoDouble, method: str, path: str, token: str, body: dict[str, Any]) -> tuple[int, Any]:
        bodies.append((path.split("/")[1], body))
        return real(self, method, path, token, body)

    monkeypatch.setattr(BaoDouble, "answer", watched)
    await keys.create(STORE, KEK)
    bodies.clear()
    await keys.wrap(STORE, KEK, [(b"\x22" * 32, b"\xff\x00place")])
    [(what, body)] = bodies
    assert what == "encrypt"
    [item] = body["batch_input"]
    assert item == {
        "plaintext": base64.b64encode(b"\x22" * 32).decode(),
        "associated_data": base64.b64encode(b"\xff\x00place").decode(),
        "key_version": 1,
    }
    [key] = here.double.keys.values()
    assert {**key.settings} == {"type": "aes256-gcm96", "exportable": False, "allow_plaintext_backup": False}


async def test_a_server_that_ignores_what_is_bound_is_found_out_before_it_wraps(here: Setting) -> None:
    here.double.lossy = True
    with pytest.raises(KeyringError, match="does not bind"):
        await here.keys().create(STORE, KEK)


async def test_a_key_made_by_somebody_else_with_other_settings_is_refused(here: Setting) -> None:
    keys = here.keys()
    await keys.create(STORE, KEK)
    [name] = here.double.keys
    for setting in ("exportable", "allow_plaintext_backup", "derived"):
        here.double.keys[name] = TransitKey({1: bytes(32)}, {setting: True})
        with pytest.raises(KeyringError, match="another kind"):
            await keys.create(STORE, KEK)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"<html>welcome</html>",
        b"[]",
        b"null",
        b"{}",
        b'{"data": null}',
        b'{"data": {"batch_results": "x"}}',
        b'{"data": {"batch_results": []}}',
        b'{"data": {"batch_results": [7]}}',
        b'{"data": {"batch_results": [{}]}}',
        b'{"data": {"batch_results": [{"ciphertext": "vault:v2:AAAA", "plaintext": "AAAA"}]}}',
        b'{"data": {"batch_results": [{"ciphertext": 5, "plaintext": "***"}]}}',
        '{"data": {"batch_results": [{"ciphertext": "vault:v1:ü", "plaintext": "ü"}]}}'.encode(),
    ],
)
async def test_garbage_is_named_and_nothing_is_made_of_it(here: Setting, garbage: bytes) -> None:
    keys = here.keys()
    await keys.create(STORE, KEK)
    [wrapped] = await keys.wrap(STORE, KEK, [(bytes(32), b"a")])
    here.double.garbage = garbage
    for call in (keys.wrap(STORE, KEK, [(bytes(32), b"a")]), keys.unwrap(OPEN, KEK, [(wrapped, b"a")])):
        with pytest.raises(KeyringError, match="what was not asked for") as caught:
            await call
        assert not isinstance(caught.value, KeyRefusedError)
    here.double.garbage = None
    assert await keys.unwrap(OPEN, KEK, [(wrapped, b"a")]) == [bytes(32)]


async def test_every_item_of_a_batch_is_read(here: Setting) -> None:
    keys = here.keys()
    await keys.create(STORE, KEK)
    good, bad = await keys.wrap(STORE, KEK, [(bytes(32), b"a"), (bytes(32), b"b")])
    for hide in (False, True):
        here.double.hide_errors = hide
        with pytest.raises(KeyRefusedError):
            await keys.unwrap(OPEN, KEK, [(good, b"a"), (bad, b"a")])
    here.double.drop_last = True
    with pytest.raises(KeyringError, match="what was not asked for"):
        await keys.unwrap(OPEN, KEK, [(good, b"a"), (bad, b"b")])
    with pytest.raises(KeyringError, match="what was not asked for"):
        await keys.wrap(STORE, KEK, [(bytes(32), b"a"), (bytes(32), b"b")])


async def test_a_server_too_slow_or_silent_or_sealed_is_named_in_time(here: Setting) -> None:
    keys = here.keys(within=0.3)
    await keys.create(STORE, KEK)
    [wrapped] = await keys.wrap(STORE, KEK, [(bytes(32), b"a")])
    here.double.slow = True
    with pytest.raises((SiteError, KeyringError), match=r"did not answer|does not answer"):
        await keys.unwrap(OPEN, KEK, [(wrapped, b"a")])
    here.double.slow = False
    here.double.go.set()
    here.double.sealed = True
    for call in (keys.unwrap(OPEN, KEK, [(wrapped, b"a")]), keys.status()):
        with pytest.raises(KeyringError, match=r"VaultDown|sealed") as caught:
            await call
        assert not isinstance(caught.value, KeyRefusedError)
    here.double.sealed = False
    assert await keys.unwrap(OPEN, KEK, [(wrapped, b"a")]) == [bytes(32)]
    with pytest.raises(KeyringError, match="does not answer"):
        await here.keys(url="http://127.0.0.1:9").status()


async def test_a_redirect_is_not_followed(here: Setting) -> None:
    keys = here.keys()
    await keys.create(STORE, KEK)
    with bao() as elsewhere:
        here.double.redirect = elsewhere.url
        with pytest.raises(KeyringError):
            await keys.wrap(STORE, KEK, [(bytes(32), b"a")])
        with pytest.raises(KeyringError):
            await keys.status()
        assert elsewhere.seen == []


async def test_nothing_comes_from_the_environment(here: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "VAULT_ADDR"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("VAULT_TOKEN", "s.of-somebody-else")
    monkeypatch.setenv("VAULT_NAMESPACE", "elsewhere")
    keys = here.keys()
    assert (await keys.status())["token_ttl_s"] == 3600
    assert {token for _, path, token in here.double.seen} == {SERVICE}
    assert here.double.namespace is None or here.double.namespace == ""
    await here.keys(namespace="zone-de").status()
    assert here.double.namespace == "zone-de"


async def test_a_token_that_may_not_or_is_badly_kept_is_named(here: Setting) -> None:
    keys = here.keys(operator=False)
    await keys.create(STORE, KEK)
    put(here.token, "s.revoked")
    with pytest.raises(KeyringError, match="does not permit") as caught:
        await keys.wrap(STORE, KEK, [(bytes(32), b"a")])
    assert "revoked" not in str(caught.value) + caught.value.hint
    put(here.token, SERVICE)
    await keys.wrap(STORE, KEK, [(bytes(32), b"a")])  # read anew on every call
    here.token.chmod(0o644)
    with pytest.raises(KeyringError, match="read by others"):
        await keys.wrap(STORE, KEK, [(bytes(32), b"a")])


async def test_versions_are_destroyed_in_order_and_a_kill_in_between_is_made_up_for(here: Setting) -> None:
    keys = here.keys()
    for version in (1, 2, 3):
        await keys.create(STORE, replace(KEK, version=version))
    [third] = await keys.wrap(STORE, replace(KEK, version=3), [(bytes(32), b"a")])
    with pytest.raises(KeyringError, match="version 1 of KEK"):
        await keys.destroy(ERASE, SECOND)
    for step in ("config", "trim"):
        here.double.fail_on = step
        with pytest.raises(KeyringError, match="fails"):
            await keys.destroy(ERASE, KEK)
    here.double.fail_on = ""
    await keys.destroy(ERASE, KEK)
    await keys.destroy(ERASE, SECOND)
    [key] = here.double.keys.values()
    assert set(key.versions) == {3}
    assert await keys.unwrap(OPEN, replace(KEK, version=3), [(third, b"a")]) == [bytes(32)]
    # The last one goes too, and what Transit insists on keeping in its place was never used.
    await keys.destroy(ERASE, replace(KEK, version=3))
    assert set(key.versions) == {4}
    with pytest.raises(KeyRefusedError):
        await keys.unwrap(OPEN, replace(KEK, version=3), [(third, b"a")])
    with pytest.raises(KeyRefusedError):
        await keys.create(STORE, replace(KEK, version=3))
    await keys.create(STORE, replace(KEK, version=4))


async def test_a_version_out_of_turn_is_never_made_up(here: Setting) -> None:
    keys = here.keys()
    with pytest.raises(KeyringError, match="missing"):
        await keys.create(STORE, SECOND)
    assert here.double.keys == {}
    await keys.create(STORE, KEK)
    with pytest.raises(KeyringError, match="missing"):
        await keys.create(STORE, replace(KEK, version=3))


async def test_only_the_zones_own_root_is_believed(tmp_path: Path) -> None:
    german, french = authority("DE", tmp_path), authority("FR", tmp_path)
    with bao(german.serving) as double:
        here = Setting(double, tmp_path)
        context = trust(german.root)
        keys = here.keys(context=context)
        await keys.create(STORE, KEK)
        await asyncio.gather(*(keys.wrap(STORE, KEK, [(bytes(32), b"a")]) for _ in range(8)))
        assert context.cert_store_stats()["x509_ca"] == 1  # nothing added the roots of the web
        for wrong in (trust(french.root), None):
            with pytest.raises(KeyringError, match="root did not sign"):
                await here.keys(context=wrong).wrap(STORE, KEK, [(bytes(32), b"a")])
    with pytest.raises(SiteError):
        here.keys(url="http://bao.example.org")
    with pytest.raises(KeyringError, match="mount"):
        here.keys(mount="../sys")
