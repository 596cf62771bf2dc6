"""Many passages in one embedded Site: `python -m bench.large`; 100,000 unless `BENCH_COUNT` says otherwise.

The shard alone, as Domicile runs it: sealed-size payloads, blind words, exact search of both legs in a child process,
asked through the port with a Route of its own. Vectors are random unit vectors and words are drawn by Zipf's law:
embedding so many texts on two cores takes an hour and says nothing about the shard. So embedding, rows, keys and the
Receipt are not in these figures; `make bench` has them.
"""

from residency.silence import silence

silence()

import asyncio  # noqa: E402
import base64  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402
from uuid import UUID  # noqa: E402

import numpy as np  # noqa: E402
import psutil  # noqa: E402

from bench.measuring import machine, spread, tree_memory  # noqa: E402
from residency.outlets.shards.edge import EdgeShard  # noqa: E402
from residency.ports import Point, PointFilter, ShardQuery, Vectors  # noqa: E402
from residency.route import Action  # noqa: E402
from tests.doubles.routes import route_for  # noqa: E402

COUNT = int(os.environ.get("BENCH_COUNT", "100000"))
WORK = Path(__file__).parent.parent / ".cache" / "bench" / f"large-{os.getpid()}"
DIMENSION, VOCABULARY, WORDS, SEALED, BLOCK = 384, 200_000, 110, 1_200, 1_024
ASKED = 80
"""Questions, each asked twice: with its vector, and with one that comes later."""
WHERE = PointFilter(owners=("owner",), classes=(1,), collections=("collection",), groups=())


def unit(random: np.random.Generator, rows: int) -> Vectors:
    made = random.standard_normal((rows, DIMENSION), dtype=np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def child_seconds() -> float:
    """Processor time of the shard's child until now: what counts where the machine is busy."""
    return sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children())


class Maker:
    """Makes points cheaply: words and sealed bytes are cut out of pools that are drawn once."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random
        self.words = (random.zipf(1.1, 1 << 20) % VOCABULARY).astype(np.int64)
        self.sealed = base64.b64encode(random.bytes(1 << 20)).decode()

    def said(self, count: int) -> list[int]:
        """Give the distinct ones of `count` words that stand together somewhere in the pool."""
        at = int(self.random.integers(0, len(self.words) - count))
        return list(dict.fromkeys(self.words[at : at + count].tolist()))

    def points(self, first: int, rows: int) -> list[Point]:
        made = []
        for number, vector in enumerate(unit(self.random, rows), first):
            at = int(self.random.integers(0, len(self.sealed) - SEALED))
            payload: dict[str, Any] = {"v": 1, "t": "owner", "k": 1, "j": "DE", "c": "collection", "e": 1}
            payload |= {"d": f"{number // 50:032x}", "n": number % 50, "s": self.sealed[at : at + SEALED]}
            made.append(Point(str(UUID(int=number)), vector, dict.fromkeys(self.said(WORDS), 1.0), payload))
        return made


async def main() -> None:
    """Fill, ask, print as JSON."""
    random = np.random.default_rng(7)
    maker = Maker(random)
    shard = EdgeShard("large", WORK, dimension=DIMENSION, free_share=0.0)
    try:
        await shard.start()
        spent, opened = 0.0, time.perf_counter()
        for first in range(0, COUNT, BLOCK):
            block = maker.points(first, min(BLOCK, COUNT - first))
            began = time.perf_counter()
            await shard.put(route_for(Action.STORE, "large"), block)
            spent += time.perf_counter() - began
        filled, busy = time.perf_counter() - opened, child_seconds()
        times, hidden = [], []
        for _ in range(ASKED):
            words = dict.fromkeys(maker.said(14), 1.0)
            (vector,) = unit(random, 1)

            async def coming(vector: Vectors = vector) -> Vectors:
                await asyncio.sleep(0.05)  # longer than the words take
                return vector

            for given, kept in ((vector, times), (coming, hidden)):
                query = ShardQuery(WHERE, given, words, limit=25)
                began = time.perf_counter()
                await shard.search(route_for(Action.SEARCH, "large"), query)
                kept.append(time.perf_counter() - began - (0.05 if given is coming else 0.0))
        figures = {
            "points": COUNT,
            "seconds": {"making": round(filled - spent, 1), "putting": round(spent, 1)},
            "put_per_s": round(COUNT / spent),
            "search": spread(times[10:]),
            "child_cpu_ms_a_search": round((child_seconds() - busy) / (2 * ASKED) * 1e3, 2),
            "left_after_the_vector_is_there": spread(hidden[10:]),
            "memory": tree_memory(os.getpid()),
            "disk_mb": round(sum(file.stat().st_blocks * 512 for file in WORK.rglob("*") if file.is_file()) / 1e6),
        }
        print(json.dumps({"machine": machine()} | figures, indent=1))
    finally:
        await shard.aclose()
        shutil.rmtree(WORK, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main())
