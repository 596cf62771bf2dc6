"""`GET /v1/sites` and `GET /v1/zones`: where data can lie and what is known of each place, for everybody who asks."""

from typing import Any

from litestar import Controller, get

from service.api.replies import Asking, house_of


class SitesController(Controller):
    """Sites of the Fleet, without their addresses."""

    path = "/sites"
    tags = ["Places"]  # noqa: RUF012 - Litestar's protocol

    @get("/", opt={"scope": "any"}, operation_id="listSites")
    async def listing(self, request: Asking) -> dict[str, Any]:
        """List Sites: Zone, operator, parent, grade of evidence, open or closed, why, since when, until when."""
        return {"object": "list", "data": await house_of(request).probing.listing()}


class ZonesController(Controller):
    """Zones of the table in force."""

    path = "/zones"
    tags = ["Places"]  # noqa: RUF012 - Litestar's protocol

    @get("/", opt={"scope": "any"}, operation_id="listZones")
    async def listing(self, request: Asking) -> dict[str, Any]:
        """List Zones with the Zones that hold them, from which day to which, and on which act that rests."""
        zones = house_of(request).engine.zones
        within: dict[str, list[dict[str, Any]]] = {code: [] for code in zones.codes}
        for edge in zones.edges():
            within[edge.zone].append(
                {
                    "zone": edge.within,
                    "from": edge.first.isoformat(),
                    "until": edge.last.isoformat() if edge.last else None,
                    "source": edge.source,
                    "scope": edge.scope,
                    "contested": edge.contested,
                    "in_force": edge.holds(zones.on.date()),
                }
            )
        data = [
            {"code": code, "kind": zones.kind(code), "inside": sorted(zones.ancestors(code)), "within": within[code]}
            for code in sorted(zones.codes)
        ]
        return {"object": "list", "digest": zones.digest, "on": f"{zones.on:%Y-%m-%d}", "data": data}
