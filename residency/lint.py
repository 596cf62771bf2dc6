"""Lint: what may be wrong with rules that load: names nobody has, clauses that do nothing, forbids that leak.

One of three files that speak Cedar. A Finding names file, line and clause, says what is wrong and what to do; a set
with Findings is not activated. Each clause is tried alone over Asks made from its own words: one that no Ask satisfies
is dead. A forbid must say "unless in an allowed Zone": "when in a bad Zone" lets through every place nobody thought of.
"""

import dataclasses
import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import cedarpy
from cedarpy import pst

from residency.errors import PolicyError
from residency.fleet import Fleet
from residency.impact import Court
from residency.policy import Place, PolicySet, text_of, words
from residency.product import Product, product
from residency.zones import Zones

TRIES: Final = 3_000
"""Asks put to a clause before it is called dead: half a second."""
_PLACES: Final = frozenset({"resource", "operator", "parent"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with one clause, and what to do."""

    place: Place
    clause: str
    what: str
    hint: str

    def __str__(self) -> str:
        return f"{self.place}: {self.clause}: {self.what}; {self.hint}"


def lint(
    policy: PolicySet, zones: Zones, fleet: Fleet, *, tenants: Collection[str] | None = None, now: datetime
) -> list[Finding]:
    """Look at every clause; `tenants` are those there are (None: not known here, so not looked at)."""
    zones = zones.at(now)
    found: list[Finding] = []
    for rule in policy.tree.static_policies.values():
        name = rule.annotations["id"]
        for what, hint in _looked_at(rule, policy, zones, fleet, tenants, now):
            found.append(Finding(policy.places[name], name, what, hint))
    return found


def _looked_at(
    rule: pst.Template,
    policy: PolicySet,
    zones: Zones,
    fleet: Fleet,
    tenants: Collection[str] | None,
    now: datetime,
) -> Iterator[tuple[str, str]]:
    named = words(rule)
    if not rule.annotations.get("law", "").strip():
        yield "it has no @law", "name the law, contract or decision it rests on"
    for site in sorted(named.sites - fleet.sites.keys()):
        yield f"it names the Site {site}, which the Fleet does not hold", _near(site, fleet.sites, "Sites")
    for tenant in sorted(named.tenants - set(tenants)) if tenants is not None else ():
        yield f"it names the tenant {tenant}, which nobody made", _near(tenant, tenants or (), "tenants")
    if rule.effect == "forbid":
        for test in _unsafe(rule):
            yield (
                f"it forbids where `{test}` holds, and so lets through every place that nobody thought of",
                'turn it round: forbid … unless { resource in Domicile::Zone::"…" }',
            )
    if constant := _constant(rule):
        yield constant, "remove the clause, or mend its condition"
    elif not _alive(rule, policy, zones, fleet, now):
        yield "no Ask can satisfy it: it can never apply", "remove it, or compare its words with docs/policies.md"


def _near(word: str, known: Collection[str], kind: str) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"the {kind} are: {', '.join(sorted(known)) or 'none'}"


# --- the unsafe way round -------------------------------------------------------------------------------------------


def _unsafe(rule: pst.Template) -> Iterator[str]:
    """Give each test of a place that makes a forbid hold: true in a `when`, or false in an `unless`."""
    if isinstance(rule.resource, pst.ScopeIn | pst.ScopeIsIn) and isinstance(rule.resource.entity, pst.EntityUid):
        yield f"resource in {rule.resource.entity}"
    for clause in rule.clauses:
        yield from _tests(clause.expr, when=isinstance(clause, pst.When))


def _tests(expression: pst.Expr, *, when: bool) -> Iterator[str]:
    """Walk a condition; `when` says whether its being true makes the forbid hold."""
    match expression:
        case pst.UnaryOp("not", inner):
            yield from _tests(inner, when=not when)
        case pst.BinaryOp("and" | "or", left, right):
            yield from _tests(left, when=when)
            yield from _tests(right, when=when)
        case pst.IfThenElse(cond, then, otherwise):
            for side in (True, False):
                yield from _tests(cond, when=side)
            yield from _tests(then, when=when)
            yield from _tests(otherwise, when=when)
        case pst.BinaryOp("in" | "eq", left, right) if when and _place(left):
            yield f"{_path(left)} {'in' if expression.op == 'in' else '=='} {_path(right)}"
        case pst.BinaryOp("not_eq", left, right) if not when and _place(left):
            yield f"{_path(left)} == {_path(right)}"
        case pst.BinaryOp("contains", left, right) if when and _place(right):
            yield f"{_path(left)}.contains({_path(right)})"
        case pst.Is(base, _, inner) if when and inner is not None and _place(base):
            yield f"{_path(base)} in {_path(inner)}"
        case _:
            return


def _place(expression: pst.Expr) -> bool:
    """Say whether an expression is a Site or a Zone of its operator."""
    path = _path(expression)
    return path == "resource" or (path.startswith("resource.") and path.rpartition(".")[2] in _PLACES)


def _path(expression: pst.Expr) -> str:
    match expression:
        case pst.Var(name):
            return name
        case pst.GetAttr(base, attr):
            return f"{_path(base)}.{attr}"
        case pst.EntityLit(value):
            return f'{value.type.basename}::"{value.id}"'
        case pst.Set(elements):
            return f"[{', '.join(_path(element) for element in elements)}]"
        case _:
            return "…"


# --- clauses that never apply ---------------------------------------------------------------------------------------


def _constant(rule: pst.Template) -> str:
    """Say which condition is a constant that keeps the clause from ever holding, or ""."""
    for clause in rule.clauses:
        when = isinstance(clause, pst.When)
        if any(part == pst.BoolLit(not when) for part in _parts(clause.expr, "and" if when else "or")):
            word = "when { false }" if when else "unless { true }"
            return f"its condition is constant ({word}): it can never apply"
    return ""


def _parts(expression: pst.Expr, op: str) -> Iterator[pst.Expr]:
    if isinstance(expression, pst.BinaryOp) and expression.op == op:
        yield from _parts(expression.left, op)
        yield from _parts(expression.right, op)
    else:
        yield expression


def _alive(rule: pst.Template, policy: PolicySet, zones: Zones, fleet: Fleet, now: datetime) -> bool:
    """Say whether some Ask satisfies the clause; it is tried as the only permit of a set."""
    named = words(rule)
    over: Product = product(fleet, zones, named, now=now, limit=10_000, levels=range(5))
    alone = _Alone(rule, policy)
    court = Court(alone, zones, over)
    for question in over.drawn(7, TRIES):
        try:
            if court.rule(question).allowed:
                return True
        except PolicyError:  # an error is no ruling, and the invariants say where it stands
            return True
    return False


class _Alone(PolicySet):
    """One clause, turned into a permit and ruled with by itself."""

    def __init__(self, rule: pst.Template, policy: PolicySet) -> None:
        as_permit = dataclasses.replace(rule, effect="permit", annotations=pst.FrozenMap({"id": "permit-alone"}))
        self.schema = policy.schema
        self.handle = cedarpy.PolicySet.from_str(text_of(as_permit))
        self._ids, self._bound, self._slices = {}, {}, {}
