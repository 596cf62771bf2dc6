"""Receipt: the record of what was decided and touched, as one leaf of the Ledger.

Rules kept here: canonical JSON (RFC 8785) with ASCII keys and no floats; never a text, a name or a vector, only ids,
codes, counts, digests and commitments; equal steps are merged; a leaf stays within 65,535 bytes.
Fields are added, never changed; `v` is 1. Signing and storing is in `ledger.py`, checking in `verify.py`.
"""

import hmac
import secrets
import time as clock
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Protocol

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from residency.errors import LedgerError
from residency.journal import Touch
from residency.tag import Tag

VERSION: Final = 1
KINDS: Final = frozenset(
    ("answer", "search", "ingest", "refusal", "transfer", "erase", "policy", "zones", "fleet", "probe", "key", "admin")
)
MOST_BYTES: Final = 65_535
"""A leaf's length is a u16 in tlog-tiles bundles (c2sp.org/tlog-tiles)."""
MOST_COMMITS: Final = 256
SAFE: Final = 2**53 - 1
"""The largest integer that every JSON reader keeps (RFC 7493 section 2.2)."""
_ENCODER: Final = msgspec.json.Encoder(order="sorted")
"""With ASCII keys and neither floats nor large integers its bytes are those of RFC 8785, as a test shows."""


class Operator(Protocol):
    """Who controls a Site."""

    @property
    def name(self) -> str:
        """Legal name."""
        ...

    @property
    def zone(self) -> str:
        """Zone of establishment."""
        ...


class Place(Protocol):
    """What a step must know of a Site; `fleet.Site` is the body."""

    @property
    def zone(self) -> str:
        """The Zone it stands in."""
        ...

    @property
    def operator(self) -> Operator:
        """Who runs it."""
        ...

    @property
    def parent(self) -> Operator:
        """Who controls the operator."""
        ...

    def zones_at(self, now: datetime, /) -> tuple[str, ...]:
        """Give every Zone it lies in at `now`, schemes included."""
        ...

    def grade(self, now: datetime, /) -> int:
        """Give the grade of its best Evidence in force at `now`."""
        ...


class Places(Protocol):
    """What a Receipt must know of the Fleet; `fleet.Fleet` is the body."""

    def site(self, site_id: str, /) -> Place:
        """Give a Site; raises `SiteError` for an unknown one."""
        ...


@dataclass(slots=True)
class Draft:
    """What a use-case knows when its story ends; `ledger.append` makes a Receipt from it."""

    kind: str
    """One of `KINDS`."""
    tenant: str
    activity: str
    """Entry of the Art. 30 register."""
    tags: tuple[Tag, ...] = ()
    """Every Tag that a step or a refusal was ruled for."""
    steps: list[dict[str, Any]] = field(default_factory=list)
    """As `steps()` gives them."""
    refused: list[dict[str, Any]] = field(default_factory=list)
    """As `Refusal.facts()` gives them, with an optional `count`."""
    withheld: int = 0
    """Passages held back."""
    commits: Mapping[str, bytes | Sequence[bytes]] = field(default_factory=dict)
    """Plaintext to commit to, by field: `principal`, `question`, `answer`; `documents` is a list of document ids."""
    subject: str = ""
    """A random id that the record is about, such as a document's; never a name."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Small extra facts: ids, codes, counts."""


def canonical(value: Any) -> bytes:
    """Give the one JSON text of a value, UTF-8. Source: RFC 8785.

    Raises `LedgerError` on what has no such text here: floats, keys beyond ASCII, integers beyond 2^53 - 1,
    lone surrogates, types that are not JSON's.
    """
    _check(value)
    try:
        return _ENCODER.encode(value)
    except UnicodeEncodeError:
        raise LedgerError("a lone surrogate cannot be recorded", hint="record ids and codes only") from None


def _check(value: Any) -> None:
    waiting = [value]
    for each in waiting:  # it grows while it is walked; a function call for each value would cost as much as signing
        kind = type(each)
        if kind is str or kind is bool or each is None:
            continue
        if kind is int:
            if not -SAFE <= each <= SAFE:
                raise LedgerError("an integer beyond 2^53 - 1 cannot be recorded", hint="record it as text")
        elif kind is dict:
            if not _ascii(each):
                raise LedgerError("a recorded field's name must be ASCII")
            waiting += each.values()
        elif kind is list or kind is tuple:
            waiting += each
        elif not isinstance(each, str):  # a StrEnum is recorded as its text
            raise LedgerError(f"a {kind.__name__} cannot be recorded", hint="record integers and texts")


def _ascii(names: Iterable[Any]) -> bool:
    try:
        return "".join(names).isascii()
    except TypeError:
        return False


def new_id(now: float | None = None) -> str:
    """Make a UUIDv7 as text: milliseconds since 1970 and 74 random bits. Source: RFC 9562 section 5.7."""
    millis = round((clock.time() if now is None else now) * 1000)
    random = secrets.randbits(74)
    text = f"{millis << 80 | 0x7 << 76 | random >> 62 << 64 | 0b10 << 62 | random & (1 << 62) - 1:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def stamp(moment: datetime) -> str:
    """Write an instant in UTC with milliseconds and `Z`; such texts sort in time's order."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def steps(touches: Sequence[Touch], fleet: Places, now: datetime, *, reason: str = "") -> list[dict[str, Any]]:
    """Turn what the outlets recorded into a Receipt's `steps`, equal ones merged, counts and bytes summed.

    `tag` holds Tag digests (hex) until `build` numbers them; `reason` is put on `open` steps
    (asked, indexing, rewrap, review, legal). A Touch of a Site that the Fleet does not know raises `SiteError`.
    """
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for touch in touches:
        key = (touch.action, touch.site, touch.kind, touch.tags, touch.policies, touch.peer, touch.request)
        if key not in merged:
            site = fleet.site(touch.site)
            merged[key] = {
                "action": str(touch.action),
                "site": touch.site,
                "kind": touch.kind,
                "zone": site.zone,
                "operator": {"name": site.operator.name, "zone": site.operator.zone},
                "parent": {"name": site.parent.name, "zone": site.parent.zone},
                "grade": site.grade(now),
                "peer": touch.peer,
                "tag": sorted(touch.tags),
                "policies": sorted(touch.policies),
                "count": 0,
                "bytes": 0,
                "request": touch.request,
            }
            if len(site.zones_at(now)) > 1:  # a scheme such as US-DPF may be what the residency names
                merged[key]["zones"] = list(site.zones_at(now))
            if reason and touch.action == "open":
                merged[key]["reason"] = reason
        merged[key]["count"] += touch.count
        merged[key]["bytes"] += touch.bytes
    return list(merged.values())


def commitment(r: bytes, name: str, data: bytes) -> str:
    """Commit to `data` under the Receipt's secret r: HMAC-SHA256(r, name ‖ 0x00 ‖ data), hex."""
    return hmac.digest(r, name.encode() + b"\x00" + data, "sha256").hex()


def listing(items: Iterable[bytes]) -> bytes:
    """Join many items for one commitment: sorted, each after its length in 4 bytes."""
    return b"".join(len(item).to_bytes(4, "big") + item for item in sorted(items))


@lru_cache(4096)
def _described(tag: Tag) -> tuple[str, dict[str, Any]]:
    """Give a Tag's digest in hex and its facts; the same few Tags stand in every Receipt."""
    return tag.digest.hex(), tag.facts()


def _commits(draft: Draft, r: bytes) -> dict[str, Any]:
    keyed = HMAC(r, SHA256())  # taken up once: a copy of it costs half of a beginning

    def committed(name: str, data: bytes) -> str:
        mac = keyed.copy()
        mac.update(name.encode() + b"\x00" + data)
        return mac.finalize().hex()

    found: dict[str, Any] = {}
    for name, value in draft.commits.items():
        if isinstance(value, bytes):
            found[name] = committed(name, value)
        elif len(value) <= MOST_COMMITS:
            found[name] = [committed(name, item) for item in value]
        else:
            found[name] = {"count": len(value), "all": committed(name, listing(value))}
    return found


def build(
    draft: Draft,
    *,
    seq: int,
    id: str,  # noqa: A002 - the field's name
    time: str,
    software: str,
    digests: Mapping[str, str],
    r: bytes,
) -> dict[str, Any]:
    """Make the Receipt of a Draft: Tags numbered, refusals merged, plaintext replaced by commitments.

    Raises `LedgerError` when a step names a Tag that the Draft does not hold, or the kind is unknown.
    """
    if draft.kind not in KINDS:
        raise LedgerError(f"unknown kind of receipt: {draft.kind}", hint="one of " + ", ".join(sorted(KINDS)))
    tags: list[dict[str, Any]] = []
    numbers: dict[str, int] = {}

    def numbered(tag: Tag) -> int:
        digest, described = _described(tag)
        if digest not in numbers:
            numbers[digest] = len(tags)
            tags.append(dict(described))
        return numbers[digest]

    for tag in draft.tags:
        numbered(tag)
    done = []
    for step in draft.steps:
        try:
            named = [numbers[digest] for digest in step["tag"]]
        except KeyError as error:
            raise LedgerError(
                f"a step of {step['action']} at {step['site']} names a Tag that the receipt does not hold",
                hint="hand every Tag that was asked about to the Draft",
            ) from error
        done.append({**step, "tag": sorted(named) if len(named) > 1 else named})
    refused: dict[bytes, dict[str, Any]] = {}
    for facts in draft.refused:
        entry: dict[str, Any] = {
            "action": facts["action"],
            "site": facts["site"],
            "tag": [numbered(Tag.of(facts["tag"]))] if facts.get("tag") else [],
            "policies": sorted(facts["policies"]),
        }
        if not entry["policies"] and facts.get("why_not"):
            entry["why_not"] = dict(facts["why_not"])  # policy text, never content
        merged = refused.setdefault(canonical(entry), {**entry, "count": 0})
        merged["count"] += facts.get("count", 1)
    receipt: dict[str, Any] = {
        "v": VERSION,
        "id": id,
        "kind": draft.kind,
        "time": time,
        "tenant": draft.tenant,
        "seq": seq,
        "activity": draft.activity,
        "software": software,
        "policy": digests["policy"],
        "zones": digests["zones"],
        "fleet": digests["fleet"],
        "tags": tags,
        "steps": done,
        "refused": list(refused.values()),
        "withheld": draft.withheld,
        "commits": _commits(draft, r),
    }
    if draft.subject:
        receipt["subject"] = draft.subject
    if draft.facts:
        receipt["facts"] = draft.facts
    return receipt


def leaf(receipt: Mapping[str, Any]) -> bytes:
    """Give the bytes of a Receipt's leaf; raises `LedgerError` beyond 65,535."""
    body = canonical(receipt)
    if len(body) > MOST_BYTES:
        raise LedgerError(f"a receipt of {len(body)} bytes is too long", hint="merge its steps or record it in parts")
    return body
