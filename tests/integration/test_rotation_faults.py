"""A rotation whose provider goes away, or whose disk is full, in its middle: named, nothing lost, gone on with."""

import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from residency import keks
from residency.database import Database, metadata
from residency.errors import KeyringError
from residency.keyring import Keyring
from residency.outlets.keys.bao import BaoKeys
from residency.outlets.keys.file import FileKeys
from residency.outlets.keys.pkcs11 import Pkcs11Keys
from residency.ports import KeyProvider
from residency.route import Action
from residency.seal import NO_TAG
from tests.doubles.bao_http import OPERATOR, SERVICE, BaoDouble, bao
from tests.doubles.routes import route_for
from tests.doubles.softhsm import softhsm

SITE = "fr-lyon"
STORE, OPEN, ERASE = (route_for(action, SITE, lasting=True) for action in (Action.STORE, Action.OPEN, Action.ERASE))
COUNT = 12


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keks, "BATCH", 4)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'd.sqlite'}")
    metadata.create_all(made.engine)
    yield made
    made.close()


class Story:
    """Keys under version 1, a rotation to version 2, and a rewrap that stops after its first step."""

    def __init__(self, database: Database, provider: KeyProvider) -> None:
        self.database = database
        self.ring = Keyring(database, {SITE: provider}, horizon=0.0)
        self.made: list[bytes] = []

    async def begin(self) -> None:
        facts: dict[str, Any] = {"purpose": "conversation", "tenant": "northwind", "jurisdiction": "FR", "site": SITE}
        for number in range(COUNT):
            subject = number.to_bytes(16, "big")
            made = await self.ring.new_dek(STORE, subject=subject, version=1, tag_digest=NO_TAG, **facts)
            self.made.append(made.dek_id)
        await self.rotate()

    async def rotate(self) -> None:
        await self.ring.rotate(STORE, tenant="northwind", jurisdiction="FR", site=SITE)

    async def rewrap(self, limit: int | None = None) -> dict[str, int]:
        return await self.ring.rewrap(STORE, OPEN, limit=limit)

    async def open_all(self) -> int:
        self.ring.empty()
        return len(await self.ring.open_deks(OPEN, SITE, [(each, NO_TAG) for each in self.made]))

    async def finish(self) -> None:
        assert await self.open_all() == COUNT
        result = await self.rewrap()
        assert (result["left"], result["refused"]) == (0, 0)
        assert await self.open_all() == COUNT
        [old] = [state for state in await self.ring.listing() if state.ref.version == 1]
        assert old.state == "retired"
        await self.ring.destroy(ERASE, old.ref.id, 1)
        assert await self.open_all() == COUNT


async def test_a_token_pulled_out_in_mid_rotation(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hsm = softhsm(tmp_path / "hsm", monkeypatch)
    provider = Pkcs11Keys(site=SITE, module=hsm.module, token=hsm.token("zone-fr"), pin=hsm.pin)
    story = Story(database, provider)
    await story.begin()
    assert (await story.rewrap(limit=4))["moved"] == 4
    hsm.pull()
    for call in (story.rewrap(), story.rotate(), story.open_all()):
        with pytest.raises(KeyringError, match="does not answer"):
            await call
    hsm.plug()
    await story.finish()
    await provider.aclose()


FAULTS: dict[str, dict[str, Any]] = {
    "silent": {"sealed": True},
    "garbage": {"garbage": b"<html>"},
    "short": {"drop_last": True},
    "broken": {"fail_on": ""},
}


@pytest.mark.enable_socket
@pytest.mark.parametrize("fault", [*FAULTS, "slow"])
async def test_a_server_that_goes_wrong_in_mid_rotation(database: Database, tmp_path: Path, fault: str) -> None:
    for name, text in (("token", SERVICE), ("operator", OPERATOR)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    with bao() as double:
        provider = BaoKeys(
            site=SITE, url=double.url, token=tmp_path / "token", operator=tmp_path / "operator", within=2.0
        )
        story = Story(database, provider)
        await story.begin()
        assert (await story.rewrap(limit=4))["moved"] == 4
        [name] = double.keys
        changed = FAULTS.get(fault, {"slow": True}) | ({"fail_on": f"decrypt/{name}"} if fault == "broken" else {})
        for setting, value in changed.items():
            setattr(double, setting, value)
        with pytest.raises(KeyringError):
            await story.rewrap()
        plain = BaoDouble()
        for setting in changed:
            setattr(double, setting, getattr(plain, setting))
        double.go.set()
        await story.finish()
        assert not [path for _, path, _ in double.seen if "rewrap" in path]
        await provider.aclose()


async def test_a_disk_that_is_full_in_mid_rotation(database: Database, tmp_path: Path) -> None:
    story = Story(database, FileKeys(tmp_path / "keys", site=SITE))
    await story.begin()
    assert (await story.rewrap(limit=4))["moved"] == 4
    database.checkpoint()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, hard))  # bytes a file may have
    try:
        with pytest.raises((sa.exc.DBAPIError, KeyringError)):
            await story.rewrap()
        with pytest.raises((sa.exc.DBAPIError, KeyringError)):
            await story.rotate()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    await story.finish()
