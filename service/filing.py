"""Filing: files and vector stores for OpenAI's clients; attributes that users write on Documents and filter by.

Rules kept here: attributes are opened only with keys that the policy lets the asker open, so a filter sees no Document
that the asker may not; handing an original out and writing attributes are ruled on and recorded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ingestion import attributes
from ingestion.artefacts import Artefacts
from ingestion.attributes import BUILT_IN, Value
from ingestion.documents import Document, Documents, State
from ingestion.errors import NotFoundError
from ingestion.stores import UNATTACHED, Store, Stores
from residency.decision import Ask, Principal, Refusal
from residency.engine import Engine
from residency.errors import SealedError
from residency.journal import Touch, recording
from residency.keyring import Keyring
from residency.ledger import Ledger
from residency.ports import Vault
from residency.receipt import Draft, steps
from residency.route import Action
from residency.seal import OpenDek
from service.catalogue import ACTIVITY, Catalogue, Entry, visible
from service.errors import InvalidRequestError
from service.filters import Filter, keys, known

MOST_FILTERED: Final = 5000
"""Documents whose sealed attributes one search may open; beyond that it says so."""
NONE: Final = "0" * 32
"""An id that no Document has: a filter that nothing meets still makes a search that is ruled on and recorded."""


@dataclass(frozen=True, slots=True)
class Original:
    """An original as it was handed in, for its owner to have back."""

    entry: Entry
    data: bytes
    receipt: str


class Filing:
    """Serves files and vector stores for a principal."""

    def __init__(
        self,
        *,
        engine: Engine,
        documents: Documents,
        stores: Stores,
        catalogue: Catalogue,
        keyring: Keyring,
        ledger: Ledger,
        vaults: Mapping[str, Vault],
    ) -> None:
        self._engine = engine
        self._documents = documents
        self.stores = stores
        self._catalogue = catalogue
        self._keyring = keyring
        self._ledger = ledger
        self._vaults = vaults
        self._run = documents.database.run

    # --- files ------------------------------------------------------------------------------------------------------

    async def waiting(self, tenant: str) -> str:
        """Give the name of the Collection where files wait until they are put into a vector store."""
        await self._run(self._documents.collection, tenant, UNATTACHED)
        await self._run(lambda: self._documents.pause(tenant, UNATTACHED, paused=True))
        return UNATTACHED

    async def files(self, principal: Principal, **wanted: Any) -> tuple[list[Entry], bool]:
        """List files as `Stores.files` does, with their names."""
        found, more = await self._run(lambda: self.stores.files(principal.tenant, **wanted))
        return await self._catalogue.entries(principal, found), more

    async def content(self, principal: Principal, document_id: str) -> Original | tuple[Refusal, str]:
        """Open an original, ruled on and recorded; a Refusal comes with its Receipt. Raises `NotFoundError`."""
        entry = await self._catalogue.get(principal, document_id)
        document = entry.document
        if document.state is State.ERASED or document.site not in self._vaults:
            raise NotFoundError("there is no such file", hint="list your files to see their ids")
        decision = self._engine.decide(Ask(principal, Action.OPEN, document.site, (document.tag,), ACTIVITY))
        if isinstance(decision, Refusal):
            return decision, await self._record(principal, document, refused=decision)
        artefact = await self._run(self.stores.artefact, document.id, document.version)
        async with self._catalogue.damage.watched(document):
            with recording() as touches:
                dek = await self._keyring.open_dek(decision.route, document.site, document.dek_id, document.tag.digest)
                sealed = Artefacts(self._vaults[document.site], dek, document.id, document.version)
                data = await sealed.original(decision.route, artefact)
        return Original(entry, data, await self._record(principal, document, touches))

    # --- vector stores ----------------------------------------------------------------------------------------------

    async def attach(
        self, principal: Principal, store_id: str, document_id: str, given: Mapping[str, Value] | None
    ) -> Entry:
        """Put a waiting file into a vector store, with attributes; again changes only the attributes.

        Raises `NotFoundError`, `DocumentError`, `UploadError`.
        """
        store = await self._run(self.stores.get, principal.tenant, store_id)
        entry = await self._catalogue.get(principal, document_id)
        own = dict(given or {})
        _agree(own, entry.document)
        attributes.check(own)
        if entry.document.collection != store.id:
            if not entry.name:
                raise NotFoundError("the file's name does not open", hint="the policy, or its key, keeps it closed")
            mac = self._keyring.name_mac(principal.tenant, store.id, entry.name)
            await self._run(self.stores.attach, principal.tenant, document_id, store.id, mac)
        if own or given is not None:
            await self._write(principal, entry.document, own)
        return await self._catalogue.get(principal, document_id)

    async def file(self, principal: Principal, store_id: str, document_id: str) -> Entry:
        """Give a file of a vector store. Raises `NotFoundError`, also for a file of another one."""
        await self._run(self.stores.get, principal.tenant, store_id)
        entry = await self._catalogue.get(principal, document_id)
        if entry.document.collection != store_id:
            raise NotFoundError("there is no such file in this vector store", hint="list its files to see their ids")
        return entry

    async def write(self, principal: Principal, entry: Entry, given: Mapping[str, Value]) -> None:
        """Write attributes in place of those a Document had. Raises `UploadError`."""
        own = dict(given)
        _agree(own, entry.document)
        attributes.check(own)
        await self._write(principal, entry.document, own)

    async def _write(self, principal: Principal, document: Document, own: dict[str, Value]) -> None:
        with recording() as touches:
            dek = (await self._catalogue.keys(principal, [document])).get(document.dek_id)
            if dek is None:
                raise NotFoundError("the file does not open", hint="the policy, or its key, keeps it closed")
            blob = attributes.sealed(dek, document.id, own)
        draft = self._draft("ingest", principal, document, touches)
        draft.subject, draft.facts = document.id, {"stage": "attributes", "version": document.version}

        def keep() -> None:
            with self._documents.database.transaction() as connection:
                attributes.keep(connection, document.id, document.version, blob)
                self._ledger.append(draft, connection)

        await self._run(keep)

    async def attributes(self, principal: Principal, documents: Sequence[Document]) -> dict[str, dict[str, Value]]:
        """Give the users' attributes of these Documents by id, of those that the principal may open."""
        deks: dict[bytes, OpenDek] = {}
        ids = [document.id for document in documents]

        def find() -> dict[tuple[str, int], bytes]:
            with self._documents.database.reading() as connection:
                return attributes.kept(connection, ids)

        kept = await self._run(find) if ids else {}
        having = [document for document in documents if (document.id, document.version) in kept]
        if having:
            deks = await self._catalogue.keys(principal, having)
        found: dict[str, dict[str, Value]] = {}
        for document in having:
            if (dek := deks.get(document.dek_id)) is not None:
                try:
                    found[document.id] = attributes.opened(dek, document.id, kept[document.id, document.version])
                except SealedError:
                    continue
        return found

    async def matching(self, principal: Principal, store: Store, wanted: Filter) -> tuple[str, ...]:
        """Give the ids of the live Documents that meet a filter, of those that the principal may open.

        Raises `InvalidRequestError` for an attribute that none of them has, and when there are too many to look at.
        """
        live = await self._run(self.stores.live, principal.tenant, store.id, MOST_FILTERED + 1)
        if len(live) > MOST_FILTERED:
            raise InvalidRequestError(
                f"filters look at up to {MOST_FILTERED} documents, and this vector store holds more",
                param="filters",
                hint="keep it in several vector stores, or name the documents: POST /v1/search with filters.documents",
            )
        shown = [document for document in live if visible(principal, document)]
        asked = keys(wanted)
        own = await self.attributes(principal, shown) if asked - set(BUILT_IN) else {}
        known(wanted, [*BUILT_IN, *dict.fromkeys(name for each in own.values() for name in each)])
        names: dict[str, str] = {}
        if "filename" in asked:
            names = {entry.document.id: entry.name for entry in await self._catalogue.entries(principal, shown)}
        met = [
            document.id
            for document in shown
            if wanted.holds(own.get(document.id, {}) | built_in(document, store.name, names.get(document.id, "")))
        ]
        return tuple(met) or (NONE,)

    # --- records ----------------------------------------------------------------------------------------------------

    async def _record(
        self,
        principal: Principal,
        document: Document,
        touches: Sequence[Touch] = (),
        *,
        refused: Refusal | None = None,
    ) -> str:
        draft = self._draft("refusal" if refused else "search", principal, document, touches)
        draft.refused = [refused.facts()] if refused else []
        return (await self._ledger.record(draft)).id

    def _draft(self, kind: str, principal: Principal, document: Document, touches: Sequence[Touch]) -> Draft:
        return Draft(
            kind=kind,
            tenant=principal.tenant,
            activity=ACTIVITY,
            tags=(document.tag,),
            steps=steps(touches, self._engine.fleet, datetime.now(UTC), reason="asked"),
            refused=[],
            commits={"principal": principal.id.encode(), "documents": [document.id.encode()]},
        )


def built_in(document: Document, collection: str, name: str) -> dict[str, Any]:
    """Give what every Document can be filtered by; lists are met by any of their members."""
    tag = document.tag
    return {
        "document_id": document.id,
        "filename": name,
        "collection": collection,
        "language": document.language,
        "media_type": document.media_type,
        "jurisdiction": sorted(tag.jurisdictions),
        "residency": sorted(tag.residency),
        "categories": sorted(tag.categories),
        "classification": tag.classification,
        "personal": tag.personal,
        "created_at": int(document.created),
    }


def _agree(own: dict[str, Value], document: Document) -> None:
    """Take reserved names out of a user's attributes; they may repeat what was declared and never change it."""
    declared = built_in(document, "", "")
    for name in [each for each in own if each in BUILT_IN]:
        said = own.pop(name)
        held = declared[name]
        wanted = (
            sorted(part.strip() for part in str(said).split(",") if part.strip()) if isinstance(held, list) else said
        )
        if name in ("filename", "collection", "created_at", "document_id") or wanted != held:
            raise InvalidRequestError(
                f"`{name}` was declared with the file and is not changed by an attribute",
                param=f"attributes.{name}",
                hint="leave it out, or upload the file again with another declaration",
            )
