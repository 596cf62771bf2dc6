"""Leases: who works on which Document, and for how long; residency is part of the take itself.

Rules kept here: a worker stands at a Site and takes only rows that lie there, and, but for erasing, only Tags that the
engine permits it to open there; only the database's clock counts; every later write carries the fence (`lease_epoch`)
and touches one row or raises `LeaseLostError`; there is no reaper, the take finds leases that ran out; no transaction
spans a step. The tenant whose work has cost least is served first.
"""

import logging
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from ingestion import collections
from ingestion.errors import LeaseLostError
from ingestion.rows import document
from ingestion.states import READY, State
from residency.database import Database
from residency.decision import Ask, Permit, Principal
from residency.engine import Engine
from residency.errors import PolicyError, ZoneError
from residency.route import Action

log = logging.getLogger(__name__)

ACTIVITY: Final = "indexing"
"""The Art. 30 activity under which workers handle data."""
SECONDS: Final = 15.0
"""How long a lease lasts without a heartbeat."""
ATTEMPTS: Final = 3
"""Takes without progress, before a Document counts as poison."""
LONGEST_WAIT: Final = 300.0
"""Cap of the backoff while a Site, key provider or the Ledger is down, in seconds."""

_TAKE = """
UPDATE document SET lease_owner = :me, lease_epoch = lease_epoch + 1, attempts = attempts + 1,
       lease_until = {clock} + :seconds
WHERE {where} RETURNING *
"""
_READY_AT_SITE = """
d.tenant_id = t.tenant_id AND d.state IN ({states}) AND d.site_id = :site
AND (d.state IN ('erasing', 'replaced') OR d.tag_digest IN :permitted) AND d.not_before <= {clock}
AND (d.lease_until IS NULL OR d.lease_until < {clock})
AND (d.state = 'erasing' OR NOT t.paused AND d.collection_id NOT IN (SELECT id FROM collection WHERE paused))
ORDER BY d.not_before LIMIT 1
"""
# The inner SELECT hangs on the tenant, so each tenant costs one look into the index, however long its queue is.
_SQLITE = """
rowid = (SELECT p.pick FROM (SELECT t.spent_ms AS spent, (SELECT d.rowid FROM document d WHERE {ready}) AS pick
         FROM tenant_turn t) p WHERE p.pick IS NOT NULL ORDER BY p.spent LIMIT 1)
"""
_POSTGRESQL = """
(id, version) IN (SELECT id, version FROM pick)
"""
_PICK = """
WITH pick AS MATERIALIZED (
  SELECT d.id, d.version FROM (SELECT tenant_id, paused FROM tenant_turn ORDER BY spent_ms) t
  CROSS JOIN LATERAL (SELECT d.id, d.version FROM document d WHERE {ready} FOR UPDATE SKIP LOCKED) d LIMIT 1)
"""


@dataclass(slots=True)
class Lease:
    """A Document version held by this worker. `row` is as it was taken, and is kept in step by `move`."""

    row: Any
    epoch: int
    until: float
    """On this process's monotonic clock; the database's own is what counts."""
    started: float = field(default_factory=time.monotonic)
    lost: bool = False

    @property
    def key(self) -> tuple[str, int]:
        """Document id and version."""
        return self.row["id"], self.row["version"]

    def left(self) -> float:
        """Seconds that are surely left."""
        return 0.0 if self.lost else self.until - time.monotonic()

    def check(self) -> None:
        """Raise `LeaseLostError` when another worker may have it by now."""
        if self.left() <= 0:
            raise LeaseLostError("the lease on a document ran out", hint="another worker goes on with it")


def worker_principal(site: str, tenant: str) -> Principal:
    """Give the Principal as which a worker at a Site handles a tenant's data."""
    return Principal(id=f"worker:{site}", tenant=tenant, activities=frozenset({ACTIVITY}))


class Leases:
    """Takes, keeps and gives back leases for one worker process. `name` must be its own."""

    def __init__(self, database: Database, engine: Engine, *, name: str, seconds: float = SECONDS) -> None:
        self.database = database
        self.engine = engine
        self.name = name
        self.seconds = seconds
        self._held: dict[tuple[str, int], Lease] = {}
        self._lock = threading.Lock()
        self._permitted: dict[str, tuple[float, list[str]]] = {}
        self._stop = threading.Event()
        self._heart: threading.Thread | None = None
        self._take = self._statement()

    def _statement(self) -> sa.TextualSelect:
        sqlite = self.database.sqlite
        clock = str(self.database.clock())
        ready = _READY_AT_SITE.format(states=", ".join(f"'{state}'" for state in READY), clock=clock)
        where = _SQLITE.format(ready=ready) if sqlite else _POSTGRESQL
        take = ("" if sqlite else _PICK.format(ready=ready)) + _TAKE.format(clock=clock, where=where)
        # Colons of PostgreSQL's casts are no parameters.
        text = sa.text(take.replace("::", r"\:\:"))
        return text.bindparams(sa.bindparam("permitted", type_=sa.String, expanding=True)).columns(*document.columns)

    def permitted(self, site: str) -> list[str]:
        """Give the Tag digests (hex) that the engine permits this worker to open at `site`; looked up once a second."""
        known = self._permitted.get(site)
        if known and known[0] > time.monotonic():
            return known[1]
        with self.database.reading() as connection:
            tags = collections.tags(connection)
        allowed = set()
        for (tenant, _), tag in tags.items():
            ask = Ask(worker_principal(site, tenant), Action.OPEN, site, (tag,), activity=ACTIVITY)
            try:
                if isinstance(self.engine.decide(ask), Permit):
                    allowed.add(tag.digest.hex())
            except (PolicyError, ZoneError):
                continue  # a tenant or Zone unknown here: not ours to take
        self._permitted[site] = (time.monotonic() + 1.0, sorted(allowed))
        return self._permitted[site][1]

    def take(self, site: str) -> Lease | None:
        """Take the next Document version that may be worked on at `site`, if there is one."""
        values = {"me": self.name, "seconds": self.seconds, "site": site, "permitted": self.permitted(site)}
        asked = time.monotonic()
        with self.database.transaction() as connection:
            row = connection.execute(self._take, values).mappings().first()
        if row is None:
            self._permitted.pop(site, None)  # a Tag may have come in since
            return None
        lease = Lease(dict(row), row["lease_epoch"], asked + self.seconds)
        with self._lock:
            self._held[lease.key] = lease
            self._beat_from_now_on()
        return lease

    def take_along(self, lease: Lease, most: int) -> list[Lease]:
        """Take up to `most` more Documents of the same tenant and Site that wait to be erased."""
        c, clock, asked = document.c, self.database.clock(), time.monotonic()
        free = sa.or_(c.lease_until.is_(None), c.lease_until < clock)
        waiting = (c.tenant_id == lease.row["tenant_id"], c.state == State.ERASING, c.site_id == lease.row["site_id"])
        query = sa.select(c.id, c.version).where(*waiting, c.not_before <= clock, free).order_by(c.not_before)
        taken = {"lease_owner": self.name, "lease_epoch": c.lease_epoch + 1, "attempts": c.attempts + 1}
        with self.database.transaction() as connection:
            found = connection.execute(query.limit(most).with_for_update(skip_locked=True)).all()
            rows = [
                connection.execute(
                    sa.update(document)
                    .where(c.id == each.id, c.version == each.version)
                    .values(taken | {"lease_until": clock + self.seconds})
                    .returning(*c)
                ).mappings().one()
                for each in found
            ]  # fmt: skip
        more = [Lease(dict(row), row["lease_epoch"], asked + self.seconds) for row in rows]
        with self._lock:
            self._held |= {each.key: each for each in more}
        return more

    def move(
        self,
        lease: Lease,
        to: State,
        *,
        connection: sa.Connection | None = None,
        release: bool = False,
        **values: Any,
    ) -> None:
        """Write a step's result: state, counters, fence. Raises `LeaseLostError` when the row is another's by now.

        Attempts start again at 0, since this is progress. `release` gives the lease back in the same write.
        """
        done: dict[str, Any] = {"state": to, "state_seq": document.c.state_seq + 1, "attempts": 0, "retries": 0}
        self._write(lease, {"cause": ""} | values | done, connection, release=release)
        lease.row |= values | {"state": str(to), "state_seq": lease.row["state_seq"] + 1, "attempts": 0, "retries": 0}

    def note(self, lease: Lease, **values: Any) -> None:
        """Write counters within a step; counts as progress, so that a long Document is no poison."""
        self._write(lease, values | {"attempts": 0}, None, release=False)
        lease.row |= values

    def release(self, lease: Lease, *, cause: str = "", wait: bool = True) -> float:
        """Give a Document back untouched: no attempt is counted. With `wait` only after a growing pause, in seconds."""
        pause = min(LONGEST_WAIT, 2.0 ** min(lease.row["retries"], 9)) * random.uniform(0.75, 1.25) if wait else 0.0  # noqa: S311 - jitter
        values: dict[str, Any] = {"attempts": document.c.attempts - 1, "cause": cause}
        if wait:
            values |= {"retries": document.c.retries + 1, "not_before": self.database.clock() + pause}
        self._write(lease, values, None, release=True)
        return pause

    def give_up(self, lease: Lease) -> None:
        """Give a Document back after an error of ours: the attempt stays counted."""
        self._write(lease, {"cause": "internal", "not_before": self.database.clock() + 1.0}, None, release=True)

    def forget(self, lease: Lease) -> None:
        """Drop a lease that is lost, or was released within another write."""
        with self._lock:
            self._held.pop(lease.key, None)

    def _write(self, lease: Lease, values: dict[str, Any], connection: sa.Connection | None, *, release: bool) -> None:
        if connection is None:
            with self.database.transaction() as own:
                self._write(lease, values, own, release=release)
            return
        c = document.c
        identifier, version = lease.key
        if release:
            values = values | {"lease_owner": None, "lease_until": None}
            collections.spend(connection, lease.row["tenant_id"], (time.monotonic() - lease.started) * 1000.0)
        result = connection.execute(
            sa.update(document)
            .where(c.id == identifier, c.version == version, c.state == lease.row["state"])
            .where(c.lease_epoch == lease.epoch, c.lease_owner == self.name)
            .values(values | {"updated": self.database.clock()})
        )
        if result.rowcount != 1:
            lease.lost = True
            self.forget(lease)
            raise LeaseLostError("another worker has the document now", hint="it goes on there")
        if release:
            self.forget(lease)

    # --- the heartbeat: a thread and a connection of its own, so that a busy loop does not lose leases ---------------

    def _beat_from_now_on(self) -> None:
        if self._heart is None or not self._heart.is_alive():
            self._stop.clear()
            self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            self._heart.start()

    def _beat(self) -> None:
        while not self._stop.wait(self.seconds / 3):
            with self._lock:
                held = list(self._held.values())
            for lease in held:
                try:
                    self.keep(lease)
                except sa.exc.DBAPIError as error:
                    # The lease runs out by itself unless a later beat gets through.
                    log.warning("heartbeat failed", extra={"error": type(error).__name__})

    def keep(self, lease: Lease) -> bool:
        """Make one lease last `seconds` from now; say whether it is still ours."""
        c = document.c
        asked = time.monotonic()
        identifier, version = lease.key
        with self.database.transaction() as connection:
            kept = connection.execute(
                sa.update(document)
                .where(c.id == identifier, c.version == version, c.lease_epoch == lease.epoch)
                .where(c.lease_owner == self.name)
                .values(lease_until=self.database.clock() + self.seconds)
            ).rowcount
        if kept == 1:
            lease.until = asked + self.seconds
        else:
            lease.lost = True
            self.forget(lease)
        return kept == 1

    def held(self) -> int:
        """Count the leases this process holds."""
        with self._lock:
            return len(self._held)

    def close(self) -> None:
        """Stop the heartbeat. Leases still held run out by themselves."""
        self._stop.set()
        if self._heart is not None:
            self._heart.join(timeout=self.seconds)
