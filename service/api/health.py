"""Operation: is the process alive, may it be sent work, and what has it done."""

from typing import Any

from litestar import Response, get
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from residency.errors import DomicileError
from service.api.describing import described, gives
from service.api.replies import Asking, house_of
from service.metering import REGISTRY


@get(
    "/livez",
    opt={"exclude_from_auth": True},
    exclude_from_auth=True,
    operation_id="livez",
    operation_class=described(key=False),
)
async def livez() -> dict[str, str]:
    """Say that the loop answers."""
    return {"status": "ok"}


@get(
    "/readyz",
    opt={"exclude_from_auth": True},
    exclude_from_auth=True,
    operation_id="readyz",
    operation_class=described(key=False),
    responses={503: gives(dict[str, Any], "Something does not work")},
)
async def readyz(request: Asking) -> Response[dict[str, Any]]:
    """Say whether database, Ledger, rules and at least one Site work; 503 if one does not.

    Names and states only; a closed Site with its cause and since when.
    """
    house = house_of(request)
    checks: dict[str, str] = {}
    try:
        await house.database.run(house.ledger.checkpoint)
        checks["ledger"] = "ok"
    except DomicileError:
        checks["ledger"] = "fail"
    sites = await house.probing.listing()
    closed = [site for site in sites if site["state"] == "closed"]
    checks["sites"] = "fail" if len(closed) == len(sites) else "ok"
    try:
        house.engine.zones.check("EU")  # no table is given out while the clock stands behind the ledger
        checks["clock"] = "ok"
    except DomicileError:
        checks["clock"] = "set back"
    good = all(value == "ok" for value in checks.values())
    checks["policy"] = house.rulemaking.health.partition(":")[0]  # the last good set is safe to serve
    body: dict[str, Any] = {"status": "ok" if good else "fail", "checks": checks}
    if closed:
        body["closed"] = {site["id"]: {"cause": site["cause"], "since": site["since"]} for site in closed}
    return Response(body, status_code=200 if good else 503)


@get(
    "/metrics", opt={"exclude_from_auth": True}, exclude_from_auth=True, operation_id="metrics", include_in_schema=False
)
async def metrics(request: Asking) -> Response[bytes]:
    """Give counters for Prometheus; labels from closed lists only, never a tenant, a name or an id."""
    house_of(request)
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)
