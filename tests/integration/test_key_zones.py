"""One key provider a Zone, in the whole house: what one of them does to its Site, and never to the others."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ingestion.claims import Claim
from ingestion.intake import Taken
from residency.errors import KeyringError
from service.bootstrap import domicile
from service.cli.common import operator
from service.home import office, prepare
from service.house import House
from service.searching import Results, Search
from tests.doubles.bao_http import OPERATOR, SERVICE, BaoDouble, bao
from tests.doubles.homes import settings
from tests.doubles.ingesting import EVIDENCE, HashEmbedder
from tests.doubles.softhsm import softhsm

pytestmark = pytest.mark.enable_socket

TEXTS = {
    "DE": "The lantern in the Bremen depot is lit at dusk every single evening of the year.",
    "FR": "The lantern in the Lyon depot is lit at dawn every single morning of the year.",
}
SITES = {"DE": "de-bremen", "FR": "fr-lyon"}


def site(zone: str, keys: str) -> str:
    owner = f'{{name="Example Works {zone}",zone="{zone}"}}'
    rest = '{kind="shard",url="edge:"},{kind="vault",url="folder:"},{kind="embedder",url="bundled:"}'
    return (
        f'[[site]]\nid="{SITES[zone]}"\nzone="{zone}"\noperator={owner}\nevidence={EVIDENCE}\nholds=[{keys},{rest}]\n'
    )


def secret(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def server() -> Iterator[BaoDouble]:
    with bao() as double:
        yield double


def home(folder: Path, german: str, french: str) -> Path:
    prepare(folder, zone="DE", operator="DE")
    (folder / "fleet.toml").write_text(site("DE", german) + site("FR", french))
    with office(settings(folder)) as accounts:
        accounts.ensure_tenant("northwind", ceiling=("EEA",), zone="DE")
    return folder


def transit(folder: Path, double: BaoDouble) -> str:
    folder.mkdir(exist_ok=True, parents=True)
    secret(folder / "token", SERVICE)
    secret(folder / "operator", OPERATOR)
    named = 'token_file="token",operator_token_file="operator"'
    return f'{{kind="keys",url="bao:{double.url}",{named}}}'


@asynccontextmanager
async def standing(folder: Path) -> AsyncIterator[House]:
    embedders = {name: HashEmbedder(name) for name in SITES.values()}
    async with domicile(settings(folder), work=False, embedders=embedders) as house:
        yield house


async def _blocks(text: str) -> AsyncIterator[bytes]:
    yield text.encode()


async def send(house: House, zone: str) -> Any:
    claim = Claim(name=f"{zone}.txt", jurisdictions=frozenset({zone}), residency=frozenset({zone}))
    taken = await house.intake.receive(_blocks(TEXTS[zone]), claim, operator(house.settings, "northwind"))
    assert isinstance(taken, Taken)
    await house.worker.drain()
    return taken.document


async def find(house: House) -> tuple[set[str], tuple[str, ...]]:
    found = await house.searching.search(operator(house.settings, "northwind"), Search("lantern depot", top_k=10))
    assert isinstance(found, Results)
    return {passage.site for passage in found.findings.passages}, found.findings.unreached


async def test_a_server_that_is_sealed_stops_its_zone_and_no_other(tmp_path: Path, server: BaoDouble) -> None:
    folder = tmp_path / "home"
    secret_file = secret(tmp_path / "passphrase", "correct horse battery staple")
    german = f'{{kind="keys",url="file:",passphrase_file="{secret_file}"}}'
    async with standing(home(folder, german, transit(folder, server))) as house:
        for zone in SITES:
            await send(house, zone)
        assert await find(house) == ({"de-bremen", "fr-lyon"}, ())
        # 1. Each provider was asked about its own Zone's keys alone.
        assert {path.split("/")[1] for _, path, _ in server.seen if path.startswith("transit")} >= {"encrypt", "keys"}
        assert len(server.keys) == 1 and len(list((folder / "keys" / "de-bremen").glob("*.kek"))) == 1
        # 2. One goes silent: what it wraps stays shut and its Site is named, the other serves.
        server.sealed = True
        house.keyring.empty()
        assert await find(house) == ({"de-bremen"}, ("fr-lyon",))
        with pytest.raises(KeyringError):
            await send(house, "FR")
        await house.probing.once()
        states = {row["id"]: (row["state"], row["cause"]) for row in await house.probing.listing()}
        assert states["de-bremen"][0] == "open"
        assert states["fr-lyon"] == ("closed", "the key server of fr-lyon is sealed")
        # 3. It answers again.
        server.sealed = False
        await house.probing.once()
        assert await find(house) == ({"de-bremen", "fr-lyon"}, ())
        # 4. Rotated on the one, the other knows nothing of it.
        await house.custody.rotate("northwind", "FR")
        assert (await house.custody.rewrap("northwind", "FR"))["left"] == 0
        house.keyring.empty()
        assert await find(house) == ({"de-bremen", "fr-lyon"}, ())
        versions = {(row["site"], row["version"], row["state"]) for row in await house.custody.listing()}
        assert versions == {("de-bremen", 1, "active"), ("fr-lyon", 1, "retired"), ("fr-lyon", 2, "active")}


async def test_a_wrong_passphrase_or_pin_does_not_keep_the_house_from_standing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "home"
    hsm = softhsm(tmp_path / "hsm", monkeypatch)
    token = hsm.token("zone-fr")
    passphrase = secret(tmp_path / "passphrase", "correct horse battery staple")
    german = f'{{kind="keys",url="file:",passphrase_file="{passphrase}"}}'
    french = f'{{kind="keys",url="pkcs11:",module="{hsm.module}",token="{token}",pin_file="{hsm.pin}"}}'
    async with standing(home(folder, german, french)) as house:
        for zone in SITES:
            await send(house, zone)
        assert await find(house) == ({"de-bremen", "fr-lyon"}, ())
        hsm.pull()
        house.keyring.empty()
        assert await find(house) == ({"de-bremen"}, ("fr-lyon",))
        hsm.plug()
        assert await find(house) == ({"de-bremen", "fr-lyon"}, ())
    secret(tmp_path / "passphrase", "something else entirely")
    async with standing(folder) as house:
        assert await find(house) == ({"fr-lyon"}, ("de-bremen",))
        closed = {row["id"]: row["cause"] for row in await house.probing.listing() if row["state"] == "closed"}
        assert list(closed) == ["de-bremen"] and "passphrase of de-bremen is wrong" in closed["de-bremen"]


async def test_a_holding_without_its_files_names_what_is_missing(tmp_path: Path, server: BaoDouble) -> None:
    folder = tmp_path / "home"
    german, french = '{kind="keys",url="pkcs11:",token="x"}', f'{{kind="keys",url="{server.url}"}}'
    async with standing(home(folder, german, french)) as house:
        causes = {row["id"]: row["cause"] for row in await house.probing.listing()}
    assert causes == {
        "de-bremen": "the keys of de-bremen have no module",
        "fr-lyon": "the keys of fr-lyon have no token_file",
    }
