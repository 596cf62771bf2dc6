"""keyrows: what the rows of the Keyring say once they are read; values without a database behind them."""

from dataclasses import dataclass

from residency.ports import KekRef
from residency.seal import KeyContext


@dataclass(frozen=True, slots=True)
class DekRow:
    """One live DEK as stored: its context, its KEK version, and the wrapped key."""

    context: KeyContext
    tenant: str
    kek: KekRef
    commitment: bytes
    tag_digest: bytes
    wrapped: bytes

    @property
    def id(self) -> bytes:
        """The dek_id."""
        return self.context.dek_id

    def aad(self, tag_digest: bytes, under: KekRef | None = None) -> bytes:
        """Give the wrap AAD for a Tag, under this row's KEK version or the one given."""
        ref = under or self.kek
        return self.context.wrap_aad(ref.id, ref.version, tag_digest)


@dataclass(frozen=True, slots=True)
class KekState:
    """One KEK version as `keys status` prints it; times are seconds since 1970."""

    ref: KekRef
    state: str
    wraps: int
    left: int
    """Live DEKs still wrapped under it."""
    created: float
    destroyed_at: float | None
    retired_at: float | None = None
    due: float | None = None
    """By when it is to be destroyed; for an active one, what an erasure promised of it."""
    now: float = 0.0
    """The database's clock when this was read."""

    @property
    def ripe(self) -> bool:
        """Whether it may be destroyed: retired, and its time has come."""
        return self.state == "retired" and self.due is not None and self.due <= self.now


@dataclass(frozen=True, slots=True)
class Keyset:
    """The three search keys of one epoch, without the matrix."""

    epoch: int
    dimension: int
    deks: tuple[bytes, bytes, bytes]
    """Ids of K_vec, K_lex, K_tag."""
    matrix_digest: bytes
