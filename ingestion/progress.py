"""Progress: how far work on a Document, a Collection or all of a tenant is, and when it may be done.

Everything comes from the rows' counters, weighed by the bytes of the originals; no text, name or key is needed. The
pace is what was finished in the last ten minutes, so it holds whatever share of the workers the tenant gets.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from ingestion import collections
from ingestion.documents import way_done
from ingestion.rows import document
from ingestion.states import COMING, State
from residency.database import Database

LOOK_BACK: Final = 600.0
"""Seconds in which finished work tells the pace."""
_COUNTED: Final = (*COMING, State.LIVE, State.QUARANTINED, State.FAILED)


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts by state; `done` 0 to 1 by bytes; `eta_s` seconds that are left, None while no pace is known."""

    states: dict[str, int]
    bytes_total: int
    done: float
    bytes_per_s: float
    eta_s: float | None
    paused: bool

    def facts(self) -> dict[str, Any]:
        """Give the wire form."""
        return {
            "object": "work",
            "states": self.states,
            "waiting": sum(count for state, count in self.states.items() if state in COMING),
            "bytes": self.bytes_total,
            "progress": round(self.done, 4),
            "bytes_per_s": round(self.bytes_per_s, 1),
            "eta_s": None if self.eta_s is None else round(self.eta_s, 1),
            "paused": self.paused,
        }


def progress(
    database: Database, tenant: str, *, groups: frozenset[str] | None, collection_id: str = "", document_id: str = ""
) -> Progress:
    """Sum up what is on its way and what came to an end; `groups` None sees all, else only what they may find."""
    c, share = document.c, sa.cast(document.c.passages_done, sa.Float) / sa.func.nullif(document.c.passages_total, 0)
    mine = [c.tenant_id == tenant, c.state.in_([str(state) for state in _COUNTED])]
    if groups is not None:
        named = [c.groups.contains(json.dumps(group), autoescape=True) for group in sorted(groups)]
        mine.append(sa.or_(c.groups == "[]", *named))
    here = [*mine]
    if collection_id:
        here.append(c.collection_id == collection_id)
    if document_id:
        here.append(c.id == document_id)
    within = sa.func.coalesce(sa.func.sum(c.bytes_total * sa.func.coalesce(share, 0.0)), 0.0)
    counted = sa.select(c.state, sa.func.count(), sa.func.sum(c.bytes_total), within).where(*here).group_by(c.state)
    turns, sets = collections.tenant_turn, collections.collection
    with database.reading() as connection:
        now = float(connection.execute(sa.select(database.clock())).scalar_one())
        rows = connection.execute(counted).all()
        lately = connection.execute(
            sa.select(sa.func.sum(c.bytes_total), sa.func.min(c.created)).where(
                *mine, c.state == State.LIVE, c.updated > now - LOOK_BACK
            )
        ).one()
        stopped = bool(connection.execute(sa.select(turns.c.paused).where(turns.c.tenant_id == tenant)).scalar())
        if collection_id and not stopped:
            stopped = bool(connection.execute(sa.select(sets.c.paused).where(sets.c.id == collection_id)).scalar())
        if document_id and not stopped:
            stopped = bool(connection.execute(sa.select(c.id).where(*here, c.cause == "paused")).first())
    total = sum(int(size or 0) for _, _, size, _ in rows)
    done = left = 0.0
    for state, _, summed, inside in rows:
        size = int(summed or 0)
        ahead = way_done(State(state), float(inside) / size if size else 0.0)
        ended = 1.0 if state in (State.FAILED, State.QUARANTINED) else ahead  # nothing more comes of it by itself
        done += size * ended
        left += size * (1.0 - ended)
    finished, began = float(lately[0] or 0), float(lately[1] or now)
    pace = finished / max(1.0, now - max(began, now - LOOK_BACK)) if finished else 0.0
    eta = 0.0 if not left else left / pace if pace and not stopped else None
    return Progress(
        {str(state): int(count) for state, count, _, _ in rows},
        total,
        done / total if total else 1.0,
        pace,
        eta,
        stopped,
    )
