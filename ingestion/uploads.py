"""Uploads: a body that comes in many calls, each part sealed as it comes, and taken in as one body at its end.

Rules kept here: the ruling comes before the first byte and once more before each part; what lies in the vault between
two calls is sealed, and so is what was said of the Document; a part counts when its file and its row are durable, so an
offset is never ahead of what is kept; an upload is seen only by who began it; the last part counts when the Document is
in, so nothing is ever whole and forgotten. What expires, fails or is given up leaves no file, no key and no row.
"""

import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import sqlalchemy as sa

from ingestion.arrivals import Taken
from ingestion.claims import Claim
from ingestion.errors import BusyError, ChecksumError, DocumentError, NotFoundError, TooLargeError
from ingestion.intake import Intake, Refused, activity_of
from ingestion.leases import ACTIVITY, worker_principal
from ingestion.parts import Parts, remove, upload
from residency.database import Database
from residency.decision import Ask, Permit, Principal
from residency.engine import Engine
from residency.envelope import open_field, seal_field
from residency.errors import DomicileError, SiteError
from residency.keyring import Keyring
from residency.ports import Vault
from residency.route import Action, Route
from residency.seal import OpenDek
from residency.tag import Tag


class Checksum(Protocol):
    """What one call's bytes must come to."""

    def update(self, data: bytes, /) -> None:
        """Take bytes in."""
        ...

    def holds(self) -> bool:
        """Whether the bytes were those."""
        ...


@dataclass(frozen=True, slots=True)
class Begun:
    """Where an upload stands. `document` and `receipt` are empty until it is in; `said` is what its sender wrote."""

    id: str
    length: int
    received: int
    expires: float
    document: str = ""
    receipt: str = ""
    said: str = ""


class _Said(msgspec.Struct, frozen=True):
    claim: Claim
    said: str


class Uploads:
    """Keeps uploads until they are whole. `seconds` after its last part an upload expires."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        keyring: Keyring,
        intake: Intake,
        vaults: Mapping[str, Vault],
        seconds: float,
    ) -> None:
        self._database = database
        self._engine = engine
        self._keyring = keyring
        self._intake = intake
        self._vaults = vaults
        self._seconds = seconds
        self._busy: set[str] = set()

    @property
    def max_bytes(self) -> int:
        """Bytes of the largest body."""
        return self._intake.max_bytes

    async def begin(self, principal: Principal, claim: Claim, length: int, said: str = "") -> Begun | Refused:
        """Rule on a body of `length` bytes and begin its upload. Raises as `Intake.receive` does before a byte."""
        ruled = await self._intake.rule(claim, principal, length)
        if isinstance(ruled, Refused):
            return ruled
        _, tag, site, activity = ruled
        await self._database.run(self._intake.documents.collection, principal.tenant, claim.collection)
        identifier = secrets.token_hex(16)
        subject = bytes.fromhex(identifier)
        key = await self._keyring.new_dek(
            self._route(Ask(principal, Action.STORE, site, (tag,), activity=activity)),
            purpose="document",
            tenant=principal.tenant,
            jurisdiction=tag.origin,
            subject=subject,
            version=1,
            tag_digest=tag.digest,
            site=site,
        )
        values: dict[str, Any] = {
            "id": identifier,
            "tenant_id": principal.tenant,
            "principal_id": principal.id,
            "site_id": site,
            "tag": json.dumps(tag.facts(), sort_keys=True),
            "dek_id": key.dek_id,
            "claim_sealed": seal_field(key, "claim", subject, msgspec.json.encode(_Said(claim, said))),
            "length": length,
            "received": 0,
            "parts": "[]",
            "document_id": "",
            "receipt": "",
            "expires": self._database.clock() + self._seconds,
        }

        def enter() -> Any:
            with self._database.transaction() as connection:
                connection.execute(sa.insert(upload).values(values))
                return connection.execute(sa.select(upload).where(upload.c.id == identifier)).one()

        try:
            return _begun(await self._database.run(enter), said)
        except BaseException:
            await self._keyring.shred(key.dek_id)
            raise

    async def get(self, principal: Principal, upload_id: str) -> Begun:
        """Say where an upload stands. Raises `NotFoundError`, also for another's and for an expired one."""
        row = await self._row(principal, upload_id)
        return _begun(row, "" if row.document_id else self._said(row, await self._key(row)).said)

    async def append(
        self,
        principal: Principal,
        upload_id: str,
        offset: int,
        blocks: AsyncIterator[bytes],
        checksum: Checksum | None = None,
    ) -> Begun | Refused:
        """Take the bytes from `offset` on; the last ones make the Document. What came before a broken line is kept.

        Raises `NotFoundError`, `DocumentError` for a wrong offset, `BusyError`, `TooLargeError`, `ChecksumError` (then
        none of these bytes is kept), and what outlets raise.
        """
        if upload_id in self._busy:
            raise BusyError("another call is sending bytes of this upload", hint="wait for it, or end it; then HEAD")
        self._busy.add(upload_id)
        try:
            row = await self._row(principal, upload_id)
            if offset != row.received:
                raise DocumentError(
                    f"this upload has {row.received} bytes, so nothing is taken from byte {offset} on",
                    hint="ask for its offset with HEAD and send from there",
                )
            if row.received == row.length:  # its last answer was lost
                return _begun(row)
            parts = Parts(self._vaults[row.site_id], await self._key(row), row, self._as(row, principal))
            try:
                return await self._append(parts, principal, blocks, checksum)
            except BaseException:
                await parts.abandon()
                raise
        finally:
            self._busy.discard(upload_id)

    async def _append(
        self, parts: Parts, principal: Principal, blocks: AsyncIterator[bytes], checksum: Checksum | None
    ) -> Begun | Refused:
        length = parts.row.length
        async for block in blocks:
            if parts.received + parts.size + len(block) > length:
                raise TooLargeError(
                    "more bytes came than the upload was begun for",
                    limit_bytes=length,
                    hint="begin another upload with the right length",
                )
            if checksum is not None:
                checksum.update(block)
            rest = block
            while rest:
                rest = await parts.write(rest)
                # With a checksum nothing counts before all of it was seen; the last part counts with the Document.
                if parts.size == 0 and checksum is None and parts.received < length:
                    await self._settle(parts)
        if checksum is not None and not checksum.holds():
            raise ChecksumError("the bytes are not those of the checksum", hint="send them again from this offset")
        await parts.close()
        if parts.received < length:
            return await self._settle(parts)
        # Whole: open the parts and take them in as one body, ruled on as it stands now.
        claim = self._said(parts.row, parts.key).claim
        outcome = await self._intake.receive(parts.opened(), claim, principal, length)
        if isinstance(outcome, Refused):
            await self._remove(parts.row)
            return outcome
        begun = await self._settle(parts, outcome)
        await self._clear(parts.row)
        return begun

    async def drop(self, principal: Principal, upload_id: str) -> None:
        """Give an upload up: its key, its parts, its row. Raises `NotFoundError`, `BusyError`."""
        if upload_id in self._busy:
            raise BusyError("another call is sending bytes of this upload", hint="end it first")
        await self._remove(await self._row(principal, upload_id))

    async def sweep(self) -> int:
        """Remove what expired; gives how many. A Site that does not answer now is come by again."""

        def find() -> list[Any]:
            with self._database.reading() as connection:
                ended = upload.c.expires <= self._database.clock()
                return list(connection.execute(sa.select(upload).where(ended)))

        swept = 0
        for row in await self._database.run(find):
            if row.id not in self._busy:
                try:
                    await self._remove(row)
                    swept += 1
                except DomicileError:
                    continue
        return swept

    # --- rows, keys and routes ----------------------------------------------------------------------------------------

    async def _row(self, principal: Principal, upload_id: str) -> Any:
        c = upload.c
        mine = sa.and_(c.id == upload_id, c.tenant_id == principal.tenant, c.principal_id == principal.id)

        def find() -> Any:
            with self._database.reading() as connection:
                return connection.execute(
                    sa.select(upload).where(mine, c.expires > self._database.clock())
                ).one_or_none()

        row = await self._database.run(find)
        if row is None:
            raise NotFoundError("there is no such upload", hint="it may have expired; begin it again")
        return row

    async def _settle(self, parts: Parts, outcome: Taken | None = None) -> Begun:
        """Let the parts closed so far count, unless another process let others count meanwhile."""
        c, row = upload.c, parts.row
        was = sa.and_(c.id == row.id, c.received == parts.settled)
        values: dict[str, Any] = {
            "received": parts.received,
            "parts": json.dumps(parts.runs),
            "expires": self._database.clock() + self._seconds,
        }
        if outcome is not None:
            values |= {"parts": "[]", "document_id": outcome.document.id, "receipt": outcome.receipt}

        def write() -> Any:
            with self._database.transaction() as connection:
                if not connection.execute(sa.update(upload).where(was).values(values)).rowcount:
                    return None
                return connection.execute(sa.select(upload).where(c.id == row.id)).one()

        now = await self._database.run(write)
        if now is None:
            raise BusyError("another call sent bytes of this upload", hint="ask for its offset with HEAD")
        parts.counted()
        return _begun(now)

    async def _key(self, row: Any) -> OpenDek:
        tag = Tag.of(json.loads(row.tag))
        route = self._as(row)(Action.OPEN)
        return await self._keyring.open_dek(route, row.site_id, bytes(row.dek_id), tag.digest)

    def _said(self, row: Any, key: OpenDek) -> _Said:
        sealed = open_field(key, "claim", bytes.fromhex(row.id), bytes(row.claim_sealed))
        return msgspec.json.decode(sealed, type=_Said)

    async def _remove(self, row: Any) -> None:
        await self._clear(row)

        def drop() -> None:
            with self._database.transaction() as connection:
                connection.execute(sa.delete(upload).where(upload.c.id == row.id))

        await self._database.run(drop)

    async def _clear(self, row: Any) -> None:
        """The key first: what is left of the parts then opens no more."""
        await self._keyring.shred(bytes(row.dek_id))
        await remove(self._vaults[row.site_id], row.id, self._as(row))

    def _as(self, row: Any, principal: Principal | None = None) -> Callable[[Action], Route]:
        """Route as the sender stores, and as a worker at the Site opens, lists and removes."""
        tag = Tag.of(json.loads(row.tag))
        worker = worker_principal(row.site_id, row.tenant_id)

        def route(action: Action) -> Route:
            if principal is not None and action is Action.STORE:
                ask = Ask(principal, action, row.site_id, (tag,), activity=activity_of(principal))
            else:
                ask = Ask(worker, action, row.site_id, (tag,), activity=ACTIVITY)
            return self._route(ask)

        return route

    def _route(self, ask: Ask) -> Route:
        decision = self._engine.decide(ask)
        if isinstance(decision, Permit) and ask.site in self._vaults:
            return decision.route
        raise SiteError("the ruling changed while the upload came in", site=ask.site, hint="begin it again")


def _begun(row: Any, said: str = "") -> Begun:
    return Begun(row.id, row.length, row.received, row.expires, row.document_id, row.receipt, said)
