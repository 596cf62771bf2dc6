"""`/v1/violations`: what was found where it may not be, and who answered for it."""

from typing import Annotated, Any

import msgspec
from litestar import Controller, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from residency.violations import STATES
from service.api.replies import Asking, house_of
from service.errors import InvalidRequestError


class Acknowledged(msgspec.Struct, forbid_unknown_fields=True):
    """What an officer says of it."""

    notifiable: str = ""
    """`yes` or `no` under GDPR 33; empty: not assessed yet."""


class ViolationsController(Controller):
    """Violations of the caller's tenant."""

    path = "/violations"
    tags = ["Evidence"]  # noqa: RUF012 - Litestar's protocol

    @get("/", opt={"scope": "report"}, operation_id="listViolations")
    async def listing(
        self, request: Asking, wanted: Annotated[str, QueryParameter(name="state")] = ""
    ) -> dict[str, Any]:
        """List violations, oldest first; `state` is open, acknowledged, excepted or resolved."""
        house = house_of(request)
        if wanted and wanted not in STATES:
            raise InvalidRequestError("unknown state", param="state", hint=f"one of {', '.join(STATES)}")
        found = await house.database.run(house.violations.listing, request.user.tenant, state=wanted)
        return {"object": "list", "data": [each.facts() for each in found]}

    @get("/{violation_id:str}", opt={"scope": "report"}, operation_id="getViolation")
    async def one(self, request: Asking, violation_id: FromPath[str]) -> dict[str, Any]:
        """Give one violation."""
        house = house_of(request)
        return (await house.database.run(house.violations.get, request.user.tenant, violation_id)).facts()

    @post("/{violation_id:str}/acknowledge", opt={"scope": "report"}, operation_id="acknowledge", status_code=200)
    async def acknowledge(
        self, request: Asking, violation_id: FromPath[str], data: JSONBody[Acknowledged]
    ) -> dict[str, Any]:
        """Say that you have seen it, and whether it is notifiable; recorded in the Ledger."""
        house, who = house_of(request), request.user
        found = await house.database.run(
            house.violations.acknowledge, who.tenant, violation_id, by=who.id, notifiable=data.notifiable
        )
        return found.facts()
