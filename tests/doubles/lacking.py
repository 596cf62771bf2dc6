"""A part that a test needs and this machine lacks: skipped with the reason, failed where every part is insisted on."""

import os
import shutil
from typing import NoReturn

import pytest

NO_NAMESPACES = "the kernel gives this account no namespaces (root, or kernel.unprivileged_userns_clone and its kin)"


def lacking(reason: str) -> NoReturn:
    """Skip the running test for `reason`; under `DOMICILE_TEST_INSIST` fail it."""
    if os.environ.get("DOMICILE_TEST_INSIST"):
        pytest.fail(f"insisted on, and lacking: {reason}")
    pytest.skip(reason)


def need(*programs: str, package: str) -> None:
    """Skip or fail the running test unless these programs are installed; `package` names Debian's."""
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        lacking(f"needs {' and '.join(absent)} (Debian: {package})")
