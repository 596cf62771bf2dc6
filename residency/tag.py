"""Tag: whose law binds some data and where it may be processed.

A Tag travels with a Document, its Passages, vectors, keys, and with every Answer made from them.
It may narrow and never widens: `meet` takes the union of what binds and the intersection of what is allowed.
The Evidence of a Tag is kept beside it (sealed, it may quote the text) and is no part of its digest.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, Self


class Nesting(Protocol):
    """What a Tag must know of Zones to intersect two residencies; `zones.Zones` is the body."""

    def intersect(self, left: frozenset[str], right: frozenset[str]) -> frozenset[str]:
        """Give the Zones that lie inside both sets, the smaller of each nested pair."""
        ...


@dataclass(frozen=True, slots=True)
class Tag:
    """Five values that the policy rules on; Zone codes as in `policies/zones.toml`."""

    jurisdictions: frozenset[str]
    """Zones whose law binds the data: its origin."""
    residency: frozenset[str]
    """Zones in which it may be processed; a Site must lie inside one of them. Empty means nowhere."""
    personal: bool = True
    """Whether it may hold personal data (GDPR 4(1)); unknown counts as yes."""
    categories: frozenset[str] = frozenset()
    """Such as "health" or "finance"; special categories of GDPR 9 stand here."""
    classification: int = 1
    """0 public, 1 internal, 2 confidential, 3 secret, 4 top secret."""

    def meet(self, other: Self, zones: Nesting) -> "Tag":
        """Combine two Tags as data made from both must be: every law binds, only common Zones remain."""
        return Tag(
            jurisdictions=self.jurisdictions | other.jurisdictions,
            residency=zones.intersect(self.residency, other.residency),
            personal=self.personal or other.personal,
            categories=self.categories | other.categories,
            classification=max(self.classification, other.classification),
        )

    def facts(self) -> dict[str, Any]:
        """Give the five values as JSON-able data with sorted lists, as receipts print them."""
        return {
            "jurisdictions": sorted(self.jurisdictions),
            "residency": sorted(self.residency),
            "personal": self.personal,
            "categories": sorted(self.categories),
            "classification": self.classification,
        }

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Self:
        """Read back what `facts` gave."""
        return cls(
            jurisdictions=frozenset(facts["jurisdictions"]),
            residency=frozenset(facts["residency"]),
            personal=bool(facts["personal"]),
            categories=frozenset(facts["categories"]),
            classification=int(facts["classification"]),
        )

    @property
    def digest(self) -> bytes:
        """SHA-256 over the canonical JSON (RFC 8785) of the five values; 32 bytes. Bound into every wrapped DEK."""
        return _digest(self)

    @property
    def origin(self) -> str:
        """The jurisdictions as keys and AAD spell them: sorted, joined with `+` (`DE`, `DE+FR`)."""
        return joined(self.jurisdictions)


@lru_cache(maxsize=4096)  # a Passage's Tag is asked for its digest at every step; there are few Tags
def _digest(tag: Tag) -> bytes:
    text = json.dumps(tag.facts(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).digest()


def joined(codes: Iterable[str]) -> str:
    """Join Zone codes sorted bytewise with `+`."""
    return "+".join(sorted(codes, key=str.encode))
