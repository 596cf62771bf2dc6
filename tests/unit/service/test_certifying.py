"""Certificates for self-run Sites: one authority a Zone, bound to its hosts, renewed without breaking pins."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from residency.errors import SiteError
from residency.fleet import Fleet
from service.certifying import Certified, Wishes, certify
from tests.doubles.rules import zones

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DEFAULT = Wishes()
SHARD = '{ kind = "shard", url = "https://%s:6333" }'
FLEET = "".join(
    f'[[site]]\nid = "{name}"\nzone = "{zone}"\noperator = {{ name = "Example Hosting", zone = "DE" }}\n'
    f"holds = [{SHARD % host if host else ''}]\n"
    for name, zone, host in [
        ("fra", "DE", "qdrant.fra.example"),
        ("muc", "DE-BY", "192.0.2.7"),
        ("par", "FR", "qdrant.par.example"),
        ("zrh", "CH", ""),
    ]
)


def fleet(text: str = FLEET) -> Fleet:
    return Fleet.parse(text, zones())


def made(folder: Path, *, now: datetime = NOW, text: str = FLEET, wishes: Wishes = DEFAULT) -> list[Certified]:
    return certify(fleet(text), folder, wishes=wishes, clock=lambda: now)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def accepted(leaf: Path, root: Path, host: str, at: datetime = NOW) -> bool:
    """Verify as another implementation than OpenSSL does."""
    store = Store([certificate(root)])
    verifier = PolicyBuilder().store(store).time(at).build_server_verifier(x509.DNSName(host))
    try:
        verifier.verify(certificate(leaf), [])
    except VerificationError:
        return False
    return True


def test_each_zone_with_a_host_gets_one_authority_and_nobody_else_reads_its_files(tmp_path: Path) -> None:
    done = made(tmp_path)
    assert [each.zone for each in done] == ["DE", "DE-BY", "FR"]
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    of = {"de": "fra", "de-by": "muc", "fr": "par"}
    names = [(zone, each) for zone, site in of.items() for each in ("root", site, "service")]
    assert files == {f"{zone}/{each}.{kind}" for zone, each in names for kind in ("pem", "key")}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o700}


def test_a_servers_certificate_is_good_for_its_host_under_its_zones_root_alone(tmp_path: Path) -> None:
    made(tmp_path)
    leaf = tmp_path / "de" / "fra.pem"
    assert accepted(leaf, tmp_path / "de" / "root.pem", "qdrant.fra.example")
    assert not accepted(leaf, tmp_path / "fr" / "root.pem", "qdrant.fra.example")
    assert not accepted(leaf, tmp_path / "de" / "root.pem", "qdrant.par.example")
    assert not accepted(leaf, tmp_path / "de" / "root.pem", "qdrant.fra.example", NOW + timedelta(days=398))


def test_a_root_may_sign_for_the_hosts_of_its_own_zone_alone(tmp_path: Path) -> None:
    made(tmp_path)
    found = certificate(tmp_path / "de" / "root.pem").extensions.get_extension_for_class(x509.NameConstraints)
    assert found.critical and found.value.permitted_subtrees == [x509.DNSName("qdrant.fra.example")]
    # a German authority whose key was stolen signs for the French server: nobody believes it
    abroad = made(tmp_path / "thief", text=FLEET.replace("qdrant.fra.example", "qdrant.par.example"))
    thief = tmp_path / "thief" / "de"
    assert abroad[0].zone == "DE" and accepted(thief / "fra.pem", thief / "root.pem", "qdrant.par.example")
    bent = _signed_with(tmp_path / "de", "qdrant.par.example")
    (tmp_path / "bent.pem").write_bytes(bent)
    assert not accepted(tmp_path / "bent.pem", tmp_path / "de" / "root.pem", "qdrant.par.example")


def _signed_with(folder: Path, host: str) -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    root, like = certificate(folder / "root.pem"), certificate(folder / "fra.pem")
    key = serialization.load_pem_private_key((folder / "root.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    built = x509.CertificateBuilder(
        root.subject, like.subject, like.public_key(), 7, like.not_valid_before_utc, like.not_valid_after_utc
    )
    for extension in like.extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            value = x509.SubjectAlternativeName([x509.DNSName(host)])
        built = built.add_extension(value, extension.critical)
    return built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_made_again_nothing_changes_until_the_end_is_near(tmp_path: Path) -> None:
    first = made(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert [each.made for each in made(tmp_path, now=NOW + timedelta(days=366))] == [[], [], []]
    assert {path: path.read_bytes() for path in before} == before
    later = made(tmp_path, now=NOW + timedelta(days=370))
    assert sorted(path.name for path in later[0].made) == ["fra.pem", "service.pem"]
    assert later[0].sites == first[0].sites  # the key is kept, and with it whatever pins it
    assert accepted(
        tmp_path / "de" / "fra.pem", tmp_path / "de" / "root.pem", "qdrant.fra.example", NOW + timedelta(700)
    )


def test_new_keys_are_made_when_asked_for_and_the_pin_follows(tmp_path: Path) -> None:
    first = made(tmp_path)[0].sites["fra"]
    second = made(tmp_path, wishes=Wishes(new_keys=True))[0].sites["fra"]
    assert first != second and first.splitlines()[:3] == second.splitlines()[:3]


def test_a_root_is_made_anew_with_its_key_when_a_host_is_added_and_old_certificates_stay_good(tmp_path: Path) -> None:
    made(tmp_path)
    held = tmp_path / "de"
    old_leaf, old_root = (held / "fra.pem").read_bytes(), (held / "root.pem").read_bytes()
    certify(fleet(), tmp_path, sites=["fra"], hosts=[("fra", "llm.fra.example")], clock=lambda: NOW)
    assert (held / "root.pem").read_bytes() != old_root
    assert accepted(held / "fra.pem", held / "root.pem", "llm.fra.example")
    (tmp_path / "old.pem").write_bytes(old_leaf)
    assert accepted(tmp_path / "old.pem", held / "root.pem", "qdrant.fra.example")


def test_a_certificate_never_outlives_its_root(tmp_path: Path) -> None:
    made(tmp_path, wishes=Wishes(days=397, root_days=100))
    assert certificate(tmp_path / "de" / "fra.pem").not_valid_after_utc == NOW + timedelta(days=100)


def test_a_root_without_its_key_and_a_site_without_a_host_are_refused_with_what_to_do(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "de" / "root.key").unlink()
    with pytest.raises(SiteError, match="without its key"):
        made(tmp_path)
    with pytest.raises(SiteError, match="names no https address at zrh") as refused:
        certify(fleet(), tmp_path, sites=["zrh"])
    assert "--host" in refused.value.hint
    with pytest.raises(SiteError, match="no such Site"):
        certify(fleet(), tmp_path, sites=["zhr"])


def test_the_lines_for_the_fleet_file_are_read_by_it(tmp_path: Path) -> None:
    (done,) = certify(fleet(), tmp_path, sites=["fra"], clock=lambda: NOW)
    text = FLEET.replace('id = "fra"', 'id = "fra"\n' + done.sites["fra"])
    site = fleet(text).site("fra")
    assert Path(site.trust_root) == tmp_path / "de" / "root.pem" and len(site.peer_spki[0]) == 64
    assert fleet(text).digest != fleet().digest
