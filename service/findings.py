"""What is asked of a search and what it gives: Search, Opened, Findings, Results."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from residency.decision import Refusal
from residency.journal import Touch
from residency.searchkeys import SearchKeys
from residency.tag import Tag
from service.calibration import GENERAL, Calibration

DEFAULT = "default"
"""The Collection that is meant where none is named."""


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked: text, how many passages, in which collection, of which documents."""

    query: str
    top_k: int = 5
    collection: str = DEFAULT
    documents: tuple[str, ...] | None = None
    activity: str = "search"
    kind: str = "search"
    """Of the Receipt, should the asker go away: `search` or `answer`."""
    language: str = ""
    """ISO 639-1 code of the question; empty: told from its words."""
    dense_weight: float | None = None
    """Weight of the dense leg; None: as learned for the model and the languages. An evaluation tries others."""
    fold: bool = False
    """Whether Passages that say the same appear once, naming the others: for whoever shows these (`Opened.also`)."""
    param: str = "query"
    """What the client called the question, for problems with it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Passage stands that says the same as one that is shown."""

    document_id: str
    name: str
    version: int
    page: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A Passage that was found, permitted and opened."""

    document_id: str
    name: str
    version: int
    page: int
    start: int
    end: int
    text: str
    heading: str
    language: str
    score: float
    support: float
    site: str
    zone: str
    tag: Tag
    words: Mapping[int, float]
    """Share of the question's IDF mass, at the shard it came from, that holding each of its blind tokens is worth."""
    keys: SearchKeys
    also: tuple[Place, ...] = ()
    """Where else the same is said, as far as it was found (`folding.py`)."""

    @property
    def documents(self) -> tuple[str, ...]:
        """Ids of the Documents that say it."""
        return tuple(dict.fromkeys((self.document_id, *(each.document_id for each in self.also))))


@dataclass(frozen=True, slots=True)
class Findings:
    """What a search found, with everything its Receipt needs."""

    passages: tuple[Opened, ...]
    withheld: int
    """Passages held back: in documents the asker may know of, in tag classes that are not permitted."""
    refusals: tuple[Refusal, ...]
    unreached: tuple[str, ...]
    damaged: int
    tags: tuple[Tag, ...]
    touches: tuple[Touch, ...]
    language: str
    timings: dict[str, float] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    """What of the question had no full effect, such as `query beyond 256 tokens`."""
    calibration: Calibration = GENERAL
    """What support means here: of the collection, the model and the question's language."""
    model: str = ""
    """Digest of the model that embedded the question."""


@dataclass(frozen=True, slots=True)
class Results:
    """A finished search: released because `receipt` is in the Ledger."""

    findings: Findings
    receipt: str
