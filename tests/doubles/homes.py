"""Homes for tests: really prepared, with the Fleet of the examples or one Site, and the exported model lent by link."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from service.home import office, prepare
from service.settings import Settings, load

ROOT = Path(__file__).parents[2]
FOUR_SITES = ROOT / "examples" / "fleet.toml"


def home(folder: Path, onnx: Path, *, fleet: Path | None = FOUR_SITES, zone: str = "DE") -> Path:
    """Prepare a home; `onnx` is the exported model, which lies in a folder named after the model's digest."""
    prepare(folder, zone=zone, operator=zone)
    if fleet is not None:
        shutil.copyfile(fleet, folder / "fleet.toml")
    (folder / "models").mkdir()
    (folder / "models" / onnx.parent.name[:16]).symlink_to(onnx.parent.absolute(), target_is_directory=True)
    return folder


def settings(folder: Path, **changes: str) -> Settings:
    """Read a home's settings; `ingestion__max_bytes="1000"` changes one as the environment would."""
    names = {f"DOMICILE_{name.upper()}": value for name, value in {"models__threads": "1", **changes}.items()}
    return load(folder, environ=names)


def key(chosen: Settings, tenant: str, *scopes: str, groups: Iterable[str] = (), ceiling: Iterable[str] = ()) -> str:
    """Issue an API key; the tenant is made when it is new."""
    with office(chosen) as accounts:
        accounts.ensure_tenant(tenant, ceiling=ceiling or ("EEA", "US"), zone=chosen.here.zone)
        return accounts.issue(tenant, scopes=scopes, groups=groups)
