"""Views: Documents, places and choices as the templates print them; words and icons for every state."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ingestion.claims import Claim
from ingestion.documents import State
from ingestion.states import COMING
from residency.decision import Refusal
from residency.engine import Engine
from residency.fleet import Fleet
from service.catalogue import Entry
from service.rendering.tables import zone_name


@dataclass(frozen=True, slots=True)
class Word:
    """How a state is shown: a word, an icon of `macros.html`, and a tone that only repeats them."""

    text: str
    icon: str
    tone: str


WORDS: Final[dict[State, Word]] = {
    State.RECEIVING: Word("Receiving", "clock", "busy"),
    State.MOVING: Word("Being moved", "clock", "busy"),
    State.SEALED: Word("Sealed, being read", "clock", "busy"),
    State.PARSED: Word("Checking jurisdiction", "clock", "busy"),
    State.TAGGED: Word("Cutting into passages", "clock", "busy"),
    State.SPLIT: Word("Indexing", "clock", "busy"),
    State.EMBEDDED: Word("Indexing", "clock", "busy"),
    State.INDEXED: Word("Going live", "clock", "busy"),
    State.LIVE: Word("Live", "check", "good"),
    State.QUARANTINED: Word("Waits for a reviewer", "hand", "warn"),
    State.FAILED: Word("Failed", "cross", "bad"),
    State.REPLACED: Word("Replaced", "archive", "calm"),
    State.ARCHIVED: Word("Archived", "archive", "calm"),
    State.ERASING: Word("Being erased", "erase", "busy"),
    State.ERASED: Word("Erased", "erase", "calm"),
}
CLASSES: Final = ("public", "internal", "confidential", "secret", "top secret")
CATEGORIES: Final = ("health", "employment", "finance", "legal")
"""Categories that the form offers; the policy may know others, which the API takes."""
CEILINGS: Final = ("EU", "EEA", "GDPR-ADEQUATE")


def rows(entries: Sequence[Entry], fleet: Fleet) -> list[dict[str, Any]]:
    """Lay entries of the list out."""
    return [_row(entry, fleet) for entry in entries]


def _row(entry: Entry, fleet: Fleet) -> dict[str, Any]:
    document = entry.document
    word = WORDS[document.state]
    coming = document.state in COMING
    site = fleet.sites.get(document.site)
    error = document.error
    if coming and error:
        word = Word("Waiting, goes on by itself", "pause", "warn")
    return {
        "id": document.id,
        "version": document.version,
        "name": entry.name,
        "word": word,
        "state": str(document.state),
        "moving": coming or document.state is State.ERASING,
        "progress": round(document.progress, 3) if coming else None,
        "hint": error["hint"] if error else "",
        "live": document.state is State.LIVE,
        "failed": document.state is State.FAILED,
        "erasing": document.state in {State.ERASING, State.ERASED},
        "law": " and ".join(zone_name(code) for code in sorted(document.tag.jurisdictions)),
        "within": ", ".join(zone_name(code) for code in sorted(document.tag.residency)),
        "site": document.site,
        "place": _place(site.place, entry.zone) if site else entry.zone,
        "pages": document.pages,
        "passages": document.passages,
        "size": document.size,
        "created": document.created,
        "personal": document.tag.personal,
        "categories": sorted(document.tag.categories),
        "class": CLASSES[document.tag.classification],
        "collection": entry.collection,
        "receipt": document.receipt,
        "held": entry.held,
    }


def place(engine: Engine, site_id: str, claim: Claim) -> dict[str, Any]:
    """Lay out where a claim's Documents would lie, who controls that Site, and where they may be processed."""
    site = engine.fleet.site(site_id)
    tag = claim.tag(engine.zones)
    return {
        "site": site.id,
        "place": _place(site.place, site.zone),
        "operator": site.operator.name,
        "operator_zone": zone_name(site.operator.zone),
        "key": " and ".join(zone_name(code) for code in sorted(tag.jurisdictions)),
        "within": ", ".join(zone_name(code) for code in sorted(tag.residency)),
    }


def nearest(engine: Engine, refusals: Sequence[Refusal]) -> Refusal:
    """Choose the Refusal that says most: of a Site inside the residency, by a clause rather than by default."""
    return min(refusals, key=lambda each: (not _inside(engine, each), not each.clauses))


def against(engine: Engine, refusals: Sequence[Refusal]) -> list[dict[str, str]]:
    """Say, Site by Site, why data may not lie there."""
    told: dict[str, str] = {}
    for each in refusals:
        if not _inside(engine, each):
            text = "lies outside the places it may be processed in"
        else:
            text = "; ".join(clause.explain for clause in each.clauses) or "no rule permits it"
        told.setdefault(each.ask.site, text)
    sites = engine.fleet.sites
    return [
        {"site": site, "place": _place(sites[site].place, sites[site].zone), "text": text}
        for site, text in told.items()
        if site in sites
    ]


def _inside(engine: Engine, refusal: Refusal) -> bool:
    site = engine.fleet.sites.get(refusal.ask.site)
    tags = (refusal.tag,) if refusal.tag else refusal.ask.tags
    return site is not None and all(
        any(engine.zones.within(zone, code) for zone in site.zones for code in tag.residency) for tag in tags
    )


def _place(city: str, zone: str) -> str:
    return f"{city}, {zone_name(zone)}" if city else zone_name(zone)


def choices(engine: Engine, here: str) -> dict[str, Any]:
    """Give what the form offers: Zones of the Fleet first, then members of the EEA, then all others."""
    zones, fleet = engine.zones, engine.fleet
    places = sorted((code for code in zones.codes if zones.kind(code) == "place"), key=zone_name)
    stands = sorted({site.zone for site in fleet.sites.values()} | {here}, key=zone_name)
    inside = [code for code in places if zones.within(code, "EEA") and code not in stands]
    return {
        "here": here,
        "places": [
            ("Where our sites stand", [(code, zone_name(code)) for code in stands]),
            ("European Economic Area", [(code, zone_name(code)) for code in inside]),
            ("Elsewhere", [(code, zone_name(code)) for code in places if code not in {*stands, *inside}]),
        ],
        "unions": [(code, zone_name(code)) for code in CEILINGS if zones.known(code)],
        "stands": [(code, zone_name(code)) for code in stands],
        "categories": CATEGORIES,
        "classes": list(enumerate(CLASSES)),
    }
