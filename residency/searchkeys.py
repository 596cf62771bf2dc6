"""SearchKeys: what one tenant × jurisdiction × Site × epoch needs to fill an index and to ask it.

Three keys that never serve each other's end: the rotation's matrix (under K_vec), the blind words (K_lex), and the
keyed tags and ids of points (K_tag). Made and opened by `keyring.py`.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from residency.lexicon import Lexicon, keyed_tag, point_id
from residency.ports import Vectors
from residency.protection import VectorMode
from residency.rotation import Rotation
from residency.seal import bind, tenant_bytes

NOISE: Final = 0.25
"""Longest noise of `rotated+noise`, in lengths of a vector: β/4 with β = 1, the least that is worth its loss."""


@dataclass(frozen=True, slots=True)
class SearchKeys:
    """The open search keys of one epoch; kept in memory only."""

    tenant: str
    jurisdiction: str
    site: str
    epoch: int
    rotation: Rotation
    lexicon: Lexicon
    owner: str
    """Value of payload key `t`: which tenant × jurisdiction × epoch a point belongs to."""
    _tags: bytes
    _vectors: bytes

    @classmethod
    def of(
        cls,
        tenant: str,
        jurisdiction: str,
        site: str,
        epoch: int,
        *,
        rotation: Rotation,
        vectors: bytes,
        words: bytes,
        tags: bytes,
    ) -> "SearchKeys":
        """Build from the opened matrix, K_vec, K_lex and K_tag."""
        owner = keyed_tag(tags, "tenant", tenant_bytes(tenant))
        return cls(tenant, jurisdiction, site, epoch, rotation, Lexicon(words), owner, tags, vectors)

    def rotate(self, vectors: Vectors) -> Vectors:
        """Turn vectors into this epoch's basis; float32 of shape (d,) or (n, d)."""
        return self.rotation.rotate(vectors)

    def protected(self, mode: VectorMode, vectors: Vectors, ids: Sequence[str]) -> Vectors:
        """Give vectors (n, d) as they are kept; `ids` are their points'. In mode `sealed` they are sealed later."""
        if mode in (VectorMode.NONE, VectorMode.SEALED):
            return vectors
        turned = self.rotate(vectors)
        return turned + self._noise(ids, turned.shape[-1]) if mode is VectorMode.NOISY else turned

    def asked(self, mode: VectorMode, vector: Vectors) -> Vectors:
        """Give a question's vector as it is compared with what is kept; it never gets noise."""
        return vector if mode in (VectorMode.NONE, VectorMode.SEALED) else self.rotate(vector)

    def _noise(self, ids: Sequence[str], width: int) -> Vectors:
        # Seeded by the point: fresh noise on each replay could be averaged away. Even within a ball.
        made = np.empty((len(ids), width), dtype=np.float32)
        for row, identifier in zip(made, ids, strict=True):
            seed = hmac.digest(self._vectors, bind("domicile/v1/noise", identifier), "sha256")
            draws = np.random.default_rng(int.from_bytes(seed, "big"))
            way = draws.standard_normal(width)
            row[:] = way * (NOISE * draws.random() ** (1 / width) / np.linalg.norm(way))
        return made

    def point_id(self, document: str, version: int, number: int) -> str:
        """Give the id of the point that holds this Passage; `document` in hex."""
        return point_id(self._tags, bytes.fromhex(document), version, number)

    def group(self, group: str) -> str:
        """Give the value of payload key `a` that stands for an access group."""
        return keyed_tag(self._tags, "acl", group)

    def __repr__(self) -> str:
        return f"<SearchKeys {self.jurisdiction} at {self.site}, epoch {self.epoch}>"
