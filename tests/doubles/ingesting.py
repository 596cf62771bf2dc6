"""The real parts of ingestion in one folder: engine with the shipped rules, file keys, Edge shards, folder vaults,
Ledger on SQLite or PostgreSQL. Only the embedder is a double, for speed; a test may hand in the real one."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ingestion.arrivals import Taken
from ingestion.claims import Claim
from ingestion.documents import Document, Documents
from ingestion.erasure import Erasure
from ingestion.forgetting import Forgetting
from ingestion.holds import Holds
from ingestion.intake import Intake, Refused
from ingestion.leases import Leases
from ingestion.pipeline import Pipeline
from ingestion.splitter import MOST_WORDS
from ingestion.worker import Worker
from residency.database import Database, metadata
from residency.decision import Principal
from residency.engine import Engine
from residency.fleet import Fleet
from residency.keyring import Keyring
from residency.ledger import Ledger
from residency.logkey import LogKey
from residency.outlets.keys.file import FileKeys
from residency.outlets.passing import passing
from residency.outlets.shards.edge import EdgeShard
from residency.outlets.vaults.folder import FolderVault
from residency.policy import PolicySet
from residency.ports import Embedder, Vectors
from residency.retention import Retention
from residency.route import Action, Route
from residency.zones import Zones

POLICIES = Path(__file__).parents[2] / "policies"
HOLDS = '[{kind="shard",url="edge:"},{kind="vault",url="folder:"},{kind="keys",url="file:"}EMBED]'
EVIDENCE = '[{grade=1,claim="place",source="declared",date=2026-01-01}]'
APP = Principal("app:intranet", "northwind", frozenset({"search", "indexing"}))


def site(name: str, zone: str, operator: str, *, embeds: bool = True) -> str:
    holds = HOLDS.replace("EMBED", ',{kind="embedder",url="bundled:"}' if embeds else "")
    owner = f'{{name="Example Hosting {operator}",zone="{operator}"}}'
    return f'[[site]]\nid="{name}"\nzone="{zone}"\noperator={owner}\nevidence={EVIDENCE}\nholds={holds}\n'


FLEET = site("fra", "DE", "DE") + site("par", "FR", "FR") + site("iad", "US", "US")


class HashEmbedder:
    """Words hashed into 384 dimensions; close texts share words, and nothing is loaded."""

    def __init__(self, site: str, *, max_tokens: int = 256) -> None:
        self.site, self.dimension, self.max_tokens = site, 384, max_tokens
        self.digest = "sha256:" + hashlib.sha256(b"words").hexdigest()
        self.embedded = 0

    async def embed(self, route: Route, texts: Sequence[str], *, question: bool = False) -> Vectors:
        async with passing(route, site=self.site, action=Action.EMBED, kind="embedder", count=len(texts)):
            self.embedded += len(texts)
            made = np.zeros((len(texts), self.dimension), dtype=np.float32)
            for row, text in zip(made, texts, strict=True):
                for word in text.lower().split():
                    row[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % self.dimension] += 1.0
                row /= max(float(np.linalg.norm(row)), 1e-6)  # noqa: PLW2901 - in place
            return made

    def count_tokens(self, text: str) -> int:
        return len(text.split()) + 2

    def forget(self) -> None: ...

    async def aclose(self) -> None: ...


@dataclass
class Ingesting:
    """Everything that a test of ingestion handles."""

    folder: Path
    database: Database
    engine: Engine
    keyring: Keyring
    ledger: Ledger
    shards: dict[str, EdgeShard]
    vaults: dict[str, FolderVault]
    embedders: dict[str, Any]
    documents: Documents
    leases: Leases
    intake: Intake
    pipeline: Pipeline
    erasure: Erasure
    worker: Worker
    forgetting: Forgetting
    holds: Holds
    retention: list[Retention]
    """The rules of retention in force, as its one element."""

    async def send(
        self, name: str, body: bytes, *, principal: Principal = APP, block: int = 65_536, **claim: Any
    ) -> Taken | Refused:
        """Send a body as an uploader would."""
        claim = {"jurisdictions": frozenset({"DE"}), "residency": frozenset({"EU"})} | claim
        return await self.intake.receive(blocks(body, block), Claim(name, **claim), principal, len(body))

    async def taken(self, name: str, body: bytes, **claim: Any) -> Taken:
        """Send a body that must be taken."""
        taken = await self.send(name, body, **claim)
        assert isinstance(taken, Taken)
        return taken

    def get(self, document_id: str, version: int | None = None, tenant: str = "northwind") -> Document:
        return self.documents.get(tenant, document_id, version)

    def files(self, site_id: str = "fra") -> list[str]:
        """Names of all sealed files at a Site, half-written ones included."""
        return sorted(p.name for p in (self.folder / site_id / "vault").rglob("*") if p.is_file())


async def blocks(body: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


@cache
def _rules() -> tuple[Zones, PolicySet]:
    zones = Zones.load(POLICIES / "zones.toml")
    return zones, PolicySet.load(POLICIES, zones)


def engine_over(fleet_text: str = FLEET, tenants: Sequence[str] = ("northwind", "southwind")) -> Engine:
    zones, policy = _rules()
    fleet = Fleet.parse(fleet_text, zones)
    for name in fleet.sites:
        fleet.verify(name, bound=True, until=datetime.now(UTC) + timedelta(hours=1))
    engine = Engine(zones, policy, fleet)
    for tenant in tenants:
        engine.admit(tenant, frozenset({"GDPR-ADEQUATE", "US"}))
    return engine


@asynccontextmanager
async def ingesting(
    folder: Path,
    *,
    fleet: str = FLEET,
    url: str = "",
    embedder: Embedder | None = None,
    embedders: Mapping[str, Embedder] | None = None,
    lease_seconds: float = 15.0,
    concurrency: int = 2,
    name: str = "worker-1",
    max_bytes: int = 4 * 1024 * 1024,
    index: bool = True,
    passage_words: int = MOST_WORDS,
) -> AsyncIterator[Ingesting]:
    """Build the parts over `folder`; opening the same folder again is a restart. Without `index` no shard runs."""
    logging.getLogger("ingestion").setLevel(logging.DEBUG)
    database = Database(url or f"sqlite:///{folder / 'domicile.sqlite'}")
    metadata.create_all(database.engine)
    engine = engine_over(fleet)
    sites = list(engine.fleet.sites)
    keys = {s: FileKeys(folder / s / "keys", site=s) for s in sites}
    keyring = Keyring(database, keys, mac_key=b"m" * 32)
    log_key = LogKey.load_or_create(folder / "ledger.key")
    ledger = Ledger(database, log_key, origin="test/ledger/1", digests=engine.digests, software="test")
    shards = {s: EdgeShard(s, folder / s / "shard", dimension=384) for s in sites if s != "iad"}
    vaults = {s: FolderVault(folder / s / "vault", site=s, stop=(0.0, 0), resume=(0.0, 0)) for s in sites}
    bodies = dict(embedders) if embedders else {s: embedder or HashEmbedder(s) for s in sites}
    leases = Leases(database, engine, name=name, seconds=lease_seconds)
    common: dict[str, Any] = {"database": database, "engine": engine, "keyring": keyring, "ledger": ledger}
    intake = Intake(**common, vaults=vaults, max_bytes=max_bytes)
    pipeline = Pipeline(
        **common, leases=leases, shards=shards, vaults=vaults, embedders=bodies, passage_words=passage_words
    )
    erasure = Erasure(**common, leases=leases, shards=shards, vaults=vaults)
    worker = Worker(leases=leases, pipeline=pipeline, erasure=erasure, sites=list(shards), concurrency=concurrency)
    intake.arrived = erasure.arrived = worker.wake
    retention = [Retention()]
    forgetting = Forgetting(erasure, lambda: (retention[0], engine.zones))
    await asyncio.gather(*(shard.start() for shard in shards.values() if index))
    try:
        yield Ingesting(
            folder, database, engine, keyring, ledger, shards, vaults, bodies,
            Documents(database), leases, intake, pipeline, erasure, worker,
            forgetting, Holds(database, ledger), retention,
        )  # fmt: skip
    finally:
        leases.close()
        for shard in shards.values() if index else ():
            await shard.aclose()
        database.close()
