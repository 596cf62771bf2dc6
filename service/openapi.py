"""Print the API's description; `make openapi` writes it to `openapi.json`, and a test holds the two equal."""

import sys

import msgspec

from service.app import create_app
from service.settings import Settings


def described() -> bytes:
    """Give the description as indented JSON, keys sorted."""
    schema = create_app(Settings()).openapi_schema.to_schema()
    return msgspec.json.format(msgspec.json.encode(schema, order="sorted"), indent=2) + b"\n"


if __name__ == "__main__":
    sys.stdout.buffer.write(described())
