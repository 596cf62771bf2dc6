"""Reporting: gathers a tenant's Receipts and inventory into a Report, signs it, and gives it in any format.

Rules kept here: the master is built once and signed; a report is itself recorded in the Ledger, by its digest, before
it is given out; every other format is drawn from the master, so no two of them can differ in a number. The Ledger is
walked once, Receipt by Receipt, whatever the kind.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, Protocol

from residency import registers, report
from residency.decision import Clause
from residency.exhibits import CERTIFICATE
from residency.fleet import Fleet
from residency.ledger import Ledger
from residency.receipt import Draft, canonical, new_id, stamp
from residency.retention import Retention
from residency.violations import Violations
from residency.watch import Watch
from residency.zones import Zones
from service.errors import InvalidRequestError
from service.rendering.drawing import KINDS, Rendered, formats_of, render

FORMAT: Final = "domicile-report/v1"
Progress = Callable[[int, int], None]
"""Told how many Receipts of how many were read."""
EVERY: Final = 1000
"""Receipts between two words of progress."""


class Inventory(Protocol):
    """What lies where; `ingestion.documents` is the body."""

    def placement(self, tenant: str) -> list[dict[str, Any]]:
        """Give rows of jurisdictions, residency, personal, categories, classification, site, documents, passages,
        bytes; one row per distinct Tag and Site, live documents only.
        """
        ...


class Rules(Protocol):
    """Fleet and Zones in force; `engine.Engine` is the body."""

    @property
    def fleet(self) -> Fleet:
        """The Sites."""
        ...

    @property
    def zones(self) -> Zones:
        """The places in law."""
        ...


class Kept(Protocol):
    """What was ever in force, by digest; `rulestore.Archive` is the body."""

    def zones(self, digest: str) -> Zones | None:
        """Give a table of Zones, None where it is not kept."""
        ...

    def clauses(self, digests: Iterable[str], zones: Zones) -> tuple[Mapping[str, Clause], Sequence[str]]:
        """Give the clauses of policy sets, and the digests of those that are not kept."""
        ...


@dataclass(frozen=True, slots=True)
class About:
    """What the head of a report says of the organisation; the operator writes it in the settings."""

    organisation: str = ""
    role: str = "controller"
    contact: str = ""


class Reporting:
    """Makes reports. `about` gives the organisation's facts by tenant, `by_hand` what people wrote for the registers;
    `horizon` is how long backups of keys may live, `build` the digest of this program.
    """

    def __init__(
        self,
        ledger: Ledger,
        inventory: Inventory,
        rules: Rules,
        kept: Kept,
        *,
        watch: Callable[[], Watch] = Watch,
        retention: Callable[[], Retention] = Retention,
        violations: Violations | None = None,
        erasures: Callable[[str, str], Awaitable[dict[str, Any]]] | None = None,
        by_hand: Callable[[], Mapping[str, Any]] = dict,
        horizon: timedelta = timedelta(days=30),
        build: str = "",
        about: Callable[[str], About] = lambda _tenant: About(),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger = ledger
        self._inventory = inventory
        self._rules = rules
        self._kept = kept
        self._watch = watch
        self._retention = retention
        self._violations = violations
        self._erasures = erasures
        self._by_hand = by_hand
        self._horizon = horizon
        self._about = about
        self._build = build
        self._clock = clock

    async def residency(
        self, tenant: str, since: datetime, until: datetime, *, requested_by: str = ""
    ) -> dict[str, Any]:
        """Give the signed residency report of a tenant from `since` up to, without, `until`; see `make`."""
        return await self.make("residency", tenant, since, until, requested_by=requested_by)

    async def make(
        self,
        kind: str,
        tenant: str,
        since: datetime,
        until: datetime,
        *,
        requested_by: str = "",
        document: str = "",
        progress: Progress = lambda _done, _whole: None,
    ) -> dict[str, Any]:
        """Give a signed report with its own Receipt and proof; `oscal` is made from a residency report.

        `document` (32 hex digits) is whose recipients, or whose erasure's certificate, is wanted.
        Raises `InvalidRequestError` for an unknown kind or id, or when the period ends before it begins, `LedgerError`
        when it cannot be recorded.
        """
        if kind not in KINDS:
            raise InvalidRequestError("no such kind of a report", param="kind", hint="one of " + ", ".join(KINDS))
        if until <= since:
            raise InvalidRequestError("the period ends before it begins", param="to", hint="swap from and to")
        named = re.fullmatch(r"[0-9a-f]{32}", document) is not None
        if (document and not named) or {"recipients": False, "certificate": not named}.get(kind, bool(document)):
            raise InvalidRequestError(
                "`document` is an id, for recipients and certificates", param="document", hint="list documents first"
            )
        if kind == "certificate":
            return await self._certificate(tenant, document)
        run = self._ledger.database.run
        return await run(self._make, kind, tenant, since, until, requested_by, document, progress)

    async def _certificate(self, tenant: str, document: str) -> dict[str, Any]:
        """Give the signed certificate of an erasure, with the proof of the erasure's own entry; nothing is recorded."""
        if self._erasures is None:
            raise InvalidRequestError("there are no erasures here", param="kind", hint="ask the service that erases")
        found = await self._erasures(tenant, document)
        if found["state"] != "complete":
            raise InvalidRequestError("the erasure is not complete", param="document", hint="ask again later")
        return await self._ledger.database.run(self._certified, tenant, found)

    def _certified(self, tenant: str, found: dict[str, Any]) -> dict[str, Any]:
        now, ledger = self._clock(), self._ledger
        completed = datetime.fromisoformat(found["completed"])
        head = self._head(tenant, completed, completed + timedelta(seconds=1), "", now)
        master = {"schema": CERTIFICATE, "head": head.facts(()), "erasure": found, "verify": list(report.HOW)}
        bundle = ledger.bundle(tenant, found["receipt"])
        return {"format": FORMAT, "report": master, "signatures": [ledger.sign(canonical(master))], "receipt": bundle}

    def _make(
        self,
        kind: str,
        tenant: str,
        since: datetime,
        until: datetime,
        requested_by: str,
        document: str,
        progress: Progress,
    ) -> dict[str, Any]:
        ledger, now = self._ledger, self._clock()
        # 1. Everything stored so far gets its place, so that the last checkpoint covers the period.
        ledger.sequence()
        head = self._head(tenant, since, until, requested_by, now)
        # 2. The master.
        master = self._master(kind, head, document, progress)
        # 3. Recorded before it is given out; 4. signed, with the proof of its own entry.
        facts = {"from": stamp(since), "to": stamp(until)}
        return signed(ledger, tenant, master, event="report", subject=head.id, facts=facts)

    def _head(self, tenant: str, since: datetime, until: datetime, requested_by: str, now: datetime) -> report.Head:
        ledger, about = self._ledger, self._about(tenant)
        first, last = ledger.span(since, min(until, now))
        return report.Head(
            id=new_id(now.timestamp()),
            tenant=tenant,
            since=since,
            until=until,
            generated=now,
            software=ledger.software,
            origin=ledger.origin,
            vkey=ledger.vkey,
            build=self._build,
            organisation=about.organisation,
            role=about.role,
            contact=about.contact,
            requested_by=requested_by,
            first=first,
            last=last,
            witnesses=ledger.cosigned(),
        )

    def _master(self, kind: str, head: report.Head, document: str, progress: Progress) -> dict[str, Any]:
        zones = self._rules.zones
        known = report.Known(
            fleet=self._rules.fleet,
            zones=zones,
            tables=self._kept.zones,
            clauses=partial(self._kept.clauses, zones=zones),
            watch=self._watch(),
            retention=self._retention(),
        )
        if document:
            entries: Iterable[dict[str, Any]] = self._ledger.touching(head.tenant, document)
        else:
            entries = self._told(head, progress)
        if kind == "recipients":
            return registers.recipients(head, entries, known, document=document)
        counted = known.count(entries)
        if kind == "register":
            return registers.register(head, counted, known, self._by_hand(), self._horizon.days)
        if kind == "transfers":
            return registers.transfers(head, counted, known)
        rows = self._inventory.placement(head.tenant)
        kept = self._violations.listing(head.tenant, since=head.since, until=head.until) if self._violations else []
        return report.of(head, counted, rows, known, [each.facts() for each in kept])

    def _told(self, head: report.Head, progress: Progress) -> Iterator[dict[str, Any]]:
        whole, done = self._ledger.count(head.tenant, head.since, head.until), 0
        for done, entry in enumerate(self._ledger.entries(head.tenant, head.since, head.until), 1):
            if done % EVERY == 0:
                progress(done, max(done, whole))
            yield entry
        progress(done, done)

    async def file(
        self,
        tenant: str,
        since: str | None,
        until: str | None,
        form: str,
        *,
        requested_by: str,
        kind: str = "residency",
        document: str = "",
        progress: Progress = lambda _done, _whole: None,
    ) -> tuple[Rendered, str]:
        """Give a report as a file, and the id of its own Receipt; days such as `2026-03-31`, both included.

        Raises `InvalidRequestError` for a day that is none, before anything is recorded.
        """
        formats_of(kind, form)
        begin, end = period(since, until, self._clock())
        bundle = await self.make(
            kind, tenant, begin, end, requested_by=requested_by, document=document, progress=progress
        )
        return await render(bundle, form, kind=kind), str(bundle["receipt"]["receipt"]["id"])


def signed(
    ledger: Ledger, tenant: str, master: Mapping[str, Any], *, event: str, subject: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Record a master by its digest, sign it, and give the bundle that `domicile verify` reads."""
    body = canonical(master)
    said = {"event": event, "report": "sha256:" + hashlib.sha256(body).hexdigest(), **facts}
    stored = ledger.append(Draft("admin", tenant, "accountability", subject=subject, facts=said))
    return {
        "format": FORMAT,
        "report": master,
        "signatures": [ledger.sign(body)],
        "receipt": ledger.bundle(tenant, stored.id),
    }


def organisation(by_hand: Mapping[str, Any]) -> About:
    """Take the head's facts from the file that the registers are written in."""
    found = by_hand.get("controller", {})
    roles = {text.get("role") for text in by_hand.get("activity", {}).values()} - {"", None}
    contact = found.get("dpo") or found.get("contact") or ""
    return About(found.get("name", ""), "processor" if roles == {"processor"} else "controller", contact)


def period(since: str | None, until: str | None, now: datetime) -> tuple[datetime, datetime]:
    """Turn two days, both included and both optional, into instants in UTC; without any, everything up to now."""

    def day(text: str, param: str) -> datetime:
        try:
            return datetime.fromisoformat(text[:10]).replace(tzinfo=UTC)
        except ValueError as error:
            raise InvalidRequestError(f"`{param}` is no day", param=param, hint="write it like 2026-03-31") from error

    begin = day(since, "from") if since else datetime(2020, 1, 1, tzinfo=UTC)
    end = day(until, "to") + timedelta(days=1) if until else now + timedelta(seconds=1)
    return begin, end
