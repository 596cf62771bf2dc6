"""What the tests over `story.py` share: ordering a death, opening the dead one's home again, reading what is there."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from residency.envelope import PassageSealer, vector_digest
from residency.errors import SiteError
from residency.ports import Point
from tests.chaos import story
from tests.doubles.ingesting import Ingesting, ingesting
from tests.doubles.looking import dek_of

ROOT = Path(__file__).parents[2]


async def tell(teller: "subprocess.Popen[str]", **order: Any) -> int:
    """Have a story told; gives the exit status of the child that lived through it."""
    assert teller.stdin is not None and teller.stdout is not None
    teller.stdin.write(json.dumps(order) + "\n")
    teller.stdin.flush()
    return int(await asyncio.to_thread(teller.stdout.readline))


def order(point: str) -> dict[str, Any]:
    """Read `name:nth` of a crash point."""
    name, _, nth = point.partition(":")
    return {"point": name, "nth": int(nth or 1)}


@asynccontextmanager
async def restarted(folder: Path, fleet: str) -> AsyncIterator[Ingesting]:
    """Open the same home in a new process's place, as soon as the dead one's shards have let go."""
    for _ in range(50):
        try:
            async with ingesting(
                folder,
                fleet=fleet,
                embedder=story.embedder(),
                lease_seconds=story.LEASE,
                name="second",
                passage_words=story.WORDS,
            ) as house:
                yield house
                return
        except SiteError:
            await asyncio.sleep(0.1)
    raise AssertionError("the shards of the dead process never let go")


async def opens(house: Ingesting, found: Any, points: list[Point], body: str) -> None:
    """Hold that each point opens to its own slice of the text, beside its own vector."""
    sealer = PassageSealer(
        await dek_of(house, found), collection=bytes.fromhex(found.collection), document=bytes.fromhex(found.id),
        version=found.version, classification=found.tag.classification,
    )  # fmt: skip
    for point in points:
        opened = sealer.open(point.payload["n"], point.id, point.payload["s"])
        assert opened.text == body[opened.start : opened.end] and opened.vd == vector_digest(point.vector)


def time_passes(house: Ingesting) -> None:
    """Let the pauses of what waits, and the leases of the dead, be over."""
    with house.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE document SET lease_until = 1 WHERE lease_owner LIKE 'doomed-%'")
        connection.exec_driver_sql("UPDATE document SET not_before = 0 WHERE not_before < 1e14")


def receipts(house: Ingesting, kind: str) -> list[dict[str, Any]]:
    """Give the tenant's Receipts of a kind."""
    return list(
        house.ledger.entries("northwind", datetime(2000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC), [kind])
    )
