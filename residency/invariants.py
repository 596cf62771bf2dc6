"""Invariants: what must be true of every Permit, in plain Python over the Zone graph.

Rules kept here: nothing asks Cedar, so a mistake in a rule cannot vouch for itself; each invariant looks at one
Question and says whether it may be permitted at all. Whoever changes one changes what the service promises.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from residency.decision import Ask
from residency.fleet import Site
from residency.route import Action
from residency.tag import Tag
from residency.zones import Zones

PLAINTEXT: Final = frozenset({Action.EMBED, Action.OPEN, Action.GENERATE})
"""Actions for which the text is in the clear at the Site."""


@dataclass(frozen=True, slots=True)
class Question:
    """One Ask of the product with the facts that its invariants look at; `stale`: as if its Site were closed."""

    ask: Ask
    site: Site
    ceiling: frozenset[str]
    stale: bool
    now: datetime

    @property
    def tag(self) -> Tag:
        """Its only Tag."""
        return self.ask.tags[0]

    def __str__(self) -> str:
        ask, tag = self.ask, self.tag
        parts = [
            f"{ask.action} at {ask.site} ({self.site.zone})",
            f"law {tag.origin or 'none'}",
            f"residency {'+'.join(sorted(tag.residency)) or 'nowhere'}",
            "personal" if tag.personal else "not personal",
            *sorted(tag.categories),
            f"class {tag.classification}",
        ]
        if ask.tenant != ask.principal.tenant:
            parts.append(f"asked by {ask.principal.tenant} of {ask.tenant}'s data")
        else:
            parts.append(f"tenant {ask.tenant}")
        if ask.activity not in ask.principal.activities:
            parts.append(f"for {ask.activity}, unregistered")
        if ask.basis is not None:
            parts.append("on a basis" if self.now < ask.basis.expires else "on a basis that has ended")
        if self.stale:
            parts.append("evidence run out")
        return ", ".join(parts)


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
    return question.ask.action is Action.ERASE or _inside(question, zones, *question.ceiling)


def _nothing_stale(question: Question, _: Zones) -> bool:
    return question.ask.action is Action.ERASE or not question.stale


def _secret_under_european_control(question: Question, zones: Zones) -> bool:
    free = question.tag.classification < 3 or question.ask.action is Action.ERASE
    owners = (question.site.operator.zone, question.site.parent.zone)
    return free or all(zones.within(zone, "EEA") for zone in owners)


def _registered_activity(question: Question, _: Zones) -> bool:
    return question.ask.action is Action.ERASE or question.ask.activity in question.ask.principal.activities


NO_FAULT: Final = "no permit rests on an erroring clause"
"""Held by the court itself: a ruling that Cedar reports an error with is never a Permit."""
ERASABLE: Final = "a tenant's own data can be erased everywhere"
"""Held of every Refusal: the one thing that rules may not forbid."""
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


def must_permit(question: Question) -> bool:
    """Say whether refusing this would take a right away: erasing one's own data (GDPR 17)."""
    return question.ask.action is Action.ERASE and question.ask.tenant == question.ask.principal.tenant
