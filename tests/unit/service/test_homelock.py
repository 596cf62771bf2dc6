"""The home's lock: a second process hears who holds it; a killed one holds nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import HomeError
from service.homelock import locked

ROOT = Path(__file__).parents[3]
HOLD = """
import sys
from pathlib import Path
from service.homelock import locked
with locked(Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(home: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, "serve", str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_hears_who_holds_the_home_and_what_to_do(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        with pytest.raises(HomeError) as caught, locked(tmp_path):
            pytest.fail("the lock was given twice")  # pragma: no cover
        assert f"`domicile serve` (process {process.pid})" in str(caught.value)
        assert "over HTTP" in caught.value.hint
        process.kill()
    with locked(tmp_path):
        assert str(os.getpid()) in (tmp_path / "lock").read_text()


def test_the_lock_is_free_again_after_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path), pytest.raises(HomeError), locked(tmp_path):
            pytest.fail("the lock was given twice")  # pragma: no cover


def test_a_lock_file_that_says_nothing_still_gives_a_clear_message(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        (tmp_path / "lock").write_text("")
        with pytest.raises(HomeError, match="another domicile process"), locked(tmp_path):
            pytest.fail("the lock was given twice")  # pragma: no cover
        process.kill()


def test_the_lock_file_is_its_owners_alone(tmp_path: Path) -> None:
    with locked(tmp_path):
        assert (tmp_path / "lock").stat().st_mode & 0o077 == 0
