"""Migrations: the database's tables, version by version, by Alembic; every step forward is committed here as a file."""

from pathlib import Path
from typing import Any

from service.errors import HomeError

FOLDER = Path(__file__).parent


def _config(url: str) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.attributes["url"] = url
    return config


def head() -> str:
    """Give the version that this code needs."""
    from alembic.script import ScriptDirectory

    return str(ScriptDirectory.from_config(_config("")).get_current_head())


def current(url: str) -> str | None:
    """Give the version that a database is at; None when it has none."""
    import sqlalchemy as sa

    engine = sa.create_engine(url, hide_parameters=True)
    try:
        with engine.connect() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    finally:
        engine.dispose()


def upgrade(url: str) -> str:
    """Bring a database to this code's version and give its name; doing it again changes nothing."""
    from alembic import command

    command.upgrade(_config(url), "head")
    return head()


def require(url: str) -> None:
    """See that the database is at this code's version. SQLite is brought up; PostgreSQL waits for `domicile migrate`.

    Raises `HomeError` saying which version it found.
    """
    at = current(url)
    if at == NEWEST:
        return
    if url.startswith("sqlite"):
        upgrade(url)
        return
    raise HomeError(
        f"the database is at version {at or 'none'}, this code needs {NEWEST}", hint="run `domicile migrate`"
    )


NEWEST = "0015"
"""The newest version, so that a start needs no Alembic when nothing is to be done; a test compares it with `head()`."""
