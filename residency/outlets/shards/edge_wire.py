"""edge_wire: what a Site's process and its Edge child say to each other.

Every message is msgspec MessagePack behind four bytes of length, big-endian; nothing is ever pickled.
A `Call` carries its deadline on the monotonic clock, which both processes share, so that the child drops what nobody
waits for any more. `op` and `result` stay raw until somebody wants them.
This module is imported by both ends: it knows neither asyncio nor Qdrant nor numpy, so that the child starts quickly.
"""

import struct
from typing import Any, Final

import msgspec

LENGTH: Final = struct.Struct("!I")
LARGEST: Final = 64 * 1024 * 1024
"""Bytes that one message may have; a longer announcement means that the two ends no longer understand each other."""


class Where(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`ports.PointFilter` on the wire; the empty cases that match nothing never get here."""

    owners: list[str]
    classes: list[int] | None = None
    collections: list[str] | None = None
    documents: list[str] | None = None
    groups: list[str] | None = None


class WirePoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`ports.Point` on the wire: the vector as float32 LE bytes, the words as two columns."""

    id: str
    vector: bytes
    tokens: list[int]
    weights: list[float]
    payload: dict[str, Any]


class WireHit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`ports.Hit` on the wire."""

    id: str
    dense: float
    lexical: float
    payload: dict[str, Any]


class WireFound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hits of both legs, and the IDF of the question's tokens in their order."""

    hits: list[WireHit]
    idf: list[float]


class Put(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="put"):
    """Write these points and flush; the result is their number."""

    points: list[WirePoint]


class Search(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="search"):
    """Ask both legs twice; the result is a `WireFound`. `held` is what `Words` gave, if it was asked before."""

    where: Where
    vector: bytes | None
    tokens: list[int]
    counts: list[float]
    limit: int
    held: list[str] | None = None


class Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="words"):
    """Look for a question's words while its vector is being made, and remember their IDFs; the result is ids."""

    where: Where
    tokens: list[int]
    counts: list[float]
    limit: int


class Retrieve(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="retrieve"):
    """Give the points with these ids; the result is a list of `WirePoint`."""

    ids: list[str]
    vectors: bool


class Count(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="count"):
    """Count exactly; the result is an int."""

    where: Where


class Ids(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ids"):
    """List ids; the result is a list of str."""

    where: Where


class Delete(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="delete"):
    """Delete these ids and flush; the result is how many existed."""

    ids: list[str]


class Purge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="purge"):
    """Rebuild the store aside and drop the old one; the result is a dict of facts."""


class Info(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="info"):
    """Say what is held; the result is a `HostInfo`."""


Op = Put | Search | Words | Retrieve | Count | Ids | Delete | Purge | Info


class HostInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the child is: process, store, memory in bytes."""

    pid: int
    points: int
    generation: str
    rss: int
    free: int
    """Bytes left on the volume."""


class Opening(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first message to the child; it answers with Reply 0, holding a `HostInfo` or a Fault."""

    folder: str
    dimension: int
    parent: int
    """Process id of the starter; the child leaves at once when that is no longer its parent."""
    command: str
    """What the starter was called, for the lock file."""
    free_share: float
    """Share of the volume that must stay free after a put, 0 to 1."""


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing asked of the child; `deadline` in seconds of the monotonic clock."""

    id: int
    deadline: float
    op: msgspec.Raw


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a Call failed: `full` (nothing written), `locked`, or `broken`. Never quotes content."""

    kind: str
    text: str


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer to the Call of that id; `result` is undefined beside a Fault."""

    id: int
    result: msgspec.Raw
    fault: Fault | None = None


_encoder = msgspec.msgpack.Encoder()


def packed(value: object) -> bytes:
    """Encode without the length."""
    return _encoder.encode(value)


def framed(value: object) -> bytes:
    """Encode behind the length. Raises `ValueError` when the message is longer than `LARGEST`."""
    body = _encoder.encode(value)
    if len(body) > LARGEST:
        raise ValueError(f"a message of {len(body)} bytes is longer than {LARGEST}")
    return LENGTH.pack(len(body)) + body
