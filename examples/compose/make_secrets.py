"""Make the secrets of compose.yaml: passwords, API keys, and each zone's certificates by `domicile sites certify`.

Needs Domicile installed (`make setup`). Files that are there stay as they are and certificates near their end are made
anew, so that it can be run again any day. The folder is 0700: Compose hands each file into its container as it is,
where other accounts must be able to read it (0444). The roots' private keys lie in `zones/*/root.key`, which no
container gets: move them to a safe place and bring them back to renew.
"""

import os
import secrets
import sys
from pathlib import Path

from residency.fleet import Fleet
from residency.zones import Zones
from service.certifying import certify

HERE = Path(__file__).parent
FOLDER = HERE / "secrets"
ZONES = HERE.parents[1] / "policies" / "zones.toml"
SITES = {"de": "de-frankfurt", "fr": "fr-paris"}
"""The folder of a zone's certificates, and the Site whose server shows one."""
HOSTS = (("de-frankfurt", "generator"),)
"""Beyond the hosts that the fleet file names: the generator stands there commented out."""


def put(path: Path, data: bytes) -> None:
    """Write a file that was not there, or another than was there."""
    if path.exists() and path.read_bytes() == data:
        return
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def make(folder: Path) -> list[str]:
    """Make every file that is missing or about to end; gives the names of those made."""
    folder.mkdir(mode=0o700, exist_ok=True)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}
    for name in ("postgres_password", "generator_key", *(f"qdrant_{zone}_key" for zone in SITES)):
        if not (folder / name).exists():
            put(folder / name, secrets.token_urlsafe(32).encode())
    certify(Fleet.load(HERE / "fleet.toml", Zones.load(ZONES)), folder / "zones", hosts=HOSTS)
    for zone, site in SITES.items():
        key = (folder / f"qdrant_{zone}_key").read_text("ascii")
        # Qdrant takes its key from a settings file. gRPC stays off: there it would not ask for our certificate.
        put(folder / f"qdrant_{zone}_config", f'service:\n  api_key: "{key}"\n  grpc_port: null\n'.encode())
        given = {
            f"zone_{zone}_root": "root.pem",
            f"site_{zone}_cert": f"{site}.pem",
            f"site_{zone}_tls_key": f"{site}.key",
            f"service_{zone}_cert": "service.pem",
            f"service_{zone}_tls_key": "service.key",
        }
        for name, file in given.items():
            put(folder / name, (folder / "zones" / zone / file).read_bytes())
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}
    return sorted(name for name, changed in after.items() if before.get(name) != changed)


def main() -> int:
    """Make the files and say which."""
    made = make(FOLDER)
    print(f"{len(made)} files made in {FOLDER}" if made else f"everything is there already in {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
