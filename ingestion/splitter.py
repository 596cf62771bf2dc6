"""From a Reading to Passages: exact slices of the text, in order; and from a Passage to windows that the model reads.

Rules kept here: nothing but white space is left out; a Passage stays under one heading and on one page unless a
sentence crosses to the next. Its size is counted in words and not in tokens of the model: a paragraph is one unit of
search in every language, also where the model takes a word for many tokens (docs/decisions). Nothing is cut silently:
a Passage that is longer than the model reads is embedded window by window, and its vector is their mean.
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

__all__ = ["MOST_WORDS", "Piece", "count_words", "sentences", "split", "windows"]

MOST_WORDS: Final = 250
"""Words of a Passage with its heading, unless the caller says otherwise: few paragraphs have more."""
LONG: Final = 800
"""Code points from which a sentence is cut at white space before it is counted."""
UNBROKEN: Final = 80
"""Code points of a run without white space (base64, rules of dots) that are taken at once."""
OWN_LANGUAGE: Final = 120
"""Code points from which a Passage's language is told by itself and not by its Document; more are not looked at."""
PLACES: Final = 8
"""Places of a text that are listened to for a second language."""
WIDEST: Final = 12
"""Code points that count as one word or token at least: a model may take any run of letters for one unknown word."""

_ENDED: Final = re.compile(r"[.!?:;…][\"'”»)\]]*\s*$")
_SPACE: Final = re.compile(r"\s")
_UNSPACED: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Scripts that put no blank between words: there each sign counts."""
_WORD: Final = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


class Piece(msgspec.Struct, frozen=True):
    """One Passage: `text == reading.text[start:end]`, `page` where it starts, `heading` the path above it."""

    no: int
    text: str
    start: int
    end: int
    page: int
    heading: str
    language: str


def count_words(text: str) -> int:
    """Count words; each sign of a script without blanks is one."""
    return sum(1 for _ in _WORD.finditer(text))


def split(reading: Reading, *, count: Callable[[str], int] = count_words, most: int = MOST_WORDS) -> list[Piece]:
    """Cut a Reading into Passages of at most `most` words, heading included, as `count` counts.

    Without overlap, by design: neighbours are added where they are read. The first call imports llama-index (1.2 s);
    after it about 1 ms a Passage.
    """
    count = _by_length_too(count)
    spoken = tell_language(reading.text)
    mixed = _languages(reading.text) - {spoken}
    packer = _Packer(count, spoken)
    starts = [page.start for page in reading.pages]
    pieces: list[Piece] = []
    for start, end, whole_heading in _stretches(reading, spoken):
        heading = _fitting_heading(whole_heading, count, most)
        budget = most - (count(f"{heading}\n") if heading else 0)
        for begin, stop in packer.pack(reading.text, start, end, budget):
            text = reading.text[begin:stop]
            page = reading.pages[max(0, bisect_right(starts, begin) - 1)].number if reading.pages else 1
            own = tell_language(text[: 2 * OWN_LANGUAGE]) if mixed and stop - begin >= OWN_LANGUAGE else spoken
            language = own if own in mixed else spoken
            pieces.append(Piece(len(pieces), text, begin, stop, page, heading, language))
    return pieces


def windows(piece: Piece, *, count_tokens: Callable[[str], int], max_tokens: int) -> list[tuple[str, int]]:
    """Give the texts that a Passage is embedded as, each with its tokens: one, if the model reads it whole.

    Windows are cut where sentences end, are about equally long, tile the Passage, and begin with its heading.
    """
    count = _by_length_too(count_tokens)
    heading = _fitting_heading(piece.heading, count, max_tokens)
    head = f"{heading}\n" if heading else ""
    whole = count(head + piece.text)
    if whole <= max_tokens:
        return [(head + piece.text, whole)]
    room = max_tokens - (count(head) if head else 0)
    even = -(-whole // -(-whole // room))  # as many windows as are needed, each with its share
    packer = _Packer(count, piece.language)
    cut = packer.pack(piece.text, 0, len(piece.text), min(room, even + even // 4))
    texts = [head + piece.text[start:end] for start, end in cut]
    return [(text, count(text)) for text in texts]


def _by_length_too(count: Callable[[str], int]) -> Callable[[str], int]:
    return lambda text: max(count(text), len(text) // WIDEST)


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


def _fitting_heading(heading: str, count: Callable[[str], int], most: int) -> str:
    """Give as much of a heading path as half a Passage holds; outer headings go first, then the end of the last."""
    while heading and count(f"{heading}\n") > most // 2:
        _, cut, inner = heading.partition(" › ")
        heading = inner if cut else heading[: len(heading) // 2].rstrip()
    return heading


class _Packer:
    """Packs sentences of a stretch into spans of a size, by llama-index's SentenceSplitter."""

    def __init__(self, count: Callable[[str], int], language: str) -> None:
        self._count = count
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
