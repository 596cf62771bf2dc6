"""What the API's description promises is held against the served API, call by call, with generated requests."""

import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.doubles.serving import Served, live

pytestmark = pytest.mark.enable_socket

DESCRIPTION = json.loads((Path(__file__).parents[2] / "openapi.json").read_bytes())
EXAMPLES = 8
"""Requests for each call and mode."""
CONFIG = SchemathesisConfig.from_dict(
    {
        "seed": 1,
        "generation": {
            "deterministic": True,
            "no-shrink": True,
            "max-examples": EXAMPLES,
            "with-security-parameters": False,
        },
    }
)
schema = schemathesis.openapi.from_dict(DESCRIPTION, config=CONFIG)
load_all_checks()


@pytest.fixture(scope="module")
def place(served: Served) -> dict[str, Any]:
    with served.client() as client:
        live(client, "gate.txt", "The east gate opens at 06:15.\n")
    return {"base_url": served.url, "headers": {"Authorization": f"Bearer {served.key()}"}}


LEFT_OUT = [positive_data_acceptance]
"""What is right by its shape may be refused by its meaning: a blank question, a zone that does not exist."""


@schema.parametrize()
@settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_a_call_ends_as_its_description_says(case: schemathesis.Case, place: dict[str, Any]) -> None:
    case.call_and_validate(base_url=place["base_url"], headers=place["headers"], excluded_checks=LEFT_OUT)
