"""Violations: what was found where it may not be, from its beginning to its end, with whoever answered for it.

Rules kept here: one open record for one finding, however often it is seen; every change of state is in the Ledger
before it shows; nothing is deleted. States: open → acknowledged → excepted or resolved; a violation that comes again
after it was resolved is a new one. Who looks for violations (probes, reconciliation, reports) is elsewhere.
Evidence holds ids, codes and counts, for outsiders' eyes; what a person writes stays out of the Ledger.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from residency.database import Database, metadata
from residency.errors import NoViolationError, ViolationError
from residency.ledger import Ledger
from residency.receipt import Draft, canonical, new_id, stamp

CATEGORIES: Final = ("location", "transfer", "access", "key", "evidence", "service")
STATES: Final = ("open", "acknowledged", "excepted", "resolved")
NOTIFIABLE: Final = ("not assessed", "yes", "no")
"""Whether GDPR 33 asks for a notice: a person's finding, never ours."""
ACTIVITY: Final = "accountability"

violation = sa.Table(
    "violation",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("tenant", sa.String(63), nullable=False),
    sa.Column("category", sa.String(12), nullable=False),
    sa.Column("subject", sa.String(128), nullable=False),
    sa.Column("policy", sa.String(128), nullable=False),
    sa.Column("state", sa.String(12), nullable=False),
    sa.Column("begin", sa.String(24), nullable=False),
    sa.Column("detected", sa.String(24), nullable=False),
    sa.Column("seen", sa.String(24), nullable=False),
    sa.Column("resolved", sa.String(24)),
    sa.Column("evidence", sa.Text, nullable=False),
    sa.Column("remediation", sa.Text, nullable=False),
    sa.Column("acknowledged_by", sa.String(63), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("expires", sa.String(24)),
    sa.Column("subjects", sa.BigInteger),
    sa.Column("records", sa.BigInteger),
    sa.Column("notifiable", sa.String(12), nullable=False),
    sa.Column("receipt", sa.String(36), nullable=False),
    sa.Index(
        "uq_violation_open",
        "tenant",
        "category",
        "subject",
        "policy",
        unique=True,
        sqlite_where=sa.text("state <> 'resolved'"),
        postgresql_where=sa.text("state <> 'resolved'"),
    ),
)


@dataclass(frozen=True, slots=True)
class Violation:
    """One record. Times are texts as Receipts write them; `subjects` and `records` None where nobody knows."""

    id: str
    tenant: str
    category: str
    subject: str
    """An id: of a document, a Site, a Receipt, a request."""
    policy: str
    """Id of the clause, or the digest of the rules, that it goes against."""
    state: str
    begin: str
    detected: str
    seen: str
    """When it was last found."""
    resolved: str | None
    evidence: dict[str, Any]
    remediation: str
    acknowledged_by: str
    reason: str
    """Why it is excepted."""
    expires: str | None
    """When the exception ends."""
    subjects: int | None
    records: int | None
    notifiable: str
    receipt: str
    """The Ledger's entry of its last change."""

    def facts(self) -> dict[str, Any]:
        """Give every field as JSON-able data, as reports and the API show it."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "tenant"}


class Violations:
    """Keeps the records of one installation. All calls are synchronous; use `database.run`."""

    def __init__(
        self, database: Database, ledger: Ledger, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._clock = clock

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
    ) -> Violation:
        """Record a finding, or see again one that is open already; gives the record.

        `evidence` holds ids, codes and counts; `begin` is when it began, if that is known, else now.
        """
        if category not in CATEGORIES:
            raise ViolationError(f"no category of violations: {category}", hint="one of " + ", ".join(CATEGORIES))
        now = stamp(self._clock())
        mine = _open(tenant, category, subject, policy)
        with self._database.transaction() as connection:
            again = violation.update().where(mine).values(seen=now).returning(violation.c.id)
            known = connection.execute(again).scalar()
            if known is not None:
                return self._one(connection, tenant, known)
            id_ = new_id(self._clock().timestamp())
            shown = dict(evidence or {})
            facts = {"category": category, "about": subject, "policy": policy, "evidence": shown}
            row = {
                "id": id_,
                "tenant": tenant,
                "category": category,
                "subject": subject,
                "policy": policy,
                "state": "open",
                "begin": stamp(begin) if begin else now,
                "detected": now,
                "seen": now,
                "resolved": None,
                "evidence": canonical(shown).decode(),
                "remediation": remediation,
                "acknowledged_by": "",
                "reason": "",
                "expires": None,
                "subjects": subjects,
                "records": records,
                "notifiable": NOTIFIABLE[0],
                "receipt": self._record(connection, tenant, id_, "open", facts),
            }
            connection.execute(violation.insert(), row)
            return self._one(connection, tenant, id_)

    def acknowledge(self, tenant: str, id: str, *, by: str, notifiable: str = "") -> Violation:  # noqa: A002
        """Say that somebody has seen it; `notifiable` is their finding under GDPR 33, `yes` or `no`."""
        if notifiable and notifiable not in NOTIFIABLE:
            raise ViolationError("whether it is notifiable is yes or no", hint="say yes, no, or nothing yet")
        changes = {"acknowledged_by": by} | ({"notifiable": notifiable} if notifiable else {})
        return self._move(tenant, id, "acknowledged", ("open", "acknowledged"), changes)

    def excepted(self, tenant: str, id: str, *, by: str, reason: str, expires: datetime) -> Violation:  # noqa: A002
        """Bear with it until `expires`, for a reason that reports print."""
        if not reason or expires <= self._clock():
            raise ViolationError("an exception needs a reason and an end to come", hint="give both")
        changes = {"acknowledged_by": by, "reason": reason, "expires": stamp(expires)}
        return self._move(tenant, id, "excepted", ("open", "acknowledged", "excepted"), changes)

    def resolve(self, tenant: str, id: str, *, by: str, remediation: str) -> Violation:  # noqa: A002
        """Close it, saying what was done."""
        changes = {"remediation": remediation, "resolved": stamp(self._clock())}
        return self._move(tenant, id, "resolved", ("open", "acknowledged", "excepted"), changes, by=by)

    def gone(self, tenant: str, category: str, subject: str, *, policy: str = "", remediation: str) -> Violation | None:
        """Close a finding that a new look did not find again; None where none was open."""
        with self._database.reading() as connection:
            wanted = sa.select(violation.c.id).where(_open(tenant, category, subject, policy))
            known = connection.execute(wanted).scalar()
        return None if known is None else self.resolve(tenant, known, by="service", remediation=remediation)

    def standing(self, category: str, subject: str) -> list[Violation]:
        """Give every tenant's unresolved records of one subject, for whoever looks for its end."""
        c = violation.c
        wanted = sa.select(violation).where(c.category == category, c.subject == subject, c.state != "resolved")
        with self._database.reading() as connection:
            return [_of(row) for row in connection.execute(wanted)]

    def get(self, tenant: str, id: str) -> Violation:  # noqa: A002
        """Give one record; raises `NoViolationError`, the same for a foreign id as for an unknown one."""
        with self._database.reading() as connection:
            return self._one(connection, tenant, id)

    def listing(
        self, tenant: str, *, state: str = "", since: datetime | None = None, until: datetime | None = None
    ) -> list[Violation]:
        """List records, oldest first; with a period, those that were unresolved at some time in it."""
        c = violation.c
        wanted = sa.select(violation).where(c.tenant == tenant)
        if state:
            if state not in STATES:
                raise ViolationError("no such state of a violation", hint="one of " + ", ".join(STATES))
            wanted = wanted.where(c.state == state)
        if since is not None:
            wanted = wanted.where(sa.or_(c.resolved.is_(None), c.resolved >= stamp(since)))
        if until is not None:
            wanted = wanted.where(c.begin < stamp(until))
        with self._database.reading() as connection:
            return [_of(row) for row in connection.execute(wanted.order_by(c.detected, c.id))]

    # --- rows ---

    def _move(
        self, tenant: str, id_: str, state: str, before: tuple[str, ...], changes: Mapping[str, Any], *, by: str = ""
    ) -> Violation:
        c = violation.c
        with self._database.transaction() as connection:
            wanted = sa.select(violation).where(c.tenant == tenant, c.id == id_).with_for_update()
            row = connection.execute(wanted).first()
            if row is None:
                raise NoViolationError("there is no such violation", hint="list them to see their ids")
            if row.state not in before:
                raise ViolationError(
                    f"the violation is {row.state}", hint=f"only {' or '.join(before)} becomes {state}"
                )
            facts: dict[str, Any] = {"category": row.category, "by": by, **changes}
            texts: dict[str, bytes] = {
                name: facts.pop(name).encode() for name in ("reason", "remediation") if name in facts
            }
            receipt = self._record(connection, tenant, id_, state, facts, texts)
            connection.execute(violation.update().where(c.id == id_).values(**changes, state=state, receipt=receipt))
            return self._one(connection, tenant, id_)

    def _record(
        self,
        connection: sa.Connection,
        tenant: str,
        id_: str,
        state: str,
        facts: Mapping[str, Any],
        texts: Mapping[str, bytes] | None = None,
    ) -> str:
        """Record a change; what a person wrote is committed to, not written out."""
        shown = {"event": "violation", "state": state, **facts}
        draft = Draft("admin", tenant, ACTIVITY, commits=texts or {}, subject=id_, facts=shown)
        return self._ledger.append(draft, connection).id

    def _one(self, connection: sa.Connection, tenant: str, id_: str) -> Violation:
        wanted = sa.select(violation).where(violation.c.tenant == tenant, violation.c.id == id_)
        row = connection.execute(wanted).first()
        if row is None:
            raise NoViolationError("there is no such violation", hint="list them to see their ids")
        return _of(row)


def _open(tenant: str, category: str, subject: str, policy: str) -> sa.ColumnElement[bool]:
    c = violation.c
    mine = (c.tenant == tenant, c.category == category, c.subject == subject, c.policy == policy)
    return sa.and_(*mine, c.state != "resolved")


def _of(row: Any) -> Violation:
    return Violation(**dict(row._mapping) | {"evidence": json.loads(row.evidence)})  # noqa: SLF001 - its public name
