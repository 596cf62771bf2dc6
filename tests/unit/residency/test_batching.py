"""Lanes: questions go first, tenants take turns, cancelled work leaves, a failure hurts only its own batch."""

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residency.errors import SiteError
from residency.outlets.embedders.batching import Lanes, Tokens
from residency.ports import Vectors


class Model:
    """A stand-in for a runner: its vector is (first token, tokens); a gate holds each batch until it is let through."""

    def __init__(self, *, gated: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Semaphore(0 if gated else 1_000_000)
        self.running = threading.Event()

    def run(self, ids: Tokens, mask: Tokens) -> Vectors:
        self.running.set()
        assert self.gate.acquire(timeout=10)
        self.batches.append([int(row[0]) for row in ids])
        if (ids == 666).any():
            raise MemoryError("text of a document")
        return np.stack([ids[:, 0], mask.sum(axis=1)], axis=1).astype(np.float32)

    async def busy(self) -> None:
        """Wait until a batch is in hand."""
        assert await asyncio.to_thread(self.running.wait, 10)


@pytest.fixture
def model() -> Model:
    return Model(gated=True)


@pytest.fixture
def lanes(model: Model) -> Iterator[Lanes]:
    found = Lanes(model.run, site="x", dimension=2, most_tokens=8)
    yield found
    model.gate.release(1_000)
    found.close()


def texts(first: int, count: int, length: int = 4) -> list[list[int]]:
    return [[first + number] * length for number in range(count)]


async def test_a_question_goes_before_passages_that_came_earlier(lanes: Lanes, model: Model) -> None:
    passages = asyncio.create_task(lanes.embed(texts(10, 6), tenant="a", question=False))
    await model.busy()
    question = asyncio.create_task(lanes.embed(texts(99, 1), tenant="b", question=True))
    await asyncio.sleep(0)
    model.gate.release(100)
    await asyncio.gather(passages, question)
    assert model.batches == [[10, 11], [99], [12, 13], [14, 15]]


async def test_questions_that_wait_share_a_batch(lanes: Lanes, model: Model) -> None:
    first = asyncio.create_task(lanes.embed(texts(1, 1), tenant="a", question=True))
    await model.busy()
    others = [asyncio.create_task(lanes.embed(texts(first, 1), tenant="a", question=True)) for first in (2, 3, 4)]
    await asyncio.sleep(0)
    model.gate.release(100)
    await asyncio.gather(first, *others)
    assert model.batches == [[1], [2, 3], [4]]


async def test_a_small_tenant_does_not_wait_for_a_large_one(lanes: Lanes, model: Model) -> None:
    large = asyncio.create_task(lanes.embed(texts(100, 20), tenant="large", question=False))
    await model.busy()
    small = asyncio.create_task(lanes.embed(texts(500, 4), tenant="small", question=False))
    await asyncio.sleep(0)
    model.gate.release(100)
    await asyncio.gather(large, small)
    served = ["small" if batch[0] >= 500 else "large" for batch in model.batches]
    assert served[:5].count("small") == 2
    assert "small" not in served[5:]


async def test_cancelled_work_leaves_before_the_next_batch(lanes: Lanes, model: Model) -> None:
    passages = asyncio.create_task(lanes.embed(texts(10, 8), tenant="a", question=False))
    await model.busy()
    passages.cancel()
    with pytest.raises(asyncio.CancelledError):
        await passages
    model.gate.release(100)
    await lanes.embed(texts(50, 1), tenant="b", question=False)
    assert model.batches == [[10, 11], [50]]


async def test_a_failure_reaches_its_own_callers_without_its_text_and_the_lanes_live_on(
    lanes: Lanes, model: Model
) -> None:
    model.gate.release(100)
    with pytest.raises(SiteError, match="embedding failed: MemoryError") as caught:
        await lanes.embed([[666] * 4, [1] * 2], tenant="a", question=False)
    assert "document" not in str(caught.value)
    assert (await lanes.embed(texts(7, 1), tenant="a", question=False)).tolist() == [[7, 4]]


async def test_questions_beyond_two_seconds_of_work_are_turned_away(lanes: Lanes, model: Model) -> None:
    lanes.rate = 10.0  # so that two seconds are twenty tokens, five of these texts
    waiting = [asyncio.create_task(lanes.embed(texts(number, 1), tenant="a", question=True)) for number in range(12)]
    passages = asyncio.create_task(lanes.embed(texts(50, 12), tenant="a", question=False))
    await model.busy()
    model.gate.release(100)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, SiteError)]
    assert 5 <= len(refused) <= 6
    assert "too many questions" in str(refused[0])
    assert len(await passages) == 12  # ingestion waits for its turn instead


async def test_closing_ends_all_waiting(model: Model) -> None:
    lanes = Lanes(model.run, site="x", dimension=2, most_tokens=8)
    waiting = asyncio.create_task(lanes.embed(texts(1, 8), tenant="a", question=False))
    await model.busy()
    closing = asyncio.create_task(asyncio.to_thread(lanes.close))
    while not lanes._closed:  # noqa: ASYNC110 - a thread sets it
        await asyncio.sleep(0.001)
    model.gate.release(1)
    await closing
    with pytest.raises(SiteError, match="closed"):
        await waiting


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(1, 500), min_size=1, max_size=12), max_size=40), st.booleans())
def test_rows_stand_in_the_order_of_their_texts_and_batches_keep_the_limit(
    ids: list[list[int]], question: bool
) -> None:
    model = Model()
    sizes: list[int] = []

    def run(tokens: Tokens, mask: Tokens) -> Vectors:
        sizes.append(tokens.size if len(tokens) > 1 else 0)
        return model.run(tokens, mask)

    lanes = Lanes(run, site="x", dimension=2, most_tokens=24)
    try:
        found = asyncio.run(lanes.embed(ids, tenant="a", question=question))
    finally:
        lanes.close()
    assert found.tolist() == [[text[0], len(text)] for text in ids]
    assert all(size <= 24 for size in sizes)
