"""reconciliation: our book of requests against the one that a Qdrant server keeps.

Rules kept here: pure. The server's audit log is JSON lines of `timestamp`, `method`, `auth_type`, `result`, and the
x-request-id we sent as `tracing_id`; internal calls of its cluster are not in it. A line with no id counts as ours only
when its method reads and writes no points. What lies within `EDGE` of an end of the log is not judged: the story may
have begun before the log did, or its Receipt may be written after the log was taken.
Source: qdrant/qdrant lib/storage/src/audit.rs and pull requests 8071, 8402.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

EDGE: Final = timedelta(minutes=10)
NAMES: Final = ("tracing_id", "request_id", "x-request-id")
"""Fields that may hold the id; the first is the server's."""
PLAIN: Final = frozenset(
    (
        "cluster_status", "collection_cluster_info", "collection_exists", "create_collection", "create_field_index",
        "create_payload_index", "get_aliases", "get_cluster_telemetry", "get_collection", "get_collection_aliases",
        "get_collection_cluster", "healthz", "list_aliases", "list_collections", "telemetry", "telemetry_cluster",
        "telemetry_collections", "telemetry_requests", "update_aliases", "update_collection_aliases", "version",
    )
)  # fmt: skip
"""Methods of probes and set-up, which carry no id: they see no points."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the server's log."""

    time: datetime
    method: str
    request: str
    result: str
    collection: str
    remote: str
    digest: str
    """Of the line, for one that carries no id."""

    @property
    def subject(self) -> str:
        """What names it: the request's id, or the line's digest."""
        return self.request or f"line:{self.digest[:32]}"


@dataclass(slots=True)
class Books:
    """What a comparison found. `only_log`: requests that no Receipt names; `only_receipts`: (Receipt, request)."""

    lines: int = 0
    matched: int = 0
    plain: int = 0
    unreadable: int = 0
    edge: int = 0
    requests: int = 0
    first: datetime | None = None
    last: datetime | None = None
    only_log: list[Line] = field(default_factory=list)
    only_receipts: list[tuple[str, str]] = field(default_factory=list)

    def facts(self) -> dict[str, int]:
        """Give the counts."""
        names = ("lines", "matched", "plain", "unreadable", "edge", "requests")
        found = {name: getattr(self, name) for name in names}
        return found | {"only_log": len(self.only_log), "only_receipts": len(self.only_receipts)}


def read(text: bytes) -> Iterator[Line | None]:
    """Give each line of a log; None for one that cannot be read."""
    for raw in text.splitlines():
        if raw.strip():
            yield _line(raw)


def _line(raw: bytes) -> Line | None:
    try:
        found = json.loads(raw)
        time = datetime.fromisoformat(found["timestamp"][:26].rstrip("Z")).replace(tzinfo=UTC)
        request = next((str(found[name]) for name in NAMES if found.get(name)), "")
        return Line(
            time=time,
            method=str(found["method"]),
            request=request,
            result=str(found["result"]),
            collection=str(found.get("collection", "")),
            remote=str(found.get("remote", "")),
            digest=hashlib.sha256(raw).hexdigest(),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def compare(
    lines: Iterable[Line | None], entries: Iterable[Mapping[str, Any]], site: str, *, edge: timedelta = EDGE
) -> Books:
    """Match a Site's log with the Receipts whose steps went there.

    `entries` are Receipts of all tenants from the log's first line to well after its last.
    """
    books = Books()
    seen: dict[str, list[Line]] = {}
    bare: list[Line] = []
    for line in lines:
        books.lines += 1
        if line is None:
            books.unreadable += 1
            continue
        books.first = min(books.first or line.time, line.time)
        books.last = max(books.last or line.time, line.time)
        if line.request:
            seen.setdefault(line.request, []).append(line)
        elif line.method in PLAIN and line.result == "ok":
            books.plain += 1
        else:
            bare.append(line)
    if books.first is None or books.last is None:
        return books
    begin, end = books.first + edge, books.last - edge
    claimed: set[str] = set()
    for entry in entries:
        time = datetime.fromisoformat(entry["time"])
        for step in entry["steps"]:
            if step["site"] != site or not step["request"] or step["request"] in claimed:
                continue
            claimed.add(step["request"])
            books.requests += 1
            if step["request"] not in seen:
                if begin <= time <= end:
                    books.only_receipts.append((entry["id"], step["request"]))
                else:
                    books.edge += 1
    for request, found in seen.items():
        if request in claimed:
            books.matched += len(found)
        elif begin <= found[0].time <= end:
            books.only_log.append(found[0])
        else:
            books.edge += len(found)
    books.only_log += bare  # no Receipt could ever name them, so the ends of the log excuse nothing
    books.only_log.sort(key=lambda line: line.time)
    return books
