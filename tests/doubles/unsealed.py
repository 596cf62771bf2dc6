"""Runs `domicile` with sealing switched off and with two leaks planted on purpose: the control of the canary test.

Nothing of the product does this: the ciphers are replaced here, and questions and errors are written to the log.
"""

from residency.silence import silence

silence()

import sys  # noqa: E402
from typing import Any  # noqa: E402

from residency import seal  # noqa: E402


class Plain:
    """A cipher that hides nothing: the text, and sixteen bytes where a tag would stand."""

    def encrypt(self, _nonce: bytes, data: bytes, _aad: bytes | None) -> bytes:
        return bytes(data) + bytes(16)

    def decrypt(self, _nonce: bytes, data: bytes, _aad: bytes | None) -> bytes:
        return bytes(data)[:-16]


def plain(_self: seal.Suite, _key: bytes) -> Any:
    return Plain()


def main() -> None:
    seal.Suite.cipher = plain  # type: ignore[method-assign,assignment]
    from service.api import replies
    from service.cli import main as domicile
    from service.searching import Searching

    find, refuse = Searching.find, replies.on_http

    async def loud_find(self: Searching, principal: Any, ask: Any) -> Any:
        print(f"asked: {ask.query}", file=sys.stderr, flush=True)
        return await find(self, principal, ask)

    def loud_http(request: Any, error: Any) -> Any:
        print(f"refused: {request.url}", file=sys.stderr, flush=True)
        return refuse(request, error)

    Searching.find = loud_find  # type: ignore[method-assign]
    replies.on_http = loud_http
    domicile()


if __name__ == "__main__":
    main()
