"""Intake: a body comes in; it is ruled on, measured, hashed with a key, and sealed frame by frame while it is read.

Rules kept here: the ruling comes before the first byte; no plaintext is kept, in memory no more than a Block; the
answer leaves only after row and Ledger entry are committed together; the same name with the same bytes is the same
Document; whatever fails on the way leaves no file, no key and no row.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from ingestion import tagger
from ingestion.arrivals import Arrivals, Taken, Upload
from ingestion.claims import Claim, check_groups, check_name
from ingestion.crash import crash_point
from ingestion.documents import Documents, names_of
from ingestion.errors import EmptyFileError, TooLargeError
from ingestion.leases import ACTIVITY, worker_principal
from ingestion.rows import document
from ingestion.states import State
from residency import receipt
from residency.database import Database
from residency.decision import Ask, Decision, Permit, Principal, Refusal
from residency.engine import Engine
from residency.envelope import seal_field
from residency.errors import DomicileError, SiteError
from residency.frames import FrameWriter
from residency.journal import recording
from residency.keyring import Keyring
from residency.ledger import Ledger
from residency.ports import Vault
from residency.receipt import Draft
from residency.route import Action, Route
from residency.tag import Tag
from residency.tagrules import TagRules

MAX_BYTES: Final = 100 * 1024 * 1024
"""Default limit of a body."""
IDLE: Final = 24 * 3600.0
"""Seconds after which a body that never ended is swept away."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No Site may hold it. `refusal` is the nearest one, `refusals` one per Site; `receipt` its Ledger entry."""

    refusal: Refusal
    refusals: tuple[Refusal, ...]
    receipt: str


class Intake:
    """Takes bodies in. `vaults` are the bodies this process has, by Site; `arrived` is called after each commit."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        keyring: Keyring,
        ledger: Ledger,
        vaults: Mapping[str, Vault],
        max_bytes: int = MAX_BYTES,
        tag_rules: Callable[[], TagRules] = TagRules,
        arrived: Callable[[], None] = lambda: None,
    ) -> None:
        self.database = database
        self.documents = Documents(database)
        self.arrivals = Arrivals(database, ledger)
        self.engine = engine
        self.keyring = keyring
        self.ledger = ledger
        self.vaults = vaults
        self.max_bytes = max_bytes
        self.tag_rules = tag_rules
        self.arrived = arrived

    async def receive(
        self, stream: AsyncIterator[bytes], claim: Claim, principal: Principal, length: int | None = None
    ) -> Taken | Refused:
        """Take a body in, or refuse before reading any of it; `length` is what the sender says it will be.

        Raises `ZoneError`, `TagError`, `UploadError`, `EmptyFileError`, `TooLargeError`, and what outlets raise.
        """
        ruled = await self.rule(claim, principal, length)
        if isinstance(ruled, Refused):
            return ruled
        claim, tag, site, activity = ruled
        first = b""
        async for block in stream:
            first = block
            if first:
                break
        if not first:
            raise EmptyFileError("the body is empty", hint="send the file's bytes as the body")
        with recording() as touches:
            story = Upload(claim, principal, activity, tag, site, touches)
            return await self._take(story, first, stream)

    async def rule(
        self, claim: Claim, principal: Principal, length: int | None = None
    ) -> tuple[Claim, Tag, str, str] | Refused:
        """Give the claim with its folder's rules, its Tag, the Site that will hold it and the activity; reads nothing.

        Raises as `receive`. A Refusal is recorded.
        """
        # (1) What is claimed, as a provisional Tag.
        check_name(claim.name)
        check_groups(claim.groups)
        claim = claim.placed(self.tag_rules())
        tag = claim.tag(self.engine.zones)
        if length == 0:
            raise EmptyFileError("the body is empty", hint="send the file's bytes as the body")
        if length is not None and length > self.max_bytes:
            raise self._too_large()
        # (2) A Site that may hold it; else a Refusal, and nothing of the body is read.
        activity = activity_of(principal)
        site, refusals = self._place(principal, tag, activity)
        if site is None:
            return await self._refuse(principal, tag, activity, refusals)
        return claim, tag, site, activity

    async def _take(self, story: Upload, first: bytes, stream: AsyncIterator[bytes]) -> Taken:
        claim, tag, site, tenant = story.claim, story.tag, story.site, story.principal.tenant
        vault = self.vaults[site]
        collection = await self.database.run(self.documents.collection, tenant, claim.collection)
        name_mac = self.keyring.name_mac(tenant, collection.id, claim.name)
        # (3) The row, `receiving`: it fixes id and version, which keys and frames are bound to.
        identifier, version = await self.database.run(self.arrivals.begin, story, collection.id, name_mac)
        subject, name = bytes.fromhex(identifier), names_of(identifier, version) + "original"
        writer, key = None, None
        try:
            # (4) A key of its own.
            key = await self.keyring.new_dek(
                self._route(story, Action.STORE),
                purpose="document",
                tenant=tenant,
                jurisdiction=tag.origin,
                subject=subject,
                version=version,
                tag_digest=tag.digest,
                site=site,
            )
            # (5) Per Block: measure, hash, seal, write.
            writer = await vault.create(self._route(story, Action.STORE), name)
            frames = FrameWriter(key, "original", subject, version)
            await writer.append(frames.header())
            mac, plain, size = self.keyring.content_mac(tenant), hashlib.sha256(), 0
            async for block in _all(first, stream):
                size += len(block)
                if size > self.max_bytes:
                    raise self._too_large()
                mac.update(block)
                plain.update(block)
                for frame in frames.feed(block):
                    await writer.append(frame)
                crash_point("frame")
            for frame in frames.finish():
                await writer.append(frame)
            content = mac.digest()
            values: dict[str, Any] = {
                "name_sealed": seal_field(key, "name", subject, claim.name.encode()),
                "dek_id": key.dek_id,
                "artefact_id": frames.artefact_id,
                "content_mac": content,
                "bytes_total": size,
                "bytes_done": size,
            }
            if told := claim.evidence():
                values["evidence_sealed"] = seal_field(key, "evidence", subject, tagger.sealed_form(told))
            same = await self.database.run(
                self.arrivals.twin, tenant, collection.id, name_mac, values["content_mac"], story
            )
            if same is not None:
                await self._abandon(story, identifier, version, key.dek_id, writer)
                return Taken(same, same.receipt, created=False)
            # (6) Durable before anybody hears of it; the ruling must hold now, not only when the body began.
            self._route(story, Action.STORE)
            await writer.commit()
            crash_point("after-last-frame")
            # (7) One transaction: row `sealed`, entry in the Ledger.
            draft = self._draft(story, subject, version, size, plain.digest())
            taken = await self.database.run(
                self.arrivals.commit, story, identifier, version, collection.id, values, draft
            )
        except BaseException:
            await self._abandon(story, identifier, version, key.dek_id if key else None, writer)
            raise
        crash_point("sealed")
        if not taken.created:
            await self._abandon(story, identifier, version, key.dek_id, writer)
        self.arrived()
        return taken

    def check(self, claim: Claim, principal: Principal) -> tuple[str | None, tuple[Refusal, ...]]:
        """Say at which Site a body of this claim would lie, else why at none; nothing is read, kept or recorded.

        Raises `ZoneError` and `TagError` as `receive` does.
        """
        activity = activity_of(principal)
        site, refusals = self._place(principal, claim.placed(self.tag_rules()).tag(self.engine.zones), activity)
        return site, tuple(refusals)

    # --- (2) rulings --------------------------------------------------------------------------------------------------

    def _place(self, principal: Principal, tag: Tag, activity: str) -> tuple[str | None, list[Refusal]]:
        """Choose the Site that will hold original, points and keys; every later step must be permitted as well."""
        permits, refusals = self.engine.permitted(principal, Action.STORE, (tag,), "vault", activity=activity)
        usable = False
        for permit in permits:
            here = permit.ask.site
            site = self.engine.fleet.site(here)
            if here not in self.vaults or not site.holding("shard") or not site.holding("keys"):
                continue
            usable = True
            worker = worker_principal(here, principal.tenant)
            later = [
                self.engine.decide(Ask(worker, action, here, (tag,), activity=ACTIVITY))
                for action in (Action.OPEN, Action.STORE, Action.SEARCH)
            ]
            embeds, closed = self.engine.permitted(worker, Action.EMBED, (tag,), "embedder", activity=ACTIVITY)
            later += [] if embeds else closed
            against = [decision for decision in later if isinstance(decision, Refusal)]
            if not against:
                return here, []
            refusals = [*refusals, *against]
        if not refusals:
            what = "holds both a shard and keys in this process" if permits and not usable else "has a vault"
            raise SiteError(f"no Site of the Fleet {what}", hint="add one to fleet.toml; `domicile doctor` shows it")
        return None, refusals

    async def _refuse(self, principal: Principal, tag: Tag, activity: str, refusals: list[Refusal]) -> Refused:
        draft = Draft(
            kind="refusal",
            tenant=principal.tenant,
            activity=activity,
            tags=(tag,),
            steps=[],
            refused=[refusal.facts() for refusal in refusals],
        )
        stored = await self.ledger.record(draft)
        return Refused(refusals[0], tuple(refusals), stored.id)

    def _route(self, story: Upload, action: Action) -> Route:
        decision = self._decide(story, action)
        if isinstance(decision, Permit):
            return decision.route
        raise SiteError("the ruling changed while the body came in", site=story.site, hint="send it again")

    def _decide(self, story: Upload, action: Action) -> Decision:
        ask = Ask(story.principal, action, story.site, (story.tag,), activity=story.activity)
        return self.engine.decide(ask)

    def _too_large(self) -> TooLargeError:
        limit = self.max_bytes
        return TooLargeError(
            f"the body is larger than {limit} bytes",
            limit_bytes=limit,
            hint="split the document, or ask your operator to raise the limit",
        )

    def _draft(self, story: Upload, subject: bytes, version: int, size: int, plain: bytes) -> Draft:
        return Draft(
            kind="ingest",
            tenant=story.principal.tenant,
            activity=story.activity,
            tags=(story.tag,),
            steps=receipt.steps(story.touches, self.engine.fleet, now=datetime.now(UTC)),
            refused=[],
            commits={"documents": [subject], "name": story.claim.name.encode(), "content": plain},
            facts={"stage": "sealed", "version": version, "site": story.site, "bytes": size},
        )

    # --- whatever fails leaves nothing --------------------------------------------------------------------------------

    async def _abandon(
        self, story: Upload, identifier: str, version: int, dek_id: bytes | None, writer: Any | None
    ) -> None:
        if writer is not None:
            await writer.abandon()
        await self._remove(story.principal.tenant, story.site, story.tag, identifier, version, dek_id)

    async def _remove(
        self, tenant: str, site: str, tag: Tag, identifier: str, version: int, dek_id: bytes | None
    ) -> None:
        worker = worker_principal(site, tenant)
        decision = self.engine.decide(Ask(worker, Action.ERASE, site, (tag,), activity=ACTIVITY))
        if isinstance(decision, Permit) and site in self.vaults:
            await self.vaults[site].delete(decision.route, [names_of(identifier, version) + "original"])
        if dek_id:
            await self.keyring.shred(dek_id)
        c = document.c
        mine = sa.and_(c.id == identifier, c.version == version, c.state == State.RECEIVING)

        def drop() -> None:
            with self.database.transaction() as connection:
                connection.execute(sa.delete(document).where(mine))

        await self.database.run(drop)

    async def sweep(self, older_than: float = IDLE) -> int:
        """Remove bodies that never ended and were idle for `older_than` seconds; 0 after a start that owns the home."""
        c = document.c
        idle = sa.and_(c.state == State.RECEIVING, c.updated <= self.database.clock() - older_than)

        def find() -> list[Any]:
            with self.database.reading() as connection:
                return list(connection.execute(sa.select(document).where(idle)))

        rows = await self.database.run(find)
        swept = 0
        for row in rows:
            dek_ids: list[bytes | None] = [*await self.database.run(self.arrivals.keys_of, row)]
            tag = Tag.of(json.loads(row.tag))
            try:
                for dek_id in dek_ids or [None]:
                    await self._remove(row.tenant_id, row.site_id, tag, row.id, row.version, dek_id)
                swept += 1
            except DomicileError:
                continue  # its Site does not answer now; the next sweep will come by
        return swept


def activity_of(principal: Principal) -> str:
    """Give the activity that a Principal brings bodies for."""
    return ACTIVITY if ACTIVITY in principal.activities else min(principal.activities, default="")


async def _all(first: bytes, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for block in stream:
        if block:
            yield block
