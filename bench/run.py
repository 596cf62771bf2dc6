"""Domicile beside plain llama-index, on one machine, in one run: `make bench`, or `python -m bench.run`.

`BENCH_PASSAGES=file.jsonl` takes your own passages ({"id", "text"} a line) instead of the examples; `BENCH_COUNT` says
how many; `BENCH_QUICK=1` makes a small run; `BENCH_THREADS` limits both models alike. The targets stand beside each
line; nothing here fails for being slow: speed is a ratio of two things measured now, on a machine as it is.
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
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from bench import corpus  # noqa: E402
from bench.measuring import machine  # noqa: E402
from residency.outlets import models  # noqa: E402
from residency.outlets.embedders.body import physical_cores  # noqa: E402

ROOT = Path(__file__).parent.parent
OUT = Path(os.environ.get("BENCH_OUT", ROOT / "bench" / "results"))
WORK = ROOT / ".cache" / "bench" / str(os.getpid())
QUICK = os.environ.get("BENCH_QUICK", "") not in ("", "0")
SIDES = os.environ.get("BENCH_SIDES", "plain,our,idle").split(",")
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
        "manifest": manifest,
        "asked": corpus.questions(),
    }


def side(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Run one side in a process of its own; its output is shown when it fails."""
    folder = WORK / name
    folder.mkdir(parents=True)
    asked, told = folder / "job.json", folder / "result.json"
    asked.write_text(json.dumps(given | {"folder": str(folder / "data")}), encoding="utf-8")
    (folder / "data").mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": str(given["threads"])}
    with console.status(f"{name}: {given['count']} passages"):
        done = subprocess.run(
            [sys.executable, "-m", f"bench.{name}", str(asked), str(told)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        console.print(done.stdout[-3000:], done.stderr[-6000:], markup=False)
        raise SystemExit(f"bench.{name} failed")
    return dict(json.loads(told.read_text(encoding="utf-8")))


def help_seconds() -> float:
    """Best of five: `domicile --help` as a new process."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([Path(sys.executable).parent / "domicile", "--help"], check=True, capture_output=True)
        best = min(best, time.perf_counter() - began)
    return best


def residency_share(parts: dict[str, Any]) -> dict[str, float]:
    """Give the cost of residency itself in a search: rulings, keys and opening, and the Ledger's commit."""
    whole = parts["whole"]["mean_ms"]
    mine = {name: parts[name]["mean_ms"] for name in ("decide", "open", "ledger") if name in parts}
    return {"share": round(sum(mine.values()) / whole, 3), **{f"{name}_ms": value for name, value in mine.items()}}


def main() -> None:
    given = asyncio.run(job())
    facts: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "count": given["count"],
        "source": given["source"],
        "documents": len(given["documents"]),
        "threads": given["threads"],
    }
    shutil.rmtree(WORK, ignore_errors=True)
    try:
        for name, key in (("plain_side", "plain"), ("our_side", "our"), ("idle", "idle")):
            if key in SIDES:
                facts[key] = side(name, given)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    facts["help_s"] = round(help_seconds(), 3)
    show(facts)
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}.json"
    path.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    console.print(f"\nwritten to {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")


def show(facts: dict[str, Any]) -> None:
    table = Table(
        title=f"{facts['count']} passages of {facts['source']} in {facts['documents']} documents", show_edge=False
    )
    for title in ("what", "Domicile", "llama-index", "ratio", "target"):
        table.add_column(title, justify="left" if title == "what" else "right")
    our, plain = facts.get("our"), facts.get("plain")

    def row(what: str, mine: str, theirs: str = "", ratio: str = "", target: str = "") -> None:
        table.add_row(what, mine, theirs, ratio, target)

    def pair(what: str, path: tuple[str, ...], form: str, *, faster: bool, target: str) -> None:
        mine, theirs = _at(our, path), _at(plain, path)
        ratio = ""
        if mine and theirs:
            ratio = f"{(mine / theirs if faster else theirs / mine):.2f} ×"
        row(what, form.format(mine) if mine else "", form.format(theirs) if theirs else "", ratio, target)

    pair("ingest, passages/s", ("speed", "passages_per_s"), "{:.1f}", faster=True, target="≥ 1 ×")
    pair("pieces indexed", ("speed", "pieces"), "{:.0f}", faster=True, target="")
    pair("search p50, ms", ("speed", "query", "p50_ms"), "{:.2f}", faster=False, target="≥ 1 ×")
    pair("search p95, ms", ("speed", "query", "p95_ms"), "{:.2f}", faster=False, target="≥ 1 ×")
    pair("memory after both, MB", ("memory", "rss_mb"), "{:.0f}", faster=False, target="")
    if our:
        parts = our["speed"]["parts"]
        facts["residency"] = share = residency_share(parts)
        spent = ", ".join(f"{name} {value['mean_ms']:.2f}" for name, value in parts.items() if name != "whole")
        row("of a search, ms (mean)", spent)
        row("residency's share of a search", f"{share['share']:.1%}", "", "", "≤ 10 %")
    if "idle" in facts:
        row("serve, idle, RSS of all, MB", f"{facts['idle']['idle']['rss_mb']:.0f}", "", "", "< 900")
        row("  pages shared counted once, MB", f"{facts['idle']['idle']['pss_mb']:.0f}")
        row("  before any document, MB", f"{facts['idle']['fresh']['rss_mb']:.0f}")
    row("domicile --help, s", f"{facts['help_s']:.2f}", "", "", "< 0.4")
    for name in ("hit@1", "hit@5", "mrr@10"):
        pair(f"examples: {name}", ("quality", name), "{:.3f}", faster=True, target="")
    if our and "quality" in our:
        judged = our["quality"]
        row("examples: answered with the right quote", f"{judged['answered_right']:.3f}")
        row("examples: abstained though answerable", f"{judged['abstained_wrongly']:.3f}")
        row("examples: abstained where unanswerable", judged["abstained_rightly"], "never")
        row("examples: quotes exact to the character", f"{judged['exact_quotes']:.3f}", "", "", "1")
    console.print(table)
    machine_ = facts["machine"]
    threads = ", ".join(f"{name}: {facts[name]['threads']}" for name in ("our", "plain") if name in facts)
    console.print(
        f"{machine_['cpu']}, {machine_['cores']} cores, model threads {threads}; load {machine_['load_before']}"
    )


def _at(tree: dict[str, Any] | None, path: tuple[str, ...]) -> float:
    node: Any = tree
    for name in path:
        node = (node or {}).get(name)
    return float(node or 0)


if __name__ == "__main__":
    main()
