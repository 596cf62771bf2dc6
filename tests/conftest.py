"""What every test stands on: a silent environment, and the bundled model exported once for all runs."""

from residency.silence import silence

silence()  # before any import that could call home

from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402

from residency.egress import watching  # noqa: E402
from residency.outlets import models  # noqa: E402

CACHE = Path(__file__).parent.parent / ".cache"


@pytest.fixture(scope="module", autouse=True)
def no_tripwire_left() -> Iterator[None]:
    """A verb that ran in this process leaves its tripwire, as it would leave it to the process's end."""
    yield
    if (tripwire := watching()) is not None:
        tripwire.uninstall()


@pytest.fixture(scope="session")
def bundled_model() -> models.VerifiedModel:
    """The model that ships with Domicile, verified."""
    return models.bundled()


@pytest.fixture(scope="session")
def onnx_model(bundled_model: models.VerifiedModel) -> Path:
    """Path of the bundled model's ONNX export; made once and kept in the repository's ignored `.cache/`."""
    from residency.outlets.embedders.onnx_export import export

    return export(bundled_model, CACHE / "models" / bundled_model.digest.removeprefix("sha256:"))
