"""Who may import whom: the contracts of pyproject.toml hold, and a planted import breaks each of them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("service", "ingestion", "residency")
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(folder: Path) -> tuple[int, str]:
    """Run the contracts on the tree below `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_every_contract_is_kept() -> None:
    code, said = lint(ROOT)
    assert code == 0, said
    assert "12 kept, 0 broken" in said


PLANTED = {
    "service/searching.py": ["import httpx", "import residency.outlets.connect", "import litestar"],
    "residency/verify.py": ["import sqlalchemy", "import residency.trial", "import service.settings", "import cedarpy"],
    "residency/outlets/keys/file.py": ["import residency.outlets.vaults.folder"],
    "ingestion/readers/plain.py": ["import residency.tag"],
    "ingestion/documents.py": ["import ingestion.readers.pdf", "import ingestion.worker"],
    "service/settings.py": ["import service.house"],
}
BROKEN = [
    "each way out has one door",
    "only the composition root opens the corridor",
    "use-cases know neither HTTP nor the command line",
    "what rules and what proves does no IO",
    "the corridor knows the core, the core does not know the corridor",
    "service -> ingestion -> residency, never back",
    "Cedar is spoken in three files",
    "bodies of the five ports do not know each other",
    "readers see bytes and nothing else",
    "readers are started by the sandbox alone",
    "inside ingestion: the worker, stories, rows, what a text says, the readers",
    "inside the service: commands, app, faces, use-cases",
]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Copy the rooms, plant an import against each contract, and give what the linter says."""
    folder = tmp_path_factory.mktemp("tree")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__", "static", "templates"))
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    for file, lines in PLANTED.items():
        path = folder / file
        path.write_text(path.read_text(encoding="utf-8") + "\n" + "\n".join(lines) + "\n", encoding="utf-8")
    code, said = lint(folder)
    assert code == 1
    return said


@pytest.mark.parametrize("contract", BROKEN)
def test_a_planted_import_breaks_its_contract(planted: str, contract: str) -> None:
    assert f"{contract} BROKEN" in " ".join(planted.split())


def test_every_contract_has_its_planted_import() -> None:
    import tomllib

    block = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    assert sorted(each["name"] for each in block["contracts"]) == sorted(BROKEN)


def test_every_file_of_the_engine_and_of_ingestion_stands_in_a_layer() -> None:
    import tomllib

    block = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    for contract, room in (("core", "residency"), ("story", "ingestion"), ("faces", "service")):
        (layers,) = [each["layers"] for each in block["contracts"] if each["id"] == contract]
        named = {part.strip() for layer in layers for part in layer.replace("|", ":").split(":")}
        there = {
            path.stem for path in (ROOT / room).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
        }
        assert there - {"__init__"} == named, room
