"""Collections, tag classes and turns: the small tables that stand around the Documents table.

A Collection is a tenant's named set of Documents; outside it has a slug, inside a random id, made on first use.
A tag class is a number that stands for one Tag of one tenant, so that a point at a shard can be filtered by Tag
without spelling it. A turn counts what a tenant's work has cost, so that the next worker serves whoever had least;
its `generation` moves with every change of what can be searched, so that summaries may be cached.
"""

import json
import re
import secrets
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ingestion.errors import UploadError
from residency.database import Rows, metadata, through
from residency.protection import Protection, VectorMode, WordMode, protect
from residency.tag import Tag

SLUG: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
"""What a Collection may be called; it stands in paths and reports, so it is no place for personal data."""

collection = sa.Table(
    "collection",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("tenant_id", sa.String(63), nullable=False),
    sa.Column("name", sa.String(63), nullable=False),
    sa.Column("paused", sa.Boolean, nullable=False, default=False),
    sa.Column("model", sa.String(80), nullable=False, default=""),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("passage_words", sa.Integer, nullable=False, default=0, server_default="0"),
    sa.Column("overlap_words", sa.Integer, nullable=False, default=0, server_default="0"),
    sa.Column("vectors", sa.String(16), nullable=False, server_default="rotated"),
    sa.Column("words", sa.String(8), nullable=False, server_default="auto"),
    sa.UniqueConstraint("tenant_id", "name"),
)

tag_class = sa.Table(
    "tag_class",
    metadata,
    sa.Column("tenant_id", sa.String(63), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("facts", sa.Text, nullable=False),
    sa.UniqueConstraint("tenant_id", "digest"),
)

tenant_turn = sa.Table(
    "tenant_turn",
    metadata,
    sa.Column("tenant_id", sa.String(63), primary_key=True),
    sa.Column("spent_ms", sa.Float, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("paused", sa.Boolean, nullable=False, default=False, server_default=sa.false()),
)

# Every search asks these two; built once, they need no key of their own in SQLAlchemy's cache.
_NAMED: Final = sa.select(collection).where(
    collection.c.tenant_id == sa.bindparam("tenant"), collection.c.name == sa.bindparam("name")
)
_GENERATION: Final = sa.select(tenant_turn.c.generation).where(tenant_turn.c.tenant_id == sa.bindparam("tenant"))


@dataclass(frozen=True, slots=True)
class Collection:
    """A tenant's named set of Documents. `model` is the digest of the embedder whose vectors it holds, once any.

    `vectors` and `words` are a `VectorMode` and a `WordMode`: they are chosen when it is made, and stay.
    """

    id: str
    name: str
    paused: bool
    model: str
    vectors: str = VectorMode.ROTATED
    words: str = WordMode.AUTO

    def protection(self, tag: Tag) -> Protection:
        """Give in what form Passages of a Tag lie at a shard."""
        return protect(self.vectors, self.words, tag)


def insert_missing(connection: sa.Connection, table: sa.Table, values: dict[str, Any]) -> bool:
    """Insert a row unless an equal key is there already; say whether it was inserted."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    insert = dialect.insert(table).values(values).on_conflict_do_nothing()
    # the count of an INSERT is not kept unless asked for
    return connection.execute(insert, execution_options={"preserve_rowcount": True}).rowcount == 1


def named(rows: Rows, tenant: str, name: str) -> Collection | None:
    """Find a tenant's Collection by its slug."""
    found = rows(_NAMED, {"tenant": tenant, "name": name})
    return of_row(found[0]) if found else None


def of_row(row: Any) -> Collection:
    """Read a Collection from a row of the table."""
    return Collection(row.id, row.name, row.paused, row.model, row.vectors, row.words)


def ensure(
    connection: sa.Connection,
    tenant: str,
    name: str,
    clock: sa.ColumnElement[float],
    *,
    vectors: VectorMode = VectorMode.ROTATED,
    words: WordMode = WordMode.AUTO,
) -> Collection:
    """Give a tenant's Collection, made on first use so. Raises `UploadError` for a name that is no slug."""
    found = named(through(connection), tenant, name)
    if found:
        return found
    if not SLUG.fullmatch(name):
        raise UploadError(
            "that is no name for a collection",
            hint="use up to 63 of a-z, 0-9, dot, dash and underscore, and begin with a letter or digit",
        )
    made = {"id": secrets.token_hex(16), "tenant_id": tenant, "name": name, "created": clock, "paused": False}
    insert_missing(connection, collection, made | {"model": "", "vectors": str(vectors), "words": str(words)})
    found = named(through(connection), tenant, name)
    assert found  # noqa: S101 - inserted or found in this very transaction
    return found


def number(connection: sa.Connection, tenant: str, tag: Tag) -> int:
    """Give the tag class of a Tag for this tenant, made on first use."""
    c = tag_class.c
    digest = tag.digest.hex()
    mine = sa.select(c.number).where(c.tenant_id == tenant, c.digest == digest)
    highest = sa.select(sa.func.coalesce(sa.func.max(c.number), 0)).where(c.tenant_id == tenant)
    while True:
        found = connection.execute(mine).scalar()
        if found is not None:
            return int(found)
        values = {"tenant_id": tenant, "digest": digest, "facts": json.dumps(tag.facts(), sort_keys=True)}
        insert_missing(connection, tag_class, values | {"number": int(connection.execute(highest).scalar_one()) + 1})


def tags(connection: sa.Connection, tenant: str | None = None) -> dict[tuple[str, int], Tag]:
    """Give every known Tag by (tenant, tag class), of one tenant or of all."""
    query = sa.select(tag_class)
    if tenant is not None:
        query = query.where(tag_class.c.tenant_id == tenant)
    return {(row.tenant_id, row.number): Tag.of(json.loads(row.facts)) for row in connection.execute(query)}


def turn(connection: sa.Connection, tenant: str) -> None:
    """Give a new tenant its turn, starting where the least served one stands now."""
    if connection.execute(sa.select(tenant_turn.c.tenant_id).where(tenant_turn.c.tenant_id == tenant)).first():
        return
    least = connection.execute(sa.select(sa.func.coalesce(sa.func.min(tenant_turn.c.spent_ms), 0.0))).scalar_one()
    insert_missing(connection, tenant_turn, {"tenant_id": tenant, "spent_ms": least, "generation": 0})


def spend(connection: sa.Connection, tenant: str, milliseconds: float) -> None:
    """Count work against a tenant's turn."""
    spent = tenant_turn.c.spent_ms + milliseconds
    connection.execute(sa.update(tenant_turn).where(tenant_turn.c.tenant_id == tenant).values(spent_ms=spent))


def changed(connection: sa.Connection, tenant: str) -> None:
    """Note that what can be searched for this tenant has changed."""
    following = tenant_turn.c.generation + 1
    connection.execute(sa.update(tenant_turn).where(tenant_turn.c.tenant_id == tenant).values(generation=following))


def generation(rows: Rows, tenant: str) -> int:
    """Give the number that moves with every change of what can be searched."""
    found = rows(_GENERATION, {"tenant": tenant})
    return int(found[0].generation) if found else 0
