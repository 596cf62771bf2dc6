"""`GET /v1/reports/{kind}`: the Ledger of a period, read for the caller's tenant."""

from typing import Annotated, Any

from litestar import Controller, Response, get
from litestar.params import FromPath, FromQuery, QueryParameter

from service.api.describing import RAW, described
from service.api.replies import Asking, house_of
from service.rendering.drawing import FORMATS


class ReportsController(Controller):
    """Reports for data-protection officers."""

    path = "/reports"
    tags = ["Evidence"]  # noqa: RUF012 - Litestar's protocol

    @get(
        "/{kind:str}",
        opt={"scope": "report", "problems": (409,)},
        operation_id="report",
        operation_class=described(gives={kind: RAW for kind, _ in FORMATS.values()}),
    )
    async def report(
        self,
        request: Asking,
        kind: FromPath[str],
        since: Annotated[str | None, QueryParameter(name="from")] = None,
        until: Annotated[str | None, QueryParameter(name="to")] = None,
        format: FromQuery[str] = "json",  # noqa: A002 - the contract's name
        document: FromQuery[str] = "",
    ) -> Response[Any]:
        """Give a report of a kind (residency, register, transfers, recipients, oscal) as json, html, csv, xlsx or pdf.

        `document` is whose recipients are wanted; `pdf` is for residency alone, `oscal` is json alone.
        """
        house = house_of(request)
        made, receipt = await house.reporting.file(
            request.user.tenant, since, until, format, requested_by=request.user.id, kind=kind, document=document
        )
        headers = {
            "Content-Disposition": f'attachment; filename="{made.name}"',
            "Domicile-Receipt": receipt,
            "Cache-Control": "no-store",
        }
        return Response(made.data, media_type=made.media_type, headers=headers)
