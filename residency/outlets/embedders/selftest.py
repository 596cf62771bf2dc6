"""Self-test of a loaded model: eight frozen sentences against vectors that sentence-transformers made.

An embedder whose vectors miss them stays closed: a wrong runtime, a wrong export or a wrong model would spoil a
collection without a sound. Vectors of the bundled model ship in `frozen/`; for another model they are made once, at its
export.
"""

from pathlib import Path
from typing import Final

import numpy as np

from residency.errors import ModelError
from residency.ports import Vectors

FROZEN: Final = (
    "The retention period for invoices is ten years.",
    "Personenbezogene Daten dürfen das Land nicht verlassen.",
    "Où sont conservées les sauvegardes chiffrées ?",
    "A short one.",
    "The harbour crane was inspected on 14 March and found to be in good order, apart from a worn brake lining.",
    "Key custody: two officers, one safe, no copies.",
    "Die Rechnung Nr. 4711 über 1.234,56 € ist am 30. des Monats fällig.",
    "If the certificate has expired, the Site closes by itself and refuses every question until it is renewed.",
)
"""Never changed: stored vectors answer to them."""
EXACT: Final = 0.9999
"""Least cosine for float32."""
COARSE: Final = 0.99
"""Least cosine for int8 and bfloat16."""


def shipped(digest: str) -> Vectors | None:
    """Give the stored float32 (8, d) for a model digest that ships with Domicile."""
    path = Path(__file__).with_name("frozen") / f"{digest.removeprefix('sha256:')}.f32"
    return unpack(path.read_bytes()) if path.exists() else None


def unpack(data: bytes) -> Vectors:
    """Read float32 little-endian rows, one per frozen sentence. Raises `ModelError` when they are cut off."""
    if not data or len(data) % (4 * len(FROZEN)):
        raise ModelError("the stored self-test vectors are broken", hint="delete the exported model and export again")
    return np.frombuffer(data, "<f4").reshape(len(FROZEN), -1)


def check(vectors: Vectors, reference: Vectors, *, least: float = EXACT) -> None:
    """Raise `ModelError` unless every row is of unit length and meets its reference; both float32 (8, d)."""
    if vectors.shape != reference.shape or not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3):
        raise ModelError("the model does not give unit vectors of its own width", hint="use another model or runtime")
    worst = float((vectors * reference).sum(axis=1).min())
    if not worst >= least:
        raise ModelError(
            f"the self-test missed its vectors: cosine {worst:.5f}, at least {least} wanted",
            hint="the runtime or the export is not the one that made them: export again, or restore the model",
        )
