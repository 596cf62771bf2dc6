"""What sealing takes of ingest and search, what a passage takes on disk, and how long erasing takes to be physical.

`python -m bench.erasing`, 10,000 passages unless `BENCH_COUNT` says otherwise. The real parts on one embedded Site,
from the body that comes in to the signed certificate; only the model is left out (words are hashed into vectors), so
that the shares printed are upper bounds: with a model that embeds 10 ms a passage they are a fraction of it.
"""

from residency.silence import silence

silence()

import asyncio  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import psutil  # noqa: E402

from bench.measuring import machine, spread  # noqa: E402
from ingestion import artefacts  # noqa: E402
from residency.envelope import PassageSealer  # noqa: E402
from service.searching import Results, Search, Searching  # noqa: E402
from tests.doubles.ingesting import APP, HashEmbedder, Ingesting, ingesting, site  # noqa: E402
from tests.doubles.looking import points_of  # noqa: E402

COUNT = int(os.environ.get("BENCH_COUNT", "10000"))
EACH, WORDS = 50, 60
WORK = Path(__file__).parent.parent / ".cache" / "bench" / f"erasing-{os.getpid()}"
spent: dict[str, float] = {"seal": 0.0, "open": 0.0}


def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Add what a call takes to `spent[name]`."""

    def within(*given: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return call(*given, **named)
        finally:
            spent[name] += time.perf_counter() - began

    return within


def body(number: int) -> bytes:
    """A document of about `EACH` passages that no other one is like."""
    line = "Section {0} of file {1}: the notice period of part {0} ends {0} months after the end of quarter {1}. "
    return "\n\n".join(line.format(part, number) * 3 for part in range(EACH)).encode()


def disk(folder: Path) -> int:
    """Bytes that a folder takes, without room kept empty."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def processor() -> float:
    """Seconds of processor time of this process and the shard's child: what a busy machine does not change."""
    me = psutil.Process()
    times = [each.cpu_times() for each in (me, *me.children(recursive=True))]
    return sum(each.user + each.system for each in times)


async def filled(house: Ingesting) -> dict[str, Any]:
    """Take documents in until `COUNT` passages are live."""
    empty, began, number, text = disk(house.folder / "fra" / "shard"), time.perf_counter(), 0, 0
    documents, passages = [], 0
    while passages < COUNT:
        batch = [await house.taken(f"{number + n}.txt", body(number + n)) for n in range(20)]
        number += len(batch)
        await house.worker.drain()
        documents += [house.get(each.document.id) for each in batch]
        passages = sum(each.passages for each in documents)
        text = sum(each.size for each in documents)
    took = time.perf_counter() - began
    points = await points_of(house, documents[0])
    vault = disk(house.folder / "fra" / "vault")
    return {
        "documents": len(documents),
        "passages": passages,
        "ingest_s": round(took, 1),
        "sealing_share_of_ingest": round(spent["seal"] / took, 4),
        "sealing_us_a_passage": round(spent["seal"] / passages * 1e6, 1),
        "bytes_a_passage": {
            "text": round(text / passages),
            "envelope": round(sum(len(str(each.payload["s"])) for each in points) / len(points)),
            "vector": points[0].vector.nbytes if points[0].vector is not None else 0,
            "sparse": round(sum(8 * len(each.sparse) for each in points) / len(points)),
            "index_on_disk": round((disk(house.folder / "fra" / "shard") - empty) / passages),
            "vault_on_disk": round(vault / passages),
            "database": round((house.folder / "domicile.sqlite").stat().st_size / passages),
        },
    }


async def asked(house: Ingesting) -> dict[str, Any]:
    """Search a hundred times."""
    searching = Searching(
        engine=house.engine, documents=house.documents, keyring=house.keyring, ledger=house.ledger, shards=house.shards,
        embedders={"fra": HashEmbedder("fra")}, deadline=30.0,
    )  # fmt: skip
    times, checked = [], 0.0
    spent["open"] = 0.0
    for number in range(100):
        query = Search(f"notice period of part {number % EACH} in quarter {number}", top_k=5)
        began = time.perf_counter()
        found = await searching.search(APP, query)
        times.append(time.perf_counter() - began)
        assert isinstance(found, Results) and found.findings.passages
        checked += found.findings.timings["open"]
    return {
        "search": spread(times),
        "opening_share_of_search": round(spent["open"] / sum(times), 4),
        "rows_keys_and_opening_share": round(checked / sum(times), 4),
    }


async def erased(house: Ingesting) -> dict[str, Any]:
    """Give one order, and wait until the last byte is gone."""
    used, began = processor(), time.perf_counter()
    order = await house.forgetting.collection(APP, "default")
    unreadable = time.perf_counter() - began
    await house.worker.drain()
    took = time.perf_counter() - began
    certificate = await house.forgetting.certificate("northwind", order.id)
    assert certificate["state"] == "complete", certificate
    return {
        "unreadable_s": round(unreadable, 2),
        "physically_gone_s": round(took, 1),
        "target_s": 60,
        "processor_s": round(processor() - used, 1),
        "shard_left_on_disk_mb": round(disk(house.folder / "fra" / "shard") / 1e6, 1),
        "sealed_files_left": len(house.files()),
    }


async def main() -> None:
    """Fill, ask, erase, print as JSON."""
    PassageSealer.seal = timed("seal", PassageSealer.seal)  # type: ignore[method-assign]
    PassageSealer.open = timed("open", PassageSealer.open)  # type: ignore[method-assign]
    artefacts.seal_file = timed("seal", lambda *given: list(seal_file(*given)))  # type: ignore[assignment]
    WORK.mkdir(parents=True)
    figures: dict[str, Any] = {"machine": machine()}
    try:
        async with ingesting(WORK, fleet=site("fra", "DE", "DE"), passage_words=WORDS) as house:
            figures |= await filled(house) | await asked(house) | await erased(house)
        figures["machine"]["load_after"] = machine()["load"]
        print(json.dumps(figures, indent=1))
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


seal_file = artefacts.seal_file

if __name__ == "__main__":
    asyncio.run(main())
