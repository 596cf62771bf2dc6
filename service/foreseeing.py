"""Foreseeing: what a question would be permitted to do, ruled on without asking it; nothing is touched.

Rules kept here: the same engine, the same Tags and the same order as a real question; of what is held only that counts
which the asker may know of.
"""

from typing import Any

from ingestion.documents import Documents
from ingestion.errors import NotFoundError
from residency.decision import Ask, Principal, Refusal
from residency.engine import Engine
from residency.route import Action
from service.findings import DEFAULT
from service.searching import question_tag


async def foresee(
    engine: Engine, documents: Documents, principal: Principal, collection: str, activity: str
) -> dict[str, Any]:
    """Say where a question would be embedded, what of a Collection it may search, and where a generator may write.

    Raises `NotFoundError` for a Collection that the tenant does not have.
    """
    found = await documents.database.run(documents.find_collection, principal.tenant, collection)
    if found is None and collection != DEFAULT:
        raise NotFoundError("there is no such collection", hint="leave `collection` out")
    ids = [found.id] if found is not None else []
    held = await documents.database.run(documents.counts, principal.tenant, ids, principal.groups) if ids else []
    asked = question_tag(engine, principal)
    places: list[dict[str, Any]] = []
    for each in held:
        asks = ((Action.SEARCH, (each.tag, asked)), (Action.OPEN, (each.tag,)))
        rulings = [engine.decide(Ask(principal, action, each.site, tags, activity)) for action, tags in asks]
        against = next((ruling for ruling in rulings if isinstance(ruling, Refusal)), None)
        zone = engine.fleet.site(each.site).zone
        place = {"site": each.site, "zone": zone, "tag": each.tag.facts(), "passages": each.passages}
        places.append(place | {"permitted": against is None} | (_why(against) if against else {}))
    seen = (asked, *(each.tag for each in held))
    return {
        "collection": collection,
        "purpose": activity,
        "zone": principal.zone,
        "question": _at(engine, principal, Action.EMBED, (asked,), "embedder", activity),
        "held": places,
        "generator": _at(engine, principal, Action.GENERATE, seen, "generator", activity),
    }


def _at(
    engine: Engine, principal: Principal, action: Action, tags: tuple[Any, ...], kind: str, activity: str
) -> dict[str, Any]:
    permits, refusals = engine.permitted(principal, action, tags, kind, activity)
    sites = [permit.route.site for permit in permits]
    return {"permitted": bool(sites), "sites": sites} | (_why(refusals[0]) if refusals and not sites else {})


def _why(refusal: Refusal) -> dict[str, Any]:
    facts = refusal.facts()
    return {name: facts[name] for name in ("reasons", "why_not", "remedy")}
