"""Rotation keeps every inner product and is pinned by its digest."""

import numpy as np
import pytest

from residency.errors import SealedError
from residency.ports import Vectors
from residency.rotation import Rotation, digest, make


def _unit(n: int, d: int, seed: int = 0) -> Vectors:
    raw = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def rotation() -> Rotation:
    return Rotation(make(384))


def test_a_matrix_is_orthogonal_and_each_is_new(rotation: Rotation) -> None:
    assert rotation.matrix.dtype == np.float32
    assert np.allclose(rotation.matrix @ rotation.matrix.T, np.eye(384), atol=1e-5)
    assert digest(make(8)) != digest(make(8))


def test_inner_products_and_ranks_stay(rotation: Rotation) -> None:
    held, asked = _unit(500, 384), _unit(20, 384, seed=1)
    clear, turned = asked @ held.T, rotation.rotate(asked) @ rotation.rotate(held).T
    assert np.allclose(clear, turned, atol=1e-6)
    assert (clear.argmax(axis=1) == turned.argmax(axis=1)).all()


def test_turned_vectors_keep_unit_length_to_a_millionth(rotation: Rotation) -> None:
    lengths = np.linalg.norm(rotation.rotate(_unit(2000, 384)), axis=1)
    assert np.abs(lengths - 1).max() < 1e-6  # beyond that an index would normalise, and `vd` would not fit


def test_one_vector_turns_as_a_batch_does_and_back(rotation: Rotation) -> None:
    held = _unit(3, 384)
    assert np.allclose(rotation.rotate(held[0]), rotation.rotate(held)[0], atol=1e-6)
    assert np.allclose(rotation.unrotate(rotation.rotate(held)), held, atol=1e-6)
    assert not np.allclose(rotation.rotate(held), held, atol=0.1)


def test_a_matrix_that_is_not_the_epochs_is_refused(rotation: Rotation) -> None:
    data, expected = rotation.encoded(), digest(rotation.matrix)
    assert (Rotation.decoded(data, 384, expected).matrix == rotation.matrix).all()
    damaged = bytes([data[0] ^ 1]) + data[1:]
    for wrong in ((damaged, 384, expected), (data, 383, expected), (data[:-4], 384, expected), (data, 384, bytes(32))):
        with pytest.raises(SealedError):
            Rotation.decoded(*wrong)


def test_vectors_of_another_width_are_refused(rotation: Rotation) -> None:
    with pytest.raises(SealedError):
        rotation.rotate(_unit(2, 385))
