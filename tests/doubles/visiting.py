"""A visitor of the portal without a browser: keeps cookies, knows the session's token, follows no redirect."""

import re
import time
from typing import Any

import httpx

from tests.doubles.serving import Served

FRAGMENT = {"Domicile-Fragment": "true"}


class Visitor:
    """Someone with a cookie jar."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.http = served.bare()

    def sign_in(self, *scopes: str, tenant: str = "acme") -> "Visitor":
        """Paste an API key with these scopes, all of them when none is named."""
        reply = self.http.post("/sign-in", data={"token": self.served.key(*scopes, tenant=tenant)})
        assert reply.status_code == 303, reply.text
        return self

    def get(self, path: str, **given: Any) -> httpx.Response:
        """Open a page."""
        return self.http.get(path, **given)

    @property
    def token(self) -> str:
        """The session's token, from the head of a page."""
        found = re.search(r'<meta name="csrf" content="([0-9a-f]+)">', self.get("/documents").text)
        assert found is not None
        return found[1]

    def post(self, path: str, **fields: Any) -> httpx.Response:
        """Send a form of our own page."""
        return self.http.post(path, data={"csrf": self.token, **fields})

    def send(self, files: dict[str, bytes | str], **fields: str) -> httpx.Response:
        """Send the upload form as a browser without script does: fields first, then files."""
        said = {"csrf": self.token, "jurisdiction": "DE", "residency": "EU", "personal": "false", **fields}
        parts = [("files", (name, body if isinstance(body, bytes) else body.encode())) for name, body in files.items()]
        return self.http.post("/documents", data=said, files=parts)

    def row(self, name: str) -> str:
        """Give the HTML of a document's row once it stands still."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            text = self.get("/portal/documents").text
            for row in text.split("<li class=")[1:]:
                if f">{name}<" in row and "data-moving" not in row:
                    return row
            time.sleep(0.05)
        raise AssertionError("the document came to no end")

    def id(self, name: str) -> str:
        """Give a document's id."""
        found = re.search(r'data-key="([0-9a-f]{32})"', self.row(name))
        assert found is not None
        return found[1]


def signin_link(served: Served, tenant: str = "acme") -> str:
    """Make a one-time link's token, as `domicile serve` prints it."""
    served.key(tenant=tenant)  # the tenant is there
    house = served.house
    return house.accounts.issue(tenant, scopes=("ask", "upload", "report"), kind="signin", lifetime=900.0)
