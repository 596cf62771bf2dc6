"""Reconciling: two books of what was asked of a Site, and every difference a violation.

Rules kept here: the log is read on this machine, from files that the operator fetched; the comparison itself is
recorded for each tenant, with the digests of the files; addresses in the log are shown and not recorded.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from residency.ledger import Ledger
from residency.receipt import Draft
from residency.reconciliation import EDGE, Books, Line, compare, read
from residency.violations import ACTIVITY, Violations
from service.errors import InvalidRequestError

POLICY: Final = "two-books"
LATE: Final = timedelta(days=1)
"""How long after the log's end a Receipt may still name a request in it."""
MOST: Final = 50
"""Differences that get a record of their own in one run; the rest share one with their count."""


class Reconciling:
    """Compares. `tenants` gives every tenant, since a server's log does not say whose a request was."""

    def __init__(self, ledger: Ledger, violations: Violations, *, tenants: Callable[[], list[str]]) -> None:
        self._ledger = ledger
        self._violations = violations
        self._tenants = tenants

    def reconcile(self, site: str, logs: Mapping[str, bytes], *, edge: timedelta = EDGE) -> dict[str, Any]:
        """Compare a Site's audit log (name to bytes) with the Receipts; gives counts, differences, and violations.

        A request that no Receipt names concerns every tenant with Receipts at that Site in the log's time.
        """
        lines = [line for data in logs.values() for line in read(data)]
        times = [line.time for line in lines if line is not None]
        if not times:
            raise InvalidRequestError("the log holds no line that can be read", hint="give Qdrant's audit log files")
        holders: dict[str, str] = {}
        present: set[str] = set()
        entries = self._entries(site, min(times) - edge, max(times) + LATE, holders, present)
        books = compare(lines, entries, site, edge=edge)
        digest = hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in sorted(logs.values()))).hexdigest()
        found = []
        for id_, request in books.only_receipts[:MOST]:
            said = "a receipt names a request that the server's log does not hold"
            evidence = {"site": site, "receipt": id_, "log": digest, "said": said}
            made = self._violations.found(holders[id_], "service", request, policy=POLICY, evidence=evidence)
            found.append(made.id)
        for tenant in sorted(present):
            found += self._strange(tenant, site, books, digest)
            facts = {"event": "reconciled", "site": site, "log": f"sha256:{digest}", **books.facts()}
            self._ledger.append(Draft("probe", tenant, ACTIVITY, facts=facts))
        return {"site": site, "tenants": sorted(present), **books.facts(), **_shown(books), "violations": found}

    def _entries(
        self, site: str, since: datetime, until: datetime, holders: dict[str, str], present: set[str]
    ) -> Iterator[dict[str, Any]]:
        for tenant in self._tenants():
            for entry in self._ledger.entries(tenant, since, until):
                if any(step["site"] == site for step in entry["steps"]):
                    holders[entry["id"]] = tenant
                    present.add(tenant)
                    yield entry

    def _strange(self, tenant: str, site: str, books: Books, digest: str) -> list[str]:
        found = []
        for line in books.only_log[:MOST]:
            evidence = {
                "site": site,
                "method": line.method,
                "result": line.result,
                "time": _time(line),
                "log": digest,
                "said": "the server's log holds a request that no receipt names",
            }
            made = self._violations.found(
                tenant, "access", line.subject, policy=POLICY, evidence=evidence, begin=line.time
            )
            found.append(made.id)
        if (rest := len(books.only_log) - MOST) > 0:
            rest_of = {"site": site, "log": digest, "count": rest}
            more = self._violations.found(tenant, "access", f"log:{digest[:32]}", policy=POLICY, evidence=rest_of)
            found.append(more.id)
        return found


def _shown(books: Books) -> dict[str, Any]:
    return {
        "first": books.first.isoformat() if books.first else None,
        "last": books.last.isoformat() if books.last else None,
        "not_in_receipts": [
            {"time": _time(line), "method": line.method, "request": line.request, "result": line.result,
             "collection": line.collection, "remote": line.remote}
            for line in books.only_log
        ],
        "not_in_log": [{"receipt": id_, "request": request} for id_, request in books.only_receipts],
    }  # fmt: skip


def _time(line: Line) -> str:
    return line.time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
