"""Routes for tests that have no engine; shipped code never mints one."""

import time

from residency.route import MINT, Action, Route


def route_for(
    action: Action,
    site: str,
    tenant: str = "northwind",
    tags: frozenset[str] = frozenset(),
    *,
    seconds: float = 60.0,
    principal: str = "app:test",
    lasting: bool = False,
) -> Route:
    """Give a Route as the engine would, for `tags` (digests in hex); a negative `seconds` gives an expired one.

    `lasting` is for a test file's constants, which are made minutes before they are used: no engine gives such a Route.
    """
    made = Route(
        MINT,
        action=action,
        site=site,
        tenant=tenant,
        principal=principal,
        tags=tags,
        policies=("test-permit",),
        good_until=time.monotonic() + seconds,
    )
    if lasting:
        object.__setattr__(made, "good_until", float("inf"))
    return made
