"""tls: by what a server is believed before a byte is said to it, and what a handshake alone tells of it.

Rules kept here: nothing but the Zone's own root is trusted, never the system's; TLS 1.2 or later; where public keys are
pinned, another key ends the handshake before its last message, so that no payload ever follows it.
"""

import asyncio
import hashlib
import ssl
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from residency.errors import SiteError

HANDSHAKE_WITHIN: Final = 10.0
"""Seconds for a connection and its handshake."""
_UNPINNED: Final = "the server's public key is none of the pinned ones"


@dataclass(frozen=True, slots=True)
class Peer:
    """What answered a handshake: SHA-256 of certificate and public key (hex), and the certificate's last instant."""

    certificate: str
    spki: str
    expires: datetime


def spki(certificate: x509.Certificate) -> str:
    """Give the SHA-256 (hex) of a certificate's public key, as SubjectPublicKeyInfo in DER (RFC 5280 section 4.1)."""
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).hexdigest()


def trust(
    root: Path | None = None,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    pins: Collection[str] = (),
) -> ssl.SSLContext:
    """Make the TLS context of one Zone: it trusts `root` (PEM) and nothing else; without one, nobody at all.

    `certificate` and `key` (PEM) are shown to servers that ask for them. `pins` are SHA-256 digests of the public keys
    that may answer; empty: any certificate of the root. Raises `SiteError` when a file does not load.
    """
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if root:
            context.load_verify_locations(cafile=str(root))
        if certificate:
            context.load_cert_chain(str(certificate), str(key) if key else None)
    except OSError as error:  # ssl.SSLError is one
        raise SiteError("the Site's trust root or certificate does not load", hint="check the PEM files") from error
    if pins:
        _pin(context, frozenset(pins))
    return context


def _pin(context: ssl.SSLContext, pins: frozenset[str]) -> None:
    """Let a handshake of this context succeed only with one of these keys; seen by asyncio, anyio and blocking code."""

    def check(der: bytes | None) -> None:
        if der is None or spki(x509.load_der_x509_certificate(der)) not in pins:
            raise ssl.SSLCertVerificationError(_UNPINNED)

    class PinnedObject(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            check(self.getpeercert(binary_form=True))

    class PinnedSocket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            check(self.getpeercert(binary_form=True))

    context.sslobject_class = PinnedObject
    context.sslsocket_class = PinnedSocket


async def handshake(site: str, host: str, port: int, context: ssl.SSLContext) -> Peer:
    """Connect, end after the handshake without a byte of payload, and say who answered.

    Raises `SiteError` with the cause and the remedy.
    """
    try:
        async with asyncio.timeout(HANDSHAKE_WITHIN):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, TimeoutError) as error:
        cause, remedy = explain(error) or ("does not answer", "see whether it runs and may be reached from here")
        raise SiteError(f"the server of {site} {cause}", site=site, hint=remedy) from error
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await writer.wait_closed()
    found = x509.load_der_x509_certificate(der)
    return Peer(hashlib.sha256(der).hexdigest(), spki(found), found.not_valid_after_utc)


def explain(error: BaseException) -> tuple[str, str] | None:
    """Say in our words why a handshake failed and what to do; None when it was not TLS that failed.

    Libraries wrap the error of `ssl`, so the whole chain of causes is looked at.
    """
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, ssl.SSLCertVerificationError):
            return _refused(each)
        if isinstance(each, ssl.SSLError):
            return _broken(each)
        waiting += [each.__cause__, each.__context__, getattr(each, "source", None)]
    return None


def _refused(error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    if _UNPINNED in str(error):
        return "shows a public key that is not pinned", "compare it with `domicile sites probe`, then mend peer_spki"
    match getattr(error, "verify_code", 0):  # X509_V_ERR_… in openssl/x509_vfy.h
        case 10:
            return "shows a certificate that has expired", "renew it there: `domicile sites certify` makes a new one"
        case 9:
            return "shows a certificate that is not valid yet", "set the clocks of both machines right"
        case 62 | 64:
            return "shows a certificate of another name", "make one for the host that the fleet file names"
        case _:
            return (
                "shows a certificate that its Zone's root did not sign",
                "it may stand in another Zone; check trust_root and what answers at that address",
            )


def _broken(error: ssl.SSLError) -> tuple[str, str]:
    reason = (error.reason or "").upper()
    if "CERTIFICATE_REQUIRED" in reason or "BAD_CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return "does not take our certificate", "name one of its Zone as certificate and certificate_key of the Site"
    if "CERTIFICATE_EXPIRED" in reason:
        return "says that our certificate has expired", "renew it: `domicile sites certify`"
    return "speaks no TLS that we can follow", "give it TLS 1.2 or later and a certificate of its Zone"


# --- files ----------------------------------------------------------------------------------------------------------


def loaded(path: Path) -> list[x509.Certificate]:
    """Read every certificate of a PEM file. Raises `SiteError` when there is none."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SiteError("a certificate file does not load", hint="check the PEM files of the fleet file") from error


def expires(path: Path) -> datetime:
    """Give the instant at which the first certificate of a PEM file ends, in UTC."""
    return loaded(path)[0].not_valid_after_utc.astimezone(UTC)


def keys_of(roots: Sequence[x509.Certificate]) -> frozenset[str]:
    """Give the digests of the public keys of these roots: two files of one authority have the same."""
    return frozenset(spki(root) for root in roots)


def known_to_all(roots: Sequence[x509.Certificate]) -> bool:
    """Say whether one of these is a root of this machine's own list: such an authority says nothing about a Zone."""
    held = {hashlib.sha256(der).digest() for der in ssl.create_default_context().get_ca_certs(binary_form=True)}
    return any(root.fingerprint(hashes.SHA256()) in held for root in roots)
