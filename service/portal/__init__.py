"""The portal: pages for staff and for data-protection officers."""

from typing import Any

from service.settings import Settings


def portal(_settings: Settings) -> list[Any]:
    """Give the portal's routes."""
    return []
