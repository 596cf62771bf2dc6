"""`GET /v1/models`: each collection is a model, so every chat client picks one from its list; embedders too."""

import time
from typing import Any

from litestar import Controller, get
from litestar.params import FromPath

from ingestion.errors import NotFoundError
from ingestion.stores import UNATTACHED
from residency.decision import Principal
from service.api.openai.chat import PREFIX
from service.api.replies import Asking, house_of
from service.house import House

EMBEDDING = f"{PREFIX}embedding"


async def _models(house: House, principal: Principal) -> list[dict[str, Any]]:
    known = await house.database.run(house.documents.collections, principal.tenant)
    names = [each.name for each in known if each.name != UNATTACHED]
    base = {"object": "model", "created": int(time.time()), "owned_by": "domicile"}
    chat = [{"id": f"{PREFIX}{name}", **base} for name in sorted({"default", *names})]
    return [*chat, {"id": EMBEDDING, **base, "domicile": {"kind": "embedding"}}]


class ModelsController(Controller):
    """List collections as models."""

    path = "/models"
    tags = ["OpenAI"]  # noqa: RUF012 - Litestar's protocol

    @get("/", opt={"scope": "ask"}, operation_id="listModels")
    async def listing(self, request: Asking) -> dict[str, Any]:
        """List the tenant's collections."""
        return {"object": "list", "data": await _models(house_of(request), request.user)}

    @get("/{model:path}", opt={"scope": "ask"}, operation_id="retrieveModel")
    async def one(self, request: Asking, model: FromPath[str]) -> dict[str, Any]:
        """Give one; 404 for a collection that is not the tenant's or never was."""
        for each in await _models(house_of(request), request.user):
            if each["id"] == str(model).strip("/"):
                return each
        raise NotFoundError("There is no such model", hint="see GET /v1/models")
