"""Product: the Asks over which rules are checked, compared and found dead, made from what rules and Fleet name.

Every Tag × Site × Action, with everything else in order; then every deviation (another tenant, a narrow ceiling, an
unregistered activity, evidence run out, no basis or an ended one) at every Site and Action for a few Tags. Axes hold
what the rules name (tenants, Zones, categories, classes, activities, principals), the Tags actually held, and standing
foils: invented Sites abroad, so that a rule that protects from them is seen to work in a Fleet that has none.
"""

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final

from residency.decision import Ask, Basis, Principal
from residency.evidence import Evidence
from residency.fleet import Fleet, Operator, Site
from residency.invariants import Question
from residency.policy import Words
from residency.route import Action
from residency.tag import Tag
from residency.zones import Zones

TAGS: Final = 200
"""Made-up Tags at most; Tags actually held come on top."""
FOIL: Final = "foil-"
"""How the ids of foils begin; no Site of a Fleet may be called so in a report of impact."""
ACTIVITIES: Final = ("search", "indexing", "erasure")
UNREGISTERED: Final = "profiling"
_RESIDENCIES: Final = (("EU",), ("DE",), ("EEA", "US"), ("GDPR-ADEQUATE",), ())
_ORIGINS: Final = ("FR", "DE", "DE-BY", "CH", "US")
_ABROAD: Final = ("DE", "FR", "NO", "CH", "US", "IN")
_NAMED: Final = 12
"""Tenants and principals named by rules that get the pass of deviations; beyond that, clauses are tried singly."""


@dataclass(frozen=True)
class Product:
    """The axes. `ceilings` are those of the tenants it asks for; `sites` the Fleet's and the foils."""

    fleet: Fleet
    sites: tuple[Site, ...]
    tags: tuple[Tag, ...]
    few: tuple[Tag, ...]
    ceilings: dict[str, frozenset[str]]
    principals: tuple[Principal, ...]
    now: datetime
    actions: tuple[Action, ...] = tuple(Action)
    bases: tuple[Basis | None, ...] = field(default=(None,))

    @property
    def size(self) -> int:
        """How many Questions there are."""
        return sum(1 for _ in self.questions())

    def questions(self) -> Iterator[Question]:
        """Give every Question, the same and in the same order on every run; Tags vary slowest."""
        wide = self.principals[0]
        good = self.bases[-1]
        for tag, site, action in itertools.product(self.tags, self.sites, self.actions):
            yield self._question(
                wide, wide.tenant, action, site, tag, basis=good if action is Action.TRANSFER else None
            )
        for tag, site, action in itertools.product(self.few, self.sites, self.actions):
            for who in self.principals[1:]:
                yield self._question(who, who.tenant, action, site, tag, basis=good)
            yield self._question(wide, "narrow", action, site, tag, basis=good)
            yield self._question(wide, wide.tenant, action, site, tag, activity=UNREGISTERED, basis=good)
            for activity in ACTIVITIES[1:]:
                yield self._question(wide, wide.tenant, action, site, tag, activity=activity, basis=good)
            yield self._question(wide, wide.tenant, action, site, tag, stale=True, basis=good)
            for basis in self.bases[:-1]:
                yield self._question(wide, wide.tenant, action, site, tag, basis=basis)

    def _question(
        self,
        who: Principal,
        tenant: str,
        action: Action,
        site: Site,
        tag: Tag,
        *,
        activity: str = "search",
        basis: Basis | None = None,
        stale: bool = False,
    ) -> Question:
        ask = Ask(who, action, site.id, (tag,), activity, tenant, basis)
        return Question(ask, site, self.ceilings[who.tenant], stale, self.now)

    def drawn(self, seed: int, count: int) -> Iterator[Question]:
        """Give Questions drawn from all axes at once, the same on every run: for trying a single clause."""
        picked = random.Random(seed)  # noqa: S311 - the same sample on every run, nothing secret
        tenants = tuple(self.ceilings)
        activities = (*ACTIVITIES[:1] * 3, *ACTIVITIES[1:], UNREGISTERED, *self._texts())
        for _ in range(count):
            who = picked.choice(self.principals)
            tenant = who.tenant if picked.random() < 0.8 else picked.choice(tenants)
            yield self._question(
                who,
                tenant,
                picked.choice(self.actions),
                picked.choice(self.sites),
                picked.choice(self.tags),
                activity=picked.choice(activities),
                basis=picked.choice(self.bases),
                stale=picked.random() < 0.2,
            )

    def _texts(self) -> tuple[str, ...]:
        return tuple(sorted({name for who in self.principals for name in who.activities} - set(ACTIVITIES)))


def product(
    fleet: Fleet,
    zones: Zones,
    words: Words,
    *,
    held: Iterable[Tag] = (),
    now: datetime | None = None,
    tags: Sequence[Tag] | None = None,
    limit: int = TAGS,
    levels: Iterable[int] = (1, 3),
) -> Product:
    """Make the product for a Fleet and what the rules name; `tags` replaces the made-up ones, `held` adds to them.

    `levels` are classes to try beside those that the rules name.
    """
    now = now or datetime.now(UTC)
    sites = (*fleet.sites.values(), *_foils(zones, words))
    wide = frozenset({"GDPR-ADEQUATE", "US", "IN", *(site.zone for site in sites)})
    ceilings = {"wide": zones.outermost(wide), "narrow": frozenset({"DE"})}
    ceilings |= dict.fromkeys(sorted(words.tenants)[:_NAMED], ceilings["wide"])
    activities = frozenset(ACTIVITIES) | words.texts
    principals = [Principal(f"app-{name}", name, activities) for name in ceilings]
    principals += [Principal(name, "wide", activities) for name in sorted(words.principals)[:_NAMED]]
    made = tuple(tags) if tags is not None else _tags(zones, words, limit, levels)
    year = timedelta(days=365)
    bases = (None, Basis("45", "a decision", now - year), Basis("45", "a decision", now + year))
    everything = tuple(dict.fromkeys((*made, *held)))
    return Product(
        fleet, sites, everything, made[:: max(1, len(made) // 6)], ceilings, tuple(principals), now, bases=bases
    )


def _tags(zones: Zones, words: Words, limit: int, levels: Iterable[int]) -> tuple[Tag, ...]:
    """Give every combination of the axes, or as many of them as `limit`, drawn the same way on every run."""
    places = sorted(code for code in words.zones if zones.kind(code) == "place")
    origins = tuple(dict.fromkeys((*_ORIGINS, *places[:40])))
    known = sorted(text for text in words.texts if text not in ACTIVITIES)
    categories = [frozenset[str](), frozenset({"health"}), *(frozenset({name}) for name in known)]
    if len(known) > 1:
        categories.append(frozenset({*known, "health"}))
    classes = {*levels, *(number for number in words.numbers if 0 <= number <= 4)}
    axes = (
        tuple(frozenset(codes) for codes in _RESIDENCIES),
        tuple(frozenset({code}) for code in origins),
        tuple(dict.fromkeys(categories)),
        tuple(sorted(classes)),
        (True, False),
    )
    whole = [Tag(origin, residency, personal, chosen, level) for residency, origin, chosen, level, personal in
             itertools.product(*axes)]  # fmt: skip
    if len(whole) <= limit:
        return tuple(whole)
    return tuple(random.Random(1).sample(whole, limit))  # noqa: S311 - the same sample on every run


def _foils(zones: Zones, words: Words) -> list[Site]:
    """Give invented Sites: one for each Zone that matters, under owners from inside and from abroad, of every grade."""
    named = sorted(code for code in words.zones if zones.kind(code) == "place" and code not in _ABROAD)
    codes = [code for code in (*_ABROAD, *named[:6]) if zones.known(code)]
    found = []
    for number, code in enumerate(codes):
        grade = (5, 1, 2, 6, 3, 0)[number % 6]
        evidence = (Evidence(grade, "place", "invented for the check", date(2020, 1, 1)),)
        owner = Operator("Example Hosting", code)
        found.append(Site(f"{FOIL}{code.lower()}", (code,), owner, owner, evidence=evidence))
    abroad, here = Operator("Example Compute Inc.", "US"), Operator("Beispiel GmbH", "DE")
    found.append(Site(f"{FOIL}de-rented", ("DE",), here, abroad))
    found.append(Site(f"{FOIL}fr-operated", ("FR",), abroad, abroad))
    if zones.known("US-DPF"):
        found.append(Site(f"{FOIL}us-dpf", ("US", "US-DPF"), abroad, abroad))
    return found
