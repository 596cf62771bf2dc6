"""What a search may touch: live Passages grouped by Site and origin, ruled on Tag by Tag, each reached or named.

A Passage of a Tag that the policy does not permit is in no group, and so in no filter.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ingestion.documents import ClassCount
from residency.decision import Ask, Permit, Principal, Refusal
from residency.engine import Engine
from residency.errors import KeyRefusedError, KeyringError, SiteError
from residency.lexicon import QuestionTokens
from residency.ports import Found
from residency.protection import USUAL, Protection
from residency.route import Action, Route
from residency.searchkeys import SearchKeys
from residency.tag import Tag

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Group:
    """Live passages that share origin, Site and form, and so share keys and a shard; only permitted classes."""

    site: str
    origin: str
    classes: tuple[ClassCount, ...]
    protection: Protection = USUAL
    """In what form all of it lies at the shard."""

    @property
    def tags(self) -> tuple[Tag, ...]:
        """The distinct Tags in it."""
        return tuple(dict.fromkeys(each.tag for each in self.classes))

    @property
    def languages(self) -> dict[str, int]:
        """Passages by language."""
        held: dict[str, int] = {}
        for each in self.classes:
            held[each.language] = held.get(each.language, 0) + each.passages
        return held


@dataclass(frozen=True, slots=True)
class Asked:
    """What one group's shard answered, with the keys and the blinded words it was asked with."""

    group: Group
    found: Found
    keys: SearchKeys
    tokens: QuestionTokens
    damaged: int = 0
    """Sealed vectors that did not open."""


@dataclass(frozen=True, slots=True)
class Ruled:
    """What may be searched, how much may not, why, and the Sites that are closed: those are not reached."""

    groups: tuple[Group, ...]
    withheld: int
    refusals: tuple[Refusal, ...]
    closed: tuple[str, ...]


def rule(
    engine: Engine,
    principal: Principal,
    asked: Tag,
    held: Sequence[ClassCount],
    activity: str,
    protection: Callable[[Tag], Protection],
) -> Ruled:
    """Rule on every Tag that is held, together with the question's own; `protection` is the Collection's."""
    groups: dict[tuple[str, str, Protection], list[ClassCount]] = {}
    withheld, refusals, closed = 0, list[Refusal](), set[str]()
    for tag_class in held:
        # the question itself goes to the shard, as a turned vector and blinded words: its own Tag must permit that
        asks = ((Action.SEARCH, (tag_class.tag, asked)), (Action.OPEN, (tag_class.tag,)))
        decisions = [engine.decide(Ask(principal, action, tag_class.site, tags, activity)) for action, tags in asks]
        refused = [decision for decision in decisions if isinstance(decision, Refusal)]
        if refused:
            refusals.append(refused[0])
            if engine.closed(tag_class.site):  # whether the policy permits it there is not the matter now
                closed.add(tag_class.site)
            else:
                withheld += tag_class.passages
        else:
            place = tag_class.site, tag_class.jurisdiction, protection(tag_class.tag)
            groups.setdefault(place, []).append(tag_class)
    made = tuple(Group(site, origin, tuple(each), form) for (site, origin, form), each in groups.items())
    return Ruled(made, withheld, tuple(refusals), tuple(sorted(closed)))


def pass_for(engine: Engine, principal: Principal, action: Action, group: Group, activity: str, *also: Tag) -> Route:
    """Give the Route to a group's Site for all its Tags. Raises `SiteError` when the Site closed meanwhile."""
    decision = engine.decide(Ask(principal, action, group.site, (*group.tags, *also), activity))
    if not isinstance(decision, Permit):  # cannot be: each Tag was permitted a moment ago
        raise SiteError(f"site {group.site} closed while the search ran", site=group.site, hint="try again")
    return decision.route


async def reach(site: str, story: Awaitable[T], within: float) -> T | str:
    """Give the Site's answer, or its id when it did not answer in time; never another Site instead."""
    try:
        async with asyncio.timeout(within):
            return await story
    except KeyRefusedError:
        raise  # the provider answered: this key does not open, and no waiting helps
    except (SiteError, KeyringError, TimeoutError):  # its keys live at the Site as its points do
        return site
