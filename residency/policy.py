"""PolicySet: the Cedar rules as loaded, linted and named by a digest; one of two files that speak Cedar.

Rules kept here: a set loads whole or not at all; it must parse, validate against the schema, and pass the lint (one
unique `@id` and an `@explain` each, no unknown Zone, no template). Allowed means that Cedar said Allow and reported no
error: a `forbid` that errors is skipped by Cedar, so any error is a fault and never a ruling.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import cedarpy
from cedarpy import pst

from residency.decision import Ask, Clause, Principal
from residency.errors import PolicyError
from residency.fleet import Fleet, Site
from residency.tag import Tag
from residency.zones import Zones

SCHEMA: Final = "schema.cedarschema"
_ID: Final = re.compile(r"[a-z][a-z0-9-]{2,79}")


@dataclass(frozen=True, slots=True)
class Ruling:
    """What Cedar said without error: allowed or not, and the ids of the policies that decided, sorted."""

    allowed: bool
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class World:
    """The facts that Cedar reads, prepared: Zones and Sites at one instant, and the parties admitted to it."""

    zones: Zones
    entities: cedarpy.Entities

    def admitting(self, principal: Principal, ceilings: Mapping[str, frozenset[str]]) -> "World":
        """Give this world with one principal and these tenants (id → ceiling) in it; the base is not parsed again."""
        parties = [_tenant(name, ceiling) for name, ceiling in ceilings.items()]
        parties.append(_principal(principal))
        try:
            return World(self.zones, self.entities.with_added_json_str(json.dumps(parties)))
        except ValueError as error:
            raise PolicyError("Cedar does not accept a principal or tenant", hint="check tenant and ceiling") from error


class PolicySet:
    """One set of rules: `digest`, `clauses` by id, `text` of all files, and the prepared handle that rules."""

    def __init__(self, files: Mapping[str, bytes], zones: Zones) -> None:
        """Parse, validate and lint. `files` maps file names (`*.cedar` and the schema) to their bytes."""
        self.files = dict(sorted(files.items()))
        self.digest = digest(self.files)
        try:
            texts = {name: raw.decode() for name, raw in self.files.items()}
            self.schema = cedarpy.Schema.from_str(texts.pop(SCHEMA))
        except KeyError as error:
            raise PolicyError(f"{SCHEMA} is missing", hint="restore the shipped file") from error
        except ValueError as error:
            raise PolicyError(f"{SCHEMA} or a policy file is unreadable: {error}", hint="mend the file") from error
        for name, text in texts.items():
            _parsed(name, text)
        self.text = "\n".join(texts.values())
        self.handle = cedarpy.PolicySet.from_str(self.text)
        self.tree = self.handle.to_pst()
        checked = cedarpy.validate_policies(self.text, self.schema)
        if not checked.validation_passed:
            raise PolicyError(f"the policies do not validate: {checked.errors[0]}", hint=f"compare with {SCHEMA}")
        self.clauses = _lint(self.tree, zones)
        named = pst.entity_uids(self.tree)
        self.named_sites = frozenset(uid.id for uid in named if uid.type.basename == "Site")
        """Sites that a rule names; the engine checks them against the Fleet."""

    @classmethod
    def load(cls, folder: Path, zones: Zones) -> "PolicySet":
        """Read every `*.cedar` of a folder and its schema. Raises `PolicyError`; a set is whole or not at all."""
        try:
            paths = [*folder.glob("*.cedar"), *folder.glob(SCHEMA)]
            return cls({path.name: path.read_bytes() for path in paths}, zones)
        except OSError as error:
            raise PolicyError("the policies folder cannot be read", hint="check its path and rights") from error

    def without(self, ids: Iterable[str], zones: Zones) -> "PolicySet":
        """Give the set with some policies dropped, for mutation tests and what-ifs."""
        dropped = set(ids)
        kept = [rule for rule in self.tree.static_policies.values() if rule.annotations["id"] not in dropped]
        rest = "\n".join(text_of(rule) for rule in kept)
        return PolicySet({SCHEMA: self.files[SCHEMA], "rest.cedar": rest.encode()}, zones)

    def world(self, zones: Zones, fleet: Fleet, now: datetime) -> World:
        """Prepare Zones and Sites as they are at `now`. Raises `PolicyError` when they do not fit the schema."""
        facts = [_zone(code, zones) for code in zones.codes]
        facts += [_site(site, fleet, now) for site in fleet.sites.values()]
        try:
            return World(zones, cedarpy.Entities.from_json_str(json.dumps(facts), self.schema))
        except ValueError as error:
            raise PolicyError("Zones or Fleet do not fit the schema of the policies", hint=str(error)[:200]) from error

    def rule(self, world: World, ask: Ask, tag: Tag, now: datetime) -> Ruling:
        """Rule on one Tag of an Ask. Raises `PolicyError` when Cedar reports any error or gives no decision."""
        result = cedarpy.is_authorized(query(world, ask, tag, now), self.handle, world.entities, self.schema)
        found = result.diagnostics
        if found.errors or result.decision is cedarpy.Decision.NoDecision:
            raise PolicyError(
                f"the policies gave no ruling ({len(found.errors)} errors)", hint="run `domicile policy check`"
            )
        return Ruling(result.allowed, tuple(sorted(found.id_annotations_by_reason.values())))


def query(world: World, ask: Ask, tag: Tag, now: datetime) -> dict[str, Any]:
    """Write one Tag of an Ask as Cedar reads it.

    The Tag's jurisdictions are given with every Zone above them: who is under Bavarian law is under German law too.
    """
    zones = world.zones
    laws = tag.jurisdictions.union(*(zones.ancestors(code) for code in tag.jurisdictions))
    facts: dict[str, Any] = {
        "tenant": _ref("Tenant", ask.tenant or ask.principal.tenant),
        "tag": {
            "jurisdictions": [_ref("Zone", code) for code in laws],
            "residency": [_ref("Zone", code) for code in tag.residency],
            "personal": tag.personal,
            "categories": list(tag.categories),
            "classification": tag.classification,
        },
        "activity": ask.activity,
        "now": _instant(now),
    }
    if ask.basis is not None:
        basis = ask.basis
        facts["basis"] = {
            "article": basis.article,
            "instrument": basis.instrument,
            "expires": _instant(basis.expires),
        }
    return {
        "principal": _uid("Principal", ask.principal.id),
        "action": _uid("Action", str(ask.action)),
        "resource": _uid("Site", ask.site),
        "context": facts,
    }


def digest(files: Mapping[str, bytes]) -> str:
    """Give `sha256:…` over the sorted files: name, 0x00, length as 8 bytes big-endian, bytes."""
    hashed = hashlib.sha256()
    for name, raw in sorted(files.items()):
        hashed.update(name.encode() + b"\0" + len(raw).to_bytes(8, "big") + raw)
    return "sha256:" + hashed.hexdigest()


def text_of(rule: pst.Template) -> str:
    """Print one policy of a syntax tree."""
    tree = pst.PolicySet(pst.FrozenMap(), pst.FrozenMap({rule.id: rule}), ())
    return str(cedarpy.PolicySet.from_pst(tree))


# --- lint -----------------------------------------------------------------------------------------------------------


def _parsed(name: str, text: str) -> None:
    """Raise `PolicyError` naming the file that does not parse."""
    try:
        cedarpy.PolicySet.from_str(text)
    except ValueError as error:
        raise PolicyError(f"{name} does not parse: {error}", hint="mend the file; nothing was activated") from error


def _lint(tree: pst.PolicySet, zones: Zones) -> dict[str, Clause]:
    """Check what validation leaves open, and give each policy as a person reads it, by id."""
    if tree.templates or tree.template_links:
        raise PolicyError("a policy template rules on nothing", hint="write it out for each case")
    clauses: dict[str, Clause] = {}
    for rule in tree.static_policies.values():
        name, explain = rule.annotations.get("id", ""), rule.annotations.get("explain", "")
        if not _ID.fullmatch(name) or name in clauses:
            raise PolicyError(f"policy {name or rule.id!r}: it needs an @id of its own", hint='write @id("forbid-…")')
        if not explain.strip():
            raise PolicyError(f"policy {name}: it needs an @explain", hint="say in one sentence what it means")
        clauses[name] = Clause(name, explain, rule.annotations.get("law", ""))
        for uid in pst.entity_uids(rule):
            if uid.type.basename == "Zone" and not zones.known(uid.id):
                near = difflib.get_close_matches(uid.id, zones.codes, n=1)
                hint = f"did you mean {near[0]}?" if near else "zone codes stand in zones.toml"
                raise PolicyError(f"policy {name} names the unknown Zone {uid.id}", hint=hint)
    if not clauses:
        raise PolicyError("the policy set is empty", hint="restore the shipped policies")
    return clauses


# --- facts as Cedar entities ----------------------------------------------------------------------------------------


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": f"Domicile::{kind}", "id": name}


def _ref(kind: str, name: str) -> dict[str, dict[str, str]]:
    return {"__entity": _uid(kind, name)}


def _instant(at: datetime) -> dict[str, dict[str, str]]:
    """Write an instant in the one form that Cedar and Python agree on: UTC, milliseconds, `Z`."""
    text = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"
    return {"__extn": {"fn": "datetime", "arg": text}}


def _zone(code: str, zones: Zones) -> dict[str, Any]:
    return {"uid": _uid("Zone", code), "attrs": {}, "parents": [_uid("Zone", up) for up in zones.parents(code)]}


def _site(site: Site, fleet: Fleet, now: datetime) -> dict[str, Any]:
    facts = {
        "operator": _ref("Zone", site.operator.zone),
        "parent": _ref("Zone", site.parent.zone),
        "grade": site.grade(now),
        "bound": fleet.bound(site.id),
        "verifiedUntil": _instant(fleet.verified_until(site.id)),
    }
    parents = [_uid("Zone", code) for code in site.zones_at(now)]
    return {"uid": _uid("Site", site.id), "attrs": facts, "parents": parents}


def _tenant(name: str, ceiling: frozenset[str]) -> dict[str, Any]:
    return {"uid": _uid("Tenant", name), "attrs": {"ceiling": [_ref("Zone", code) for code in ceiling]}, "parents": []}


def _principal(principal: Principal) -> dict[str, Any]:
    facts = {"tenant": _ref("Tenant", principal.tenant), "activities": sorted(principal.activities)}
    return {"uid": _uid("Principal", principal.id), "attrs": facts, "parents": []}
