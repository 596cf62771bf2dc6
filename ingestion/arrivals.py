"""Arrivals: the rows of uploads, from the first block to the commit that makes a Document never to be lost.

Rules kept here: id and version are fixed before the first byte is sealed, since keys and Frames are bound to them; the
names of a Collection are given out one upload at a time, so that two first uploads of one name agree on the id; row
`sealed` and Ledger entry are one commit.
"""

import json
import secrets
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ingestion import collections
from ingestion.claims import Claim
from ingestion.crash import crash_point
from ingestion.documents import Document, of_row
from ingestion.rows import document
from ingestion.states import LIVING, State
from residency.database import Database
from residency.decision import Principal
from residency.journal import Touch
from residency.keytables import dek
from residency.ledger import Ledger
from residency.receipt import Draft
from residency.tag import Tag


@dataclass(frozen=True, slots=True)
class Taken:
    """A Document that is in: sealed, recorded, never to be lost. `created` is false when nothing new came."""

    document: Document
    receipt: str
    created: bool


@dataclass(frozen=True, slots=True)
class Upload:
    """What stays the same through one upload."""

    claim: Claim
    principal: Principal
    activity: str
    tag: Tag
    site: str
    touches: list[Touch]


class Arrivals:
    """Writes the rows of uploads, synchronously; `intake.py` calls it through `database.run`."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self.database = database
        self.ledger = ledger

    def begin(self, upload: Upload, collection_id: str, name_mac: bytes) -> tuple[str, int]:
        """Enter a row `receiving`; gives the Document's id and this upload's version."""
        c, clock, tenant = document.c, self.database.clock(), upload.principal.tenant
        with self.database.transaction() as connection:
            # Two first uploads of one name must agree on the id, so names of a collection are given out one by one.
            held = collections.collection
            connection.execute(sa.select(held.c.id).where(held.c.id == collection_id).with_for_update())
            collections.turn(connection, tenant)
            known = connection.execute(
                sa.select(c.id, sa.func.max(c.version).label("version"))
                .where(c.collection_id == collection_id, c.name_mac == name_mac, c.tenant_id == tenant)
                .where(c.state.not_in([State.ERASING, State.ERASED]))
                .group_by(c.id)
            ).first()
            identifier, version = (known.id, known.version + 1) if known else (secrets.token_hex(16), 1)
            values: dict[str, Any] = {
                "id": identifier,
                "version": version,
                "tenant_id": tenant,
                "collection_id": collection_id,
                "name_mac": name_mac,
                "jurisdiction": upload.tag.origin,
                "tag": json.dumps(upload.tag.facts(), sort_keys=True),
                "tag_digest": upload.tag.digest.hex(),
                "tag_class": collections.number(connection, tenant, upload.tag),
                "claim_digest": upload.claim.digest(upload.tag),
                "groups": json.dumps(sorted(upload.claim.groups)),
                "site_id": upload.site,
                "state": State.RECEIVING,
                "media_type": upload.claim.media_type[:100],
                "created": clock,
                "updated": clock,
            }
            empty = dict.fromkeys(("name_sealed", "dek_id", "artefact_id", "content_mac"), b"")
            texts = {"cause": "", "language": "und", "languages": "{}", "receipt": ""}
            zeros = ("state_seq", "attempts", "retries", "lease_epoch", "not_before", "search_epoch", "bytes_total")
            counters = ("bytes_done", "pages", "passages_total", "passages_done")
            connection.execute(
                sa.insert(document).values(values | empty | texts | dict.fromkeys((*zeros, *counters), 0))
            )
        return identifier, version

    def twin(
        self, tenant: str, collection_id: str, name_mac: bytes, content_mac: bytes, upload: Upload
    ) -> Document | None:
        """Find the newest version of this name, if it lives and has the same bytes under the same claim."""
        with self.database.reading() as connection:
            return _living_twin(connection, tenant, collection_id, name_mac, content_mac, upload)

    def commit(
        self,
        upload: Upload,
        identifier: str,
        version: int,
        collection_id: str,
        values: dict[str, Any],
        draft: Draft,
    ) -> Taken:
        """Make the row `sealed` and append the entry; a twin that came in meanwhile is given instead."""
        c, tenant = document.c, upload.principal.tenant
        with self.database.transaction() as connection:
            held = collections.collection
            connection.execute(sa.select(held.c.id).where(held.c.id == collection_id).with_for_update())
            mine = sa.and_(c.id == identifier, c.version == version, c.state == State.RECEIVING)
            row = connection.execute(sa.select(document).where(mine)).one()
            twin = _living_twin(connection, tenant, collection_id, row.name_mac, values["content_mac"], upload)
            if twin is not None:  # another upload of the same bytes came in first
                return Taken(twin, twin.receipt, created=False)
            stored = self.ledger.append(draft, connection)
            moved = values | {"state": State.SEALED, "state_seq": 1, "receipt": stored.id}
            connection.execute(sa.update(document).where(mine).values(moved | {"updated": self.database.clock()}))
            crash_point("before-commit")
            row = connection.execute(sa.select(document).where(c.id == identifier, c.version == version)).one()
        return Taken(of_row(row), stored.id, created=True)

    def keys_of(self, row: Any) -> list[bytes]:
        """Give the ids of the keys that a row which never ended may have."""
        mine = sa.and_(dek.c.subject_id == bytes.fromhex(row.id), dek.c.subject_version == row.version)
        with self.database.reading() as connection:
            return [bytes(each.id) for each in connection.execute(sa.select(dek.c.id).where(mine))]


def _living_twin(
    connection: sa.Connection, tenant: str, collection_id: str, name_mac: bytes, content_mac: bytes, upload: Upload
) -> Document | None:
    """Find the newest version of this name, if it lives and has the same bytes under the same claim."""
    c = document.c
    newest = connection.execute(
        sa.select(document)
        .where(c.tenant_id == tenant, c.collection_id == collection_id, c.name_mac == name_mac)
        .where(c.state.not_in([State.RECEIVING, State.MOVING, State.ERASING, State.ERASED]))
        .order_by(c.version.desc())
        .limit(1)
    ).first()
    if newest is None or newest.state not in LIVING or newest.content_mac != content_mac:
        return None
    return of_row(newest) if newest.claim_digest == upload.claim.digest(upload.tag) else None
