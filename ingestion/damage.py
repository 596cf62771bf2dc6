"""Damage: what is sealed and does not open is a record with its Document's id, until it opens again or is made anew.

Found where something is opened: a Passage of a search, an original, a page. Rules kept here: the rest goes on being
served; what was erased meanwhile is no damage; a Document is made anew from its sealed original only after that was
seen to open, since one that answers in part is better than one that failed; every look leaves a Receipt.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa

from ingestion import collections
from ingestion.artefacts import Artefacts
from ingestion.documents import Document, of_row
from ingestion.errors import DamagedError
from ingestion.leases import ACTIVITY, worker_principal
from ingestion.rows import document
from ingestion.states import State
from residency import receipt
from residency.database import Database
from residency.decision import Ask, Refusal
from residency.engine import Engine
from residency.errors import KeyRefusedError, SealedError
from residency.journal import recording
from residency.keyring import Keyring
from residency.ledger import Ledger
from residency.ports import Vault
from residency.receipt import Draft
from residency.route import Action
from residency.violations import Violations

CATEGORY: Final = "service"
POLICY: Final = "sealed-damaged"
REMEDIES: Final[Mapping[str, str]] = {
    "passage": "indexed anew within the hour from its sealed original, if that opens",
    "file": "upload the original again, or restore a backup of the vault",
    "key": "upload the original again, or restore a backup of the database",
}
"""What may be damaged, and what to do about it."""


class Damage:
    """Keeps the records of damage, and mends what can be."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        keyring: Keyring,
        ledger: Ledger,
        vaults: Mapping[str, Vault],
        violations: Violations,
    ) -> None:
        self.database = database
        self.engine = engine
        self.keyring = keyring
        self.ledger = ledger
        self.vaults = vaults
        self.violations = violations

    async def found(self, version: Document, what: str) -> None:
        """Record that a `passage`, `file` or `key` of a version does not open; again is harmless."""
        await self.database.run(self._note, version.tenant, version.id, version.version, what)

    @asynccontextmanager
    async def watched(self, version: Document) -> AsyncIterator[None]:
        """Record what does not open within, and raise `DamagedError` with what to do."""
        try:
            yield
        except KeyRefusedError as error:
            await self.found(version, "key")
            raise DamagedError("the document's key does not open", hint=REMEDIES["key"]) from error
        except SealedError as error:
            await self.found(version, "file")
            raise DamagedError("the document's sealed file does not open", hint=REMEDIES["file"]) from error

    def _note(self, tenant: str, identifier: str, number: int, what: str) -> None:
        row = self._row(tenant, identifier, number)
        if row is None or row.state not in (State.LIVE, State.QUARANTINED):
            return  # erased or replaced since it was looked up
        evidence = {"damage": what, "site": row.site_id, "version": number}
        self.violations.found(
            tenant, CATEGORY, identifier, policy=POLICY, evidence=evidence, remediation=REMEDIES[what], records=1
        )

    async def settle(self) -> int:
        """Look again at every record: close what opens again or is no more, make anew what can be; gives how many."""
        done = 0
        for tenant in await self.database.run(self._tenants):
            for known in await self.database.run(self.violations.listing, tenant):
                if known.policy != POLICY or known.state == "resolved":
                    continue
                row = await self.database.run(self._row, tenant, known.subject, known.evidence["version"])
                if row is None or row.state not in (State.LIVE, State.QUARANTINED):
                    said = "that version is no more, or on its way to be made anew"
                elif not await self.whole(of_row(row), row.artefact_id):
                    continue
                elif known.evidence["damage"] != "passage":
                    said = "it opens again"
                elif await self.database.run(self.again, tenant, known.subject, known.evidence["version"]):
                    said = "its sealed original opens: indexed anew"
                else:
                    continue
                done += 1
                await self.database.run(self._close, tenant, known.subject, said)
        return done

    def _close(self, tenant: str, identifier: str, said: str) -> None:
        self.violations.gone(tenant, CATEGORY, identifier, policy=POLICY, remediation=said)

    async def whole(self, version: Document, artefact_id: bytes) -> bool:
        """Say whether key, original and text of a version open; False as well where the policy does not let us look.

        Raises what a Site or a key provider that is away raises.
        """
        who = worker_principal(version.site, version.tenant)
        decision = self.engine.decide(Ask(who, Action.OPEN, version.site, (version.tag,), activity=ACTIVITY))
        if isinstance(decision, Refusal) or version.site not in self.vaults:
            return False
        route, opens = decision.route, True
        with recording() as touches:
            try:
                dek = await self.keyring.open_dek(route, version.site, version.dek_id, version.tag.digest)
                held = Artefacts(self.vaults[version.site], dek, version.id, version.version)
                await held.original(route, artefact_id)
                await held.text(route)
            except (SealedError, KeyRefusedError):
                opens = False
        await self.ledger.record(
            Draft(
                kind="ingest",
                tenant=version.tenant,
                activity=ACTIVITY,
                tags=(version.tag,),
                steps=receipt.steps(touches, self.engine.fleet, datetime.now(UTC)),
                commits={"documents": [bytes.fromhex(version.id)]},
                facts={"stage": "examined", "version": version.version, "opens": opens},
            )
        )
        return opens

    def again(self, tenant: str, identifier: str, number: int) -> bool:
        """Put a live version back to its sealed original, for a worker to index anew; False where it is not live."""
        c = document.c
        values = {"state": State.SEALED, "passages_total": 0, "passages_done": 0, "attempts": 0, "retries": 0}
        with self.database.transaction() as connection:
            mine = sa.and_(c.tenant_id == tenant, c.id == identifier, c.state == State.LIVE, c.version == number)
            done = connection.execute(
                sa.update(document)
                .where(mine)
                .values(values | {"state_seq": c.state_seq + 1, "not_before": 0, "updated": self.database.clock()})
            )
            collections.changed(connection, tenant)
            return done.rowcount == 1

    async def mend(self, tenant: str, identifier: str, number: int) -> bool:
        """Index a live version anew if its sealed original opens; else record that it does not."""
        row = await self.database.run(self._row, tenant, identifier, number)
        if row is None or row.state != State.LIVE:
            return False
        if await self.whole(of_row(row), row.artefact_id):
            return await self.database.run(self.again, tenant, identifier, number)
        return False

    def _row(self, tenant: str, identifier: str, number: int) -> "sa.Row[tuple[object, ...]] | None":
        c = document.c
        with self.database.reading() as connection:
            mine = sa.and_(c.tenant_id == tenant, c.id == identifier, c.version == number)
            return connection.execute(sa.select(document).where(mine)).first()

    def _tenants(self) -> list[str]:
        with self.database.reading() as connection:
            return [str(row.tenant_id) for row in connection.execute(sa.select(collections.tenant_turn.c.tenant_id))]
