"""Lexicon: words as a shard sees them, keyed numbers with weights, and the keyed ids that points carry.

BM25 works on numbers as well as on words: a token id is an HMAC of a stem under the tenant's K_lex, so a shard can rank
without reading. What leaks is who shares a token with whom, and how often (sealing page, blind BM25).
Nothing computed here gives offsets: the token stream changes lengths. Stems and their ids stay in memory, bounded; they
are content.
"""

import hmac
import math
import re
import threading
import unicodedata
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import Final
from uuid import UUID

import Stemmer

from residency.seal import bind, lp, u32

LEVELS: Final = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
"""The weights that are stored: enough for ranking, too few to fingerprint a passage by."""
AVERAGE: Final = 250.0
"""Words of an average passage where a collection has no figure of its own; too high costs less than too low."""
K1: Final = 1.2
B: Final = 0.75
PREFIX_LETTERS: Final = 5
PREFIX_SHARE: Final = 0.5
"""Weight of a word's first five letters beside its stem: answers compounds and weak stems."""
CACHED: Final = 100_000
"""Stems and ids kept per key before the cache starts afresh."""

STEMMERS: Final = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "es": "spanish", "et": "estonian", "eu": "basque", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi",
    "hu": "hungarian", "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian", "nb": "norwegian",
    "ne": "nepali", "nl": "dutch", "nn": "norwegian", "no": "norwegian", "pl": "polish", "pt": "portuguese",
    "ro": "romanian", "ru": "russian", "sr": "serbian", "sv": "swedish", "ta": "tamil", "tr": "turkish",
}  # fmt: skip
"""Snowball algorithm by ISO 639-1 code; a language without one is indexed unstemmed."""

_INVISIBLE: Final = dict.fromkeys((0x00AD, 0x200C, 0x200D, 0x2060, 0xFEFF))
_WORD: Final = re.compile(r"\w+")
_local = threading.local()  # a Stemmer must not be used by two threads at once


def words(text: str) -> list[str]:
    """Give the token stream: NFKC, casefold, soft hyphens and joiners dropped, then runs of word characters."""
    if text.isascii():  # the same, at half the cost
        return _WORD.findall(text.lower())
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold().translate(_INVISIBLE))


def stem(word: str, language: str) -> str:
    """Stem a word of the token stream by Snowball; the word itself where the language has no stemmer.

    Some Greek words stem to nothing: those are kept whole, or all of them would share one id.
    """
    name = STEMMERS.get(language)
    if name is None:
        return word
    stemmers: dict[str, Stemmer.Stemmer] = _local.__dict__
    if name not in stemmers:
        stemmers[name] = Stemmer.Stemmer(name, 0)
    return str(stemmers[name].stemWord(word)) or word


def weight(count: int, length: int, average: float) -> float:
    """Give BM25's term part, rounded to the nearest of `LEVELS`. Source: Robertson and Zaragoza 2009, k1 1.2, b .75."""
    exact = count * (K1 + 1) / (count + K1 * (1 - B + B * length / average))
    return min(LEVELS[-1], max(LEVELS[0], math.floor(exact * 4 + 0.5) / 4))


class QuestionTokens(dict[int, float]):
    """Token ids of a question with how often each occurs."""

    prefixes: frozenset[int] = frozenset()
    """Ids that stand for first letters only."""
    words: tuple[tuple[int, ...], ...] = ()
    """The ids that each word may stand under, one for each distinct stem, in the order of the question."""

    def shares(self, idf: Mapping[int, float]) -> tuple[dict[int, float], float]:
        """Give what holding each token once is worth, and the mass: what holding all of the question is worth.

        A word that was stemmed in several languages is still one word, and a passage holds it in one of them: its
        rarest stems, which no passage may hold at all, do not count. First letters count `PREFIX_SHARE`, as stored.
        """
        worth = {token: idf.get(token, 0.0) * (PREFIX_SHARE if token in self.prefixes else 1.0) for token in self}
        mass = sum(min(worth[token] for token in stems) for stems in self.words)
        return worth, mass + sum(self[token] * worth[token] for token in self.prefixes)


class Lexicon:
    """Blinds the words of one tenant × jurisdiction × epoch under its K_lex (32 bytes)."""

    __slots__ = ("_ids", "_key", "_stems")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._ids: dict[str, int] = {}
        self._stems: dict[tuple[str, str], str] = {}

    def passage(self, text: str, language: str, heading: str = "", average: float = AVERAGE) -> dict[int, float]:
        """Give token ids (u32) with stored weights. Words of the heading path count as words of the passage."""
        return self._weights(text, language, heading, average, None)

    def held(self, text: str, language: str, heading: str, asked: Container[int]) -> dict[int, float]:
        """Give of a passage's stored weights those of the tokens that are `asked` for, at a fraction of the cost."""
        return self._weights(text, language, heading, AVERAGE, asked)

    def _weights(
        self, text: str, language: str, heading: str, average: float, asked: Container[int] | None
    ) -> dict[int, float]:
        stream = words(f"{heading} {text}" if heading else text)
        stems, prefixes = Counter[str](), Counter[str]()
        for word, count in Counter(stream).items():
            term = self._stem(word, language)
            if asked is None or self.token(term) in asked:
                stems[term] += count
            if len(word) > PREFIX_LETTERS:
                term = _prefix(word)
                if asked is None or self.token(term) in asked:
                    prefixes[term] += count
        held: dict[int, float] = {}
        for share, counted in ((1.0, stems), (PREFIX_SHARE, prefixes)):
            for term, count in counted.items():
                # Ids of one sparse vector must be unique: the weights of terms that collide are added.
                token = self.token(term)
                held[token] = held.get(token, 0.0) + share * weight(count, len(stream), average)
        return held

    def question(self, text: str, languages: Sequence[str]) -> QuestionTokens:
        """Give token ids with their count in the question, stemmed in every one of `languages`, joined.

        One occurrence of a word counts once per distinct stem. Without languages words stay unstemmed.
        """
        held = QuestionTokens()
        prefixes: set[int] = set()
        stems: list[tuple[int, ...]] = []
        for word in words(text):
            terms = dict.fromkeys(self._stem(word, language) for language in languages or ("und",))
            stems.append(tuple(dict.fromkeys(self.token(term) for term in terms)))
            for token in stems[-1]:
                held[token] = held.get(token, 0.0) + 1.0
            if len(word) > PREFIX_LETTERS:
                token = self.token(_prefix(word))
                held[token] = held.get(token, 0.0) + 1.0
                prefixes.add(token)
        held.prefixes, held.words = frozenset(prefixes), tuple(stems)
        return held

    def token(self, term: str) -> int:
        """Give a term's id: the first 4 bytes, big-endian, of HMAC-SHA256(K_lex, lp(term))."""
        token = self._ids.get(term)
        if token is None:
            if len(self._ids) >= CACHED:
                self._ids = {}
            # A word beyond 64 KB is no word; its beginning tells it apart well enough.
            token = int.from_bytes(hmac.digest(self._key, lp(term.encode()[:0xFFFF]), "sha256")[:4], "big")
            self._ids[term] = token
        return token

    def _stem(self, word: str, language: str) -> str:
        stemmed = self._stems.get((language, word))
        if stemmed is None:
            if len(self._stems) >= CACHED:
                self._stems = {}
            stemmed = self._stems[language, word] = stem(word, language)
        return stemmed


def _prefix(word: str) -> str:
    return "^" + word[:PREFIX_LETTERS]  # no word of the stream holds a circumflex


def keyed_tag(key: bytes, kind: str, value: bytes | str) -> str:
    """Give what payload filters match: base64url of HMAC-SHA256(K_tag, kind and value), 16 bytes of it."""
    return urlsafe_b64encode(hmac.digest(key, bind("domicile/v1/tag", kind, value), "sha256")[:16]).decode().rstrip("=")


def point_id(key: bytes, document: bytes, version: int, number: int) -> str:
    """Give a Passage's point id under K_tag, a UUIDv8: a replay overwrites itself, and nobody can test a guess."""
    made = bytearray(hmac.digest(key, bind("domicile/v1/point", document, u32(version), u32(number)), "sha256")[:16])
    made[6] = 0x80 | (made[6] & 0x0F)
    made[8] = 0x80 | (made[8] & 0x3F)
    return str(UUID(bytes=bytes(made)))
