"""What the Receipt of a search or an answer says, whatever became of it: found, refused, or left by its asker."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from residency.appending import Stored
from residency.decision import Principal, Refusal
from residency.engine import Engine
from residency.errors import DomicileError
from residency.journal import Touch
from residency.ledger import Ledger
from residency.receipt import Draft, steps
from residency.tag import Tag
from service.findings import Findings


class Drafting:
    """Writes Drafts, and records those of questions that nothing is released for."""

    def __init__(self, engine: Engine, ledger: Ledger) -> None:
        self._engine = engine
        self._ledger = ledger
        self._writing: set[asyncio.Task[Stored]] = set()
        """Records of questions whose asker went away, until they are durable."""

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
        documents = sorted({document for passage in findings.passages for document in passage.documents})
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
            facts={"unreached": list(findings.unreached)} if findings.unreached else {},
        )

    async def cancelled(
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
        # whoever cancels may do so again at every turn; the record is made all the same
        writing = asyncio.create_task(self._ledger.record(draft))
        self._writing.add(writing)
        writing.add_done_callback(self._written)
        with suppress(DomicileError):  # nothing is released, so a Ledger that fails now endangers nothing
            await asyncio.shield(writing)

    def _written(self, writing: asyncio.Task[Stored]) -> None:
        self._writing.discard(writing)
        if not writing.cancelled():
            writing.exception()  # taken note of, so that the loop does not print it

    async def refusal(self, principal: Principal, refusal: Refusal, question: str, activity: str) -> str:
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
