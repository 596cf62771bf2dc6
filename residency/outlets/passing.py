"""passing: what every outlet enters first; a pass is checked, a deadline is set, a Touch is recorded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from residency.errors import SiteError
from residency.journal import Touch, note
from residency.route import Action, Route


@asynccontextmanager
async def passing(
    route: Route, *, site: str, action: Action, kind: str, within: float = 30.0, count: int = 0
) -> AsyncIterator[Touch]:
    """Check `route` for `action` at `site`, give the body `within` seconds, and record what it touched.

    Yields the Touch, whose `count`, `bytes`, `peer` and `request` the body may fill in.
    Raises `RouteError` before anything left, and `SiteError` when the deadline passes.
    """
    route.check(site=site, action=action)
    touch = Touch(action=action, site=site, kind=kind, tags=route.tags, policies=route.policies, count=count)
    note(touch)
    try:
        async with asyncio.timeout(within):
            yield touch
    except TimeoutError as error:
        raise SiteError(
            f"{kind} at {site} did not answer in {within:g} s", site=site, hint="try again later"
        ) from error
