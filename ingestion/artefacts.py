"""Artefacts: what a step leaves for the next one, sealed in the vault before the row moves.

`text` is what the reader gave, `passages` the cuts, `vectors` float32 blocks of 256, already turned. Names are ids and
numbers. Every file is sealed under the version's own DEK, so erasing the key erases them all.
"""

import asyncio
import struct
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from ingestion.documents import names_of
from ingestion.sandbox import Reading
from ingestion.splitter import Piece
from residency.errors import SealedError
from residency.frames import HEADER, open_file, seal_file
from residency.ports import Vault, Vectors
from residency.route import Route
from residency.seal import OpenDek

BLOCK: Final = 256
"""Passages per block of vectors: what a crash repeats at most."""
_BLOCK_HEADER: Final = struct.Struct(">III")


def work_names(document_id: str, version: int, passages: int) -> list[str]:
    """Name what only the way to live needs; original and text stay, the text for showing sources."""
    prefix = names_of(document_id, version)
    return [prefix + "passages", *(f"{prefix}vectors.{number}" for number in range(-(-passages // BLOCK)))]


class Artefacts:
    """The sealed files of one document version at its Site."""

    def __init__(self, vault: Vault, dek: OpenDek, document_id: str, version: int) -> None:
        self._vault = vault
        self._dek = dek
        self._document = bytes.fromhex(document_id)
        self._version = version
        self._prefix = names_of(document_id, version)

    async def original(self, route: Route, artefact_id: bytes) -> bytes:
        """Open the original into memory; its write run must be the one that the row names."""
        sealed = await self._vault.read(route, self._prefix + "original")
        if sealed[20:HEADER] != artefact_id:
            raise SealedError("the sealed original is of another write run than its row says")
        return await asyncio.to_thread(open_file, self._dek, "original", self._document, self._version, sealed)

    async def write_text(self, route: Route, reading: Reading) -> None:
        """Seal what the reader gave."""
        await self._write(route, "text", "text", msgspec.json.encode(reading))

    async def text(self, route: Route) -> Reading:
        """Open what the reader gave."""
        return msgspec.json.decode(await self._read(route, "text", "text"), type=Reading)

    async def write_pieces(self, route: Route, pieces: Sequence[Piece]) -> None:
        """Seal the cuts."""
        await self._write(route, "passages", "passages", msgspec.json.encode(pieces))

    async def pieces(self, route: Route) -> list[Piece]:
        """Open the cuts."""
        return msgspec.json.decode(await self._read(route, "passages", "passages"), type=list[Piece])

    async def write_vectors(self, route: Route, first: int, vectors: Vectors) -> None:
        """Seal a block of turned vectors, float32 (n, d), that begins with Passage `first`."""
        head = _BLOCK_HEADER.pack(first, *vectors.shape)
        data = head + np.ascontiguousarray(vectors, dtype="<f4").tobytes()
        await self._write(route, f"vectors.{first // BLOCK}", "vectors", data)

    async def vectors(self, route: Route, first: int, count: int) -> Vectors:
        """Open the block that begins with Passage `first`; its place and size stand inside."""
        data = await self._read(route, f"vectors.{first // BLOCK}", "vectors")
        begins, rows, width = _BLOCK_HEADER.unpack_from(data)
        if (begins, rows) != (first, count):
            raise SealedError("a block of vectors stands in another's place")
        return np.frombuffer(data, dtype="<f4", offset=_BLOCK_HEADER.size).reshape(rows, width)

    async def _write(self, route: Route, name: str, artefact: str, data: bytes) -> None:
        parts = await asyncio.to_thread(
            lambda: list(seal_file(self._dek, artefact, self._document, self._version, data))
        )
        await self._vault.put(route, self._prefix + name, parts)

    async def _read(self, route: Route, name: str, artefact: str) -> bytes:
        sealed = await self._vault.read(route, self._prefix + name)
        return await asyncio.to_thread(open_file, self._dek, artefact, self._document, self._version, sealed)
