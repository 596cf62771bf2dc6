"""Promises: what an erasure's certificate left open is completed once no backup opens any more.

Rules kept here: a certificate is completed by a later entry of the Ledger, and what it said stays as it was; it is
complete when every KEK version that a key of the Document ever lay under is destroyed: before that, copies of wrapped
keys are worth something.
"""

import json
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from ingestion.leases import ACTIVITY
from ingestion.rows import document
from ingestion.states import State
from residency.database import Database
from residency.keytables import dek, kek
from residency.ledger import Ledger
from residency.receipt import Draft, stamp

CHUNK: Final = 200
"""Certificates completed in one commit."""
_OPEN: Final = sa.and_(
    document.c.state == State.ERASED,
    document.c.certificate.is_not(None),
    document.c.certificate.not_like('%"completions"%'),
)


class Promises:
    """Completes certificates; synchronous, callers go through `database.run`."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self.database = database
        self.ledger = ledger

    def keep(self) -> int:
        """Complete every certificate whose last KEK version is destroyed, and give how many; again is harmless."""
        after, done = "", 0
        while True:
            with self.database.transaction() as connection:
                rows = connection.execute(
                    sa.select(document.c.id, document.c.version, document.c.tenant_id, document.c.certificate)
                    .where(_OPEN, document.c.id > after)
                    .order_by(document.c.id)
                    .limit(CHUNK)
                ).all()
                for row in rows:
                    if gone := self._gone(connection, row.id):
                        done += self._complete(connection, row, gone)
            if len(rows) < CHUNK:
                return done
            after = rows[-1].id

    def _gone(self, connection: sa.Connection, identifier: str) -> list[dict[str, Any]]:
        """List the newest KEK versions that held a key of this Document; empty while one of them or before lives."""
        held = (
            sa.select(dek.c.kek_id, sa.func.max(dek.c.kek_version).label("version"))
            .where(dek.c.subject_id == bytes.fromhex(identifier))
            .group_by(dek.c.kek_id)
            .subquery()
        )
        query = sa.select(kek.c.id, kek.c.version, kek.c.state, kek.c.site_id, kek.c.jurisdiction, held.c.version)
        rows = connection.execute(
            query.join(held, sa.and_(kek.c.id == held.c.kek_id, kek.c.version <= held.c[1]))
        ).all()
        if any(row.state != "destroyed" for row in rows):
            return []
        return [
            {"kek": bytes(row[0]).hex(), "version": row[1], "site": row.site_id, "jurisdiction": row.jurisdiction}
            for row in rows
            if row[1] == row[5]
        ]

    def _complete(self, connection: sa.Connection, row: Any, gone: list[dict[str, Any]]) -> int:
        certificate: dict[str, Any] = json.loads(row.certificate)
        if not certificate.get("receipt"):
            return 0
        where = {"where": "backups", "what": "the key versions that wrapped its keys are destroyed", "keks": gone}
        facts = {"event": "horizon", "completes": certificate["receipt"], **where}
        stored = self.ledger.append(
            Draft(kind="key", tenant=row.tenant_id, activity=ACTIVITY, subject=row.id, facts=facts), connection
        )
        certificate["completions"] = [where | {"time": stamp(datetime.now(UTC)), "receipt": stored.id}]
        mine = sa.and_(document.c.id == row.id, document.c.version == row.version)
        connection.execute(sa.update(document).where(mine).values(certificate=json.dumps(certificate)))
        return 1
