"""Rotation: vectors turned into a tenant's secret basis; inner products stay as they were.

It blocks ready-made inverters, testing guesses without the key, and linking between tenants. It is obfuscation and not
encryption: some hundred known texts give the basis away (sealing page, threat model).
A matrix is made once per epoch and stored, sealed. It is never derived anew from a seed: QR differs between processors,
so two workers would disagree.
"""

import hashlib
import hmac
import os
from dataclasses import dataclass

import numpy as np

from residency.errors import SealedError
from residency.ports import Vectors


@dataclass(frozen=True, slots=True, eq=False)
class Rotation:
    """One epoch's matrix, float32 of shape (d, d), orthogonal."""

    matrix: Vectors

    @property
    def dimension(self) -> int:
        """The width of the vectors it turns."""
        return int(self.matrix.shape[0])

    def rotate(self, vectors: Vectors) -> Vectors:
        """Turn vectors into the secret basis; float32 of shape (d,) or (n, d). About 3 µs a row at d = 384."""
        return rotate(vectors, self.matrix)

    def unrotate(self, vectors: Vectors) -> Vectors:
        """Turn vectors back."""
        return rotate(vectors, self.matrix.T)

    def encoded(self) -> bytes:
        """Give the matrix as float32 little-endian bytes, row by row."""
        return np.ascontiguousarray(self.matrix, dtype="<f4").tobytes()

    @classmethod
    def decoded(cls, data: bytes, dimension: int, expected: bytes) -> "Rotation":
        """Read back what `encoded` gave; raises `SealedError` unless its SHA-256 is `expected` (32 bytes)."""
        if len(data) != dimension * dimension * 4 or not hmac.compare_digest(hashlib.sha256(data).digest(), expected):
            raise SealedError("a rotation matrix is not the one of its epoch", hint="restore the database's keysets")
        return cls(np.frombuffer(data, dtype="<f4").reshape(dimension, dimension))


def make(dimension: int) -> Vectors:
    """Draw an orthogonal float32 matrix, uniformly (Haar), from 32 random bytes.

    Source: QR of normal draws with the signs of R's diagonal fixed, Mezzadri, arXiv:math-ph/0609050.
    """
    draws = np.random.default_rng(int.from_bytes(os.urandom(32), "big")).standard_normal((dimension, dimension))
    q, r = np.linalg.qr(draws)
    return np.ascontiguousarray(q * np.sign(np.diag(r)), dtype=np.float32)


def rotate(vectors: Vectors, matrix: Vectors) -> Vectors:
    """Multiply rows of width d by a (d, d) matrix; float32 in and out. A width that does not fit is `SealedError`."""
    if vectors.shape[-1] != matrix.shape[0]:
        raise SealedError(f"vectors of width {vectors.shape[-1]} do not fit a matrix of width {matrix.shape[0]}")
    turned: Vectors = np.ascontiguousarray(vectors, dtype=np.float32) @ matrix
    return turned


def digest(matrix: Vectors) -> bytes:
    """Give SHA-256 over the matrix's float32 little-endian bytes; stored beside the epoch."""
    return hashlib.sha256(np.ascontiguousarray(matrix, dtype="<f4").tobytes()).digest()
