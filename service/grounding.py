"""Grounding: sentences of opened Passages become quotes and Citations, or nothing does and the Answer abstains.

A Citation's `quote` is exactly the stored text at its offsets; the Answer's own text may fold line breaks, never words.
No sentence is embedded: its score is the IDF of the question's words it holds, plus its Passage's score.
All offsets are Unicode code points, 0-based, end exclusive.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ingestion.splitter import sentences
from residency.lexicon import PREFIX_LETTERS, words
from service.calibration import Calibration
from service.findings import Place
from service.harmless import addressed, harmless
from service.searching import Opened

MINIMUM = 12
"""Shortest sentence, in code points, that can stand as a quote of its own."""
PRONOUNS = frozenset(
    {
        "it", "they", "he", "she", "this", "these", "those",
        "sie", "es", "er", "dies", "diese", "dieser", "dieses",
        "il", "elle", "ils", "elles", "cela", "celui", "celle",
    }
)  # fmt: skip
"""A sentence that begins with one of these cannot stand alone."""
HEADING = 70
"""Longest heading, in code points."""
_NUMBERED = re.compile(r"(§ ?)?\d+(\.\d+)*\.?\s")
_ITEM = re.compile(r"(?:[-*•–]|\(?\d{1,2}[.)]|[a-z]\))\s+")
"""The mark of a list item, which is no part of its sentence."""
_MARK = re.compile(r"\[(\d{1,3})\]")
_CITED = re.compile(r"\s*\[\d{1,3}\]")
_FIGURE = re.compile(r"\d+(?:[.,:/]\d+)*")
_QUOTED = re.compile(r"“([^“”]+)”|„([^„“”]+)[“”]|«([^«»]+)»|\"([^\"]+)\"")
_NAME = re.compile(r"(?<=[\w,;)] )[^\W\d_a-zß-öø-ÿ]\w+")
"""A capital and more behind a word; the first word of a sentence has one anyway."""
_CAPITALS = re.compile(r"\b[A-ZÄÖÜ]{2,}\b")

NOT_FOUND = {
    "en": "The documents you may search do not answer this question.",
    "de": "Die Dokumente, die Sie durchsuchen dürfen, beantworten diese Frage nicht.",
    "fr": "Les documents que vous pouvez consulter ne répondent pas à cette question.",
    "es": "Los documentos que puede consultar no responden a esta pregunta.",
    "it": "I documenti che può consultare non rispondono a questa domanda.",
    "nl": "De documenten die u mag doorzoeken beantwoorden deze vraag niet.",
}
"""One sentence whatever lies behind it; a client that wants degrees reads `confidence`."""


@dataclass(frozen=True, slots=True)
class Quote:
    """A stretch of one Passage that answers: offsets into the Document's text, and how well it does."""

    passage: Opened
    start: int
    end: int
    score: float

    @property
    def text(self) -> str:
        """The exact slice."""
        return self.passage.text[self.start - self.passage.start : self.end - self.passage.start]


@dataclass(frozen=True, slots=True)
class Citation:
    """A quote as it stands in an Answer: number, source, and where its claims and marks are in the Answer's text."""

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
    claims: tuple[tuple[int, int], ...]
    marks: tuple[tuple[int, int], ...]
    language: str = ""
    """Language of the quoted Passage, as told when it was indexed."""
    also: tuple[Place, ...] = ()
    """Passages that say the same as the quoted one, nearly or word for word."""


def enough(passages: Sequence[Opened], threshold: float) -> bool:
    """Say whether the best Passage supports an Answer at all."""
    return bool(passages) and max(passage.support for passage in passages) >= threshold


def confidence(passages: Sequence[Opened], calibration: Calibration) -> float:
    """Give the chance, 0..1, that the best Passage answers; from Passages the asker may see and nothing else."""
    return calibration.confidence(max(passage.support for passage in passages)) if passages else 0.0


def pick(passages: Sequence[Opened], *, limit: int) -> list[Quote]:
    """Choose up to `limit` sentences that answer, in reading order within a Document; touching ones become one quote.

    A sentence's score is the share of the question's words it holds, by the best sentence's, and twice its Passage's
    score; cut where it falls under half of the best. A sentence that was chosen already, in whichever Document, is not
    chosen again.
    """
    candidates: list[Quote] = []
    for passage in passages:
        spans = _spans(passage)
        sums = [_words(passage, passage.text[start:end]) for start, end in spans]
        candidates += [
            Quote(passage, passage.start + start, passage.start + end, total)
            for (start, end), total in zip(spans, sums, strict=True)
        ]
    best = max((quote.score for quote in candidates), default=0.0)
    if best <= 0:
        return []
    scored = [
        replace(quote, score=quote.score / best + 2 * quote.passage.score) for quote in candidates if quote.score > 0
    ]
    scored.sort(key=lambda quote: (-quote.score, quote.passage.document_id, quote.start))
    chosen: list[Quote] = []
    for quote in scored:
        if len(chosen) == limit or quote.score < scored[0].score / 2:
            break
        if not any(_overlap(quote, other) or harmless(quote.text) == harmless(other.text) for other in chosen):
            chosen.append(quote)
    return _ordered(chosen)


def _spans(passage: Opened) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for begin, stop in sentences(passage.text, passage.language):
        text = passage.text[begin:stop]
        start, end = begin + len(text) - len(text.lstrip()), begin + len(text.rstrip())
        start = _behind_headings(passage.text, start, end)
        if (item := _ITEM.match(passage.text, start, end)) is not None:
            start = item.end()
        # what is shorter is the number of a list item, or a word that a heading left behind
        if end - start < MINIMUM:
            continue
        opening = passage.text[start:end].split(maxsplit=1)[0].casefold().strip(",;")
        if spans and opening in PRONOUNS and not passage.text[spans[-1][1] : start].strip():
            spans[-1] = (spans[-1][0], end)  # "It ends then." means nothing without the sentence before
        else:
            spans.append((start, end))
    return spans


def _behind_headings(text: str, start: int, end: int) -> int:
    """Skip headings that a file without structure runs into the sentence below them: short lines, no stop at the end.

    In running text a line is broken only near the right margin, so a line much shorter than the longest is none of it.
    """
    margin = max((len(line) for line in text.splitlines()), default=0)
    while True:
        line, found, rest = text[start:end].partition("\n")
        stands_alone = len(line) <= HEADING and (len(line) < 0.6 * margin or _NUMBERED.match(line))
        if not found or not stands_alone or line.rstrip().endswith((".", "!", "?", ";", ",", ":", "-")):
            return start
        if not rest.lstrip()[:1].isupper() and not rest.lstrip()[:1].isdigit():
            return start
        start += len(line) + 1 + len(rest) - len(rest.lstrip())


def _words(passage: Opened, text: str) -> float:
    held = passage.keys.lexicon.passage(text, passage.language)
    return sum(share for token, share in passage.words.items() if token in held)


def _overlap(one: Quote, other: Quote) -> bool:
    return one.passage.document_id == other.passage.document_id and one.start < other.end and other.start < one.end


def _ordered(chosen: Sequence[Quote]) -> list[Quote]:
    """Group by Document, the best first, in reading order inside; join neighbours that touch."""
    order = list(dict.fromkeys(quote.passage.document_id for quote in sorted(chosen, key=lambda q: -q.score)))
    result: list[Quote] = []
    for document in order:
        for quote in sorted((q for q in chosen if q.passage.document_id == document), key=lambda q: q.start):
            last = result[-1] if result else None
            if last and last.passage is quote.passage and 0 <= quote.start - last.end <= 2:
                gap = quote.passage.text[last.end - quote.passage.start : quote.start - quote.passage.start]
                if not gap.strip():
                    result[-1] = Quote(last.passage, last.start, quote.end, max(last.score, quote.score))
                    continue
            result.append(quote)
    return result


def compose(parts: Sequence[tuple[str, Sequence[Quote]]]) -> tuple[str, list[Citation]]:
    """Write the Answer's text, claim by claim with its marks, and the Citations; the same quote keeps its number."""
    text = ""
    numbers: dict[tuple[str, int, int], int] = {}
    quotes: list[Quote] = []
    claims: list[list[tuple[int, int]]] = []
    marks: list[list[tuple[int, int]]] = []
    for claim, sources in parts:
        if text:
            text += " "
        begin = len(text)
        text += claim
        end = len(text)
        text += " "
        for quote in sources:
            key = (quote.passage.document_id, quote.start, quote.end)
            if key not in numbers:
                numbers[key] = len(quotes) + 1
                quotes.append(quote)
                claims.append([])
                marks.append([])
            at = numbers[key] - 1
            mark = f"[{numbers[key]}]"
            claims[at].append((begin, end))
            marks[at].append((len(text), len(text) + len(mark)))
            text += mark
    citations = [
        Citation(
            index=at + 1,
            document_id=quote.passage.document_id,
            name=quote.passage.name,
            version=quote.passage.version,
            page=quote.passage.page,
            start=quote.start,
            end=quote.end,
            quote=quote.text,
            zone=quote.passage.zone,
            site=quote.passage.site,
            score=round(min(1.0, quote.passage.score), 3),
            claims=tuple(claims[at]),
            marks=tuple(marks[at]),
            language=quote.passage.language,
            also=quote.passage.also,
        )
        for at, quote in enumerate(quotes)
    ]
    return text, citations


def extractive(passages: Sequence[Opened], *, limit: int) -> tuple[str, list[Citation]]:
    """Answer with quoted sentences alone; empty when none holds a word of the question."""
    return compose([(harmless(quote.text), [quote]) for quote in pick(passages, limit=limit)])


def supported(draft: str, passages: Sequence[Opened]) -> tuple[str, list[Citation]]:
    """Keep of a generator's draft only sentences whose marks exist and whose cited Passages support them.

    Support means: every figure, name and quoted word of the sentence stands in the cited Passages, and a sentence there
    shares its words. The Citation is the sentence we find, never a place the model names. This is a check of support,
    no proof.
    """
    parts: list[tuple[str, Sequence[Quote]]] = []
    for sentence in _drafted(draft):
        cited = [int(number) for number in _MARK.findall(sentence)]
        plain = _CITED.sub("", sentence)
        claim = harmless(plain)
        sources = [passages[number - 1] for number in dict.fromkeys(cited) if 1 <= number <= len(passages)]
        if not claim or not sources or addressed(plain):
            continue
        if _invented(claim, sources):
            continue
        quotes = [quote for source in sources if (quote := _best(claim, source)) is not None]
        if quotes:
            parts.append((claim, quotes))
    return compose(parts)


def _invented(claim: str, sources: Sequence[Opened]) -> bool:
    """Say whether a claim has a figure, a quoted word or a name that none of its sources has.

    A name is a word with a capital inside a sentence, told by its first letters, since names are inflected. In German
    every noun has one, so there only words of capitals count.
    """
    texts = " ".join(f"{source.heading} {source.text}" for source in sources)
    if not set(_FIGURE.findall(claim)) <= set(_FIGURE.findall(texts)):
        return True
    folded = harmless(texts).casefold()
    if any(quoted.casefold() not in folded for found in _QUOTED.findall(claim) for quoted in found if quoted):
        return True
    held = {word[:PREFIX_LETTERS] for word in words(texts)}
    german = any(source.language == "de" for source in sources)
    names = (_CAPITALS if german else _NAME).findall(claim)
    return any(word[:PREFIX_LETTERS] not in held for name in names for word in words(name))


def _drafted(draft: str) -> list[str]:
    """Split a draft into sentences, each with the marks that follow it."""
    found = re.findall(r".+?(?:[.!?:](?=\s|\[|$)(?:\s*\[\d{1,3}\])*|\n|$)", draft, flags=re.DOTALL)
    return [sentence.strip() for sentence in found if sentence.strip()]


def _best(claim: str, passage: Opened, share: float = 0.34) -> Quote | None:
    wanted = set(passage.keys.lexicon.passage(claim, passage.language))
    best: Quote | None = None
    for start, end in _spans(passage):
        held = set(passage.keys.lexicon.passage(passage.text[start:end], passage.language))
        overlap = len(wanted & held) / max(1, len(wanted))
        if overlap >= share and (best is None or overlap > best.score):
            best = Quote(passage, passage.start + start, passage.start + end, overlap)
    return best


def abstention(language: str) -> str:
    """Give the one sentence of an abstention in the question's language, English when we have none."""
    return NOT_FOUND.get(language, NOT_FOUND["en"])
