"""One really built and really served house for each file of tests: four Sites, Edge children, the bundled model."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_socket

from tests.doubles.homes import home, settings
from tests.doubles.serving import Served, serving
from tests.doubles.visiting import Visitor


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, onnx_model: Path) -> Iterator[Served]:
    """Serve a home of the examples' four Sites."""
    pytest_socket.enable_socket()  # each test says so for itself; this is set up before the first of them
    folder = home(tmp_path_factory.mktemp("portal") / "home", onnx_model)
    with serving(settings(folder)) as running:
        yield running
        pytest_socket.enable_socket()


@pytest.fixture(scope="module")
def visitor(served: Served) -> Visitor:
    """Give someone of the tenant `acme`, signed in with every scope."""
    return Visitor(served).sign_in()
