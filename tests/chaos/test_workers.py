"""Real `domicile work` processes on PostgreSQL: in their own Zone, killed, stopped past a lease, cut off from it."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestion.states import State
from tests.doubles.crew import LEASE, Crew, crew

pytestmark = [pytest.mark.chaos, pytest.mark.enable_socket]

TEXTS = {
    "DE": "Die Kündigungsfrist beträgt {n} Wochen zum Quartalsende. Sie gilt für beide Seiten.\n",
    "FR": "Le préavis est de {n} semaines à la fin du trimestre. Il vaut pour les deux parties.\n",
}


@pytest.fixture
def staff(tmp_path: Path, postgres_url: str, onnx_model: Path) -> Iterator[Crew]:
    with crew(tmp_path, onnx_model, postgres_url) as made:
        yield made


async def fill(staff: Crew, law: str, count: int, start: int = 0) -> set[str]:
    async with staff.intake() as intake:
        return {
            await staff.take(intake, f"{law}-{n}.txt", TEXTS[law].format(n=n).encode(), law)
            for n in range(start, start + count)
        }


async def whole(staff: Crew, site: str, ids: set[str]) -> None:
    """Every document once, complete, with its entries; no point beside them."""
    rows = staff.rows()
    wanted = sorted((name, number) for name in ids for number in range(rows[name].passages_total))
    assert staff.points(site) == wanted
    stages = Counter(await staff.stages())
    assert stages == {"live": len(rows), "sealed": len(rows)}


async def test_a_worker_in_france_never_takes_what_only_germany_may_hold(staff: Crew) -> None:
    german, french = await fill(staff, "DE", 3), await fill(staff, "FR", 3)
    with staff.worker("--zone", "FR"):
        staff.until(lambda rows: all(rows[each].state == State.LIVE for each in french))
        await asyncio.sleep(2 * LEASE)  # nothing is left that it may take, and it looks
        untouched = {(staff.rows()[each].state, staff.rows()[each].lease_epoch) for each in german}
        assert untouched == {(State.SEALED, 0)}
        assert staff.points("fra") == []
        with staff.worker("--zone", "DE"):  # a second process beside it
            staff.until(lambda rows: all(rows[each].state == State.LIVE for each in german))
    await whole(staff, "fra", german)
    await whole(staff, "par", french)


async def test_a_worker_stopped_past_its_lease_comes_back_and_changes_nothing(staff: Crew) -> None:
    ids = await fill(staff, "DE", 1)
    (identifier,) = ids
    with staff.worker("--zone", "DE", stop_at="block-put") as stopped:
        staff.until(lambda rows: rows[identifier].state == State.EMBEDDED)
        await asyncio.sleep(1.5 * LEASE)
        with staff.worker("--zone", "DE"):  # another goes on
            staff.until(lambda rows: rows[identifier].state == State.LIVE)
            before = staff.rows()[identifier]
            stopped.send_signal(signal.SIGCONT)
            await asyncio.sleep(3 * LEASE)
            assert stopped.poll() is None and staff.rows()[identifier] == before
    await whole(staff, "fra", ids)


async def test_workers_killed_while_the_database_comes_and_goes_lose_and_double_nothing(staff: Crew) -> None:
    ids = await fill(staff, "DE", 6)
    for _ in range(3):
        with staff.worker("--zone", "DE") as killed, staff.worker("--zone", "DE"):
            now = sum(row.state == State.LIVE for row in staff.rows().values())
            staff.until(lambda rows, now=now: sum(row.state == State.LIVE for row in rows.values()) > now)
            killed.kill()
            staff.hang_up()  # every connection of every process breaks in mid-step
            await asyncio.sleep(0.5)
        if all(row.state == State.LIVE for row in staff.rows().values()):
            break
    with staff.worker("--zone", "DE"):
        staff.until(lambda rows: all(row.state == State.LIVE for row in rows.values()))
    await whole(staff, "fra", ids)
