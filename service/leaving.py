"""Leaving out: a collection's own sentences become questions, each asked with its Document and without it.

Rules kept here: every question is searched like anybody's, ruled on and recorded; what comes of it is numbers. A made
question has the words of one sentence but its figures, some of them dropped, behind words that questions begin with
and documents seldom hold: so its support lies where people's questions lie (docs/quality.md has the comparison). A
Passage of another Document that holds the same sentence is an answer too and is left out with its own.
"""

import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from ingestion.sentences import sentences
from residency.database import Database
from residency.decision import Principal
from residency.errors import DomicileError
from service.calibration import Calibration, Calibrations, Pair, fit
from service.catalogue import Catalogue, Entry, Page
from service.searching import Results, Search, Searching

MOST: Final = 240
"""Pairs of one language at most; more narrow the threshold little."""
EACH: Final = 12
"""Pairs of one Document at most."""
FIRM: Final = 200
"""Pairs below which a language's threshold is not believed when that of all languages is stricter."""
LOOKED_AT: Final = 40
"""Passages looked at for each question; those of other Documents must be among them."""
LEAST_WORDS: Final = 6
"""Words of a sentence that a question is made of, at least."""
STRETCH: Final = 15
"""Words of a sentence that are taken, one after the other."""
KEPT: Final = 0.8
"""Share of these that a question keeps."""
OPENINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "en": (
        "How much does it cost for", "What happens if somebody wants", "Who is responsible when", "Where can I find",
        "What is it called when", "How often do people need", "How long does it take until", "Why would anybody",
    ),
    "de": (
        "Wie viel kostet es für", "Was passiert, wenn jemand möchte", "Wer ist verantwortlich, falls", "Wo finde ich",
        "Wie heißt", "Wie oft brauchen Leute", "Wie lange dauert es bis", "Warum erwähnt man",
    ),
    "fr": (
        "Combien coûte", "Que se passe-t-il si quelqu'un veut", "Qui s'occupe de", "Où trouve-t-on",
        "Comment s'appelle", "À quelle fréquence faut-il", "Combien de temps dure", "Pourquoi parle-t-on de",
    ),
    "es": (
        "Cuánto cuesta", "Qué pasa si alguien quiere", "Quién se encarga de", "Dónde encuentro",
        "Cómo se llama", "Con qué frecuencia hace falta", "Cuánto tiempo tarda", "Por qué se menciona",
    ),
    "it": ("Quanto costa", "Che cosa succede se qualcuno vuole", "Chi si occupa di", "Come si chiama", "Dove trovo"),
    "nl": ("Hoeveel kost het voor", "Wat gebeurt er als iemand wil", "Wie zorgt er voor", "Hoe heet", "Waar vind ik"),
    "ro": ("Cât costă", "Ce se întâmplă dacă cineva vrea", "Cine se ocupă de", "Cum se numește", "Unde găsesc"),
    "el": ("Πόσο κοστίζει", "Τι συμβαίνει αν κάποιος θέλει", "Ποιος φροντίζει για", "Πώς λέγεται", "Πού βρίσκω"),
}  # fmt: skip
"""How people ask; a language that is missing asks without."""

_WORD: Final = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SPACE: Final = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a run gave: maps by language ("" for all), and how many pairs each language had."""

    maps: Mapping[str, Calibration]
    pairs: Mapping[str, int]


def make(sentence: str, language: str, rng: random.Random) -> str:
    """Make a question of a sentence; empty when it has too few words."""
    found = _WORD.findall(sentence)
    if len(found) < LEAST_WORDS:
        return ""
    at = rng.randrange(max(1, len(found) - STRETCH))
    kept = [word for word in found[at : at + STRETCH] if rng.random() < KEPT]
    opening = rng.choice(OPENINGS[language]) if language in OPENINGS else ""
    return f"{opening} {' '.join(kept)}?".strip() if len(kept) > 2 else ""


class LeavingOut:
    """Calibrates a collection for a principal, from the Documents that it may see."""

    def __init__(
        self, *, searching: Searching, catalogue: Catalogue, calibrations: Calibrations, database: Database
    ) -> None:
        self._searching = searching
        self._catalogue = catalogue
        self._calibrations = calibrations
        self._database = database

    async def calibrate(
        self,
        principal: Principal,
        collection: str = "default",
        *,
        seed: int = 1,
        told: Callable[[], None] = lambda: None,
    ) -> Calibrated:
        """Make pairs, fit a map for each language and one for all, keep those with pairs enough."""
        rng = random.Random(seed)  # noqa: S311 - a sample, no secret
        entries = await self._live(principal, collection)
        rng.shuffle(entries)
        pairs: dict[str, list[Pair]] = defaultdict(list)
        model = inside = ""
        for entry in entries:
            language = entry.document.language
            if len(pairs[language]) >= MOST:
                continue
            for sentence in await self._sentences(principal, entry, rng):
                question = make(sentence, language, rng)
                if not question:
                    continue
                ask = Search(question, LOOKED_AT, collection, language="" if language == "und" else language)
                results = await self._searching.search(principal, ask)
                told()
                if not isinstance(results, Results) or not results.findings.passages:
                    continue
                model, inside = results.findings.model, entry.document.collection
                if (pair := _pair(results, entry, sentence)) is not None:
                    pairs[language].append(pair)
        passages = sum(entry.document.passages for entry in entries)
        maps: dict[str, Calibration] = {}
        every = [pair for listed in pairs.values() for pair in listed]
        for language, listed in [("", every), *pairs.items()]:
            made = fit(listed, passages=passages, now=time.time())
            if made is not None:
                if language and len(listed) < FIRM:
                    made = replace(made, threshold=max(made.threshold, maps[""].threshold))
                maps[language] = made
                await self._database.run(self._calibrations.keep, inside, model, language, made)
        return Calibrated(maps, {language: len(listed) for language, listed in pairs.items()})

    async def _live(self, principal: Principal, collection: str) -> list[Entry]:
        found: list[Entry] = []
        cursor = ""
        while True:
            entries, cursor = await self._catalogue.listing(principal, collection=collection, cursor=cursor, limit=100)
            found += [entry for entry in entries if str(entry.document.state) == "live"]
            if not cursor:
                return found

    async def _sentences(self, principal: Principal, entry: Entry, rng: random.Random) -> list[str]:
        document = entry.document
        page = 1 + rng.randrange(max(1, document.pages))
        try:
            opened = await self._catalogue.source(principal, document.id, version=document.version, page=page)
        except DomicileError:  # gone meanwhile, or not permitted: others are there
            return []
        if not isinstance(opened, Page):
            return []
        found = [opened.text[start:end] for start, end in sentences(opened.text, document.language)]
        rng.shuffle(found)
        return found[:EACH]


def _pair(results: Results, entry: Entry, sentence: str) -> Pair | None:
    """Give a question's supports; None when none of the Passages found is of another Document."""
    plain = _SPACE.sub(" ", sentence)
    present, absent = 0.0, None
    for passage in results.findings.passages:
        if passage.document_id == entry.document.id:
            present = max(present, passage.support)
        elif plain not in _SPACE.sub(" ", passage.text):
            absent = max(absent or 0.0, passage.support)
    return None if absent is None else Pair(entry.document.id, present, absent)
