"""Silence: the environment in which no library we load calls home, set before any of them is imported.

Called first thing by `service/cli/__init__.py`, by child processes and by the tests; children inherit what it set.
`doctor` prints what `missing` gives, and `outlets/models.py` refuses to load a model while anything is missing.
This module imports nothing but `os`: importing it must not start what it is there to stop.
"""

import os

SET = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime >= 1.29 reports its host at the first model load otherwise
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # a service's stderr is its log
    "DO_NOT_TRACK": "1",
    "NO_PROXY": "*",  # for libraries that have no switch of their own
    "no_proxy": "*",
}
"""What must stand in the environment, with these values."""

UNSET = (
    "NLTK_DATA",  # a folder lacking the data makes llama-index fetch it
    "TIKTOKEN_CACHE_DIR",  # likewise: llama-index falls back to its bundled files only when this is absent
)
"""What must not stand in the environment at all, beside proxies and everything that begins with `OPENAI_`."""


def _unwanted(name: str) -> bool:
    """Say whether a variable would send traffic or content elsewhere."""
    proxy = name.lower().endswith("_proxy") and name.lower() != "no_proxy"
    return proxy or name in UNSET or name.startswith("OPENAI_")


def silence(home: str = "") -> None:
    """Set and delete what `SET` and `UNSET` say; with `home`, also point llama-index's cache into it (made 0700)."""
    for name in [name for name in os.environ if _unwanted(name)]:
        del os.environ[name]
    os.environ.update(SET)
    # Idle BLAS threads spin and take the cores from the model: turning vectors cost 14 ms a document instead of 0.2.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if home:
        cache = os.path.join(home, "cache")  # noqa: PTH118 - no imports but os
        os.makedirs(cache, mode=0o700, exist_ok=True)  # noqa: PTH103
        os.environ["LLAMA_INDEX_CACHE_DIR"] = cache


def missing() -> list[str]:
    """Name the variables that are not as `silence` sets them, sorted; an empty list means silent."""
    wrong = [name for name, value in SET.items() if os.environ.get(name) != value]
    return sorted(wrong + [name for name in os.environ if _unwanted(name)])
