"""Certificates: what an erasure did at each store, when, how it was checked, and what stays for a while.

Rules kept here: a line says what its store reported; what remains is named with its due date (backups hold wrapped keys
until their KEK version is destroyed); `promises.py` completes a certificate later and changes nothing that it said.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from ingestion.documents import Document
from ingestion.errors import DocumentError, NotFoundError
from ingestion.rows import document
from ingestion.states import State
from residency import receipt

HORIZON: Final = timedelta(days=30)
"""Within this time the KEK version is rolled and old backups no longer open."""
BACKUPS: Final = "backups of the database and of a zone hold wrapped keys until the key version is rolled and destroyed"


def store(kind: str, site: str, method: str, check: str) -> dict[str, Any]:
    """Give one line of a certificate: what was done, where, when, and how it was checked."""
    return {"store": kind, "site": site, "method": method, "time": stamp(), "check": check}


def stamp(moment: datetime | None = None) -> str:
    """Write an instant, now unless one is given."""
    return receipt.stamp(moment or datetime.now(UTC))


def facts(
    row: Mapping[str, Any], versions: Sequence[Document], put: int, stores: list[dict[str, Any]], horizon: timedelta
) -> dict[str, Any]:
    """Give the certificate of a Document whose newest version is `row` and of which `put` points were ever written."""
    begun = json.loads(row["certificate"] or "{}")
    due = stamp(datetime.now(UTC) + horizon)
    return {
        "format": "domicile-erasure/v1",
        "ground": "GDPR 17(1)",
        "requested": begun.get("requested", stamp()),
        "by": begun.get("by", "app"),
        "completed": stamp(),
        "scope": {
            "versions": len(versions),
            "passages": sum(version.passages for version in versions),
            "points": put,
            "bytes": sum(version.size for version in versions),
        },
        "stores": stores,
        "residuals": [{"where": "backups", "what": BACKUPS, "due": due}],
    } | ({"order": row["order_id"]} if row["order_id"] else {})


def of(connection: sa.Connection, tenant: str, document_id: str) -> dict[str, Any]:
    """Give what each store reported; `state` is pending until every probe found nothing.

    Raises `NotFoundError` for an unknown id and `DocumentError` for a Document nobody asked to erase.
    """
    c = document.c
    query = sa.select(c.state, c.certificate).where(c.tenant_id == tenant, c.id == document_id)
    row = connection.execute(query.order_by(c.version.desc()).limit(1)).first()
    if row is None:
        raise NotFoundError("there is no such document", hint="list your documents to see their ids")
    if row.state not in (State.ERASING, State.ERASED):
        raise DocumentError("nobody asked to erase this document", hint="DELETE it first")
    known: dict[str, Any] = json.loads(row.certificate or "{}")
    state = "complete" if row.state == State.ERASED and known.get("receipt") else "pending"
    return {"document": document_id, "tenant": tenant, "state": state} | known
