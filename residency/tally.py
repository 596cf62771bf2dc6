"""tally: what the Receipts of a period add up to; `counting.py` walks through them.

Only numbers are kept, and of events a list with an end: a tally grows with Sites, Tags, clauses and events, not with
Receipts. No IO.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from residency.zones import Zones


@dataclass(slots=True)
class Recipient:
    """An operator's Site to which data of an activity went: what was done there, how often, from when to when."""

    site: str
    kind: str
    zone: str
    operator: str
    operator_zone: str
    parent_zone: str
    actions: Counter[str] = field(default_factory=Counter)
    items: int = 0
    bytes: int = 0
    first: str = ""
    last: str = ""
    grade: int = 6


@dataclass(slots=True)
class Activity:
    """What one entry of the Art. 30 register did in the period."""

    receipts: int = 0
    first: str = ""
    last: str = ""
    recipients: dict[tuple[str, str], Recipient] = field(default_factory=dict)
    categories: set[str] = field(default_factory=set)
    jurisdictions: set[str] = field(default_factory=set)
    personal: bool = False
    transfers: int = 0
    abroad: set[str] = field(default_factory=set)
    """Zones of its recipients outside the EEA, by the law of their day."""
    unplaced: set[str] = field(default_factory=set)
    """Zones of which nobody can say that any more."""


@dataclass(slots=True)
class Tally:
    """What one walk through the Receipts gives.

    `flows` maps (action, Zone, ruling, digests of Tags) to [steps, items, bytes]; `tags` gives each of those Tags.
    """

    receipts: int = 0
    questions: int = 0
    searches: int = 0
    refusals: int = 0
    withheld: int = 0
    outside: int = 0
    probes: int = 0
    reconciled: int = 0
    lowest: int | None = None
    first_seq: int | None = None
    last_seq: int | None = None
    gaps: list[list[int]] = field(default_factory=list)
    flows: dict[tuple[str, str, str, tuple[str, ...]], list[int]] = field(default_factory=dict)
    tags: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    tables: dict[str, Zones | None] = field(default_factory=dict)
    """The tables of Zones that the Receipts name; None where one is not kept."""
    unjudged: Counter[str] = field(default_factory=Counter)
    """Items of steps that nobody can judge any more, by the digest of the table that is not kept."""
    read: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_policy: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    intervals: list[dict[str, Any]] = field(default_factory=list)
    transfers: list[dict[str, Any]] = field(default_factory=list)
    erasures: list[dict[str, Any]] = field(default_factory=list)
    keys: list[dict[str, Any]] = field(default_factory=list)
    violations: list[dict[str, Any]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """Events beyond `MOST_EVENTS`, by the list they are missing from."""
    activities: dict[str, Activity] = field(default_factory=dict)
    begun: dict[str, str] = field(default_factory=dict)
    lowest_by_path: dict[tuple[str, ...], int] = field(default_factory=dict)
    """Lowest grade by the path of an entry: its Sites, in the order of their ids."""
