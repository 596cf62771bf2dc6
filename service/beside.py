"""What runs beside the calls: checkpoints signed, rules followed, libraries warmed, and the orderly end of them all."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from residency.engine import Engine
from residency.errors import DomicileError
from service.house import House

if TYPE_CHECKING:  # loads what only the house needs
    from residency.ledger import Ledger

SEQUENCE_EVERY = 1.0
"""Seconds between two signed checkpoints while leaves are waiting."""
RULES_EVERY = 2.0
"""Seconds between two looks at which rules are active; another process may have put others in force."""


def warm(*, work: bool) -> None:
    """Load what the first question and the first document would otherwise wait for: about a second together."""
    from ingestion import sandbox
    from ingestion.detectors import language
    from ingestion.splitter import split

    language("Where does the first question come from?")
    if work:
        sandbox.warm()
        text = "One sentence."
        page = sandbox.PageSpan(number=1, start=0, end=len(text))
        split(sandbox.Reading(text, [page], [], "text/plain"))


async def sequence(house: House) -> None:
    """Place and sign what waits in the Ledger, every second."""
    size = -1
    while not house.stopping.is_set():
        await asyncio.sleep(SEQUENCE_EVERY)
        try:
            before, size = size, await house.database.run(house.ledger.sequence)
            if size != before:
                await house.database.run(tell_time, house.engine, house.ledger)
        except DomicileError:
            continue  # appending fails loudly for whoever asks; the next second tries again


def tell_time(engine: Engine, ledger: "Ledger") -> None:
    """Tell the engine when the last checkpoint was signed: no ruling is made by a clock far behind it."""
    ever = datetime.max.replace(tzinfo=UTC)
    _, newest = ledger.span(ever, ever)
    if newest is not None:
        engine.not_before(datetime.fromisoformat(newest["time"]))


async def follow_rules(house: House) -> None:
    """Take over rules that were activated here or in another process; a broken set leaves the last good one."""
    while not house.stopping.is_set():
        await asyncio.sleep(RULES_EVERY)
        with suppress(DomicileError):
            if await house.database.run(house.rulemaking.pending):
                await asyncio.to_thread(house.rulemaking.follow)


async def stop(house: House, tasks: list[asyncio.Task[None]]) -> None:
    """End the tasks, then sign what is left."""
    house.stopping.set()
    house.worker.wake()
    done, late = await asyncio.wait(tasks, timeout=0.01)
    for task in late:
        task.cancel()
    await asyncio.gather(*done, *late, return_exceptions=True)
    with suppress(DomicileError):  # what waits for its place in the tree gets it at the next start
        await house.database.run(house.ledger.sequence)
