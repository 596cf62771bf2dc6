"""The Ledger's speed and size: append, sequence, prove, verify, open, report; figures and how they stand to their aims.

    python -m bench.ledger                       200,000 entries
    BENCH_LEDGER=1000000 python -m bench.ledger  a million
    BENCH_LEDGER_KEEP=folder …                   keep the database there, and use it again when it is there

An entry is a typical answer: two documents, four steps at one Site, five commitments, about 2.2 kB.
"""

import asyncio
import json
import os
import resource
import secrets
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.measuring import machine, percentile
from residency import leaves as rows
from residency import receipt, verify
from residency.appending import MOST, Entry
from residency.database import Database, metadata
from residency.fleet import Fleet
from residency.journal import Touch
from residency.ledger import Ledger
from residency.logkey import LogKey
from residency.receipt import Draft
from residency.route import Action
from residency.tag import Tag
from residency.zones import Zones
from service.reporting import Reporting

ROOT = Path(__file__).parents[1]
COUNT = int(os.environ.get("BENCH_LEDGER", "200000"))
IN_ONE = 500
"""Entries in one transaction while filling: what a commit costs is measured apart."""
ALONE = 116
"""Of those, written one by one, as a story that has no company; the others as callers that share a commit."""
CALLERS = 64
"""At the same time, while measuring what sharing a commit gives."""
ZONES = Zones.load(ROOT / "policies" / "zones.toml")
FLEET = Fleet.load(ROOT / "examples" / "fleet.toml", ZONES)
SITE = next(iter(FLEET.sites))
TAG = Tag(frozenset({"DE"}), frozenset({"EU"}))
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
DOCUMENTS = [secrets.token_bytes(16) for _ in range(5000)]


class Clock:
    """A year, in as many steps as there are entries."""

    def __init__(self, count: int) -> None:
        self.now, self.step = BEGIN, timedelta(days=364) / max(1, count)

    def __call__(self) -> datetime:
        self.now += self.step
        return self.now


class Rules:
    """What a report asks of the engine."""

    fleet, zones = FLEET, ZONES


class Kept:
    """The one table, under whatever digest."""

    def zones(self, digest: str) -> Zones:
        return ZONES

    def clauses(self, digests: Any, zones: Zones) -> tuple[dict[str, Any], list[str]]:
        return {}, []


class Nothing:
    """An inventory without documents."""

    def placement(self, tenant: str) -> list[dict[str, Any]]:
        return []


def draft(n: int) -> Draft:
    tags = frozenset({TAG.digest.hex()})
    touched = [
        Touch(action, SITE, kind, tags, ("permit-in-residency",), count=1 + n % 5, bytes=900 + n % 701)
        for action, kind in ((Action.EMBED, "embedder"), (Action.SEARCH, "shard"), (Action.OPEN, "keys"))
    ]
    touched.append(Touch(Action.SEARCH, SITE, "shard", tags, ("permit-in-residency", "permit-hold"), count=n % 7))
    return Draft(
        "answer",
        "northwind",
        "search",
        (TAG,),
        receipt.steps(touched, FLEET, BEGIN, reason="asked"),
        commits={
            "principal": b"key:0123456789abcdef",
            "question": b"What does clause %d of the agreement say about notice?" % n,
            "answer": b"It says that notice is given in writing, three months before the end of a quarter." * 3,
            "documents": [DOCUMENTS[n % 5000], DOCUMENTS[(n * 7 + 1) % 5000]],
        },
    )


def opened(folder: Path, key: LogKey, clock: Clock) -> Ledger:
    database = Database(f"sqlite:///{folder}/ledger.sqlite")
    metadata.create_all(database.engine)
    return Ledger(
        database,
        key,
        origin="bench.example/ledger/1",
        digests=lambda: {"policy": "sha256:" + "aa" * 32, "zones": ZONES.digest, "fleet": FLEET.digest},
        software="domicile bench",
        clock=clock,
        mirror=folder / "ledger.checkpoint",
    )


def fill(ledger: Ledger) -> dict[str, float]:
    """Append entries, a second's worth to a checkpoint."""
    began = time.perf_counter()
    appending = sequencing = shared = 0.0
    rules = ledger._digests()  # noqa: SLF001
    for first in range(0, COUNT, IN_ONE):
        drafts = [draft(n) for n in range(first, min(first + IN_ONE, COUNT))]
        at = time.perf_counter()
        with ledger.database.transaction() as connection:
            for each in drafts[:ALONE]:
                ledger.append(each, connection)
            appending += time.perf_counter() - at
            at = time.perf_counter()
            for start in range(ALONE, len(drafts), MOST):
                entries = [Entry(each, rules) for each in drafts[start : start + MOST]]
                ledger._writer.write(connection, entries)  # noqa: SLF001
            shared += time.perf_counter() - at
        at = time.perf_counter()
        ledger.sequence()
        sequencing += time.perf_counter() - at
        if first % 20_000 == 0:
            print(f"\r{first:,} of {COUNT:,}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return {
        "append_alone_us": appending / (COUNT * ALONE / IN_ONE) * 1e6,
        "append_shared_us": shared / (COUNT * (IN_ONE - ALONE) / IN_ONE) * 1e6,
        "sequence_us": sequencing / COUNT * 1e6,
        "fill_s": time.perf_counter() - began,
    }


def making(ledger: Ledger, key: LogKey) -> dict[str, float]:
    """Build, canonicalise and sign a typical entry, without any database: best of many rounds, and the median."""
    one, digests, r = draft(7), ledger._digests(), secrets.token_bytes(32)  # noqa: SLF001

    def make() -> None:
        made = receipt.build(
            one, seq=7, id=receipt.new_id(), time=receipt.stamp(BEGIN), software="domicile bench", digests=digests, r=r
        )
        ledger.sign(receipt.leaf(made))

    rounds = []
    for _ in range(40):
        at = time.perf_counter()
        for _ in range(100):
            make()
        rounds.append((time.perf_counter() - at) / 100 * 1e6)
    body = receipt.leaf(
        receipt.build(one, seq=7, id=receipt.new_id(), time=receipt.stamp(BEGIN), software="x", digests=digests, r=r)
    )
    bare = []
    for _ in range(40):
        at = time.perf_counter()
        for _ in range(100):
            key.private.sign(body)
        bare.append((time.perf_counter() - at) / 100 * 1e6)
    return {
        "make_best_us": min(rounds),
        "make_median_us": percentile(rounds, 0.5),
        "ed25519_alone_us": min(bare),
        "entry_bytes": len(body),
    }


def committing(ledger: Ledger) -> dict[str, float]:
    """Append one entry durably, as a question does; then as many questions at the same time do."""
    times = []
    for n in range(200):
        one = draft(n)
        at = time.perf_counter()
        ledger.append(one)
        times.append(time.perf_counter() - at)
    ledger.sequence()

    async def together() -> list[float]:
        async def one(n: int) -> float:
            at = time.perf_counter()
            await ledger.record(draft(n))
            return time.perf_counter() - at

        return await asyncio.gather(*(one(n) for n in range(CALLERS)))

    waits, spent = [], 0.0
    for _ in range(5):
        at = time.perf_counter()
        waits += asyncio.run(together())
        spent += time.perf_counter() - at
    ledger.sequence()
    return {
        "append_durable_p50_ms": percentile(times, 0.5) * 1e3,
        "append_durable_p95_ms": percentile(times, 0.95) * 1e3,
        "append_durable_per_s": len(times) / sum(times),
        "shared_durable_p50_ms": percentile(waits, 0.5) * 1e3,
        "shared_durable_p95_ms": percentile(waits, 0.95) * 1e3,
        "shared_durable_per_s": len(waits) / spent,
    }


def proving(ledger: Ledger) -> dict[str, float]:
    size = ledger.sequence()
    times, checks = [], []
    with ledger.database.reading() as connection:
        for n in range(300):
            at = time.perf_counter()
            ledger._proof(connection, n * 7919 % size)  # noqa: SLF001
            times.append(time.perf_counter() - at)
    entry = next(ledger.entries("northwind", BEGIN, BEGIN + timedelta(days=2)))
    bundle = receipt.canonical(ledger.bundle("northwind", entry["id"]))
    files = {"r.json": bundle, "trust.txt": ledger.trust.encode()}
    whole = {**files, "zones.toml": (ROOT / "policies" / "zones.toml").read_bytes()}
    for given in (files, whole):
        best = []
        for _ in range(30):
            at = time.perf_counter()
            verdict = verify.verify(given)
            best.append(time.perf_counter() - at)
        checks.append(percentile(best, 0.5) * 1e3)
        assert verdict.code in (0, 2), verdict.lines
    return {
        "proof_p50_ms": percentile(times, 0.5) * 1e3,
        "proof_p95_ms": percentile(times, 0.95) * 1e3,
        "verify_ms": checks[0],
        "verify_with_zones_ms": checks[1],
        "bundle_bytes": len(bundle),
    }


def child(folder: Path, what: str) -> dict[str, Any]:
    """Open, or report, in a process of its own, so that its memory is its own."""
    command = [sys.executable, "-m", "bench.ledger", what, str(folder)]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def opening(folder: Path) -> dict[str, float]:
    at = time.perf_counter()
    ledger = opened(folder, LogKey.load_or_create(folder / "key"), Clock(1))
    ledger.check()
    ledger.checkpoint()
    return {"open_s": time.perf_counter() - at}


def reporting(folder: Path) -> dict[str, float]:
    ledger = opened(folder, LogKey.load_or_create(folder / "key"), Clock(1))
    ledger._clock.now = BEGIN + timedelta(days=366)  # type: ignore[attr-defined]  # noqa: SLF001
    made = Reporting(ledger, Nothing(), Rules(), Kept(), clock=lambda: BEGIN + timedelta(days=366))
    told: list[int] = []
    at = time.perf_counter()
    bundle = made._make(
        "residency", "northwind", BEGIN, BEGIN + timedelta(days=365), "", "", lambda done, _: told.append(done)
    )
    return {
        "report_s": time.perf_counter() - at,
        "report_entries": bundle["report"]["evidence"]["receipts"],
        "report_progress_calls": len(told),
        "report_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    kept = os.environ.get("BENCH_LEDGER_KEEP")
    folder = Path(kept or f".cache/bench-ledger-{os.getpid()}").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    fresh = not (folder / "ledger.sqlite").exists()
    key = LogKey.load_or_create(folder / "key")
    ledger = opened(folder, key, Clock(COUNT))
    found: dict[str, Any] = {"entries": COUNT, **making(ledger, key)}
    if fresh:
        found |= fill(ledger)
        found |= committing(ledger)
    found |= proving(ledger)
    ledger.database.checkpoint()
    with ledger.database.reading() as connection:
        size = connection.execute(sa.select(sa.func.count()).select_from(rows.leaves)).scalar_one()
    bytes_ = (folder / "ledger.sqlite").stat().st_size
    found |= {"disk_mb": bytes_ / 1e6, "disk_bytes_per_entry": bytes_ / size, "disk_mb_per_million": bytes_ / size}
    ledger.database.close()
    found |= child(folder, "open")
    found |= child(folder, "report")
    scale = 1e6 / found["report_entries"]
    found["report_s_per_million"] = found["report_s"] * scale
    aims = (
        ("make an entry (build, canonical, sign)", found["make_best_us"], 50, "µs"),
        ("proof", found["proof_p50_ms"], 1, "ms"),
        ("verify a receipt offline", found["verify_ms"], 5, "ms"),
        ("a million entries on disk", found["disk_mb_per_million"], 1000, "MB"),
        ("open", found["open_s"], 2, "s"),
        ("a year's report over a million", found["report_s_per_million"], 60, "s"),
        ("its memory", found["report_peak_mb"], 500, "MB"),
    )
    print(
        json.dumps(
            {"machine": machine(), **{k: round(v, 3) if isinstance(v, float) else v for k, v in found.items()}},
            indent=1,
        )
    )
    for name, value, aim, unit in aims:
        print(f"{name:42} {value:10.2f} {unit:3} aim {aim:5} {unit:3} ratio {value / aim:5.2f}")
    if not kept:
        shutil.rmtree(folder)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["open", where]:
            print(json.dumps(opening(Path(where))))
        case ["report", where]:
            print(json.dumps(reporting(Path(where))))
        case _:
            main()
