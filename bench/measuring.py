"""What both sides measure with: percentiles, memory of a process tree, facts of the machine, jobs as JSON files."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest-rank percentile of a non-empty sequence."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * (len(ordered) - 1))))]


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and mean in milliseconds."""
    return {
        "p50_ms": round(percentile(seconds, 0.5) * 1e3, 3),
        "p95_ms": round(percentile(seconds, 0.95) * 1e3, 3),
        "mean_ms": round(sum(seconds) / len(seconds) * 1e3, 3),
    }


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def tree_memory(pid: int) -> dict[str, Any]:
    """Resident bytes of a process and all its children. `pss` counts pages shared by several of them once."""
    rows = []
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        full = process.memory_full_info()
        words = [word for word in process.cmdline() if not word.startswith("-")]
        name = next((word for word in words[1:] if "." in word or "/" in word), words[0] if words else "")
        rows.append(
            {"name": Path(name).name[:40], "rss_mb": round(full.rss / 1e6, 1), "pss_mb": round(full.pss / 1e6, 1)}
        )
    return {
        "rss_mb": round(sum(row["rss_mb"] for row in rows), 1),
        "pss_mb": round(sum(row["pss_mb"] for row in rows), 1),
        "processes": rows,
    }


def machine() -> dict[str, Any]:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "python": platform.python_version(),
        "load_before": [round(value, 2) for value in os.getloadavg()],
    }


def read_job() -> dict[str, Any]:
    """Read the job that the orchestrator wrote: a side is started as `python -m bench.<side> JOB RESULT`."""
    return dict(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))


def write_result(result: dict[str, Any]) -> None:
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
