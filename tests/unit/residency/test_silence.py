"""The environment is silent after `silence()`, and `missing()` sees each way in which it is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from residency import silence as module
from residency.silence import SET, missing, silence


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test start silent and put everything back."""
    for name in [*SET, *[name for name in os.environ if module._unwanted(name)]]:
        monkeypatch.delenv(name, raising=False)
    for name, value in SET.items():
        monkeypatch.setenv(name, value)


def test_a_silenced_environment_misses_nothing() -> None:
    assert missing() == []


@pytest.mark.parametrize("name", SET)
def test_each_variable_left_out_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name)
    assert missing() == [name]


@pytest.mark.parametrize(
    "name",
    ["HTTP_PROXY", "https_proxy", "ALL_PROXY", "grpc_proxy", "NLTK_DATA", "TIKTOKEN_CACHE_DIR", "OPENAI_API_KEY"],
)
def test_what_would_lead_elsewhere_is_named_and_then_removed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://198.51.100.7:3128")
    assert missing() == [name]
    silence()
    assert name not in os.environ
    assert missing() == []


def test_a_variable_set_to_another_value_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    assert missing() == ["ORT_DISABLE_TELEMETRY"]


def test_a_home_gets_a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_INDEX_CACHE_DIR", "elsewhere")
    silence(str(tmp_path))
    cache = os.environ["LLAMA_INDEX_CACHE_DIR"]
    assert cache.startswith(str(tmp_path))
    assert Path(cache).stat().st_mode & 0o777 == 0o700


def test_silence_imports_nothing_that_would_have_to_be_silenced_first() -> None:
    code = "import sys; before = set(sys.modules); import residency.silence; print(sorted(set(sys.modules) - before))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['residency', 'residency.silence']"
