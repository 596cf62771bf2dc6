"""Claims: what an uploader says about a Document, checked before a byte of its body is read.

Names are personal data: they are checked and then sealed, never quoted in an error and never part of a path.
"""

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Final, Self

from ingestion.detectors import STRONG, Sign
from ingestion.errors import TagError, UploadError
from ingestion.tagger import Declaration, declared
from residency.tag import Tag
from residency.tagrules import PlaceRule, TagRules
from residency.zones import Zones

LONGEST_NAME: Final = 255
"""Characters of a Document's name at most."""
_WORD: Final = re.compile(r"[a-z0-9][a-z0-9._:-]{0,62}")
# Overrides of direction make "gpj.exe" look like "exe.jpg".
_TURNED: Final = frozenset(chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A)))


@dataclass(frozen=True, slots=True)
class Claim:
    """A Document's declared name, place and protection, as it came in."""

    name: str
    jurisdictions: frozenset[str]
    """Zone codes; whose law binds it. Required."""
    collection: str = "default"
    residency: frozenset[str] | None = None
    """Zone codes where it may be processed; `None` means the bloc of its jurisdictions (EU for DE)."""
    personal: bool = True
    categories: frozenset[str] = frozenset()
    classification: int = 1
    groups: frozenset[str] = frozenset()
    """Access groups that may find it; empty means the whole tenant."""
    media_type: str = ""
    """As declared by the sender; the reader looks for itself."""
    folder: str = ""
    """Where it came from, such as `personnel/2026`: asked of `policies/tagging.toml` and kept nowhere."""
    places: tuple[PlaceRule, ...] = ()
    """Rules that held for the folder."""

    def placed(self, rules: TagRules) -> Self:
        """Give the claim with everything that the folder rules add; a folder speaks where no law was declared."""
        held = rules.at(self.folder)
        spoken = frozenset(code for rule in held for code in rule.jurisdictions)
        return replace(
            self,
            jurisdictions=self.jurisdictions or spoken,
            personal=self.personal or any(rule.personal for rule in held),
            categories=self.categories.union(*(rule.categories for rule in held)),
            classification=max(self.classification, *(rule.classification for rule in held), 0),
            folder="",
            places=held,
        )

    def evidence(self) -> list[Sign]:
        """Give what the folder rules say, as Signs that name the rules and never the folder."""
        return [
            Sign("place", code, 0, 0, STRONG, "folder rule", rule=rule.id)
            for rule in self.places
            for code in sorted(rule.jurisdictions) or [""]
        ]

    def tag(self, zones: Zones) -> Tag:
        """Make the provisional Tag. Raises `ZoneError` for an unknown code and `TagError` for what makes no Tag."""
        if self.residency is not None and not self.residency:
            raise TagError("the residency is empty", hint="name a Zone it may be processed in, or leave it out")
        if not all(_WORD.fullmatch(category) for category in self.categories):
            raise TagError("a category is no slug", hint="write categories like health or finance")
        declaration = Declaration(
            self.jurisdictions, self.residency, self.personal, self.categories, self.classification
        )
        tag = declared(declaration, zones)
        if not tag.residency:
            raise TagError(
                "no Zone suits all of these jurisdictions", hint="say in which Zones it may be processed, such as EU"
            )
        return tag

    def digest(self, tag: Tag) -> bytes:
        """Tell two claims apart: the same bytes under another claim are a new version."""
        return hashlib.sha256(tag.digest + json.dumps(sorted(self.groups)).encode()).digest()


def check_name(name: str) -> None:
    """Raise `UploadError` unless this may be a Document's name; says what is wrong with it and never quotes it."""
    if not name or not name.strip():
        raise UploadError("the name is empty", hint="give the document a name")
    if len(name) > LONGEST_NAME:
        raise UploadError(f"the name has {len(name)} characters", hint=f"use at most {LONGEST_NAME}")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        raise UploadError("the name holds control characters", hint="take them out of the name")
    if any(character in _TURNED for character in name):
        raise UploadError("the name turns the direction of reading", hint="take such characters out of the name")
    if "/" in name or "\\" in name:
        raise UploadError("the name holds a path separator", hint="send the bare file name, without folders")
    if name in (".", ".."):
        raise UploadError("the name is a path component", hint="send the bare file name")


def check_groups(groups: frozenset[str]) -> None:
    """Raise `UploadError` unless these may be access groups."""
    if len(groups) > 64 or not all(_WORD.fullmatch(group) for group in groups):
        raise UploadError("an access group is no slug", hint="write groups like works-council, at most 64 of them")


def suffix_of(name: str) -> str:
    """Give the part of a name that tells its kind, such as `.pdf`; empty when there is none."""
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if stem and dot and len(suffix) <= 10 else ""
