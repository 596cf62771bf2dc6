"""The five ports through which data can leave, as Protocols; every public method takes a Route first.

Bodies stand in `residency/outlets/`; each enters `outlets/passing.py` before it does anything, and each passes the one
contract suite of its port in `tests/contract/`. Use-cases get bodies handed in and know only these types.
A tenant's data never shares a point filter with another's: `PointFilter.owners` is mandatory.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from residency.route import Route

Vectors = NDArray[np.float32]
NO_VECTOR: Final[Vectors] = np.empty(0, dtype=np.float32)


# --- shards ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Point:
    """One Passage as it lies at a shard: sealed text, protected vector, blinded words.

    `id` is a UUID string from `lexicon.point_id`; `vector` float32 of shape (d,), unit length, or `NO_VECTOR` where it
    lies sealed in the payload; `sparse` maps blind token ids (u32) to stored weights;
    `payload` holds only keys of the allow-list in `envelope.PAYLOAD_KEYS`.
    """

    id: str
    vector: Vectors
    sparse: dict[int, float]
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PointFilter:
    """Which points may be seen at all. Conditions are joined with AND; `None` does not restrict, empty matches none.

    `owners` are values of payload `t` (tenant × jurisdiction × epoch) and never optional; `classes` of `k`,
    `collections` of `c`, `documents` of `d`, `groups` of `a` (a point without `a` is open to the tenant, so that empty
    groups still match what is open).
    """

    owners: tuple[str, ...]
    classes: tuple[int, ...] | None = None
    collections: tuple[str, ...] | None = None
    documents: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None

    @property
    def matches_nothing(self) -> bool:
        """Whether a condition is empty, so that no shard need be asked."""
        return () in (self.owners, self.classes, self.collections, self.documents)


@dataclass(frozen=True, slots=True)
class ShardQuery:
    """A question for one shard: its vector already turned, its words already blinded.

    `tokens` maps blind token ids to their count in the question; `limit` is per leg. A vector that is still being made
    is given as what waits for it: a shard may look for the words meanwhile.
    """

    where: PointFilter
    vector: Vectors | Callable[[], Awaitable[Vectors]] | None
    tokens: dict[int, float]
    limit: int = 40


@dataclass(frozen=True, slots=True)
class Hit:
    """A point that a leg found; both scores are given for every Hit (second round), 0.0 where a leg has none."""

    id: str
    dense: float
    lexical: float
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """What one shard answered: hits of both legs joined, and each question token's IDF within the filter."""

    site: str
    hits: tuple[Hit, ...]
    idf: dict[int, float] = field(default_factory=dict)


class Shard(Protocol):
    """The part of the index that lies at one Site. A put is acknowledged only when durable."""

    site: str

    async def put(self, route: Route, points: Sequence[Point]) -> None:
        """Write points durably (Action store); replaying the same points is harmless. Raises `SiteError`."""
        ...

    async def search(self, route: Route, query: ShardQuery) -> Found:
        """Find by both legs, then score every candidate on both (Action search)."""
        ...

    async def retrieve(self, route: Route, ids: Sequence[str], *, vectors: bool = False) -> list[Point]:
        """Give the points with these ids that exist (Action search); `vector` is empty unless asked for."""
        ...

    async def count(self, route: Route, where: PointFilter) -> int:
        """Count exactly (Action search)."""
        ...

    async def ids(self, route: Route, where: PointFilter) -> list[str]:
        """List the ids of all matching points (Action search)."""
        ...

    async def delete(self, route: Route, ids: Sequence[str]) -> int:
        """Delete points durably (Action erase) and give how many of them existed."""
        ...

    async def purge(self, route: Route) -> dict[str, Any]:
        """Rebuild storage so that bytes of deleted points are gone (Action erase); give method and result."""
        ...

    async def probe(self) -> dict[str, Any]:
        """Say whether the Site answers and what it is; reads no data, so it needs no Route. Raises `SiteError`."""
        ...

    async def aclose(self) -> None:
        """Release what is held."""
        ...


# --- embedders ------------------------------------------------------------------------------------------------------


class Embedder(Protocol):
    """A model that turns text into unit vectors at one Site."""

    site: str
    dimension: int
    digest: str
    """`sha256:` digest over the model's manifest; one collection holds vectors of one digest."""
    max_tokens: int

    async def embed(self, route: Route, texts: Sequence[str], *, question: bool = False) -> Vectors:
        """Give float32 (n, d), rows of unit length (Action embed). Raises `ModelError` for a text beyond the limit."""
        ...

    def count_tokens(self, text: str) -> int:
        """Count tokens as the model does, special ones included; local and pure."""
        ...

    def forget(self) -> None:
        """Forget the vectors of questions asked until now, if any are kept."""
        ...

    async def aclose(self) -> None:
        """Release what is held."""
        ...


# --- generators -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a generator sees: the rules, and the question with fenced sources."""

    system: str
    user: str


class Generator(Protocol):
    """A language model at one Site; streams text (Action generate). Raises `SiteError` when it is down."""

    site: str
    model: str

    def generate(self, route: Route, prompt: Prompt) -> AsyncIterator[str]:
        """Stream the text of the reply."""
        ...

    async def aclose(self) -> None:
        """Release what is held."""
        ...


# --- key providers --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KekRef:
    """One version of a KEK at its home Site. `id` is 16 raw bytes."""

    id: bytes
    version: int
    tenant: str
    jurisdiction: str
    site: str


class KeyProvider(Protocol):
    """Where KEKs live; wraps and unwraps DEKs with the AAD bound in. Action store for create and wrap, open for unwrap,
    erase for destroy. Every failure is `KeyringError`.
    """

    site: str

    async def create(self, route: Route, kek: KekRef) -> None:
        """Make this KEK version; harmless when it exists."""
        ...

    async def wrap(self, route: Route, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """Wrap (32 bytes, aad) pairs under one KEK version, all or nothing."""
        ...

    async def unwrap(self, route: Route, kek: KekRef, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """Unwrap (wrapped, aad) pairs of one KEK version, all or nothing."""
        ...

    async def destroy(self, route: Route, kek: KekRef) -> None:
        """Destroy this version for ever; where they can only go in order, `KeyringError` while an older one lives."""
        ...

    async def roll(self, keks: Sequence[KekRef]) -> dict[str, Any]:
        """Replace the root that this provider seals its KEKs under, if it has one; `keks` are all that it holds.

        No tenant's key leaves or is used, so it needs no Route. Empty where there is no such root.
        """
        ...

    async def status(self) -> dict[str, Any]:
        """Say whether the provider answers; no key material."""
        ...

    async def aclose(self) -> None:
        """Release what is held."""
        ...


# --- vaults ---------------------------------------------------------------------------------------------------------


class VaultWriter(Protocol):
    """One sealed file being written aside; invisible until `commit`."""

    async def append(self, sealed: bytes) -> None:
        """Add sealed bytes."""
        ...

    async def sync(self) -> None:
        """Make what was appended durable without publishing it."""
        ...

    async def commit(self) -> None:
        """Fsync, give it its name, fsync the folder."""
        ...

    async def abandon(self) -> None:
        """Remove what was written."""
        ...


class Vault(Protocol):
    """Where sealed originals and work artefacts lie at one Site. Names are ids chosen by us, never a person's."""

    site: str

    async def create(self, route: Route, name: str) -> VaultWriter:
        """Begin a sealed file (Action store). Raises `StorageFullError`."""
        ...

    async def put(self, route: Route, name: str, parts: Iterable[bytes]) -> None:
        """Write a whole sealed file durably (Action store)."""
        ...

    async def read(self, route: Route, name: str) -> bytes:
        """Give the whole sealed file (Action open). Raises `SealedError` when it is absent."""
        ...

    async def delete(self, route: Route, names: Sequence[str]) -> int:
        """Delete (Action erase) and give how many existed."""
        ...

    async def names(self, route: Route, prefix: str) -> list[str]:
        """List names that begin so (Action search)."""
        ...

    async def aclose(self) -> None:
        """Release what is held."""
        ...
