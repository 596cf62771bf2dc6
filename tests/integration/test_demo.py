"""The main job on the examples, as `make demo` runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def test_the_demo_ends_well_and_leaves_a_report(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "examples/demo.py", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    reports = {path.suffix for path in out.glob("*") if path.is_file() and path.stat().st_size > 1000}
    assert {".html", ".pdf", ".json"} <= reports
