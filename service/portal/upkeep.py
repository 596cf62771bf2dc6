"""Upkeep: trying a failed Document again, and forgetting one, with its certificate."""

from typing import Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath

from service.api.replies import Asking, house_of
from service.portal.pages import attachment, go, is_fragment, page


class UpkeepPages(Controller):
    """Retry, erase, certificate."""

    path = "/documents"

    @post("/{document_id:str}/retry", opt={"scope": "upload"})
    async def retry(self, request: Asking, document_id: FromPath[str]) -> Response[Any]:
        """Begin again from the sealed original."""
        house = house_of(request)
        await house.catalogue.get(request.user, document_id)
        await house.database.run(house.documents.retry, request.user.tenant, document_id)
        house.worker.wake()
        return go(request, "/documents")

    @get("/{document_id:str}/erase", opt={"scope": "upload"})
    async def confirm(self, request: Asking, document_id: FromPath[str]) -> Response[str]:
        """Ask once more, and say what erasing does."""
        entry = await house_of(request).catalogue.get(request.user, document_id)
        return page(request, "erase.html", entry=entry)

    @post("/{document_id:str}/erase", opt={"scope": "upload"})
    async def erase(self, request: Asking, document_id: FromPath[str]) -> Response[Any]:
        """Forget the Document: unreadable on return, traceless once the certificate is complete."""
        house = house_of(request)
        await house.catalogue.get(request.user, document_id)
        await house.erasure.erase(request.user, document_id)
        return go(request, f"/documents/{document_id}/erasure")

    @get("/{document_id:str}/erasure", opt={"scope": "any"})
    async def certificate(self, request: Asking, document_id: FromPath[str]) -> Response[str]:
        """Show the certificate as far as it stands: per store what was done, when, and what a probe found."""
        found = await self._certificate(request, document_id)
        return page(request, "_erasure.html" if is_fragment(request) else "erasure.html", certificate=found)

    @get("/{document_id:str}/erasure/file", opt={"scope": "any"})
    async def certificate_file(self, request: Asking, document_id: FromPath[str]) -> Response[bytes]:
        """Give the certificate as JSON to keep."""
        found = await self._certificate(request, document_id)
        data = msgspec.json.format(msgspec.json.encode(found), indent=2)
        return attachment(request, data + b"\n", "application/json", f"erasure-{document_id}.json")

    async def _certificate(self, request: Asking, document_id: str) -> dict[str, Any]:
        return await house_of(request).erasure.certificate(request.user.tenant, document_id)
