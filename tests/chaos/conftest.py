"""PostgreSQL for the tests that kill, and the process that tells a Document's story."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.chaos.telling import ROOT
from tests.integration.conftest import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url", "teller"]


@pytest.fixture(scope="module")
def teller() -> Iterator[subprocess.Popen[str]]:
    """Start the process of `story.py` once for a module."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.chaos.story"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.stdin.close()
    process.stdout.close()
    assert process.wait(10) == 0
