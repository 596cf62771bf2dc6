"""KEKs in a token of SoftHSM2: never taken out, opened again when the token is back, and no PIN tried twice."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pkcs11
import pytest

from residency.errors import KeyRefusedError, KeyringError
from residency.outlets.keys import pkcs11 as provider
from residency.outlets.keys.pkcs11 import Pkcs11Keys
from residency.ports import KekRef
from residency.route import Action
from residency.seal import SUITES
from tests.doubles.routes import route_for
from tests.doubles.softhsm import SoftHsm, softhsm

DE, FR = "de-frankfurt", "fr-paris"
KEK = KekRef(b"\x30" * 16, 1, "northwind", "DE", DE)
STORE, OPEN, ERASE = (route_for(action, DE, lasting=True) for action in (Action.STORE, Action.OPEN, Action.ERASE))


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    return softhsm(tmp_path / "hsm", monkeypatch)


def keys_in(hsm: SoftHsm, label: str, site: str = DE) -> Pkcs11Keys:
    return Pkcs11Keys(site=site, module=hsm.module, token=label, pin=hsm.pin)


async def _objects(keys: Pkcs11Keys, kek: KekRef = KEK) -> list[Any]:
    return await keys._token.ask(lambda session: provider._keys(session, kek))


async def test_a_kek_cannot_be_taken_out_of_its_token(hsm: SoftHsm) -> None:
    keys = keys_in(hsm, hsm.token("zone-de"))
    await keys.create(STORE, KEK)
    [found] = await _objects(keys)

    def look(_: Any) -> tuple[bool, bool, bool]:
        with pytest.raises(pkcs11.AttributeSensitive):
            found[pkcs11.Attribute.VALUE]
        return (
            found[pkcs11.Attribute.SENSITIVE],
            found[pkcs11.Attribute.EXTRACTABLE],
            found[pkcs11.Attribute.NEVER_EXTRACTABLE],
        )

    assert await keys._token.ask(look) == (True, False, True)
    assert KEK.tenant.encode() not in b"".join(path.read_bytes() for path in hsm.folder.rglob("*.object"))
    await keys.aclose()


async def test_a_token_pulled_out_is_named_and_opens_again_when_it_is_back(hsm: SoftHsm) -> None:
    keys = keys_in(hsm, hsm.token("zone-de"))
    await keys.create(STORE, KEK)
    [wrapped] = await keys.wrap(STORE, KEK, [(bytes(32), b"place")])
    hsm.pull()
    for _ in range(2):
        for call in (
            lambda: keys.wrap(STORE, KEK, [(bytes(32), b"place")]),
            lambda: keys.unwrap(OPEN, KEK, [(wrapped, b"place")]),
            lambda: keys.create(STORE, replace(KEK, version=2)),
            lambda: keys.destroy(ERASE, KEK),
            keys.status,
        ):
            with pytest.raises(KeyringError, match="does not answer") as caught:
                await call()
            assert not isinstance(caught.value, KeyRefusedError)
    hsm.plug()
    assert await keys.unwrap(OPEN, KEK, [(wrapped, b"place")]) == [bytes(32)]
    assert (await keys.status())["keks"] == 1
    await keys.aclose()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # python-pkcs11 ends a search aloud
async def test_a_token_opened_anew_after_it_was_closed_beneath_us(hsm: SoftHsm) -> None:
    keys = keys_in(hsm, hsm.token("zone-de"))
    await keys.create(STORE, KEK)
    [wrapped] = await keys.wrap(STORE, KEK, [(bytes(32), b"place")])
    session = keys._token._module.open["zone-de"][0]
    await keys._token.ask(lambda _: session.close())
    assert await keys.unwrap(OPEN, KEK, [(wrapped, b"place")]) == [bytes(32)]
    await keys.aclose()


async def test_a_refused_pin_is_not_tried_twice(hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    label, tried = hsm.token("zone-de"), []
    right = hsm.pin.read_text()
    hsm.pin.write_text("not-the-pin")
    real = provider._Token._open

    def watched(self: Any, pin: str) -> Any:
        try:
            return real(self, pin)
        except pkcs11.PinIncorrect:
            tried.append(pin)
            raise

    monkeypatch.setattr(provider._Token, "_open", watched)
    keys = keys_in(hsm, label)
    for _ in range(3):
        with pytest.raises(KeyringError, match="refuses the PIN"):
            await keys.status()
    assert tried == ["not-the-pin"]
    hsm.pin.write_text(right)
    assert (await keys.status())["keks"] == 0
    # Who shares the token must know the PIN too.
    wrong = hsm.folder / "wrong"
    wrong.write_text("not-the-pin")
    wrong.chmod(0o600)
    with pytest.raises(KeyringError, match="refuses the PIN"):
        await Pkcs11Keys(site=DE, module=hsm.module, token=label, pin=wrong).status()
    await keys.aclose()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pin: pin.chmod(0o644), "read by others"),
        (lambda pin: pin.unlink(), "missing"),
        (lambda pin: pin.write_text("  \n"), "empty"),
        (lambda pin: pin.write_bytes(b"\xff\xfe"), "UTF-8"),
    ],
)
async def test_a_pin_file_that_is_not_right_is_named(hsm: SoftHsm, change: Any, message: str) -> None:
    keys = keys_in(hsm, hsm.token("zone-de"))
    change(hsm.pin)
    with pytest.raises(KeyringError, match=message):
        await keys.status()


async def test_a_module_or_token_that_is_not_there_is_named(hsm: SoftHsm, tmp_path: Path) -> None:
    with pytest.raises(KeyringError, match="does not answer"):
        await keys_in(hsm, "zone-nowhere").status()
    with pytest.raises(KeyringError, match="does not answer"):
        await Pkcs11Keys(site=DE, module=tmp_path / "none.so", token="zone-de", pin=hsm.pin).status()


async def test_two_sites_with_a_token_each_do_not_hinder_each_other(hsm: SoftHsm) -> None:
    german, french = keys_in(hsm, hsm.token("zone-de")), keys_in(hsm, hsm.token("zone-fr"), FR)
    away = replace(KEK, site=FR)
    store, opening = route_for(Action.STORE, FR), route_for(Action.OPEN, FR)
    await german.create(STORE, KEK)
    with pytest.raises(KeyringError, match="missing"):
        await french.wrap(store, away, [(bytes(32), b"")])
    await french.create(store, away)

    async def many(keys: Pkcs11Keys, passes: Any, opens: Any, kek: KekRef) -> None:
        for number in range(20):
            dek = bytes([number]) * 32
            wrapped = await keys.wrap(passes, kek, [(dek, b"a")] * 3)
            assert await keys.unwrap(opens, kek, [(each, b"a") for each in wrapped]) == [dek] * 3

    await asyncio.gather(*(many(german, STORE, OPEN, KEK) for _ in range(3)), many(french, store, opening, away))
    [wrapped] = await german.wrap(STORE, KEK, [(bytes(32), b"a")])
    with pytest.raises(KeyRefusedError):
        await french.unwrap(opening, away, [(wrapped, b"a")])
    await french.aclose()
    assert await german.unwrap(OPEN, KEK, [(wrapped, b"a")]) == [bytes(32)]
    await german.aclose()


async def test_a_kek_made_by_two_processes_at_once_opens_what_either_wrapped(hsm: SoftHsm) -> None:
    keys = keys_in(hsm, hsm.token("zone-de"))
    await keys.create(STORE, KEK)
    await keys.create(STORE, replace(KEK, version=2))
    [first] = await keys.wrap(STORE, KEK, [(bytes(32), b"a")])
    [other] = await keys.wrap(STORE, replace(KEK, version=2), [(b"\x01" * 32, b"a")])

    def twin(session: Any) -> None:  # as if the other process had looked before this one wrote
        [second] = provider._keys(session, replace(KEK, version=2))
        second[pkcs11.Attribute.LABEL] = provider._label(KEK)
        second[pkcs11.Attribute.ID] = provider._identity(KEK)

    await keys._token.ask(twin)
    assert len(await _objects(keys)) == 2
    assert await keys.unwrap(OPEN, KEK, [(first, b"a"), (other, b"a")]) == [bytes(32), b"\x01" * 32]
    await keys.destroy(ERASE, KEK)
    assert await _objects(keys) == []
    with pytest.raises(KeyRefusedError):
        await keys.unwrap(OPEN, KEK, [(first, b"a")])
    await keys.aclose()


async def test_what_the_token_wraps_is_seal_v1(hsm: SoftHsm) -> None:
    keys = keys_in(hsm, hsm.token("zone-de"))
    known = {pkcs11.Attribute.LABEL: provider._label(KEK), pkcs11.Attribute.ID: provider._identity(KEK)}

    def put(session: Any) -> None:
        session.create_object(
            {
                pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
                pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.AES,
                pkcs11.Attribute.VALUE: b"\x11" * 32,
                pkcs11.Attribute.TOKEN: False,
                pkcs11.Attribute.ENCRYPT: True,
                pkcs11.Attribute.DECRYPT: True,
                **known,
            }
        )

    await keys._token.ask(put)
    [wrapped] = await keys.wrap(STORE, KEK, [(b"\x22" * 32, b"place")])
    suite = SUITES[1]
    assert suite.open(suite.cipher(b"\x11" * 32), wrapped[:12], b"place", wrapped[12:]) == b"\x22" * 32
    ours = suite.seal(suite.cipher(b"\x11" * 32), b"place", b"\x22" * 32)
    assert await keys.unwrap(OPEN, KEK, [(ours, b"place")]) == [b"\x22" * 32]
    await keys.aclose()
