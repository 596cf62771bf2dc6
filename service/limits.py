"""Limits: how often a key may call; a bucket for each key that fills evenly, held by this process alone.

Rules kept here: counted by principal and never by address; a refused call says when to come again; one function writes
the headers, since their names are still a draft (draft-ietf-httpapi-ratelimit-headers). Several processes each count
for themselves, so a fleet of them lets through that many times more.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from service.errors import LimitError

WINDOW: Final = 60.0
"""Seconds in which a whole bucket fills."""
MOST_KEYS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a key has left after a call."""

    limit: int
    left: int
    seconds: float
    """Until the next call when nothing is left, else until the bucket is full."""


class Limits:
    """Buckets by principal. `per_minute` 0 lets everything through."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._full: dict[str, float] = {}
        """When each bucket will be full: the one number that a bucket needs. Full ones are forgotten."""

    def take(self, principal: str) -> Allowance | None:
        """Count one call. Raises `LimitError` when the bucket is empty; None when there is no limit."""
        if not self.per_minute:
            return None
        now, each = self._clock(), WINDOW / self.per_minute
        full = max(now, self._full.get(principal, now))
        if full + each - now > WINDOW + 1e-9:
            wait = full + each - now - WINDOW
            raise LimitError(
                f"this key has made its {self.per_minute} calls of a minute",
                retry_after=wait,
                limit=self.per_minute,
                window_s=round(WINDOW),
                hint=f"come again in {max(1, round(wait))} s, or ask your operator for limits.per_minute",
            )
        self._full[principal] = full + each
        if len(self._full) > MOST_KEYS:
            self._full = {key: at for key, at in self._full.items() if at > now}
        filled = full + each - now
        return Allowance(self.per_minute, int((WINDOW - filled) / each + 1e-6), filled)


def headers(limit: int, left: int, seconds: float) -> dict[str, str]:
    """Give the headers that tell a client its allowance."""
    return {
        "RateLimit-Policy": f'"key";q={limit};w={round(WINDOW)}',
        "RateLimit": f'"key";r={left};t={max(1, round(seconds))}',
    }
