"""Rulings: the passes that a worker needs to move one Document, asked anew for every step.

The engine remembers its decisions, so asking again costs microseconds; a Route dies within a minute.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ingestion.leases import ACTIVITY, worker_principal
from residency.decision import Ask, Refusal
from residency.engine import Engine
from residency.errors import SiteError
from residency.ports import Embedder
from residency.route import Action, Route
from residency.tag import Tag


@dataclass(frozen=True, slots=True)
class Passes:
    """Routes at the Document's own Site, and one to the embedder that may have its text."""

    open: Route
    store: Route
    search: Route
    erase: Route
    embed: Route
    embedder: Embedder


def rule(engine: Engine, embedders: Mapping[str, Embedder], *, tenant: str, site: str, tag: Tag) -> Passes | Refusal:
    """Ask for every Action of the way to live; the first Refusal stands for all."""
    worker = worker_principal(site, tenant)
    routes: list[Route] = []
    for action in (Action.OPEN, Action.STORE, Action.SEARCH, Action.ERASE):
        decision = engine.decide(Ask(worker, action, site, (tag,), activity=ACTIVITY))
        if isinstance(decision, Refusal):
            return decision
        routes.append(decision.route)
    permits, refusals = engine.permitted(worker, Action.EMBED, (tag,), "embedder", activity=ACTIVITY)
    for permit in permits:
        if permit.ask.site in embedders:
            may_open, store, search, erase = routes
            return Passes(may_open, store, search, erase, permit.route, embedders[permit.ask.site])
    if permits or not refusals:
        raise SiteError("no embedder of the Fleet runs in this process", hint="`domicile doctor` shows what is missing")
    return refusals[0]


def erasing(engine: Engine, *, tenant: str, site: str, tag: Tag) -> Route | Refusal:
    """Ask for the one Action that is always permitted."""
    decision = engine.decide(Ask(worker_principal(site, tenant), Action.ERASE, site, (tag,), activity=ACTIVITY))
    return decision if isinstance(decision, Refusal) else decision.route
