"""The contract of every key provider; two that look right and are not must fail it."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from residency.errors import KeyRefusedError, KeyringError, RouteError
from residency.outlets.keys.file import FileKeys
from residency.ports import KekRef, KeyProvider
from residency.route import Action
from residency.seal import KeyContext, Purpose, tenant_bytes
from tests.doubles.bao_http import OPERATOR, SERVICE, bao
from tests.doubles.keys import CuttingKeys, LossyKeys
from tests.doubles.routes import route_for
from tests.doubles.softhsm import softhsm

SITE = "de-frankfurt"
KEK = KekRef(b"\x30" * 16, 1, "northwind", "DE", SITE)
STORE, OPEN, ERASE = (route_for(action, SITE, lasting=True) for action in (Action.STORE, Action.OPEN, Action.ERASE))


def _file(folder: Path, _: pytest.MonkeyPatch) -> KeyProvider:
    return FileKeys(folder / "keys", site=SITE)


def _pkcs11(folder: Path, monkeypatch: pytest.MonkeyPatch) -> KeyProvider:
    hsm = softhsm(folder / "hsm", monkeypatch)
    from residency.outlets.keys.pkcs11 import Pkcs11Keys

    return Pkcs11Keys(site=SITE, module=hsm.module, token=hsm.token("zone-de"), pin=hsm.pin)


def _bao(folder: Path, monkeypatch: pytest.MonkeyPatch) -> KeyProvider:
    from residency.outlets.keys.bao import BaoKeys

    double = _SERVING.enter_context(bao())
    tokens = {name: folder / name for name in ("token", "operator")}
    for path, text in ((tokens["token"], SERVICE), (tokens["operator"], OPERATOR)):
        path.write_text(text)
        path.chmod(0o600)
    return BaoKeys(site=SITE, url=double.url, **tokens)


@pytest.fixture(autouse=True)
def _stop_serving() -> Iterator[None]:
    yield
    _SERVING.close()


_SERVING = ExitStack()
Body = Callable[[Path, pytest.MonkeyPatch], KeyProvider]
BODIES: dict[str, Body] = {"file": _file, "pkcs11": _pkcs11, "transit": _bao}
BROKEN: dict[str, Callable[[KeyProvider], KeyProvider]] = {"drops the AAD": LossyKeys, "cuts tags": CuttingKeys}


def _aad(**changed: Any) -> bytes:
    context: dict[str, Any] = {
        "purpose": Purpose.DOCUMENT,
        "tenant": tenant_bytes("northwind"),
        "jurisdiction": "DE",
        "subject": b"\x10" * 16,
        "version": 1,
        "dek_id": b"\x20" * 16,
        "suite": 1,
    }
    wrap = {"kek_id": KEK.id, "kek_version": 1, "tag_digest": b"\x55" * 32}
    wrap |= {name: changed.pop(name) for name in list(changed) if name in wrap}
    return KeyContext(**context | changed).wrap_aad(**wrap)


CHANGES: dict[str, Any] = {
    "purpose": Purpose.CONVERSATION,
    "tenant": tenant_bytes("southwind"),
    "jurisdiction": "FR",
    "subject": bytes(16),
    "version": 2,
    "dek_id": bytes(16),
    "suite": 2,
    "kek_id": bytes(16),
    "kek_version": 2,
    "tag_digest": bytes(32),
}


async def keeps_its_contract(keys: KeyProvider) -> None:
    """The suite itself, as one story, so that it can be run against bodies that must fail."""
    dek, aad = os.urandom(32), _aad()
    await keys.create(STORE, KEK)
    # 1. Round trip; making a KEK twice does no harm; two wrappings differ; a batch keeps its order.
    [wrapped] = await keys.wrap(STORE, KEK, [(dek, aad)])
    await keys.create(STORE, KEK)
    [again, third] = await keys.wrap(STORE, KEK, [(bytes(32), aad), (dek, aad)])
    assert dek not in wrapped
    assert len({wrapped, again, third}) == 3
    assert await keys.unwrap(OPEN, KEK, [(wrapped, aad), (again, aad), (third, aad)]) == [dek, bytes(32), dek]
    assert await keys.unwrap(OPEN, KEK, []) == await keys.wrap(STORE, KEK, []) == []
    for short in (b"", bytes(31), bytes(33)):
        with pytest.raises(KeyringError):
            await keys.wrap(STORE, KEK, [(dek, aad), (short, aad)])
    # 2. Each field of the AAD is bound, and one bad pair refuses the batch.
    for name, value in CHANGES.items():
        with pytest.raises(KeyRefusedError):
            await keys.unwrap(OPEN, KEK, [(again, aad), (wrapped, _aad(**{name: value}))])
            pytest.fail(f"{name} is not bound")
    # 3. Neither a flipped bit, nor a shorter or longer wrapping opens.
    for bit in range(0, 8 * len(wrapped), 1 if isinstance(keys, FileKeys) else 7):  # a bit of every byte elsewhere
        at = bit // 8
        flipped = wrapped[:at] + bytes([wrapped[at] ^ 1 << bit % 8]) + wrapped[at + 1 :]
        with pytest.raises(KeyRefusedError):
            await keys.unwrap(OPEN, KEK, [(flipped, aad)])
            pytest.fail(f"bit {bit} is not bound")
    for damaged in (wrapped[:-1], wrapped[:-4], wrapped + b"\x00", b""):
        with pytest.raises(KeyRefusedError):
            await keys.unwrap(OPEN, KEK, [(damaged, aad)])
            pytest.fail("a wrapping of another length opened")
    # 4. A new version does not open what the old one wrapped; the old one still does.
    second = replace(KEK, version=2)
    await keys.create(STORE, second)
    with pytest.raises(KeyRefusedError):
        await keys.unwrap(OPEN, second, [(wrapped, aad)])
    assert await keys.unwrap(OPEN, KEK, [(wrapped, aad)]) == [dek]
    # 5. A Route for another Action, Site or tenant is no pass.
    for wrong in (STORE, ERASE, route_for(Action.OPEN, "us-virginia"), route_for(Action.OPEN, SITE, "southwind")):
        with pytest.raises(RouteError):
            await keys.unwrap(wrong, KEK, [(wrapped, aad)])
    for wrong in (OPEN, ERASE):
        with pytest.raises(RouteError):
            await keys.wrap(wrong, KEK, [(dek, aad)])
        with pytest.raises(RouteError):
            await keys.create(wrong, KEK)
    for wrong in (OPEN, STORE):
        with pytest.raises(RouteError):
            await keys.destroy(wrong, KEK)
    # 6. A KEK that was never made, or was made for someone else, does nothing.
    with pytest.raises(KeyringError):
        await keys.unwrap(OPEN, replace(KEK, id=b"\x31" * 16), [(wrapped, aad)])
    with pytest.raises(KeyringError):
        await keys.unwrap(OPEN, replace(KEK, jurisdiction="FR"), [(wrapped, aad)])
    # 7. Destroyed is for ever: it opens nothing, wraps nothing and is not made again; its neighbour lives.
    await keys.destroy(ERASE, KEK)
    await keys.destroy(ERASE, KEK)
    for _ in range(2):
        with pytest.raises(KeyRefusedError):
            await keys.unwrap(OPEN, KEK, [(wrapped, aad)])
        with pytest.raises(KeyringError):
            await keys.wrap(STORE, KEK, [(dek, aad)])
        with pytest.raises(KeyringError):
            await keys.create(STORE, KEK)
    await keys.wrap(STORE, second, [(dek, aad)])
    assert await keys.status()
    await keys.aclose()


@pytest.mark.enable_socket
@pytest.mark.parametrize("body", BODIES)
async def test_a_key_provider_keeps_its_contract(body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await keeps_its_contract(BODIES[body](tmp_path, monkeypatch))


@pytest.mark.enable_socket
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("broken", BROKEN)
async def test_a_provider_that_loses_what_a_key_is_bound_to_fails_the_contract(
    body: str, broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await keeps_its_contract(BROKEN[broken](BODIES[body](tmp_path, monkeypatch)))


# --- what only a folder can get wrong ---------------------------------------------------------------------------------


async def test_keys_survive_a_restart_and_a_destroyed_one_does_not_come_back(tmp_path: Path) -> None:
    first = FileKeys(tmp_path / "keys", site=SITE)
    await first.create(STORE, KEK)
    [wrapped] = await first.wrap(STORE, KEK, [(bytes(32), _aad())])
    second = FileKeys(tmp_path / "keys", site=SITE)
    assert await second.unwrap(OPEN, KEK, [(wrapped, _aad())]) == [bytes(32)]
    await first.destroy(ERASE, KEK)
    with pytest.raises(KeyRefusedError):  # though this process had it prepared in memory
        await second.unwrap(OPEN, KEK, [(wrapped, _aad())])


async def test_no_key_lies_in_clear_or_open_to_others(tmp_path: Path) -> None:
    keys = FileKeys(tmp_path / "keys", site=SITE)
    await keys.create(STORE, KEK)
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    files = list((tmp_path / "keys").iterdir())
    assert len(files) == 2
    assert all(each.stat().st_mode & 0o777 == 0o600 for each in files)


async def test_a_destroyed_kek_leaves_no_byte_of_its_file(tmp_path: Path) -> None:
    keys = FileKeys(tmp_path / "keys", site=SITE)
    await keys.create(STORE, KEK)
    path = next((tmp_path / "keys").glob("*.kek"))
    linked = tmp_path / "held-open"
    linked.hardlink_to(path)
    before = path.read_bytes()
    await keys.destroy(ERASE, KEK)
    assert not path.exists()
    assert linked.read_bytes() != before  # overwritten in place before it was unlinked


def test_a_root_key_that_others_can_read_stops_the_start(tmp_path: Path) -> None:
    FileKeys(tmp_path / "keys", site=SITE)
    (tmp_path / "keys" / "root.key").chmod(0o644)
    with pytest.raises(KeyringError, match="read by others"):
        FileKeys(tmp_path / "keys", site=SITE)


async def test_a_lost_root_key_is_not_replaced_by_a_new_one(tmp_path: Path) -> None:
    keys = FileKeys(tmp_path / "keys", site=SITE)
    await keys.create(STORE, KEK)
    (tmp_path / "keys" / "root.key").unlink()
    with pytest.raises(KeyringError, match="missing"):
        FileKeys(tmp_path / "keys", site=SITE)


async def test_a_kek_file_opens_for_its_own_name_and_root_only(tmp_path: Path) -> None:
    keys = FileKeys(tmp_path / "keys", site=SITE, root=b"\x01" * 32)
    other = replace(KEK, id=b"\x31" * 16)
    await keys.create(STORE, KEK)
    await keys.create(STORE, other)
    folder = tmp_path / "keys"
    (folder / f"{KEK.id.hex()}-1.kek").write_bytes((folder / f"{other.id.hex()}-1.kek").read_bytes())
    with pytest.raises(KeyRefusedError):
        await FileKeys(folder, site=SITE, root=b"\x01" * 32).wrap(STORE, KEK, [(bytes(32), b"")])
    with pytest.raises(KeyRefusedError):
        await FileKeys(folder, site=SITE, root=b"\x02" * 32).wrap(STORE, other, [(bytes(32), b"")])
    (folder / f"{KEK.id.hex()}-1.kek").write_bytes(b"DM")
    with pytest.raises(KeyringError):
        await FileKeys(folder, site=SITE, root=b"\x01" * 32).wrap(STORE, KEK, [(bytes(32), b"")])
