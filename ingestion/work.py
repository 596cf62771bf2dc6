"""Work: one Document in a worker's hand.

What a step made is kept here for the next one, and read back from the vault after a crash; so in the usual case each
artefact is written once and never read again.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Self

from ingestion.artefacts import Artefacts
from ingestion.detectors import Sign
from ingestion.leases import Lease
from ingestion.rulings import Passes
from ingestion.sandbox import Reading
from ingestion.splitter import Piece
from residency.envelope import PassageSealer, open_field, seal_field
from residency.journal import Touch
from residency.ports import Vault, Vectors
from residency.seal import OpenDek
from residency.searchkeys import SearchKeys
from residency.tag import Tag


@dataclass(slots=True)
class Work:
    """A taken row, its Tag as it stands, and what was touched and asked about on the way."""

    lease: Lease
    tag: Tag
    touches: list[Touch]
    tags: set[Tag] = field(default_factory=set)
    """Every Tag a Route was asked for."""

    @classmethod
    def of(cls, lease: Lease, touches: list[Touch]) -> Self:
        """Begin with a row as it was taken."""
        tag = Tag.of(json.loads(lease.row["tag"]))
        return cls(lease, tag, touches, {tag})

    def __getitem__(self, column: str) -> Any:
        return self.lease.row[column]

    @property
    def subject(self) -> bytes:
        """The Document's id as keys and AAD take it."""
        return bytes.fromhex(self["id"])


@dataclass(slots=True)
class Open:
    """A Document that its key has opened."""

    dek: OpenDek
    name: str
    artefacts: Artefacts
    reading: Reading | None = None
    pieces: list[Piece] | None = None
    vectors: dict[int, Vectors] = field(default_factory=dict)
    keys: SearchKeys | None = None

    @classmethod
    def of(cls, work: Work, dek: OpenDek, vault: Vault) -> Self:
        """Open the name and find the artefacts."""
        name = open_field(dek, "name", work.subject, work["name_sealed"]).decode()
        return cls(dek, name, Artefacts(vault, dek, work["id"], work["version"]))

    async def text(self, passes: Passes) -> Reading:
        """Give what the reader gave."""
        if self.reading is None:
            self.reading = await self.artefacts.text(passes.open)
        return self.reading

    async def cuts(self, passes: Passes) -> list[Piece]:
        """Give the Passages as they were cut."""
        if self.pieces is None:
            self.pieces = await self.artefacts.pieces(passes.open)
        return self.pieces

    async def block(self, passes: Passes, first: int, count: int) -> Vectors:
        """Give the turned vectors of a block, once."""
        kept = self.vectors.pop(first, None)
        return kept if kept is not None else await self.artefacts.vectors(passes.open, first, count)

    def places(self, work: Work) -> list[Sign]:
        """Give what the folder rules said when it came in."""
        kept = work["evidence_sealed"]
        items = json.loads(open_field(self.dek, "evidence", work.subject, kept)) if kept else []
        return [Sign(**item) for item in items if item["kind"] == "place"]

    def sealed(self, work: Work, field_name: str, text: str) -> bytes:
        """Seal a text that belongs into the row: evidence, or an error's details."""
        return seal_field(self.dek, field_name, work.subject, text.encode())

    def sealer(self, work: Work) -> PassageSealer:
        """Give what seals and opens the Passages of this version."""
        return PassageSealer(
            self.dek,
            collection=bytes.fromhex(work["collection_id"]),
            document=work.subject,
            version=work["version"],
            classification=work.tag.classification,
        )
