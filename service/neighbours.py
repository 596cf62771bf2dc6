"""Neighbours: a Passage of a Document by its number, with those before and after it, for reading on around a quote.

Ruled on and recorded as a search is: the Passages come from the index, and are opened under the Document's own key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ingestion import points
from ingestion.documents import Document, State
from ingestion.errors import DocumentError, NotFoundError
from residency.database import Database
from residency.decision import Ask, Permit, Principal, Refusal
from residency.engine import Engine
from residency.envelope import PassageBody, PassageSealer
from residency.errors import KeyringError, SiteError
from residency.journal import recording
from residency.ledger import Ledger
from residency.ports import Shard
from residency.receipt import Draft, steps
from residency.route import Action
from service.catalogue import ACTIVITY, Catalogue

MOST: Final = 10
"""Passages that may be asked for on either side."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Passages in a row, by number, and the Receipt of opening them."""

    document: Document
    passages: tuple[tuple[int, PassageBody], ...]
    receipt: str

    def facts(self) -> dict[str, Any]:
        """Give the wire form."""
        data = [
            {
                "number": number,
                "text": body.text,
                "heading": body.heading,
                "page": body.page,
                "start": body.start,
                "end": body.end,
                "language": body.language,
            }
            for number, body in self.passages
        ]
        return {
            "object": "list",
            "document": self.document.id,
            "version": self.document.version,
            "of": self.document.passages,
            "data": data,
            "receipt": self.receipt,
        }


class Neighbours:
    """Opens Passages by their place in a Document."""

    def __init__(
        self, *, database: Database, engine: Engine, catalogue: Catalogue, ledger: Ledger, shards: Mapping[str, Shard]
    ) -> None:
        self._database = database
        self._engine = engine
        self._catalogue = catalogue
        self._ledger = ledger
        self._shards = shards

    async def around(
        self, principal: Principal, document_id: str, number: int, around: int
    ) -> Stretch | tuple[Refusal, str]:
        """Give Passage `number` of the newest version and `around` on either side; a Refusal with its Receipt.

        Raises `NotFoundError` for a Document or number that is not there, and `DocumentError` unless it is live.
        """
        document = (await self._catalogue.get(principal, document_id)).document
        if document.state is not State.LIVE:
            raise DocumentError(f"the document is {document.state}", hint="only live documents can be opened")
        if not 0 <= number < document.passages:
            raise NotFoundError("there is no such passage", hint=f"it has {document.passages}, counted from 0")
        asks = [
            Ask(principal, action, document.site, (document.tag,), ACTIVITY) for action in (Action.OPEN, Action.SEARCH)
        ]
        rulings = [self._engine.decide(ask) for ask in asks]
        for ruling in rulings:
            if isinstance(ruling, Refusal):
                return ruling, await self._record(principal, document, refused=[ruling.facts()])
        search = next(each.route for each in rulings if isinstance(each, Permit) and each.ask.action is Action.SEARCH)
        first, last = max(0, number - around), min(document.passages, number + around + 1)
        ids = (await self._database.run(self._ids, document))[first:last]
        shard = self._shards.get(document.site)
        if shard is None:
            raise SiteError(f"no shard at {document.site}", site=document.site, hint="check the fleet file")
        with recording() as touches:
            keys = await self._catalogue.keys(principal, [document])
            dek = keys.get(document.dek_id)
            if dek is None:
                raise KeyringError("the key of a document does not open", hint="see `domicile keys status`")
            found = {point.id: point for point in await shard.retrieve(search, ids)}
        if len(found) != last - first:
            raise SiteError("passages are missing at a Site", site=document.site, hint="see `domicile sites drift`")
        sealer = PassageSealer(
            dek,
            collection=bytes.fromhex(document.collection),
            document=bytes.fromhex(document.id),
            version=document.version,
            classification=document.tag.classification,
        )
        opened = tuple(
            (at, sealer.open(at, each, str(found[each].payload["s"]))) for at, each in enumerate(ids, start=first)
        )
        told = steps(touches, self._engine.fleet, datetime.now(UTC), reason="asked")
        return Stretch(document, opened, await self._record(principal, document, steps=told))

    def _ids(self, document: Document) -> list[str]:
        with self._database.reading() as connection:
            return points.in_order(connection, document.id, document.version, document.search_epoch)

    async def _record(self, principal: Principal, document: Document, **told: Any) -> str:
        draft = Draft(
            kind="refusal" if "refused" in told else "search",
            tenant=principal.tenant,
            activity=ACTIVITY,
            tags=(document.tag,),
            commits={"principal": principal.id.encode(), "documents": [document.id.encode()]},
            **({"steps": [], "refused": []} | told),
        )
        return (await self._ledger.record(draft)).id
