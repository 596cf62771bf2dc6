"""What both sides measure with: percentiles, memory of a process tree, facts of the machine, jobs as JSON files."""

import json
import os
import platform
import shutil
import subprocess
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
    """Percentiles and mean in milliseconds; p10 is what is left when others on the machine disturb least."""
    return {
        "p10_ms": round(percentile(seconds, 0.1) * 1e3, 3),
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
        "load": [round(value, 2) for value in os.getloadavg()],
    }


MARK = "\x1e"
"""Stands before an answer: whatever else a library prints is no answer."""


def read_job() -> dict[str, Any]:
    """Read the job that the orchestrator wrote: a side is started as `python -m bench.<side> JOB`."""
    return dict(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))


def next_task() -> dict[str, Any] | None:
    """Wait for the next thing to do; None at the end."""
    line = sys.stdin.readline()
    return dict(json.loads(line)) if line else None


def answer(result: Any) -> None:
    """Hand a result to the orchestrator."""
    print(MARK + json.dumps(result), flush=True)


def keep_model(job: dict[str, Any], home: Path) -> None:
    """Keep what a home made of the model, for the other homes of this run: an export takes seconds."""
    shutil.copytree(home / "models", job["exported"], dirs_exist_ok=True)


def lend_model(job: dict[str, Any], home: Path) -> None:
    """Give a new home the model's export, if there is one already."""
    if Path(job["exported"]).is_dir():
        shutil.copytree(job["exported"], home / "models", dirs_exist_ok=True)


class Side:
    """One side in a process of its own, told what to do line by line, so that two of them take turns on one machine."""

    def __init__(self, name: str, job: dict[str, Any], folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        (folder / "data").mkdir(parents=True)
        path = folder / "job.json"
        path.write_text(json.dumps(job | {"folder": str(folder / "data")}), encoding="utf-8")
        self._errors = (folder / "errors.txt").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"bench.{name}", str(path)],
            cwd=Path(__file__).parent.parent,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def do(self, task: str, **arguments: Any) -> Any:
        """Have one thing done and give what came of it. Raises `SystemExit` with the side's last words if it died."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin and stdout
        try:
            stdin.write(json.dumps({"do": task, **arguments}) + "\n")
            stdin.flush()
        except BrokenPipeError:
            pass  # said below
        for line in stdout:
            if line.startswith(MARK):
                return json.loads(line[1:])
        self._errors.seek(0)
        raise SystemExit(f"bench.{self.name} died over {task}:\n{self._errors.read()[-5000:]}")

    def end(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._errors.close()
