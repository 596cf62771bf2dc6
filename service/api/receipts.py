"""Evidence: Receipts, the Ledger's checkpoint, inclusion and consistency proofs, its public key."""

from pathlib import Path
from typing import Annotated, Any

from litestar import Controller, Response, get, post
from litestar.params import FromPath, PathParameter, QueryParameter

from ingestion.errors import NotFoundError
from residency import tiles
from residency.errors import LeafError, LedgerError
from service.api.describing import BYTES, TEXT, described
from service.api.replies import Asking, house_of
from service.errors import InvalidRequestError

LARGEST = 2**53
"""Leaf numbers are counted in what every JSON reader can hold."""
Index = Annotated[int, PathParameter(ge=0, le=LARGEST)]
Level = Annotated[int, PathParameter(ge=0, le=7)]
Size = Annotated[int, QueryParameter(ge=0, le=LARGEST)]


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

    @get("/ledger/checkpoint", opt={"scope": "any"}, operation_id="checkpoint", media_type="text/plain")
    async def checkpoint(self, request: Asking) -> Response[str]:
        """Give the newest signed checkpoint (C2SP tlog-checkpoint)."""
        house = house_of(request)
        return Response(await house.database.run(house.ledger.checkpoint), media_type="text/plain")

    @get("/ledger/proof/{index:int}", opt={"scope": "any"}, operation_id="inclusionProof", media_type="text/plain")
    async def proof(self, request: Asking, index: Index) -> Response[str]:
        """Give the inclusion proof of one leaf (C2SP tlog-proof)."""
        house = house_of(request)
        text = await house.database.run(house.ledger.proof, index)
        return Response(text, media_type="text/plain")

    @get("/ledger/consistency", opt={"scope": "any", "problems": (404,)}, operation_id="consistencyProof")
    async def consistency(self, request: Asking, old: Size, new: Size) -> dict[str, Any]:
        """Give the hashes that show that the tree of size `new` only grew from the one of size `old`."""
        house = house_of(request)
        hashes = await house.database.run(house.ledger.consistency, old, new)
        return {"old": old, "new": new, "hashes": hashes}

    @get("/ledger/tile/{level:int}/{place:path}", opt={"scope": "any"}, operation_id="ledgerTile", media_type=BYTES)
    async def tile(self, request: Asking, level: Level, place: FromPath[Path]) -> Response[bytes]:
        """Give a tile of the tree (C2SP tlog-tiles): up to 256 hashes. Bundles of entries are not served."""
        house = house_of(request)
        index, width = tiles.parse(place.as_posix())
        data = await house.database.run(house.ledger.tile, level, index, width)
        kept = {"Cache-Control": "private, max-age=31536000, immutable"}  # a tile never changes
        return Response(data, media_type="application/octet-stream", headers=kept)

    @post(
        "/ledger/cosignatures",
        opt={"scope": "report"},
        operation_id="cosign",
        status_code=200,
        operation_class=described(takes={"text/plain": TEXT}),
    )
    async def cosign(self, request: Asking) -> dict[str, Any]:
        """Take a witness's cosignature: the checkpoint it signed, as text. Only named witnesses are taken."""
        house = house_of(request)
        try:
            note = (await request.body()).decode()
        except UnicodeDecodeError as error:
            raise InvalidRequestError("a cosigned checkpoint is text", hint="send what the witness wrote") from error
        try:
            size, names = await house.database.run(house.ledger.cosign, note)
        except LeafError:
            raise
        except LedgerError as error:
            raise InvalidRequestError(str(error), hint=error.hint) from error
        return {"size": size, "witnesses": names}

    @get("/ledger/key", opt={"scope": "any"}, operation_id="ledgerKey", media_type="text/plain")
    async def key(self, request: Asking) -> Response[str]:
        """Give the Ledger's public key as a C2SP vkey line."""
        return Response(house_of(request).ledger.vkey + "\n", media_type="text/plain")
