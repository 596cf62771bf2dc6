"""Repeats: the reply to a call with an `Idempotency-Key`, kept sealed, so that the same call gets the same reply.

Rules kept here: a reply is sealed under a key that needs the client's own `Idempotency-Key` to be derived, so neither
the database nor our files open it; it is gone after its time, when a Document in it is no longer live, and when the
rules are no longer those it was made under: then the call runs anew. Source: draft-ietf-httpapi-idempotency-key-header.
"""

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from ingestion.collections import insert_missing
from ingestion.rows import document
from ingestion.states import State
from residency.database import Database, metadata
from residency.decision import Principal
from residency.envelope import padded, unpadded
from residency.seal import NONCE, bind, expand, suite_of
from service.errors import InProgressError, ReusedKeyError

RUNNING: Final = 120.0
"""Seconds after which a call that never ended counts as given up."""
SWEEP: Final = 60.0
"""Seconds between two sweeps at most."""
SUITE: Final = suite_of(1)

replies = sa.Table(
    "kept_reply",
    metadata,
    sa.Column("id", sa.LargeBinary(32), primary_key=True),
    sa.Column("payload", sa.LargeBinary(32), nullable=False),
    sa.Column("rules", sa.LargeBinary(32), nullable=False),
    sa.Column("sealed", sa.LargeBinary),
    sa.Column("created", sa.Float, nullable=False),
)
sa.Index("ix_kept_reply_created", replies.c.created)
cited = sa.Table(
    "kept_reply_document",
    metadata,
    sa.Column("reply", sa.LargeBinary(32), primary_key=True),
    sa.Column("document", sa.String(32), primary_key=True),
)
sa.Index("ix_kept_reply_document_document", cited.c.document)


_DEAD: Final = sa.select(cited.c.reply).where(
    ~sa.exists().where(document.c.id == cited.c.document, document.c.state == State.LIVE)
)
"""Replies with a Document that is no longer live."""


class Kept(msgspec.Struct, frozen=True):
    """A reply as it left: header lines and body."""

    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass(frozen=True, slots=True)
class Turn:
    """A call that may run now; `finish` or `drop` ends it."""

    id: bytes
    key: bytes


class Repeats:
    """Keeps replies; synchronous, callers go through `database.run`. `secret` is the 32 bytes of `keys/service.key`."""

    def __init__(
        self, database: Database, *, secret: bytes, rules: Callable[[], Mapping[str, str]], hours: float = 24.0
    ) -> None:
        self._database = database
        self._secret = secret
        self._rules = rules
        self._seconds = hours * 3600
        self._swept = 0.0

    def begin(self, principal: Principal, call: str, key: str, payload: bytes) -> Turn | Kept:
        """Take the turn, or give the kept reply.

        Raises `ReusedKeyError` for another payload, `InProgressError` while the first call runs, and `SealedError` for
        a kept reply that was tampered with.
        """
        place = (principal.tenant, principal.id, call, key)
        turn = Turn(
            expand(self._secret, bind("domicile/v1/repeat", *place)),
            expand(self._secret, bind("domicile/v1/reply", *place)),
        )
        said = hmac.digest(self._secret, bind("domicile/v1/payload", sha256(payload).digest()), "sha256")
        ruled = self._ruled()
        c = replies.c
        with self._database.transaction() as connection:
            now = float(connection.execute(sa.select(self._database.clock())).scalar_one())
            if now - self._swept > SWEEP:
                self._sweep(connection, now)
            row = connection.execute(sa.select(replies).where(c.id == turn.id)).one_or_none()
            if row is not None and self._over(connection, row, now, ruled):
                self._forget(connection, turn.id)
                row = None
            if row is not None and not hmac.compare_digest(bytes(row.payload), said):
                raise ReusedKeyError(
                    "this Idempotency-Key came with another payload before", hint="make a new key for a new call"
                )
            if row is not None and row.sealed is None:
                raise InProgressError("a call with this Idempotency-Key is still running", hint="ask again in a second")
            if row is not None:
                return self._opened(turn, bytes(row.sealed))
            fresh = {"id": turn.id, "payload": said, "rules": ruled, "sealed": None, "created": now}
            if not insert_missing(connection, replies, fresh):
                raise InProgressError("a call with this Idempotency-Key began just now", hint="ask again in a second")
            return turn

    def finish(self, turn: Turn, reply: Kept, documents: Iterable[str]) -> None:
        """Keep the reply of a call, with the Documents that are in it."""
        plain = padded(msgspec.msgpack.encode(reply))
        sealed = SUITE.seal(SUITE.cipher(turn.key), turn.id, plain)
        with self._database.transaction() as connection:
            connection.execute(sa.update(replies).where(replies.c.id == turn.id).values(sealed=sealed))
            for each in set(documents):
                insert_missing(connection, cited, {"reply": turn.id, "document": each})

    def drop(self, turn: Turn) -> None:
        """Give the turn back: the call failed, and may be made again."""
        with self._database.transaction() as connection:
            self._forget(connection, turn.id)

    def sweep(self) -> None:
        """Delete what is too old, and every reply with a Document that is no longer live."""
        with self._database.transaction() as connection:
            self._sweep(connection, float(connection.execute(sa.select(self._database.clock())).scalar_one()))

    def _over(self, connection: sa.Connection, row: Any, now: float, ruled: bytes) -> bool:
        """Say whether a row counts no more: given up, too old, of other rules, of Documents that are gone."""
        if row.sealed is None:
            return bool(row.created < now - RUNNING)
        if row.created < now - self._seconds or bytes(row.rules) != ruled:
            return True
        return connection.execute(_DEAD.where(cited.c.reply == row.id).limit(1)).first() is not None

    def _sweep(self, connection: sa.Connection, now: float) -> None:
        gone = sa.union(sa.select(replies.c.id).where(replies.c.created < now - self._seconds), _DEAD)
        for each in [bytes(row[0]) for row in connection.execute(gone)]:
            self._forget(connection, each)
        self._swept = now

    def _forget(self, connection: sa.Connection, reply: bytes) -> None:
        connection.execute(sa.delete(cited).where(cited.c.reply == reply))
        connection.execute(sa.delete(replies).where(replies.c.id == reply))

    def _opened(self, turn: Turn, sealed: bytes) -> Kept:
        plain = SUITE.open(SUITE.cipher(turn.key), sealed[:NONCE], turn.id, sealed[NONCE:])
        return msgspec.msgpack.decode(unpadded(plain), type=Kept)

    def _ruled(self) -> bytes:
        return sha256(msgspec.json.encode(self._rules(), order="sorted")).digest()
