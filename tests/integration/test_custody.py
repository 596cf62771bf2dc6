"""Keys rolled, rewrapped and destroyed on the real parts: in the Ledger, in time, and resumable whatever goes wrong."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingestion.promises import Promises
from residency.errors import KeyringError
from residency.keyring import Keyring
from residency.keytables import dek, dek_wrapped, kek
from residency.outlets.keys.file import FileKeys
from residency.ports import KekRef
from residency.route import Route
from service.custody import Custody
from service.tending import Tending
from tests.doubles.ingesting import APP, Ingesting, ingesting
from tests.doubles.keys import CountingKeys
from tests.doubles.looking import dek_of, live

LONG_AGO, FAR_AHEAD = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
HORIZON = 30 * 86_400.0
DAY = 86_400.0


@dataclass
class Care:
    house: Ingesting
    custody: Custody
    tending: Tending
    keys: "Failing"

    def states(self) -> dict[int, str]:
        with self.house.database.reading() as connection:
            return {row.version: row.state for row in connection.execute(sa.select(kek).order_by(kek.c.version))}

    def pass_days(self, days: float) -> None:
        """Let time go by: what was written down moves into the past."""
        with self.house.database.transaction() as connection:
            for name in ("due", "created", "retired_at"):
                connection.execute(sa.update(kek).values({name: kek.c[name] - days * DAY}))

    def events(self, tenant: str = "northwind") -> list[dict[str, Any]]:
        self.house.ledger.sequence()
        found = self.house.ledger.entries(tenant, LONG_AGO, FAR_AHEAD, kinds=["key"])
        return [entry["facts"] | {"steps": entry["steps"], "subject": entry.get("subject")} for entry in found]


class Failing(CountingKeys):
    """A provider that fails at the call with this number, and from then on while `down`."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.fail_at: int | None = None
        self.garbage = False

    def _step(self) -> None:
        if self.fail_at is not None:
            self.fail_at -= 1
            if self.fail_at < 0:
                raise KeyringError("the token is not there")

    async def create(self, route: Route, kek: KekRef) -> None:
        self._step()
        await super().create(route, kek)

    async def wrap(self, route: Route, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        self._step()
        return await super().wrap(route, kek, items)

    async def unwrap(self, route: Route, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        self._step()
        opened = await super().unwrap(route, kek, items)
        return [bytes(32)] * len(opened) if self.garbage else opened

    async def destroy(self, route: Route, kek: KekRef) -> None:
        self._step()
        await super().destroy(route, kek)


def care_of(house: Ingesting, keys: Failing) -> Care:
    providers = {site: FileKeys(house.folder / site / "keys", site=site) for site in house.engine.fleet.sites}
    keyring = Keyring(house.database, providers | {"fra": keys}, mac_key=b"m" * 32, horizon=HORIZON)
    common: dict[str, Any] = {"keyring": keyring, "database": house.database}
    custody = Custody(engine=house.engine, ledger=house.ledger, steward="northwind", **common)
    promises = Promises(house.database, house.ledger)
    return Care(house, custody, Tending(custody=custody, promises=promises, horizon=HORIZON, **common), keys)


@pytest.fixture
async def care(tmp_path: Path) -> AsyncIterator[Care]:
    async with ingesting(tmp_path) as house:
        yield care_of(house, Failing(FileKeys(tmp_path / "fra" / "keys", site="fra")))


async def erased(house: Ingesting, found: Any) -> dict[str, Any]:
    await house.erasure.erase(APP, found.id)
    await house.worker.drain()
    return await house.erasure.certificate("northwind", found.id)


async def test_everything_done_to_a_kek_is_in_the_ledger(care: Care) -> None:
    kept = await live(care.house)
    assert await care.custody.rotate("northwind", "DE") == [{"site": "fra", "version": 2}]
    told: list[tuple[int, int]] = []
    done = await care.custody.rewrap("northwind", "DE", progress=lambda n, of: told.append((n, of)))
    assert (done["left"], done["refused"]) == (0, 0) and done["moved"] == told[-1][0] == told[-1][1] == 4
    with pytest.raises(KeyringError, match="is kept until"):
        await care.custody.destroy("northwind", "DE", 1)
    assert await care.custody.destroy("northwind", "DE") == []
    care.pass_days(29.9)
    assert await care.custody.destroy("northwind", "DE") == []
    care.pass_days(0.2)
    assert await care.custody.destroy("northwind", "DE") == [{"site": "fra", "version": 1}]
    assert care.states() == {1: "destroyed", 2: "active"}
    assert await care.custody.roll("fra") == {"keks": 1, "passphrase": False}
    events = care.events()
    assert [event["event"] for event in events] == ["rotate", "rewrap", "destroy", "root"]
    assert [event.get("version") for event in events] == [2, 1, 1, None]
    assert {step["action"] for event in events[:3] for step in event["steps"]} == {"store", "open", "erase"}
    assert events[1]["moved"] == 4
    await dek_of(care.house, kept)
    for version, message in ((1, "no living version"), (2, "is active"), (7, "no living version")):
        with pytest.raises(KeyringError, match=message):
            await care.custody.destroy("northwind", "DE", version)
    with pytest.raises(KeyringError, match="has no key for FR"):
        await care.custody.rotate("northwind", "FR")


async def test_an_erasures_promise_is_kept_and_its_certificate_completed(care: Care) -> None:
    kept, gone = (
        await live(care.house, "kept.txt"),
        await live(care.house, "gone.txt", b"Another text altogether. " * 30),
    )
    with care.house.database.reading() as connection:
        copy = connection.execute(sa.select(dek_wrapped.c.wrapped).where(dek_wrapped.c.dek_id == gone.dek_id)).scalar()
    certificate = await erased(care.house, gone)
    assert "completions" not in certificate
    # 1. Soon after: nothing yet, since the erasures of a day share one roll.
    assert not any((await care.tending.once()).values())
    # 2. A day later the KEK is rolled and what is left moves; the old one waits for its term.
    care.pass_days(1.1)
    done = await care.tending.once()
    assert (done["rolled"], done["rewrapped"], done["destroyed"], done["failed"]) == (1, 1, 0, 0)
    assert care.states() == {1: "retired", 2: "active"}
    # 3. In time, and not a day after the certificate's own date.
    care.pass_days(28.0)
    assert (await care.tending.once())["destroyed"] == 0
    care.pass_days(1.0)
    done = await care.tending.once()
    assert (done["destroyed"], done["rooted"], done["completed"], done["failed"]) == (1, 1, 1, 0)
    later = await care.house.erasure.certificate("northwind", gone.id)
    assert later.items() >= certificate.items()  # what it said stays as it was
    [completion] = later["completions"]
    assert completion["where"] == "backups" and completion["keks"][0]["version"] == 1
    horizon = [event for event in care.events() if event["event"] == "horizon"]
    assert [(event["subject"], event["completes"]) for event in horizon] == [(gone.id, certificate["receipt"])]
    bundle = care.house.ledger.bundle("northwind", completion["receipt"])
    assert bundle is not None and bundle["receipt"]["kind"] == "key"
    # 4. An old backup's wrapped key opens no more; what was kept does.
    with care.house.database.transaction() as connection:
        connection.execute(sa.insert(dek_wrapped).values(dek_id=gone.dek_id, wrapped=copy))
        connection.execute(sa.update(dek).where(dek.c.id == gone.dek_id).values(state="active"))
    with pytest.raises(KeyringError):
        await dek_of(care.house, gone)
    await dek_of(care.house, kept)
    # 5. Again is nothing.
    assert not any((await care.tending.once()).values())


async def test_a_key_moved_before_its_document_was_erased_holds_the_older_version_to_the_same_term(care: Care) -> None:
    await live(care.house, "kept.txt")
    gone = await live(care.house, "gone.txt", b"Another text altogether. " * 30)
    await care.custody.rotate("northwind", "DE")
    await care.custody.rewrap("northwind", "DE")
    await erased(care.house, gone)
    with care.house.database.reading() as connection:
        rows = {row.version: row for row in connection.execute(sa.select(kek))}
    assert rows[1].due <= rows[2].due
    care.pass_days(1.1)
    await care.tending.once()
    care.pass_days(27)
    assert (await care.tending.once())["completed"] == 0
    care.pass_days(2)
    done = await care.tending.once()
    assert (done["destroyed"], done["completed"]) == (2, 1)
    assert care.states() == {1: "destroyed", 2: "destroyed", 3: "active"}


async def test_a_failure_at_every_call_of_the_provider_is_made_up_for(care: Care) -> None:
    kept = await live(care.house, "kept.txt")
    gone = await live(care.house, "gone.txt", b"Another text altogether. " * 30)
    await erased(care.house, gone)
    care.pass_days(31)
    failures = 0
    for at in range(20):
        care.keys.fail_at = at
        done = await care.tending.once()
        failures += done["failed"]
        care.keys.fail_at = None
        await dek_of(care.house, kept)
        if "destroyed" in care.states().values():
            break
    assert failures >= 3
    care.pass_days(31)
    await care.tending.once()
    assert "retiring" not in care.states().values()
    assert (await care.house.erasure.certificate("northwind", gone.id))["completions"]
    await dek_of(care.house, kept)


@pytest.mark.parametrize("step", ["succeed", "rewrapped", "retire", "destroyed"])
@pytest.mark.parametrize("after", [False, True])
async def test_a_death_around_every_commit_is_made_up_for(
    care: Care, step: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await live(care.house, "kept.txt")
    gone = await live(care.house, "gone.txt", b"Another text altogether. " * 30)
    await erased(care.house, gone)
    care.pass_days(31)

    class DeathError(BaseException):
        """What no handler catches, as a kill."""

    real = getattr(care.tending._keyring._keks._store, step)

    def dies(*given: Any) -> Any:
        if after:
            real(*given)
        raise DeathError

    monkeypatch.setattr(care.tending._keyring._keks._store, step, dies)
    with pytest.raises(DeathError):
        await care.tending.once()
    again = care_of(care.house, care.keys)
    await dek_of(care.house, kept)
    for _ in range(2):
        done = await again.tending.once()
        assert done["failed"] == 0
    assert again.states()[1] == "destroyed" and "retiring" not in again.states().values()
    assert (await again.house.erasure.certificate("northwind", gone.id))["completions"]
    await dek_of(care.house, kept)


async def test_a_provider_that_gives_other_keys_moves_nothing(care: Care) -> None:
    kept = await live(care.house)
    await care.custody.rotate("northwind", "DE")
    care.keys.garbage = True
    assert (await care.custody.rewrap("northwind", "DE"))["moved"] == 0
    care.keys.garbage = False
    assert (await care.custody.rewrap("northwind", "DE")) == {"moved": 4, "refused": 0, "left": 0}
    await dek_of(care.house, kept)


async def test_a_wrapped_key_replayed_under_another_document_opens_for_neither(care: Care) -> None:
    first, second = await live(care.house, "a.txt"), await live(care.house, "b.txt", b"Another text altogether. " * 30)
    with care.house.database.transaction() as connection:
        wrapped = connection.execute(
            sa.select(dek_wrapped.c.wrapped).where(dek_wrapped.c.dek_id == first.dek_id)
        ).scalar()
        connection.execute(sa.update(dek_wrapped).where(dek_wrapped.c.dek_id == second.dek_id).values(wrapped=wrapped))
    care.house.keyring.empty()
    with pytest.raises(KeyringError):
        await dek_of(care.house, second)
    await dek_of(care.house, first)
    # Nor does the row as a whole, with its commitment, under the other's id.
    await care.custody.rotate("northwind", "DE")
    done = await care.custody.rewrap("northwind", "DE")
    assert (done["refused"], done["left"]) == (1, 1)
    assert care.states()[1] == "retiring"  # and is not destroyed while something is left


async def test_what_one_tenant_or_jurisdiction_wrapped_opens_for_no_other(care: Care) -> None:
    german = await live(care.house, "a.txt")
    both = await live(care.house, "b.txt", b"Another text altogether. " * 30, jurisdictions=frozenset({"DE", "FR"}))
    with care.house.database.transaction() as connection:
        row = connection.execute(sa.select(dek).where(dek.c.id == german.dek_id)).one()
        wrapped = connection.execute(
            sa.select(dek_wrapped.c.wrapped).where(dek_wrapped.c.dek_id == german.dek_id)
        ).scalar()
        connection.execute(sa.update(dek_wrapped).where(dek_wrapped.c.dek_id == both.dek_id).values(wrapped=wrapped))
        moved = {"kek_id": row.kek_id, "kek_version": row.kek_version, "commitment": row.commitment}
        connection.execute(sa.update(dek).where(dek.c.id == both.dek_id).values(moved))
    care.house.keyring.empty()
    with pytest.raises(KeyringError):
        await dek_of(care.house, both)
    for change in (
        {"jurisdiction": "FR"},
        {"tenant": "southwind"},
        {"subject_version": 9},
        {"purpose": "conversation"},
    ):
        with care.house.database.transaction() as connection:
            connection.execute(sa.update(dek).where(dek.c.id == german.dek_id).values(change))
        care.house.keyring.empty()
        with pytest.raises(KeyringError):
            await dek_of(care.house, german)


async def test_two_that_tend_at_once_do_no_harm(care: Care) -> None:
    kept = await live(care.house, "kept.txt")
    await erased(care.house, await live(care.house, "gone.txt", b"Another text altogether. " * 30))
    care.pass_days(31)
    other = care_of(care.house, care.keys)
    await asyncio.gather(care.tending.once(), other.tending.once())
    care.pass_days(31)
    await asyncio.gather(care.tending.once(), other.tending.once())
    await care.tending.once()
    assert list(care.states().values()).count("active") == 1 and "retiring" not in care.states().values()
    assert len([event for event in care.events() if event["event"] == "horizon"]) == 1
    await dek_of(care.house, kept)
    assert timedelta(seconds=HORIZON) == care.house.erasure.horizon
