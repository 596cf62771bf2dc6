"""The engine against an oracle: the ten rules written once more, in plain Python that shares no code with it.

Fleets, Tags, principals and tables of Zones are made up; whatever they are, both must name the same policies.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from residency.decision import Ask, Basis, Permit, Principal, Refusal
from residency.engine import Engine
from residency.evidence import Evidence
from residency.fleet import Fleet, Operator, Site
from residency.policy import PolicySet
from residency.route import Action
from residency.tag import Tag
from residency.zones import Zones
from tests.doubles.rules import policy

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
PLACES = ("DE", "DE-BY", "FR", "NO", "CH", "US", "IN")
GROUPS = ("EU", "EEA", "GDPR-ADEQUATE")
SCHEME = "US-DPF"
CODES = (*PLACES, *GROUPS, SCHEME)
LADDER = ("DE-BY", "DE", "FR", "NO", "CH", "US-DPF", "US", "IN", "EU", "EEA", "GDPR-ADEQUATE")
"""Edges lead from left to right alone, so no table has a cycle."""


@dataclass(frozen=True)
class Edge:
    inner: str
    outer: str
    first: date
    last: date | None


@dataclass(frozen=True)
class Place:
    zones: tuple[str, ...]
    operator: str
    parent: str
    bound: bool
    minutes: int
    """Of good evidence left; below zero it has run out."""


days = st.dates(date(2026, 11, 20), date(2026, 11, 26))
edges = st.builds(
    lambda pair, first, last: Edge(
        *sorted(pair, key=LADDER.index), first, last if last is None or last >= first else None
    ),
    st.lists(st.sampled_from(LADDER), min_size=2, max_size=2, unique=True),
    days,
    st.none() | days,
)
sensible = [
    Edge("DE-BY", "DE", date(1990, 10, 3), None),
    Edge("DE", "EU", date(1958, 1, 1), None),
    Edge("EU", "EEA", date(1994, 1, 1), None),
    Edge("EEA", "GDPR-ADEQUATE", date(2018, 5, 25), None),
]
tables = st.lists(edges, max_size=8).flatmap(lambda made: st.sampled_from([made, [*sensible, *made]]))
places = st.builds(
    Place,
    st.sampled_from([*((code,) for code in PLACES), ("US", SCHEME)]),
    st.sampled_from(CODES),
    st.sampled_from(CODES),
    st.booleans() | st.just(True),
    st.sampled_from([-1, 1, 600]),
)
zone_sets = st.frozensets(st.sampled_from(CODES), max_size=3)
tags = st.builds(
    Tag,
    zone_sets,
    zone_sets,
    st.booleans(),
    st.frozensets(st.sampled_from(["health", "finance"]), max_size=2),
    st.integers(0, 4),
)
bases = st.none() | st.builds(
    Basis, st.just("45"), st.just("a decision"), st.sampled_from([-1, 1]).map(lambda h: NOON + timedelta(hours=h))
)


def inside(table: list[Edge], inner: str, outer: str) -> bool:
    """Say whether one Zone lies in another at noon: walk upwards along the edges in force."""
    today = NOON.date()
    reached, waiting = {inner}, [inner]
    while waiting:
        here = waiting.pop()
        for edge in table:
            held = edge.first <= today and (edge.last is None or today <= edge.last)
            if held and edge.inner == here and edge.outer not in reached:
                reached.add(edge.outer)
                waiting.append(edge.outer)
    return outer in reached


def oracle(
    table: list[Edge], place: Place, ask: Ask, tag: Tag, ceilings: Mapping[str, frozenset[str]]
) -> tuple[bool, set[str]]:
    """Rule by the words of the ten rules: allowed or not, and by which of them."""

    def stands(outer: str) -> bool:
        return any(inside(table, code, outer) for code in place.zones)

    german = any(inside(table, code, "DE") for code in tag.jurisdictions)
    owners_european = inside(table, place.operator, "EEA") and inside(table, place.parent, "EEA")
    own = ask.tenant == ask.principal.tenant
    registered = ask.activity in ask.principal.activities
    fresh = place.bound and place.minutes > 0
    governed = ask.action is not Action.ERASE
    clear = ask.action in {Action.EMBED, Action.OPEN, Action.GENERATE}
    forbids = {
        "forbid-other-tenant": not own,
        "forbid-outside-tenant-ceiling": governed and not any(stands(code) for code in ceilings[ask.principal.tenant]),
        "forbid-plaintext-outside-eea": clear and tag.personal and not stands("EEA"),
        "forbid-health-de-outside-de": governed and german and "health" in tag.categories and not stands("DE"),
        "forbid-foreign-operator-for-secret": governed and tag.classification >= 3 and not owners_european,
        "forbid-unregistered-activity": governed and not registered,
        "forbid-stale-evidence": governed and not fresh,
    }
    decided = {name for name, holds in forbids.items() if holds}
    if decided:
        return False, decided
    good = own and registered and fresh
    permits = {
        "permit-in-residency": governed
        and ask.action is not Action.TRANSFER
        and good
        and any(stands(code) for code in tag.residency),
        "permit-transfer-with-basis": ask.action is Action.TRANSFER
        and good
        and ask.basis is not None
        and ask.basis.expires > NOON
        and stands("GDPR-ADEQUATE"),
        "permit-erase": ask.action is Action.ERASE and own,
    }
    allowed = {name for name, holds in permits.items() if holds}
    return bool(allowed), allowed


def zones_of(table: list[Edge]) -> Zones:
    text = f"[[zone]]\ncodes = {list(PLACES)}\n[[zone]]\ncodes = {list(GROUPS)}\nkind = 'group'\n"
    text += f"[[zone]]\ncodes = ['{SCHEME}']\nkind = 'scheme'\n"
    for edge in table or sensible[:1]:
        until = f"until = {edge.last}\n" if edge.last else ""
        text += f"[[edge]]\nzone = '{edge.inner}'\nwithin = '{edge.outer}'\nfrom = {edge.first}\n{until}source = 'x'\n"
    return Zones.parse(text.encode(), on=NOON)


@settings(max_examples=250, deadline=None)
@given(
    table=tables,
    made=st.lists(places, min_size=1, max_size=3),
    asks=st.lists(
        st.tuples(
            tags,
            st.sampled_from(list(Action)),
            st.sampled_from(["own", "own", "own", "other"]),
            st.sampled_from(["search", "search", "profiling"]),
            bases,
        ),
        min_size=1,
        max_size=6,
    ),
    ceiling=zone_sets.filter(bool) | st.just(frozenset({"GDPR-ADEQUATE", "US", "IN"})),
)
def test_the_engine_rules_as_the_ten_rules_read(
    table: list[Edge],
    made: list[Place],
    asks: list[tuple[Tag, Action, str, str, Basis | None]],
    ceiling: frozenset[str],
) -> None:
    table = table or sensible[:1]
    zones = zones_of(table)
    sites = [
        Site(
            f"s{number}",
            place.zones,
            Operator("a", place.operator),
            Operator("b", place.parent),
            evidence=(Evidence(2, "place", "made up", date(2020, 1, 1)),),
        )
        for number, place in enumerate(made)
    ]
    fleet = Fleet(sites)
    for number, place in enumerate(made):
        fleet.verify(f"s{number}", bound=place.bound, until=NOON + timedelta(minutes=place.minutes))
    court = Engine(zones, PolicySet(policy().files, zones), fleet, clock=lambda: NOON)
    ceilings = {"own": ceiling, "other": frozenset({"EEA"})}
    for name, codes in ceilings.items():
        court.admit(name, codes)
    who = Principal("p", "own", frozenset({"search"}))
    for tag, action, tenant, activity, basis in asks:
        for number, place in enumerate(made):
            ask = Ask(who, action, f"s{number}", (tag,), activity, tenant, basis)
            decision = court.decide(ask)
            wanted = oracle(table, place, ask, tag, ceilings)
            assert isinstance(decision, Permit | Refusal)
            assert (isinstance(decision, Permit), set(decision.policies)) == wanted


def test_the_oracle_knows_the_worked_case_of_the_clinic() -> None:
    """A guard on the oracle itself: German health data may be in Bavaria and not in Paris."""
    who = Principal("p", "own", frozenset({"search"}))
    tag = Tag(frozenset({"DE"}), frozenset({"EU"}), categories=frozenset({"health"}))
    table = [*sensible, Edge("FR", "EU", date(1958, 1, 1), None)]
    ceilings = {"own": frozenset({"EU"})}
    ask = Ask(who, Action.SEARCH, "s", (tag,), "search", "own")
    munich, paris = (Place((code,), "DE", "DE", True, 60) for code in ("DE-BY", "FR"))
    assert oracle(table, munich, ask, tag, ceilings) == (True, {"permit-in-residency"})
    assert oracle(table, paris, ask, tag, ceilings) == (False, {"forbid-health-de-outside-de"})
