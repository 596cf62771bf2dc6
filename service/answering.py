"""The story of an Answer: find, choose who may write it, ground every sentence, record, and only then release.

The generator is chosen by the Tag of what it will see: the meet of the Passages' Tags and the question's. Where none
is permitted or reachable the extractive answerer serves, and says so (`fallback`). Abstentions are Answers with one and
the same reason, whatever lies behind them.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from residency.decision import Ask, Permit, Principal, Refusal
from residency.engine import Engine
from residency.errors import SiteError
from residency.journal import Touch, recording
from residency.ledger import Ledger
from residency.ports import Generator
from residency.route import Action, Route
from residency.tag import Tag
from service.grounding import Citation, abstention, confidence, enough, extractive, supported
from service.prompting import prompt
from service.questions import blank
from service.searching import Findings, Opened, Search, Searching, question_tag

NO_SUPPORT = "no_support"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and of which collection."""

    text: str
    collection: str = "default"
    documents: tuple[str, ...] | None = None
    activity: str = "search"
    earlier: str = ""
    """An earlier question of the same asker that this one goes on from; read together with it, and data."""
    param: str = "question"
    """What the client called it, for problems with it."""
    language: str = ""
    """As of a `Search`."""

    @property
    def whole(self) -> str:
        """What is searched for, and committed to."""
        return f"{self.earlier} {self.text}" if self.earlier else self.text


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished Answer; `receipt` is in the Ledger, so it may be released."""

    text: str
    abstained: bool
    reason: str | None
    confidence: float
    citations: tuple[Citation, ...]
    answered_by: str
    """`extractive` or `generator`."""
    fallback: str | None
    """null, `generator_unavailable`, `generator_not_permitted` or `generator_unsupported`."""
    zones: tuple[str, ...]
    """Zones that processed something for this Answer."""
    withheld: int
    unreached: tuple[str, ...]
    receipt: str
    ignored: tuple[str, ...] = ()
    """What of the question had no full effect."""
    timings: Mapping[str, float] = field(default_factory=dict)


class Answering:
    """Answers for a principal, from Passages that `Searching` found; generators come in by Site id."""

    def __init__(
        self,
        *,
        searching: Searching,
        engine: Engine,
        ledger: Ledger,
        generators: Mapping[str, Generator],
        threshold: float = 0.0,
        sentences: int = 3,
        passages: int = 5,
    ) -> None:
        self._searching = searching
        self._engine = engine
        self._ledger = ledger
        self._generators = generators
        self._threshold = threshold
        self._sentences = sentences
        self._passages = passages

    async def answer(self, principal: Principal, question: Question) -> Answer | tuple[Refusal, str]:
        """Answer, record, release. A Refusal comes with the id of its Receipt.

        Raises `SiteError` when a permitted Site is down and `LedgerError` when nothing can be recorded: then nothing is
        released.
        """
        # an earlier question does not make a question of nothing
        asked = question.text if blank(question.text) else question.whole
        ask = Search(
            asked,
            self._passages,
            question.collection,
            question.documents,
            question.activity,
            kind="answer",
            language=question.language,
            fold=True,
            param=question.param,
        )
        findings = await self._searching.find(principal, ask)
        if isinstance(findings, Refusal):
            return findings, await self._searching.drafting.refusal(principal, findings, asked, question.activity)
        touches: list[Touch] = []
        text, answered_by = "", "extractive"
        citations: list[Citation] = []
        fallback: str | None = None
        if enough(findings.passages, self._threshold or findings.calibration.threshold):
            with recording() as touches:
                try:
                    text, citations, fallback = await self._generated(principal, question, findings)
                except asyncio.CancelledError:
                    tags = (*findings.tags, self._shown(principal, findings.passages))
                    seen = (*findings.touches, *touches)
                    await self._searching.drafting.cancelled("answer", principal, asked, question.activity, tags, seen)
                    raise
            answered_by = "generator" if citations else "extractive"
            if not citations:
                text, citations = extractive(findings.passages, limit=self._sentences)
        abstained = not citations
        if abstained:
            text = abstention(findings.language)
        draft = self._searching.drafting.draft(
            "answer",
            principal,
            findings,
            question=asked,
            activity=question.activity,
            answer=text,
            touches=touches,
            tags=(self._shown(principal, findings.passages),) if touches else (),
        )
        if fallback:
            draft.facts["fallback"] = fallback
        stored = await self._ledger.record(draft)
        return Answer(
            text=text,
            abstained=abstained,
            reason=NO_SUPPORT if abstained else None,
            confidence=confidence(findings.passages, findings.calibration),
            citations=tuple(citations),
            answered_by=answered_by,
            fallback=fallback,
            zones=tuple(sorted({str(step["zone"]) for step in draft.steps})),
            withheld=findings.withheld,
            unreached=findings.unreached,
            receipt=stored.id,
            ignored=findings.ignored,
            timings=findings.timings,
        )

    async def _generated(
        self, principal: Principal, question: Question, findings: Findings
    ) -> tuple[str, list[Citation], str | None]:
        """Let a permitted generator write; give nothing and the reason when none may, can, or is supported."""
        if not self._generators:
            return "", [], None
        route = self._generator_route(principal, question, findings.passages)
        if route is None:
            return "", [], "generator_not_permitted"
        generator = self._generators[route.site]
        asked = prompt(question.text, findings.passages, earlier=question.earlier)
        try:
            written = "".join([part async for part in generator.generate(route, asked)])
        except SiteError:
            return "", [], "generator_unavailable"
        text, citations = supported(written, findings.passages)
        return (text, citations, None) if citations else ("", [], "generator_unsupported")

    def _generator_route(self, principal: Principal, question: Question, passages: tuple[Opened, ...]) -> Route | None:
        tag = self._shown(principal, passages)
        for site in self._generators:
            decision = self._engine.decide(Ask(principal, Action.GENERATE, site, (tag,), question.activity))
            if isinstance(decision, Permit):
                return decision.route
        return None

    def _shown(self, principal: Principal, passages: tuple[Opened, ...]) -> Tag:
        """Give the Tag of what a generator is shown: the meet of the question's and the Passages'."""
        tag = question_tag(self._engine, principal)
        for passage in passages:
            tag = tag.meet(passage.tag, self._engine.zones)
        return tag
