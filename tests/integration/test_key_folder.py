"""The key folder: under a passphrase, while its root is rolled, with other writers, and on disks that go wrong."""

import asyncio
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from residency.errors import KeyRefusedError, KeyringError
from residency.outlets.keys import disk, roots
from residency.outlets.keys.file import FileKeys
from residency.outlets.keys.late import LateKeys
from residency.ports import KekRef
from residency.route import Action
from tests.doubles.routes import route_for

ROOT = Path(__file__).parents[2]
SITE = "de-frankfurt"
KEK = KekRef(b"\x30" * 16, 1, "northwind", "DE", SITE)
SECOND = replace(KEK, version=2)
OTHER = KekRef(b"\x31" * 16, 1, "southwind", "DE+FR", SITE)
STORE, OPEN, ERASE = (route_for(action, SITE, lasting=True) for action in (Action.STORE, Action.OPEN, Action.ERASE))
SOUTH_STORE, SOUTH_OPEN = (route_for(action, SITE, "southwind", lasting=True) for action in (Action.STORE, Action.OPEN))


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots, "COST", (10, 8, 1))


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text("correct horse battery staple\n")
    path.chmod(0o600)
    return path


def _say(path: Path, text: str) -> None:
    path.write_text(text)


async def _filled(folder: Path, **options: Any) -> tuple[FileKeys, list[bytes]]:
    keys = FileKeys(folder, site=SITE, **options)
    for store, kek in ((STORE, KEK), (STORE, SECOND), (SOUTH_STORE, OTHER)):
        await keys.create(store, kek)
    held = [await keys.wrap(store, kek, [(bytes(32), b"a")]) for store, kek in ((STORE, KEK), (SOUTH_STORE, OTHER))]
    return keys, [each[0] for each in held]


async def _opens(keys: FileKeys, held: list[bytes]) -> bool:
    first = await keys.unwrap(OPEN, KEK, [(held[0], b"a")])
    return first == await keys.unwrap(SOUTH_OPEN, OTHER, [(held[1], b"a")]) == [bytes(32)]


# --- a root under a passphrase ----------------------------------------------------------------------------------------


async def test_a_root_under_a_passphrase_opens_with_it_alone(tmp_path: Path, passphrase: Path) -> None:
    folder = tmp_path / "keys"
    _, held = await _filled(folder, passphrase=passphrase)
    raw = (folder / "root.key").read_bytes()
    assert len(raw) == roots.SEALED
    again = FileKeys(folder, site=SITE, passphrase=passphrase)
    assert await _opens(again, held)
    assert (await again.status())["passphrase"] is True
    with pytest.raises(KeyringError, match="is under a passphrase"):
        FileKeys(folder, site=SITE)
    _say(passphrase, "correct horse battery stable")
    with pytest.raises(KeyringError, match="passphrase of de-frankfurt is wrong") as caught:
        FileKeys(folder, site=SITE, passphrase=passphrase)
    assert "stable" not in str(caught.value) + caught.value.hint
    _say(passphrase, "correct horse battery staple")
    with pytest.raises(KeyringError, match="wrong"):  # a root carried to another Site
        FileKeys(folder, site="fr-paris", passphrase=passphrase)


def test_the_cost_of_a_guess_is_that_of_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert roots.COST == (17, 8, 1)


@pytest.mark.parametrize("at", [*range(24), 30, 40, roots.SEALED - 1])
async def test_a_damaged_root_is_named(tmp_path: Path, passphrase: Path, at: int) -> None:
    folder = tmp_path / "keys"
    FileKeys(folder, site=SITE, passphrase=passphrase)
    path = folder / "root.key"
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x80
    path.write_bytes(raw)
    with pytest.raises(KeyringError, match=r"damaged|too much work"):
        FileKeys(folder, site=SITE, passphrase=passphrase)


@pytest.mark.parametrize("length", [0, 1, 31, 33, roots.SEALED - 1, roots.SEALED + 1])
async def test_a_half_written_root_is_named_and_left_alone(tmp_path: Path, passphrase: Path, length: int) -> None:
    folder = tmp_path / "keys"
    await _filled(folder, passphrase=passphrase)
    path = folder / "root.key"
    path.write_bytes((path.read_bytes() * 2)[:length])
    with pytest.raises(KeyringError, match=r"half written"):
        FileKeys(folder, site=SITE, passphrase=passphrase)
    assert path.stat().st_size == length


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.chmod(0o640), "read by others"),
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_text(""), "empty"),
        (lambda path: path.write_text("short"), "short"),
        (lambda path: path.write_bytes(b"\xff" * 20), "UTF-8"),
    ],
)
def test_a_passphrase_file_that_is_not_right_is_named(
    tmp_path: Path, passphrase: Path, change: Any, message: str
) -> None:
    change(passphrase)
    with pytest.raises(KeyringError, match=message):
        FileKeys(tmp_path / "keys", site=SITE, passphrase=passphrase)
    assert not (tmp_path / "keys" / "root.key").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604])
async def test_a_kek_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    _, held = await _filled(tmp_path / "keys")
    (tmp_path / "keys" / f"{KEK.id.hex()}-1.kek").chmod(mode)
    with pytest.raises(KeyringError, match="read by others"):
        await _opens(FileKeys(tmp_path / "keys", site=SITE), held)


# --- rolling the root -------------------------------------------------------------------------------------------------


async def test_a_rolled_root_opens_what_is_there_and_not_what_was_copied_before(
    tmp_path: Path, passphrase: Path
) -> None:
    folder = tmp_path / "keys"
    keys, held = await _filled(folder)
    other = FileKeys(folder, site=SITE)  # another process, with the old root in memory
    assert await _opens(other, held)
    copied = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert await keys.roll([KEK, OTHER]) == {"keks": 3, "passphrase": False}
    assert await _opens(keys, held) and await _opens(other, held)
    assert await _opens(FileKeys(folder, site=SITE), held)
    assert not set(copied.values()) & {path.read_bytes() for path in folder.iterdir()}
    # What the other process makes now is under the new root.
    await other.create(STORE, replace(KEK, version=3))
    await FileKeys(folder, site=SITE).wrap(STORE, replace(KEK, version=3), [(bytes(32), b"a")])
    # A copied KEK file is worth nothing under the new root.
    (folder / f"{KEK.id.hex()}-1.kek").write_bytes(copied[f"{KEK.id.hex()}-1.kek"])
    with pytest.raises(KeyRefusedError):
        await FileKeys(folder, site=SITE).unwrap(OPEN, KEK, [(held[0], b"a")])


async def test_a_bare_root_goes_under_a_passphrase_by_rolling_it(tmp_path: Path, passphrase: Path) -> None:
    folder = tmp_path / "keys"
    _, held = await _filled(folder)
    keys = FileKeys(folder, site=SITE, passphrase=passphrase)
    assert (await keys.status())["passphrase"] is False
    assert (await keys.roll([KEK, OTHER]))["passphrase"] is True
    assert await _opens(FileKeys(folder, site=SITE, passphrase=passphrase), held)


async def test_a_kek_of_no_known_tenant_stops_the_roll_before_anything_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    keys, held = await _filled(folder)
    with pytest.raises(KeyringError, match="in no row"):
        await keys.roll([KEK])
    assert await _opens(FileKeys(folder, site=SITE), held)
    await keys.roll([KEK, OTHER])
    assert not list(folder.glob("root.key.*")) and await _opens(FileKeys(folder, site=SITE), held)


KILL = """
import asyncio, os, sys
from pathlib import Path
from residency.outlets.keys import disk, file, roots
from tests.integration.test_key_folder import KEK, OTHER, SITE
left = int(sys.argv[2])
def dying(real):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return real(*args, **kwargs)
    return call
os.fsync = dying(os.fsync)
os.link = dying(os.link)
Path.replace = dying(Path.replace)
Path.unlink = dying(Path.unlink)
keys = file.FileKeys(Path(sys.argv[1]), site=SITE)
asyncio.run(keys.roll([KEK, OTHER]))
print("done")
"""


@pytest.mark.chaos
def test_a_roll_killed_at_every_step_loses_nothing_and_is_finished_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    _, held = asyncio.run(_filled(folder))

    def opens() -> bool:
        return asyncio.run(_opens(FileKeys(folder, site=SITE), held))

    for step in range(60):
        child = subprocess.run(
            [sys.executable, "-c", KILL, str(folder), str(step)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert opens(), f"lost at step {step}"
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL, child.stderr
    else:
        pytest.fail("never came to its end")
    assert step > 15
    asyncio.run(FileKeys(folder, site=SITE).roll([KEK, OTHER]))
    assert opens()
    assert sorted(path.suffix for path in folder.iterdir() if not path.name.startswith(".")) == [".kek"] * 3 + [".key"]


# --- disks and other writers ------------------------------------------------------------------------------------------


async def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    keys, held = await _filled(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        for call in (keys.create(STORE, replace(KEK, version=3)), keys.roll([KEK, OTHER])):
            with pytest.raises(KeyringError, match="cannot be written"):
                await call
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    await keys.create(STORE, replace(KEK, version=3))
    await keys.roll([KEK, OTHER])
    assert await _opens(FileKeys(folder, site=SITE), held)


def _hold(folder: str, held: Any, free: Any) -> None:
    with disk.locked(Path(folder)):
        held.set()
        free.wait(30)


async def test_a_second_writer_waits_and_then_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "keys"
    keys, held = await _filled(folder)
    spawn = multiprocessing.get_context("spawn")
    has, free = spawn.Event(), spawn.Event()
    child = spawn.Process(target=_hold, args=(str(folder), has, free))
    child.start()
    try:
        assert has.wait(60)
        monkeypatch.setattr(disk, "WAIT_SECONDS", 0.1)
        for call in (
            keys.create(STORE, replace(KEK, version=3)),
            keys.destroy(ERASE, KEK),
            keys.roll([KEK, OTHER]),
        ):
            with pytest.raises(KeyringError, match="another process is writing"):
                await call
        assert await _opens(keys, held)  # who reads does not wait
        monkeypatch.setattr(disk, "WAIT_SECONDS", 30.0)
        waiting = asyncio.create_task(keys.create(STORE, replace(KEK, version=3)))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        free.set()
        await waiting
    finally:
        free.set()
        child.join()


async def test_a_destroyed_version_stays_refused_though_the_process_died_before_its_file_was_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, held = await _filled(tmp_path / "keys")

    def dies(_: Path) -> None:
        raise OSError("no more")

    monkeypatch.setattr("residency.outlets.keys.file.erase", dies)
    with pytest.raises(KeyringError):
        await keys.destroy(ERASE, KEK)
    monkeypatch.undo()
    assert (tmp_path / "keys" / f"{KEK.id.hex()}-1.kek").exists()
    for each in (keys, FileKeys(tmp_path / "keys", site=SITE)):
        with pytest.raises(KeyRefusedError):
            await each.unwrap(OPEN, KEK, [(held[0], b"a")])
    await keys.destroy(ERASE, KEK)
    assert not (tmp_path / "keys" / f"{KEK.id.hex()}-1.kek").exists()


# --- a provider that opens late ---------------------------------------------------------------------------------------


async def test_a_provider_that_does_not_open_says_why_and_opens_when_it_can(
    tmp_path: Path, passphrase: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "keys"
    _, held = await _filled(folder, passphrase=passphrase)
    right, tried = "correct horse battery staple", []
    _say(passphrase, "quite another passphrase")

    def open_it() -> FileKeys:
        tried.append(1)
        return FileKeys(folder, site=SITE, passphrase=passphrase)

    keys = LateKeys(SITE, open_it)
    for call in (keys.status(), keys.unwrap(OPEN, KEK, [(held[0], b"a")]), keys.wrap(STORE, KEK, [(bytes(32), b"")])):
        with pytest.raises(KeyringError, match="passphrase of de-frankfurt is wrong"):
            await call
    assert len(tried) == 1  # a passphrase is dear to try
    _say(passphrase, right)
    monkeypatch.setattr("residency.outlets.keys.late.PAUSE", 0.0)
    keys._again = 0.0
    assert await keys.unwrap(OPEN, KEK, [(held[0], b"a")]) == [bytes(32)]
    await keys.aclose()

    def unmounted() -> FileKeys:
        raise PermissionError(os.strerror(13))

    with pytest.raises(KeyringError, match="cannot be reached"):
        await LateKeys(SITE, unmounted).status()
