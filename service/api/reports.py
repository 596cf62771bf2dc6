"""`GET /v1/reports/residency`: the Ledger of a period, read for the caller's tenant."""

from typing import Annotated, Any

from litestar import Controller, Response, get
from litestar.params import FromQuery, QueryParameter

from service.api.replies import Asking, house_of


class ReportsController(Controller):
    """Reports for data-protection officers."""

    path = "/reports"
    tags = ["Evidence"]  # noqa: RUF012 - Litestar's protocol

    @get("/residency", opt={"scope": "report"}, operation_id="residencyReport")
    async def residency(
        self,
        request: Asking,
        since: Annotated[str | None, QueryParameter(name="from")] = None,
        until: Annotated[str | None, QueryParameter(name="to")] = None,
        format: FromQuery[str] = "json",  # noqa: A002 - the contract's name
    ) -> Response[Any]:
        """Give the report as json (the signed master), html, pdf, csv or xlsx."""
        house = house_of(request)
        made, receipt = await house.reporting.file(
            request.user.tenant, since, until, format, requested_by=request.user.id
        )
        headers = {
            "Content-Disposition": f'attachment; filename="{made.name}"',
            "Domicile-Receipt": receipt,
            "Cache-Control": "no-store",
        }
        return Response(made.data, media_type=made.media_type, headers=headers)
