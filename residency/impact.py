"""Impact: what a new PolicySet would change, and whether its every Permit keeps the promises.

Both run over one product of Asks (tenants × Actions × Sites × residencies × origins × categories × classes and so on),
sampled by a fixed seed. Invariants are plain Python over the Zone graph and never ask Cedar: a mistake in a rule cannot
vouch for itself. Health is not that of the moment: Sites are taken as verified, and some Asks as if closed.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from residency.decision import Ask, Basis, Principal
from residency.fleet import Fleet, Site
from residency.policy import PolicySet, Ruling, World
from residency.route import Action
from residency.tag import Tag
from residency.zones import Zones

PLAINTEXT: Final = frozenset({Action.EMBED, Action.OPEN, Action.GENERATE})
SAMPLE: Final = 4_000
"""Asks ruled on at most: under a second each for the old and the new set."""
_EXAMPLES: Final = 10
_CEILINGS: Final = {"wide": frozenset({"GDPR-ADEQUATE", "US"}), "narrow": frozenset({"DE"})}
_RESIDENCIES: Final = (("EU",), ("DE",), ("EEA", "US"), ("GDPR-ADEQUATE",), ())
_ORIGINS: Final = ("FR", "DE", "DE-BY", "CH")


@dataclass(frozen=True, slots=True)
class Question:
    """One Ask of the product with the facts that its invariants look at; `stale`: as if its Site were closed."""

    ask: Ask
    site: Site
    stale: bool
    now: datetime

    @property
    def tag(self) -> Tag:
        """Its only Tag."""
        return self.ask.tags[0]


@dataclass(frozen=True, slots=True)
class Change:
    """One Ask that the new set rules on differently."""

    question: Question
    before: Ruling
    after: Ruling


@dataclass(frozen=True, slots=True)
class Impact:
    """The difference of two sets: Asks ruled on, how many turned each way, and up to ten examples of each."""

    asked: int
    newly_permitted: int
    newly_refused: int
    examples: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Violation:
    """A Permit that breaks an invariant: a set that gives one must not be activated."""

    invariant: str
    question: Question
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """Asks ruled on, how many were permitted, and every Permit that breaks an invariant."""

    asked: int
    permitted: int
    violations: tuple[Violation, ...]


def diff(
    old: PolicySet,
    new: PolicySet,
    zones: Zones,
    fleet: Fleet,
    *,
    new_zones: Zones | None = None,
    now: datetime | None = None,
    sample: int = SAMPLE,
) -> Impact:
    """Rule on the same Asks under both sets; `new_zones` compares two Zone tables as well (an edge removed).

    Raises `PolicyError` when either set reports an error on some Ask.
    """
    now = now or datetime.now(UTC)
    questions = list(_questions(fleet, now, sample))
    before = _Court(old, zones, fleet, now)
    after = _Court(new, new_zones or zones, fleet, now)
    changes = [
        Change(question, was, will)
        for question in questions
        if (was := before.rule(question)).allowed != (will := after.rule(question)).allowed
    ]
    opened = [change for change in changes if change.after.allowed]
    closed = [change for change in changes if not change.after.allowed]
    examples = (*opened[:_EXAMPLES], *closed[:_EXAMPLES])
    return Impact(len(questions), len(opened), len(closed), examples)


def check(
    policy: PolicySet, zones: Zones, fleet: Fleet, *, now: datetime | None = None, sample: int = SAMPLE
) -> Checked:
    """Hold every Permit of the product against every invariant."""
    now = now or datetime.now(UTC)
    zones = zones.at(now)
    court = _Court(policy, zones, fleet, now)
    asked = permitted = 0
    violations: list[Violation] = []
    for question in _questions(fleet, now, sample):
        asked += 1
        ruling = court.rule(question)
        if ruling.allowed:
            permitted += 1
            broken = (name for name, holds in INVARIANTS.items() if not holds(question, zones))
            violations += [Violation(name, question, ruling.policies) for name in broken]
    return Checked(asked, permitted, tuple(violations))


class _Court:
    """One PolicySet with its facts prepared twice: every Site verified, and every Site closed."""

    def __init__(self, policy: PolicySet, zones: Zones, fleet: Fleet, now: datetime) -> None:
        self._policy = policy
        zones = zones.at(now)
        verified, closed = Fleet(fleet.sites.values()), Fleet(fleet.sites.values())
        for name in fleet.sites:
            verified.verify(name, bound=True, until=now + timedelta(hours=1))
        self._bases = {False: policy.world(zones, verified, now), True: policy.world(zones, closed, now)}
        self._worlds: dict[tuple[Principal, bool], World] = {}

    def rule(self, question: Question) -> Ruling:
        key = (question.ask.principal, question.stale)
        if key not in self._worlds:
            self._worlds[key] = self._bases[question.stale].admitting(question.ask.principal, _CEILINGS)
        return self._policy.rule(self._worlds[key], question.ask, question.tag, question.now)


def _questions(fleet: Fleet, now: datetime, sample: int) -> Iterator[Question]:
    """Give the product of Asks, or a sample of it that is the same on every run."""
    day = timedelta(days=1)
    axes: tuple[tuple[object, ...], ...] = (
        tuple(Principal(f"app-{name}", name, frozenset({"search"})) for name in _CEILINGS),
        tuple(_CEILINGS),
        tuple(Action),
        tuple(fleet.sites.values()),
        tuple(frozenset(codes) for codes in _RESIDENCIES),
        tuple(frozenset({code}) for code in _ORIGINS),
        (frozenset(), frozenset({"health"})),
        (1, 3),
        (True, False),
        ("search", "search", "profiling"),
        (None, Basis("45", "a decision", now + day), Basis("45", "a decision", now - day)),
        (False, False, False, True),
    )
    picked = random.Random(1)  # noqa: S311 - the same sample on every run, nothing secret
    whole = 1
    for axis in axes:
        whole *= len(axis)
    for combination in itertools.product(*axes) if whole <= sample else (_draw(axes, picked) for _ in range(sample)):
        yield _question(combination, now)


def _draw(axes: tuple[tuple[object, ...], ...], picked: random.Random) -> tuple[object, ...]:
    return tuple(picked.choice(axis) for axis in axes)


def _question(combination: tuple[object, ...], now: datetime) -> Question:
    principal, tenant, action, site, residency, origin, categories, level, personal, activity, basis, stale = (
        combination
    )
    tag = Tag(origin, residency, personal, categories, level)  # type: ignore[arg-type]
    ask = Ask(principal, action, site.id, (tag,), activity, tenant, basis)  # type: ignore[arg-type,attr-defined]
    return Question(ask, site, bool(stale), now)  # type: ignore[arg-type]


# --- invariants: each is true of every Permit -----------------------------------------------------------------------


def _inside(question: Question, zones: Zones, *outer: str) -> bool:
    return any(zones.within(code, zone) for code in question.site.zones_at(question.now) for zone in outer)


def _in_residency(question: Question, zones: Zones) -> bool:
    beyond = question.ask.action in {Action.TRANSFER, Action.ERASE}
    return beyond or _inside(question, zones, *question.tag.residency)


def _transfer_on_basis(question: Question, zones: Zones) -> bool:
    basis = question.ask.basis
    return question.ask.action is not Action.TRANSFER or (
        basis is not None and question.now < basis.expires and _inside(question, zones, "GDPR-ADEQUATE")
    )


def _plaintext_in_eea(question: Question, zones: Zones) -> bool:
    shows = question.ask.action in PLAINTEXT and question.tag.personal
    return not shows or _inside(question, zones, "EEA")


def _german_health_in_germany(question: Question, zones: Zones) -> bool:
    german = any(zones.within(code, "DE") for code in question.tag.jurisdictions)
    bound = german and "health" in question.tag.categories and question.ask.action is not Action.ERASE
    return not bound or _inside(question, zones, "DE")


def _own_tenant(question: Question, _: Zones) -> bool:
    return question.ask.tenant == question.ask.principal.tenant


def _inside_ceiling(question: Question, zones: Zones) -> bool:
    erases = question.ask.action is Action.ERASE
    return erases or _inside(question, zones, *_CEILINGS[question.ask.principal.tenant])


def _nothing_stale(question: Question, _: Zones) -> bool:
    return question.ask.action is Action.ERASE or not question.stale


def _secret_under_european_control(question: Question, zones: Zones) -> bool:
    free = question.tag.classification < 3 or question.ask.action is Action.ERASE
    owners = (question.site.operator.zone, question.site.parent.zone)
    return free or all(zones.within(zone, "EEA") for zone in owners)


def _registered_activity(question: Question, _: Zones) -> bool:
    return question.ask.action is Action.ERASE or question.ask.activity in question.ask.principal.activities


INVARIANTS: Final[dict[str, Callable[[Question, Zones], bool]]] = {
    "inside the residency": _in_residency,
    "a transfer on a basis to an adequate Zone": _transfer_on_basis,
    "personal data in the clear inside the EEA alone": _plaintext_in_eea,
    "German health data in Germany": _german_health_in_germany,
    "own tenant": _own_tenant,
    "inside the tenant's ceiling": _inside_ceiling,
    "nothing on stale evidence": _nothing_stale,
    "class 3 under an operator and parent in the EEA": _secret_under_european_control,
    "a registered activity": _registered_activity,
}
"""What must be true of every Permit, by the words that `domicile policy check` prints."""
