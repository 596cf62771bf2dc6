"""Evaluation: questions of a file put to the running system, judged by what people would see.

Rules kept here: wrong answers and wrong refusals are two figures and never one; a question whose document the asker
cannot reach counts apart, there abstaining is right; results hold ids and numbers, never a question or a text.
"""

import re
import time
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from residency.decision import Principal
from residency.errors import DomicileError
from service.answering import Answer, Question
from service.catalogue import Page
from service.errors import InvalidRequestError
from service.grounding import Citation
from service.house import House
from service.questions import earlier
from service.searching import Results, Search

DEPTH: Final = 10
"""Passages looked at for hit@k and MRR."""
HEAD: Final = 60
"""Code points of the expected quote that must be there: a long one may run over a Passage's end."""
UNANSWERABLE: Final = "unanswerable"


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the answer stands: a Document's name, and words of it, white space and case aside."""

    document: str
    quote: str


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question of a file."""

    question: str
    expect: Expected | str
    """`unanswerable`, or the place."""
    language: str = "und"
    id: str = ""
    earlier: list[str] = []


class Row(msgspec.Struct, frozen=True):
    """What came of one question."""

    id: str
    language: str
    kind: str
    """`answerable`, `unanswerable`, or `beyond` reach of the asker."""
    rank: int
    """Place of the first right Passage, from 1; 0 when none of ten was."""
    abstained: bool
    right: bool
    """For an answerable one: the expected words stand in a quote of the expected Document."""
    first: bool
    """The same of the first three quotes."""
    citations: int
    exact: int
    confidence: float
    search_ms: float
    answer_ms: float


def load(path: Path) -> list[Case]:
    """Read questions from JSON lines, or from TOML as `examples/questions.toml` has them.

    Raises `InvalidRequestError` naming the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        rows = _toml(text) if path.suffix == ".toml" else _lines(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidRequestError(f"{path.name} cannot be read: {error}", hint="give JSON lines or TOML") from error
    cases = []
    for number, row in enumerate(rows, 1):
        try:
            case = msgspec.convert(row, Case)
            if isinstance(case.expect, str) and case.expect != UNANSWERABLE:
                raise msgspec.ValidationError(f"`expect` is a place or `{UNANSWERABLE}`")
        except msgspec.ValidationError as error:
            raise InvalidRequestError(f"{path.name}, question {number}: {error}", hint="see docs/quality.md") from error
        cases.append(msgspec.structs.replace(case, id=case.id or f"{path.stem}-{number}"))
    if not cases:
        raise InvalidRequestError(f"{path.name} holds no question", hint="see docs/quality.md")
    return cases


def _lines(text: str) -> list[Any]:
    try:
        return [msgspec.json.decode(line) for line in text.splitlines() if line.strip()]
    except msgspec.DecodeError as error:
        raise InvalidRequestError(f"a line is no JSON: {error}", hint="one object a line") from error


def _toml(text: str) -> list[Any]:
    rows = []
    for each in tomllib.loads(text).get("question", []):
        place = {"document": each["document"], "quote": each["quote"]} if "document" in each else UNANSWERABLE
        kept = {name: each[name] for name in ("id", "language", "question") if name in each}
        rows.append(kept | {"expect": place})
    return rows


# --- asking ---------------------------------------------------------------------------------------------------------


async def ask(
    house: House,
    principal: Principal,
    cases: Sequence[Case],
    *,
    collection: str = "default",
    told: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Put every question to search and to answers; `told` is called after each."""
    reach = await _names(house, principal, collection)
    pages: dict[tuple[str, int, int], Page | None] = {}
    rows = []
    for case in cases:
        rows.append(await _one(house, principal, case, collection, reach, pages))
        told()
    return rows


async def _names(house: House, principal: Principal, collection: str) -> set[str]:
    names, cursor = set(), ""
    while True:
        entries, cursor = await house.catalogue.listing(principal, collection=collection, cursor=cursor, limit=100)
        names |= {entry.name for entry in entries if str(entry.document.state) == "live"}
        if not cursor:
            return names


async def _one(
    house: House,
    principal: Principal,
    case: Case,
    collection: str,
    reach: set[str],
    pages: dict[tuple[str, int, int], Page | None],
) -> Row:
    mark = time.perf_counter()
    found = await house.searching.search(principal, Search(case.question, DEPTH, collection))
    searched = time.perf_counter() - mark
    mark = time.perf_counter()
    before = earlier([*case.earlier, case.question])
    answer = await house.answering.answer(principal, Question(case.question, collection, earlier=before))
    answered = time.perf_counter() - mark
    passages = found.findings.passages if isinstance(found, Results) else ()
    citations: Sequence[Citation] = answer.citations if isinstance(answer, Answer) else ()
    place = case.expect if isinstance(case.expect, Expected) else None
    kind = UNANSWERABLE if place is None else "answerable" if place.document in reach else "beyond"
    rank, right, first = 0, False, False
    if place is not None:
        ranks = (at for at, each in enumerate(passages, 1) if _holds(place, each.name, each.text))
        rank = next(ranks, 0)
        held = [_cites(place, each) for each in citations]
        right, first = any(held), any(held[:3])
    exact = 0
    for each in citations:
        exact += await _exact(house, principal, each, pages)
    return Row(
        id=case.id,
        language=case.language,
        kind=kind,
        rank=rank,
        abstained=not citations,
        right=right,
        first=first,
        citations=len(citations),
        exact=exact,
        confidence=answer.confidence if isinstance(answer, Answer) else 0.0,
        search_ms=round(searched * 1000, 2),
        answer_ms=round(answered * 1000, 2),
    )


async def _exact(
    house: House, principal: Principal, citation: Citation, pages: dict[tuple[str, int, int], Page | None]
) -> bool:
    """Open the cited page anew and compare: the quote must be its very slice."""
    key = (citation.document_id, citation.version, citation.page)
    if key not in pages:
        try:
            opened = await house.catalogue.source(principal, key[0], version=key[1], page=key[2])
        except DomicileError:
            pages[key] = None
        else:
            pages[key] = opened if isinstance(opened, Page) else None
    page = pages[key]
    if page is None:
        return False
    inside = page.text[citation.start - page.start : citation.end - page.start]
    # a quote may end on the next page; its beginning is compared then
    return inside == citation.quote or (citation.end > page.end and citation.quote.startswith(inside) and bool(inside))


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().casefold()


def _holds(place: Expected, name: str, text: str) -> bool:
    return name == place.document and _plain(place.quote)[:HEAD] in _plain(text)


def _cites(place: Expected, citation: Citation) -> bool:
    wanted, quote = _plain(place.quote), _plain(citation.quote)
    return citation.name == place.document and (wanted[:HEAD] in quote or (len(quote) > HEAD // 2 and quote in wanted))


# --- figures --------------------------------------------------------------------------------------------------------


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Sum up: shares are 0 to 1, times in milliseconds; a share of nothing is null."""
    reach = [row for row in rows if row.kind == "answerable"]
    beyond = [row for row in rows if row.kind != "answerable"]
    ranks = [row.rank for row in reach]
    answered = [row for row in reach if not row.abstained]
    citations = sum(row.citations for row in rows)
    return {
        "questions": len(rows),
        "answerable": len(reach),
        "unanswerable": sum(row.kind == UNANSWERABLE for row in rows),
        "beyond_reach": sum(row.kind == "beyond" for row in rows),
        **{f"hit@{k}": _share(0 < rank <= k for rank in ranks) for k in (1, 3, 5)},
        "mrr@10": _mean(1 / rank if rank else 0.0 for rank in ranks),
        "right": _share(row.right for row in reach),
        "gold_in_first_3": _share(row.first for row in answered),
        "wrong_answers": _share(not row.abstained and not row.right for row in reach),
        "wrong_refusals": _share(row.abstained for row in reach),
        "abstained_rightly": _share(row.abstained for row in beyond),
        "exact_quotes": round(sum(row.exact for row in rows) / citations, 4) if citations else None,
        "auroc": _auroc([row.confidence for row in reach], [row.confidence for row in beyond]),
        "calibration_error": _calibration(rows),
        "search_p50_ms": _at([row.search_ms for row in rows], 0.5),
        "search_p95_ms": _at([row.search_ms for row in rows], 0.95),
        "answer_p50_ms": _at([row.answer_ms for row in rows], 0.5),
        "answer_p95_ms": _at([row.answer_ms for row in rows], 0.95),
    }


def summary(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Give the figures of all, and of each language."""
    languages = sorted({row.language for row in rows})
    return {"all": figures(rows)} | {code: figures([row for row in rows if row.language == code]) for code in languages}


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return round(sum(listed) / len(listed), 4) if listed else None


def _share(values: Iterable[bool]) -> float | None:
    return _mean(float(value) for value in values)


def _at(values: Sequence[float], share: float) -> float | None:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def _auroc(good: Sequence[float], bad: Sequence[float]) -> float | None:
    """How often an answerable question has more confidence than one that is not; ties count half."""
    if not good or not bad:
        return None
    won = sum((one > other) + 0.5 * (one == other) for one in good for other in bad)
    return round(won / len(good) / len(bad), 4)


def _calibration(rows: Sequence[Row]) -> float | None:
    """Expected calibration error over ten bins of equal count: confidence against whether an answer was there."""
    ordered = sorted(rows, key=lambda row: row.confidence)
    if len(ordered) < 10:
        return None
    bins = [ordered[len(ordered) * at // 10 : len(ordered) * (at + 1) // 10] for at in range(10)]
    gaps = [
        abs(sum(row.confidence for row in each) - sum(row.kind == "answerable" for row in each))
        for each in bins
        if each
    ]
    return round(sum(gaps) / len(ordered), 4)
