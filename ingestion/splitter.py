"""From a Reading to Passages: exact slices of the text, in order, none longer than the embedder reads.

Rules kept here: nothing but white space is left out; a Passage stays under one heading and on one page unless a
sentence crosses to the next; its size counts the heading that is embedded with it, so that nothing is cut silently.
llama-index's SentenceSplitter packs sentences; its offsets are not used (in repetitive text they point at an earlier
equal stretch, run-llama/llama_index: core/node_parser/interface.py): each piece is sought from the last one's end.
"""

import itertools
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from ingestion.detectors import language as tell_language
from ingestion.readers import Block, Reading
from ingestion.sentences import sentences

__all__ = ["MAX_TOKENS", "Piece", "sentences", "split"]

MAX_TOKENS: Final = 200
"""Tokens of a Passage with its heading, unless the caller says less."""
LONG: Final = 800
"""Code points from which a sentence is cut at white space before its tokens are counted."""
UNBROKEN: Final = 80
"""Code points of a run without white space (base64, rules of dots) that are taken at once."""
OWN_LANGUAGE: Final = 120
"""Code points from which a Passage's language is told by itself and not by its Document; more are not looked at."""
PLACES: Final = 8
"""Places of a text that are listened to for a second language."""
WIDEST: Final = 12
"""Code points that count as one token at least: a model may take any run of letters for one unknown word."""

_ENDED: Final = re.compile(r"[.!?:;…][\"'”»)\]]*\s*$")
_SPACE: Final = re.compile(r"\s")


class Piece(msgspec.Struct, frozen=True):
    """One Passage: `text == reading.text[start:end]`, `page` where it starts, `heading` the path above it."""

    no: int
    text: str
    start: int
    end: int
    page: int
    heading: str
    language: str


def split(reading: Reading, *, count_tokens: Callable[[str], int], max_tokens: int = MAX_TOKENS) -> list[Piece]:
    """Cut a Reading into Passages of at most `max_tokens`, heading included, as `count_tokens` counts.

    Without overlap, by design: neighbours are added where they are read. The first call imports llama-index (1.2 s);
    after it about 1 ms a Passage.
    """

    def count(text: str) -> int:
        return max(count_tokens(text), len(text) // WIDEST)

    spoken = tell_language(reading.text)
    mixed = _languages(reading.text) - {spoken}
    packer = _Packer(count, spoken)
    starts = [page.start for page in reading.pages]
    pieces: list[Piece] = []
    for start, end, whole_heading in _stretches(reading, spoken):
        heading = _fitting_heading(whole_heading, count, max_tokens)
        budget = max_tokens - (count(f"{heading}\n") if heading else 0)
        for begin, stop in packer.pack(reading.text, start, end, budget):
            text = reading.text[begin:stop]
            page = reading.pages[max(0, bisect_right(starts, begin) - 1)].number if reading.pages else 1
            own = tell_language(text[: 2 * OWN_LANGUAGE]) if mixed and stop - begin >= OWN_LANGUAGE else spoken
            language = own if own in mixed else spoken
            pieces.append(Piece(len(pieces), text, begin, stop, page, heading, language))
    return pieces


def _languages(text: str) -> frozenset[str]:
    """Give the languages heard at two of `PLACES` places or more: most Documents have one, and names mislead."""
    if len(text) < 4 * OWN_LANGUAGE:
        return frozenset()
    step = max(2 * OWN_LANGUAGE, len(text) // PLACES)
    heard = Counter(tell_language(text[at : at + 2 * OWN_LANGUAGE]) for at in range(0, len(text), step))
    return frozenset(language for language, places in heard.items() if places > 1) - {"und"}


def _stretches(reading: Reading, language: str) -> Iterator[tuple[int, int, str]]:
    """Give stretches that tile the text, each under one heading and on one page, and the heading path of each.

    A heading with nothing under it opens the next stretch; a sentence that runs over a page's end is not torn.
    """
    start, heading, bare = 0, "", True
    last: Block | None = None
    for block in reading.blocks:
        at = block.start
        if last is not None and not bare and (block.heading != last.heading or block.page != last.page):
            if block.heading == last.heading and block.kind == last.kind and _runs_on(reading.text, last, block):
                at += _first_sentence(reading.text[block.start : block.end], language)
            if start < at < block.end:
                yield start, at, heading
                start, bare = at, True
        if bare or block.kind != "heading":
            heading = block.heading
        bare = bare and block.kind == "heading"
        last = block
    if start < len(reading.text):
        yield start, len(reading.text), heading


def _runs_on(text: str, before: Block, after: Block) -> bool:
    """Say whether the last sentence of one page goes on on the next: it has no end, and a small letter follows."""
    tail = text[max(before.start, before.end - 40) : before.end]
    return not _ENDED.search(tail) and text[after.start : after.start + 1].islower()


def _first_sentence(text: str, language: str) -> int:
    found = sentences(text[:2000], language)
    return found[0][1] if found else 0


def _fitting_heading(heading: str, count_tokens: Callable[[str], int], max_tokens: int) -> str:
    """Give as much of a heading path as half a Passage holds; outer headings go first, then the end of the last."""
    while heading and count_tokens(f"{heading}\n") > max_tokens // 2:
        _, cut, inner = heading.partition(" › ")
        heading = inner if cut else heading[: len(heading) // 2].rstrip()
    return heading


class _Packer:
    """Packs sentences of a stretch into spans of a size, by llama-index's SentenceSplitter."""

    def __init__(self, count_tokens: Callable[[str], int], language: str) -> None:
        self._count = count_tokens
        self._language = language
        self._splitters: dict[int, Any] = {}

    def pack(self, text: str, start: int, end: int, budget: int) -> Iterator[tuple[int, int]]:
        """Give spans in order that hold all of `text[start:end]` but the white space between them."""
        stretch, at = text[start:end], 0
        for chunk in self._splitter(budget).split_text(stretch):
            found = stretch.index(chunk, at)
            at = found + len(chunk)
            yield from self._fitting(text, start + found, start + at, budget)

    def _splitter(self, budget: int) -> Any:
        if budget not in self._splitters:
            from llama_index.core.node_parser import SentenceSplitter

            # no default of it is used: its tokenizer and its sentence finder would load, or fetch, data of their own
            self._splitters[budget] = SentenceSplitter(
                chunk_size=budget,
                chunk_overlap=0,
                tokenizer=lambda piece: range(self._count(piece)),
                chunking_tokenizer_fn=self._sentences,
                paragraph_separator="\0\0\0",  # in no text: sentences know about paragraphs already
            )
        return self._splitters[budget]

    def _sentences(self, stretch: str) -> list[str]:
        """Give the sentences as strings that add up to the stretch, none longer than `LONG`."""
        starts = [start for start, _ in sentences(stretch, self._language)]
        cuts = [0, *starts[1:], len(stretch)]
        out: list[str] = []
        for start, end in itertools.pairwise(cuts):
            out += _short(stretch[start:end])
        return out

    def _fitting(self, text: str, start: int, end: int, budget: int) -> Iterator[tuple[int, int]]:
        """Halve what still counts too much: tokens of a whole are not always the sum of its parts'."""
        begin = start + len(text[start:end]) - len(text[start:end].lstrip())
        stop = begin + len(text[begin:end].rstrip())
        if begin >= stop:
            return
        if stop - begin == 1 or self._count(text[begin:stop]) <= budget:
            yield begin, stop
            return
        middle = (begin + stop) // 2
        space = text.rfind(" ", begin + 1, middle)
        cut = space if space > begin else middle
        yield from self._fitting(text, begin, cut, budget)
        yield from self._fitting(text, cut, stop, budget)


def _short(sentence: str) -> Iterator[str]:
    """Cut an endless sentence before it is counted word by word: at white space, else after `UNBROKEN`."""
    while len(sentence) > LONG:
        space = max((found.end() for found in _SPACE.finditer(sentence, 0, LONG // 2)), default=0)
        cut = space or UNBROKEN
        yield sentence[:cut]
        sentence = sentence[cut:]
    if sentence:
        yield sentence
