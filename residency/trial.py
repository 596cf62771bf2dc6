"""Trial: everything that is looked at before rules are put in force: lint, worked cases, invariants, and what changes.

Rules kept here: a Rulebook that does not load, does not fit the Fleet, or knows not every Zone that held documents name
raises, with file and remedy; whatever else is wrong is listed, all of it at once. What changes is counted over the
product and over the documents actually held; whether that widens anything decides how many officers it takes.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from residency.cases import CaseResult, run_cases
from residency.decision import Ask, Principal
from residency.engine import Engine
from residency.errors import PolicyError, ZoneError
from residency.fleet import Fleet
from residency.impact import Checked, HeldChange, Impact, Progress, check, diff, held
from residency.lint import Finding, lint
from residency.policy import PolicySet
from residency.retention import Retention
from residency.route import Action
from residency.rulebook import RETENTION, Rulebook
from residency.tag import Tag
from residency.zones import Zones

Rows = Mapping[str, Iterable[Mapping[str, Any]]]
"""Placement rows by tenant, as the inventory gives them."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What was found. `good` says whether the rules may be put in force at all."""

    policy: PolicySet
    zones: Zones
    findings: tuple[Finding, ...]
    cases: int
    failed: tuple[CaseResult, ...]
    checked: Checked
    retention: tuple[str, ...] = ()
    """What is wrong with `retention.toml`."""

    @property
    def good(self) -> bool:
        """Whether nothing was found."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """Everything found, one sentence each."""
        lines = [str(finding) for finding in self.findings]
        lines += [f"cases/{each.file}: {each.name}: wanted {each.wanted}, got {each.got}" for each in self.failed]
        lines += self.retention
        first = {each.invariant: each for each in reversed(self.checked.violations)}
        for name, each in first.items():
            count = sum(other.invariant == name for other in self.checked.violations)
            by = ", ".join(each.policies) or "no policy"
            lines.append(f"invariant “{name}” broken by {count} asks, such as: {each.question}; by {by}")
        return lines


@dataclass(frozen=True, slots=True)
class Consequence:
    """What putting other rules in force would change: over the product, and for the documents held."""

    impact: Impact
    held: tuple[HeldChange, ...]

    @property
    def widens(self) -> bool:
        """Whether anything is permitted that was not; such a change takes a second officer."""
        return self.impact.widens or any(change.permitted for change in self.held)

    def documents(self, *, permitted: bool, tenant: str | None = None) -> int:
        """Count the documents concerned by what is newly permitted, or else newly refused."""
        most: dict[tuple[str, Tag], int] = {}
        for change in self.held:
            if change.permitted == permitted and tenant in (None, change.tenant):
                key = change.tenant, change.tag
                most[key] = max(most.get(key, 0), change.documents)
        return sum(most.values())

    def facts(self, tenant: str | None = None) -> dict[str, Any]:
        """Give the counts as JSON-able data, as the Ledger records them; documents of one tenant alone when named."""
        return {
            "asked": self.impact.asked,
            "newly_permitted": self.impact.newly_permitted,
            "newly_refused": self.impact.newly_refused,
            "newly_permitted_beyond_fleet": self.impact.beyond,
            "documents_newly_permitted": self.documents(permitted=True, tenant=tenant),
            "documents_newly_refused": self.documents(permitted=False, tenant=tenant),
        }


def examine(
    book: Rulebook,
    fleet: Fleet,
    *,
    tenants: Collection[str] | None = None,
    rows: Rows | None = None,
    now: datetime,
    progress: Progress | None = None,
) -> Trial:
    """Look at a Rulebook from all sides. Raises `PolicyError`, `ZoneError`, `SiteError` for one that cannot stand."""
    zones = book.zones(now)
    policy = PolicySet(book.rules(), zones)
    book.tagging(zones)
    Engine(zones, policy, Fleet(fleet.sites.values()), clock=lambda: now)
    tags = _tags(rows or {})
    for tag in tags:
        for code in (*tag.jurisdictions, *tag.residency):
            if not zones.known(code):
                raise ZoneError(
                    f"zones.toml does not know {code}, which held documents name", hint="keep it there, with its edges"
                )
    results = run_cases(book, zones=zones)
    if not results:
        raise PolicyError("the policies folder has no worked case", hint="copy cases/residency.toml and fleet.toml")
    findings = lint(policy, zones, fleet, tenants=tenants, now=now)
    failed = tuple(result for result in results if not result.passed)
    checked = check(policy, zones, fleet, now=now, held=tags, progress=progress)
    kept = Retention.parse(book.files.get(RETENTION, b"")).lint(zones, tenants=tenants)
    return Trial(policy, zones, tuple(findings), len(results), failed, checked, tuple(kept))


def consequence(
    old: PolicySet,
    old_zones: Zones,
    new: PolicySet,
    new_zones: Zones,
    fleet: Fleet,
    *,
    rows: Rows,
    ceilings: Mapping[str, frozenset[str]],
    now: datetime,
    progress: Progress | None = None,
) -> Consequence:
    """Count what would change from the old rules and Zones to the new."""
    kept = {tenant: list(placed) for tenant, placed in rows.items()}
    found = diff(old, new, old_zones, fleet, new_zones=new_zones, now=now, held=_tags(kept), progress=progress)
    return Consequence(found, held(old, new, old_zones, fleet, kept, ceilings, new_zones=new_zones, now=now))


def _tags(rows: Rows) -> tuple[Tag, ...]:
    return tuple(dict.fromkeys(Tag.of(dict(row)) for placed in rows.values() for row in placed))


def answerable(engine: Engine, tenants: Iterable[str]) -> None:
    """Put each Action at each Site to rules that come into force untried, as at a start from a folder.

    A clause that errs at run time makes every ask fail that reaches it: raises `PolicyError` with its id. One tenant
    stands for all that have no clause of their own. A clock that is set back is told elsewhere, by whoever asks.
    """
    own = engine.policy.tenants
    known = sorted(tenants)
    chosen = [name for name in known if name in own] + [name for name in known if name not in own][:1]
    for tenant in chosen:
        who = Principal(id="start", tenant=tenant, activities=frozenset({"search"}))
        for site in engine.fleet.sites.values():
            tag = Tag(frozenset({site.zone}), frozenset({site.zone}))
            for action in Action:
                with suppress(ZoneError):
                    engine.decide(Ask(who, action, site.id, (tag,), activity="search"))
