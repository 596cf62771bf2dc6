"""What the rules cost: `python bench/policy.py [results folder]`.

A ruling remembered and new, with thirty clauses and with a thousand clauses of tenants; the exhaustive check of a large
Fleet; lint; a swap. Processor time of one core, best of several rounds, written as JSON beside the other results. The
targets stand beside each line; nothing here fails, tests hold no times.
"""

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.measuring import machine
from residency.decision import Ask, Permit, Principal
from residency.engine import Engine
from residency.fleet import Fleet, Operator, Site
from residency.impact import check
from residency.lint import lint
from residency.policy import PolicySet
from residency.product import product
from residency.route import Action
from residency.rulebook import Rulebook
from residency.tag import Tag
from residency.zones import Zones

ROOT = Path(__file__).parents[1]
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
PLACES = (
    *("DE", "FR", "DE-BY", "IT", "ES", "PL", "NL", "AT", "SE", "NO"),
    *("CH", "GB", "US", "CA", "JP", "IN", "IE", "BE", "PT", "FI"),
)
SIX = (Action.STORE, Action.SEARCH, Action.EMBED, Action.OPEN, Action.GENERATE, Action.TRANSFER)
WHO = Principal("app", "northwind", frozenset({"search"}))
ROUNDS = 5


def zones() -> Zones:
    return Zones.load(ROOT / "policies" / "zones.toml", on=NOON)


def fleet(count: int) -> Fleet:
    sites = [Site(f"s{n}", (PLACES[n],), Operator("x", PLACES[n]), Operator("x", PLACES[n])) for n in range(count)]
    made = Fleet(sites)
    for site in sites:
        made.verify(site.id, bound=True, until=NOON + timedelta(hours=1))
    return made


def tags(count: int) -> list[Tag]:
    """Give distinct Tags: laws, residencies, categories, classes and whether personal, all varied."""
    found = []
    residencies = (("EU",), ("DE",), ("EEA", "US"), ("GDPR-ADEQUATE",), ("FR", "DE"))
    for number in range(count):
        rest, law = divmod(number, 5)
        rest, where = divmod(rest, 5)
        rest, level = divmod(rest, 2)
        rest, personal = divmod(rest, 2)
        about = frozenset({"health"}) if rest % 2 else frozenset[str]()
        found.append(Tag(frozenset({PLACES[law]}), frozenset(residencies[where]), bool(personal), about, 1 + 2 * level))
    return found


def clauses(count: int, first: int = 0) -> bytes:
    """Write tenants' own clauses: each keeps one tenant's data in one Zone."""
    return "\n".join(
        f'@id("forbid-tenant-{n}-away") @law("a contract") @explain("stays in its country")\n'
        'forbid (principal is Domicile::Principal, action in Domicile::Action::"governed", resource)\n'
        f'when {{ principal.tenant == Domicile::Tenant::"tenant-{n}" }} '
        f'unless {{ resource in Domicile::Zone::"{PLACES[n % 15]}" }};'
        for n in range(first, first + count)
    ).encode()


def rules(own: int, table: Zones) -> PolicySet:
    shipped = Rulebook.read(ROOT / "policies").rules()
    return PolicySet({**shipped, "own.cedar": clauses(own)} if own else shipped, table)


def micros(call: Callable[[int], object], count: int) -> float:
    """Microseconds of processor time for one of `count` calls, best of the rounds."""
    best = float("inf")
    for turn in range(ROUNDS):
        began = time.process_time()
        for number in range(count):
            call(turn * count + number)
        best = min(best, (time.process_time() - began) / count * 1e6)
    return best


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    result = call()
    return time.process_time() - began, result


def line(what: str, value: float, unit: str, target: str = "") -> None:
    print(f"{what:<62} {value:10.2f} {unit:<3} {target}")


def rulings(own: int, wanted: str) -> dict[str, float]:
    table = zones()
    court = Engine(table, rules(own, table), fleet(3), clock=lambda: NOON)
    court.admit("northwind", frozenset({"EEA"}))
    court.admit("tenant-0", frozenset({"EEA"}))
    tag = Tag(frozenset({"DE"}), frozenset({"EU"}))
    count = len(court.policy.clauses)
    found = {}

    def cold(who: Principal) -> float:
        def one(number: int) -> object:
            new = Tag(tag.jurisdictions, tag.residency, categories=frozenset({str(number)}))
            return court.decide(Ask(who, Action.SEARCH, "s0", (new,)))

        assert isinstance(one(-1), Permit)
        return micros(one, 400)

    for name, who in (("none of them its own", WHO), ("one of them its own", Principal("app", "tenant-0"))):
        found[f"cold_{count}_{who.tenant}_us"] = cold(who)
        line(f"a ruling by {count} clauses, new; {name}", found[f"cold_{count}_{who.tenant}_us"], "µs", wanted)
    ask = Ask(WHO, Action.SEARCH, "s0", (tag,))
    found[f"memoised_{count}_us"] = micros(lambda _: court.decide(ask), 20_000)
    line(f"a ruling by {count} clauses, remembered", found[f"memoised_{count}_us"], "µs", "target < 5 µs")
    spent, _ = seconds(lambda: court.swap(rules(own, table), table))
    found[f"swap_{count}_ms"] = spent * 1e3
    line(f"load {count} clauses and put them in force", spent * 1e3, "ms")
    return found


def exhaustive() -> dict[str, float]:
    table = zones()
    found = {}
    for own in (0, 20):
        chosen = rules(own, table)
        over = product(fleet(20), table, chosen.words, now=NOON, tags=tags(200))
        here = tuple(over.fleet.sites.values())
        bare = type(over)(over.fleet, here, over.tags, (), over.ceilings, over.principals, NOON, SIX, over.bases)
        for name, each, wanted in (
            ("20 sites × 200 tags × 6 actions", bare, "target < 15 s"),
            ("the same with erase, deviations and sites abroad", over, ""),
        ):
            spent, result = seconds(
                lambda chosen=chosen, each=each: check(chosen, table, fleet(20), now=NOON, over=each)
            )
            assert not result.violations
            count = len(chosen.clauses)
            line(f"check by {count} clauses: {name} ({result.asked:,} asks)", spent, "s", wanted)
            found[f"check_{count}_{result.asked}_s"] = spent
        spent, results = seconds(lambda chosen=chosen: lint(chosen, table, fleet(20), tenants=None, now=NOON))
        assert results == []
        line(f"lint {len(chosen.clauses)} clauses", spent, "s")
        found[f"lint_{len(chosen.clauses)}_s"] = spent
    return found


def main() -> None:
    found = {
        "bench": "policy",
        "machine": machine(),
        **rulings(20, "target < 250 µs"),
        **rulings(1000, "target < 2,000 µs"),
        **exhaustive(),
    }
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "bench" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"policy-{datetime.now(UTC):%Y%m%dT%H%M%S}.json"
    file.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written: {file}")


if __name__ == "__main__":
    main()
