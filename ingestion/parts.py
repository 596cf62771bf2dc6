"""Parts: the bytes of one call, sealed as files of an upload, at most `PART` of the body in each.

Rules kept here: a part is a sealed file of its own, bound to the upload, its place in it and its write run; each is
ruled on when it begins; what does not come to count is removed.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import sqlalchemy as sa

from residency.database import metadata
from residency.errors import SealedError
from residency.frames import HEADER, FrameWriter, open_file
from residency.ports import Vault, VaultWriter
from residency.route import Action, Route
from residency.seal import OpenDek

PART: Final = 8 * 1024 * 1024
"""Bytes of the body per part: what a killed process repeats at most, and what is held to read one back."""

upload = sa.Table(
    "upload",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("tenant_id", sa.String(63), nullable=False),
    sa.Column("principal_id", sa.String(200), nullable=False),
    sa.Column("site_id", sa.String(63), nullable=False),
    sa.Column("tag", sa.Text, nullable=False),
    sa.Column("dek_id", sa.LargeBinary, nullable=False),
    sa.Column("claim_sealed", sa.LargeBinary, nullable=False),
    sa.Column("length", sa.BigInteger, nullable=False),
    sa.Column("received", sa.BigInteger, nullable=False),
    sa.Column("parts", sa.Text, nullable=False),  # write runs of the parts that count, in order, as hex
    sa.Column("document_id", sa.String(32), nullable=False),
    sa.Column("receipt", sa.String(40), nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
)
sa.Index("ix_upload_expires", upload.c.expires)


class Parts:
    """Writes and reads the parts of one upload. `row` is its row; `route` gives a fresh Route for an Action."""

    def __init__(self, vault: Vault, key: OpenDek, row: Any, route: Callable[[Action], Route]) -> None:
        self.row = row
        self.key = key
        self.runs: list[str] = json.loads(row.parts)
        """Write runs of all parts that are closed."""
        self.received: int = row.received
        """Bytes in them."""
        self.settled: int = row.received
        """Bytes that the row says."""
        self.size = 0
        """Bytes in the part that is open."""
        self._vault, self._route = vault, route
        self._fresh: list[str] = []
        self._writer: VaultWriter | None = None
        self._frames: FrameWriter | None = None

    async def write(self, data: bytes) -> bytes:
        """Seal what still goes into the open part, and give the rest."""
        if self._writer is None or self._frames is None:
            self._frames = FrameWriter(self.key, "original", bytes.fromhex(self.row.id), len(self.runs) + 1)
            self._writer = await self._vault.create(
                self._route(Action.STORE), self._name(self._frames.artefact_id.hex())
            )
            await self._writer.append(self._frames.header())
        taken, rest = data[: PART - self.size], data[PART - self.size :]
        for frame in self._frames.feed(taken):
            await self._writer.append(frame)
        self.size += len(taken)
        if self.size == PART:
            await self.close()
        return rest

    async def close(self) -> None:
        """Make the open part durable; it counts when its row says so."""
        if self._writer is None or self._frames is None:
            return
        for frame in self._frames.finish():
            await self._writer.append(frame)
        await self._writer.commit()
        run = self._frames.artefact_id.hex()
        self._writer = self._frames = None
        self.runs.append(run)
        self._fresh.append(run)
        self.received, self.size = self.received + self.size, 0

    def counted(self) -> None:
        """Note that the row says what is closed."""
        self._fresh.clear()
        self.settled = self.received

    async def abandon(self) -> None:
        """Remove what does not count."""
        if self._writer is not None:
            await self._writer.abandon()
            self._writer = self._frames = None
        if self._fresh:
            await self._vault.delete(self._route(Action.ERASE), [self._name(run) for run in self._fresh])
            self._fresh.clear()

    async def opened(self) -> AsyncIterator[bytes]:
        """Give the body, part by part. Raises `SealedError` for anything but the parts that were written."""
        for number, run in enumerate(self.runs, start=1):
            sealed = await self._vault.read(self._route(Action.OPEN), self._name(run))
            if sealed[20:HEADER].hex() != run:
                raise SealedError("a sealed part is of another write run than its row says")
            yield await asyncio.to_thread(open_file, self.key, "original", bytes.fromhex(self.row.id), number, sealed)

    def _name(self, run: str) -> str:
        return f"{self.row.id}.part.{run}"


async def remove(vault: Vault, upload_id: str, route: Callable[[Action], Route]) -> None:
    """Remove every file under an upload's id."""
    if names := await vault.names(route(Action.SEARCH), f"{upload_id}.part."):
        await vault.delete(route(Action.ERASE), names)
