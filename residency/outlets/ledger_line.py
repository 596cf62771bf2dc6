"""ledger_line: a witness's line to a log that somebody else runs.

What passes are sizes, hashes and signatures, never data of a tenant, so no Route is asked for, as for a probe; and it
runs on the witness's machine, which has no Fleet. The rules of `connect` hold: one trust root, no proxy, no redirect,
plain HTTP on loopback alone.
"""

import ssl
from typing import Any, Final

from residency import tlog
from residency.errors import LedgerError
from residency.outlets.connect import Failure, checked, connect

WITHIN: Final = 30.0
"""Seconds for each call."""
MOST: Final = 65_536
"""Bytes of a reply; a checkpoint or a proof is far smaller."""


class LedgerLine:
    """Calls to the log at `url`; `key` is an API key, any scope to read and `report` to hand in a cosignature."""

    def __init__(self, url: str, *, key: str, ssl_context: ssl.SSLContext | None) -> None:
        self._url = checked(url, site="ledger")
        headers = {"Authorization": f"Bearer {key}"} if key else {}  # without one it is the log that says what it wants
        self._http = connect(ssl_context, headers=headers, read=WITHIN)

    async def checkpoint(self) -> str:
        """Fetch the newest signed checkpoint. Raises `LedgerError` when the log does not answer."""
        reply = await self._call("GET", "/v1/ledger/checkpoint")
        return str(reply.text)

    async def consistency(self, old: int, new: int) -> list[bytes]:
        """Fetch the hashes that show that the tree of `new` leaves continues that of `old`."""
        reply = await self._call("GET", "/v1/ledger/consistency", params={"old": old, "new": new})
        try:
            found = reply.json()["hashes"]
            return [tlog.decode(text) for text in found]
        except (ValueError, KeyError, TypeError) as error:
            raise LedgerError("the log answered something that is no proof", hint="check the address") from error

    async def cosign(self, note: str) -> None:
        """Hand a cosigned checkpoint in."""
        await self._call("POST", "/v1/ledger/cosignatures", content=note, headers={"Content-Type": "text/plain"})

    async def aclose(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def _call(self, method: str, path: str, **more: Any) -> Any:
        try:
            reply = await self._http.request(method, self._url + path, **more)
        except Failure as error:
            what = type(error).__name__
            raise LedgerError(f"the log does not answer ({what})", hint="check address and trust root") from error
        if reply.status_code >= 300 or len(reply.content) > MOST:
            raise LedgerError(f"the log answered {reply.status_code}", hint="check --api-key and its scope, report")
        return reply
