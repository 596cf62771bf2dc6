"""House: the use-cases by name, as `bootstrap.domicile` built them; faces hold this and nothing deeper."""

import asyncio
from dataclasses import dataclass

from ingestion.backup import Backup
from ingestion.documents import Documents
from ingestion.drift import Drift
from ingestion.erasure import Erasure
from ingestion.forgetting import Forgetting
from ingestion.holds import Holds
from ingestion.intake import Intake
from ingestion.moving import Moving
from ingestion.pausing import Pausing
from ingestion.rekeying import Rekeying
from ingestion.restore import Restore
from ingestion.reviewing import Reviewing
from ingestion.uploads import Uploads
from ingestion.worker import Worker
from residency.database import Database
from residency.engine import Engine
from residency.keyring import Keyring
from residency.ledger import Ledger
from residency.ports import Embedder
from residency.violations import Violations
from service.accounts import Accounts
from service.answering import Answering
from service.catalogue import Catalogue
from service.custody import Custody
from service.errors import InvalidRequestError
from service.filing import Filing
from service.leaving import LeavingOut
from service.limits import Limits
from service.neighbours import Neighbours
from service.probing import Probing
from service.reconciling import Reconciling
from service.repeats import Repeats
from service.reporting import Reporting
from service.rulemaking import Rulemaking
from service.rulestore import Archive
from service.searching import Searching
from service.settings import Settings
from service.tending import Tending


@dataclass(frozen=True, slots=True)
class House:
    """Everything a face may call."""

    settings: Settings
    database: Database
    engine: Engine
    keyring: Keyring
    ledger: Ledger
    accounts: Accounts
    documents: Documents
    catalogue: Catalogue
    neighbours: Neighbours
    filing: Filing
    repeats: Repeats
    limits: Limits
    intake: Intake
    uploads: Uploads
    worker: Worker
    erasure: Erasure
    pausing: Pausing
    forgetting: Forgetting
    holds: Holds
    backup: Backup
    restore: Restore
    searching: Searching
    answering: Answering
    leaving: LeavingOut
    reporting: Reporting
    violations: Violations
    reconciling: Reconciling
    custody: Custody
    tending: Tending
    probing: Probing
    moving: Moving
    reviewing: Reviewing
    drift: Drift
    rekeying: Rekeying
    rulemaking: Rulemaking
    archive: Archive
    embedders: dict[str, Embedder]
    stopping: asyncio.Event
    """Set when the house closes; long streams end on it."""

    async def welcome(self, tenant: str) -> None:
        """Make a tenant known to the engine with its present ceiling; another process may have made it just now."""
        known = {each.id: each for each in await self.database.run(self.accounts.tenants)}
        if tenant not in known:
            raise InvalidRequestError(
                f"there is no tenant {tenant}", param="tenant", hint=f"domicile accounts tenant {tenant}"
            )
        self.engine.admit(tenant, known[tenant].ceiling)
