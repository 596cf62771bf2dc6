"""connect: the one HTTP client factory, for every body that speaks HTTP.

Rules kept here: only a server with a certificate of the Zone's own root is spoken to (see `tls.py`; the system's roots
never count); no proxy, credential or trust from the environment; no redirects, since a
redirect is an address that nobody ruled on; plain HTTP on loopback alone; no user name or password in an address.
"""

import hashlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from residency.errors import SiteError
from residency.outlets.tls import trust

__all__ = ["LIMITS", "checked", "connect", "connect_blocking", "destination", "peer", "trust"]

Failure: Final = httpx.HTTPError
"""What a client of ours raises when the line or the server fails; bodies catch it without knowing the library."""
CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 60.0
"""Longest silence between two pieces of a reply."""
LIMITS: Final = httpx.Limits(max_connections=32, max_keepalive_connections=8, keepalive_expiry=30.0)


def checked(url: str, *, site: str) -> str:
    """Give the address back without a trailing slash. Raises `SiteError` when it is no address we may speak to."""
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise SiteError("the Site's address holds a credential", site=site, hint="put it into key_file")
    if parts.scheme not in {"https", "http"} or not parts.hostname or parts.query or parts.fragment:
        raise SiteError("the Site's address is no plain https address", site=site, hint="write https://host:port/path")
    if parts.scheme == "http" and not _loopback(parts.hostname):
        raise SiteError("plain HTTP is for loopback alone", site=site, hint="give the Site TLS and write https://")
    return url.rstrip("/")


def destination(url: str) -> tuple[str, int]:
    """Give host and port of an address, for the tripwire's allow-list."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _settings(context: ssl.SSLContext | None, headers: Mapping[str, str] | None, read: float) -> dict[str, Any]:
    return {
        "verify": context if context is not None else trust(),
        "trust_env": False,
        "follow_redirects": False,
        "limits": LIMITS,
        "timeout": httpx.Timeout(read, connect=CONNECT_SECONDS),
        "headers": dict(headers or {}),
    }


def connect(
    context: ssl.SSLContext | None,
    *,
    headers: Mapping[str, str] | None = None,
    read: float = READ_SECONDS,
    met: Callable[[str], None] | None = None,
    most: int = 0,
    site: str = "",
) -> httpx.AsyncClient:
    """Open an asynchronous HTTP client under the rules above; nothing is sent yet.

    `read` is in seconds; `met` is told the SHA-256 of the certificate (hex) that each reply came under, `local` on
    plain loopback. A reply of more than `most` bytes ends in a `SiteError` of `site`, and so does a compressed one,
    whose size its bytes do not tell; 0 means no bound.
    """
    if most:
        headers = {**(headers or {}), "accept-encoding": "identity"}

    async def meet(response: httpx.Response) -> None:
        if met is not None:
            met(peer(response))
        if most:
            response.stream = _Bounded(response, most, site)

    return httpx.AsyncClient(**_settings(context, headers, read), event_hooks={"response": [meet]})


class _Bounded(httpx.AsyncByteStream):
    """A reply's bytes, up to `most`."""

    def __init__(self, response: httpx.Response, most: int, site: str) -> None:
        self._inner, self._most, self._site = response.stream, most, site
        self._packed = response.headers.get("content-encoding", "identity") != "identity"

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._packed:
            raise SiteError(
                f"the reply of {self._site} is compressed", site=self._site, hint="have the server send it as it is"
            )
        seen = 0
        async for part in self._inner:  # type: ignore[union-attr]  # an asynchronous client has such a stream
            seen += len(part)
            if seen > self._most:
                raise SiteError(f"the reply of {self._site} is longer than {self._most} bytes", site=self._site)
            yield part

    async def aclose(self) -> None:
        """Close the reply."""
        await self._inner.aclose()  # type: ignore[union-attr]


def connect_blocking(context: ssl.SSLContext | None, *, read: float = READ_SECONDS) -> httpx.Client:
    """Open the synchronous twin, for libraries that insist on being given one."""
    return httpx.Client(**_settings(context, None, read))


def peer(response: httpx.Response) -> str:
    """Give the SHA-256 of the certificate that answered (hex), or `local` where there was none."""
    stream = response.extensions.get("network_stream")
    tls = stream.get_extra_info("ssl_object") if stream is not None else None
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    return hashlib.sha256(certificate).hexdigest() if certificate else "local"
