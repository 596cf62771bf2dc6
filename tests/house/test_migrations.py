"""Migrations: the newest version's tables are exactly those that the code declares, on both databases."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from residency.database import metadata
from service.migrations import NEWEST, current, head, require, upgrade
from tests.integration.conftest import postgres_server, postgres_url

ROOT = Path(__file__).parents[2]
__all__ = ["postgres_server", "postgres_url"]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'm.sqlite'}"
    return str(request.getfixturevalue("postgres_url"))


def declared() -> sa.MetaData:
    """Give every table of the house: each module that declares one is imported."""
    for room in ("residency", "ingestion", "service"):
        for path in sorted((ROOT / room).rglob("*.py")):
            if "sa.Table(" in path.read_text(encoding="utf-8") and "versions" not in path.parts:
                import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return metadata


def differences(url: str, wanted: sa.MetaData) -> list[Any]:
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            return list(compare_metadata(context, wanted))
    finally:
        engine.dispose()


def test_the_newest_version_is_named_in_the_code() -> None:
    assert head() == NEWEST


def test_an_empty_database_is_brought_to_exactly_what_the_code_declares(url: str) -> None:
    assert current(url) is None
    assert upgrade(url) == NEWEST == current(url)
    assert differences(url, declared()) == []


def test_doing_it_again_changes_nothing(url: str) -> None:
    upgrade(url)
    assert upgrade(url) == NEWEST
    require(url)


def test_a_table_or_column_without_a_migration_is_seen(url: str) -> None:
    upgrade(url)
    planted = sa.MetaData(naming_convention=metadata.naming_convention)
    for table in declared().tables.values():
        table.to_metadata(planted)
    sa.Table("planted", planted, sa.Column("id", sa.Integer, primary_key=True))
    planted.tables["tenant"].append_column(sa.Column("mood", sa.Text))
    assert {each[0] for each in differences(url, planted)} == {"add_table", "add_column"}


def test_a_server_at_another_version_is_not_touched_but_named(postgres_url: str) -> None:
    with pytest.raises(Exception, match="needs") as caught:
        require(postgres_url)
    assert "domicile migrate" in getattr(caught.value, "hint", "")
    assert current(postgres_url) is None


def test_a_file_is_brought_up_by_itself(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'm.sqlite'}"
    require(url)
    assert current(url) == NEWEST
