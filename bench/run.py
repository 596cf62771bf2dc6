"""Domicile beside plain llama-index, on one machine, in one run: `make bench`, or `python -m bench.run`.

Each side is a process of its own, and they take turns, a few documents or questions at a time, so that whatever else
the machine does falls on both. Nothing here fails for being slow: the targets stand beside the figures.

`BENCH_PASSAGES=file.jsonl` takes your own passages ({"id", "text"} a line) instead of the examples; `BENCH_COUNT` says
how many; `BENCH_QUICK=1` makes a small run; `BENCH_THREADS` holds both models to as many threads; `BENCH_OUT` is the
folder for the figures.
"""

from residency.silence import silence

silence()

import asyncio  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from datetime import UTC, datetime  # noqa: E402
from itertools import pairwise  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from rich.console import Console  # noqa: E402

from bench import corpus  # noqa: E402
from bench.judging import sum_up  # noqa: E402
from bench.measuring import Side, machine, percentile, spread  # noqa: E402
from bench.table import table  # noqa: E402
from residency.outlets import models  # noqa: E402
from residency.outlets.embedders.body import physical_cores  # noqa: E402

ROOT = Path(__file__).parent.parent
OUT = Path(os.environ.get("BENCH_OUT", ROOT / "bench" / "results"))
WORK = ROOT / ".cache" / "bench" / str(os.getpid())
QUICK = os.environ.get("BENCH_QUICK", "") not in ("", "0")
TURNS = 2 if QUICK else 4
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


async def job() -> dict[str, Any]:
    """Make what both sides get: documents, questions for timing, examples and questions for judging."""
    count = int(os.environ.get("BENCH_COUNT", "120" if QUICK else "1000"))
    source = os.environ.get("BENCH_PASSAGES", "")
    found = await corpus.passages(count, source)
    texts = await corpus.example_texts()
    manifest = corpus.manifest()
    live = [each["file"] for each in manifest["document"] if each["outcome"] == "live"]
    return {
        "count": len(found),
        "source": Path(source).name if source else "examples",
        "documents": corpus.documents(found),
        "questions": corpus.asked(found, 20 if QUICK else 200),
        "top_k": 5,
        "threads": int(os.environ.get("BENCH_THREADS", physical_cores())),
        "batch": int(os.environ.get("BENCH_BATCH", "32")),
        "model": str(models.bundled().path),
        "examples": [{"name": name, "text": texts[name]} for name in live],
        "texts": texts,
        "exported": str(WORK / "model"),
        "manifest": manifest,
        "asked": corpus.questions(),
    }


def compare(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Let both sides take turns; give the figures of each."""
    environment = dict(os.environ) | {"OMP_NUM_THREADS": str(given["threads"])}
    sides = [Side(name, given, WORK / name, environment) for name in ("plain_side", "our_side")]
    figures: list[dict[str, Any]] = []
    try:
        figures += [side.do("warm") | {"seconds": 0.0, "pieces": 0, "times": [], "parts": []} for side in sides]
        for first, last in _turns(len(given["documents"])):
            for side, figure in zip(sides, figures, strict=True):
                done = side.do("ingest", first=first, last=last)
                figure["seconds"] += done["seconds"]
                figure["pieces"] = done["pieces"] + (figure["pieces"] if side.name == "our_side" else 0)
        for side in sides:
            side.do("ask", first=0, last=5)  # the first questions load what is loaded once
        for first, last in _turns(len(given["questions"]), 2 * TURNS):
            for side, figure in zip(sides, figures, strict=True):
                done = side.do("ask", first=first, last=last)
                figure["times"] += done["times"]
                figure["parts"] += done.get("parts", [])
        for side, figure in zip(sides, figures, strict=True):
            figure["memory"] = side.do("memory")
            figure["quality"] = side.do("quality")
            figure["passages_per_s"] = given["count"] / figure["seconds"]
            figure["query"] = spread(figure.pop("times"))
            figure["parts"] = _parts(figure["parts"])
        plain, our = figures
        our["quality"], plain["quality"] = sum_up(our["quality"]["rows"], plain["quality"]["rows"])
    finally:
        for side in sides:
            side.end()
    return figures[0], figures[1]


def _turns(count: int, turns: int = TURNS) -> list[tuple[int, int]]:
    cuts = sorted({round(count * turn / turns) for turn in range(turns + 1)})
    return list(pairwise(cuts))


def _parts(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean, median and lowest tenth, in milliseconds, of each part of a search."""
    found = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name, 0.0) for row in rows]
        found[name] = {
            "mean_ms": round(sum(values) / len(values) * 1e3, 3),
            "p10_ms": round(percentile(values, 0.1) * 1e3, 3),
            "p50_ms": round(percentile(values, 0.5) * 1e3, 3),
        }
    return found


def residency_share(parts: dict[str, dict[str, float]]) -> dict[str, float]:
    """Give what residency itself takes of a search: ruling, opening with keys, and the Ledger's commit; medians."""
    mine = {f"{name}_ms": parts[name]["p50_ms"] for name in ("decide", "open", "ledger")}
    return {"share": round(sum(mine.values()) / parts["whole"]["p50_ms"], 3), **mine}


def help_seconds() -> float:
    """Best of five: `domicile --help` as a new process."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([Path(sys.executable).parent / "domicile", "--help"], check=True, capture_output=True)
        best = min(best, time.perf_counter() - began)
    return best


def main() -> None:
    """Measure, print, write down."""
    given = asyncio.run(job())
    facts: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "passages": given["count"],
        "source": given["source"],
        "documents": len(given["documents"]),
        "questions": len(given["questions"]),
        "top_k": given["top_k"],
    }
    shutil.rmtree(WORK, ignore_errors=True)
    try:
        with console.status(f"{given['count']} passages into both"):
            facts["plain"], facts["our"] = compare(given)
        facts["residency"] = residency_share(facts["our"]["parts"])
        with console.status("domicile serve, idle"):
            idle = Side("idle", given, WORK / "idle", dict(os.environ))
            facts["idle"] = idle.do("measure")
            idle.end()
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    facts["help_s"] = round(help_seconds(), 3)
    facts["machine"]["load_after"] = machine()["load"]
    console.print(table(facts))
    console.print(
        f"{facts['machine']['cpu']}, {facts['machine']['cores']} cores; model threads {facts['our']['threads']} and "
        f"{facts['plain']['threads']}; load {facts['machine']['load'][0]} to {facts['machine']['load_after'][0]}"
    )
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}.json"
    path.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    console.print(f"written to {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")


if __name__ == "__main__":
    main()
