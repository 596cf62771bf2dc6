"""The story of a search: ruled on before it is embedded, sent to permitted shards only, opened with permitted keys.

Numbered steps as in ARCHITECTURE.md, "The two walks". Nothing is released before its Receipt is in the Ledger. A
Passage of a Tag that the policy does not permit is never fetched: the filter lists the permitted tag classes. Winners
are checked against the database's rows, never against what came out of a shard.
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

from ingestion.documents import ClassCount, Document, Documents
from ingestion.errors import NotFoundError
from residency.decision import Ask, Permit, Principal, Refusal
from residency.engine import Engine
from residency.envelope import PassageBody, PassageSealer
from residency.errors import DomicileError, KeyRefusedError, KeyringError, SealedError, SiteError
from residency.journal import Touch, recording
from residency.keyring import Keyring, SearchKeys
from residency.ledger import Ledger
from residency.lexicon import QuestionTokens
from residency.ports import Embedder, Found, PointFilter, Shard, ShardQuery, Vectors
from residency.receipt import Draft, steps
from residency.route import Action, Route
from residency.seal import OpenDek
from residency.tag import Tag
from service.fusion import SHIPPED, Scored, dense_weight, fuse
from service.questions import LONGEST, fitting, readable

T = TypeVar("T")
DEFAULT = "default"
"""The Collection that is meant where none is named."""
CANDIDATES = 25
"""Hits that each leg of each shard brings in; the ranking is the same from 20 to 100."""
OVERFETCH = 2
"""An old and a new version lie side by side for a moment; winners are checked, so more are opened than asked for."""


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked: text, how many passages, in which collection, of which documents."""

    query: str
    top_k: int = 5
    collection: str = DEFAULT
    documents: tuple[str, ...] | None = None
    activity: str = "search"
    kind: str = "search"
    """Of the Receipt, should the asker go away: `search` or `answer`."""
    language: str = ""
    """ISO 639-1 code of the question; empty: told from its words."""
    dense_weight: float | None = None
    """Weight of the dense leg; None: as learned for the model and the languages. An evaluation tries others."""
    param: str = "query"
    """What the client called the question, for problems with it."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A Passage that was found, permitted and opened."""

    document_id: str
    name: str
    version: int
    page: int
    start: int
    end: int
    text: str
    heading: str
    language: str
    score: float
    support: float
    site: str
    zone: str
    tag: Tag
    words: Mapping[int, float]
    """Share of the question's IDF mass, at the shard it came from, that holding each of its blind tokens is worth."""
    keys: SearchKeys


@dataclass(frozen=True, slots=True)
class Findings:
    """What a search found, with everything its Receipt needs."""

    passages: tuple[Opened, ...]
    withheld: int
    """Passages held back: in documents the asker may know of, in tag classes that are not permitted."""
    refusals: tuple[Refusal, ...]
    unreached: tuple[str, ...]
    damaged: int
    tags: tuple[Tag, ...]
    touches: tuple[Touch, ...]
    language: str
    timings: dict[str, float] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    """What of the question had no full effect, such as `query beyond 256 tokens`."""


@dataclass(frozen=True, slots=True)
class Results:
    """A finished search: released because `receipt` is in the Ledger."""

    findings: Findings
    receipt: str


@dataclass(frozen=True, slots=True)
class _Group:
    """Live passages that share an origin and a Site, and so share keys and a shard; only permitted classes."""

    site: str
    origin: str
    classes: tuple[ClassCount, ...]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one group's shard answered, with the keys and the blinded words it was asked with."""

    group: _Group
    found: Found
    keys: SearchKeys
    tokens: QuestionTokens


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
    ) -> None:
        self._engine = engine
        self._documents = documents
        self._keyring = keyring
        self._ledger = ledger
        self._shards = shards
        self._embedders = embedders
        self._deadline = deadline
        self._longest = longest

    async def search(self, principal: Principal, ask: Search) -> Results | tuple[Refusal, str]:
        """Search, record, release. A Refusal comes with the id of its Receipt."""
        findings = await self.find(principal, ask)
        if isinstance(findings, Refusal):
            return findings, await self.record_refusal(principal, findings, ask.query, ask.activity)
        mark = time.perf_counter()
        stored = await self._ledger.record(
            self.draft("search", principal, findings, question=ask.query, activity=ask.activity)
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
                await self.record_cancelled(ask.kind, principal, ask.query, ask.activity, tags, touches)
                raise

    async def _find(
        self, principal: Principal, ask: Search, touches: list[Touch], tags: list[Tag]
    ) -> Findings | Refusal:
        begun = time.perf_counter()
        timings: dict[str, float] = {}
        # (1) distinct Tags of the collection, and the question's own
        collection, held = await self._documents.database.run(self._held, principal, ask.collection)
        timings["rows"] = time.perf_counter() - begun
        mark = time.perf_counter()
        asked = question_tag(self._engine, principal)
        tags.append(asked)
        # (2) rule: the question at an embedder; question and passages at every shard
        permits, refusals = self._engine.permitted(principal, Action.EMBED, (asked,), "embedder", activity=ask.activity)
        permits = [permit for permit in permits if permit.route.site in self._embedders]
        if not permits:
            return refusals[0] if refusals else _nowhere(principal, asked, ask.activity)
        groups, withheld, kept_back, closed = self._rule(principal, asked, held, ask.activity)
        timings["decide"] = time.perf_counter() - mark
        if held and not groups and kept_back:
            return kept_back[0]
        if not groups:
            language, _ = _language(ask)
            return Findings((), withheld, tuple(kept_back), closed, 0, (asked,), tuple(touches), language, timings)
        # (3) embed the question; while the model works, open each group's search keys and tell the question's language
        mark = time.perf_counter()
        embedder = self._embedders[permits[0].route.site]
        opening = [
            self._reach(each.site, self._keys(principal, each, embedder.dimension, ask.activity)) for each in groups
        ]
        tags += dict.fromkeys(each.tag for group in groups for each in group.classes)
        # a question may be longer than the model reads: its words all count, its vector is that of its beginning
        long = len(ask.query.encode()) + 8 > embedder.max_tokens  # a token is a byte at least
        seen = fitting(ask.query, embedder.count_tokens, embedder.max_tokens) if long else ask.query
        ignored = () if seen == ask.query else (f"query beyond {embedder.max_tokens} tokens, for its vector",)
        embedding = embedder.embed(permits[0].route, [seen], question=True)
        both = asyncio.gather(embedding, asyncio.gather(*opening))
        await asyncio.sleep(0)
        language, sure = _language(ask)
        (vector,), opened = await both
        timings["embed"] = time.perf_counter() - mark
        # (4) turn the vector and blind the words for each group's keys; ask all permitted shards at once
        mark = time.perf_counter()
        spoken = sorted({each.language for group in groups for each in group.classes})
        # the wrong stemmer alone would miss: unless its language is sure, a question is stemmed in all it may find
        stemmed = [language] if sure and language in spoken else spoken
        found, silent = await self._ask_shards(principal, ask, asked, groups, opened, vector, collection, stemmed)
        if silent and not found:
            missed = sorted({*silent, *closed})
            raise SiteError(f"no permitted site answered ({', '.join(missed)})", site=missed[0], hint="try again later")
        timings["shards"] = time.perf_counter() - mark
        # (5) join
        weight = ask.dense_weight
        if weight is None:
            weight = dense_weight(SHIPPED.get(embedder.digest, {}), language, spoken)
        ranked = fuse([each.found for each in found], [each.tokens for each in found], dense_weight=weight)
        # (6) check the winners against their rows, and open them
        mark = time.perf_counter()
        wanted = list(dict.fromkeys(str(item.hit.payload["d"]) for item in ranked[: ask.top_k * OVERFETCH + 10]))
        rows = await self._documents.database.run(self._documents.live, principal.tenant, wanted)
        timings["rows"] += time.perf_counter() - mark
        mark = time.perf_counter()
        passages, damaged, lost = await self._open(principal, ask, ranked, found, rows)
        timings["open"] = time.perf_counter() - mark
        unreached = tuple(sorted({*silent, *closed, *lost}))
        return Findings(
            tuple(passages),
            withheld,
            tuple(kept_back),
            unreached,
            damaged,
            tuple(tags),
            tuple(touches),
            language,
            timings,
            ignored,
        )

    def _held(self, principal: Principal, name: str) -> tuple[str, list[ClassCount]]:
        collection = self._documents.find_collection(principal.tenant, name)
        if collection is None:
            if name == DEFAULT:  # every tenant has it, from its first document on
                return "", []
            raise NotFoundError("there is no such collection", hint="see GET /v1/models, or leave `collection` out")
        return collection.id, self._documents.counts(principal.tenant, [collection.id], principal.groups)

    def _rule(
        self, principal: Principal, asked: Tag, held: Sequence[ClassCount], activity: str
    ) -> tuple[list[_Group], int, list[Refusal], tuple[str, ...]]:
        """Give what may be searched, how much may not, why, and the Sites that are closed: those are not reached."""
        groups: dict[tuple[str, str], list[ClassCount]] = {}
        withheld, refusals, closed = 0, list[Refusal](), set[str]()
        for tag_class in held:
            # the question itself goes to the shard, as a turned vector and blinded words: its own Tag must permit that
            asks = ((Action.SEARCH, (tag_class.tag, asked)), (Action.OPEN, (tag_class.tag,)))
            decisions = [
                self._engine.decide(Ask(principal, action, tag_class.site, tags, activity)) for action, tags in asks
            ]
            refused = [decision for decision in decisions if isinstance(decision, Refusal)]
            if refused:
                refusals.append(refused[0])
                if self._engine.closed(tag_class.site):  # whether the policy permits it there is not the matter now
                    closed.add(tag_class.site)
                else:
                    withheld += tag_class.passages
            else:
                groups.setdefault((tag_class.site, tag_class.jurisdiction), []).append(tag_class)
        made = [_Group(site, origin, tuple(each)) for (site, origin), each in groups.items()]
        return made, withheld, refusals, tuple(sorted(closed))

    def _route(self, principal: Principal, action: Action, group: _Group, activity: str, *also: Tag) -> Route:
        tags = (*dict.fromkeys(each.tag for each in group.classes), *also)
        decision = self._engine.decide(Ask(principal, action, group.site, tags, activity))
        if not isinstance(decision, Permit):  # cannot be: each Tag was permitted a moment ago
            raise SiteError(f"site {group.site} closed while the search ran", site=group.site, hint="try again")
        return decision.route

    async def _ask_shards(
        self,
        principal: Principal,
        ask: Search,
        asked: Tag,
        groups: Sequence[_Group],
        opened: Sequence[SearchKeys | str | None],
        vector: Vectors,
        collection: str,
        languages: Sequence[str],
    ) -> tuple[list[_Asked], set[str]]:
        async def one(group: _Group, keys: SearchKeys) -> _Asked:
            shard = self._shards.get(group.site)
            if shard is None:
                raise SiteError(f"no shard at {group.site}", site=group.site, hint="check the fleet file")
            tokens = keys.lexicon.question(ask.query, languages)
            query = ShardQuery(
                where=PointFilter(
                    owners=(keys.owner,),
                    classes=tuple(each.tag_class for each in group.classes),
                    collections=(collection,),
                    documents=ask.documents,
                    groups=tuple(keys.group(name) for name in sorted(principal.groups)),
                ),
                vector=keys.rotate(vector),
                tokens=tokens,
                limit=max(CANDIDATES, ask.top_k * OVERFETCH),
            )
            route = self._route(principal, Action.SEARCH, group, ask.activity, asked)
            return _Asked(group, await shard.search(route, query), keys, tokens)

        answers = await asyncio.gather(
            *(
                self._reach(group.site, one(group, keys))
                for group, keys in zip(groups, opened, strict=True)
                if isinstance(keys, SearchKeys)
            )
        )
        found = [each for each in answers if isinstance(each, _Asked)]
        return found, {each for each in (*answers, *opened) if isinstance(each, str)}

    async def _keys(self, principal: Principal, group: _Group, dimension: int, activity: str) -> SearchKeys | None:
        return await self._keyring.search_keys(
            self._route(principal, Action.OPEN, group, activity),
            tenant=principal.tenant,
            jurisdiction=group.origin,
            site=group.site,
            dimension=dimension,
            create=False,
        )

    async def _reach(self, site: str, story: Awaitable[T]) -> T | str:
        """Give the Site's answer, or its id when it did not answer in time; never another Site instead."""
        try:
            async with asyncio.timeout(self._deadline):
                return await story
        except KeyRefusedError:
            raise  # the provider answered: this key does not open, and no waiting helps
        except (SiteError, KeyringError, TimeoutError):  # its keys live at the Site as its points do
            return site

    async def _open(
        self,
        principal: Principal,
        ask: Search,
        ranked: Sequence[Scored],
        found: Sequence[_Asked],
        rows: Mapping[str, Document],
    ) -> tuple[list[Opened], int, set[str]]:
        chosen: list[tuple[Scored, Document]] = []
        for item in ranked:
            row = rows.get(str(item.hit.payload["d"]))
            group, keys = found[item.source].group, found[item.source].keys
            # the point id fixes document, version and place: what a shard says beyond that is not believed
            if row is None or row.site != group.site or row.tag_class not in {each.tag_class for each in group.classes}:
                continue
            if item.hit.id != keys.point_id(row.id, row.version, int(item.hit.payload["n"])):
                continue
            chosen.append((item, row))
            if len(chosen) == ask.top_k:
                break
        opened: list[Opened] = []
        damaged, lost = 0, set[str]()
        winners = [
            (asked, [(item, row) for item, row in chosen if item.source == index]) for index, asked in enumerate(found)
        ]
        winners = [(asked, mine) for asked, mine in winners if mine]
        keyrings = await asyncio.gather(
            *(
                self._reach(
                    asked.group.site, self._deks(principal, asked.group, ask.activity, [row for _, row in mine])
                )
                for asked, mine in winners
            )
        )
        for (asked, mine), deks in zip(winners, keyrings, strict=True):
            group, keys = asked.group, asked.keys
            if isinstance(deks, str):  # the Site, or its keys, went away after it had answered
                lost.add(deks)
                continue
            worth, mass = asked.tokens.shares(asked.found.idf)
            words = {token: value / mass if mass > 0 else 0.0 for token, value in worth.items()}
            for item, row in mine:
                dek = deks.get(row.dek_id)
                if dek is None:
                    damaged += 1
                    continue
                sealer = PassageSealer(
                    dek,
                    collection=bytes.fromhex(row.collection),
                    document=bytes.fromhex(row.id),
                    version=row.version,
                    classification=row.tag.classification,
                )
                try:
                    body: PassageBody = sealer.open(int(item.hit.payload["n"]), item.hit.id, str(item.hit.payload["s"]))
                except SealedError:
                    damaged += 1
                    continue
                opened.append(_opened(item, row, body, self._zone(group.site), words, keys))
        return sorted(opened, key=lambda each: -each.score), damaged, lost

    async def _deks(
        self, principal: Principal, group: _Group, activity: str, rows: Sequence[Document]
    ) -> dict[bytes, OpenDek]:
        route = self._route(principal, Action.OPEN, group, activity)
        wanted = list(dict.fromkeys((row.dek_id, row.tag.digest) for row in rows))
        return await self._keyring.open_deks(route, group.site, wanted)

    def _zone(self, site: str) -> str:
        return self._engine.fleet.site(site).zone

    # --- records ---

    def draft(
        self,
        kind: str,
        principal: Principal,
        findings: Findings,
        *,
        question: str,
        activity: str,
        answer: str = "",
        touches: Sequence[Touch] = (),
        tags: Sequence[Tag] = (),
    ) -> Draft:
        """Write the Draft of a Receipt: every Site touched, every refusal, commitments instead of content.

        `touches` and `tags` are those that came after the search.
        """
        documents = sorted({passage.document_id for passage in findings.passages})
        commits: dict[str, bytes | list[bytes]] = {
            "principal": principal.id.encode(),
            "question": question.encode(),
            "documents": [document.encode() for document in documents],
        }
        if answer:
            commits["answer"] = answer.encode()
        return Draft(
            kind=kind,
            tenant=principal.tenant,
            activity=activity,
            tags=tuple(dict.fromkeys((*findings.tags, *tags))),
            steps=steps([*findings.touches, *touches], self._engine.fleet, datetime.now(UTC), reason="asked"),
            refused=[refusal.facts() for refusal in findings.refusals],
            withheld=findings.withheld,
            commits=commits,
        )

    async def record_cancelled(
        self,
        kind: str,
        principal: Principal,
        question: str,
        activity: str,
        tags: Sequence[Tag],
        touches: Sequence[Touch],
    ) -> None:
        """Record a question whose asker went away: what was touched until then; nothing was released."""
        draft = Draft(
            kind=kind,
            tenant=principal.tenant,
            activity=activity,
            tags=tuple(dict.fromkeys(tags)),
            steps=steps(touches, self._engine.fleet, datetime.now(UTC), reason="asked"),
            commits={"principal": principal.id.encode(), "question": question.encode()},
            facts={"outcome": "cancelled"},
        )
        with suppress(DomicileError):  # nothing is released, so a Ledger that fails now endangers nothing
            await self._ledger.record(draft)

    async def record_refusal(self, principal: Principal, refusal: Refusal, question: str, activity: str) -> str:
        """Record a question that was refused; give the id of its Receipt."""
        stored = await self._ledger.record(
            Draft(
                kind="refusal",
                tenant=principal.tenant,
                activity=activity,
                tags=refusal.ask.tags,
                steps=[],
                refused=[refusal.facts()],
                commits={"principal": principal.id.encode(), "question": question.encode()},
            )
        )
        return stored.id


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


def _opened(
    item: Scored, row: Document, body: PassageBody, zone: str, words: Mapping[int, float], keys: SearchKeys
) -> Opened:
    return Opened(
        document_id=row.id,
        name=body.name,
        version=row.version,
        page=body.page or 1,
        start=body.start,
        end=body.end,
        text=body.text,
        heading=body.heading,
        language=body.language,
        score=item.score,
        support=item.support,
        site=row.site,
        zone=zone,
        tag=row.tag,
        words=words,
        keys=keys,
    )


def _language(ask: Search) -> tuple[str, bool]:
    """Give a question's language, and whether it is sure: the asker named it, or small words and n-grams agree."""
    from ingestion.detectors import spoken

    return (ask.language, True) if ask.language else spoken(ask.query)
