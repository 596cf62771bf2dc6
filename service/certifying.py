"""Certifying: a certificate authority for each Zone, and certificates of it for the servers of self-run Sites.

Rules kept here: one authority per Zone and none above them, so that a certificate of one Zone opens no other; a root
may only sign for the hosts that the fleet file names in its Zone (RFC 5280 section 4.2.1.10); every file is 0600; what
is there and good stays as it is, so it can be run again any day; a renewal keeps the key, so pinned keys stay true.
"""

import ipaddress
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from residency.errors import SiteError
from residency.fleet import Fleet, Site

ROOT_DAYS: Final = 5 * 365
LEAF_DAYS: Final = 397
"""The longest that browsers and most clients accept of a server."""
RENEW_DAYS: Final = 30
"""A certificate with fewer days left is made anew."""
EARLY: Final = timedelta(hours=1)
"""Certificates hold from so long ago: clocks differ."""

Host = x509.DNSName | x509.IPAddress


@dataclass(frozen=True, slots=True)
class Wishes:
    """How long certificates last, when they are renewed, and whether their keys are renewed with them."""

    days: int = LEAF_DAYS
    root_days: int = ROOT_DAYS
    renew_days: int = RENEW_DAYS
    new_keys: bool = False


@dataclass(slots=True)
class Certified:
    """What was made for one Zone: every file, those written now, and what stays to be done by hand."""

    zone: str
    folder: Path
    sites: dict[str, str] = field(default_factory=dict)
    """Lines for the fleet file, by Site."""
    made: list[Path] = field(default_factory=list)
    until: dict[str, datetime] = field(default_factory=dict)
    """Last instant of each certificate, by its file's name."""

    def facts(self) -> dict[str, Any]:
        """Give it as JSON-able data."""
        return {
            "zone": self.zone,
            "folder": str(self.folder),
            "made": [path.name for path in self.made],
            "until": {name: f"{at:%Y-%m-%d}" for name, at in self.until.items()},
            "fleet": dict(self.sites),
        }


def certify(
    fleet: Fleet,
    folder: Path,
    *,
    sites: Collection[str] = (),
    hosts: Iterable[tuple[str, str]] = (),
    wishes: Wishes = Wishes(),
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Certified]:
    """Make what is missing or about to end, for these Sites or all that have a host, one folder per Zone.

    `hosts` are (Site, host) pairs beyond those of the Fleet's https addresses. Raises `SiteError` when no Site has a
    host, or a root's key was taken away.
    """
    named: dict[str, list[str]] = {}
    for name in fleet.sites:
        named[name] = _hosts_of(fleet.site(name))
    for name, host in hosts:
        named[fleet.site(name).id].append(host)
    chosen = [fleet.site(name) for name in sites] or [site for site in fleet.sites.values() if named[site.id]]
    bare = [site.id for site in chosen if not named[site.id]]
    if bare or not chosen:
        raise SiteError(
            f"the fleet file names no https address {f'at {bare[0]}' if bare else 'at all'}",
            site=bare[0] if bare else "",
            hint="write its shard or generator as https://host, or give --host SITE=host",
        )
    done = []
    for zone in dict.fromkeys(site.zone for site in chosen):
        ours = {name: named[name] for name, site in fleet.sites.items() if site.zone == zone and named[name]}
        office = _Office(zone, folder / zone.lower(), wishes, clock())
        office.root([_name(host) for held in ours.values() for host in dict.fromkeys(held)])
        for site in chosen:
            if site.zone == zone:
                office.server(site.id, [_name(host) for host in dict.fromkeys(named[site.id])])
        office.service()
        done.append(office.result)
    return done


class _Office:
    """The authority of one Zone, at work in one folder."""

    def __init__(self, zone: str, folder: Path, wishes: Wishes, now: datetime) -> None:
        self.zone, self.folder, self.wishes, self.now = zone, folder, wishes, now
        self.result = Certified(zone, folder)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def root(self, hosts: list[Host]) -> None:
        """Load the Zone's root, or make it; make it anew with the same key when it ends or a host is not covered."""
        certificate, key = self.folder / "root.pem", self.folder / "root.key"
        if certificate.exists() and not key.exists():
            raise SiteError(
                f"the root of {self.zone} is there without its key", hint=f"bring {key.name} back to {self.folder}"
            )
        self._key = self._keep(key)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Domicile trust root {self.zone}")])
        held = _load(certificate)
        covered = _permitted(held) if held else frozenset()
        if held and not self._ending(held) and covered >= set(hosts):
            self._root = held
            self.result.until[certificate.name] = held.not_valid_after_utc
            return
        allowed = sorted({*hosts, *covered}, key=str)
        made = (
            self._begin(name, name, self._key.public_key(), self.now + timedelta(days=self.wishes.root_days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.NameConstraints([_subtree(host) for host in allowed], None), critical=True)
        )
        self._root = made.sign(self._key, hashes.SHA256())
        self._write(certificate, self._root)

    def server(self, site: str, hosts: list[Host]) -> None:
        """Make a server's certificate for the hosts of a Site."""
        alternative = x509.SubjectAlternativeName(hosts)
        self._leaf(site, f"Domicile site {site}", ExtendedKeyUsageOID.SERVER_AUTH, alternative)
        names = {"trust_root": "root.pem", "certificate": "service.pem", "certificate_key": "service.key"}
        pinned = f'peer_spki = ["{_spki(_need(self.folder / f"{site}.pem"))}"]'
        lines = [f'{field} = "{self.folder / file}"' for field, file in names.items()]
        self.result.sites[site] = "\n".join([*lines, pinned])

    def service(self) -> None:
        """Make the certificate that Domicile shows to the servers of this Zone."""
        self._leaf("service", f"Domicile service in {self.zone}", ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def _leaf(
        self, file: str, subject: str, usage: x509.ObjectIdentifier, names: x509.SubjectAlternativeName | None
    ) -> None:
        certificate = self.folder / f"{file}.pem"
        held = _load(certificate)
        good = held is not None and not self._ending(held) and _names(held) == (set(names) if names else set())
        if held is not None and good and not self.wishes.new_keys and _signed_by(held, self._root):
            self.result.until[certificate.name] = held.not_valid_after_utc
            return
        key = self._keep(self.folder / f"{file}.key", fresh=self.wishes.new_keys)
        end = min(self.now + timedelta(days=self.wishes.days), self._root.not_valid_after_utc)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        made = (
            self._begin(name, self._root.subject, key.public_key(), end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names is not None:
            made = made.add_extension(names, critical=False)
        self._write(certificate, made.sign(self._key, hashes.SHA256()))

    def _begin(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, end: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - EARLY)
            .not_valid_after(end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )

    def _ending(self, certificate: x509.Certificate) -> bool:
        return certificate.not_valid_after_utc - self.now < timedelta(days=self.wishes.renew_days)

    def _keep(self, path: Path, *, fresh: bool = False) -> ec.EllipticCurvePrivateKey:
        """Load a private key, or make it."""
        if path.exists() and not fresh:
            key = serialization.load_pem_private_key(path.read_bytes(), None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise SiteError(f"{path.name} is no key of ours", hint="keep your own authority's files elsewhere")
            return key
        made = ec.generate_private_key(ec.SECP256R1())
        pem = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _put(path, pem)
        self.result.made.append(path)
        return made

    def _write(self, path: Path, certificate: x509.Certificate) -> None:
        _put(path, certificate.public_bytes(serialization.Encoding.PEM))
        self.result.made.append(path)
        self.result.until[path.name] = certificate.not_valid_after_utc


# --- names ----------------------------------------------------------------------------------------------------------


def _hosts_of(site: Site) -> list[str]:
    found = [urlsplit(item.url).hostname for item in site.holds if item.scheme == "https"]
    return [host for host in found if host]


def _name(host: str) -> Host:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _subtree(host: Host) -> Host:
    """Spell a host as a constraint: an address needs its mask."""
    if isinstance(host, x509.IPAddress) and isinstance(host.value, ipaddress.IPv4Address | ipaddress.IPv6Address):
        return x509.IPAddress(ipaddress.ip_network(host.value))
    return host


def _permitted(root: x509.Certificate) -> frozenset[Host]:
    """Give the hosts that a root may sign for, as hosts again."""
    try:
        trees = root.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
    except x509.ExtensionNotFound:
        return frozenset()
    found: set[Host] = set()
    for each in trees:
        if isinstance(each, x509.IPAddress) and isinstance(each.value, ipaddress.IPv4Network | ipaddress.IPv6Network):
            found.add(x509.IPAddress(each.value.network_address))
        elif isinstance(each, x509.DNSName):
            found.add(each)
    return frozenset(found)


def _names(certificate: x509.Certificate) -> set[x509.GeneralName]:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return set()


def _usage(*, signs: bool) -> x509.KeyUsage:
    names = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    no = dict.fromkeys((*names, "decipher_only"), False)
    return x509.KeyUsage(digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, **no)


# --- files ----------------------------------------------------------------------------------------------------------


def _load(path: Path) -> x509.Certificate | None:
    return x509.load_pem_x509_certificate(path.read_bytes()) if path.exists() else None


def _need(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def _signed_by(leaf: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _spki(certificate: x509.Certificate) -> str:
    digest = hashes.Hash(hashes.SHA256())
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    digest.update(certificate.public_key().public_bytes(serialization.Encoding.DER, form))
    return digest.finalize().hex()


def _put(path: Path, data: bytes) -> None:
    """Write a file 0600, whole or not at all."""
    aside = path.with_name(path.name + ".aside")
    aside.unlink(missing_ok=True)
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
