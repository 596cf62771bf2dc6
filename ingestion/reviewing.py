"""Reviewing: a person rules on a Tag in dispute, or gives a live Document a narrower one.

Rules kept here: whoever decides must be permitted to open the Document where it lies; a decision may narrow a Tag and
never widens it; row, decision and Ledger entry are one commit, and the first decision stands. A changed Tag means a
copy: sealed anew under it by `moving.py`, at the same Site or, where the new Tag is not permitted there, at one where
it is. Until that copy is live no search finds the Document; a live one that is narrowed is out of every search at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from ingestion import collections, decisions, tagger
from ingestion.decisions import GROUNDS, Ruled, Verdict
from ingestion.documents import Document, Documents
from ingestion.erasure import Erasure
from ingestion.errors import DecidedError, DocumentError, NotFoundError, RulingError
from ingestion.intake import Refused
from ingestion.leases import ACTIVITY
from ingestion.moving import Moving, begin_copy
from ingestion.rows import document
from ingestion.states import RETAGGING, State
from residency import receipt
from residency.database import Database
from residency.decision import Ask, Permit, Principal, Refusal
from residency.engine import Engine
from residency.envelope import open_field, seal_field
from residency.journal import Touch, recording
from residency.keyring import Keyring
from residency.ledger import Ledger
from residency.receipt import Draft
from residency.route import Action
from residency.seal import OpenDek
from residency.tag import Tag

LONGEST_NOTE = 2_000
"""Characters of a reviewer's own words."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a reviewer asks for; of a narrower Tag, `None` leaves a value as the evidence suggests it."""

    verdict: Verdict
    ground: str
    note: str = ""
    jurisdictions: frozenset[str] | None = None
    residency: frozenset[str] | None = None
    personal: bool | None = None
    categories: frozenset[str] | None = None
    classification: int | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """A Document before a reviewer: what was said, what was found where, and what would follow."""

    document: Document
    evidence: list[dict[str, Any]]
    suggested: Tag
    """The declared Tag with everything the evidence adds to it."""
    site: str
    """Where it would lie under the suggested Tag; empty where no Site is permitted."""
    decided: Ruled | None


class Reviewing:
    """Shows and takes decisions on Tags; workers do what follows."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        keyring: Keyring,
        ledger: Ledger,
        moving: Moving,
        erasure: Erasure,
        arrived: Callable[[], None] = lambda: None,
    ) -> None:
        self.database = database
        self.engine = engine
        self.keyring = keyring
        self.ledger = ledger
        self.moving = moving
        self.erasure = erasure
        self.arrived = arrived
        self.documents = Documents(database)

    async def look(self, principal: Principal, document_id: str) -> Review | Refused:
        """Show a Document with the evidence for its Tag, opened with a permitted key.

        Raises `NotFoundError`; a Refusal comes with its Receipt.
        """
        held = await self.database.run(self.documents.get, principal.tenant, document_id)
        row, decided = await self.database.run(self._row, held)
        opened = await self._open(principal, held)
        if isinstance(opened, Refused):
            return opened
        evidence = _evidence(opened, row)
        suggested = tagger.suggested(held.tag, evidence, self.engine.zones)
        try:
            site = self._place(principal, held, suggested)
        except DocumentError:  # this process has no shards and cannot say
            site = ""
        return Review(held, evidence, suggested, site if isinstance(site, str) else "", decided)

    async def decide(self, principal: Principal, document_id: str, ruling: Ruling) -> Ruled | Refused:
        """Rule on a quarantined Document, or narrow a live one; the same ruling again by the same person is harmless.

        Raises `NotFoundError`, `RulingError` for what may not be decided, and `DecidedError` where another decided.
        """
        if ruling.ground not in GROUNDS:
            raise RulingError("that is no ground", hint=f"one of {', '.join(GROUNDS)}")
        if len(ruling.note) > LONGEST_NOTE:
            raise RulingError("the note is too long", hint=f"at most {LONGEST_NOTE} characters")
        held = await self.database.run(self.documents.get, principal.tenant, document_id)
        row, prior = await self.database.run(self._row, held)
        live = held.state is State.LIVE and ruling.verdict is Verdict.NARROW
        if not live and not (held.state is State.QUARANTINED and held.cause != RETAGGING):
            return _again(held, prior, principal, ruling)
        if ruling.verdict is Verdict.REJECT:
            return await self._reject(principal, held, ruling)
        with recording() as touches:
            opened = await self._open(principal, held)
            if isinstance(opened, Refused):
                return opened
            evidence = _evidence(opened, row)
            tag = held.tag if ruling.verdict is Verdict.ACCEPT else self._narrowed(held.tag, ruling, evidence)
            if live and tag == held.tag:
                raise RulingError("that is the Tag it has", hint="name what is to be narrower")
            site: str | Refused = held.site if tag == held.tag else self._place(principal, held, tag)
            if isinstance(site, Refused):
                return await self._refused(principal, held, site)
            said = {
                "kind": "reviewer",
                "zone": "",
                "start": 0,
                "end": 0,
                "strength": 0,
                "page": 0,
                "rule": ruling.ground,
            }
            told = [*evidence, said | {"what": ruling.note or str(ruling.verdict)}]
            await self.keyring.reserve(opened, 1)
            sealed = seal_field(opened, "evidence", bytes.fromhex(held.id), msgspec.json.encode(told))
            made = await self.database.run(self._commit, principal, held, row, ruling, tag, site, sealed, touches)
        self.arrived()
        return made

    # --- the commits --------------------------------------------------------------------------------------------------

    def _commit(
        self,
        principal: Principal,
        held: Document,
        row: Any,
        ruling: Ruling,
        tag: Tag,
        site: str,
        evidence: bytes,
        touches: list[Touch],
    ) -> Ruled:
        c, clock = document.c, self.database.clock()
        with self.database.transaction() as connection:
            rows = connection.execute(
                sa.select(document).where(c.id == held.id).order_by(c.version.desc()).with_for_update()
            ).all()
            self._unmoved(connection, held, row.state_seq, list(rows))
            copied = tag != held.tag
            version = int(rows[0].version) + 1 if copied else held.version
            ruled = self._enter(connection, principal, held, row.state_seq, ruling, tag, version, touches)
            mine = sa.update(document).where(c.id == held.id, c.version == held.version)
            changed = {"evidence_sealed": evidence, "state_seq": c.state_seq + 1, "updated": clock}
            if copied:
                facts = {"tag": _facts(tag), "tag_digest": tag.digest.hex(), "jurisdiction": tag.origin}
                number = collections.number(connection, held.tenant, tag)
                begin_copy(connection, row, version, site, updated=clock, tag_class=number, **facts)
                connection.execute(mine.values(changed | {"state": State.QUARANTINED, "cause": RETAGGING}))
                collections.changed(connection, held.tenant)
            else:
                ready = {"state": State.TAGGED, "cause": "", "error_sealed": None, "not_before": 0}
                connection.execute(mine.values(changed | ready | {"attempts": 0, "retries": 0}))
            collections.turn(connection, held.tenant)
        return ruled

    async def _reject(self, principal: Principal, held: Document, ruling: Ruling) -> Ruled:
        made: list[Ruled] = []

        def also(connection: sa.Connection, rows: list[Any]) -> None:
            mine = next(each for each in rows if each.version == held.version)
            self._unmoved(connection, held, mine.state_seq, rows)
            ruled = self._enter(connection, principal, held, mine.state_seq, ruling, held.tag, held.version, [])
            made.append(ruled)

        await self.erasure.erase(principal, held.id, also)
        return made[-1]

    def _unmoved(self, connection: sa.Connection, held: Document, seq: int, rows: list[Any]) -> None:
        """Raise unless the version still stands as it was read, and is the newest that anybody is told of."""
        mine = next((each for each in rows if each.version == held.version), None)
        newer = any(each.version > held.version and each.state != State.RECEIVING for each in rows)
        if mine is not None and mine.state_seq == seq and mine.state == held.state and not newer:
            return
        prior = decisions.newest(connection, held.tenant, held.id)
        if prior is not None and prior.version == held.version:
            raise _decided(prior)
        raise DocumentError("the document changed just now", hint="look at it again")

    def _enter(
        self,
        connection: sa.Connection,
        principal: Principal,
        held: Document,
        seq: int,
        ruling: Ruling,
        tag: Tag,
        version: int,
        touches: list[Touch],
    ) -> Ruled:
        draft = self._draft(principal, held, "reviewed", {held.tag, tag}, touches)
        draft.facts |= {"action": str(ruling.verdict), "ground": ruling.ground, "by": principal.id}
        draft.facts |= {"before": held.tag.digest.hex(), "after": tag.digest.hex()}
        if ruling.note:
            draft.commits = {**draft.commits, "note": ruling.note.encode()}
        stored = self.ledger.append(draft, connection)
        now = float(connection.execute(sa.select(self.database.clock())).scalar_one())
        ruled = Ruled(
            held.id, held.version, ruling.verdict, ruling.ground, principal.id, tag, version, stored.id, now
        )  # fmt: skip
        decisions.enter(connection, seq, held.tenant, ruled)
        return ruled

    # --- what may be decided ------------------------------------------------------------------------------------------

    def _narrowed(self, held: Tag, ruling: Ruling, evidence: list[dict[str, Any]]) -> Tag:
        zones, suggested = self.engine.zones, tagger.suggested(held, evidence, self.engine.zones)

        def codes(given: frozenset[str] | None, else_: frozenset[str]) -> frozenset[str]:
            return else_ if given is None else frozenset(zones.check(code) for code in given)

        tag = Tag(
            jurisdictions=codes(ruling.jurisdictions, suggested.jurisdictions),
            residency=codes(ruling.residency, suggested.residency),
            personal=suggested.personal if ruling.personal is None else ruling.personal,
            categories=suggested.categories if ruling.categories is None else ruling.categories,
            classification=suggested.classification if ruling.classification is None else ruling.classification,
        )
        if wider := tagger.wider(held, tag, zones):
            raise RulingError(
                f"that Tag is wider than the one it has: {'; '.join(wider)}",
                hint="a reviewer may narrow; to widen, erase it and send it again with another claim",
            )
        return tag

    def _place(self, principal: Principal, held: Document, tag: Tag) -> str | Refused:
        """Choose where it would lie under `tag`: where it lies, if permitted, else the first Site that is."""
        sites = self.engine.fleet.sites
        others = [name for name in sites if name != held.site]
        refusals: list[Refusal] = []
        for site in (held.site, *others):
            fits = site in self.moving.vaults and site in self.moving.shards and site in sites
            if fits and sites[site].holding("keys"):
                against = self.moving.against(principal, held, site, tag)
                if not against:
                    return site
                refusals += against
        if not refusals:
            raise DocumentError("no Site of this process holds vault, shard and keys", hint="see `domicile doctor`")
        return Refused(refusals[0], tuple(refusals), "")

    async def _open(self, principal: Principal, held: Document) -> OpenDek | Refused:
        if held.state in (State.ERASING, State.ERASED):
            raise NotFoundError("there is no such document", hint="list your documents to see their ids")
        activity = ACTIVITY if ACTIVITY in principal.activities else min(principal.activities, default="")
        asked = self.engine.decide(Ask(principal, Action.OPEN, held.site, (held.tag,), activity))
        if isinstance(asked, Permit):
            return await self.keyring.open_dek(asked.route, held.site, held.dek_id, held.tag.digest)
        return await self._refused(principal, held, Refused(asked, (asked,), ""))

    async def _refused(self, principal: Principal, held: Document, refused: Refused) -> Refused:
        draft = self._draft(principal, held, "review-refused", {held.tag}, [])
        draft.kind, draft.refused = "refusal", [each.facts() for each in refused.refusals]
        draft.tags = tuple({tag for each in refused.refusals for tag in each.ask.tags} | {held.tag})
        stored = await self.ledger.record(draft)
        return Refused(refused.refusal, refused.refusals, stored.id)

    def _row(self, held: Document) -> tuple[Any, Ruled | None]:
        c = document.c
        with self.database.reading() as connection:
            mine = sa.select(document).where(c.id == held.id, c.version == held.version)
            return connection.execute(mine).one(), decisions.newest(connection, held.tenant, held.id)

    def _draft(self, who: Principal, held: Document, stage: str, tags: set[Tag], touches: list[Touch]) -> Draft:
        return Draft(
            kind="ingest",
            tenant=held.tenant,
            activity=ACTIVITY,
            tags=tuple(sorted(tags, key=lambda tag: tag.digest)),
            steps=receipt.steps(touches, self.engine.fleet, datetime.now(UTC), reason="review"),
            commits={"documents": [bytes.fromhex(held.id)], "principal": who.id.encode()},
            facts={"stage": stage, "version": held.version, "site": held.site},
        )


def _evidence(dek: OpenDek, row: Any) -> list[dict[str, Any]]:
    if not row.evidence_sealed:
        return []
    raw = open_field(dek, "evidence", bytes.fromhex(row.id), row.evidence_sealed)
    return msgspec.json.decode(raw, type=list[dict[str, Any]])


def _facts(tag: Tag) -> str:
    return msgspec.json.encode(tag.facts(), order="sorted").decode()


def _again(held: Document, prior: Ruled | None, principal: Principal, ruling: Ruling) -> Ruled:
    """Answer for a Document that no longer waits: with the decision that stands, if it is this one."""
    if prior is None:
        raise DocumentError(f"the document is {held.state}", hint="only a quarantined document waits for a reviewer")
    if (prior.verdict, prior.ground, prior.by) == (ruling.verdict, ruling.ground, principal.id):
        return prior
    raise _decided(prior)


def _decided(prior: Ruled) -> DecidedError:
    return DecidedError("another decision stands", hint="look at it; what follows has begun", decision=prior.facts())
