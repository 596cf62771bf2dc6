"""Certificate authorities of invented Zones, for tests that speak TLS on loopback."""

import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass
class Authority:
    """The trust root of one Zone: `root` is its PEM file, `serving` a server's TLS context with a certificate of it."""

    root: Path
    serving: ssl.SSLContext


def authority(zone: str, folder: Path, *, names: Sequence[str] = ()) -> Authority:
    """Make an authority and a server certificate of it for 127.0.0.1 and the DNS names given, valid for a day."""
    key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"root of {zone}")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .issuer_name(name)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    root = (
        made.subject_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    leaf = (
        made.subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")]))
        .public_key(server_key.public_key())
        .serial_number(2)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *[x509.DNSName(each) for each in names]]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    root_file, chain = folder / f"{zone}-root.pem", folder / f"{zone}-server.pem"
    root_file.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    private = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain.write_bytes(leaf.public_bytes(serialization.Encoding.PEM) + private)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(chain)
    return Authority(root_file, serving)
