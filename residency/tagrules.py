"""Tag rules: `tagging.toml` as a lawyer writes it: which words make a category, which folders speak for what.

Rules kept here: rules only add; a rule with a fault stops the whole file, with its id and what to do; words are kept in
the form in which `ingestion/categories.py` looks for them. The file is read by `rulebook.py` and applied elsewhere.
"""

import fnmatch
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from residency.errors import PolicyError

FILE: Final = "tagging.toml"
KINDS: Final = ("iban", "vat", "person_id", "tax_id", "company_id", "phone")
"""Kinds of Signs that a rule may name."""
MAX_CLASSIFICATION: Final = 4
_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_WORD: Final = re.compile(r"[^\W_][\w' -]{1,60}\*?")
_LANGUAGE: Final = re.compile(r"[a-z]{2}")


class Codes(Protocol):
    """What is asked of Zones; `zones.Zones` is the body."""

    def check(self, code: str) -> str:
        """Give the code, or raise `ZoneError` with the nearest known one."""
        ...


@dataclass(frozen=True, slots=True)
class CategoryRule:
    """Words that make a category: `words` by language, casefolded; `signs` are kinds of numbers that do alone."""

    id: str
    category: str
    least: int
    words: Mapping[str, tuple[str, ...]]
    signs: frozenset[str]


@dataclass(frozen=True, slots=True)
class PlaceRule:
    """What a folder says of the documents sent from it."""

    id: str
    folder: str
    jurisdictions: frozenset[str]
    categories: frozenset[str]
    classification: int
    personal: bool

    def holds(self, folder: str) -> bool:
        """Say whether a folder (`hr/2026`, no slash at the ends) is meant."""
        pattern = self.folder.removesuffix("/**")
        deeper = pattern != self.folder and fnmatch.fnmatchcase(folder, f"{pattern}/*")
        return fnmatch.fnmatchcase(folder, pattern) or deeper


@dataclass(frozen=True, slots=True)
class TagRules:
    """A whole file."""

    categories: tuple[CategoryRule, ...] = ()
    places: tuple[PlaceRule, ...] = ()

    def at(self, folder: str) -> tuple[PlaceRule, ...]:
        """Give the rules that hold for a folder; none for a document that came from none."""
        folder = folder.strip("/")
        return tuple(rule for rule in self.places if folder and rule.holds(folder))

    @classmethod
    def parse(cls, raw: bytes, zones: Codes) -> "TagRules":
        """Read the file. Raises `PolicyError` and `ZoneError` with the rule that is wrong."""
        try:
            table = tomllib.loads(raw.decode())
        except ValueError as error:
            raise PolicyError(f"{FILE} is no TOML: {error}", hint="restore the shipped file") from error
        _known(FILE, table, {"category", "place"})
        categories = tuple(_category(row) for row in _rows(table, "category"))
        places = tuple(_place(row, zones) for row in _rows(table, "place"))
        ids = [rule.id for rule in categories] + [rule.id for rule in places]
        if twice := {each for each in ids if ids.count(each) > 1}:
            raise _wrong(min(twice), "stands twice", "give each rule an id of its own")
        return cls(categories, places)


def _category(row: dict[str, Any]) -> CategoryRule:
    name = _id(row)
    _known(name, row, {"id", "category", "least", "words", "signs"})
    category = _slug(name, row.get("category", ""))
    words, signs, least = row.get("words", {}), row.get("signs", []), row.get("least", 1)
    if not isinstance(words, dict) or not isinstance(signs, list) or not (words or signs):
        raise _wrong(name, "has neither words nor signs", "write [category.words] with lists by language")
    read: dict[str, tuple[str, ...]] = {}
    for language, listed in words.items():
        if not _LANGUAGE.fullmatch(language) or not isinstance(listed, list) or not listed:
            raise _wrong(name, f"has no list of words under {language[:20]!r}", 'write de = ["Befund*"]')
        for word in listed:
            if not isinstance(word, str) or not _WORD.fullmatch(word):
                raise _wrong(
                    name, f"holds a word under {language} that is none", "letters, one * at the end, two signs at least"
                )
        read[language] = tuple(dict.fromkeys(word.casefold() for word in listed))
        if isinstance(least, int) and len(read[language]) < least:
            raise _wrong(name, f"asks for {least} words and has fewer under {language}", "add words or lower `least`")
    if strange := [each for each in signs if each not in KINDS]:
        raise _wrong(name, f"names {str(strange[0])[:20]!r}, which is no kind of sign", f"one of {', '.join(KINDS)}")
    if not isinstance(least, int) or isinstance(least, bool) or least < 1:
        raise _wrong(name, "has a `least` that is no number from 1", "write least = 2")
    return CategoryRule(name, category, least, read, frozenset(signs))


def _place(row: dict[str, Any], zones: Codes) -> PlaceRule:
    name = _id(row)
    _known(name, row, {"id", "folder", "jurisdictions", "categories", "classification", "personal"})
    folder, level = row.get("folder", ""), row.get("classification", 0)
    if not isinstance(folder, str) or not folder.strip("/*") or folder != folder.strip("/"):
        raise _wrong(name, "has no folder", 'write folder = "personnel/**", without a slash at either end')
    if not isinstance(level, int) or not 0 <= level <= MAX_CLASSIFICATION:
        raise _wrong(name, "has a classification that is none", "0 public to 4 top secret")
    if not isinstance(row.get("personal", False), bool):
        raise _wrong(name, "has a `personal` that is neither true nor false", "write personal = true")
    jurisdictions = frozenset(zones.check(str(code)) for code in row.get("jurisdictions", []))
    categories = frozenset(_slug(name, each) for each in row.get("categories", []))
    if not (jurisdictions or categories or level or row.get("personal")):
        raise _wrong(name, "says nothing", "give it jurisdictions, categories, personal or a classification")
    return PlaceRule(name, folder, jurisdictions, categories, level, bool(row.get("personal", False)))


def _rows(table: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    rows = table.get(kind, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise PolicyError(f"{FILE}: {kind} is no list of rules", hint=f"write [[{kind}]] above each rule")
    return rows


def _id(row: dict[str, Any]) -> str:
    name = row.get("id", "")
    if not isinstance(name, str) or not _SLUG.fullmatch(name):
        raise PolicyError(f"{FILE}: a rule has no id", hint='write id = "health": a-z, 0-9 and hyphens')
    return name


def _slug(name: str, text: object) -> str:
    if not isinstance(text, str) or not _SLUG.fullmatch(text):
        raise _wrong(name, "names a category that is no slug", "write categories like health or trade-secret")
    return text


def _known(name: str, row: dict[str, Any], keys: set[str]) -> None:
    if strange := sorted(row.keys() - keys):
        raise _wrong(name, f"holds {strange[0][:30]!r}, which means nothing", f"there are: {', '.join(sorted(keys))}")


def _wrong(name: str, what: str, hint: str) -> PolicyError:
    return PolicyError(f"{FILE}: {name}: {what}", hint=hint)
