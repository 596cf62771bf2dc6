"""Pipeline: the story of a Document, from sealed to live, one step per state.

Rules kept here: each step is a pure function of the artefact before it, so every replay is safe; its result is sealed
and durable before the row moves; every write carries the lease's fence; each step asks for its Routes anew; what the
text says may narrow the Tag or dispute it, never widen it. No transaction spans a step.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from ingestion import attributes, cutting, detectors, points, rulings, sandbox, splitter, tagger
from ingestion.artefacts import BLOCK, work_names
from ingestion.categories import categorise
from ingestion.claims import suffix_of
from ingestion.crash import crash_point
from ingestion.detectors import Sign
from ingestion.errors import IngestionError, LeaseLostError, ReaderError
from ingestion.indexing import Indexing
from ingestion.leases import ATTEMPTS, Lease, Leases
from ingestion.moving import Moving
from ingestion.records import Records
from ingestion.rulings import Passes
from ingestion.sandbox import Reading
from ingestion.states import State
from ingestion.work import Open, Work
from residency.database import Database
from residency.decision import Refusal
from residency.engine import Engine
from residency.errors import KeyringError, ModelError, ResidencyError, RouteError, SealedError, SiteError
from residency.journal import recording
from residency.keyring import Keyring
from residency.ledger import Ledger
from residency.ports import Embedder, PointFilter, Shard, Vault
from residency.protection import VectorMode
from residency.route import Route
from residency.seal import OpenDek
from residency.searchkeys import SearchKeys
from residency.tag import Tag
from residency.tagrules import TagRules

log = logging.getLogger(__name__)

Read = Callable[..., Awaitable[Reading]]
Step = Callable[[Work, Open, Passes], Awaitable[Refusal | None]]


class Pipeline:
    """Moves taken Documents on. Bodies by Site, as this process has them; `read` is the sandbox."""

    def __init__(
        self,
        *,
        database: Database,
        leases: Leases,
        engine: Engine,
        keyring: Keyring,
        ledger: Ledger,
        shards: Mapping[str, Shard],
        vaults: Mapping[str, Vault],
        embedders: Mapping[str, Embedder],
        read: Read = sandbox.read_file,
        passage_words: int = splitter.MOST_WORDS,
        tag_rules: Callable[[], TagRules] = TagRules,
    ) -> None:
        self.database = database
        self.leases = leases
        self.engine = engine
        self.keyring = keyring
        self.records = Records(database, leases, engine, ledger)
        self.shards = shards
        self.indexing = Indexing(database, leases, shards)
        self.vaults = vaults
        self.embedders = embedders
        self.read = read
        self.passage_words = passage_words
        self.tag_rules = tag_rules
        self.moving = Moving(
            database=database,
            leases=leases,
            engine=engine,
            keyring=keyring,
            ledger=ledger,
            records=self.records,
            shards=shards,
            vaults=vaults,
            embedders=embedders,
        )
        self._steps: dict[str, Step] = {
            State.SEALED: self._parse,
            State.PARSED: self._tag,
            State.TAGGED: self._split,
            State.SPLIT: self._embed,
            State.EMBEDDED: self._put,
            State.INDEXED: self._go_live,
        }

    async def advance(self, lease: Lease) -> State:
        """Do every step that can be done now and give the lease back; gives the state that was reached.

        Raises `LeaseLostError` when another worker has the Document: what was done here is dropped.
        """
        run = self.database.run
        with recording() as touches:
            work = Work.of(lease, touches)
            hand: list[Open] = []
            try:
                if lease.row["attempts"] > ATTEMPTS:
                    await self._fail(work, hand, "poison")
                elif lease.row["state"] == State.REPLACED:
                    away = await run(self.moving.moved_away, work)
                    await (self.moving.leave(work) if away else self._archive(work))
                else:
                    if lease.row["state"] == State.MOVING:
                        await self.moving.copy(work)
                    await self._story(work, hand)
            except (LeaseLostError, sa.exc.DBAPIError):
                raise
            except ReaderError as error:
                await self._fail(work, hand, error.reason, error)
            except (IngestionError, SealedError, ModelError) as error:
                await self._fail(work, hand, error.code, error)
            except RouteError:
                await run(self.leases.give_up, lease)
            except ResidencyError as error:
                # No fault of the Document: a Site, the keys or the Ledger is away. It waits; no attempt is counted.
                await run(self.leases.release, lease, cause=error.code)
            except Exception as error:
                log.error("a step broke", extra={"state": work["state"], "error": type(error).__name__})
                await run(self.leases.give_up, lease)
        return State(work["state"])

    async def _story(self, work: Work, hand: list[Open]) -> None:
        while step := self._steps.get(work["state"]):
            work.lease.check()
            passes = self._rule(work, work.tag)
            if isinstance(passes, Refusal):
                refusal: Refusal | None = passes
            else:
                if not hand:
                    hand.append(Open.of(work, await self._open_dek(work, passes), self.vaults[work["site_id"]]))
                refusal = await step(work, hand[0], passes)
            if refusal is not None:
                await self.database.run(self.records.wait, work, refusal)
                return

    # --- the steps ----------------------------------------------------------------------------------------------------

    async def _parse(self, work: Work, held: Open, passes: Passes) -> None:
        """(1) Open the original into memory and let a child without network or keys read it."""
        data = await held.artefacts.original(passes.open, work["artefact_id"])
        kind, suffix = work["media_type"] or None, suffix_of(held.name)
        held.reading = await self.read(data, declared_type=kind, name_suffix=suffix)
        await held.artefacts.write_text(passes.store, held.reading)
        crash_point("text-written")
        reading = held.reading
        await self._move(work, State.PARSED, media_type=reading.media_type[:100], pages=len(reading.pages))

    async def _tag(self, work: Work, held: Open, passes: Passes) -> None:
        """(2) What the text points to: agree, narrow the Tag, or leave the matter to a person."""
        reading, declared = await held.text(passes), tagger.Declaration(**_declared(work.tag))
        signs = held.places(work) + await asyncio.to_thread(self._look, reading)
        tagged = tagger.rule(declared, signs, self.engine.zones)
        await self.keyring.reserve(held.dek, 8)
        evidence = held.sealed(work, "evidence", msgspec.json.encode(tagged.evidence).decode())
        values: dict[str, Any] = {"evidence_sealed": evidence}
        if await self.database.run(self.records.settled, work):  # a person has ruled on this version
            await self._move(work, State.TAGGED, **values)
            return
        dispute = "tag_disputed" if tagged.quarantine else ""
        if tagged.quarantine:
            values["error_sealed"] = held.sealed(work, "error", tagged.quarantine)
        elif tagged.tag != work.tag:
            narrowed = self._rule(work, tagged.tag)
            if isinstance(narrowed, Refusal):  # the Site was chosen for the declared Tag: another is for a person
                dispute = "site_refused"
            else:
                values |= await self._narrow(work, passes, narrowed, tagged.tag)
        if dispute:
            await self.database.run(self.records.end, work, State.QUARANTINED, dispute, **values)
            crash_point("quarantined")
        else:
            await self._move(work, State.TAGGED, **values)

    def _look(self, reading: Reading) -> list[Sign]:
        signs = detectors.detect(reading.text, reading.pages)
        return signs + categorise(reading.text, signs, self.tag_rules(), reading.pages)

    async def _split(self, work: Work, held: Open, passes: Passes) -> None:
        """(3) Cut the text into Passages that keep their offsets."""
        reading = await held.text(passes)
        cut = await self.database.run(self._cut, work)
        pieces = await asyncio.to_thread(splitter.split, reading, most=cut.words or self.passage_words)
        if not pieces:
            raise ReaderError("there is no text in it", reason="empty_text")
        await held.artefacts.write_pieces(passes.store, pieces)
        crash_point("passages-written")
        held.pieces = pieces
        languages = Counter(piece.language for piece in pieces)
        await self._move(
            work,
            State.SPLIT,
            passages_total=len(pieces),
            passages_done=0,
            language=languages.most_common(1)[0][0],
            languages=json.dumps(languages),
        )

    async def _embed(self, work: Work, held: Open, passes: Passes) -> Refusal | None:
        """(4) Vectors, block by block, brought into the form in which they are kept."""
        pieces, embedder = await held.cuts(passes), passes.embedder
        pieces = cutting.overlapped(pieces, (await self.database.run(self._cut, work)).overlap)
        await self.database.run(self.records.one_model, work["collection_id"], embedder.digest)
        protection = await self.database.run(self.records.protection, work)
        keys = await self._search_keys(work, passes)
        for first in range(work["passages_done"] // BLOCK * BLOCK, len(pieces), BLOCK):
            work.lease.check()
            ruled = self._rule(work, work.tag)
            if isinstance(ruled, Refusal):
                return ruled
            block = pieces[first : first + BLOCK]
            ids = [keys.point_id(work["id"], work["version"], piece.no) for piece in block]
            embedded = await points.embed(ruled.embedder, ruled.embed, block)
            vectors = await asyncio.to_thread(keys.protected, protection.vectors, embedded, ids)
            await self.keyring.reserve(held.dek, 16)
            await held.artefacts.write_vectors(ruled.store, first, vectors)
            crash_point("vectors-written")
            if len(held.vectors) < 16:  # the rest of a long Document is read back block by block
                held.vectors[first] = vectors
            if first + BLOCK < len(pieces):
                await self.database.run(self.leases.note, work.lease, passages_done=first + len(block))
        held.keys = keys
        await self.database.run(self.indexing.embedded, work, keys)
        crash_point("embedded")
        return None

    async def _put(self, work: Work, held: Open, passes: Passes) -> Refusal | None:
        """(5) Seal each Passage, blind its words, and put block by block; a replay overwrites itself."""
        reading, pieces = await held.text(passes), await held.cuts(passes)
        keys = held.keys or await self._search_keys(work, passes)
        if keys.epoch != work["search_epoch"]:  # the search keys were rolled meanwhile
            await self._move(work, State.SPLIT, passages_done=0)
            return None
        protection = await self.database.run(self.records.protection, work)
        for first in range(work["passages_done"] // BLOCK * BLOCK, len(pieces), BLOCK):
            ruled = self._rule(work, work.tag)
            if isinstance(ruled, Refusal):
                return ruled
            block = pieces[first : first + BLOCK]
            vectors = await held.block(ruled, first, len(block))
            await self.keyring.reserve(held.dek, len(block) * (2 if protection.vectors is VectorMode.SEALED else 1))
            made = await asyncio.to_thread(
                points.make,
                work.lease.row,
                held.sealer(work),
                keys,
                name=held.name,
                reading=reading,
                pieces=block,
                vectors=vectors,
                protection=protection,
            )
            await self.indexing.put(work, ruled.store, made)
            crash_point("block-put")
            if first + BLOCK < len(pieces):
                await self.database.run(self.leases.note, work.lease, passages_done=first + len(block))
        await self._move(work, State.INDEXED, passages_done=len(pieces))
        return None

    async def _go_live(self, work: Work, held: Open, passes: Passes) -> None:
        """(6) Exactly the expected points, a sample that opens, then row, older version and Receipt in one commit."""
        keys = await self._search_keys(work, passes)
        if keys.epoch != work["search_epoch"]:
            held.keys = None
            await self._move(work, State.SPLIT, passages_done=0)
            return
        shard, wanted = self.shards[work["site_id"]], points.expected(keys, work.lease.row)
        ours = PointFilter(owners=(keys.owner,), documents=(work["id"],))
        found = set(await shard.ids(passes.search, ours))
        if not found.issuperset(wanted) or not await self.indexing.sample_opens(work, held, passes, shard, wanted):
            # The Site lost or bent acknowledged points, or was set back: they are put again from the artefacts.
            await self._move(work, State.EMBEDDED, passages_done=0)
            raise SiteError("points at a Site are not as they were put", site=shard.site, hint="they are put again")
        strays = found.difference(await self.database.run(self.indexing.written, work["id"]))
        if strays:
            await shard.delete(passes.erase, sorted(strays))
        carried = await self._carried(work, held)
        crash_point("before-live")
        await self.database.run(self.records.live, work, carried)
        crash_point("live")
        await self._drop_work(passes.erase, work["site_id"], work["id"], work["version"], work["passages_total"])

    async def _carried(self, work: Work, held: Open) -> bytes:
        """Seal the attributes of the version that is replaced anew; none where the policy, or its key, keeps it closed.

        A key that is away raises, and the step is done again.
        """
        before = await self.database.run(self.records.before, work)
        if before is None:
            return b""
        older, blob = before
        ruled = rulings.rule(self.engine, self.embedders, tenant=older.tenant, site=older.site, tag=older.tag)
        if isinstance(ruled, Refusal):
            return b""
        work.tags.add(older.tag)
        deks = await self.keyring.open_deks(ruled.open, older.site, [(older.dek_id, older.tag.digest)])
        if (dek := deks.get(older.dek_id)) is None:
            return b""
        await self.keyring.reserve(held.dek, 1)
        return attributes.sealed(held.dek, older.id, attributes.opened(dek, older.id, blob))

    async def _archive(self, work: Work) -> None:
        """A replaced version: its points go, its sealed original stays."""
        route = rulings.erasing(self.engine, tenant=work["tenant_id"], site=work["site_id"], tag=work.tag)
        if isinstance(route, Refusal):
            await self.database.run(self.records.wait, work, route)
            return
        ids = await self.database.run(self.indexing.written, work["id"], work["version"])
        if ids:
            await self.shards[work["site_id"]].delete(route, ids)
        crash_point("replaced-deleted")
        await self.database.run(self.indexing.archived, work)
        crash_point("archived")

    async def tidy(self) -> None:
        """Remove work artefacts that a death right after a commit may have left; for the start of a worker."""
        for row in await self.database.run(self.records.lately_live):
            if row.site not in self.vaults:
                continue
            route = rulings.erasing(self.engine, tenant=row.tenant, site=row.site, tag=row.tag)
            if not isinstance(route, Refusal):
                await self._drop_work(route, row.site, row.id, row.version, row.passages)

    async def _drop_work(self, route: Route, site: str, document_id: str, version: int, passages: int) -> None:
        await self.vaults[site].delete(route, work_names(document_id, version, passages))

    # --- rulings, keys, points ----------------------------------------------------------------------------------------

    def _rule(self, work: Work, tag: Tag) -> Passes | Refusal:
        work.tags.add(tag)
        return rulings.rule(self.engine, self.embedders, tenant=work["tenant_id"], site=work["site_id"], tag=tag)

    async def _open_dek(self, work: Work, passes: Passes) -> OpenDek:
        """Open the version's key; after a crash between rewrap and row it opens under the pending Tag."""
        wanted, site = work["dek_id"], work["site_id"]
        if work["tag_pending"] is None:
            return await self.keyring.open_dek(passes.open, site, wanted, work.tag.digest)
        for tag in (Tag.of(json.loads(work["tag_pending"])), work.tag):
            ruled = self._rule(work, tag)
            if isinstance(ruled, Passes):
                opened = await self.keyring.open_deks(ruled.open, site, [(wanted, tag.digest)])
                if wanted in opened:
                    return opened[wanted]
        raise KeyringError("the key of a document does not open", hint="see `domicile keys status`")

    async def _narrow(self, work: Work, passes: Passes, narrowed: Passes, tag: Tag) -> dict[str, Any]:
        """Rewrap the key under the narrower Tag; the row says beforehand which one may come."""
        facts = json.dumps(tag.facts(), sort_keys=True)
        if work["tag_pending"] != facts:
            await self.database.run(self.leases.note, work.lease, tag_pending=facts)
            crash_point("tag-pending")
        key = (work["dek_id"], tag.digest)
        if not await self.keyring.open_deks(narrowed.open, work["site_id"], [key]):
            await self.keyring.retag(narrowed.store, passes.open, work["dek_id"], old=work.tag.digest, new=tag.digest)
            crash_point("retagged")
        number = await self.database.run(self.records.tag_class, work["tenant_id"], tag)
        work.tag = tag
        return {"tag": facts, "tag_pending": None, "tag_digest": tag.digest.hex(), "tag_class": number}

    async def _search_keys(self, work: Work, passes: Passes) -> SearchKeys:
        keys = await self.keyring.search_keys(
            passes.open,
            tenant=work["tenant_id"],
            jurisdiction=work["jurisdiction"],
            site=work["site_id"],
            dimension=passes.embedder.dimension,
            create=passes.store,
        )
        assert keys is not None  # noqa: S101 - `create` makes them
        return keys

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _cut(self, work: Work) -> cutting.Cut:
        with self.database.reading() as connection:
            return cutting.of(connection, work["collection_id"])

    async def _move(self, work: Work, to: State, **values: Any) -> None:
        await self.database.run(self.leases.move, work.lease, to, **values)
        crash_point(str(to))

    async def _fail(self, work: Work, hand: list[Open], cause: str, error: Exception | None = None) -> None:
        """End with a cause; what the error said beyond that is sealed, since it may speak of the text."""
        if work["state"] == State.MOVING:
            await self.moving.give_up(work, cause)
            return
        details = {"error_sealed": hand[0].sealed(work, "error", str(error))} if hand and error else {}
        await self.database.run(self.records.end, work, State.FAILED, cause, **details)
        crash_point("failed")


def _declared(tag: Tag) -> dict[str, Any]:
    return {
        "jurisdictions": tag.jurisdictions,
        "residency": tag.residency,
        "personal": tag.personal,
        "categories": tag.categories,
        "classification": tag.classification,
    }
