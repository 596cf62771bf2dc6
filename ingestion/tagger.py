"""What a Document's Tag is: the declared one, narrowed or put in dispute by the Signs found in its text.

Rules kept here: the declaration stands unless the text speaks loudly against it; Signs may add to what binds and never
take away, widen a residency or lower a classification (tested as a property); one foreign account number is a
supplier's, and a language is spoken in many countries: neither puts a Tag in dispute. A Tag in dispute goes to a
person. Evidence names kinds and places, never the text; it is sealed with the Document all the same.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Protocol

from ingestion.detectors import STRONG, Sign
from ingestion.errors import TagError
from residency.tag import Tag

UNION: Final = "EU"
"""The bloc whose members' documents may by default be processed in all of it (GDPR 1(3): free movement inside)."""
STRONG_KINDS: Final = 2
"""Different kinds of checked numbers of one foreign country that put a declaration in dispute."""
STRONG_VALUES: Final = 3
"""Different checked numbers of one foreign country that do, even when of one kind (a list of staff numbers)."""
FORMS: Final = 2
"""Kinds of forms (telephone, address, letterhead) that do beside one checked number."""
MAX_CLASSIFICATION: Final = 4


class Places(Protocol):
    """What the tagger asks of Zones; `residency.zones.Zones` is the body."""

    def check(self, code: str) -> str:
        """Give the code, or raise `ZoneError` with the nearest known one."""
        ...

    def known(self, code: str) -> bool:
        """Say whether the code names a Zone."""
        ...

    def within(self, inner: str, outer: str) -> bool:
        """Say whether one Zone lies inside another, or is it."""
        ...

    def intersect(self, left: frozenset[str], right: frozenset[str]) -> frozenset[str]:
        """Give the Zones that lie inside both sets."""
        ...


@dataclass(frozen=True, slots=True)
class Declaration:
    """What the sender says of a Document; `residency` None asks for the default of its jurisdictions."""

    jurisdictions: frozenset[str]
    residency: frozenset[str] | None = None
    personal: bool = True
    categories: frozenset[str] = frozenset()
    classification: int = 1


@dataclass(frozen=True, slots=True)
class Tagged:
    """The Tag, its Evidence, and, when it is in dispute, why (codes and counts only)."""

    tag: Tag
    evidence: list[dict[str, Any]]
    quarantine: str | None = None
    loud: tuple[str, ...] = ()
    """Zones that were not declared and that several checked numbers point to."""


def declared(declaration: Declaration, zones: Places) -> Tag:
    """Make the Tag that the declaration asks for, before anything was read.

    Raises `TagError` without a jurisdiction or with a classification that is none, `ZoneError` for an unknown code.
    """
    if not declaration.jurisdictions:
        raise TagError("no jurisdiction was given", hint="say whose law binds the document, such as DE or FR")
    if not 0 <= declaration.classification <= MAX_CLASSIFICATION:
        raise TagError(
            f"{declaration.classification} is no classification",
            hint="0 public, 1 internal, 2 confidential, 3 secret, 4 top secret",
        )
    jurisdictions = frozenset(zones.check(code) for code in declaration.jurisdictions)
    if declaration.residency is None:
        residency = default_residency(jurisdictions, zones)
    else:
        residency = frozenset(zones.check(code) for code in declaration.residency)
    return Tag(
        jurisdictions=jurisdictions,
        residency=residency,
        personal=declaration.personal,
        categories=declaration.categories,
        classification=declaration.classification,
    )


def default_residency(jurisdictions: Iterable[str], zones: Places) -> frozenset[str]:
    """Give each jurisdiction its own bloc, EU for what lies in it, else itself, and only what all have in common.

    DE gives EU, CH gives CH, DE with CH gives the empty set: no Zone suits both, so somebody has to say.
    """
    blocs = [frozenset({UNION if zones.within(code, UNION) else code}) for code in sorted(jurisdictions)]
    common = blocs[0]
    for bloc in blocs[1:]:
        common = zones.intersect(common, bloc)
    return common


def rule(declaration: Declaration, signs: Sequence[Sign], zones: Places) -> Tagged:
    """Compare declared and found: agree, narrow, or put in dispute; see `declared` for what is raised.

    1. Agree: no Sign, or Signs of the declared Zones, or too few of another one.
    2. Narrow: checked numbers of a Zone inside a broader declared one add it to the jurisdictions; numbers of persons
       make the Document personal.
    3. Dispute: several checked numbers of a Zone that was not declared, and none at all of a declared one.
    """
    tag = declared(declaration, zones)
    pointing = [sign for sign in signs if sign.kind != "language" and zones.known(sign.zone)]
    categories = {sign.what for sign in signs if sign.kind == "category"}
    home = [sign for sign in pointing if any(zones.within(sign.zone, code) for code in tag.jurisdictions)]
    foreign = [sign for sign in pointing if sign not in home]

    # 1. and 2. What the declared Zones hold, and who is named.
    inner = {sign.zone for sign in home if sign.zone not in tag.jurisdictions and _is_loud(home, sign.zone)}
    found = Tag(
        jurisdictions=tag.jurisdictions | inner,
        residency=tag.residency,
        personal=tag.personal or "personal" in categories or any(sign.kind == "person_id" for sign in pointing),
        categories=tag.categories | (categories - {"personal"}),
        classification=tag.classification,
    )

    # 3. Another country speaks, and the declared ones are silent.
    placed = sorted({sign.zone for sign in foreign if sign.kind == "place"})
    loud = sorted({sign.zone for sign in foreign if _is_loud(foreign, sign.zone)} | set(placed))
    quarantine = None
    if placed:
        quarantine = f"declared {tag.origin}, but its folder speaks for {', '.join(placed)}"
    elif loud and not home:
        counts = ", ".join(f"{zone} ({sum(sign.zone == zone for sign in foreign)} signs)" for zone in loud)
        quarantine = f"declared {tag.origin}, but the text points to {counts} and holds no sign of {tag.origin}"
    return Tagged(found, _evidence(tag, signs), quarantine, tuple(loud))


def suggested(held: Tag, evidence: Sequence[Mapping[str, Any]], zones: Places) -> Tag:
    """Give the Tag with everything that its evidence adds: what a reviewer is offered.

    Where another country speaks loudly its law is added: then both bind.
    """
    signs = [Sign(**item) for item in evidence if item["kind"] not in ("declared", "reviewer")]
    declaration = Declaration(held.jurisdictions, held.residency, held.personal, held.categories, held.classification)
    found = rule(declaration, signs, zones)
    return replace(found.tag, jurisdictions=found.tag.jurisdictions | set(found.loud))


def leading(signs: Sequence[Sign]) -> str:
    """Give the Zone that a text points to most, by the strengths of different kinds; empty where none leads."""
    sums: dict[str, int] = {}
    for zone in {sign.zone for sign in signs if sign.zone and sign.kind != "language"}:
        kinds = {sign.kind: sign.strength for sign in signs if sign.zone == zone}
        sums[zone] = sum(kinds.values())
    best = max(sums.values(), default=0)
    leaders = [zone for zone, total in sums.items() if total == best]
    return leaders[0] if len(leaders) == 1 else ""


def wider(held: Tag, wanted: Tag, zones: Places) -> list[str]:
    """Say in which values one Tag is wider than another; empty where it narrows or is the same."""
    outside = [code for code in wanted.residency if not any(zones.within(code, each) for each in held.residency)]
    checks = (
        (held.jurisdictions <= wanted.jurisdictions, "a jurisdiction that binds it is missing"),
        (not outside, f"the residency goes beyond it ({', '.join(sorted(outside))})"),
        (bool(wanted.residency), "the residency is empty"),
        (wanted.personal or not held.personal, "it no longer counts as personal"),
        (held.categories <= wanted.categories, "a category is missing"),
        (held.classification <= wanted.classification <= MAX_CLASSIFICATION, "the classification is lower or none"),
    )
    return [text for holds, text in checks if not holds]


def _is_loud(signs: Sequence[Sign], zone: str) -> bool:
    mine = [sign for sign in signs if sign.zone == zone]
    strong = [sign for sign in mine if sign.strength >= STRONG]
    forms = {sign.kind for sign in mine} - {sign.kind for sign in strong}
    several = len({sign.kind for sign in strong}) >= STRONG_KINDS or len(strong) >= STRONG_VALUES
    return several or (bool(strong) and len(forms) >= FORMS)


def _evidence(tag: Tag, signs: Sequence[Sign]) -> list[dict[str, Any]]:
    """List what was said and what was found, as JSON-able data: kind, zone, start, end, what, strength."""
    said = [_item(Sign("declared", code, 0, 0, 0, "declared by the sender")) for code in sorted(tag.jurisdictions)]
    return said + [_item(sign) for sign in signs]


def sealed_form(signs: Sequence[Sign]) -> bytes:
    """Give Signs as the bytes that are sealed into a row."""
    return json.dumps([_item(sign) for sign in signs]).encode()


def _item(sign: Sign) -> dict[str, Any]:
    return asdict(sign)
