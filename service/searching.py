"""The story of a search: ruled on before it is embedded, sent to permitted shards only, opened with permitted keys.

Numbered steps as in ARCHITECTURE.md, "The two walks". Nothing is released before its Receipt is in the Ledger. A
Passage of a Tag that the policy does not permit is never fetched: the filter lists the permitted tag classes.
What may be searched is in `groups.py`, how winners are opened in `opening.py`, what is recorded in `drafting.py`.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from ingestion.collections import Collection
from ingestion.damage import Damage
from ingestion.documents import ClassCount, Documents
from ingestion.errors import NotFoundError
from residency.decision import Ask, Principal, Refusal
from residency.engine import Engine
from residency.errors import ModelError, SiteError
from residency.journal import Touch, recording
from residency.keyring import Keyring
from residency.ledger import Ledger
from residency.ports import Embedder, PointFilter, Shard, ShardQuery, Vectors
from residency.protection import VectorMode
from residency.route import Action, Route
from residency.searchkeys import SearchKeys
from residency.tag import Tag
from service.calibration import Calibrations, choose
from service.drafting import Drafting
from service.findings import DEFAULT, Findings, Opened, Results, Search
from service.fusion import SHIPPED, dense_weight, fuse, trust
from service.groups import Asked, Group, pass_for, reach, rule
from service.matrices import Matrices
from service.opening import OVERFETCH, Opening
from service.questions import LONGEST, fitting, readable

__all__ = ["Findings", "Opened", "Results", "Search", "Searching", "question_tag"]

CANDIDATES = 25
"""Hits that each leg of each shard brings in; the ranking is the same from 20 to 100."""


class Searching:
    """Searches for a principal. Bodies of outlets come in by Site id."""

    def __init__(
        self,
        *,
        engine: Engine,
        documents: Documents,
        keyring: Keyring,
        ledger: Ledger,
        shards: Mapping[str, Shard],
        embedders: Mapping[str, Embedder],
        deadline: float,
        longest: int = LONGEST,
        calibrations: Calibrations | None = None,
        weights: Mapping[str, Mapping[str, float]] = SHIPPED,
        damage: Damage | None = None,
        matrices: Matrices | None = None,
    ) -> None:
        self.drafting = Drafting(engine, ledger)
        self._engine = engine
        self._documents = documents
        self._keyring = keyring
        self._ledger = ledger
        self._shards = shards
        self._embedders = embedders
        self._deadline = deadline
        self._longest = longest
        self._calibrations = calibrations or Calibrations(documents.database)
        self._weights = weights
        self._matrices = matrices or Matrices(documents, keyring)
        self._opening = Opening(engine, documents, keyring, deadline, damage)

    async def search(self, principal: Principal, ask: Search) -> Results | tuple[Refusal, str]:
        """Search, record, release. A Refusal comes with the id of its Receipt."""
        findings = await self.find(principal, ask)
        if isinstance(findings, Refusal):
            return findings, await self.drafting.refusal(principal, findings, ask.query, ask.activity)
        mark = time.perf_counter()
        stored = await self._ledger.record(
            self.drafting.draft("search", principal, findings, question=ask.query, activity=ask.activity)
        )
        findings.timings["ledger"] = time.perf_counter() - mark
        return Results(findings, stored.id)

    async def find(self, principal: Principal, ask: Search) -> Findings | Refusal:
        """Do everything but record: for `search`, and for an Answer that records itself."""
        plain = replace(ask, query=readable(ask.query, most=self._longest, param=ask.param))
        tags: list[Tag] = []
        with recording() as touches:
            try:
                return await self._find(principal, plain, touches, tags)
            except asyncio.CancelledError:
                await self.drafting.cancelled(ask.kind, principal, ask.query, ask.activity, tags, touches)
                raise

    async def _find(
        self, principal: Principal, ask: Search, touches: list[Touch], tags: list[Tag]
    ) -> Findings | Refusal:
        begun = time.perf_counter()
        timings: dict[str, float] = {}
        # (1) distinct Tags of the collection, and the question's own
        within, held = await self._held(principal, ask.collection)
        timings["rows"] = time.perf_counter() - begun
        mark = time.perf_counter()
        asked = question_tag(self._engine, principal)
        tags.append(asked)
        # (2) rule: the question at an embedder; question and passages at every shard
        permits, refusals = self._engine.permitted(principal, Action.EMBED, (asked,), "embedder", activity=ask.activity)
        permits = [permit for permit in permits if permit.route.site in self._embedders]
        if not permits:
            return refusals[0] if refusals else _nowhere(principal, asked, ask.activity)
        model = within.model
        if model and not any(self._embedders[permit.route.site].digest == model for permit in permits):
            raise ModelError(
                "the collection holds vectors of another model, or of another precision",
                hint="start with the model that it was filled with, or put its documents in anew",
            )
        permits = [permit for permit in permits if model in ("", self._embedders[permit.route.site].digest)]
        ruled = rule(self._engine, principal, asked, held, ask.activity, within.protection)
        timings["decide"] = time.perf_counter() - mark
        if held and not ruled.groups and ruled.refusals:
            return ruled.refusals[0]
        if not ruled.groups:
            language, _ = _language(ask)
            given = ruled.withheld, ruled.refusals, ruled.closed, 0, (asked,), tuple(touches), language, timings
            return Findings((), *given)
        tags += dict.fromkeys(tag for group in ruled.groups for tag in group.tags)
        # (3) embed the question; the shards are asked for its words meanwhile, and for its vector once it is there
        mark = time.perf_counter()
        embedder = self._embedders[permits[0].route.site]
        # a question may be longer than the model reads: its words all count, its vector is that of its beginning
        long = len(ask.query.encode()) + 8 > embedder.max_tokens  # a token is a byte at least
        seen = fitting(ask.query, embedder.count_tokens, embedder.max_tokens) if long else ask.query
        ignored = () if seen == ask.query else (f"query beyond {embedder.max_tokens} tokens, for its vector",)
        embedding = asyncio.create_task(embedder.embed(permits[0].route, [seen], question=True))
        embedding.add_done_callback(partial(_timed, timings, mark))
        try:
            await asyncio.sleep(0)  # so that the model begins before the rest is prepared
            language, sure = _language(ask)
            spoken = sorted({each.language for group in ruled.groups for each in group.classes})
            # the wrong stemmer alone would miss: unless its language is sure, a question is stemmed in all it may find
            stemmed = [language] if sure and language in spoken else spoken
            # (4) open each group's search keys, blind the words and turn the vector with them; all Sites at once
            answers = await asyncio.gather(
                *(
                    reach(
                        group.site,
                        self._ask(principal, ask, asked, group, within.id, stemmed, embedder.dimension, embedding),
                        self._deadline,
                    )
                    for group in ruled.groups
                )
            )
            await embedding  # its failure is no shard's
        finally:
            embedding.cancel()
        found = [each for each in answers if isinstance(each, Asked)]
        silent = {each for each in answers if isinstance(each, str)}
        if silent and not found:
            missed = sorted({*silent, *ruled.closed})
            raise SiteError(f"no permitted site answered ({', '.join(missed)})", site=missed[0], hint="try again later")
        timings["shards"] = time.perf_counter() - mark - timings["embed"]
        # (5) join
        mark = time.perf_counter()
        learned = self._weights.get(embedder.digest.partition("+")[0], {})
        ranked = fuse(
            [each.found for each in found],
            [each.tokens for each in found],
            dense_weight=dense_weight(learned, language, spoken) if ask.dense_weight is None else ask.dense_weight,
            trust=trust(learned, language, spoken),
            wordless={index for index, each in enumerate(found) if not each.group.protection.words},
        )
        passages_within = sum(each.passages for group in ruled.groups for each in group.classes)
        maps = await self._calibrations.of(within.id)
        timings["join"] = time.perf_counter() - mark
        # (6) check the winners against their rows, and open them
        mark = time.perf_counter()
        passages, damaged, lost = await self._opening.open(principal, ask, ranked, found, language)
        timings["open"] = time.perf_counter() - mark
        return Findings(
            tuple(passages),
            ruled.withheld,
            ruled.refusals,
            tuple(sorted({*silent, *ruled.closed, *lost})),
            damaged + sum(each.damaged for each in found),
            tuple(tags),
            tuple(touches),
            language,
            timings,
            ignored,
            choose(maps, embedder.digest, language, passages=passages_within),
            embedder.digest,
        )

    async def _held(self, principal: Principal, name: str) -> tuple[Collection, list[ClassCount]]:
        """Give a Collection, with the digest of the model that it holds vectors of, and what lies in it."""
        database, tenant, groups = self._documents.database, principal.tenant, principal.groups
        collection, counts = await database.look(self._documents.held, tenant, name, groups)
        if collection is None:
            if name == DEFAULT:  # every tenant has it, from its first document on
                return Collection("", name, paused=False, model=""), []
            raise NotFoundError("there is no such collection", hint="see GET /v1/models, or leave `collection` out")
        if counts is None:
            counts = await database.run(self._documents.counts, tenant, [collection.id], groups)
        return collection, counts

    async def _ask(
        self,
        principal: Principal,
        ask: Search,
        asked: Tag,
        group: Group,
        collection: str,
        languages: Sequence[str],
        dimension: int,
        embedding: asyncio.Task[Vectors],
    ) -> Asked | None:
        """Ask one group's shard; None when nothing was ever put there."""
        keys = await self._keyring.search_keys(
            pass_for(self._engine, principal, Action.OPEN, group, ask.activity),
            tenant=principal.tenant,
            jurisdiction=group.origin,
            site=group.site,
            dimension=dimension,
            create=False,
        )
        if keys is None:
            return None
        shard = self._shards.get(group.site)
        if shard is None:
            raise SiteError(f"no shard at {group.site}", site=group.site, hint="check the fleet file")
        tokens, form = keys.lexicon.question(ask.query, languages), group.protection
        query = ShardQuery(
            where=PointFilter(
                owners=(keys.owner,),
                classes=tuple(each.tag_class for each in group.classes),
                collections=(collection,),
                documents=ask.documents,
                groups=tuple(keys.group(name) for name in sorted(principal.groups)),
            ),
            vector=partial(_turned, embedding, keys, form.vectors),
            tokens=tokens if form.words else {},  # what is not asked there tells nothing there
            limit=max(CANDIDATES, ask.top_k * OVERFETCH),
        )
        damaged = 0
        if form.vectors is VectorMode.SEALED:
            may = partial(self._pass, principal, ask, group, asked)
            found, damaged = await self._matrices.search(
                shard, query, tenant=principal.tenant, group=group, keys=keys, may=may
            )
        else:
            found = await shard.search(self._pass(principal, ask, group, asked, Action.SEARCH), query)
        if not form.words:  # quotes are still chosen by the question's words, all of them equal
            found = replace(found, idf=dict.fromkeys(tokens, 1.0))
        return Asked(group, found, keys, tokens, damaged)

    def _pass(self, principal: Principal, ask: Search, group: Group, asked: Tag, action: Action) -> Route:
        also = (asked,) if action is Action.SEARCH else ()
        return pass_for(self._engine, principal, action, group, ask.activity, *also)


def question_tag(engine: Engine, principal: Principal) -> Tag:
    """Give the Tag of a question: bound by the law of the asker's Zone, to be processed inside the tenant's ceiling.

    A question from inside the EEA stays there even where the ceiling is wider: it may quote the very documents that may
    not leave, and nobody declared it to be free of personal data (docs/decisions).
    """
    ceiling = engine.ceiling(principal.tenant)
    inside = bool(principal.zone) and engine.zones.within(principal.zone, "EEA")
    within = engine.zones.intersect(ceiling, frozenset({"EEA"})) if inside else ceiling
    return Tag(frozenset({principal.zone}) if principal.zone else frozenset(), within)


def _nowhere(principal: Principal, tag: Tag, activity: str) -> Refusal:
    return Refusal(
        Ask(principal, Action.EMBED, "", (tag,), activity),
        tag=tag,
        remedy="give the fleet an embedder at a permitted site",
    )


async def _turned(embedding: asyncio.Task[Vectors], keys: SearchKeys, mode: VectorMode) -> Vectors:
    """Give the question's vector in the basis of these keys; one group that gives up does not end the embedding."""
    (vector,) = await asyncio.shield(embedding)
    return keys.asked(mode, vector)


def _language(ask: Search) -> tuple[str, bool]:
    """Give a question's language, and whether it is sure: the asker named it, or small words and n-grams agree."""
    from ingestion.detectors import spoken

    return (ask.language, True) if ask.language else spoken(ask.query)


def _timed(timings: dict[str, float], begun: float, embedding: asyncio.Task[Vectors]) -> None:
    timings["embed"] = time.perf_counter() - begun
    if not embedding.cancelled():
        embedding.exception()  # whoever gave up on the search before has no use for it
