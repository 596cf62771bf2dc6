"""Sealed files: Frames open in order, complete, and in their own file only."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residency.errors import SealedError
from residency.frames import FRAME, HEADER, FrameWriter, open_file, seal_file
from tests.doubles.keys import dek_for

DOC = b"\x07" * 16
STEP = FRAME + 28
DEK = dek_for(subject=DOC)


def _sealed(length: int) -> bytes:
    return b"".join(seal_file(DEK, "original", DOC, 1, bytes(length)))


def _frames(sealed: bytes) -> tuple[bytes, list[bytes]]:
    return sealed[:HEADER], [sealed[at : at + STEP] for at in range(HEADER, len(sealed), STEP)]


@pytest.mark.parametrize("length", [0, 1, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME, 3 * FRAME + 5])
def test_a_file_comes_back_and_has_no_needless_frame(length: int) -> None:
    sealed = _sealed(length)
    assert open_file(DEK, "original", DOC, 1, sealed) == bytes(length)
    frames = _frames(sealed)[1]
    assert len(frames) == max(1, -(-length // FRAME))
    assert length == 0 or len(frames[-1]) > 28


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 100_000), max_size=6))
def test_how_bytes_arrive_makes_no_difference(sizes: list[int]) -> None:
    data = bytes(sum(sizes))
    writer = FrameWriter(DEK, "text", DOC, 1)
    parts = [writer.header()]
    for size in sizes:
        parts += writer.feed(bytes(size))
    parts += writer.finish()
    assert open_file(DEK, "text", DOC, 1, b"".join(parts)) == data
    assert all(len(part) == STEP for part in parts[1:-1])


def test_frames_swapped_dropped_doubled_cut_or_added_are_refused() -> None:
    header, frames = _frames(_sealed(3 * FRAME + 10))
    a, b, c, d = frames
    other_header, other = _frames(_sealed(3 * FRAME + 10))
    damaged = {
        "swapped": header + b + a + c + d,
        "first dropped": header + b + c + d,
        "middle dropped": header + a + c + d,
        "last dropped": header + a + b + c,
        "doubled": header + a + a + b + c + d,
        "last doubled": header + a + b + c + d + d,
        "trailing byte": header + a + b + c + d + b"\x00",
        "trailing frame": header + a + b + c + d + other[0],
        "cut in the last": header + a + b + c + d[:-1],
        "cut to the header": header,
        "cut in the header": header[:-1],
        "other run's frame": header + other[0] + b + c + d,
        "other run's header": other_header + a + b + c + d,
        "nothing": b"",
    }
    for how, sealed in damaged.items():
        with pytest.raises(SealedError):
            open_file(DEK, "original", DOC, 1, sealed)
            pytest.fail(how)


def test_a_full_last_frame_does_not_take_trailing_bytes() -> None:
    sealed = _sealed(2 * FRAME)
    for tail in (b"\x00", bytes(28), bytes(STEP)):
        with pytest.raises(SealedError):
            open_file(DEK, "original", DOC, 1, sealed + tail)


def test_an_empty_last_frame_behind_others_is_refused() -> None:
    writer = FrameWriter(DEK, "original", DOC, 1)
    first = writer._seal(memoryview(bytes(FRAME)), last=0)
    empty = writer._seal(memoryview(b""), last=1)
    with pytest.raises(SealedError):
        open_file(DEK, "original", DOC, 1, writer.header() + first + empty)


def test_a_flip_of_any_bit_is_refused() -> None:
    sealed = bytearray(_sealed(3))
    for bit in range(len(sealed) * 8):
        sealed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealedError):
            open_file(DEK, "original", DOC, 1, bytes(sealed))
        sealed[bit // 8] ^= 1 << bit % 8


def test_a_file_in_another_context_is_refused() -> None:
    key, dek_id = b"\x01" * 32, b"\x02" * 16
    dek = dek_for(key=key, dek_id=dek_id, subject=DOC)
    sealed = b"".join(seal_file(dek, "original", DOC, 1, b"abc"))
    tries = [
        (dek, "text", DOC, 1),
        (dek, "original", bytes(16), 1),
        (dek, "original", DOC, 2),
        (dek_for("southwind", key=key, dek_id=dek_id, subject=DOC), "original", DOC, 1),
        (dek_for(jurisdiction="FR", key=key, dek_id=dek_id, subject=DOC), "original", DOC, 1),
        (dek_for(subject=DOC), "original", DOC, 1),
    ]
    for context in tries:
        with pytest.raises(SealedError):
            open_file(*context, sealed)
    assert open_file(dek, "original", DOC, 1, sealed) == b"abc"


def test_an_unknown_kind_of_file_is_refused() -> None:
    with pytest.raises(SealedError):
        FrameWriter(DEK, "notes", DOC, 1)
