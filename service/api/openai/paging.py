"""Lists in OpenAI's shape: `after`, `before`, `limit`, `order`; `first_id`, `last_id`, `has_more`."""

from collections.abc import Sequence
from typing import Any

from service.errors import InvalidRequestError

MOST = 100


def order(given: str) -> bool:
    """Read `order`; says whether the newest come first. Raises `InvalidRequestError`."""
    if given not in ("asc", "desc"):
        raise InvalidRequestError("`order` is asc or desc", param="order")
    return given == "desc"


def listed(data: Sequence[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    """Wrap a page."""
    return {
        "object": "list",
        "data": list(data),
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": more,
    }
