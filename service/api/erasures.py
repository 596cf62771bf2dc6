"""`/v1/erasures`, `/v1/holds`: many documents erased by one order, and what must not be erased."""

from typing import Any

import msgspec
from litestar import Controller, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from service.api.replies import Asking, house_of
from service.errors import InvalidRequestError


class OrderIn(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /v1/erasures`: one of the two."""

    collection: str = ""
    """Every document of this collection."""
    everything: bool = False
    """Every document of the tenant, and then its search keys."""


class HoldIn(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /v1/holds`: on one of the two."""

    reason: str
    """Such as the court's file reference, 1 to 200 characters; shown to whoever is refused."""
    document: str = ""
    """Id of a document."""
    collection: str = ""
    """Name of a collection; documents that come in later are held as well."""


class ErasuresController(Controller):
    """Orders to erase, with their progress."""

    path = "/erasures"
    tags = ["Documents"]  # noqa: RUF012 - Litestar's protocol

    @post("/", opt={"scope": "admin"}, operation_id="orderErasure", status_code=202)
    async def order(self, request: Asking, data: JSONBody[OrderIn]) -> dict[str, Any]:
        """Erase a collection, or everything of the tenant: unreadable on return, traceless once it is complete.

        409 `on_hold`, and nothing is erased, when a hold stands on one of the documents.
        """
        if bool(data.collection) == data.everything:
            raise InvalidRequestError(
                "name a collection, or say everything", param="collection", hint='{"collection": "default"}'
            )
        forgetting, who = house_of(request).forgetting, request.user
        given = await (forgetting.everything(who) if data.everything else forgetting.collection(who, data.collection))
        return given.facts()

    @get("/", opt={"scope": "admin"}, operation_id="listErasures")
    async def listing(self, request: Asking) -> dict[str, Any]:
        """List orders with their progress, newest first, those of retention rules included."""
        found = await house_of(request).forgetting.orders(request.user.tenant)
        return {"object": "list", "data": [each.facts() for each in found]}

    @get("/{order_id:str}", opt={"scope": "admin"}, operation_id="getErasure")
    async def one(self, request: Asking, order_id: FromPath[str]) -> dict[str, Any]:
        """Give one order: its progress, and what the certificates of its documents add up to."""
        return await house_of(request).forgetting.certificate(request.user.tenant, order_id)


class HoldsController(Controller):
    """Legal holds."""

    path = "/holds"
    tags = ["Documents"]  # noqa: RUF012 - Litestar's protocol

    @post("/", opt={"scope": "admin"}, operation_id="placeHold", status_code=201)
    async def place(self, request: Asking, data: JSONBody[HoldIn]) -> dict[str, Any]:
        """Place a hold: neither an erasure nor a rule of retention reaches what it stands on."""
        house = house_of(request)
        made = await house.database.run(
            lambda: house.holds.add(
                request.user, document_id=data.document, collection=data.collection, reason=data.reason
            )
        )
        return made.facts()

    @get("/", opt={"scope": "admin"}, operation_id="listHolds")
    async def listing(self, request: Asking, lifted: FromQuery[bool] = False) -> dict[str, Any]:
        """List holds, oldest first; `lifted=true` gives those that ended as well."""
        house = house_of(request)
        found = await house.database.run(lambda: house.holds.listing(request.user.tenant, lifted=lifted))
        return {"object": "list", "data": [each.facts() for each in found]}

    @delete("/{hold_id:str}", opt={"scope": "admin"}, operation_id="liftHold", status_code=200)
    async def lift(self, request: Asking, hold_id: FromPath[str]) -> dict[str, Any]:
        """Lift a hold; again changes nothing."""
        house = house_of(request)
        return (await house.database.run(house.holds.lift, request.user, hold_id)).facts()
