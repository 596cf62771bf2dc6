"""Worked cases: what the rules must say, as data (`policies/cases/*.toml`), run against any PolicySet.

Used by the tests, by `domicile policy check` and before a set is activated. A case is the whole of an Ask and the ids
that must decide it; it is run through the engine, never around it. A file that says `sets = [names]` is about the
rules with exactly those ready-made sets ([]: none), whatever `sets.toml` uses; without it, about what is in force.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from residency.decision import Ask, Basis, Decision, Permit, Principal
from residency.engine import Engine
from residency.errors import PolicyError, ResidencyError
from residency.fleet import Fleet
from residency.policy import PolicySet
from residency.route import Action
from residency.rulebook import Rulebook
from residency.tag import Tag
from residency.zones import Zones

_WANTED: Final = frozenset({"permit", "refuse", "fault"})
_KEYS: Final = _WANTED | {
    *("name", "principal", "tenant", "action", "site", "activity", "tag", "basis", "now", "without", "why_not")
}


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case: where it stands, what it wanted, what the engine said, and whether that agrees."""

    file: str
    name: str
    wanted: str
    got: str
    passed: bool


def run_cases(
    folder: Path | Rulebook, *, policy: PolicySet | None = None, zones: Zones | None = None
) -> list[CaseResult]:
    """Run every case of a policies folder, by default with its own rules and Zones.

    With `policy` given, every file is run by it, but for those about ready-made sets, which are left out.
    Raises `PolicyError` for a case file that cannot be read; a case that disagrees is a result, not an error.
    """
    book = folder if isinstance(folder, Rulebook) else Rulebook.read(folder)
    table = zones or book.zones()
    loaded: dict[tuple[str, ...] | None, PolicySet] = {}
    results: list[CaseResult] = []
    for name in sorted(name for name in book.files if name.startswith("cases/")):
        try:
            file = tomllib.loads(book.files[name].decode())
            sets = tuple(file["sets"]) if "sets" in file else None
            if "case" not in file or (policy is not None and sets):
                continue
            if policy is None and sets not in loaded:
                loaded[sets] = PolicySet(book.rules(sets), table)
            results += _File(name, file, policy or loaded[sets], table, book).run()
        except (ValueError, KeyError, TypeError) as error:
            raise PolicyError(f"{name} cannot be run: {error}", hint="see policies/README.md") from error
    return results


class _File:
    """One case file with an Engine for each instant and each what-if that its cases name."""

    def __init__(self, name: str, file: Mapping[str, Any], policy: PolicySet, zones: Zones, book: Rulebook) -> None:
        self._name, self._file, self._policy, self._zones, self._book = name, file, policy, zones, book
        self._engines: dict[tuple[datetime, tuple[str, ...]], Engine] = {}
        self._principals = {
            name: Principal(name, entry["tenant"], frozenset(entry["activities"]))
            for name, entry in file["principals"].items()
        }

    def run(self) -> list[CaseResult]:
        return [self._run({**self._file.get("default", {}), **case}, case) for case in self._file["case"]]

    def _run(self, case: dict[str, Any], own: Mapping[str, Any]) -> CaseResult:
        if stray := case.keys() - _KEYS:
            raise ValueError(f"unknown key {min(stray)}")
        if len(_WANTED & own.keys()) != 1:
            raise ValueError(f"case {own.get('name')} must say one of permit, refuse, fault")
        case["tag"] = {**self._file.get("default", {}).get("tag", {}), **own.get("tag", {})}
        engine = self._engine(case.get("now", self._file["now"]), tuple(case.get("without", ())))
        try:
            decision: Decision | ResidencyError = engine.decide(self._ask(case))
        except ResidencyError as error:
            decision = error
        return CaseResult(
            self._name.removeprefix("cases/"), case["name"], _wanted(case), _got(decision), _agrees(case, decision)
        )

    def _ask(self, case: Mapping[str, Any]) -> Ask:
        name = case["principal"]
        principal = self._principals.get(name) or Principal(name, "")
        basis = Basis(**case["basis"]) if "basis" in case else None
        tags = (Tag.of(case["tag"]),)
        return Ask(principal, Action(case["action"]), case["site"], tags, case["activity"], case["tenant"], basis)

    def _engine(self, now: datetime, without: tuple[str, ...]) -> Engine:
        if (now, without) not in self._engines:
            zones = self._zones.at(now)
            for code in without:
                zones = zones.without(code)
            fleet = Fleet.parse(self._book.files[f"cases/{self._file['fleet']}"].decode(), zones)
            for site in fleet.sites:
                age = timedelta(hours=-1 if site in self._file.get("stale", ()) else 1)
                fleet.verify(site, bound=site not in self._file.get("unbound", ()), until=now + age)
            engine = Engine(zones, self._policy, fleet, clock=lambda: now)
            for tenant, ceiling in self._file["tenants"].items():
                engine.admit(tenant, frozenset(ceiling))
            self._engines[now, without] = engine
        return self._engines[now, without]


def _agrees(case: Mapping[str, Any], decision: Decision | ResidencyError) -> bool:
    """Compare ids as sets; of `why_not`, the entries that the case names."""
    if isinstance(decision, ResidencyError):
        return bool(case.get("fault"))
    if isinstance(decision, Permit):
        return "permit" in case and set(decision.policies) == set(case["permit"])
    named = case.get("why_not", {})
    said = {name: decision.why_not.get(name) for name in named}
    return "refuse" in case and set(decision.policies) == set(case["refuse"]) and said == named


def _wanted(case: Mapping[str, Any]) -> str:
    if case.get("fault"):
        return "a fault"
    ruling = "permit" if "permit" in case else "refuse"
    return f"{ruling} {sorted(case[ruling])}" + (f", why not {case['why_not']}" if "why_not" in case else "")


def _got(decision: Decision | ResidencyError) -> str:
    if isinstance(decision, ResidencyError):
        return f"a fault: {decision}"
    if isinstance(decision, Permit):
        return f"permit {list(decision.policies)}"
    return f"refuse {list(decision.policies)}, why not {decision.why_not}"
