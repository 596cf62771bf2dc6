"""What every body of the Vault port must do."""

import os
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from residency.errors import RouteError, SealedError, SiteError, StorageFullError
from residency.journal import recording
from residency.outlets.vaults.folder import FolderVault
from residency.ports import Vault
from residency.route import Action, Route
from tests.doubles.routes import route_for

SITE = "de-frankfurt"
NAME = "0123456789abcdef0123456789abcdef.1.original"
Usage = namedtuple("Usage", "total used free")


def store() -> Route:
    return route_for(Action.STORE, SITE)


def opening() -> Route:
    return route_for(Action.OPEN, SITE)


def erase() -> Route:
    return route_for(Action.ERASE, SITE)


def search() -> Route:
    return route_for(Action.SEARCH, SITE)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture(params=[FolderVault])
def vault(request: pytest.FixtureRequest, tmp_path: Path) -> Vault:
    found: Vault = request.param(tmp_path / "vault", site=SITE, stop=(0.0, 0), resume=(0.0, 0))
    return found


async def test_what_is_put_is_read_back(vault: Vault) -> None:
    await vault.put(store(), NAME, [b"sealed ", b"bytes"])
    assert await vault.read(opening(), NAME) == b"sealed bytes"


async def test_a_second_put_replaces_the_first(vault: Vault) -> None:
    await vault.put(store(), NAME, [b"first, longer"])
    await vault.put(store(), NAME, [b"second"])
    assert await vault.read(opening(), NAME) == b"second"


async def test_a_file_being_written_is_invisible_until_committed(vault: Vault) -> None:
    writer = await vault.create(store(), NAME)
    await writer.append(b"one")
    await writer.sync()
    assert await vault.names(search(), "") == []
    with pytest.raises(SealedError):
        await vault.read(opening(), NAME)
    await writer.append(b"two")
    await writer.commit()
    assert await vault.names(search(), "") == [NAME]
    assert await vault.read(opening(), NAME) == b"onetwo"


async def test_an_abandoned_file_leaves_nothing(vault: Vault, tmp_path: Path) -> None:
    writer = await vault.create(store(), NAME)
    await writer.append(b"one")
    await writer.abandon()
    assert await vault.names(search(), "") == []
    assert files(tmp_path) == []


async def test_a_put_that_breaks_off_leaves_nothing(vault: Vault, tmp_path: Path) -> None:
    def parts() -> list[bytes]:
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="broke"):
        await vault.put(store(), NAME, (part for _ in range(1) for part in parts()))
    assert files(tmp_path) == []


async def test_abandoning_after_a_commit_changes_nothing(vault: Vault) -> None:
    writer = await vault.create(store(), NAME)
    await writer.append(b"one")
    await writer.commit()
    await writer.abandon()
    assert await vault.read(opening(), NAME) == b"one"


async def test_deleting_says_how_many_existed_and_can_be_repeated(vault: Vault) -> None:
    await vault.put(store(), "aa.1.original", [b"1"])
    await vault.put(store(), "ab.1.original", [b"2"])
    assert await vault.delete(erase(), ["aa.1.original", "ab.1.original", "ac.1.original"]) == 2
    assert await vault.delete(erase(), ["aa.1.original", "ab.1.original"]) == 0
    with pytest.raises(SealedError):
        await vault.read(opening(), "aa.1.original")


async def test_names_are_listed_by_their_beginning(vault: Vault) -> None:
    for name in ("ab12.1.text", "ab12.1.original", "ab13.1.text", "cd00.2.text"):
        await vault.put(store(), name, [b"x"])
    assert await vault.names(search(), "ab12.") == ["ab12.1.original", "ab12.1.text"]
    assert await vault.names(search(), "a") == ["ab12.1.original", "ab12.1.text", "ab13.1.text"]
    assert len(await vault.names(search(), "")) == 4
    assert await vault.names(search(), "ee") == []


@pytest.mark.parametrize(
    "name",
    ["", "a", "../etc/passwd", "..", ".hidden", "a/b", "aa/../b", "/etc/passwd", "aa..b", "aa.", "AA", "ä0", "aa b",
     "aa\x00b", "aa\n", "a" * 65, "aa.b.c.d.e.f"],
)  # fmt: skip
async def test_a_name_that_is_no_id_of_ours_never_becomes_a_path(vault: Vault, name: str) -> None:
    for call in (
        lambda: vault.create(store(), name),
        lambda: vault.put(store(), name, [b"x"]),
        lambda: vault.read(opening(), name),
        lambda: vault.delete(erase(), [name]),
    ):
        with pytest.raises(ValueError, match="vault name"):
            await call()


@pytest.mark.parametrize("prefix", ["../", "/", ".", "aa/"])
async def test_a_prefix_that_is_no_id_of_ours_is_refused(vault: Vault, prefix: str) -> None:
    with pytest.raises(ValueError, match="vault name"):
        await vault.names(search(), prefix)


async def test_each_call_wants_the_route_of_its_own_action(vault: Vault) -> None:
    with pytest.raises(RouteError):
        await vault.put(opening(), NAME, [b"x"])
    with pytest.raises(RouteError):
        await vault.create(search(), NAME)
    with pytest.raises(RouteError):
        await vault.read(store(), NAME)
    with pytest.raises(RouteError):
        await vault.delete(store(), [NAME])
    with pytest.raises(RouteError):
        await vault.names(opening(), "")
    with pytest.raises(RouteError):
        await vault.read(route_for(Action.OPEN, "us-virginia"), NAME)


async def test_every_pass_is_recorded_with_its_bytes(vault: Vault) -> None:
    with recording() as touches:
        await vault.put(store(), NAME, [b"12345"])
        await vault.read(opening(), NAME)
    assert [(touch.action, touch.kind, touch.count, touch.bytes) for touch in touches] == [
        (Action.STORE, "vault", 1, 5),
        (Action.OPEN, "vault", 1, 5),
    ]


# --- the folder's own promises --------------------------------------------------------------------------------------


async def test_nobody_else_may_look_into_the_folder(tmp_path: Path) -> None:
    await FolderVault(tmp_path / "v", site=SITE, stop=(0.0, 0)).put(store(), NAME, [b"x"])
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "v").rglob("*") if path.is_file()}
    folders = {path.stat().st_mode & 0o777 for path in [tmp_path / "v", *(tmp_path / "v").rglob("*")] if path.is_dir()}
    assert (modes, folders) == ({0o600}, {0o700})


async def test_a_nearly_full_volume_refuses_writing_and_still_reads_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 50
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(100, 100 - free, free))
    vault = FolderVault(tmp_path / "v", site=SITE)
    await vault.put(store(), NAME, [b"x"])
    free = 9
    for _ in range(2):
        with pytest.raises(StorageFullError):
            await vault.create(store(), NAME)
        free = 12  # above the first mark and below the second: it does not flutter
    assert await vault.read(opening(), NAME) == b"x"
    free = 16
    await vault.put(store(), NAME, [b"y"])


async def test_a_disk_that_fills_while_writing_ends_in_storage_full_and_leaves_the_old_file(tmp_path: Path) -> None:
    vault = FolderVault(tmp_path / "v", site=SITE, stop=(0.0, 0))
    await vault.put(store(), NAME, [b"old"])

    def fill(*_: object) -> int:
        raise OSError(28, "No space left on device", "/secret/path")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.write", fill)
        with pytest.raises(StorageFullError) as caught:
            await vault.put(store(), NAME, [b"new"])
    assert "secret" not in str(caught.value)
    assert await vault.read(opening(), NAME) == b"old"
    assert list((tmp_path / "v" / "aside").iterdir()) == []


async def test_another_failure_of_the_disk_is_a_site_error(tmp_path: Path) -> None:
    vault = FolderVault(tmp_path / "v", site=SITE, stop=(0.0, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(SiteError, match="EIO"):
            await vault.put(store(), NAME, [b"new"])


WRITER = """
import asyncio, sys
from pathlib import Path
from residency.outlets.vaults.folder import FolderVault
from residency.route import Action
from tests.doubles.routes import route_for
async def main():
    vault = FolderVault(Path(sys.argv[1]), site="de-frankfurt", stop=(0.0, 0))
    writer = await vault.create(route_for(Action.STORE, "de-frankfurt"), "aa.1.original")
    await writer.append(b"half")
    print("writing", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_what_a_killed_writer_left_is_swept_and_a_living_writer_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    writer = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"writing\n"
    FolderVault(folder, site=SITE)
    assert len(list((folder / "aside").iterdir())) == 1
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    FolderVault(folder, site=SITE)
    assert list((folder / "aside").iterdir()) == []


@pytest.mark.parametrize("step", ["put", "commit"])
async def test_the_order_on_disk_is_sync_rename_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    vault = FolderVault(tmp_path / "v", site=SITE, stop=(0.0, 0))
    await vault.put(store(), "01.first", [b"x"])  # so that the folder of this beginning is there
    calls: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def seen_fsync(fd: int) -> None:
        calls.append("fsync folder" if Path(f"/proc/self/fd/{fd}").readlink().is_dir() else "fsync file")
        fsync(fd)

    def seen_rename(self: Path, target: Path) -> Path:
        calls.append("rename")
        return rename(self, target)

    monkeypatch.setattr("os.fsync", seen_fsync)
    monkeypatch.setattr(Path, "rename", seen_rename)
    if step == "put":
        await vault.put(store(), NAME, [b"x"])
    else:
        await (await vault.create(store(), NAME)).commit()
    assert calls == ["fsync file", "rename", "fsync folder"]
