"""The database: ids, Tags, wrapped keys and the Ledger; never content.

SQLite (WAL, FULL, secure_delete) on one machine, PostgreSQL at scale; the same SQLAlchemy Core tables on both.
Calls are synchronous and run in a small pool of threads by `Database.run`, so that a commit's fsync never holds up the
event loop, and so that workers, command line and service share one code (docs/decisions).
Tables are declared beside the code that owns them, on the one `metadata` here.
"""

import asyncio
import sqlite3
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from functools import lru_cache, partial
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa

# Not used here: llama-index loads it in a worker's thread, and a query that another thread builds meanwhile finds half
# of it and breaks. So it is loaded whole, before there are threads.
import sqlalchemy.orm
from sqlalchemy import event
from sqlalchemy.dialects import sqlite

P = ParamSpec("P")
R = TypeVar("R")
Rows = Callable[[sa.Select[Any], Mapping[str, Any]], list[Any]]
"""Takes a statement made once and its values, gives all rows with their columns as attributes."""

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""Every table of Domicile hangs here."""


class Database:
    """One engine with its threads. `url` is an SQLAlchemy URL: `sqlite:///…` or `postgresql+psycopg://…`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sqlite = url.startswith("sqlite")
        options: dict[str, Any] = {"hide_parameters": True}
        if not self.sqlite:
            options |= {"pool_size": 8, "max_overflow": 8, "pool_pre_ping": True}
        self.engine = sa.create_engine(url, **options)
        if self.sqlite:
            event.listen(self.engine, "connect", _sqlite_settings)
            event.listen(self.engine, "begin", _sqlite_begin)
        # Our own writers queue here: SQLite's busy handler would make them sleep for up to 100 ms a turn.
        self._writing = threading.RLock()
        # SQLite has one writer; more threads would only queue on its lock.
        self._threads = ThreadPoolExecutor(max_workers=2 if self.sqlite else 8, thread_name_prefix="database")
        self._local = threading.local()
        self._looking: list[Any] = []

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Open a transaction that commits at the end or rolls back on any error. SQLite: BEGIN IMMEDIATE."""
        with self._writing if self.sqlite else nullcontext(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a connection for reading only; on SQLite it takes no write lock."""
        with self.engine.connect().execution_options(reading=True) as connection:
            yield connection

    @contextmanager
    def glance(self) -> Iterator[Rows]:
        """Open a reader for a few rows by their keys, in one snapshot, with statements that were made once.

        On SQLite straight through the driver, on a connection of this thread: what SQLAlchemy does for a row or two
        costs ten times what SQLite does, and every search reads four times. Elsewhere as `reading`.
        """
        if not self.sqlite:
            with self.reading() as connection:
                yield through(connection)
            return
        try:
            raw = self._own()
            raw.execute("BEGIN")
            try:
                yield partial(_rows, raw)
            finally:
                raw.execute("COMMIT")
        except sqlite3.Error as error:
            raise sa.exc.OperationalError("a reading", None, error) from error

    def _own(self) -> Any:
        raw = getattr(self._local, "raw", None)
        if raw is None:
            pooled = self.engine.raw_connection()
            raw = self._local.raw = pooled.driver_connection
            pooled.detach()
            self._looking.append(raw)
        return raw

    async def look(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function that does nothing but `glance`: on SQLite here and now, elsewhere as `run`.

        There it takes less than the waking of a thread, and in WAL mode a reader waits for no writer.
        """
        if self.sqlite:
            return function(*args, **kwargs)
        return await self.run(function, *args, **kwargs)

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a synchronous function in the database's threads, with this task's context."""
        call = partial(copy_context().run, partial(function, *args, **kwargs))
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def clock(self) -> sa.ColumnElement[float]:
        """The database's own clock as seconds since 1970: the only clock that leases use.

        SQLite before 3.42 answers NULL to unixepoch('subsec'), so julianday is used.
        """
        if self.sqlite:
            return sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", sa.Float)
        return sa.literal_column("extract(epoch from clock_timestamp())::double precision", sa.Float)

    def checkpoint(self) -> tuple[bool, str]:
        """Fold SQLite's WAL into the main file so that deleted rows leave no bytes; say whether it was complete."""
        if not self.sqlite:
            return False, "PostgreSQL keeps dead rows until vacuum, and copies in its WAL archive"
        with self.engine.connect() as connection:
            raw = connection.connection.driver_connection
            if raw is None:
                return False, "no connection"
            busy, left, done = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return (busy, left, done) == (0, 0, 0), f"wal_checkpoint {busy} {left} {done}"

    def close(self) -> None:
        """Finish running calls and close all connections."""
        self._threads.shutdown(wait=True)
        self._local = threading.local()
        while self._looking:
            self._looking.pop().close()
        self.engine.dispose()


def through(connection: sa.Connection) -> Rows:
    """Read within a connection's own transaction what is else read at a glance."""
    return lambda statement, values: list(connection.execute(statement, dict(values)))


def _rows(raw: Any, statement: sa.Select[Any], values: Mapping[str, Any]) -> list[Any]:
    sizes = tuple((name, len(value) if isinstance(value, list | tuple) else -1) for name, value in values.items())
    text, names, fixed, expanded, row = _spoken(statement, sizes)
    given = {**fixed, **values}
    for name, places in expanded.items():
        given |= zip(places, values[name], strict=True)
    return [row(*found) for found in raw.execute(text, [given[name] for name in names])]


@lru_cache(256)
def _spoken(statement: sa.Select[Any], sizes: tuple[tuple[str, int], ...]) -> tuple[Any, ...]:
    """Give SQLite's text of a statement, names of its values in order, fixed values, names of lists' items, the row."""
    made = statement.compile(dialect=sqlite.dialect())
    state = made.construct_expanded_state({name: None if size < 0 else [None] * size for name, size in sizes})
    row = namedtuple("Row", statement.selected_columns.keys())  # type: ignore[misc]
    return state.statement, tuple(state.positiontup or ()), dict(state.parameters), state.parameter_expansion, row


def _sqlite_settings(raw: Any, _record: Any) -> None:
    raw.isolation_level = None  # we say BEGIN ourselves
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "secure_delete=ON", "foreign_keys=ON"):
        raw.execute(f"PRAGMA {pragma}")


def _sqlite_begin(connection: sa.Connection) -> None:
    # A deferred transaction that turns to writing gets SQLITE_BUSY at once; so writers take the lock first.
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
