"""SearchKeys: what one tenant × jurisdiction × Site × epoch needs to fill an index and to ask it.

Three keys that never serve each other's end: the rotation's matrix (under K_vec), the blind words (K_lex), and the
keyed tags and ids of points (K_tag). Made and opened by `keyring.py`.
"""

from dataclasses import dataclass

from residency.lexicon import Lexicon, keyed_tag, point_id
from residency.ports import Vectors
from residency.rotation import Rotation
from residency.seal import tenant_bytes


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

    @classmethod
    def of(
        cls, tenant: str, jurisdiction: str, site: str, epoch: int, *, rotation: Rotation, words: bytes, tags: bytes
    ) -> "SearchKeys":
        """Build from the opened matrix, K_lex and K_tag."""
        owner = keyed_tag(tags, "tenant", tenant_bytes(tenant))
        return cls(tenant, jurisdiction, site, epoch, rotation, Lexicon(words), owner, tags)

    def rotate(self, vectors: Vectors) -> Vectors:
        """Turn vectors into this epoch's basis; float32 of shape (d,) or (n, d)."""
        return self.rotation.rotate(vectors)

    def point_id(self, document: str, version: int, number: int) -> str:
        """Give the id of the point that holds this Passage; `document` in hex."""
        return point_id(self._tags, bytes.fromhex(document), version, number)

    def group(self, group: str) -> str:
        """Give the value of payload key `a` that stands for an access group."""
        return keyed_tag(self._tags, "acl", group)

    def __repr__(self) -> str:
        return f"<SearchKeys {self.jurisdiction} at {self.site}, epoch {self.epoch}>"
