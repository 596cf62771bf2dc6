"""Reporting: gathers a tenant's Receipts and inventory into a Report, signs it, and gives it in any format.

Rules kept here: the master is built once and signed; a report is itself recorded in the Ledger, by its digest, before
it is given out; every other format is drawn from the master, so no two of them can differ in a number.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from residency import report
from residency.decision import Clause
from residency.fleet import Fleet
from residency.ledger import Ledger
from residency.receipt import Draft, canonical, new_id, stamp
from residency.zones import Zones
from service.errors import InvalidRequestError
from service.rendering import html, pdf, sheets

FORMAT: Final = "domicile-report/v1"


class Inventory(Protocol):
    """What lies where; `ingestion.documents` is the body."""

    def placement(self, tenant: str) -> list[dict[str, Any]]:
        """Give rows of jurisdictions, residency, personal, categories, classification, site, documents, passages,
        bytes; one row per distinct Tag and Site, live documents only.
        """
        ...


class Policies(Protocol):
    """The rules in force, for what they say; `policy.PolicySet` is the body."""

    @property
    def clauses(self) -> Mapping[str, Clause]:
        """Every clause by its id."""
        ...


class Rules(Protocol):
    """Fleet, Zones and policies in force; `engine.Engine` is the body."""

    @property
    def fleet(self) -> Fleet:
        """The Sites."""
        ...

    @property
    def zones(self) -> Zones:
        """The places in law."""
        ...

    @property
    def policy(self) -> Policies:
        """The rules."""
        ...


@dataclass(frozen=True, slots=True)
class About:
    """What the head of a report says of the organisation; the operator writes it in the settings."""

    organisation: str = ""
    role: str = "controller"
    contact: str = ""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A report as a file."""

    data: bytes
    media_type: str
    name: str


def _json(bundle: Mapping[str, Any]) -> bytes:
    return canonical(bundle) + b"\n"


FORMATS: Final[dict[str, tuple[str, Callable[[Mapping[str, Any]], bytes]]]] = {
    "json": ("application/json", _json),
    "html": ("text/html; charset=utf-8", html.page),
    "pdf": ("application/pdf", pdf.document),
    "csv": ("text/csv; charset=utf-8", sheets.csv_file),
    "xlsx": ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", sheets.workbook),
}
"""Media type and drawing of each format."""


class Reporting:
    """Makes residency reports. `about` gives the organisation's facts by tenant."""

    def __init__(
        self,
        ledger: Ledger,
        inventory: Inventory,
        rules: Rules,
        *,
        about: Callable[[str], About] = lambda _tenant: About(),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger = ledger
        self._inventory = inventory
        self._rules = rules
        self._about = about
        self._clock = clock

    async def residency(
        self, tenant: str, since: datetime, until: datetime, *, requested_by: str = ""
    ) -> dict[str, Any]:
        """Give the signed report of a tenant from `since` up to, without, `until`, with its own Receipt and proof.

        Raises `InvalidRequestError` when the period ends before it begins, `LedgerError` when it cannot be recorded.
        """
        if until <= since:
            raise InvalidRequestError("the period ends before it begins", param="to", hint="swap from and to")
        return await self._ledger.database.run(self._residency, tenant, since, until, requested_by)

    def _residency(self, tenant: str, since: datetime, until: datetime, requested_by: str) -> dict[str, Any]:
        ledger, rules, about, now = self._ledger, self._rules, self._about(tenant), self._clock()
        # 1. Everything stored so far gets its place, so that the last checkpoint covers the period.
        ledger.sequence()
        first, last = ledger.span(since, min(until, now))
        # 2. The master.
        head = report.Head(
            id=new_id(now.timestamp()),
            tenant=tenant,
            since=since,
            until=until,
            generated=now,
            software=ledger.software,
            origin=ledger.origin,
            vkey=ledger.vkey,
            organisation=about.organisation,
            role=about.role,
            contact=about.contact,
            requested_by=requested_by,
            first=first,
            last=last,
        )
        entries = ledger.entries(tenant, since, until)
        rows = self._inventory.placement(tenant)
        master = report.build(head, entries, rows, rules.fleet, rules.zones, rules.policy.clauses)
        # 3. Recorded before it is given out.
        body = canonical(master)
        facts = {
            "event": "report",
            "report": "sha256:" + hashlib.sha256(body).hexdigest(),
            "from": stamp(since),
            "to": stamp(until),
        }
        stored = ledger.append(Draft("admin", tenant, "accountability", subject=head.id, facts=facts))
        # 4. Signed, with the proof of its own entry.
        return {
            "format": FORMAT,
            "report": master,
            "signatures": [ledger.sign(body)],
            "receipt": ledger.bundle(tenant, stored.id),
        }

    async def file(
        self, tenant: str, since: str | None, until: str | None, form: str, *, requested_by: str
    ) -> tuple[Rendered, str]:
        """Give a report as a file, and the id of its own Receipt; days such as `2026-03-31`, both included.

        Raises `InvalidRequestError` for a day that is none, before anything is recorded.
        """
        if form not in FORMATS:
            raise InvalidRequestError(
                "no such format of a report", param="format", hint="one of " + ", ".join(sorted(FORMATS))
            )
        begin, end = period(since, until, self._clock())
        bundle = await self.residency(tenant, begin, end, requested_by=requested_by)
        return await self.render(bundle, form), str(bundle["receipt"]["receipt"]["id"])

    async def render(self, bundle: Mapping[str, Any], format: str) -> Rendered:  # noqa: A002 - the word of the contract
        """Draw a signed report as `json`, `html`, `pdf`, `csv` or `xlsx`; raises `InvalidRequestError` for others."""
        if format not in FORMATS:
            raise InvalidRequestError(
                "no such format of a report", param="format", hint="one of " + ", ".join(sorted(FORMATS))
            )
        media_type, draw = FORMATS[format]
        head = bundle["report"]["head"]
        days = "-to-".join(head["period"][end][:10] for end in ("from", "to"))
        data = await asyncio.to_thread(draw, bundle)
        return Rendered(data, media_type, f"residency-{head['tenant']}-{days}.{format}")


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
