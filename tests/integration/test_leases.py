"""Leases on SQLite and PostgreSQL: who works on which Document, where, and for how long."""

import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from ingestion import collections
from ingestion.errors import LeaseLostError
from ingestion.leases import Lease, Leases
from ingestion.rows import document
from ingestion.states import State
from residency.database import Database
from residency.engine import Engine
from residency.tag import Tag
from tests.doubles.ingesting import engine_over

EUROPEAN = Tag(frozenset({"DE"}), frozenset({"EU"}))
FRENCH = Tag(frozenset({"FR"}), frozenset({"FR"}))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return engine_over()


@pytest.fixture
def leases(database: Database, engine: Engine) -> Iterator[Leases]:
    made = Leases(database, engine, name="worker-1", seconds=5.0)
    yield made
    made.close()


def add(database: Database, *, tenant: str = "northwind", tag: Tag = EUROPEAN, site: str = "fra", **values: Any) -> str:
    """Enter a row as intake would leave it."""
    identifier = secrets.token_hex(16)
    with database.transaction() as connection:
        clock = database.clock()
        held = collections.ensure(connection, tenant, values.pop("collection", "default"), clock)
        collections.turn(connection, tenant)
        row: dict[str, Any] = {
            "id": identifier, "version": 1, "tenant_id": tenant, "collection_id": held.id, "jurisdiction": tag.origin,
            "tag": json.dumps(tag.facts()), "tag_digest": tag.digest.hex(),
            "tag_class": collections.number(connection, tenant, tag), "groups": "[]", "site_id": site,
            "state": State.SEALED, "cause": "", "media_type": "", "language": "und", "languages": "{}", "receipt": "",
            "created": clock, "updated": clock,
        }  # fmt: skip
        for column in document.columns:
            if column.name not in row and not column.nullable:
                row[column.name] = b"" if isinstance(column.type, sa.LargeBinary) else 0
        connection.execute(sa.insert(document).values(row | values))
    return identifier


def row_of(database: Database, identifier: str) -> Any:
    with database.reading() as connection:
        return connection.execute(sa.select(document).where(document.c.id == identifier)).one()


def expire(database: Database, lease: Lease) -> None:
    with database.transaction() as connection:
        connection.execute(
            sa.update(document).where(document.c.id == lease.row["id"]).values(lease_until=database.clock() - 1)
        )


def must_take(leases: Leases, site: str = "fra") -> Lease:
    lease = leases.take(site)
    assert lease is not None
    return lease


def test_a_ready_document_is_taken_once(database: Database, leases: Leases) -> None:
    identifier = add(database)
    lease = must_take(leases)
    assert lease.row["id"] == identifier and lease.epoch == 1 and lease.row["attempts"] == 1
    assert leases.take("fra") is None


def test_a_lease_lasts_by_the_databases_clock(database: Database, leases: Leases) -> None:
    identifier = add(database)
    must_take(leases)
    with database.reading() as connection:
        now = connection.execute(sa.select(database.clock())).scalar_one()
    assert abs(now - time.time()) < 60
    assert 0 < row_of(database, identifier).lease_until - now <= 5.0


def test_a_row_of_another_site_is_not_taken(database: Database, leases: Leases) -> None:
    add(database, site="par")
    assert leases.take("fra") is None
    assert must_take(leases, "par").row["site_id"] == "par"


def test_a_tag_that_may_not_be_opened_at_the_workers_site_is_not_taken(database: Database, leases: Leases) -> None:
    add(database, tag=FRENCH, site="fra")
    assert leases.take("fra") is None


def test_a_tag_that_came_in_a_moment_ago_is_taken(database: Database, leases: Leases) -> None:
    assert leases.take("fra") is None  # the permitted Tags were looked up before there was one
    add(database)
    must_take(leases)


def test_erasing_needs_no_permission_to_open(database: Database, leases: Leases) -> None:
    identifier = add(database, tag=FRENCH, site="fra", state=State.ERASING)
    assert must_take(leases).row["id"] == identifier


def test_a_tenant_that_is_not_known_here_is_left_alone(database: Database, leases: Leases) -> None:
    add(database, tenant="stranger")
    assert leases.take("fra") is None


@pytest.mark.parametrize(
    "state", [State.RECEIVING, State.LIVE, State.QUARANTINED, State.FAILED, State.ARCHIVED, State.ERASED]
)
def test_a_document_at_rest_is_not_taken(database: Database, leases: Leases, state: State) -> None:
    add(database, state=state)
    assert leases.take("fra") is None


def test_a_lease_that_ran_out_is_taken_over_and_the_first_worker_can_write_nothing(
    database: Database, engine: Engine, leases: Leases
) -> None:
    identifier = add(database)
    first = must_take(leases)
    expire(database, first)
    other = Leases(database, engine, name="worker-2", seconds=5.0)
    second = must_take(other)
    assert second.epoch == 2 and second.row["attempts"] == 2
    with pytest.raises(LeaseLostError):
        leases.move(first, State.PARSED)
    with pytest.raises(LeaseLostError):
        leases.release(first)
    assert not leases.keep(first) and first.lost
    other.move(second, State.PARSED, pages=3)
    other.close()
    row = row_of(database, identifier)
    assert (row.state, row.pages, row.attempts, row.lease_owner) == (State.PARSED, 3, 0, "worker-2")


def test_a_write_against_another_state_is_refused(database: Database, leases: Leases) -> None:
    lease = must_take(leases) if add(database) else None
    assert lease is not None
    with database.transaction() as connection:
        connection.execute(sa.update(document).values(state=State.ERASING))
    with pytest.raises(LeaseLostError):
        leases.move(lease, State.PARSED)


def test_the_heartbeat_keeps_a_lease(database: Database, engine: Engine) -> None:
    leases = Leases(database, engine, name="worker-1", seconds=0.6)
    try:
        identifier = add(database)
        lease = must_take(leases)
        before = row_of(database, identifier).lease_until
        for _ in range(100):
            time.sleep(0.02)
            if row_of(database, identifier).lease_until > before:
                break
        assert row_of(database, identifier).lease_until > before and lease.left() > 0
    finally:
        leases.close()


def test_the_heartbeat_notices_a_lost_lease(database: Database, leases: Leases) -> None:
    add(database)
    lease = must_take(leases)
    with database.transaction() as connection:
        connection.execute(sa.update(document).values(lease_epoch=document.c.lease_epoch + 1))
    assert not leases.keep(lease)
    with pytest.raises(LeaseLostError):
        lease.check()
    assert leases.held() == 0


def test_waiting_for_a_site_counts_no_attempt_and_names_the_cause(database: Database, leases: Leases) -> None:
    identifier = add(database)
    pauses = []
    for _ in range(6):
        pauses.append(leases.release(must_take(leases), cause="site_unavailable"))
        row = row_of(database, identifier)
        assert (row.attempts, row.cause, row.lease_owner) == (0, "site_unavailable", None)
        assert leases.take("fra") is None  # not before its time
        with database.transaction() as connection:
            connection.execute(sa.update(document).values(not_before=0))
    assert pauses[0] < 1.5 and pauses[-1] > 20 and row_of(database, identifier).retries == 6


def test_a_step_that_broke_counts_its_attempt(database: Database, leases: Leases) -> None:
    identifier = add(database)
    leases.give_up(must_take(leases))
    row = row_of(database, identifier)
    assert (row.attempts, row.cause, row.lease_until) == (1, "internal", None)


def test_a_paused_collection_is_not_worked_on(database: Database, leases: Leases) -> None:
    add(database, collection="contracts")
    with database.transaction() as connection:
        connection.execute(sa.update(collections.collection).values(paused=True))
    assert leases.take("fra") is None


def test_the_tenant_whose_work_cost_least_is_served_first(database: Database, leases: Leases) -> None:
    for _ in range(6):
        add(database)
    for _ in range(2):
        add(database, tenant="southwind")
    served = []
    for _ in range(4):
        lease = must_take(leases)
        served.append(lease.row["tenant_id"])
        lease.started -= 1.0  # a second of work
        leases.release(lease, wait=False)
        with database.transaction() as connection:
            connection.execute(sa.update(document).where(document.c.id == lease.row["id"]).values(state=State.LIVE))
    assert Counter(served) == {"northwind": 2, "southwind": 2}


def test_a_lease_without_an_end_cannot_be_stored(database: Database) -> None:
    identifier = add(database)
    with pytest.raises(sa.exc.IntegrityError), database.transaction() as connection:
        connection.execute(sa.update(document).where(document.c.id == identifier).values(lease_owner="nobody"))


def test_four_workers_take_every_document_exactly_once(database: Database, engine: Engine) -> None:
    wanted = {add(database, tenant=tenant) for tenant in ("northwind", "southwind") for _ in range(20)}
    taken: list[str] = []
    workers = [Leases(database, engine, name=f"worker-{n}", seconds=30.0) for n in range(4)]

    def work(leases: Leases) -> None:
        while (lease := leases.take("fra")) is not None:
            taken.append(lease.row["id"])
            leases.move(lease, State.LIVE, release=True)

    threads = [threading.Thread(target=work, args=(leases,)) for leases in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for leases in workers:
        leases.close()
    assert len(taken) == len(wanted) and set(taken) == wanted
