"""Make the secrets of compose.yaml: passwords, API keys, and each zone's trust root with server certificates.

Files that are there stay as they are, so that it can be run again; delete one certificate to renew it. The folder is
0700: Compose hands each file into its container as it is, where other accounts must be able to read it (0444).
Root keys are written too, as `zone_*_root_key`, which no container gets: move them to a safe place.
"""

import os
import secrets
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

FOLDER = Path(__file__).parent / "secrets"
ROOT_DAYS, SERVER_DAYS = 5 * 365, 397
SERVERS = {"de": {"qdrant_de": "qdrant-de", "generator": "generator"}, "fr": {"qdrant_fr": "qdrant-fr"}}
"""Zone → file name → name of the service, which the certificate is for."""


def put(path: Path, data: bytes, mode: int = 0o444) -> None:
    """Write a file that was not there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Give a private key as PKCS 8, unencrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def builder(subject: str, issuer: x509.Name, days: int) -> x509.CertificateBuilder:
    """Begin a certificate that holds from an hour ago."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
    )


def root(folder: Path, zone: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Give the trust root of a zone, made on the first call."""
    certificate_file, key_file = folder / f"zone_{zone}_root", folder / f"zone_{zone}_root_key"
    if key_file.exists():
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{key_file.name} is not a key of ours")
        return key, x509.load_pem_x509_certificate(certificate_file.read_bytes())
    if certificate_file.exists():
        raise FileExistsError(f"{certificate_file.name} is there without its key: bring the key back for this")
    key = ec.generate_private_key(ec.SECP256R1())
    name = f"Domicile trust root {zone.upper()}"
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        builder(name, issuer, ROOT_DAYS)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                False,
                False,
                False,
                False,
                False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    put(certificate_file, certificate.public_bytes(serialization.Encoding.PEM))
    put(key_file, key_pem(key), 0o400)
    return key, certificate


def server(folder: Path, zone: str, file: str, service: str) -> None:
    """Make a server's certificate under its zone's root, unless it is there."""
    if (folder / f"{file}_cert").exists():
        return
    (folder / f"{file}_tls_key").unlink(missing_ok=True)
    root_key, root_certificate = root(folder, zone)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        builder(service, root_certificate.subject, SERVER_DAYS)
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(service)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    put(folder / f"{file}_cert", certificate.public_bytes(serialization.Encoding.PEM))
    put(folder / f"{file}_tls_key", key_pem(key))


def make(folder: Path) -> list[str]:
    """Make every file that is missing; gives the names of those made."""
    folder.mkdir(mode=0o700, exist_ok=True)
    before = {path.name for path in folder.iterdir()}
    for name in ("postgres_password", "generator_key"):
        if not (folder / name).exists():
            put(folder / name, secrets.token_urlsafe(32).encode())
    for zone, servers in SERVERS.items():
        key_file, config = folder / f"qdrant_{zone}_key", folder / f"qdrant_{zone}_config"
        if not key_file.exists():
            put(key_file, secrets.token_urlsafe(32).encode())
        if not config.exists():  # Qdrant takes its key from a settings file; gRPC stays off
            key = key_file.read_text("ascii")
            put(config, f'service:\n  api_key: "{key}"\n  grpc_port: null\n'.encode())
        for file, service in servers.items():
            server(folder, zone, file, service)
    return sorted({path.name for path in folder.iterdir()} - before)


def main() -> int:
    """Make the files and say which."""
    made = make(FOLDER)
    print(f"{len(made)} files made in {FOLDER}" if made else f"everything is there already in {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
