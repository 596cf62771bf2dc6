"""`/v1/policies`: the rules in force, and how others come into force with two officers."""

import asyncio
from typing import Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath, JSONBody

from service.api.describing import gives
from service.api.replies import Asking, house_of
from service.rulemaking import given


class Proposed(msgspec.Struct, forbid_unknown_fields=True):
    """A policies folder as texts: `residency.cedar`, `schema.cedarschema`, `zones.toml`, `cases/own.toml`."""

    files: dict[str, str]


class PoliciesController(Controller):
    """Reading the rules takes any key; changing them an admin of the installation's own tenant."""

    path = "/policies"
    tags = ["Rules"]  # noqa: RUF012 - Litestar's protocol

    @get("/", opt={"scope": "any"}, operation_id="policies")
    async def current(self, request: Asking) -> dict[str, Any]:
        """Give the digests in force and every clause: what it says and the law it rests on."""
        house = house_of(request)
        engine, rulemaking = house.engine, house.rulemaking
        clauses = [
            {"id": each.id, "text": each.explain, "law": each.law, "place": str(engine.policy.places[each.id])}
            for each in engine.policy.clauses.values()
        ]
        active = await house.database.run(lambda: rulemaking.in_force)
        state = rulemaking.health.partition(":")[0]
        return {**engine.digests(), "set": active or None, "state": state, "clauses": clauses}

    @get("/proposals", opt={"scope": "admin"}, operation_id="policyProposals")
    async def proposals(self, request: Asking) -> dict[str, Any]:
        """List what was proposed and what became of it, newest first."""
        house = house_of(request)
        return {"proposals": await house.database.run(house.rulemaking.proposals)}

    @post(
        "/proposals",
        opt={"scope": "admin"},
        operation_id="proposePolicies",
        responses={202: gives(dict[str, Any], "It waits for a second admin")},
    )
    async def propose(self, request: Asking, data: JSONBody[Proposed]) -> Response[dict[str, Any]]:
        """Propose a policies folder: 422 with what is wrong, 201 in force at once, 202 waiting for a second admin."""
        house = house_of(request)
        book = given(data.files)
        made = await asyncio.to_thread(house.rulemaking.propose, book, request.user)
        return Response(made, status_code=201 if made["state"] == "activated" else 202)

    @post("/proposals/{digest:str}/approve", opt={"scope": "admin"}, operation_id="approvePolicies", status_code=200)
    async def approve(self, request: Asking, digest: FromPath[str]) -> dict[str, Any]:
        """Put a waiting proposal in force; 409 with the proposer's own key, or when the rules changed since."""
        house = house_of(request)
        return await asyncio.to_thread(house.rulemaking.approve, digest, request.user)

    @post("/proposals/{digest:str}/withdraw", opt={"scope": "admin"}, operation_id="withdrawPolicies", status_code=200)
    async def withdraw(self, request: Asking, digest: FromPath[str]) -> dict[str, Any]:
        """Take a waiting proposal back; 409 when it was settled already. The ledger keeps that it was made."""
        house = house_of(request)
        return await asyncio.to_thread(house.rulemaking.withdraw, digest, request.user)
