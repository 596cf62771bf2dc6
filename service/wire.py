"""The shapes of the native API: what comes in (unknown fields refused) and what goes out.

Offsets count Unicode code points in the Document's extracted text; `quote` is exactly that slice.
"""

from typing import Any

import msgspec

from service.answering import Answer
from service.findings import Opened, Place, Results
from service.grounding import Citation


class SearchIn(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /v1/search`."""

    query: str
    top_k: int = 5
    collection: str = "default"
    filters: dict[str, Any] | None = None
    """`{"documents": ["<id>", …]}` narrows the search to these Documents."""
    language: str = ""
    """ISO 639-1 code of the question's language, such as `de`; empty: told from its words."""


class QuestionIn(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /v1/answers`."""

    question: str
    collection: str = "default"
    filters: dict[str, Any] | None = None
    """As in a search."""
    earlier: list[str] = []
    """The asker's earlier questions, oldest first; a short follow-up is read together with the last of them."""
    language: str = ""
    """ISO 639-1 code of the question's language, such as `de`; empty: told from its words."""


class PlaceOut(msgspec.Struct):
    """Where else the same is said."""

    document_id: str
    name: str
    version: int
    page: int
    start: int
    end: int


class ResultOut(msgspec.Struct):
    """One Passage that was found."""

    document_id: str
    name: str
    page: int
    start: int
    end: int
    text: str
    score: float
    site: str
    zone: str
    version: int
    heading: str
    also: list[PlaceOut]
    """Passages that say the same, word for word or nearly, with the same figures; they are no results of their own."""


class SearchOut(msgspec.Struct):
    """The reply to a search."""

    results: list[ResultOut]
    withheld: int
    receipt: str
    unreached: list[str]
    ignored: list[str]
    damaged: int
    """Passages left out because what is sealed does not open; their documents are recorded under `/v1/violations`."""


class CitationOut(msgspec.Struct):
    """A sentence of the Answer tied to an exact slice of a Document."""

    index: int
    document_id: str
    name: str
    version: int
    page: int
    start: int
    end: int
    quote: str
    zone: str
    site: str
    score: float
    claims: list[tuple[int, int]]
    marks: list[tuple[int, int]]
    also: list[PlaceOut]
    """Passages that say the same as the quoted one."""
    url: str


class AnswerOut(msgspec.Struct):
    """The reply to a question."""

    answer: str
    abstained: bool
    reason: str | None
    confidence: float
    citations: list[CitationOut]
    answered_by: str
    fallback: str | None
    zones: list[str]
    withheld: int
    unreached: list[str]
    receipt: str
    ignored: list[str]


def result_out(passage: Opened) -> ResultOut:
    """Turn an opened Passage into its wire form."""
    return ResultOut(
        document_id=passage.document_id,
        name=passage.name,
        page=passage.page,
        start=passage.start,
        end=passage.end,
        text=passage.text,
        score=round(passage.score, 4),
        site=passage.site,
        zone=passage.zone,
        version=passage.version,
        heading=passage.heading,
        also=[_place_out(each) for each in passage.also],
    )


def _place_out(place: Place) -> PlaceOut:
    return PlaceOut(place.document_id, place.name, place.version, place.page, place.start, place.end)


def search_out(results: Results) -> SearchOut:
    """Turn a finished search into its wire form."""
    findings = results.findings
    return SearchOut(
        results=[result_out(passage) for passage in findings.passages],
        withheld=findings.withheld,
        receipt=results.receipt,
        unreached=list(findings.unreached),
        ignored=list(findings.ignored),
        damaged=findings.damaged,
    )


def source_url(base: str, citation: Citation) -> str:
    """Give the portal's address of the quoted place; it asks for a sign-in, and opening it is recorded."""
    return (
        f"{base}/documents/{citation.document_id}/source"
        f"?version={citation.version}&page={citation.page}&start={citation.start}&end={citation.end}"
    )


def answer_out(answer: Answer, base: str) -> AnswerOut:
    """Turn an Answer into its wire form; `base` is the configured public address."""
    return AnswerOut(
        answer=answer.text,
        abstained=answer.abstained,
        reason=answer.reason,
        confidence=answer.confidence,
        citations=[
            CitationOut(
                index=each.index,
                document_id=each.document_id,
                name=each.name,
                version=each.version,
                page=each.page,
                start=each.start,
                end=each.end,
                quote=each.quote,
                zone=each.zone,
                site=each.site,
                score=each.score,
                claims=list(each.claims),
                marks=list(each.marks),
                also=[_place_out(place) for place in each.also],
                url=source_url(base, each),
            )
            for each in answer.citations
        ],
        answered_by=answer.answered_by,
        fallback=answer.fallback,
        zones=list(answer.zones),
        withheld=answer.withheld,
        unreached=list(answer.unreached),
        receipt=answer.receipt,
        ignored=list(answer.ignored),
    )
