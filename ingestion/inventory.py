"""Inventory: how much of which Tag lies where; what a search is ruled on, and what reports print.

Counts are remembered until something becomes live, is replaced or erased (`collections.generation`).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from ingestion import collections
from ingestion.rows import document
from ingestion.states import State
from residency.database import Database, Rows, through
from residency.keytables import dek, kek
from residency.tag import Tag

REMEMBERED: Final = 1024
"""Summaries kept at most."""


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How much of one Tag lies at one Site for a tenant: what a search is ruled on, and counts as withheld."""

    tag_class: int
    tag: Tag
    site: str
    jurisdiction: str
    """Whose search keys its points are made with."""
    language: str
    documents: int
    passages: int


class Inventory:
    """Summaries over the live rows, synchronous."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.moved: list[Callable[[], None]] = []
        """Called when a tenant's `collections.generation` is seen to have moved: by an erasure in another process too,
        so caches of what was asked drop what they hold. Called on whatever thread looks."""
        self._generations: dict[str, int] = {}
        self._counts: dict[tuple[str, tuple[str, ...] | None], tuple[int, list[tuple[ClassCount, frozenset[str]]]]] = {}

    def counts(
        self, tenant: str, collection_ids: Sequence[str] | None = None, groups: frozenset[str] = frozenset()
    ) -> list[ClassCount]:
        """Count live Documents and Passages by Tag, Site and main language, as far as `groups` may see them.

        Cached until something becomes live, is replaced or erased.
        """
        with self.database.reading() as connection:
            known = self.remembered(through(connection), tenant, collection_ids, groups)
            if known is not None:
                return known
            generation = collections.generation(through(connection), tenant)
            counted = self._count(connection, tenant, collection_ids)
        if self._generations.get(tenant, generation) != generation:
            for forget in self.moved:
                forget()
        self._generations[tenant] = generation
        if len(self._counts) > REMEMBERED:
            self._counts.clear()
        self._counts[_key(tenant, collection_ids)] = generation, counted
        return _visible(counted, groups)

    def remembered(
        self, rows: Rows, tenant: str, collection_ids: Sequence[str] | None, groups: frozenset[str]
    ) -> list[ClassCount] | None:
        """Give what `counts` would, if nothing has changed since it was last asked; else None."""
        cached = self._counts.get(_key(tenant, collection_ids))
        if cached is None or cached[0] != collections.generation(rows, tenant):
            return None
        return _visible(cached[1], groups)

    @staticmethod
    def _count(
        connection: sa.Connection, tenant: str, collection_ids: Sequence[str] | None
    ) -> list[tuple[ClassCount, frozenset[str]]]:
        c = document.c
        by = (c.tag_class, c.site_id, c.jurisdiction, c.language, c.groups)
        query = sa.select(*by, sa.func.count().label("documents"), sa.func.sum(c.passages_total).label("passages"))
        query = query.where(c.tenant_id == tenant, c.state == State.LIVE).group_by(*by)
        if collection_ids is not None:
            query = query.where(c.collection_id.in_(list(collection_ids)))
        tags = collections.tags(connection, tenant)
        return [
            (
                ClassCount(
                    tag_class=row.tag_class,
                    tag=tags[tenant, row.tag_class],
                    site=row.site_id,
                    jurisdiction=row.jurisdiction,
                    language=row.language,
                    documents=row.documents,
                    passages=int(row.passages),
                ),
                frozenset(json.loads(row.groups)),
            )
            for row in connection.execute(query)
        ]

    def placement(self, tenant: str) -> list[dict[str, Any]]:
        """Say what lies where, for reports: live documents, passages and bytes by Tag and Site.

        Each Passage is one point with one vector, so that `vectors` are the passages; `lexical` counts those with a
        set of blinded words, `forms` the vectors by the mode in which they lie. `key_sites`
        are where the keys stand that wrap the documents' own.
        """
        c = document.c
        by = (c.tag_class, c.site_id)
        mine = (c.tenant_id == tenant, c.state == State.LIVE)
        wrapping = (
            sa.select(*by, kek.c.site_id.label("key_site"))
            .join(dek, dek.c.id == c.dek_id)
            .join(kek, sa.and_(kek.c.id == dek.c.kek_id, kek.c.version == dek.c.kek_version))
            .where(*mine)
            .distinct()
        )
        query = (
            sa.select(
                *by,
                sa.func.count().label("documents"),
                sa.func.sum(c.passages_total).label("passages"),
                sa.func.sum(c.bytes_total).label("bytes"),
            )
            .where(*mine)
            .group_by(*by)
            .order_by(*by)
        )
        kept = collections.collection
        forms = (
            sa.select(*by, kept, sa.func.sum(c.passages_total).label("passages"))
            .join(kept, kept.c.id == c.collection_id)
            .where(*mine)
            .group_by(*by, *kept.c)
        )
        with self.database.reading() as connection:
            tags = collections.tags(connection, tenant)
            modes: dict[tuple[int, str], Counter[str]] = {}
            words: Counter[tuple[int, str]] = Counter()
            for row in connection.execute(forms):
                form = collections.of_row(row).protection(tags[tenant, row.tag_class])
                place = row.tag_class, row.site_id
                modes.setdefault(place, Counter())[str(form.vectors)] += int(row.passages)
                words[place] += int(row.passages) if form.words else 0
            keys: dict[tuple[int, str], list[str]] = {}
            for row in connection.execute(wrapping):
                keys.setdefault((row.tag_class, row.site_id), []).append(row.key_site)
            return [
                tags[tenant, row.tag_class].facts()
                | {"site": row.site_id, "documents": row.documents, "passages": int(row.passages)}
                | {"bytes": int(row.bytes), "vectors": int(row.passages)}
                | {"lexical": words[row.tag_class, row.site_id]}
                | {"forms": dict(sorted(modes[row.tag_class, row.site_id].items()))}
                | {"key_sites": sorted(keys.get((row.tag_class, row.site_id), []))}
                for row in connection.execute(query)
            ]

    def tenants_at(self, site: str) -> list[str]:
        """Give the tenants that have live documents at a Site."""
        c = document.c
        wanted = sa.select(c.tenant_id).where(c.site_id == site, c.state == State.LIVE).distinct()
        with self.database.reading() as connection:
            return [str(row.tenant_id) for row in connection.execute(wanted)]


def _key(tenant: str, collection_ids: Sequence[str] | None) -> tuple[str, tuple[str, ...] | None]:
    return tenant, None if collection_ids is None else tuple(sorted(collection_ids))


def _visible(counted: Iterable[tuple[ClassCount, frozenset[str]]], groups: frozenset[str]) -> list[ClassCount]:
    return [count for count, only in counted if not only or only & groups]
