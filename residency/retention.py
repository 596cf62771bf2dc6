"""Retention: after how long which Documents are no longer kept, as a lawyer writes it in `retention.toml`.

Rules kept here: the first rule that matches a Document decides, so that an exception stands before what it is an
exception to; a Document that no rule matches is kept; days count from the upload of the newest version. The file is
read and judged here, and applied in `ingestion/forgetting.py`.

    [[rule]]
    id = "applications"
    collection = "applications"      # and any of: tenant, category, jurisdiction; none of them: everything
    keep_days = 180
    law = "AGG § 15(4)"
"""

import re
import tomllib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import msgspec

from residency.errors import PolicyError, ZoneError
from residency.rulebook import RETENTION as NAME
from residency.tag import Tag
from residency.zones import Zones

LONGEST: Final = 36_525
"""Days: a hundred years."""
_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rule; an empty condition does not restrict."""

    id: str
    keep_days: int
    law: str
    """What it rests on."""
    tenant: str = ""
    collection: str = ""
    category: str = ""
    jurisdiction: str = ""
    """A Zone; it matches a Document that the law of this Zone, or of one inside it, binds."""

    @property
    def term(self) -> timedelta:
        """How long is kept."""
        return timedelta(days=self.keep_days)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    rule: list[Rule] = []


@dataclass(frozen=True, slots=True)
class Retention:
    """The rules of one file, in their order."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, raw: bytes) -> "Retention":
        """Read `retention.toml`. Raises `PolicyError` with the place for what is no rule."""
        try:
            found = msgspec.convert(tomllib.loads(raw.decode()), _File)
        except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise PolicyError(f"{NAME}: {error}", hint="see docs/policies.md, Retention") from error
        return cls(tuple(found.rule))

    def of(self, zones: Zones, *, tenant: str, collection: str, tag: Tag) -> Rule | None:
        """Give the rule that decides for a Document; None where it is kept."""
        return next((rule for rule in self.rules if _matches(rule, zones, tenant, collection, tag)), None)

    def told(self, zones: Zones, *, tenant: str, tag: Tag) -> list[Rule]:
        """Give the rules that may decide for Documents of a Tag, by their Collection; the last may hold for all."""
        found: list[Rule] = []
        for rule in self.rules:
            if _matches(rule, zones, tenant, rule.collection, tag):
                found.append(rule)
                if not rule.collection:
                    break
        return found

    def lint(self, zones: Zones, *, tenants: Collection[str] | None = None) -> list[str]:
        """Say what is wrong with the rules, one line each; empty when they may be applied."""
        found: list[str] = []
        seen: list[Rule] = []
        for number, rule in enumerate(self.rules, 1):
            where = f"{NAME}: rule {number} ({rule.id[:63]})"
            found += [f"{where}: {what}" for what in _wrong(rule, zones, tenants)]
            if any(rule.id == other.id for other in seen):
                found.append(f"{where}: another rule has this id")
            if above := next((other for other in seen if _covers(other, rule, zones)), None):
                found.append(f"{where}: it never applies, since {above.id} stands above it and matches as much")
            seen.append(rule)
        return found


def _wrong(rule: Rule, zones: Zones, tenants: Collection[str] | None) -> Iterable[str]:
    if not _ID.fullmatch(rule.id):
        yield "its id must be of a-z, 0-9 and dashes"
    if not 1 <= rule.keep_days <= LONGEST:
        yield f"keep_days must lie between 1 and {LONGEST}"
    if not rule.law.strip():
        yield "it has no law; name the law or contract it rests on"
    if rule.jurisdiction:
        try:
            zones.check(rule.jurisdiction)
        except ZoneError:
            yield "its jurisdiction is no Zone of the table"
    if rule.tenant and tenants is not None and rule.tenant not in tenants:
        yield "it names a tenant that nobody made"


def _matches(rule: Rule, zones: Zones, tenant: str, collection: str, tag: Tag) -> bool:
    return (
        rule.tenant in ("", tenant)
        and rule.collection in ("", collection)
        and (not rule.category or rule.category in tag.categories)
        and (not rule.jurisdiction or any(zones.within(zone, rule.jurisdiction) for zone in tag.jurisdictions))
    )


def _covers(above: Rule, below: Rule, zones: Zones) -> bool:
    """Say whether everything that `below` matches is matched by `above` already."""

    def same(name: str) -> bool:
        return getattr(above, name) in ("", getattr(below, name))

    wider = not above.jurisdiction
    if not wider and below.jurisdiction:
        try:
            wider = zones.within(below.jurisdiction, above.jurisdiction)
        except ZoneError:
            return False
    return wider and same("tenant") and same("collection") and same("category")


def facts(rule: Rule) -> dict[str, Any]:
    """Give a rule as JSON-able data."""
    return {name: value for name, value in msgspec.structs.asdict(rule).items() if value != ""}
