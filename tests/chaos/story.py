"""A process that lives through a Document's story and dies where it is told to.

Started once, it imports everything and then forks a child for each line of JSON on its standard input, so that a
hundred deaths cost no hundred imports. A child dies by `os._exit` at the named crash point, by SIGKILL from here after
a delay, or not at all; the answer is its exit status.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

DIED = 86
"""Exit status of a child that reached its crash point."""
LEASE = 10.0
"""Seconds, so that none runs out on a busy machine; the dead one's are ended by `telling.time_passes`."""
WORDS = 20
"""Words of a Passage: little, so that a small file has several blocks."""
NUMBERS = "IBAN DE89 3704 0044 0532 0130 00, USt-IdNr. DE136695976."
FIRST = f"{NUMBERS}\n\n" + "\n\n".join(
    f"Rule {n}: part {n} ends after {n} months at the quarter's end." for n in range(300)
)
SECOND = FIRST + "\n\nRule 301: every notice needs a signature, and so does its answer."
CLAIM = {"jurisdictions": frozenset({"EU"}), "residency": frozenset({"EU"})}


def fleet() -> str:
    from tests.doubles.ingesting import site

    return site("fra", "DE", "DE")


def two_sites() -> str:
    from tests.doubles.ingesting import site

    return fleet() + site("par", "FR", "FR", embeds=False)


def embedder() -> Any:
    from tests.doubles.ingesting import HashEmbedder

    return HashEmbedder("fra")


async def tell(folder: Path, story: str) -> None:
    """Live through a story: `ingest`, `replace`, `erase`, `order` or `move`."""
    from tests.doubles.ingesting import APP, ingesting

    async with ingesting(
        folder,
        fleet=two_sites() if story == "move" else fleet(),
        embedder=embedder(),
        lease_seconds=LEASE,
        name=f"doomed-{os.getpid()}",
        concurrency=1,
        passage_words=WORDS,
    ) as house:
        taken = await house.taken("rules.txt", FIRST.encode(), **CLAIM)
        await house.worker.drain()
        if story == "replace":
            await house.taken("rules.txt", SECOND.encode(), **CLAIM)
            await house.worker.drain()
        if story == "move":
            await house.pipeline.moving.move(APP, taken.document.id, "par")
            await house.worker.drain()
        if story == "erase":
            await house.erasure.erase(APP, taken.document.id)
            await house.worker.drain()
        if story == "order":
            await house.taken("short.txt", NUMBERS.encode(), **CLAIM)
            await house.worker.drain()
            await house.forgetting.collection(APP, "default")
            await house.worker.drain()


def arm(point: str, nth: int) -> None:
    """Die at the nth passing of a crash point."""
    from ingestion import crash

    passed: list[str] = []

    def hook(name: str) -> None:
        passed.append(name)
        if name == point and passed.count(name) == nth:
            os._exit(DIED)

    crash.hook = hook


def child(order: dict[str, Any]) -> None:
    if order.get("point"):
        arm(order["point"], order.get("nth", 1))
    asyncio.run(tell(Path(order["folder"]), order["story"]))


def main() -> None:
    import ingestion.splitter
    from ingestion.readers import Reading, TextBuilder
    from tests.doubles import ingesting

    builder = TextBuilder()
    builder.put("text", "One sentence. Another one, a little longer than the first.")
    reading: Reading = builder.reading("text/plain")
    ingestion.splitter.split(reading, count=lambda text: len(text.split()), most=20)
    ingesting.engine_over(two_sites())
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            status = 0
            try:
                child(order)
            except BaseException as error:
                print(f"child failed: {error!r}", file=sys.stderr, flush=True)
                status = 1
            os._exit(status)
        if order.get("kill_after"):
            threading.Timer(order["kill_after"], _kill, (pid,)).start()
            time.sleep(order["kill_after"] + 0.01)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
