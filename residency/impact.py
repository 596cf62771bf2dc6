"""Impact: whether every Permit of a PolicySet keeps the promises, and what a new one would change.

Rules kept here: both rule on every Ask of `product.py`, none is left to chance; promises are those of `invariants.py`,
which never ask Cedar; health is not that of the moment: Sites are taken as verified, and some Asks as if closed.
`held` does the same over the documents actually held, at every Site of the Fleet.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from residency import facts
from residency.decision import Ask, Principal
from residency.errors import PolicyError
from residency.fleet import Fleet, Site
from residency.invariants import ERASABLE, INVARIANTS, NO_FAULT, Question, must_permit
from residency.policy import PolicySet, Ruling, World
from residency.product import ACTIVITIES, FOIL, Product, product
from residency.route import Action
from residency.tag import Tag
from residency.zones import Zones

Progress = Callable[[int, int], None]
"""Told how many Asks of how many were ruled on."""
EVERY: Final = 500
"""Asks between two reports of progress."""
EXAMPLES: Final = 10


@dataclass(frozen=True, slots=True)
class Change:
    """One Ask that the new set rules on differently."""

    question: Question
    before: Ruling
    after: Ruling

    def __str__(self) -> str:
        word = "newly permitted" if self.after.allowed else "newly refused"
        return f"{word}: {self.question}; by {', '.join(self.after.policies) or 'no permit any more'}"


@dataclass(frozen=True, slots=True)
class Impact:
    """The difference of two sets: Asks ruled on, how many turned each way, and up to ten examples of each.

    The first three count over the Fleet; `beyond` are those newly permitted at invented Sites abroad alone.
    """

    asked: int
    newly_permitted: int
    newly_refused: int
    beyond: int
    examples: tuple[Change, ...]

    @property
    def widens(self) -> bool:
        """Whether anything is permitted that was not."""
        return bool(self.newly_permitted or self.beyond)


@dataclass(frozen=True, slots=True)
class HeldChange:
    """What changes for documents actually held: `documents` of one tenant and Tag, for one Action at one Site."""

    tenant: str
    tag: Tag
    action: Action
    site: str
    documents: int
    permitted: bool
    """Newly permitted, else newly refused."""
    lies_there: bool
    """Whether those documents are stored at that Site."""
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Violation:
    """A ruling that breaks an invariant: a set that gives one must not be activated."""

    invariant: str
    question: Question
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """Asks ruled on, how many were permitted, and every ruling that breaks an invariant."""

    asked: int
    permitted: int
    violations: tuple[Violation, ...]


def check(
    policy: PolicySet,
    zones: Zones,
    fleet: Fleet,
    *,
    now: datetime | None = None,
    held: Iterable[Tag] = (),
    over: Product | None = None,
    progress: Progress | None = None,
) -> Checked:
    """Hold every ruling of the product against every invariant."""
    now = now or datetime.now(UTC)
    zones = zones.at(now)
    over = over or product(fleet, zones, policy.words, held=held, now=now)
    court = Court(policy, zones, over)
    asked = permitted = 0
    violations: list[Violation] = []
    for question in _counted(over, progress):
        asked += 1
        try:
            ruling = court.rule(question)
        except PolicyError:
            violations.append(Violation(NO_FAULT, question, ()))
            continue
        if ruling.allowed:
            permitted += 1
            broken = (name for name, holds in INVARIANTS.items() if not holds(question, zones))
            violations += [Violation(name, question, ruling.policies) for name in broken]
        elif must_permit(question):
            violations.append(Violation(ERASABLE, question, ruling.policies))
    return Checked(asked, permitted, tuple(violations))


def diff(
    old: PolicySet,
    new: PolicySet,
    zones: Zones,
    fleet: Fleet,
    *,
    new_zones: Zones | None = None,
    now: datetime | None = None,
    held: Iterable[Tag] = (),
    over: Product | None = None,
    progress: Progress | None = None,
) -> Impact:
    """Rule on the same Asks under both sets; `new_zones` compares two Zone tables as well (an edge removed).

    A clause that errors counts as refusing: it is a fault, and a fault never permits.
    """
    now = now or datetime.now(UTC)
    later = (new_zones or zones).at(now)
    zones = zones.at(now)
    over = over or product(fleet, zones, old.words.plus(new.words), held=held, now=now)
    before, after = Court(old, zones, over), Court(new, later, over)
    asked = 0
    opened: list[Change] = []
    closed: list[Change] = []
    beyond: list[Change] = []
    for question in _counted(over, progress):
        foil = question.site.id.startswith(FOIL)
        asked += not foil
        was, will = before.settle(question), after.settle(question)
        if was.allowed != will.allowed:
            change = Change(question, was, will)
            if not foil:
                (opened if will.allowed else closed).append(change)
            elif will.allowed:
                beyond.append(change)
    examples = (*opened[:EXAMPLES], *closed[:EXAMPLES], *(() if opened else beyond[:EXAMPLES]))
    return Impact(asked, len(opened), len(closed), len(beyond), examples)


def held(
    old: PolicySet,
    new: PolicySet,
    zones: Zones,
    fleet: Fleet,
    rows: Mapping[str, Iterable[Mapping[str, Any]]],
    ceilings: Mapping[str, frozenset[str]],
    *,
    new_zones: Zones | None = None,
    now: datetime | None = None,
) -> tuple[HeldChange, ...]:
    """Say what changes for the documents held: `rows` are the placement rows by tenant, as the inventory gives them."""
    now = now or datetime.now(UTC)
    later = (new_zones or zones).at(now)
    zones = zones.at(now)
    found: list[HeldChange] = []
    for tenant, placed in rows.items():
        who = Principal(f"app-{tenant}", tenant, frozenset(ACTIVITIES))
        totals: dict[Tag, dict[str, int]] = {}
        for row in placed:
            where = totals.setdefault(Tag.of(dict(row)), {})
            where[row["site"]] = where.get(row["site"], 0) + row["documents"]
        over = Product(fleet, tuple(fleet.sites.values()), tuple(totals), (), {tenant: ceilings[tenant]}, (who,), now)
        before, after = Court(old, zones, over), Court(new, later, over)
        for question in over.questions():
            was, will = before.settle(question), after.settle(question)
            if was.allowed != will.allowed:
                where, site = totals[question.tag], question.site.id
                there = bool(where.get(site))
                count = where[site] if there and not will.allowed else sum(where.values())
                by = will.policies
                found.append(
                    HeldChange(tenant, question.tag, question.ask.action, site, count, will.allowed, there, by)
                )
    return tuple(found)


class Court:
    """One PolicySet with its facts prepared twice: every Site verified, and every Site closed."""

    def __init__(self, policy: PolicySet, zones: Zones, over: Product) -> None:
        self._policy, self._zones, self._ceilings = policy, zones, over.ceilings
        sites: tuple[Site, ...] = over.sites
        verified, closed = Fleet(sites), Fleet(sites)
        for site in sites:
            verified.verify(site.id, bound=True, until=over.now + timedelta(hours=1))
        self._bases = {False: policy.world(zones, verified, over.now), True: policy.world(zones, closed, over.now)}
        self._worlds: dict[tuple[Principal, bool], World] = {}
        self._contexts: dict[tuple[object, ...], str] = {}
        self._tag: Tag | None = None

    def rule(self, question: Question) -> Ruling:
        """Rule on a Question. Raises `PolicyError` when a clause errors."""
        ask, tag = question.ask, question.tag
        key = (ask.principal, question.stale)
        if key not in self._worlds:
            self._worlds[key] = self._bases[question.stale].admitting(ask.principal, self._ceilings)
        if tag is not self._tag:  # Tags vary slowest
            self._tag = tag
            self._contexts.clear()
        told = (ask.tenant, ask.activity, ask.basis)
        if told not in self._contexts:
            self._contexts[told] = facts.context(self._zones, ask.tenant, tag, ask.activity, question.now, ask.basis)
        return self._policy.judge(self._worlds[key], _written(ask, self._contexts[told]), ask.principal.tenant)

    def settle(self, question: Question) -> Ruling:
        """Rule on a Question; a clause that errors refuses."""
        try:
            return self.rule(question)
        except PolicyError:
            return Ruling(False, ())


def _written(ask: Ask, context: str) -> dict[str, Any]:
    return {
        "principal": facts.uid("Principal", ask.principal.id),
        "action": facts.uid("Action", str(ask.action)),
        "resource": facts.uid("Site", ask.site),
        "context": context,
    }


def _counted(over: Product, progress: Progress | None) -> Iterable[Question]:
    if progress is None:
        yield from over.questions()
        return
    whole = over.size
    for number, question in enumerate(over.questions()):
        if number % EVERY == 0:
            progress(number, whole)
        yield question
    progress(whole, whole)
