"""A really served house, as for the API."""

from tests.api.conftest import client, served

__all__ = ["client", "served"]
