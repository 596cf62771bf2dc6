"""Orders: many Documents are erased by one word: those of a Collection, of a tenant, or those that a rule is done with.

Rules kept here: an order is written down in the commit that marks its Documents, so that a process that dies leaves
nothing to remember; its progress is counted from their rows; when the last of them is erased, the same commit appends
the Ledger's entry that says so. Each Document has its own certificate; the order's sums them up.
"""

import json
import secrets
from collections import Counter
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ingestion.leases import ACTIVITY
from ingestion.rows import document
from ingestion.states import State
from residency.database import metadata
from residency.ledger import Ledger
from residency.receipt import Draft

erasure_order = sa.Table(
    "erasure_order",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("tenant_id", sa.String(63), nullable=False),
    sa.Column("scope", sa.String(12), nullable=False),
    sa.Column("collection_id", sa.String(32)),
    sa.Column("rule", sa.String(63), nullable=False),
    sa.Column("documents", sa.Integer, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("done", sa.Float),
    sa.Column("receipt", sa.String(40), nullable=False),
    sa.Column("completion", sa.String(40), nullable=False),
)
sa.Index("ix_erasure_order_tenant_id", erasure_order.c.tenant_id, erasure_order.c.created)


@dataclass(frozen=True, slots=True)
class Order:
    """One order with its progress. `scope`: collection, tenant or rule; `receipt` says that it began, `completion`
    that its last Document was erased.
    """

    id: str
    tenant: str
    scope: str
    collection_id: str
    rule: str
    documents: int
    erased: int
    created: float
    done: float | None
    receipt: str
    completion: str

    @property
    def state(self) -> str:
        """`complete` once every Document of it is erased, `pending` before."""
        return "complete" if self.done is not None else "pending"

    def facts(self) -> dict[str, Any]:
        """Give it as JSON-able data."""
        return {name: getattr(self, name) for name in self.__slots__} | {"state": self.state}


def begin(
    connection: sa.Connection,
    ledger: Ledger,
    *,
    tenant: str,
    scope: str,
    collection_id: str | None,
    rule: str,
    documents: int,
    facts: dict[str, Any],
    clock: sa.ColumnElement[float],
) -> str:
    """Write an order down with its entry; an order over nothing is done at once. Gives its id."""
    identifier = secrets.token_hex(16)
    said = {"stage": "ordered", "scope": scope, "documents": documents} | ({"rule": rule} if rule else {}) | facts
    stored = ledger.append(Draft("erase", tenant, ACTIVITY, subject=identifier, facts=said), connection)
    values: dict[str, Any] = {
        "id": identifier,
        "tenant_id": tenant,
        "scope": scope,
        "collection_id": collection_id,
        "rule": rule,
    }
    values |= {"documents": documents, "created": clock, "receipt": stored.id, "completion": ""}
    connection.execute(sa.insert(erasure_order).values(values | {"done": None if documents else clock}))
    return identifier


def settle(connection: sa.Connection, ledger: Ledger, order_id: str, clock: sa.ColumnElement[float]) -> bool:
    """Complete an order whose last Document was just erased in this transaction; say whether it did."""
    c = document.c
    open_ends = sa.select(sa.func.count()).select_from(document)
    open_ends = open_ends.where(c.order_id == order_id, c.state != State.ERASED)
    # two that finish at once must not each count the other as open: the order's row is theirs one after the other
    row = connection.execute(sa.select(erasure_order).where(erasure_order.c.id == order_id).with_for_update()).one()
    if row.done is not None or connection.execute(open_ends).scalar_one():
        return False
    said = {"stage": "order-complete", "scope": row.scope, "documents": row.documents, "completes": row.receipt}
    stored = ledger.append(Draft("erase", row.tenant_id, ACTIVITY, subject=order_id, facts=said), connection)
    mine = sa.update(erasure_order).where(erasure_order.c.id == order_id)
    connection.execute(mine.values(done=clock, completion=stored.id))
    return True


def listing(connection: sa.Connection, tenant: str, order_id: str | None = None) -> list[Order]:
    """Give a tenant's orders, newest first, or the one of this id, with their progress."""
    c, o = document.c, erasure_order.c
    gone = (
        sa.select(sa.func.count(sa.distinct(c.id))).where(c.order_id == o.id, c.state == State.ERASED).scalar_subquery()
    )
    query = sa.select(erasure_order, gone.label("erased")).where(o.tenant_id == tenant).order_by(o.created.desc())
    if order_id is not None:
        query = query.where(o.id == order_id)
    return [
        Order(
            row.id, row.tenant_id, row.scope, row.collection_id or "", row.rule, row.documents,
            row.erased, row.created, row.done, row.receipt, row.completion,
        )
        for row in connection.execute(query)
    ]  # fmt: skip


def summed(connection: sa.Connection, order_id: str) -> dict[str, Any]:
    """Sum the certificates of an order's Documents up: per store, Site and method how many, first and last time.

    `residuals` are those that are still due; `checks` counts what did not come out as it should, by what it says.
    """
    c = document.c
    query = sa.select(c.certificate).where(c.order_id == order_id, c.certificate.is_not(None), c.state == State.ERASED)
    scope: Counter[str] = Counter()
    stores: dict[tuple[str, str, str], dict[str, Any]] = {}
    due: dict[str, str] = {}
    for (text,) in connection.execute(query):
        certificate = json.loads(text)
        scope.update(certificate.get("scope", {}))
        for line in certificate.get("stores", ()):
            key = (line["store"], line["site"], line["method"])
            held = stores.setdefault(key, dict(zip(("store", "site", "method"), key, strict=True)) | _NONE)
            held["documents"] += 1
            held["count"] += line.get("count", 0)
            held["first"] = min(held["first"] or line["time"], line["time"])
            held["last"] = max(held["last"], line["time"])
        if "completions" not in certificate:
            for each in certificate.get("residuals", ()):
                due[each["where"]] = max(due.get(each["where"], ""), each["due"])
    residuals = [{"where": where, "due": until} for where, until in sorted(due.items())]
    return {"scope": dict(scope), "stores": list(stores.values()), "residuals": residuals}


_NONE: dict[str, Any] = {"documents": 0, "count": 0, "first": "", "last": ""}
