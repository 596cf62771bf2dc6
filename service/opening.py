"""The winners of a search: checked against the database's rows, never against what came out of a shard, and opened.

A key that does not open, or a Passage that does not, is counted as damaged and its Document recorded as such; a Site
that went away is named.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from ingestion.damage import Damage
from ingestion.documents import Document, Documents
from residency.decision import Principal
from residency.engine import Engine
from residency.envelope import PassageBody, PassageSealer
from residency.errors import SealedError
from residency.keyring import Keyring
from residency.lexicon import PREFIX_SHARE
from residency.route import Action
from residency.seal import OpenDek
from service.findings import Opened, Search
from service.folding import fold
from service.fusion import Scored, narrowed
from service.groups import Asked, Group, pass_for, reach

OVERFETCH = 2
"""An old and a new version lie side by side for a moment; winners are checked, so more are looked up than asked for."""
Winner = tuple[Scored, Document]


class Opening:
    """Opens winners with permitted keys; `within` seconds for the keys of one Site."""

    def __init__(
        self, engine: Engine, documents: Documents, keyring: Keyring, within: float, damage: Damage | None = None
    ) -> None:
        self._engine = engine
        self._documents = documents
        self._keyring = keyring
        self._within = within
        self._damage = damage

    async def open(
        self, principal: Principal, ask: Search, ranked: Sequence[Scored], found: Sequence[Asked], language: str
    ) -> tuple[list[Opened], int, set[str]]:
        """Give the best `top_k` Passages, how many were damaged, and the Sites whose keys were not reached.

        `language` is the question's: its words are weighed as among Passages of that language.
        """
        wanted = list(dict.fromkeys(str(item.hit.payload["d"]) for item in ranked[: ask.top_k * OVERFETCH + 10]))
        rows = await self._documents.database.look(self._documents.live, principal.tenant, wanted)
        left = _eligible(ranked, found, rows)  # looked at one by one, as far as is needed
        opened: list[Opened] = []
        damaged, lost, missing = 0, set[str](), ask.top_k
        while missing:  # once, and again for as many as were folded
            chosen = [each for each in islice(left, missing) if found[each[0].source].group.site not in lost]
            more, broken, gone = await self._opened(principal, ask, chosen, found, language)
            damaged, lost = damaged + broken, lost | gone
            several = sorted([*opened, *more], key=lambda each: -each.score)
            opened = fold(several) if ask.fold else several
            missing = len(several) - len(opened)
        return opened, damaged, lost

    async def _opened(
        self, principal: Principal, ask: Search, chosen: Sequence[Winner], found: Sequence[Asked], language: str
    ) -> tuple[list[Opened], int, set[str]]:
        winners = [
            (asked, [(item, row) for item, row in chosen if item.source == index]) for index, asked in enumerate(found)
        ]
        winners = [(asked, mine) for asked, mine in winners if mine]
        keyrings = await asyncio.gather(
            *(
                reach(asked.group.site, self._deks(principal, asked.group, ask.activity, mine), self._within)
                for asked, mine in winners
            )
        )
        opened: list[Opened] = []
        lost = set[str]()
        hurt: list[tuple[Document, str]] = []
        for (asked, mine), deks in zip(winners, keyrings, strict=True):
            if isinstance(deks, str):  # the Site, or its keys, went away after it had answered
                lost.add(deks)
                continue
            worth, mass = asked.tokens.shares(narrowed(asked.found.idf, language, asked.group.languages))
            words = {token: value / mass if mass > 0 else 0.0 for token, value in worth.items()}
            zone = self._engine.fleet.site(asked.group.site).zone
            for item, row in mine:
                body = _body(deks.get(row.dek_id), item, row)
                if body is None:
                    hurt.append((row, "key" if row.dek_id not in deks else "passage"))
                else:
                    opened.append(_opened(item, row, body, zone, words, asked))
        if self._damage is not None:
            for row, what in {(row.id, row.version): (row, what) for row, what in hurt}.values():
                await self._damage.found(row, what)
        return opened, len(hurt), lost

    async def _deks(
        self, principal: Principal, group: Group, activity: str, winners: Sequence[Winner]
    ) -> dict[bytes, OpenDek]:
        route = pass_for(self._engine, principal, Action.OPEN, group, activity)
        wanted = list(dict.fromkeys((row.dek_id, row.tag.digest) for _, row in winners))
        return await self._keyring.open_deks(route, group.site, wanted)


def _eligible(ranked: Sequence[Scored], found: Sequence[Asked], rows: Mapping[str, Document]) -> Iterator[Winner]:
    for item in ranked:
        row = rows.get(str(item.hit.payload["d"]))
        group, keys = found[item.source].group, found[item.source].keys
        # the point id fixes document, version and place: what a shard says beyond that is not believed
        if row is None or row.site != group.site or row.tag_class not in {each.tag_class for each in group.classes}:
            continue
        if item.hit.id != keys.point_id(row.id, row.version, int(item.hit.payload["n"])):
            continue
        yield item, row


def _body(dek: OpenDek | None, item: Scored, row: Document) -> PassageBody | None:
    """Open one Passage; None when its key is gone or it is not what was sealed there."""
    if dek is None:
        return None
    sealer = PassageSealer(
        dek,
        collection=bytes.fromhex(row.collection),
        document=bytes.fromhex(row.id),
        version=row.version,
        classification=row.tag.classification,
    )
    try:
        return sealer.open(int(item.hit.payload["n"]), item.hit.id, str(item.hit.payload["s"]))
    except SealedError:
        return None


def _opened(
    item: Scored, row: Document, body: PassageBody, zone: str, words: Mapping[int, float], asked: Asked
) -> Opened:
    stored = asked.keys.lexicon.held(body.text, body.language, body.heading, asked.tokens)
    held = sum(
        count * words[token] * stored[token] / (PREFIX_SHARE if token in asked.tokens.prefixes else 1.0)
        for token, count in asked.tokens.items()
        if token in stored
    )
    return Opened(
        document_id=row.id,
        name=body.name,
        version=row.version,
        page=body.page or 1,
        start=body.start,
        end=body.end,
        text=body.text,
        heading=body.heading,
        language=body.language,
        score=item.score,
        support=item.sense + (held if asked.group.protection.words else 0.0),
        site=row.site,
        zone=zone,
        tag=row.tag,
        words=words,
        keys=asked.keys,
    )
