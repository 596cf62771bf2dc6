"""PolicySet: the Cedar rules as loaded, checked and named by a digest; one of three files that speak Cedar.

Rules kept here: a set loads whole or not at all; it must parse, validate against the schema, and each clause must have
one unique `@id`, an `@explain` and no unknown Zone. Allowed means that Cedar said Allow and reported no error: a
`forbid` that errors is skipped by Cedar, so any error is a fault and never a ruling. What else may be wrong with a set
is looked for in `lint.py`.
"""

import dataclasses
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import cedarpy
from cedarpy import pst

from residency import facts
from residency.decision import Ask, Clause, Principal
from residency.errors import PolicyError
from residency.fleet import Fleet
from residency.rulebook import SCHEMA, Rulebook, digest
from residency.tag import Tag
from residency.zones import Zones

__all__ = ["SCHEMA", "PolicySet", "Ruling", "Words", "World", "digest", "query", "text_of", "words"]
SLICES: Final = 256
"""Tenants whose own rules are kept prepared at most."""
_ID: Final = re.compile(r"[a-z][a-z0-9-]{2,79}")
_ID_WRITTEN: Final = re.compile(r'@id\("([^"]*)"\)')
_STATEMENT: Final = re.compile(r'(?:"(?:[^"\\]|\\.)*"|//[^\n]*|[^;"/]|/)*;?')
_ERRING: Final = re.compile(r"policy `([^`]+)`")


@dataclass(frozen=True, slots=True)
class Ruling:
    """What Cedar said without error: allowed or not, and the ids of the policies that decided, sorted."""

    allowed: bool
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a clause stands: its file, and the line of its `@id`."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Words(NamedTuple):
    """What rules name; `texts` are categories and activities, `numbers` classes and grades."""

    zones: frozenset[str] = frozenset()
    sites: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    principals: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    numbers: frozenset[int] = frozenset()

    def plus(self, other: "Words") -> "Words":
        """Give what either names."""
        return Words(
            self.zones | other.zones,
            self.sites | other.sites,
            self.tenants | other.tenants,
            self.principals | other.principals,
            self.texts | other.texts,
            self.numbers | other.numbers,
        )


@dataclass(frozen=True, slots=True)
class World:
    """The facts that Cedar reads, prepared: Zones and Sites at one instant, and the parties admitted to it."""

    zones: Zones
    entities: cedarpy.Entities

    def admitting(self, principal: Principal, ceilings: Mapping[str, frozenset[str]]) -> "World":
        """Give this world with one principal and these tenants (id → ceiling) in it; the base is not parsed again."""
        parties = [facts.tenant(name, ceiling) for name, ceiling in ceilings.items()]
        parties.append(facts.principal(principal))
        try:
            return World(self.zones, self.entities.with_added_json_str(json.dumps(parties)))
        except ValueError as error:
            raise PolicyError("Cedar does not accept a principal or tenant", hint="check tenant and ceiling") from error


class PolicySet:
    """One set of rules: `digest`, `clauses` and `places` by id, `text` of all files, and the handle that rules."""

    def __init__(self, files: Mapping[str, bytes], zones: Zones) -> None:
        """Parse, validate and check. `files` maps file names (`*.cedar` and the schema) to their bytes."""
        self.files = dict(sorted(files.items()))
        self.digest = digest(self.files)
        try:
            texts = {name: raw.decode() for name, raw in self.files.items()}
            self.schema = cedarpy.Schema.from_str(texts.pop(SCHEMA))
        except KeyError as error:
            raise PolicyError(f"{SCHEMA} is missing", hint="restore the shipped file") from error
        except ValueError as error:
            raise PolicyError(f"{SCHEMA} or a policy file is unreadable: {error}", hint="mend the file") from error
        self.places = _places({name: _parsed(name, text) for name, text in texts.items()})
        self.text = "\n".join(texts.values())
        self.handle = cedarpy.PolicySet.from_str(self.text)
        self.tree = self.handle.to_pst()
        self._ids = {key: rule.annotations.get("id", key) for key, rule in self.tree.static_policies.items()}
        self._bound = {key: _bound_to(rule) for key, rule in self.tree.static_policies.items()}
        self._slices: dict[str, cedarpy.PolicySet] = {}
        self._validate()
        self.clauses = _clauses(self.tree, self.places, zones)
        self.words = words(self.tree)

    @classmethod
    def load(cls, folder: Path, zones: Zones) -> "PolicySet":
        """Read what is in force of a policies folder. Raises `PolicyError`; a set is whole or not at all."""
        return cls(Rulebook.read(folder).rules(), zones)

    @property
    def named_sites(self) -> frozenset[str]:
        """Sites that a rule names; the engine checks them against the Fleet."""
        return self.words.sites

    def without(self, ids: Iterable[str], zones: Zones) -> "PolicySet":
        """Give the set with some policies dropped, for mutation tests and what-ifs."""
        dropped = set(ids)
        kept = [rule for rule in self.tree.static_policies.values() if rule.annotations["id"] not in dropped]
        rest = "\n".join(text_of(rule) for rule in kept)
        return PolicySet({SCHEMA: self.files[SCHEMA], "rest.cedar": rest.encode()}, zones)

    def world(self, zones: Zones, fleet: Fleet, now: datetime) -> World:
        """Prepare Zones and Sites as they are at `now`. Raises `PolicyError` when they do not fit the schema."""
        found = [facts.zone(code, zones) for code in zones.codes]
        found += [facts.site(site, fleet, now) for site in fleet.sites.values()]
        try:
            return World(zones, cedarpy.Entities.from_json_str(json.dumps(found), self.schema))
        except ValueError as error:
            raise PolicyError("Zones or Fleet do not fit the schema of the policies", hint=str(error)[:200]) from error

    def rule(self, world: World, ask: Ask, tag: Tag, now: datetime) -> Ruling:
        """Rule on one Tag of an Ask. Raises `PolicyError` when Cedar reports any error or gives no decision."""
        return self.judge(world, query(world, ask, tag, now), ask.principal.tenant)

    def judge(self, world: World, question: Mapping[str, Any], tenant: str) -> Ruling:
        """Rule on what `query` wrote for a principal of that tenant; as `rule`."""
        result = cedarpy.is_authorized(dict(question), self._slice(tenant), world.entities, self.schema)
        found = result.diagnostics
        if found.errors or result.decision is cedarpy.Decision.NoDecision:
            keys = {key for error in found.errors for key in _ERRING.findall(error)}
            named = ", ".join(sorted(self._ids[key] for key in keys & self._ids.keys()))
            raise PolicyError(
                f"the policies gave no ruling ({len(found.errors)} errors{' in ' + named if named else ''})",
                hint="run `domicile policy check`; nothing is permitted on a clause that cannot be evaluated",
            )
        return Ruling(result.allowed, tuple(sorted(found.id_annotations_by_reason.values())))

    @property
    def tenants(self) -> frozenset[str]:
        """Tenants that have clauses of their own."""
        return frozenset(self._bound.values()) - {""}

    def _slice(self, tenant: str) -> cedarpy.PolicySet:
        """Give the rules that can apply to this tenant: thousands of other tenants' clauses are not looked at."""
        if not any(self._bound.values()):
            return self.handle
        own = tenant if tenant in self._bound.values() else ""
        if own not in self._slices:
            rules = self.tree.static_policies.items()
            kept = {key: rule for key, rule in rules if self._bound[key] in ("", own)}
            if len(self._slices) >= SLICES:
                self._slices.clear()
            made = pst.PolicySet(pst.FrozenMap(), pst.FrozenMap(kept), ())
            self._slices[own] = cedarpy.PolicySet.from_pst(made)
        return self._slices[own]

    def _validate(self) -> None:
        """Raise `PolicyError` naming the clause that does not fit the schema."""
        checked = cedarpy.validate_policies(self.text, self.schema)
        if checked.validation_passed:
            return
        first = checked.errors[0]
        name = self._ids.get(first.policy_id, "")
        place = f"{self.places[name]} " if name in self.places else ""
        what = _ERRING.sub(f"policy {name or '?'}", first.error.removeprefix("for "))
        raise PolicyError(
            f"{place}the policies do not validate: {what}",
            hint=f"a rule may speak only of what {SCHEMA} names; compare with it",
        )


def query(world: World, ask: Ask, tag: Tag, now: datetime) -> dict[str, Any]:
    """Write one Tag of an Ask as Cedar reads it."""
    tenant = ask.tenant or ask.principal.tenant
    return {
        "principal": facts.uid("Principal", ask.principal.id),
        "action": facts.uid("Action", str(ask.action)),
        "resource": facts.uid("Site", ask.site),
        "context": facts.context(world.zones, tenant, tag, ask.activity, now, ask.basis),
    }


def text_of(rule: pst.Template) -> str:
    """Print one policy of a syntax tree."""
    tree = pst.PolicySet(pst.FrozenMap(), pst.FrozenMap({rule.id: rule}), ())
    return str(cedarpy.PolicySet.from_pst(tree))


# --- what must hold of every set ------------------------------------------------------------------------------------


def _statements(text: str) -> list[tuple[int, str]]:
    """Cut a file at the semicolons that end its clauses; with each the line that its first word stands on."""
    found = []
    for match in _STATEMENT.finditer(text):
        bare = re.sub(r"^(\s|//[^\n]*\n)+", "", match.group() + "\n")
        if bare.strip() and not bare.lstrip().startswith("//"):
            begin = match.start() + len(match.group()) + 1 - len(bare)
            found.append((text.count("\n", 0, begin) + 1, match.group()))
    return found


def _parsed(name: str, text: str) -> list[tuple[Place, str]]:
    """Give the ids of a file's clauses and where each stands; raise `PolicyError` naming file and line."""
    try:
        rules = cedarpy.PolicySet.from_str(text).to_pst().static_policies.values()
    except ValueError as error:
        for line, statement in _statements(text):
            try:
                cedarpy.PolicySet.from_str(statement)
            except ValueError as own:
                id_ = _ID_WRITTEN.search(statement)
                clause = f" ({id_.group(1)})" if id_ else ""
                raise PolicyError(
                    f"{name} does not parse: the clause at line {line}{clause}: {own}",
                    hint="mend it; nothing was activated",
                ) from error
        raise PolicyError(f"{name} does not parse: {error}", hint="mend the file; nothing was activated") from error
    lines = [line for line, _ in _statements(text)]
    found = []
    for number, rule in enumerate(rules):
        line = lines[number] if len(lines) == len(rules) else 1
        found.append((Place(name, line), rule.annotations.get("id", "")))
    return found


def _places(files: Mapping[str, list[tuple[Place, str]]]) -> dict[str, Place]:
    """Give where each clause stands, by its id. Raises `PolicyError` for an id missing, no slug, or given twice."""
    found: dict[str, Place] = {}
    for place, id_ in (clause for clauses in files.values() for clause in clauses):
        if not _ID.fullmatch(id_):
            what = f"{id_[:40]!r} is no slug" if id_ else "it has none"
            raise PolicyError(f"{place}: a policy needs an @id of its own: {what}", hint='write @id("forbid-…")')
        if id_ in found:
            raise PolicyError(
                f"{place}: a policy needs an @id of its own: {id_} stands at {found[id_]} too",
                hint="rename one of them",
            )
        found[id_] = place
    return found


def _clauses(tree: pst.PolicySet, places: Mapping[str, Place], zones: Zones) -> dict[str, Clause]:
    """Give each policy as a person reads it, by id. Raises `PolicyError` for what validation leaves open."""
    if tree.templates or tree.template_links:
        raise PolicyError("a policy template rules on nothing", hint="write it out for each case")
    clauses: dict[str, Clause] = {}
    for rule in tree.static_policies.values():
        name, explain = rule.annotations["id"], rule.annotations.get("explain", "")
        if not explain.strip():
            raise PolicyError(
                f"{places[name]}: policy {name} needs an @explain", hint="say in one sentence what it means"
            )
        clauses[name] = Clause(name, explain, rule.annotations.get("law", ""))
        for uid in pst.entity_uids(rule):
            if uid.type.basename == "Zone" and not zones.known(uid.id):
                near = difflib.get_close_matches(uid.id, zones.codes, n=1)
                hint = f"did you mean {near[0]}?" if near else "zone codes stand in zones.toml"
                raise PolicyError(f"{places[name]}: policy {name} names the unknown Zone {uid.id}", hint=hint)
    if not clauses:
        raise PolicyError("the policy set is empty", hint="restore the shipped policies")
    return clauses


def _bound_to(rule: pst.Template) -> str:
    """Give the tenant that a clause's very first condition asks for, or "".

    `principal.tenant == Tenant::"x" && …` is false for every other tenant before anything else is evaluated, so the
    clause can neither decide nor err for them, and leaving it out changes no ruling.
    """
    first = rule.clauses[0] if rule.clauses else None
    if not isinstance(first, pst.When):
        return ""
    expression = first.expr
    while isinstance(expression, pst.BinaryOp) and expression.op == "and":
        expression = expression.left
    match expression:
        case pst.BinaryOp("eq", pst.GetAttr(pst.Var("principal"), "tenant"), pst.EntityLit(uid)):
            return uid.id if uid.type.basename == "Tenant" else ""
        case _:
            return ""


def words(tree: pst.PolicySet | pst.Template) -> Words:
    """Collect what a set, or one clause of it, names."""
    named: dict[str, set[str]] = {}
    for uid in pst.entity_uids(tree):
        named.setdefault(uid.type.basename, set()).add(uid.id)
    texts: set[str] = set()
    numbers: set[int] = set()
    waiting: list[Any] = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, pst.StringLit):
            texts.add(part.value)
        elif isinstance(part, pst.LongLit):
            numbers.add(part.value)
        elif isinstance(part, Mapping):
            waiting.extend(part.values())
        elif isinstance(part, tuple):
            waiting.extend(part)
        elif dataclasses.is_dataclass(part):
            waiting.extend(getattr(part, each.name) for each in dataclasses.fields(part))
    zones, sites, tenants, principals = (
        frozenset(named.get(kind, ())) for kind in ("Zone", "Site", "Tenant", "Principal")
    )
    return Words(zones, sites, tenants, principals, frozenset(texts), frozenset(numbers))
