"""Route: the pass that every outlet demands.

Rules kept here: only `residency/engine.py` mints a Route (it alone holds `MINT`); a Route names one Action, one exact
Site, one tenant and the Tags it was judged for, and dies within a minute; it cannot be changed, copied, pickled or
subclassed, so it cannot ride in a queue or outlive the ruling it stands for.
"""

import time
from enum import StrEnum
from typing import Any, Final, NoReturn

from residency.errors import RouteError

LIFETIME: Final = 60.0
"""Seconds that a Route lives at most."""


class Action(StrEnum):
    """What would be done with data at a Site; the names are those of `policies/schema.cedarschema`."""

    STORE = "store"
    SEARCH = "search"
    EMBED = "embed"
    OPEN = "open"
    GENERATE = "generate"
    TRANSFER = "transfer"
    ERASE = "erase"


class _Mint:
    """The capability to make a Route; one instance, held by the engine."""

    __slots__ = ()


MINT: Final = _Mint()


class Route:
    """A pass for one Action at one Site, for the Tags it was judged for.

    Fields are read-only. `good_until` is on the monotonic clock, in seconds. `tags` holds Tag digests (hex); an empty
    set means that no Tag was involved (never the case for data). `policies` are the ids that permit.
    """

    __slots__ = ("action", "good_until", "policies", "principal", "site", "tags", "tenant")

    action: Action
    site: str
    tenant: str
    principal: str
    tags: frozenset[str]
    policies: tuple[str, ...]
    good_until: float

    def __init__(
        self,
        mint: _Mint,
        *,
        action: Action,
        site: str,
        tenant: str,
        principal: str,
        tags: frozenset[str],
        policies: tuple[str, ...],
        good_until: float,
    ) -> None:
        if mint is not MINT:
            raise RouteError("a Route is minted by the engine alone", hint="ask engine.decide for one")
        put = object.__setattr__
        put(self, "action", action)
        put(self, "site", site)
        put(self, "tenant", tenant)
        put(self, "principal", principal)
        put(self, "tags", tags)
        put(self, "policies", policies)
        put(self, "good_until", min(good_until, time.monotonic() + LIFETIME))

    def check(self, *, site: str, action: Action) -> None:
        """Raise `RouteError` unless this pass is for that Action at that Site and still good."""
        if self.site != site or self.action is not action:
            raise RouteError(
                f"a Route for {self.action} at {self.site} was shown for {action} at {site}",
                hint="ask the engine for this Action at this Site",
            )
        if time.monotonic() >= self.good_until:
            raise RouteError(f"the Route for {action} at {site} has expired", hint="ask the engine again")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise RouteError("a Route does not change")

    def __delattr__(self, name: str) -> NoReturn:
        raise RouteError("a Route does not change")

    def __reduce__(self) -> NoReturn:
        raise RouteError("a Route is neither copied nor pickled")

    def __init_subclass__(cls, **_: Any) -> NoReturn:
        raise RouteError("a Route has no subclass")

    def __repr__(self) -> str:
        return f"<Route {self.action} at {self.site} for {self.tenant}>"
