"""The shipped rules over the Fleet of the worked cases, with a clock that tests move by hand."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from residency.decision import Ask, Principal
from residency.engine import Engine
from residency.fleet import Fleet
from residency.policy import PolicySet
from residency.route import Action
from residency.tag import Tag
from residency.zones import Zones

POLICIES = Path(__file__).parents[2] / "policies"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
SHOP = Principal("shop", "shop")


@cache
def zones() -> Zones:
    return Zones.load(POLICIES / "zones.toml", on=NOON)


@cache
def policy() -> PolicySet:
    return PolicySet.load(POLICIES, zones())


def fleet(*, verified: bool = True) -> Fleet:
    found = Fleet.load(POLICIES / "cases" / "fleet.toml", zones())
    for site in found.sites if verified else ():
        found.verify(site, bound=True, until=NOON + timedelta(hours=1))
    return found


def amended(old: str, new: str) -> PolicySet:
    """Give the shipped rules with one stretch of text replaced, wherever it stands."""
    text = policy().files["residency.cedar"].decode()
    assert old in text
    return PolicySet({**policy().files, "residency.cedar": text.replace(old, new).encode()}, zones())


@dataclass
class Clock:
    now: datetime = field(default=NOON)

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **span: float) -> None:
        self.now += timedelta(**span)


def engine(*, clock: Clock | None = None, over: Fleet | None = None, rules: PolicySet | None = None) -> Engine:
    made = Engine(zones(), rules or policy(), over or fleet(), clock=clock or Clock())
    made.admit("shop", frozenset({"GDPR-ADEQUATE"}))
    made.admit("bank", frozenset({"DE"}))
    return made


def tag(*residency: str, **facts: object) -> Tag:
    return Tag.of({**Tag(frozenset({"FR"}), frozenset(residency or {"EU"})).facts(), **facts})


def ask(action: Action = Action.SEARCH, site: str = "par", *tags: Tag, **facts: object) -> Ask:
    return Ask(**{"principal": SHOP, "action": action, "site": site, "tags": tags or (tag(),), **facts})  # type: ignore[arg-type]
