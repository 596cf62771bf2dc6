"""Records: the commits in which a Document's row and its Ledger entry change together.

Rules kept here: there is never one without the other; the entry is appended first, so that a failing Ledger leaves the
row where it was; entries hold ids, codes and counts.
"""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from ingestion import attributes, collections, decisions
from ingestion.documents import Document, of_row
from ingestion.errors import IngestionError
from ingestion.leases import ACTIVITY, Leases
from ingestion.rows import document
from ingestion.states import RETAGGING, State
from ingestion.work import Work
from residency import receipt
from residency.database import Database
from residency.decision import Refusal
from residency.engine import Engine
from residency.errors import KeyringError
from residency.keytables import search_keyset
from residency.ledger import Ledger
from residency.protection import Protection
from residency.receipt import Draft
from residency.tag import Tag


class ModelChangedError(IngestionError):
    """The Collection holds vectors of another model; the two do not compare."""

    code = "model_changed"


class Records:
    """Writes a worker's results, synchronously; callers go through `database.run`."""

    def __init__(self, database: Database, leases: Leases, engine: Engine, ledger: Ledger) -> None:
        self.database = database
        self.leases = leases
        self.engine = engine
        self.ledger = ledger
        self._models: dict[str, str] = {}
        """A Collection's model never changes once it has one."""

    def before(self, work: Work) -> tuple[Document, bytes] | None:
        """Give the version that this one replaces with its sealed attributes; None where it has none, or this has."""
        c = document.c
        with self.database.reading() as connection:
            kept = attributes.kept(connection, [work["id"]])
            older = sa.and_(c.id == work["id"], c.version < work["version"])
            query = sa.select(document).where(older, sa.or_(c.state == State.LIVE, c.cause == RETAGGING))
            row = connection.execute(query.order_by(c.version.desc()).limit(1)).first()
        if row is None or (row.id, row.version) not in kept or (row.id, work["version"]) in kept:
            return None
        return of_row(row), kept[row.id, row.version]

    def live(self, work: Work, carried: bytes = b"") -> State:
        """Make a version live, the older one replaced, and record it. A newer live version makes this one replaced.

        `carried` are the older one's attributes, sealed anew.
        """
        c = document.c
        draft = self._draft(work, "live", passages=work["passages_total"])
        with self.database.transaction() as connection:
            others = connection.execute(
                sa.select(c.version, c.state).where(c.id == work["id"]).order_by(c.version).with_for_update()
            ).all()
            # Under search keys that were rolled just now it goes back, to be embedded under the new ones. Their row is
            # locked, so that a roll either waits for this commit or is seen here.
            k = search_keyset.c
            place = (
                k.tenant == work["tenant_id"],
                k.jurisdiction == work["jurisdiction"],
                k.site_id == work["site_id"],
            )
            using = sa.select(k.epoch).where(*place, k.state == "active").order_by(k.epoch.desc()).with_for_update()
            if connection.execute(using).scalars().first() != work["search_epoch"]:
                raise KeyringError("the search keys were rolled meanwhile", hint="it is indexed under the new ones")
            newer = any(row.version > work["version"] and row.state == State.LIVE for row in others)
            to = State.REPLACED if newer else State.LIVE
            self.ledger.append(draft, connection)
            if carried:
                attributes.carry(connection, work["id"], work["version"], carried)
            connection.execute(
                sa.update(document)
                .where(c.id == work["id"], c.version < work["version"])
                .where(sa.or_(c.state == State.LIVE, c.cause == RETAGGING))
                .values(
                    state=State.REPLACED,
                    cause="",
                    state_seq=c.state_seq + 1,
                    not_before=0,
                    updated=self.database.clock(),
                )
            )
            collections.changed(connection, work["tenant_id"])
            self.leases.move(work.lease, to, connection=connection, release=True)
        return to

    def end(self, work: Work, to: State, cause: str, **values: Any) -> None:
        """Leave the way to live: failed or quarantined, with a cause."""
        draft = self._draft(work, str(to), cause=cause)
        with self.database.transaction() as connection:
            self.ledger.append(draft, connection)
            self.leases.move(work.lease, to, connection=connection, release=True, cause=cause, **values)

    def wait(self, work: Work, refusal: Refusal) -> None:
        """The policy refuses at present: recorded once, then tried again with growing pauses."""
        if work["cause"] != "residency_denied":
            draft = self._draft(work, "waiting")
            draft.kind, draft.refused = "refusal", [refusal.facts()]
            self.ledger.append(draft)
        self.leases.release(work.lease, cause="residency_denied")

    def lately_live(self, most: int = 32) -> list[Document]:
        """Give the versions that became live last, at every Site."""
        c = document.c
        with self.database.reading() as connection:
            query = sa.select(document).where(c.state == State.LIVE).order_by(c.updated.desc()).limit(most)
            return [of_row(row) for row in connection.execute(query)]

    def settled(self, work: Work) -> bool:
        """Say whether a person decided this version's Tag."""
        with self.database.reading() as connection:
            return decisions.settled(connection, work["id"], work["version"])

    def tag_class(self, tenant: str, tag: Tag) -> int:
        """Give the number of a Tag."""
        with self.database.transaction() as connection:
            return collections.number(connection, tenant, tag)

    def one_model(self, collection_id: str, digest: str) -> None:
        """Let a Collection hold vectors of one model only; raises `ModelChangedError` for another."""
        if self._models.get(collection_id) == digest:
            return
        held = collections.collection
        mine = held.c.id == collection_id
        with self.database.reading() as connection:
            model = connection.execute(sa.select(held.c.model).where(mine)).scalar_one()
        if not model:
            with self.database.transaction() as connection:
                connection.execute(sa.update(held).where(mine, held.c.model == "").values(model=digest))
                model = connection.execute(sa.select(held.c.model).where(mine)).scalar_one()
        if model != digest:
            raise ModelChangedError("the collection holds vectors of another model")
        self._models[collection_id] = digest

    def protection(self, work: Work) -> Protection:
        """Give in what form the Passages of a Document lie at its shard."""
        held = collections.collection
        with self.database.reading() as connection:
            row = connection.execute(sa.select(held).where(held.c.id == work["collection_id"])).one()
        return collections.of_row(row).protection(work.tag)

    def _draft(self, work: Work, stage: str, **facts: Any) -> Draft:
        return Draft(
            kind="ingest",
            tenant=work["tenant_id"],
            activity=ACTIVITY,
            tags=tuple(sorted(work.tags, key=lambda tag: tag.digest)),
            steps=receipt.steps(work.touches, self.engine.fleet, now=datetime.now(UTC), reason="indexing"),
            commits={"documents": [work.subject]},
            facts={"stage": stage, "version": work["version"], "site": work["site_id"]} | facts,
        )
