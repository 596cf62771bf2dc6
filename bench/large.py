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
from uuid import UUID  # noqa: E402

import numpy as np  # noqa: E402

from bench.measuring import machine, spread, tree_memory  # noqa: E402
from residency.outlets.shards.edge import EdgeShard  # noqa: E402
from residency.ports import Point, PointFilter, ShardQuery, Vectors  # noqa: E402
from residency.route import Action  # noqa: E402
from tests.doubles.routes import route_for  # noqa: E402

COUNT = int(os.environ.get("BENCH_COUNT", "100000"))
WORK = Path(__file__).parent.parent / ".cache" / "bench" / f"large-{os.getpid()}"
DIMENSION, VOCABULARY, WORDS, SEALED, BLOCK = 384, 200_000, 110, 900, 256
WHERE = PointFilter(owners=("owner",), classes=(1,), collections=("collection",), groups=())


def unit(random: np.random.Generator, rows: int) -> Vectors:
    made = random.standard_normal((rows, DIMENSION)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def points(random: np.random.Generator, first: int, rows: int) -> list[Point]:
    made = []
    for number, vector in enumerate(unit(random, rows), first):
        words = np.unique(random.zipf(1.1, WORDS) % VOCABULARY)
        payload = {
            "v": 1,
            "t": "owner",
            "k": 1,
            "j": "DE",
            "c": "collection",
            "d": f"{number // 50:032x}",
            "n": number % 50,
        }
        payload |= {"e": 1, "s": base64.b64encode(random.bytes(SEALED)).decode()}
        made.append(Point(str(UUID(int=number)), vector, {int(word): 1.0 for word in words}, payload))
    return made


async def main() -> None:
    """Fill, ask, print as JSON."""
    random = np.random.default_rng(7)
    shard = EdgeShard("large", WORK, dimension=DIMENSION, free_share=0.0)
    try:
        await shard.start()
        spent = 0.0
        for first in range(0, COUNT, BLOCK):
            block = points(random, first, min(BLOCK, COUNT - first))
            began = time.perf_counter()
            await shard.put(route_for(Action.STORE, "large"), block)
            spent += time.perf_counter() - began
        times, hidden = [], []
        for _ in range(120):
            words = {int(word): 1.0 for word in np.unique(random.zipf(1.1, 14) % VOCABULARY)}
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
            "put_per_s": round(COUNT / spent),
            "search": spread(times[10:]),
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
