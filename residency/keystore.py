"""Keystore: reads and writes the rows behind the Keyring, one transaction a method.

Rules kept here: a DEK is written only under a KEK version that is active at that very commit, else a rotation could
strand it; what a key was made for is read from its row and never from what was sealed; messages are counted before they
are sealed. Synchronous; the Keyring calls it in the database's threads.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import sqlalchemy as sa

from residency.database import Database
from residency.errors import KeyringError
from residency.keyrows import DekRow, KekState, Keyset
from residency.keytables import dek, dek_wrapped, kek, search_keyset
from residency.ports import KekRef
from residency.seal import SEAL_LIMIT, SEAL_STEP, KeyContext, Purpose, tenant_bytes

WRAP_WARN: Final = 1 << 28
WRAP_LIMIT: Final = 1 << 30
"""Wraps under one KEK version; NIST SP 800-38D 8.3 allows 2^32 with random nonces."""


class Keystore:
    """Reads and writes key rows; every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def active_kek(self, tenant: str, jurisdiction: str, site: str, fresh: bytes) -> tuple[KekRef, int]:
        """Give the active KEK with its wraps so far; where there is none, version 1 under the id `fresh` is entered."""
        found = self._find_active(tenant, jurisdiction, site)
        if found is None:
            try:
                with self._database.transaction() as connection:
                    connection.execute(self._new_kek(KekRef(fresh, 1, tenant, jurisdiction, site)))
            except sa.exc.IntegrityError:  # entered by another process in between
                pass
            found = self._find_active(tenant, jurisdiction, site)
        if found is None:
            raise KeyringError("the active KEK vanished while it was made", hint="try again")
        return found

    def _find_active(self, tenant: str, jurisdiction: str, site: str) -> tuple[KekRef, int] | None:
        where = (kek.c.tenant == tenant, kek.c.jurisdiction == jurisdiction, kek.c.site_id == site)
        with self._database.reading() as connection:
            row = connection.execute(sa.select(kek).where(*where, kek.c.state == "active")).one_or_none()
        return None if row is None else (_ref(row), row.wraps)

    def _new_kek(self, ref: KekRef) -> sa.Insert:
        return sa.insert(kek).values(
            id=ref.id,
            version=ref.version,
            tenant=ref.tenant,
            jurisdiction=ref.jurisdiction,
            site_id=ref.site,
            state="active",
            wraps=0,
            created=self._database.clock(),
        )

    def add(self, rows: Sequence[DekRow], keyset: dict[str, Any] | None = None) -> bool:
        """Enter new DEKs (and the keyset they are for) under their KEK; False when it is no longer the active one."""
        with self._database.transaction() as connection:
            if not _count_wraps(connection, rows[0].kek, len(rows)):
                return False
            facts = [
                {
                    "id": row.id,
                    "purpose": str(row.context.purpose),
                    "tenant": row.tenant,
                    "jurisdiction": row.context.jurisdiction,
                    "subject_id": row.context.subject,
                    "subject_version": row.context.version,
                    "suite": row.context.suite,
                    "kek_id": row.kek.id,
                    "kek_version": row.kek.version,
                    "commitment": row.commitment,
                    "tag_digest": row.tag_digest,
                }
                for row in rows
            ]
            fixed = {"seals": SEAL_STEP, "created": self._database.clock(), "state": "active"}
            connection.execute(sa.insert(dek).values(**fixed), facts)
            held = [{"dek_id": row.id, "wrapped": row.wrapped} for row in rows]
            connection.execute(sa.insert(dek_wrapped), held)
            if keyset is not None:
                connection.execute(sa.insert(search_keyset).values(created=self._database.clock(), **keyset))
        return True

    def rows(self, ids: Iterable[bytes]) -> list[DekRow]:
        """Give those of these DEKs that are active and not shredded, in one query."""
        wanted = list(ids)
        if not wanted:
            return []
        with self._database.glance() as rows:
            return [_row(each) for each in rows(_THESE, {"ids": wanted})]

    def under(self, ref: KekRef, after: bytes, limit: int) -> list[DekRow]:
        """Give live DEKs wrapped under this KEK version, in id order, from the one after `after`."""
        tenant, place = tenant_bytes(ref.tenant), (ref.id, ref.version, after, limit)
        with self._database.reading() as connection:
            found = connection.exec_driver_sql(self._spoken(_UNDER), place)
            return [
                DekRow(
                    KeyContext(Purpose(purpose), tenant, ref.jurisdiction, subject, version, dek_id, suite),
                    ref.tenant,
                    ref,
                    commitment,
                    tag_digest,
                    wrapped,
                )
                for dek_id, purpose, subject, version, suite, commitment, tag_digest, wrapped in found
            ]

    def _spoken(self, statement: str) -> str:
        # The two places where a million rows pass are in plain SQL: what SQLAlchemy does for each value costs the most.
        return statement if self._database.sqlite else statement.replace("?", "%s")

    def rewrapped(self, moves: Sequence[tuple[DekRow, bytes, bytes]], target: KekRef) -> int:
        """Put new wrappings in the place of those that were read, from (row, Tag digest, wrapped under `target`).

        Gives how many moved: none when `target` is no longer active, and none that changed meanwhile.
        """
        ids, olds = [row.id for row, _, _ in moves], [row.wrapped for row, _, _ in moves]
        tags, news = [tag for _, tag, _ in moves], [new for _, _, new in moves]
        at = (target.id, target.version)
        with self._database.transaction() as connection:
            if not _count_wraps(connection, target, len(moves)):
                return 0
            # No two wrappings are equal, so the swapped bytes show whose swap went through.
            if self._database.sqlite:
                connection.exec_driver_sql(_SWAP, list(zip(news, ids, olds, strict=True)))
                followed = [(*at, tag, dek_id, new) for tag, dek_id, new in zip(tags, ids, news, strict=True)]
                return int(connection.exec_driver_sql(_FOLLOW, followed).rowcount)
            connection.exec_driver_sql(_SWAP_ALL, (ids, olds, news))
            return int(connection.exec_driver_sql(_FOLLOW_ALL, (*at, ids, news, tags)).rowcount)

    def reserve(self, dek_id: bytes, count: int) -> int:
        """Count messages before they are sealed; raises `KeyringError` at the limit or when the key was shredded."""
        with self._database.transaction() as connection:
            done = connection.execute(
                sa.update(dek)
                .where(dek.c.id == dek_id, dek.c.state == "active", dek.c.seals <= SEAL_LIMIT - count)
                .values(seals=dek.c.seals + count)
            ).rowcount
        if not done:
            raise KeyringError(
                f"key {dek_id.hex()} may seal no more", hint="a new document version has a fresh key of its own"
            )
        return count

    def shred(self, dek_ids: Sequence[bytes], within: float) -> int:
        """Delete wrapped keys and mark the DEKs; gives how many there were.

        `within` (seconds) sets the term of every KEK version that one was ever wrapped under: its own and those before.
        """
        with self._database.transaction() as connection:
            mine = sa.select(dek.c.kek_id, sa.func.max(dek.c.kek_version)).group_by(dek.c.kek_id)
            mine = mine.join_from(dek, dek_wrapped, dek_wrapped.c.dek_id == dek.c.id).where(dek.c.id.in_(dek_ids))
            over = connection.execute(mine).all()
            gone = connection.execute(sa.delete(dek_wrapped).where(dek_wrapped.c.dek_id.in_(dek_ids))).rowcount
            connection.execute(sa.update(dek).where(dek.c.id.in_(dek_ids)).values(state="shredded"))
            for kek_id, version in over:
                ever = (kek.c.id == kek_id, kek.c.version <= version, kek.c.state != "destroyed")
                connection.execute(sa.update(kek).where(*ever).values(due=self._sooner(within)))
        return int(gone)

    def _sooner(self, within: float) -> sa.ColumnElement[float]:
        term = self._database.clock() + within
        return sa.case((sa.or_(kek.c.due.is_(None), kek.c.due > term), term), else_=kek.c.due)

    def epochs(self, tenant: str, jurisdiction: str, site: str) -> list[tuple[int, str, int]]:
        """List a place's keysets as (epoch, state, width), the oldest first."""
        c = search_keyset.c
        mine = (c.tenant == tenant, c.jurisdiction == jurisdiction, c.site_id == site)
        with self._database.reading() as connection:
            query = sa.select(c.epoch, c.state, c.dimension).where(*mine).order_by(c.epoch)
            return [(row.epoch, row.state, row.dimension) for row in connection.execute(query)]

    def keyset(
        self, tenant: str, jurisdiction: str, site: str, epoch: int | None = None
    ) -> tuple[Keyset, list[DekRow]] | None:
        """Give the keyset in use, or that of an epoch, and those of its three keys that are live."""
        place: dict[str, Any] = {"tenant": tenant, "jurisdiction": jurisdiction, "site": site}
        with self._database.glance() as rows:
            found = rows(_KEYSET, place) if epoch is None else rows(_EPOCH, place | {"epoch": epoch})
            if not found:
                return None
            at, dimension, *deks, matrix_digest = found[0]
            keyset = Keyset(at, dimension, (deks[0], deks[1], deks[2]), matrix_digest)
            return keyset, [_row(each) for each in rows(_THESE, {"ids": keyset.deks})]

    def matrix(self, vectors_dek: bytes) -> bytes:
        """Give the sealed matrix of the keyset with this K_vec."""
        with self._database.reading() as connection:
            query = sa.select(search_keyset.c.matrix).where(search_keyset.c.vectors_dek == vectors_dek)
            return bytes(connection.execute(query).scalar_one())

    def keks(self, tenant: str | None = None) -> list[KekState]:
        """List KEK versions, of one tenant or of all."""
        left = (
            sa.select(sa.func.count())
            .select_from(dek.join(dek_wrapped, dek_wrapped.c.dek_id == dek.c.id))
            .where(dek.c.kek_id == kek.c.id, dek.c.kek_version == kek.c.version)
            .scalar_subquery()
        )
        now = self._database.clock().label("now")
        query = sa.select(kek, left.label("left"), now).order_by(
            kek.c.tenant, kek.c.jurisdiction, kek.c.site_id, kek.c.version
        )
        if tenant is not None:
            query = query.where(kek.c.tenant == tenant)
        with self._database.reading() as connection:
            return [
                KekState(
                    _ref(row),
                    row.state,
                    row.wraps,
                    row.left,
                    row.created,
                    row.destroyed_at,
                    row.retired_at,
                    row.due,
                    row.now,
                )
                for row in connection.execute(query)
            ]

    def succeed(self, old: KekRef) -> bool:
        """Make the next version active and this one retiring; False when another rotation came first."""
        new = KekRef(old.id, old.version + 1, old.tenant, old.jurisdiction, old.site)
        try:
            with self._database.transaction() as connection:
                if not _move(connection, old, "active", "retiring"):
                    return False
                connection.execute(self._new_kek(new))
        except sa.exc.IntegrityError:
            return False
        return True

    def retire(self, ref: KekRef, within: float) -> bool:
        """Mark a retiring version retired when no live DEK is left under it; it is to be destroyed `within` seconds."""
        left = sa.select(dek.c.id).where(
            dek.c.kek_id == ref.id,
            dek.c.kek_version == ref.version,
            dek.c.id.in_(sa.select(dek_wrapped.c.dek_id)),
        )
        with self._database.transaction() as connection:
            if connection.execute(left.limit(1)).one_or_none() is not None:
                return False
            if not _move(connection, ref, "retiring", "retired"):
                return False
            term = {"retired_at": self._database.clock(), "due": self._sooner(within)}
            connection.execute(_at(sa.update(kek), ref).values(**term))
            return True

    def destroyed(self, ref: KekRef, also: Callable[[sa.Connection], object] = lambda _: None) -> bool:
        """Note that a retired version was destroyed, and when, and do `also` in the same commit; False when it was."""
        with self._database.transaction() as connection:
            if not _move(connection, ref, "retired", "destroyed"):
                return False
            connection.execute(_at(sa.update(kek), ref).values(destroyed_at=self._database.clock()))
            also(connection)
            return True


_LIVE = (
    sa.select(dek, kek.c.site_id, dek_wrapped.c.wrapped)
    .join(dek_wrapped, dek_wrapped.c.dek_id == dek.c.id)
    .join(kek, sa.and_(kek.c.id == dek.c.kek_id, kek.c.version == dek.c.kek_version))
    .where(dek.c.state == "active")
)
# Built once: every search runs these two.
_THESE = _LIVE.where(dek.c.id.in_(sa.bindparam("ids", expanding=True)))
_UNDER: Final = """
    SELECT dek.id, dek.purpose, dek.subject_id, dek.subject_version, dek.suite, dek.commitment, dek.tag_digest,
           w.wrapped
    FROM dek JOIN dek_wrapped AS w ON w.dek_id = dek.id
    WHERE dek.kek_id = ? AND dek.kek_version = ? AND dek.id > ? AND dek.state = 'active'
    ORDER BY dek.id LIMIT ?"""
_SWAP: Final = "UPDATE dek_wrapped SET wrapped = ? WHERE dek_id = ? AND wrapped = ?"
_FOLLOW: Final = """
    UPDATE dek SET kek_id = ?, kek_version = ?, tag_digest = ? WHERE id = ?
    AND EXISTS (SELECT 1 FROM dek_wrapped WHERE dek_id = dek.id AND wrapped = ?)"""
_SWAP_ALL: Final = """
    UPDATE dek_wrapped AS w SET wrapped = m.new
    FROM unnest(%s::bytea[], %s::bytea[], %s::bytea[]) AS m(id, old, new)
    WHERE w.dek_id = m.id AND w.wrapped = m.old"""
_FOLLOW_ALL: Final = """
    UPDATE dek SET kek_id = %s, kek_version = %s, tag_digest = m.tag
    FROM unnest(%s::bytea[], %s::bytea[], %s::bytea[]) AS m(id, new, tag)
    JOIN dek_wrapped AS w ON w.dek_id = m.id AND w.wrapped = m.new
    WHERE dek.id = m.id"""
_held = search_keyset.c
_AT = sa.select(
    _held.epoch, _held.dimension, _held.vectors_dek, _held.lexicon_dek, _held.tags_dek, _held.matrix_digest
).where(
    _held.tenant == sa.bindparam("tenant"),
    _held.jurisdiction == sa.bindparam("jurisdiction"),
    _held.site_id == sa.bindparam("site"),
)
_KEYSET = _AT.where(_held.state == "active").order_by(_held.epoch.desc()).limit(1)
_EPOCH = _AT.where(_held.epoch == sa.bindparam("epoch"))


def _row(row: Any) -> DekRow:
    context = KeyContext(
        Purpose(row.purpose),
        tenant_bytes(row.tenant),
        row.jurisdiction,
        row.subject_id,
        row.subject_version,
        row.id,
        row.suite,
    )
    ref = KekRef(row.kek_id, row.kek_version, row.tenant, row.jurisdiction, row.site_id)
    return DekRow(context, row.tenant, ref, row.commitment, row.tag_digest, row.wrapped)


def _ref(row: sa.Row[Any]) -> KekRef:
    return KekRef(row.id, row.version, row.tenant, row.jurisdiction, row.site_id)


def _at(update: sa.Update, ref: KekRef) -> sa.Update:
    return update.where(kek.c.id == ref.id, kek.c.version == ref.version)


def _move(connection: sa.Connection, ref: KekRef, before: str, after: str) -> bool:
    update = _at(sa.update(kek), ref).where(kek.c.state == before).values(state=after)
    return bool(connection.execute(update).rowcount)


def _count_wraps(connection: sa.Connection, ref: KekRef, count: int) -> bool:
    # Also locks the row: a rotation waits until this wrapping is in, or this wrapping sees the rotation.
    update = _at(sa.update(kek), ref).where(kek.c.state == "active", kek.c.wraps <= WRAP_LIMIT - count)
    return bool(connection.execute(update.values(wraps=kek.c.wraps + count)).rowcount)
