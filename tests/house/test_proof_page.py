"""The worked verification of docs/proof.md, run as it stands: with Python's standard library, sha256sum and openssl."""

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from residency import receipt
from residency.database import Database, metadata
from residency.ledger import Ledger
from residency.logkey import LogKey
from residency.receipt import Draft
from residency.tag import Tag
from service import byhand
from tests.doubles.lacking import need

PAGE = (Path(__file__).parents[2] / "docs" / "proof.md").read_text(encoding="utf-8")
QUESTION = "What is the notice period?"


def commands() -> str:
    """Everything in the fences marked `sh`, in their order."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    script = "set -euo pipefail\n" + commands()
    return subprocess.run(["bash", "-c", script], check=False, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A receipt among others, the trust file and an opening, as an auditor gets them."""
    database = Database(f"sqlite:///{tmp_path}/ledger.sqlite")
    metadata.create_all(database.engine)
    ticks = iter(range(1000))
    ledger = Ledger(
        database,
        LogKey.generate(),
        origin="domicile.example/ledger/1",
        digests=lambda: {"policy": "sha256:aa", "zones": "sha256:bb", "fleet": "sha256:cc"},
        software="0.1.0",
        clock=lambda: datetime(2026, 11, 23, tzinfo=UTC) + timedelta(seconds=next(ticks)),
    )
    tag = Tag(frozenset({"DE"}), frozenset({"EU"}))
    commits = {"question": QUESTION.encode(), "documents": [b"d" * 16]}
    stored = [
        ledger.append(Draft("answer", "northwind", "support", (tag,), commits=commits, facts={"note": f"Größe {n}"}))
        for n in range(13)
    ][6]
    out = tmp_path / "audit"
    out.mkdir()
    bundle = ledger.bundle("northwind", stored.id)
    r = ledger.opening("northwind", stored.id)
    assert r is not None
    (out / "receipt.json").write_text(json.dumps(bundle, indent=2))
    (out / "trust.txt").write_text(ledger.trust)
    (out / "opening.json").write_text(json.dumps({"r": r.hex(), "field": "question", "text": QUESTION}))
    database.close()
    return out


@pytest.fixture(autouse=True)
def _programs() -> None:
    need("bash", "openssl", "sha256sum", "python3", package="openssl, coreutils")


def test_the_commands_of_the_page_verify_a_real_receipt(folder: Path) -> None:
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Signature Verified Successfully") == 2
    assert "leaf 6 of 13 is in the tree of domicile.example/ledger/1" in done.stdout
    assert "the commitment is to this text" in done.stdout


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("receipt.json", '"withheld": 0', '"withheld": 1'),
        ("receipt.json", "index 6", "index 5"),
        ("receipt.json", "13\\n", "12\\n"),
        ("opening.json", "notice period", "fee"),
    ],
)
def test_the_commands_of_the_page_refuse_a_change(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    assert run(folder).returncode != 0


def test_the_register_of_the_page_is_one_that_is_read(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "register.toml").write_text(block)
    found = byhand.load(tmp_path / "register.toml")
    assert set(found["activity"]) == {"search", "translation"} and found["controller"]["name"]


def test_canonical_json_is_what_the_page_says_it_is() -> None:
    value = {"b": "Größe\n\u2028", "a": [1, True, None, {"z": "", "Z": "\u007f\t"}]}
    plain = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert receipt.canonical(value) == plain
