"""Callers at the same time share one commit; each hears of its own entry only, and only once it is durable."""

import asyncio
from contextvars import ContextVar

import sqlalchemy as sa
from sqlalchemy import event

from residency import leaves as rows
from residency.appending import MOST, Writer
from residency.errors import LedgerError
from residency.receipt import Draft
from tests.integration.test_ledger import ALWAYS, DIGESTS, Clock, draft, opened
from tests.integration.test_ledger import database as database  # noqa: PLC0414 - the fixture, on both databases

STORY: ContextVar[str] = ContextVar("story", default="")


def commits(database):
    """Count commits from now on."""
    found = []
    event.listen(database.engine, "commit", found.append)
    return found


def committed(database):
    """Read what another connection sees."""
    with database.reading() as connection:
        return set(connection.execute(sa.select(rows.leaves.c.id)).scalars())


async def test_callers_at_the_same_time_share_commits_and_leave_no_gap(database):
    ledger = opened(database)
    counted = commits(database)
    tenants = ("northwind", "harbour")

    async def one(number):
        stored = await ledger.record(draft(tenants[number % 2]))
        assert stored.id in await asyncio.to_thread(committed, database), "answered before it was durable"
        return stored

    found = await asyncio.gather(*(one(number) for number in range(60)))
    assert len(counted) <= 10, "sixty callers wait for a few commits"
    for tenant in tenants:
        assert [each["seq"] for each in ledger.entries(tenant, *ALWAYS)] == list(range(1, 31))
    assert len({each.id for each in found}) == 60


async def test_one_caller_alone_has_a_commit_of_its_own(database):
    ledger = opened(database)
    counted = commits(database)
    for _ in range(3):
        await ledger.record(draft())
    assert len(counted) == 3


async def test_more_callers_than_a_transaction_holds_are_all_written(database):
    ledger = opened(database)
    found = await asyncio.gather(*(ledger.record(draft()) for _ in range(MOST + 20)))
    assert sorted(each.seq for each in found) == list(range(1, MOST + 21))
    assert ledger.sequence() == MOST + 20


async def test_a_draft_that_cannot_be_recorded_fails_for_its_caller_alone(database):
    ledger = opened(database)
    await ledger.record(draft())
    calls = [ledger.record(draft(facts={"ratio": 0.5}) if n in (0, 7) else draft()) for n in range(12)]
    calls.append(ledger.record(draft("harbour", facts={"ratio": 0.5})))
    found = await asyncio.gather(*calls, return_exceptions=True)
    broken = [number for number, each in enumerate(found) if isinstance(each, LedgerError)]
    assert broken == [0, 7, 12]
    assert [each["seq"] for each in ledger.entries("northwind", *ALWAYS)] == list(range(1, 12))
    assert (await ledger.record(draft("harbour"))).seq == 1
    assert ledger.sequence() == 12


async def test_a_database_that_fails_fails_every_caller_and_keeps_nothing(database, monkeypatch):
    ledger = opened(database)
    put = rows.put

    def full(connection, made):
        put(connection, made)
        raise sa.exc.OperationalError("insert", {}, Exception("disk is full"))

    monkeypatch.setattr(rows, "put", full)
    found = await asyncio.gather(*(ledger.record(draft()) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(each, LedgerError) for each in found)
    monkeypatch.undo()
    assert committed(database) == set()
    assert (await ledger.record(draft())).seq == 1


async def test_a_caller_that_goes_away_takes_nobody_along(database):
    ledger = opened(database)
    tasks = [asyncio.create_task(ledger.record(draft())) for _ in range(6)]
    await asyncio.sleep(0)  # all are waiting now
    for task in tasks[:3]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in found] == [True] * 3 + [False] * 3
    assert [each["seq"] for each in ledger.entries("northwind", *ALWAYS)] == [1, 2, 3, 4, 5, 6], "what came is recorded"


async def test_each_receipt_names_the_rules_of_its_own_story(database):
    ledger = opened(database, digests=lambda: {**DIGESTS, "policy": STORY.get()})

    async def story(name):
        STORY.set(name)
        return name, await ledger.record(Draft("answer", "northwind", "support"))

    found = await asyncio.gather(*(asyncio.create_task(story(f"sha256:{number:02}")) for number in range(9)))
    judged = {each["id"]: each["policy"] for each in ledger.entries("northwind", *ALWAYS)}
    assert {stored.id: name for name, stored in found} == judged


async def test_a_clock_set_back_stops_the_tenants_that_it_concerns(database):
    clock = Clock()
    ledger = opened(database, clock=clock)
    await ledger.record(draft())
    clock.now = clock.now.replace(year=2020)
    found = await asyncio.gather(ledger.record(draft()), ledger.record(draft("harbour")), return_exceptions=True)
    assert isinstance(found[0], LedgerError) and "clock is behind" in str(found[0])
    assert found[1].seq == 1


def test_the_ledger_works_on_one_event_loop_after_another(database):
    ledger = opened(database)
    assert [asyncio.run(ledger.record(draft())).seq for _ in range(3)] == [1, 2, 3]


async def test_the_twin_that_answers_before_the_commit_is_found(database, monkeypatch):
    ledger = opened(database)
    said = []
    write = Writer.write

    def hasty(self, connection, entries):
        stored = write(self, connection, entries)
        said.extend(each.id in committed(database) for each in stored)
        return stored

    monkeypatch.setattr(Writer, "write", hasty)
    await ledger.record(draft())
    assert said == [False], "inside the transaction nobody else sees the row, so the test above can fail"
