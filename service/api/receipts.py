"""Evidence: Receipts, the Ledger's checkpoint, inclusion and consistency proofs, its public key."""

from typing import Any

from litestar import Controller, Response, get
from litestar.params import FromPath, FromQuery

from ingestion.errors import NotFoundError
from service.api.replies import Asking, house_of


class ReceiptsController(Controller):
    """Receipts of the caller's tenant, and what everybody may check."""

    path = "/"
    tags = ["Evidence"]  # noqa: RUF012 - Litestar's protocol

    @get("/receipts/{receipt_id:str}", opt={"scope": "any"}, operation_id="receipt")
    async def receipt(self, request: Asking, receipt_id: FromPath[str]) -> dict[str, Any]:
        """Give the bundle that `domicile verify` reads: the Receipt, its signature and, once sequenced, its proof."""
        house = house_of(request)
        bundle = await house.database.run(house.ledger.bundle, request.user.tenant, receipt_id)
        if bundle is None:
            raise NotFoundError("There is no such receipt", hint="receipts are seen by their own tenant only")
        return bundle

    @get("/ledger/checkpoint", opt={"scope": "any"}, operation_id="checkpoint")
    async def checkpoint(self, request: Asking) -> Response[str]:
        """Give the newest signed checkpoint (C2SP tlog-checkpoint)."""
        house = house_of(request)
        return Response(await house.database.run(house.ledger.checkpoint), media_type="text/plain; charset=utf-8")

    @get("/ledger/proof/{index:int}", opt={"scope": "any"}, operation_id="inclusionProof")
    async def proof(self, request: Asking, index: FromPath[int]) -> Response[str]:
        """Give the inclusion proof of one leaf (C2SP tlog-proof)."""
        house = house_of(request)
        text = await house.database.run(house.ledger.proof, index)
        return Response(text, media_type="text/plain; charset=utf-8")

    @get("/ledger/consistency", opt={"scope": "any"}, operation_id="consistencyProof")
    async def consistency(self, request: Asking, old: FromQuery[int], new: FromQuery[int]) -> dict[str, Any]:
        """Give the hashes that show that the tree of size `new` only grew from the one of size `old`."""
        house = house_of(request)
        hashes = await house.database.run(house.ledger.consistency, old, new)
        return {"old": old, "new": new, "hashes": hashes}

    @get("/ledger/key", opt={"scope": "any"}, operation_id="ledgerKey")
    async def key(self, request: Asking) -> Response[str]:
        """Give the Ledger's public key as a C2SP vkey line."""
        return Response(house_of(request).ledger.vkey + "\n", media_type="text/plain; charset=utf-8")
