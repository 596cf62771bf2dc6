"""Forgetting by the many: a Collection, everything of a tenant, or what a retention rule no longer keeps.

Rules kept here: an order marks all its Documents in one commit, so that nothing of it is found from then on; a hold on
any of them refuses the whole order, and the rules of retention pass over what is held and say so; keys are destroyed
before the call returns, and what a dead process left is gone on with by the workers, who need nothing but the rows.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from ingestion import collections, holds, orders
from ingestion.crash import crash_point
from ingestion.erasure import Erasure
from ingestion.errors import NotFoundError
from ingestion.orders import Order
from ingestion.rows import document
from ingestion.states import State
from residency.database import through
from residency.decision import Principal
from residency.errors import PolicyError
from residency.keytables import search_keyset
from residency.retention import Retention, Rule
from residency.tag import Tag
from residency.zones import Zones

log = logging.getLogger(__name__)

GONE: Final = (State.ERASING, State.ERASED)
UNBORN: Final = (State.RECEIVING, State.MOVING)
MOST: Final = 1000
"""Documents that one order of a rule takes: the rest follows in the next, so that no commit grows without bound."""


@dataclass(slots=True)
class Due:
    """What one rule no longer keeps for one tenant; `held` is passed over, as `(Document, reason of the hold)`."""

    tenant: str
    rule: Rule
    documents: list[str] = field(default_factory=list)
    held: list[tuple[str, str]] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """Give it as JSON-able data."""
        held = [{"document": document, "reason": reason} for document, reason in self.held]
        return {"tenant": self.tenant, "rule": self.rule.id, "law": self.rule.law, "keep_days": self.rule.keep_days} | {
            "documents": self.documents,
            "held": held,
        }


class Forgetting:
    """Gives orders to erase. `rules` gives the retention in force, with the table of Zones that it speaks of."""

    def __init__(self, erasure: Erasure, rules: Callable[[], tuple[Retention, Zones]]) -> None:
        self.erasure = erasure
        self.database = erasure.database
        self.ledger = erasure.ledger
        self.rules = rules

    async def collection(self, principal: Principal, name: str) -> Order:
        """Erase every Document of a Collection. Raises `NotFoundError`, and `HoldError` when one is held."""

        def begin() -> str:
            with self.database.transaction() as connection:
                found = collections.named(through(connection), principal.tenant, name)
                if found is None:
                    raise NotFoundError("there is no such collection", hint="list your documents to see where they are")
                return self._order(connection, principal, "collection", found.id)

        return await self._given(principal.tenant, await self.database.run(begin))

    async def everything(self, principal: Principal) -> Order:
        """Erase every Document of the tenant, and then its search keys. Raises `HoldError` when one is held."""

        def begin() -> str:
            with self.database.transaction() as connection:
                return self._order(connection, principal, "tenant", None)

        return await self._given(principal.tenant, await self.database.run(begin))

    def _order(self, connection: sa.Connection, principal: Principal, scope: str, collection_id: str | None) -> str:
        c, tenant = document.c, principal.tenant
        which = sa.and_(c.tenant_id == tenant, c.collection_id == collection_id if collection_id else sa.true())
        living = sa.select(c.id).where(which, c.state.not_in(GONE))
        rows = self.erasure.rows_of(connection, c.id.in_(living))
        subjects = {row.id: row.collection_id for row in rows}
        holds.refuse_held(connection, tenant, list(subjects.items()))
        return self._mark(connection, tenant, rows, scope, collection_id, by=_by(principal))

    def _mark(
        self,
        connection: sa.Connection,
        tenant: str,
        rows: Sequence[sa.Row[Any]],
        scope: str,
        collection_id: str | None,
        *,
        by: str,
        rule: str = "",
        facts: dict[str, Any] | None = None,
    ) -> str:
        identifier = orders.begin(
            connection,
            self.ledger,
            tenant=tenant,
            scope=scope,
            collection_id=collection_id,
            rule=rule,
            documents=len({row.id for row in rows}),
            facts={"by": by} | (facts or {}),
            clock=self.database.clock(),
        )
        self.erasure.mark(connection, rows, by=by, order=identifier)
        return identifier

    async def _given(self, tenant: str, order_id: str) -> Order:
        crash_point("ordered")
        self.erasure.told([tenant])
        await self._shred(order_id)
        self.erasure.arrived()
        return await self.order(tenant, order_id)

    async def _shred(self, order_id: str) -> None:
        def find() -> list[str]:
            with self.database.reading() as connection:
                mine = sa.select(document.c.id).where(document.c.order_id == order_id).distinct()
                return [row.id for row in connection.execute(mine)]

        await self.erasure.shred(await self.database.run(find))

    # --- looking ------------------------------------------------------------------------------------------------------

    async def order(self, tenant: str, order_id: str) -> Order:
        """Give an order with its progress. Raises `NotFoundError`."""
        found = await self.database.run(self._orders, tenant, order_id)
        if not found:
            raise NotFoundError("there is no such order", hint="list the orders to see their ids")
        return found[0]

    async def orders(self, tenant: str) -> list[Order]:
        """List a tenant's orders, newest first."""
        return await self.database.run(self._orders, tenant, None)

    async def certificate(self, tenant: str, order_id: str) -> dict[str, Any]:
        """Give an order with what the certificates of its Documents add up to. Raises `NotFoundError`."""
        order = await self.order(tenant, order_id)

        def add_up() -> dict[str, Any]:
            with self.database.reading() as connection:
                return orders.summed(connection, order_id)

        return order.facts() | await self.database.run(add_up)

    def _orders(self, tenant: str, order_id: str | None) -> list[Order]:
        with self.database.reading() as connection:
            return orders.listing(connection, tenant, order_id)

    # --- what nobody has to ask for -----------------------------------------------------------------------------------

    async def due(self, tenant: str | None = None) -> list[Due]:
        """Say what the rules no longer keep now, of one tenant or of all; nothing is changed."""
        return await self.database.run(self._due, tenant)

    def _due(self, tenant: str | None) -> list[Due]:
        rules, zones = self.rules()
        if not rules.rules:
            return []
        c, newer, held = document.c, document.alias("newer"), collections.collection.c
        query = (
            sa.select(c.id, c.tenant_id, c.collection_id, c.tag_class, c.created, held.name)
            .join_from(document, collections.collection, held.id == c.collection_id)
            .where(c.state.not_in([*GONE, *UNBORN]))
            .where(~sa.exists().where(newer.c.id == c.id, newer.c.version > c.version, newer.c.state.not_in(UNBORN)))
            .order_by(c.tenant_id, c.created, c.id)
        )
        if tenant is not None:
            query = query.where(c.tenant_id == tenant)
        found: dict[tuple[str, str], Due] = {}
        places: dict[str, list[tuple[str, str]]] = {}
        with self.database.reading() as connection:
            now = float(connection.execute(sa.select(self.database.clock())).scalar_one())
            tags = collections.tags(connection, tenant)
            memo: dict[tuple[str, str, Tag], Rule | None] = {}
            for row in connection.execute(query):
                tag = tags[row.tenant_id, row.tag_class]
                key = (row.tenant_id, row.name, tag)
                if key not in memo:
                    memo[key] = rules.of(zones, tenant=row.tenant_id, collection=row.name, tag=tag)
                rule = memo[key]
                if rule is not None and row.created + rule.term.total_seconds() <= now:
                    found.setdefault((row.tenant_id, rule.id), Due(row.tenant_id, rule)).documents.append(row.id)
                    places.setdefault(row.tenant_id, []).append((row.id, row.collection_id))
            for each in found.values():
                kept = holds.standing(connection, each.tenant, places[each.tenant])
                each.held = [(one, kept[one].reason) for one in each.documents if one in kept]
                each.documents = [one for one in each.documents if one not in kept]
        return list(found.values())

    async def once(self) -> list[Order]:
        """Erase what the rules no longer keep, an order for each rule and tenant; and finish what tenants left."""
        given: list[Order] = []
        try:
            due = await self.due()
        except PolicyError as error:
            log.warning("the rules of retention are not applied", extra={"error": str(error)})
            due = []
        for each in due:
            for at in range(0, len(each.documents), MOST):
                order_id = await self.database.run(self._by_rule, each, each.documents[at : at + MOST])
                if order_id:
                    given.append(await self._given(each.tenant, order_id))
            if each.held:
                log.info("held documents are kept", extra={"rule": each.rule.id, "documents": len(each.held)})
        await self.finish()
        return given

    def _by_rule(self, due: Due, wanted: Sequence[str]) -> str:
        c = document.c
        with self.database.transaction() as connection:
            rows = self.erasure.rows_of(connection, sa.and_(c.tenant_id == due.tenant, c.id.in_(wanted)))
            living = {row.id for row in rows if row.state not in (*GONE, State.ERASED)}
            rows = [row for row in rows if row.id in living]
            held = holds.standing(connection, due.tenant, {(row.id, row.collection_id) for row in rows})
            rows = [row for row in rows if row.id not in held]  # placed since we looked
            if not rows:
                return ""
            told = {"law": due.rule.law, "keep_days": due.rule.keep_days, "held": len(due.held)}
            return self._mark(connection, due.tenant, rows, "rule", None, by="rule", rule=due.rule.id, facts=told)

    async def finish(self) -> None:
        """Destroy the search keys of tenants of whom everything was erased: no point is left that they serve."""
        for tenant, keys in (await self.database.run(self._orphaned)).items():
            for key in keys:
                await self.erasure.keyring.shred(key)
            await self.database.run(self._unkey, tenant, keys)

    def _orphaned(self) -> dict[str, list[bytes]]:
        o, k, c = orders.erasure_order.c, search_keyset.c, document.c
        wiped = sa.select(o.tenant_id).where(o.scope == "tenant", o.done.is_not(None))
        living = sa.exists().where(c.tenant_id == k.tenant, c.state != State.ERASED)
        query = sa.select(k.tenant, k.vectors_dek, k.lexicon_dek, k.tags_dek).where(k.tenant.in_(wiped), ~living)
        found: dict[str, list[bytes]] = {}
        with self.database.reading() as connection:
            for row in connection.execute(query):
                found.setdefault(row.tenant, []).extend(bytes(each) for each in row[1:])
        return found

    def _unkey(self, tenant: str, keys: Iterable[bytes]) -> None:
        k = search_keyset.c
        with self.database.transaction() as connection:
            doomed = sa.delete(search_keyset).where(k.tenant == tenant, k.vectors_dek.in_(list(keys)))
            connection.execute(doomed)


def _by(principal: Principal) -> str:
    return "app" if principal.id.startswith("key:") else "person"
