"""Catalogue: a tenant's Documents as people see them, with names opened by permitted keys, and the text behind a quote.

A name is content: it is sealed in the row and opened only under a Route. Where the policy does not permit opening, the
name is withheld and the row still shows id, state and Tag. Opening a source is recorded in the Ledger.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ingestion.artefacts import Artefacts
from ingestion.damage import Damage
from ingestion.documents import Document, Documents, State
from ingestion.errors import DocumentError, NotFoundError
from ingestion.holds import Holds
from residency.decision import Ask, Permit, Principal, Refusal
from residency.engine import Engine
from residency.envelope import open_field
from residency.errors import KeyringError, SealedError, SiteError
from residency.journal import recording
from residency.keyring import Keyring
from residency.ledger import Ledger
from residency.ports import Vault
from residency.receipt import Draft, steps
from residency.route import Action
from residency.seal import OpenDek

WITHHELD = ""
"""A name that may not be, or can no longer be, opened."""
ACTIVITY = "search"


@dataclass(frozen=True, slots=True)
class Entry:
    """One Document with its opened name and the Zone of its Site."""

    document: Document
    name: str
    zone: str
    collection: str
    held: str = ""
    """Reason of the legal hold that stands on it."""

    def facts(self) -> dict[str, Any]:
        """Give the wire form of the outside contract."""
        document = self.document
        return {
            "id": document.id,
            "name": self.name,
            "version": document.version,
            "state": str(document.state),
            "tag": document.tag.facts(),
            "site": document.site,
            "zone": self.zone,
            "collection": self.collection,
            "media_type": document.media_type,
            "language": document.language,
            "bytes": document.size,
            "pages": document.pages,
            "passages": document.passages,
            "progress": round(document.progress, 3),
            "error": document.error,
            "held": self.held,
            "receipt": document.receipt,
            "created": document.created,
            "updated": document.updated,
        }


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a Document's text, for showing a quote in its place; offsets are those of the whole text."""

    entry: Entry
    version: int
    page: int
    pages: int
    start: int
    end: int
    text: str
    receipt: str


class Catalogue:
    """Lists Documents and opens sources for a principal."""

    def __init__(
        self,
        *,
        engine: Engine,
        documents: Documents,
        keyring: Keyring,
        ledger: Ledger,
        vaults: Mapping[str, Vault],
        holds: Holds,
        damage: Damage,
    ) -> None:
        self._engine = engine
        self._documents = documents
        self._keyring = keyring
        self._ledger = ledger
        self._vaults = vaults
        self._holds = holds
        self.damage = damage

    async def listing(
        self,
        principal: Principal,
        *,
        collection: str = "",
        states: Sequence[State] | None = None,
        cursor: str = "",
        limit: int = 50,
    ) -> tuple[list[Entry], str]:
        """List a page of Documents, newest first, and the cursor of the next page."""
        database = self._documents.database
        chosen = None
        if collection:
            found = await database.run(self._documents.find_collection, principal.tenant, collection)
            if found is None:
                return [], ""
            chosen = found.id
        listed = await database.run(
            self._documents.listing, principal.tenant, collection_id=chosen, states=states, cursor=cursor, limit=limit
        )
        return await self.entries(principal, listed.items), listed.cursor

    async def get(self, principal: Principal, document_id: str, version: int | None = None) -> Entry:
        """Give one Document. Raises `NotFoundError`, the same for a foreign id as for an unknown one."""
        found = await self._documents.database.run(self._documents.get, principal.tenant, document_id, version)
        if not visible(principal, found):
            raise NotFoundError("there is no such document", hint="list your documents to see their ids")
        return (await self._entries(principal, [found]))[0]

    async def entries(self, principal: Principal, documents: Sequence[Document]) -> list[Entry]:
        """Give those of these Documents that the principal may know of, with their names."""
        return await self._entries(principal, [item for item in documents if visible(principal, item)])

    async def _entries(self, principal: Principal, documents: Sequence[Document]) -> list[Entry]:
        names = await self._names(principal, documents)
        known = await self._documents.database.run(self._documents.collections, principal.tenant)
        slugs = {each.id: each.name for each in known}
        pairs = [(each.id, each.collection) for each in documents]
        held = await self._documents.database.run(self._holds.on, principal.tenant, pairs)
        sites = self._engine.fleet.sites
        return [
            Entry(
                document,
                names.get((document.id, document.version), WITHHELD),
                sites[document.site].zone if document.site in sites else "",
                slugs.get(document.collection, ""),
                held[document.id].reason if document.id in held else "",
            )
            for document in documents
        ]

    async def _names(self, principal: Principal, documents: Sequence[Document]) -> dict[tuple[str, int], str]:
        deks = await self.keys(principal, documents)
        names: dict[tuple[str, int], str] = {}
        for item in documents:
            if (dek := deks.get(item.dek_id)) is not None:
                try:
                    raw = open_field(dek, "name", bytes.fromhex(item.id), item.name_sealed)
                except SealedError:
                    continue
                names[item.id, item.version] = raw.decode()
        return names

    async def keys(self, principal: Principal, documents: Sequence[Document]) -> dict[bytes, OpenDek]:
        """Open the keys of those Documents that the policy lets this principal open; the others are absent."""
        by_site: dict[str, list[Document]] = {}
        for document in documents:
            if document.state is not State.ERASED and document.site in self._engine.fleet.sites:
                by_site.setdefault(document.site, []).append(document)
        opened: dict[bytes, OpenDek] = {}
        for site, items in by_site.items():
            permitted = [item for item in items if isinstance(self._open(principal, site, item), Permit)]
            if not permitted:
                continue
            tags = tuple(dict.fromkeys(item.tag for item in permitted))
            decision = self._engine.decide(Ask(principal, Action.OPEN, site, tags, ACTIVITY))
            if isinstance(decision, Refusal):
                continue
            try:
                wanted = [(item.dek_id, item.tag.digest) for item in permitted if item.dek_id]
                opened |= await self._keyring.open_deks(decision.route, site, wanted)
            except (KeyringError, SiteError):
                continue  # the rows stay visible; their names are withheld until the key provider answers
        return opened

    def _open(self, principal: Principal, site: str, document: Document) -> Permit | Refusal:
        return self._engine.decide(Ask(principal, Action.OPEN, site, (document.tag,), ACTIVITY))

    async def source(
        self, principal: Principal, document_id: str, *, version: int, page: int
    ) -> Page | tuple[Refusal, str]:
        """Open one page of a Document's text, ruled on and recorded; a Refusal comes with its Receipt.

        Raises `NotFoundError`, and `DocumentError` when the version has no text to show (any more).
        """
        entry = await self.get(principal, document_id, version)
        document = entry.document
        decision = self._open(principal, document.site, document)
        tags = (document.tag,)
        if isinstance(decision, Refusal):
            stored = await self._ledger.record(
                Draft(
                    kind="refusal",
                    tenant=principal.tenant,
                    activity=ACTIVITY,
                    tags=tags,
                    steps=[],
                    refused=[decision.facts()],
                    commits={"principal": principal.id.encode()},
                )
            )
            return decision, stored.id
        reviewed = document.state is State.QUARANTINED and "review" in principal.scopes
        if document.state is not State.LIVE and not reviewed:
            raise DocumentError(f"the document is {document.state}", hint="only live documents can be opened")
        async with self.damage.watched(document):
            with recording() as touches:
                dek = await self._keyring.open_dek(decision.route, document.site, document.dek_id, document.tag.digest)
                reading = await Artefacts(self._vaults[document.site], dek, document_id, version).text(decision.route)
        wanted = next((span for span in reading.pages if span.number == page), reading.pages[0])
        stored = await self._ledger.record(
            Draft(
                kind="search",
                tenant=principal.tenant,
                activity=ACTIVITY,
                tags=tags,
                steps=steps(touches, self._engine.fleet, datetime.now(UTC), reason="review" if reviewed else "asked"),
                refused=[],
                commits={"principal": principal.id.encode(), "documents": [document_id.encode()]},
            )
        )
        return Page(
            entry=entry,
            version=version,
            page=wanted.number,
            pages=len(reading.pages),
            start=wanted.start,
            end=wanted.end,
            text=reading.text[wanted.start : wanted.end],
            receipt=stored.id,
        )


def visible(principal: Principal, document: Document) -> bool:
    """Say whether a principal's access groups let it know of a Document."""
    return not document.groups or bool(document.groups & principal.groups) or "admin" in principal.scopes
