"""A Zone's backup and its way back: into a new home with the same keys, into the old one, and not where it may not."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingestion.archive import Archive, ArchiveWriter
from ingestion.backup import Backup
from ingestion.errors import BackupError
from ingestion.restore import _EVER, Restore
from ingestion.rows import document
from ingestion.states import State
from residency.decision import Refusal
from residency.errors import KeyringError, StorageFullError
from residency.keytables import dek_wrapped
from residency.notes import Verifier
from service import accounts
from tests.doubles.ingesting import APP, Ingesting, ingesting, site
from tests.doubles.looking import BODY, dek_of, live, points_of

ONE = site("fra", "DE", "DE")
TENANTS = [
    {"id": each, "ceiling": ["GDPR-ADEQUATE"], "zone": "DE", "created": 0.0} for each in ("northwind", "southwind")
]


def stores(house: Ingesting, *, index: bool = True) -> dict[str, Any]:
    shards = house.shards if index else {}
    return {"engine": house.engine, "ledger": house.ledger, "shards": shards, "vaults": house.vaults}


async def backed_up(house: Ingesting, file: Path, *, index: bool = True) -> dict[str, Any]:
    with house.database.transaction() as connection:
        if connection.execute(sa.select(accounts.tenants)).first() is None:
            connection.execute(sa.insert(accounts.tenants), TENANTS)
    return await Backup(database=house.database, **stores(house, index=index)).write("DE", ArchiveWriter(file))


async def restored(house: Ingesting, file: Path, **more: Any) -> Any:
    archive = Archive(file)
    try:
        keys = [Verifier.parse(house.ledger.vkey)]
        return await Restore(erasure=house.erasure, **stores(house)).read(archive, keys, **more)
    finally:
        archive.close()


def same_keys(old: Path, new: Path) -> Path:
    """Make a new home with the keys of an old one and nothing else."""
    new.mkdir()
    shutil.copytree(old / "fra" / "keys", new / "fra" / "keys")
    shutil.copy(old / "ledger.key", new / "ledger.key")
    return new


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Path, Path]:
    old = tmp_path / "old"
    old.mkdir()
    return old, tmp_path / "new"


async def test_a_new_home_with_the_same_keys_finds_the_same(homes: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = homes
    file = tmp_path / "de.tar"
    async with ingesting(old) as house:
        first = await live(house)
        second = await live(house, body=BODY + b"\n\nsecond version\n")
        waiting = (await house.taken("w.txt", BODY + b"w")).document
        before = {p.id: (p.vector.tobytes(), p.sparse, p.payload) for p in await points_of(house, second)}
        manifest = await backed_up(house, file)
        assert (manifest["documents"], manifest["left_out"], manifest["erased"]) == (3, 0, 0)
    raw = file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600 and b"notice period" not in raw and b"notice.txt" not in raw
    assert not any(
        key.read_bytes() in raw for key in (old / "fra" / "keys").rglob("*") if key.is_file() and key.stat().st_size
    )
    async with ingesting(same_keys(old, new)) as house:
        done = await restored(house, file)
        assert (done["restored"], done["indexing"], done["unopened"]) == (2, 1, 0)
        found = house.get(first.id)
        assert (found.state, found.version) == (State.LIVE, 2) and house.get(first.id, 1).state is State.ARCHIVED
        after = {p.id: (p.vector.tobytes(), p.sparse, p.payload) for p in await points_of(house, found)}
        assert after == before and await dek_of(house, found)
        await house.worker.drain()
        assert house.get(waiting.id).state is State.LIVE
        again = await restored(house, file)
        assert (again["there"], again["restored"]) == (3, 0)
        entries = [each["facts"] for each in _entries(house) if each["facts"].get("event") == "restore"]
        assert [each["archive"] for each in entries] == [manifest["digest"]] * 2


async def test_without_an_index_documents_are_indexed_anew(homes: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = homes
    file = tmp_path / "de.tar"
    async with ingesting(old) as house:
        found = await live(house)
        await backed_up(house, file, index=False)
    async with ingesting(same_keys(old, new)) as house:
        assert (await restored(house, file))["indexing"] == 1
        await house.worker.drain()
        assert house.get(found.id).state is State.LIVE and len(await points_of(house, found)) == found.passages


@pytest.mark.parametrize("row", ["kept", "lost"])
async def test_what_was_erased_stays_erased_and_what_was_lost_comes_back(tmp_path: Path, row: str) -> None:
    file = tmp_path / "de.tar"
    async with ingesting(tmp_path) as house:
        gone, lost = await live(house), await live(house, "b.txt", BODY + b"b")
        await backed_up(house, file)
        await _erased(house, gone.id)
        if row == "lost":  # the Ledger remembers
            with house.database.transaction() as connection:
                connection.execute(sa.delete(document).where(document.c.id == gone.id))
        for path in (tmp_path / "fra" / "vault").rglob(f"{lost.id}*"):
            path.unlink()
        done = await restored(house, file)
        assert (done["erased_again"], done["there"], done["restored"]) == (1, 1, 0)
        assert [name for name in house.files() if name.startswith(gone.id)] == []
        assert [name for name in house.files() if name.startswith(lost.id)]
        with pytest.raises(KeyringError):
            await dek_of(house, gone)
        with house.database.reading() as connection:
            held = sa.select(dek_wrapped).where(dek_wrapped.c.dek_id == gone.dek_id)
            assert connection.execute(held).first() is None
        assert await points_of(house, gone) == [] and await dek_of(house, lost)


async def _erased(house: Ingesting, identifier: str) -> None:
    await house.erasure.erase(APP, identifier)
    await house.worker.drain()
    assert house.get(identifier).state is State.ERASED


async def test_an_erased_document_goes_into_a_later_backup_as_a_name_alone(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as house:
        found = await live(house)
        await _erased(house, found.id)
        manifest = await backed_up(house, tmp_path / "de.tar")
        assert (manifest["documents"], manifest["erased"]) == (0, 1)
        assert found.dek_id not in (tmp_path / "de.tar").read_bytes()


async def test_a_site_that_the_tags_do_not_permit_is_refused_before_a_byte_is_written(
    homes: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = homes
    file = tmp_path / "de.tar"
    async with ingesting(old) as house:
        await live(house, residency=frozenset({"DE"}))
        await backed_up(house, file)
    async with ingesting(same_keys(old, new)) as house:
        outcome = await restored(house, file, site="par")
        assert isinstance(outcome, Refusal) and outcome.ask.site == "par"
        assert _nothing(house) and house.files("par") == []
        with pytest.raises(BackupError, match="no vault"):
            await restored(house, file, site="nowhere")


def _nothing(house: Ingesting) -> bool:
    with house.database.reading() as connection:
        tables = [document, dek_wrapped, accounts.tenants]
        return not any(connection.execute(sa.select(table)).first() for table in tables)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda raw: raw[: len(raw) * 2 // 3],
    "empty": lambda _raw: b"",
    "a bit in its middle": lambda raw: _flipped(raw, len(raw) // 2),
    "a bit in its manifest": lambda raw: _flipped(raw, raw.index(b'"documents":') + 12),
    "a bit in its signature": lambda raw: _flipped(raw, raw.rindex("\u2014 ".encode()) + 40),
    "a member renamed": lambda raw: raw.replace(b"/file/", b"/fiIe/", 1),
}


def _flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


async def test_a_damaged_or_foreign_archive_is_refused_and_nothing_is_written(
    homes: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = homes
    file = tmp_path / "de.tar"
    async with ingesting(old) as house:
        await live(house)
        await backed_up(house, file)
    whole = file.read_bytes()
    async with ingesting(same_keys(old, new)) as house:
        for name, damage in DAMAGE.items():
            file.write_bytes(damage(whole))
            with pytest.raises(BackupError):
                await restored(house, file)
            assert _nothing(house) and house.files() == [], name
    file.write_bytes(whole)
    shutil.rmtree(new)
    same_keys(old, new)
    (new / "ledger.key").unlink()
    async with ingesting(new) as house:
        with pytest.raises(BackupError, match="not signed by a key that is trusted"):
            await restored(house, file)
        assert _nothing(house)


async def test_a_backup_that_breaks_off_leaves_no_file_and_overwrites_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "de.tar"
    async with ingesting(tmp_path) as house:
        await live(house)

        async def full(*_: Any) -> bytes:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(house.vaults["fra"], "read", full)
            with pytest.raises(OSError, match="space"):
                await backed_up(house, file)
        assert not [name for name in os.listdir(tmp_path) if "de.tar" in name]  # noqa: PTH208
        await backed_up(house, file)
        with pytest.raises(BackupError, match="there already"):
            await backed_up(house, file)
        with pytest.raises(BackupError, match="no site"):
            await Backup(database=house.database, **stores(house)).write("IT", ArchiveWriter(tmp_path / "it.tar"))


@pytest.mark.parametrize("at", ["file", "point", "row"])
async def test_a_restore_that_breaks_off_is_begun_again_and_completed(
    homes: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    old, new = homes
    file = tmp_path / "de.tar"
    async with ingesting(old, fleet=ONE) as house:
        kept = [await live(house, f"{n}.txt", BODY + bytes([65 + n])) for n in range(2)]
        await backed_up(house, file)
    same_keys(old, new)
    async with ingesting(new, fleet=ONE) as house:
        what = {"file": (house.vaults["fra"], "put"), "point": (house.shards["fra"], "put")}
        calls: list[int] = []

        def full(call: Callable[..., Any]) -> Callable[..., Any]:
            def within(*given: Any, **named: Any) -> Any:
                calls.append(1)
                if len(calls) == {"file": 4, "point": 2, "row": 2}[at]:  # the second document is under way
                    raise StorageFullError("fra has no room left", site="fra")
                return call(*given, **named)

            return within

        with monkeypatch.context() as patched:
            owner, name = what.get(at, (Restore, "_insert"))
            patched.setattr(owner, name, full(getattr(owner, name)))
            with pytest.raises(StorageFullError, match="no room left"):
                await restored(house, file)
        assert [each.state for each in house.documents.listing("northwind").items] == [State.LIVE]
    async with ingesting(new, fleet=ONE) as house:  # another process
        again = await restored(house, file)
        assert (again["there"], again["restored"], again["unopened"]) == (1, 1, 0)
        for each in kept:
            assert house.get(each.id).state is State.LIVE and await dek_of(house, house.get(each.id))
            assert len(await points_of(house, house.get(each.id))) == each.passages
            assert {name.rpartition(".")[2] for name in house.files() if name.startswith(each.id)} == {
                "original", "text",
            }  # fmt: skip


def _entries(house: Ingesting) -> list[dict[str, Any]]:
    return list(house.ledger.entries("northwind", *_EVER, ["admin"]))
