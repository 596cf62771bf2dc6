"""The bench runs end to end on a tiny set and says what it measured; what it measured is no test."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.enable_socket
def test_a_quick_run_ends_and_writes_both_sides_figures(tmp_path: Path) -> None:
    environment = os.environ | {"BENCH_QUICK": "1", "BENCH_COUNT": "30", "BENCH_OUT": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-m", "bench.run"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "ingest, passages/s" in done.stdout and "×" in done.stdout
    facts = json.loads(next(tmp_path.glob("*.json")).read_text(encoding="utf-8"))
    assert facts["our"]["passages_per_s"] > 0 and facts["plain"]["passages_per_s"] > 0
    assert facts["our"]["quality"]["exact_quotes"] == 1.0
    assert set(facts["our"]["parts"]) >= {"decide", "embed", "shards", "open", "ledger", "whole"}


def test_the_other_passages_of_a_run_are_varied_and_never_equal() -> None:
    from bench.corpus import vary

    text = "Article 5 applies. It costs 12.50 euros. Nobody pays twice."

    assert len({vary(text, turn) for turn in range(1, 8)}) == 7
    assert sorted(vary(text, 1).split()[-1:]) != sorted(text.split()[-1:])


def test_a_rank_needs_the_right_document_and_the_beginning_of_the_quote() -> None:
    from bench.judging import rank

    item = {"document": "a.txt", "quote": "Hot food is\nallowed in Workshop only."}
    found = [("b.txt", "Hot food is allowed in Workshop only."), ("a.txt", "No. HOT FOOD is allowed in workshop only.")]

    assert rank(item, found) == 2
    assert rank(item, found[:1]) == 0
