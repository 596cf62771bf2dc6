"""What the parent and the child of an embedded shard say to each other, and what the child makes of it."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from residency.outlets.shards import edge_host
from residency.outlets.shards import edge_wire as wire
from residency.outlets.shards.edge_store import HostFaultError, Store

texts = some.lists(some.text(max_size=8), max_size=3)
tokens = some.lists(some.integers(0, 2**32 - 1), max_size=5)
numbers = some.integers(0, 2**31)
wheres = some.builds(
    wire.Where,
    owners=texts,
    classes=some.none() | some.lists(some.integers(0, 9), max_size=3),
    collections=some.none() | texts,
    documents=some.none() | texts,
    groups=some.none() | texts,
)
points = some.builds(
    wire.WirePoint,
    id=some.uuids().map(str),
    vector=some.binary(max_size=64),
    tokens=tokens,
    weights=some.lists(some.floats(allow_nan=False), max_size=5),
    payload=some.dictionaries(some.text(max_size=2), some.integers(0, 9) | some.text(max_size=9) | texts, max_size=4),
)
ops: some.SearchStrategy[wire.Op] = some.one_of(
    some.builds(wire.Put, some.lists(points, max_size=3)),
    some.builds(
        wire.Search, wheres, some.none() | some.binary(), tokens, some.lists(some.floats(allow_nan=False)), numbers
    ),
    some.builds(wire.Retrieve, texts, some.booleans()),
    some.builds(wire.Count, wheres),
    some.builds(wire.Ids, wheres),
    some.builds(wire.Delete, texts),
    some.builds(wire.Purge),
    some.builds(wire.Info),
)


@given(ops, numbers)
def test_a_call_is_read_as_it_was_written(op: wire.Op, number: int) -> None:
    source, sink = os.pipe()
    try:
        call = wire.Call(number, 1.5, msgspec.Raw(wire.packed(op)))
        os.write(sink, wire.framed(call))
        message = edge_host.receive(source)
        assert message is not None
        back = msgspec.msgpack.decode(message, type=wire.Call)
        assert (back.id, back.deadline) == (number, 1.5)
        assert msgspec.msgpack.decode(back.op, type=wire.Op) == op
    finally:
        os.close(source)
        os.close(sink)


def test_an_unknown_field_or_op_is_refused() -> None:
    for body in ({"type": "count", "where": {"owners": []}, "more": 1}, {"type": "optimize"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.msgpack.decode(msgspec.msgpack.encode(body), type=wire.Op)


def test_a_message_that_is_too_long_is_neither_written_nor_awaited() -> None:
    with pytest.raises(ValueError, match="longer"):
        wire.framed(b"0" * (wire.LARGEST + 1))
    source, sink = os.pipe()
    os.write(sink, wire.LENGTH.pack(wire.LARGEST + 1))
    with pytest.raises(HostFaultError):
        edge_host.receive(source)
    os.close(source)
    os.close(sink)


def test_a_message_in_pieces_is_put_together_and_one_cut_off_is_none() -> None:
    source, sink = os.pipe()
    body = wire.framed("x" * 300_000)

    def write() -> None:
        for first in range(0, len(body), 70_000):
            os.write(sink, body[first : first + 70_000])
        os.write(sink, body[:100])
        os.close(sink)

    writer = Thread(target=write)
    writer.start()
    assert edge_host.receive(source) == body[wire.LENGTH.size :]
    assert edge_host.receive(source) is None
    writer.join()
    os.close(source)


class FakeStore:
    """A store that counts what it is asked and takes three steps to purge."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def count(self, op: wire.Count) -> int:
        self.asked.append("count")
        return 5

    def ids(self, op: wire.Ids) -> list[str]:
        raise RuntimeError("canary of the payload")

    def put(self, op: wire.Put) -> int:
        raise HostFaultError("full", "3 MiB are left on the volume")

    def purge(self) -> Iterator[dict[str, Any] | None]:
        for _ in range(3):
            self.asked.append("step")
            yield None
        yield {"points": 1}


def replies_of(store: Any, *calls: wire.Call, wanted: int) -> list[wire.Reply]:
    """Serve these calls, which lie ready before the first is read, until `wanted` replies have come."""
    (source, calls_end), (replies_end, sink) = os.pipe(), os.pipe()
    os.write(calls_end, b"".join(wire.framed(call) for call in calls))

    def serve() -> None:
        try:
            edge_host.serve(store, source, sink)
        finally:
            os.close(sink)  # so that a reader never waits for a server that broke

    server = Thread(target=serve)
    server.start()
    replies = []
    for _ in range(wanted):
        message = edge_host.receive(replies_end)
        assert message is not None
        replies.append(msgspec.msgpack.decode(message, type=wire.Reply))
    os.close(calls_end)
    server.join()
    os.close(source)
    os.close(replies_end)
    return replies


def call(number: int, op: wire.Op, *, seconds: float = 60.0) -> wire.Call:
    return wire.Call(number, time.monotonic() + seconds, msgspec.Raw(wire.packed(op)))


COUNT = wire.Count(wire.Where(["o"]))


def test_what_nobody_waits_for_any_more_is_dropped_unread() -> None:
    store = FakeStore()
    late = wire.Call(1, time.monotonic() - 1, msgspec.Raw(wire.packed({"type": "no such op"})))
    (reply,) = replies_of(store, late, call(2, COUNT), wanted=1)
    assert reply.id == 2 and store.asked == ["count"]


def test_a_failure_tells_its_kind_and_never_its_words() -> None:
    where = wire.Where(["o"])
    first, second, third = replies_of(
        FakeStore(), call(1, wire.Ids(where)), call(2, wire.Put([])), call(3, COUNT), wanted=3
    )
    assert first.fault == wire.Fault("broken", "the shard failed with RuntimeError")
    assert second.fault == wire.Fault("full", "3 MiB are left on the volume")
    assert third.fault is None and msgspec.msgpack.decode(third.result) == 5


def test_a_purge_lets_other_calls_pass_and_two_purges_take_turns() -> None:
    store = FakeStore()
    replies = replies_of(store, call(1, wire.Purge()), call(2, wire.Purge()), call(3, COUNT), wanted=3)
    assert [reply.id for reply in replies] == [3, 1, 2]
    assert store.asked == ["count", *["step"] * 6]


def test_a_purge_that_fails_leaves_the_shard_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, dimension=2, free_share=0.0)
    vector = b"\x00\x00\x80\x3f\x00\x00\x00\x00"
    store.put(
        wire.Put(
            [wire.WirePoint(f"00000000-0000-0000-0000-{n:012d}", vector, [1], [1.0], {"t": "o"}) for n in range(9)]
        )
    )

    def torn(name: str) -> None:
        raise OSError("no")

    monkeypatch.setattr(store, "_point_to", torn)
    with pytest.raises(OSError, match="no"):
        list(store.purge())
    assert store.count(COUNT) == 9 and store.info().generation == "g0001"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["CURRENT", "g0001"]
    monkeypatch.undo()
    assert [facts["points"] for facts in store.purge() if facts] == [9]
    assert store.info().generation == "g0002"
    store.close()


def test_a_first_start_that_was_cut_off_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "g0001" / "segments").mkdir(parents=True)
    (tmp_path / "g0001" / "edge_config.json").write_bytes(b"{")
    store = Store(tmp_path, dimension=2, free_share=0.0)
    assert store.count(COUNT) == 0 and (tmp_path / "CURRENT").read_text() == "g0001\n"
    store.close()
