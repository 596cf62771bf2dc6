"""Repeats: kept replies come back to who sent the key, and to nobody and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from ingestion.rows import document
from ingestion.states import State
from residency.database import Database
from residency.decision import Principal
from residency.errors import SealedError
from service.errors import InProgressError, ReusedKeyError
from service.repeats import Kept, Repeats, Turn, cited, replies

ASKER = Principal("key:1", "acme")
REPLY = Kept([(b"content-type", b"application/json")], b'{"answer": "Zwitscherkanari"}')


class Rules(dict[str, str]):
    """Digests that a test may change."""

    def __call__(self) -> dict[str, str]:
        return dict(self)


@pytest.fixture
def rules() -> Rules:
    return Rules(policy="sha256:1")


@pytest.fixture
def repeats(database: Database, rules: Rules) -> Repeats:
    return Repeats(database, secret=bytes(range(32)), rules=rules)


@pytest.fixture
def alive(database: Database) -> Callable[[str, State], None]:
    def put(identifier: str, state: State) -> None:
        values: dict[str, Any] = {}
        for column in document.c:
            kind = column.type.python_type
            values[column.name] = None if column.nullable else kind()
        values |= {"id": identifier, "version": 1, "tenant_id": "acme", "state": state}
        with database.transaction() as connection:
            connection.execute(sa.delete(document).where(document.c.id == identifier))
            connection.execute(sa.insert(document).values(values))

    return put


def begun(repeats: Repeats, key: str = "k", payload: bytes = b"{}", call: str = "POST /v1/answers?") -> Turn:
    turn = repeats.begin(ASKER, call, key, payload)
    assert isinstance(turn, Turn)
    return turn


def count(database: Database) -> int:
    with database.reading() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(replies)).scalar_one())


def test_the_same_call_gets_the_same_reply(repeats: Repeats) -> None:
    repeats.finish(begun(repeats), REPLY, [])
    assert repeats.begin(ASKER, "POST /v1/answers?", "k", b"{}") == REPLY


def test_a_twin_that_still_runs_is_named_so(repeats: Repeats) -> None:
    begun(repeats)
    with pytest.raises(InProgressError):
        begun(repeats)


def test_another_payload_is_refused(repeats: Repeats) -> None:
    repeats.finish(begun(repeats), REPLY, [])
    with pytest.raises(ReusedKeyError):
        begun(repeats, payload=b"[]")


def test_another_asker_call_or_key_has_a_turn_of_its_own(repeats: Repeats) -> None:
    repeats.finish(begun(repeats), REPLY, [])
    for asker, call, key in (
        (Principal("key:2", "acme"), "POST /v1/answers?", "k"),
        (Principal("key:1", "other"), "POST /v1/answers?", "k"),
        (ASKER, "POST /v1/search?", "k"),
        (ASKER, "POST /v1/answers?", "k2"),
    ):
        assert isinstance(repeats.begin(asker, call, key, b"{}"), Turn)


def test_a_dropped_turn_may_be_taken_again(repeats: Repeats) -> None:
    repeats.drop(begun(repeats))
    begun(repeats)


def test_what_is_kept_shows_nothing_and_opens_with_the_clients_key_alone(repeats: Repeats, database: Database) -> None:
    repeats.finish(begun(repeats), REPLY, [])
    with database.reading() as connection:
        row = connection.execute(sa.select(replies)).one()
    assert b"Zwitscher" not in bytes(row.sealed)
    with pytest.raises(SealedError):
        repeats._opened(Turn(bytes(row.id), bytes(32)), bytes(row.sealed))
    with database.transaction() as connection:
        connection.execute(sa.update(replies).values(sealed=bytes(row.sealed)[:-1] + b"\x00"))
    with pytest.raises(SealedError):
        repeats.begin(ASKER, "POST /v1/answers?", "k", b"{}")


def test_a_reply_goes_with_the_first_of_its_documents(
    repeats: Repeats, database: Database, alive: Callable[[str, State], None]
) -> None:
    for each in ("1" * 32, "2" * 32):
        alive(each, State.LIVE)
    repeats.finish(begun(repeats), REPLY, ["1" * 32, "2" * 32])
    assert repeats.begin(ASKER, "POST /v1/answers?", "k", b"{}") == REPLY
    alive("2" * 32, State.ERASING)
    begun(repeats)
    repeats.drop(begun(repeats, key="other"))
    repeats.finish(begun(repeats, key="third"), REPLY, ["2" * 32])
    repeats.sweep()
    with database.reading() as connection:
        assert not connection.execute(sa.select(cited)).all()
        assert not connection.execute(sa.select(replies).where(replies.c.sealed.is_not(None))).all()


def test_a_reply_made_under_other_rules_is_made_anew(repeats: Repeats, rules: Rules) -> None:
    repeats.finish(begun(repeats), REPLY, [])
    rules["policy"] = "sha256:2"
    begun(repeats)


def test_old_replies_and_turns_that_were_given_up_go(repeats: Repeats, database: Database) -> None:
    repeats.finish(begun(repeats), REPLY, [])
    begun(repeats, key="dead")
    with database.transaction() as connection:
        connection.execute(sa.update(replies).values(created=replies.c.created - 200))
    begun(repeats, key="dead")
    assert repeats.begin(ASKER, "POST /v1/answers?", "k", b"{}") == REPLY
    with database.transaction() as connection:
        connection.execute(sa.update(replies).values(created=replies.c.created - 25 * 3600))
    repeats.sweep()
    assert count(database) == 0
