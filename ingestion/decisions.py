"""Decisions: what reviewers ruled on Tags in dispute, one row for each time a version stood before them.

Rules kept here: the first decision stands; a row holds ids, codes and Tags, never content: a reviewer's own words are
sealed with the Document's Evidence.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa

from ingestion.errors import DecidedError
from residency.database import metadata
from residency.tag import Tag

GROUNDS: Final = ("declaration-right", "evidence-right", "both-bind", "found-by-hand", "wrong-document", "other")
"""Why it was decided so, as the Ledger prints it; further words are sealed with the Evidence."""


class Verdict(StrEnum):
    """What a reviewer may decide."""

    ACCEPT = "accept"
    """The declared Tag stands as it is."""
    NARROW = "narrow"
    """A narrower Tag; of a live Document it is called a retag."""
    REJECT = "reject"
    """It should not be here: it is erased."""


decision = sa.Table(
    "tag_decision",
    metadata,
    sa.Column("document_id", sa.String(32), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("tenant_id", sa.String(63), nullable=False),
    sa.Column("verdict", sa.String(8), nullable=False),
    sa.Column("ground", sa.String(20), nullable=False),
    sa.Column("by", sa.String(80), nullable=False),
    sa.Column("tag", sa.Text, nullable=False),
    sa.Column("made", sa.Integer, nullable=False),
    sa.Column("receipt", sa.String(40), nullable=False),
    sa.Column("decided", sa.Float, nullable=False),
)
"""`seq` is the row's `state_seq` that was decided on, `made` the version that carries the decided Tag."""


@dataclass(frozen=True, slots=True)
class Ruled:
    """One decision, as it stands."""

    document: str
    version: int
    verdict: Verdict
    ground: str
    by: str
    tag: Tag
    made: int
    receipt: str
    decided: float

    def facts(self) -> dict[str, Any]:
        """Give the wire form."""
        return {
            "id": self.document,
            "version": self.version,
            "action": str(self.verdict),
            "ground": self.ground,
            "by": self.by,
            "tag": self.tag.facts(),
            "receipt": self.receipt,
            "decided": self.decided,
        }


def newest(connection: sa.Connection, tenant: str, document_id: str) -> Ruled | None:
    """Give the last decision on a Document."""
    c = decision.c
    mine = sa.select(decision).where(c.document_id == document_id, c.tenant_id == tenant)
    row = connection.execute(mine.order_by(c.decided.desc(), c.version.desc(), c.seq.desc()).limit(1)).first()
    if row is None:
        return None
    tag = Tag.of(json.loads(row.tag))
    return Ruled(
        row.document_id, row.version, Verdict(row.verdict), row.ground, row.by, tag, row.made, row.receipt, row.decided
    )


def settled(connection: sa.Connection, document_id: str, version: int) -> bool:
    """Say whether a person decided the Tag that this version carries; then no Sign puts it in dispute again."""
    c = decision.c
    mine = sa.select(c.seq).where(c.document_id == document_id, c.made == version, c.verdict != Verdict.REJECT)
    return connection.execute(mine.limit(1)).first() is not None


def enter(connection: sa.Connection, seq: int, tenant: str, ruled: Ruled) -> None:
    """Write a decision down. Raises `DecidedError` where one stands already."""
    try:
        connection.execute(
            sa.insert(decision).values(
                document_id=ruled.document,
                version=ruled.version,
                seq=seq,
                tenant_id=tenant,
                verdict=str(ruled.verdict),
                ground=ruled.ground,
                by=ruled.by,
                tag=json.dumps(ruled.tag.facts(), sort_keys=True),
                made=ruled.made,
                receipt=ruled.receipt,
                decided=ruled.decided,
            )
        )
    except sa.exc.IntegrityError as error:
        raise DecidedError("this was decided just now", hint="look at the decision that stands") from error
