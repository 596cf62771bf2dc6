"""SoftHSM2 for tests: a token folder of a test's own, a module started anew, and a token that can be pulled out."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doubles.lacking import lacking

PIN = "8-digits-or-so"
PLACES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")


def module() -> Path:
    """Give SoftHSM2's library; skips with the reason where it is absent, and fails where every part is insisted on."""
    found = [Path(place) for place in PLACES if Path(place).exists() and shutil.which("softhsm2-util")]
    if not found:
        lacking("SoftHSM2 is not installed (Debian: softhsm2)")
    return found[0]


@dataclass
class SoftHsm:
    """One token store. `module` and `pin` are what a provider is given."""

    folder: Path
    module: Path
    pin: Path

    def token(self, label: str) -> str:
        """Make a token and give its label."""
        subprocess.run(
            ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "officer-12"],
            check=True,
            capture_output=True,
        )
        return label

    def pull(self) -> None:
        """Take every token out."""
        (self.folder / "tokens").rename(self.folder / "pulled")

    def plug(self) -> None:
        """Put them back."""
        (self.folder / "pulled").rename(self.folder / "tokens")


def softhsm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    """Lay out a token store and start the module on it: it reads its settings when it starts."""
    path = module()
    from residency.outlets.keys import pkcs11 as provider

    (folder / "tokens").mkdir(parents=True)
    settings = f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    (folder / "softhsm2.conf").write_text(settings)
    pin = folder / "pin"
    pin.write_text(PIN + "\n")
    pin.chmod(0o600)
    monkeypatch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
    held = provider._module(path)
    held.refused.clear()
    held.thread.submit(held.again).result(30)
    return SoftHsm(folder, path, pin)
