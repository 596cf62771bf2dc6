"""Pausing: stop, resume or give up work on one Document, a Collection or all of a tenant.

Rules kept here: what is in a worker's hand is taken from it at once by the fence, so that its next write finds no row
and nothing is half done; the steps that were done stay done, and the work goes on from them; what is being erased is
never paused. A Collection and a tenant are paused by a flag that the take reads; a Document by a `not_before` that does
not come, under the cause `paused`. Giving up is an erasure: its entry in the Ledger and its certificate are that one's.
"""

from typing import Any, Final

import sqlalchemy as sa

from ingestion import collections
from ingestion.documents import Document, Documents
from ingestion.erasure import Erasure
from ingestion.errors import DocumentError, NotFoundError
from ingestion.rows import document
from ingestion.states import COMING, NEVER, PAUSED, State
from ingestion.stores import UNATTACHED
from residency.database import Database
from residency.decision import Principal

CAUSE: Final = "paused"
_ON_THE_WAY: Final = tuple(str(state) for state in COMING)
_GIVEN_UP: Final = frozenset({*_ON_THE_WAY, State.FAILED, State.QUARANTINED})


class Pausing:
    """Pauses, resumes and cancels. Who resumes wakes the workers."""

    def __init__(self, *, database: Database, erasure: Erasure) -> None:
        self.database = database
        self.documents = Documents(database)
        self.erasure = erasure

    def document(self, tenant: str, document_id: str, *, paused: bool) -> None:
        """Pause or resume one Document on its way to live; again is harmless.

        Raises `NotFoundError`, and `DocumentError` for one on which nobody works.
        """
        newest, c = self.documents.get(tenant, document_id), document.c
        if newest.state not in _ON_THE_WAY:
            raise DocumentError(
                f"nobody works on a document that is {newest.state}", hint="only one on its way to live can be paused"
            )
        mine = (c.tenant_id == tenant, c.id == document_id, c.version == newest.version, c.state.in_(_ON_THE_WAY))
        clock = self.database.clock()
        with self.database.transaction() as connection:
            if paused:
                self._take_away(connection, *mine)
                held: dict[str, Any] = {"cause": CAUSE, "not_before": PAUSED}
                connection.execute(sa.update(document).where(*mine, c.not_before < NEVER).values(held))
            else:
                free = {"cause": "", "not_before": clock, "retries": 0, "updated": clock}
                connection.execute(sa.update(document).where(*mine, c.cause == CAUSE).values(free))

    def all(self, tenant: str, *, paused: bool, collection: str = "") -> None:
        """Pause or resume a Collection, or everything of a tenant; again is harmless.

        Raises `NotFoundError` for a Collection that is not there.
        """
        c, turns, sets = document.c, collections.tenant_turn, collections.collection
        with self.database.transaction() as connection:
            mine = [c.tenant_id == tenant]
            if collection:
                found = sa.and_(sets.c.tenant_id == tenant, sets.c.name == collection, sets.c.name != UNATTACHED)
                identifier = connection.execute(sa.select(sets.c.id).where(found)).scalar()
                if identifier is None:
                    raise NotFoundError("there is no such collection", hint="list your documents to see theirs")
                connection.execute(sa.update(sets).where(found).values(paused=paused))
                mine.append(c.collection_id == identifier)
            else:
                collections.turn(connection, tenant)
                connection.execute(sa.update(turns).where(turns.c.tenant_id == tenant).values(paused=paused))
            if paused:
                self._take_away(connection, *mine)

    def _take_away(self, connection: sa.Connection, *which: sa.ColumnElement[bool]) -> None:
        c = document.c
        free = {"lease_owner": None, "lease_until": None, "lease_epoch": c.lease_epoch + 1, "attempts": 0}
        held = (c.lease_owner.is_not(None), c.state.in_(_ON_THE_WAY))
        connection.execute(sa.update(document).where(*which, *held).values(free | {"updated": self.database.clock()}))

    async def cancel(self, principal: Principal, document_id: str) -> Document:
        """Give up a Document that never went live: it is erased, and the certificate follows.

        Raises `NotFoundError`, `HoldError`, and `DocumentError` where a version of it is or was live.
        """
        return await self.erasure.erase(principal, document_id, also=_unborn)


def _unborn(_connection: sa.Connection, rows: list[Any]) -> None:
    """Refuse, in the commit that would begin it, where there is more to lose than what is on its way."""
    erasing = {State.ERASING, State.ERASED}
    if not all(row.state in _GIVEN_UP or row.state in erasing for row in rows):
        raise DocumentError(
            "only a document that never went live can be cancelled",
            hint="erase it, which takes every version; or let the new version come in",
        )
