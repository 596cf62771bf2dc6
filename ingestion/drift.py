"""Drift: what lies where it may not any more, what nobody owns, and what should be there and is not.

Rules kept here: it looks at rows and at the ids that shards list, never at content; whether a place is still permitted
is ruled as if every Site were open, since a closed Site is no violation; whatever is found becomes a record that stays
open until a later look does not find it; points without a Document are deleted at once, and a Document that lacks
points is indexed anew where its sealed original opens (`mend`); all else is for a person.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ingestion import collections, points
from ingestion.damage import Damage
from ingestion.leases import ACTIVITY, worker_principal
from ingestion.points import document_points
from ingestion.rows import document
from ingestion.states import State
from residency import receipt
from residency.database import Database, metadata
from residency.decision import Ask, Permit, Refusal
from residency.engine import Engine
from residency.errors import DomicileError, SiteError
from residency.fleet import Fleet
from residency.journal import recording
from residency.keyring import Keyring
from residency.keytables import search_keyset
from residency.ledger import Ledger
from residency.ports import PointFilter, Shard
from residency.receipt import Draft
from residency.route import Action, Route
from residency.tag import Tag

LYING: Final = (State.LIVE, State.QUARANTINED, State.FAILED, State.ARCHIVED, State.REPLACED)
"""Versions whose bytes lie at a Site and stay there."""


class Violations(Protocol):
    """Where findings are kept; `residency.violations` is the body."""

    def found(
        self,
        tenant: str,
        category: str,
        subject: str,
        *,
        policy: str = "",
        evidence: Mapping[str, Any] | None = None,
        begin: datetime | None = None,
        remediation: str = "",
        subjects: int | None = None,
        records: int | None = None,
    ) -> Any:
        """Record a finding, or see again one that is open."""
        ...

    def gone(self, tenant: str, category: str, subject: str, *, policy: str = "", remediation: str) -> Any:
        """Close a finding that was not found again."""
        ...

    def listing(self, tenant: str, *, state: str = "") -> list[Any]:
        """List records."""
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be: `misplaced`, `orphans` or `missing`."""

    kind: str
    tenant: str
    site: str
    subject: str
    policy: str = ""
    records: int = 0
    evidence: dict[str, Any] = field(default_factory=dict)
    remedy: str = ""

    def facts(self) -> dict[str, Any]:
        """Give it as JSON-able data."""
        names = ("kind", "tenant", "site", "subject", "policy", "records", "remedy")
        return {name: getattr(self, name) for name in names}


drift_looks = sa.Table(
    "drift_look",
    metadata,
    sa.Column("site", sa.String(63), primary_key=True),
    sa.Column("looked", sa.String(24), nullable=False),
)
"""When the drift watch last saw all of a Site: its rows, and the points of every owner there."""

CATEGORY: Final = {"misplaced": "location", "orphans": "location", "missing": "service"}


@dataclass(slots=True)
class Findings:
    """What one look found, what was mended, and where nobody could look."""

    found: list[Finding] = field(default_factory=list)
    mended: int = 0
    """Points without a Document that were deleted."""
    unseen: list[dict[str, str]] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """Give it as JSON-able data."""
        return {"found": [each.facts() for each in self.found], "mended": self.mended, "unseen": self.unseen}


class Drift:
    """Looks at every Site of this process."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        keyring: Keyring,
        ledger: Ledger,
        shards: Mapping[str, Shard],
        violations: Violations,
        damage: Damage,
    ) -> None:
        self.damage = damage
        self.database = database
        self.engine = engine
        self.keyring = keyring
        self.ledger = ledger
        self.shards = shards
        self.violations = violations

    async def check(self) -> Findings:
        """Look everywhere, record what is found and what is found no more, and delete what nobody owns."""
        done = Findings()
        # 1. Rows whose Tag does not permit their Site any more.
        for finding in await self.database.run(self._misplaced):
            done.found.append(finding)
        # 2. Index against rows, for each owner of points at each Site.
        for tenant, jurisdiction, site, epoch in await self.database.run(self._owners):
            try:
                await self._compare(done, tenant, jurisdiction, site, epoch)
            except DomicileError as error:
                done.unseen.append({"tenant": tenant, "site": site, "cause": error.code})
        # 3. Records, and that these Sites were looked at.
        await self.database.run(self._record, done)
        await self.database.run(self._looked, set(self.shards) - {each["site"] for each in done.unseen})
        return done

    async def mend(self) -> int:
        """Look, and index anew what lacks points or has damaged ones where its original opens; gives how many.

        A Site that is away is left for the next time.
        """
        done, again = await self.check(), 0
        for each in done.found:
            if each.kind == "missing":
                with contextlib.suppress(DomicileError):
                    again += await self.damage.mend(each.tenant, each.subject, each.evidence["version"])
        return again + await self.damage.settle()

    # --- places -------------------------------------------------------------------------------------------------------

    def _misplaced(self) -> list[Finding]:
        """Rule on every Tag at every Site that holds it, as if all Sites were open."""
        c = document.c
        by = (c.tenant_id, c.site_id, c.tag_class)
        query = sa.select(*by, sa.func.count().label("documents"), sa.func.sum(c.passages_total).label("passages"))
        query = query.where(c.state.in_([str(state) for state in LYING])).group_by(*by).order_by(*by)
        with self.database.reading() as connection:
            tags = collections.tags(connection)
            rows = connection.execute(query).all()
        rules, found = self._as_if_open({row.tenant_id for row in rows}), []
        for row in rows:
            tag = tags[row.tenant_id, row.tag_class]
            policy = self._against(rules, row.tenant_id, row.site_id, tag)
            if policy is None:
                continue
            evidence = {"tag": tag.facts(), "documents": row.documents, "passages": int(row.passages or 0)}
            found.append(
                Finding(
                    "misplaced",
                    row.tenant_id,
                    row.site_id,
                    f"{row.site_id}:{tag.digest.hex()[:32]}",
                    policy,
                    row.documents,
                    evidence,
                    f"move its {row.documents} documents with `domicile move`, or erase them",
                )
            )
        return found

    def _as_if_open(self, tenants: set[str]) -> Engine:
        """Make an engine over the same rules and facts with every Site open; no Route of it is ever used."""
        fleet = Fleet(self.engine.fleet.sites.values())
        for name in fleet.sites:
            fleet.verify(name, bound=True, until=datetime.now(UTC) + timedelta(days=1))
        made = Engine(self.engine.zones, self.engine.policy, fleet)
        for tenant in tenants:
            made.admit(tenant, self.engine.ceiling(tenant))
        return made

    @staticmethod
    def _against(rules: Engine, tenant: str, site: str, tag: Tag) -> str | None:
        """Give the clause that does not permit keeping this Tag there; None where it is permitted."""
        if site not in rules.fleet.sites:
            return "site-unknown"
        for action in (Action.STORE, Action.SEARCH):
            decision = rules.decide(Ask(worker_principal(site, tenant), action, site, (tag,), activity=ACTIVITY))
            if isinstance(decision, Refusal):
                return min(decision.policies, default="no-permit")
        return None

    # --- index against rows -------------------------------------------------------------------------------------------

    def _owners(self) -> list[tuple[str, str, str, int]]:
        """Every epoch there is: while search keys are rolled the points of two lie side by side."""
        c = search_keyset.c
        query = sa.select(c.tenant, c.jurisdiction, c.site_id, c.epoch)
        with self.database.reading() as connection:
            return [tuple(row) for row in connection.execute(query)]

    async def _compare(self, done: Findings, tenant: str, jurisdiction: str, site: str, epoch: int) -> None:
        shard = self.shards.get(site)
        if shard is None:
            done.unseen.append({"tenant": tenant, "site": site, "cause": "no_shard"})
            return
        tag = Tag(frozenset(jurisdiction.split("+")), frozenset({self.engine.fleet.site(site).zone}))
        routes = [self._route(action, tenant, site, tag) for action in (Action.OPEN, Action.SEARCH)]
        keys = await self.keyring.search_keys(
            routes[0], tenant=tenant, jurisdiction=jurisdiction, site=site, epoch=epoch
        )
        if keys is None:
            return
        where = PointFilter(owners=(keys.owner,))
        # Ids are written down before the first put: whatever is listed first and written nowhere then is nobody's.
        listed = set(await shard.ids(routes[1], where))
        written = await self.database.run(self._written, tenant, site)
        strays = await self._there(shard, routes[1], listed - set().union(*(ids for *_, ids in written)))
        if strays:
            gone = await self._mend(tenant, site, tag, sorted(strays))
            done.mended += gone
            evidence = {"jurisdiction": jurisdiction, "points": gone, "deleted": True}
            subject = f"{site}:{jurisdiction}"[:128]
            done.found.append(
                Finding("orphans", tenant, site, subject, "", gone, evidence, "deleted by the drift watch")
            )
        for identifier, version, origin, live, ids in written:
            if live != epoch or origin != jurisdiction or ids <= listed:
                continue
            lacking = ids - await self._there(shard, routes[1], ids)  # it may have become live since
            if lacking:
                evidence = {"version": version, "points": len(lacking), "of": len(ids)}
                remedy = (
                    "indexed anew within the hour if its original opens; `domicile sites drift --again` does it now"
                )
                done.found.append(Finding("missing", tenant, site, identifier, "", len(lacking), evidence, remedy))

    @staticmethod
    async def _there(shard: Shard, route: Route, ids: set[str]) -> set[str]:
        """Look once more at points that a listing did not settle."""
        return {point.id for point in await shard.retrieve(route, sorted(ids))} if ids else set()

    def _route(self, action: Action, tenant: str, site: str, tag: Tag) -> Route:
        decision = self.engine.decide(Ask(worker_principal(site, tenant), action, site, (tag,), activity=ACTIVITY))
        if isinstance(decision, Permit):
            return decision.route
        raise SiteError(f"looking at {site} is refused at present", site=site, hint="see `domicile sites list`")

    async def _mend(self, tenant: str, site: str, tag: Tag, strays: list[str]) -> int:
        with recording() as touches:
            gone = await self.shards[site].delete(self._route(Action.ERASE, tenant, site, tag), strays)
        steps = receipt.steps(touches, self.engine.fleet, datetime.now(UTC))
        facts = {"stage": "orphans", "site": site, "points": gone}
        await self.ledger.record(Draft("erase", tenant, ACTIVITY, tags=(tag,), steps=steps, facts=facts))
        return gone

    def _written(self, tenant: str, site: str) -> list[tuple[str, int, str, int | None, set[str]]]:
        """Give what each version at this Site may have put: id, version, origin, epoch (None: need not be there), ids.

        Those of a live version's present epoch must be there; what an older epoch put may have been replaced.
        """
        c, d = document_points.c, document.c
        columns = (c.id, c.version, c.epoch, c.points, d.jurisdiction, d.state, d.search_epoch)
        query = sa.select(*columns).join(document, sa.and_(d.id == c.id, d.version == c.version))
        with self.database.reading() as connection:
            rows = connection.execute(query.where(d.tenant_id == tenant, d.site_id == site)).all()
        return [
            (row.id, row.version, row.jurisdiction, live, set(points.spelt(row.points)))
            for row in rows
            for live in [row.epoch if row.state == State.LIVE and row.epoch == row.search_epoch else None]
        ]

    def again(self, finding: Finding) -> bool:
        """Put a live Document that lacks points back to its sealed original, for a worker to index anew."""
        return self.damage.again(finding.tenant, finding.subject, finding.evidence["version"])

    # --- records ------------------------------------------------------------------------------------------------------

    def _record(self, done: Findings) -> None:
        """Open a record for each finding, and close those of ours that were not found again where somebody looked."""
        seen: set[tuple[str, str, str, str]] = set()
        for each in done.found:
            category, evidence = CATEGORY[each.kind], {"drift": each.kind, "site": each.site, **each.evidence}
            seen.add((each.tenant, category, each.subject, each.policy))
            self.violations.found(
                each.tenant, category, each.subject, policy=each.policy,
                evidence=json.loads(json.dumps(evidence)), remediation=each.remedy, records=each.records,
            )  # fmt: skip
            if each.kind == "orphans":
                self.violations.gone(each.tenant, category, each.subject, remediation="points deleted")
        blind = {(each["tenant"], each["site"]) for each in done.unseen}
        for tenant in self._tenants():
            for known in self.violations.listing(tenant):
                kind = known.evidence.get("drift", "")
                if (
                    known.state == "resolved"
                    or not kind
                    or (tenant, known.category, known.subject, known.policy) in seen
                ):
                    continue
                if kind == "misplaced" or (tenant, known.evidence["site"]) not in blind:
                    self.violations.gone(
                        tenant, known.category, known.subject, policy=known.policy, remediation="not found again"
                    )

    def _looked(self, sites: set[str]) -> None:
        now, dialect = receipt.stamp(datetime.now(UTC)), sqlite if self.database.sqlite else postgresql
        with self.database.transaction() as connection:
            row = dialect.insert(drift_looks).on_conflict_do_update(index_elements=["site"], set_={"looked": now})
            for site in sorted(sites):
                connection.execute(row, {"site": site, "looked": now})

    def _tenants(self) -> list[str]:
        with self.database.reading() as connection:
            known = connection.execute(sa.select(collections.tenant_turn.c.tenant_id))
            return [str(row.tenant_id) for row in known]


def last_looks(database: Database) -> dict[str, str]:
    """Give when the drift watch last looked at each Site; one that is missing was never looked at."""
    with database.reading() as connection:
        return {row.site: row.looked for row in connection.execute(sa.select(drift_looks))}
