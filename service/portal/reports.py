"""Reports and Receipts: the Ledger as a data-protection officer reads it, to look at and to keep."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath, FromQuery, QueryParameter
from markupsafe import Markup

from ingestion.errors import NotFoundError
from service.api.replies import Asking, house_of
from service.portal.pages import attachment, go, headers, page
from service.rendering import html
from service.rendering.drawing import FORMATS
from service.reporting import period

Since = Annotated[str, QueryParameter(name="from")]
Until = Annotated[str, QueryParameter(name="to")]


class ReportPages(Controller):
    """Residency reports, Receipts, and what an outsider needs to check them."""

    path = "/"

    @get("/reports", opt={"scope": "report"})
    async def reports(self, request: Asking, since: Since = "", until: Until = "") -> Response[str]:
        """Choose a period; with one chosen, show its report. A report is itself recorded before it is shown."""
        today = datetime.now(UTC).date()
        body, house = "", house_of(request)
        found = await house.database.run(house.violations.listing, request.user.tenant)
        if since or until:
            begin, end = period(since, until, datetime.now(UTC))
            principal = request.user
            bundle = await house.reporting.residency(principal.tenant, begin, end, requested_by=principal.id)
            body = html.fragment(bundle)
        return page(
            request,
            "reports.html",
            since=since or today.replace(day=1).isoformat(),
            until=until or today.isoformat(),
            body=Markup(body),  # noqa: S704 - drawn and escaped by the report's own templates
            violations=[each for each in found if each.resolved is None],
            formats=[form for form in ("pdf", "html", "xlsx", "csv", "json") if form in FORMATS],
        )

    @post("/reports/violations/{violation_id:str}", opt={"scope": "report"})
    async def acknowledge(self, request: Asking, violation_id: FromPath[str]) -> Response[Any]:
        """Say that an officer has seen a violation; recorded in the Ledger."""
        house, who = house_of(request), request.user
        await house.database.run(house.violations.acknowledge, who.tenant, violation_id, by=who.id)
        return go(request, "/reports")

    @get("/reports/file", opt={"scope": "report"})
    async def file(
        self,
        request: Asking,
        since: Since = "",
        until: Until = "",
        format: FromQuery[str] = "pdf",  # noqa: A002 - the parameter's name
    ) -> Response[bytes]:
        """Give a report as a file to keep."""
        reporting = house_of(request).reporting
        made, _ = await reporting.file(request.user.tenant, since, until, format, requested_by=request.user.id)
        return attachment(request, made.data, made.media_type, made.name)

    @get("/portal/report.css", opt={"exclude_from_auth": True}, exclude_from_auth=True)
    async def style(self, request: Asking) -> Response[str]:
        """Give the style sheet that reports share with their stand-alone form."""
        sent = headers(secure=house_of(request).settings.server.secure_cookies) | {"Cache-Control": "no-cache"}
        return Response(html.style(), media_type="text/css", headers=sent)

    @get("/receipts", opt={"scope": "any"})
    async def find(self, request: Asking, id: FromQuery[str] = "") -> Response[Any]:  # noqa: A002
        """Look a Receipt up by its id."""
        bare = "".join(sign for sign in id if sign.isalnum() or sign == "-")[:64]
        if not bare:
            raise NotFoundError("there is no receipt without an id", hint="copy it from an answer or a document")
        return go(request, f"/receipts/{bare}")

    @get("/receipts/{receipt_id:str}", opt={"scope": "any"})
    async def receipt(self, request: Asking, receipt_id: FromPath[str]) -> Response[str]:
        """Show a Receipt: what was decided, and every place that data touched."""
        bundle = await _bundle(request, receipt_id)
        return page(request, "receipt.html", bundle=bundle, receipt=bundle["receipt"])

    @get("/receipts/{receipt_id:str}/file", opt={"scope": "any"})
    async def receipt_file(self, request: Asking, receipt_id: FromPath[str]) -> Response[bytes]:
        """Give the bundle that `domicile verify` reads."""
        data = msgspec.json.format(msgspec.json.encode(await _bundle(request, receipt_id)), indent=2)
        return attachment(request, data + b"\n", "application/json", f"receipt-{receipt_id}.json")

    @get("/portal/trust", opt={"scope": "any"})
    async def trust(self, request: Asking) -> Response[bytes]:
        """Give the trust file that names this Ledger's key; hand it to outsiders by another way than the Receipt."""
        return attachment(request, house_of(request).ledger.trust.encode(), "text/plain; charset=utf-8", "trust.txt")


async def _bundle(request: Asking, receipt_id: str) -> dict[str, Any]:
    house = house_of(request)
    found = await house.database.run(house.ledger.bundle, request.user.tenant, receipt_id)
    if found is None:
        raise NotFoundError("there is no such receipt", hint="receipts are seen by their own tenant only")
    return found
