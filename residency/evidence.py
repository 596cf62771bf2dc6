"""Evidence: a dated, sourced ground for the place of a Site, with a grade.

A Site's grade is that of its best Evidence in force; the grade of a path is the lowest on it, and that is what receipts
and reports print. No grade proves physical place (docs/threat-model.md).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from datetime import date as Day  # noqa: N812 - a field is called date
from typing import Final

GRADES: Final[dict[int, str]] = {
    0: "none",
    1: "declared by the operator",
    2: "contract clause",
    3: "TLS certificate under that Zone's own trust root",
    4: "measured (round-trip bound, network number, provider metadata)",
    5: "audited by a third party",
    6: "hardware attestation bound to the place",
}
"""What each grade stands for, weakest first."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One ground: its grade (0-6), what it claims, where that stands, and the days from which and to which it holds."""

    grade: int
    claim: str
    source: str
    date: Day
    valid_until: Day | None = None

    def holds(self, now: datetime) -> bool:
        """Say whether it is in force: dated in the past and not expired. Both days are included, UTC."""
        day = now.astimezone(UTC).date()
        return self.date <= day and (self.valid_until is None or day <= self.valid_until)


def best(evidence: Iterable[Evidence], now: datetime) -> int:
    """Give the highest grade in force, 0 when there is none."""
    return max((item.grade for item in evidence if item.holds(now)), default=0)


def weakest(grades: Iterable[int]) -> int:
    """Give the grade of a path: the lowest of its Sites, 0 for an empty path."""
    return min(grades, default=0)


def next_change(evidence: Iterable[Evidence], now: datetime) -> datetime | None:
    """Give the next instant at which some Evidence begins or ends to hold, or None."""
    items = tuple(evidence)
    days = [item.date for item in items]
    days += [item.valid_until + timedelta(days=1) for item in items if item.valid_until is not None]
    instants = (datetime.combine(day, time(), UTC) for day in days)
    return min((instant for instant in instants if instant > now), default=None)
