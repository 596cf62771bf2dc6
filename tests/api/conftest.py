"""One really built and really served house for each file of tests: four Sites, Edge children, the bundled model."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import pytest_socket

from tests.doubles.homes import home, settings
from tests.doubles.serving import Served, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, onnx_model: Path) -> Iterator[Served]:
    """Serve a home of the examples' four Sites."""
    pytest_socket.enable_socket()  # each test says so for itself; this is set up before the first of them
    folder = home(tmp_path_factory.mktemp("api") / "home", onnx_model)
    with serving(settings(folder)) as running:
        yield running
        pytest_socket.enable_socket()


@pytest.fixture(scope="module")
def client(served: Served) -> httpx.Client:
    """Give a client of the tenant `acme` with every scope."""
    return served.client()
