"""Work in hand over HTTP: how far a collection or a tenant is, and the brake on it."""

from typing import Any

import msgspec
from litestar import Controller, get, post
from litestar.params import FromQuery, JSONBody

from ingestion.cutting import Cut
from ingestion.cutting import choose as choose_cut
from ingestion.errors import NotFoundError
from ingestion.progress import progress
from service.api.replies import Asking, house_of


class Which(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /v1/work/pause` and `/resume`."""

    collection: str = ""
    """Name of a collection; empty: everything of the tenant."""


class Passages(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /v1/work/passages`."""

    collection: str
    words: int = 0
    """Most words of a passage; 0: as the settings say."""
    overlap: int = 0
    """Words of the passage before it that are embedded with it."""


class WorkController(Controller):
    """Progress with the time that is left; pause and resume."""

    path = "/work"
    tags = ["Documents"]  # noqa: RUF012 - Litestar's protocol

    @get("/", opt={"scope": "upload"}, operation_id="workProgress")
    async def progress(
        self, request: Asking, collection: FromQuery[str] = "", document: FromQuery[str] = ""
    ) -> dict[str, Any]:
        """Say how far the work is, by bytes, and the seconds that are left at the pace of the last ten minutes."""
        house, user, found = house_of(request), request.user, None
        if collection:
            found = await house.database.run(house.documents.find_collection, user.tenant, collection)
            if found is None:
                raise NotFoundError("there is no such collection", hint="list your documents to see theirs")
        if document:
            await house.catalogue.get(user, document)
        groups = None if "admin" in user.scopes else user.groups
        return await house.database.run(
            lambda: progress(
                house.database,
                user.tenant,
                groups=groups,
                collection_id=found.id if found else "",
                document_id=document,
            ).facts()
        )

    @post("/pause", opt={"scope": "admin"}, operation_id="pauseWork", status_code=200)
    async def pause(self, request: Asking, data: JSONBody[Which]) -> dict[str, Any]:
        """Stop work on a collection, or on everything of the tenant; bodies are still taken in, erasures go on."""
        return await self._paused(request, data.collection, paused=True)

    @post("/resume", opt={"scope": "admin"}, operation_id="resumeWork", status_code=200)
    async def resume(self, request: Asking, data: JSONBody[Which]) -> dict[str, Any]:
        """Take the brake off again; documents paused singly stay paused."""
        return await self._paused(request, data.collection, paused=False)

    @post("/passages", opt={"scope": "admin"}, operation_id="cutPassages", status_code=200)
    async def passages(self, request: Asking, data: JSONBody[Passages]) -> dict[str, Any]:
        """Say how long the passages of a collection are and how far they overlap, for what comes in from now on."""
        house, cut = house_of(request), Cut(data.words, data.overlap)

        def choose() -> None:
            with house.database.transaction() as connection:
                choose_cut(connection, request.user.tenant, data.collection, cut, house.database.clock())

        await house.database.run(choose)
        return {"collection": data.collection, "words": cut.words, "overlap": cut.overlap}

    async def _paused(self, request: Asking, collection: str, *, paused: bool) -> dict[str, Any]:
        house, tenant = house_of(request), request.user.tenant
        await house.database.run(lambda: house.pausing.all(tenant, paused=paused, collection=collection))
        house.worker.wake()
        return {"collection": collection, "paused": paused}
