"""Why not: which condition of a permit failed, and the nearest remedy; the other file that speaks Cedar.

Cedar names no policy when nothing permitted. So each permit is cut into its conditions once, at load; on a Refusal they
are asked one by one, and the first that does not hold is reported as policy text. Used for Refusals only.
"""

import dataclasses
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import cedarpy
from cedarpy import pst

from residency.decision import Ask, Clause
from residency.errors import ZoneError
from residency.fleet import Fleet
from residency.policy import PolicySet, World, query, text_of
from residency.route import Action
from residency.tag import Tag
from residency.zones import Zones

_PATH_IN_PARENTHESES: Final = re.compile(r"(?<![\w])\(([A-Za-z_][\w.]*)\)")


@dataclasses.dataclass(frozen=True, slots=True)
class _Probe:
    """One condition of a permit as a rule of its own; the empty text stands for the permit's head."""

    text: str
    handle: cedarpy.PolicySet


class WhyNot:
    """The permits of one PolicySet, cut into conditions."""

    def __init__(self, policy: PolicySet) -> None:
        self._schema = policy.schema
        permits = [rule for rule in policy.tree.static_policies.values() if rule.effect == "permit"]
        self._probes = {rule.annotations["id"]: tuple(_probes(rule)) for rule in permits}

    def __call__(self, world: World, ask: Ask, tag: Tag, now: datetime) -> dict[str, str]:
        """Map each permit that is about this Action to the first of its conditions that failed."""
        question = query(world, ask, tag, now)
        found = {}
        for name, (head, *conditions) in self._probes.items():
            if self._holds(head, question, world):
                failed = next((probe.text for probe in conditions if not self._holds(probe, question, world)), None)
                if failed is not None:
                    found[name] = failed
        return found

    def _holds(self, probe: _Probe, question: dict[str, Any], world: World) -> bool:
        result = cedarpy.is_authorized(question, probe.handle, world.entities, self._schema)
        return result.allowed and not result.diagnostics.errors


def _probes(rule: pst.Template) -> Iterator[_Probe]:
    """Cut a permit: first its head alone, then each condition in the order of the text."""
    yield _probe(rule, None)
    for clause in rule.clauses:
        if isinstance(clause, pst.When):
            for condition in _conditions(clause.expr):
                yield _probe(rule, pst.When(condition))
        else:
            yield _probe(rule, clause)


def _conditions(expression: pst.Expr) -> Iterator[pst.Expr]:
    if isinstance(expression, pst.BinaryOp) and expression.op == "and":
        yield from _conditions(expression.left)
        yield from _conditions(expression.right)
    else:
        yield expression


def _probe(rule: pst.Template, clause: pst.Clause | None) -> _Probe:
    alone = dataclasses.replace(rule, clauses=(clause,) if clause else (), annotations=pst.FrozenMap())
    text = text_of(alone)
    handle = cedarpy.PolicySet.from_str(text)
    if clause is None:
        return _Probe("", handle)
    # The printer names the head first; what follows is `when { … };` or `unless { … };`.
    body = text[text.index(") when {" if isinstance(clause, pst.When) else ") unless {") + 2 :].rstrip("; \n")
    if isinstance(clause, pst.When):
        body = body.removeprefix("when {").removesuffix("}").strip()
    return _Probe(_plain(body), handle)


def _plain(text: str) -> str:
    """Drop the parentheses that the printer adds around paths: `((context.tag).residency)`."""
    while (shorter := _PATH_IN_PARENTHESES.sub(r"\1", text)) != text:
        text = shorter
    return text


# --- the nearest remedy ---------------------------------------------------------------------------------------------


def remedy(
    ask: Ask,
    tag: Tag,
    clauses: tuple[Clause, ...],
    permitted: tuple[str, ...],
    fleet: Fleet,
    zones: Zones,
    now: datetime,
) -> str:
    """Say in one sentence what would have to change. Plain facts only; the ruling itself stays with the policies."""
    principal, site = ask.principal, fleet.site(ask.site)
    if (ask.tenant or principal.tenant) != principal.tenant:
        return "Sign in with a credential of the tenant that the data belongs to."
    if ask.action is Action.ERASE:
        return "Have the policies reviewed: a tenant's own data should be erasable everywhere."
    if ask.activity not in principal.activities:
        known = ", ".join(sorted(principal.activities)) or "none"
        return f"Register this activity for the principal, or ask under a registered one ({known})."
    if permitted:
        return f"Use a Site in {_either(permitted)}: the same Ask is permitted there."
    if ask.action is Action.TRANSFER:
        if ask.basis is None:
            return "Record a transfer basis (GDPR 45 or 46) for this Site, or leave the copy where it is."
        if ask.basis.expires <= now:
            return "Renew the transfer basis: the recorded one has ended."
        if not any(_inside(code, frozenset({"GDPR-ADEQUATE"}), zones) for code in site.zones_at(now)):
            return "Choose a Site in a country with an adequacy decision: this one stands in none."
    if not tag.residency:
        return "Ask about fewer documents at once: those combined have no Zone in common where they may be processed."
    inside = [s for s in fleet.sites.values() if any(_inside(code, tag.residency, zones) for code in s.zones_at(now))]
    wanted = _either(tuple(sorted(tag.residency)))
    if not inside:
        return f"Add a Site in {wanted} to the Fleet, or have the owner of the data allow another Zone."
    closed = [s.id for s in inside if not (fleet.bound(s.id) and now < fleet.verified_until(s.id))]
    if len(closed) == len(inside):
        nearest = ask.site if ask.site in closed else closed[0]
        return f"Probe {nearest} again: {fleet.cause(nearest) or 'its last probe is too old'}."
    decided = f" ({'; '.join(clause.explain for clause in clauses)})" if clauses else ""
    return f"Add a Site to the Fleet that lies in {wanted} and meets every rule{decided}."


def _inside(code: str, outer: frozenset[str], zones: Zones) -> bool:
    try:
        return any(zones.within(code, zone) for zone in outer)
    except ZoneError:
        return False


def _either(words: tuple[str, ...]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
