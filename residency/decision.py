"""What is put to the engine and what comes back: Ask, Permit, Refusal.

A Decision is a value. A Refusal says which clause forbade, or which condition of which permit failed, and the nearest
remedy; it travels as a value to the face that answers (`service/problems.py`), and is never raised.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from residency.route import Action, Route
from residency.tag import Tag


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking, as authenticated: an App, a Person, or our own worker, always of one tenant."""

    id: str
    tenant: str
    activities: frozenset[str] = frozenset({"search"})
    """Entries of the Art. 30 register this principal is registered for (GDPR 5(1)(b))."""
    scopes: frozenset[str] = frozenset()
    """ask, upload, review, report, admin: what the credential allows, before any ruling on data."""
    zone: str = ""
    """The Zone the asker stands in; the origin of its questions. Empty: the tenant's own."""
    groups: frozenset[str] = frozenset()
    """Access groups for documents that name some."""


@dataclass(frozen=True, slots=True)
class Basis:
    """The ground of a transfer: GDPR article, instrument number and the instant it ends."""

    article: str
    instrument: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class Ask:
    """May `principal` do `action` with data of these Tags at this Site, for this activity?

    Every Tag must be permitted for the Ask to be: one ruling per distinct Tag, joined with AND.
    `tenant` is the tenant the data belongs to; empty means the principal's own.
    """

    principal: Principal
    action: Action
    site: str
    tags: tuple[Tag, ...]
    activity: str = "search"
    tenant: str = ""
    basis: Basis | None = None


@dataclass(frozen=True, slots=True)
class Clause:
    """One policy as a person reads it: its id, what it says, and the law it rests on."""

    id: str
    explain: str
    law: str = ""


@dataclass(frozen=True, slots=True)
class Permit:
    """Allowed, by these policy ids, with the Route that outlets demand."""

    ask: Ask
    route: Route
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Not allowed.

    `clauses` are the forbid policies that decided; when there are none the default denied, and `why_not` maps each
    permit that could have allowed it to the first of its conditions that failed (as policy text).
    """

    ask: Ask
    clauses: tuple[Clause, ...] = ()
    why_not: dict[str, str] = field(default_factory=dict)
    tag: Tag | None = None
    """The Tag the refusal is about, when the Ask named several."""
    permitted: tuple[str, ...] = ()
    """Zones of the Fleet's Sites where the same Ask would be permitted."""
    remedy: str = ""
    """One sentence: the nearest change that would make it permitted."""

    @property
    def policies(self) -> tuple[str, ...]:
        """Ids of the clauses that forbade."""
        return tuple(clause.id for clause in self.clauses)

    def facts(self) -> dict[str, Any]:
        """Give what a receipt's `refused[]` and a problem's `reasons` are made from."""
        return {
            "action": str(self.ask.action),
            "site": self.ask.site,
            "tag": self.tag.facts() if self.tag else None,
            "policies": list(self.policies),
            "reasons": [{"policy": c.id, "text": c.explain, "law": c.law} for c in self.clauses],
            "why_not": dict(self.why_not),
            "permitted": list(self.permitted),
            "remedy": self.remedy,
        }


Decision = Permit | Refusal
