"""Accounts: credentials that work once or until they are revoked, and of which no copy is kept."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from residency.database import Database, metadata
from service.accounts import SCOPES, Accounts, keys
from service.errors import CredentialError, InvalidRequestError

SECRET = bytes(range(32))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'a.sqlite'}")
    metadata.create_all(made.engine)
    yield made
    made.close()


@pytest.fixture
def accounts(database: Database) -> Accounts:
    made = Accounts(database, secret=SECRET)
    made.ensure_tenant("acme", ceiling=["EEA"], zone="DE")
    return made


def test_a_key_says_who_holds_it(accounts: Accounts) -> None:
    token = accounts.issue("acme", scopes=["upload", "ask"], groups=["board"])
    found, ceiling = accounts.identify(token)
    assert (found.tenant, found.zone) == ("acme", "DE")
    assert found.scopes == {"ask", "upload"}
    assert found.groups == {"board"}
    assert found.id.startswith("key:")
    assert ceiling == {"EEA"}


def test_the_database_holds_no_copy_of_a_key(accounts: Accounts, database: Database) -> None:
    token = accounts.issue("acme", scopes=["ask"])
    database.checkpoint()
    data = b"".join(path.read_bytes() for path in Path(database.engine.url.database or "").parent.iterdir())
    assert token.encode() not in data
    assert token.removeprefix("dom_").encode() not in data
    assert token not in str(accounts.listing())


def test_a_key_of_another_home_is_unknown(accounts: Accounts, database: Database) -> None:
    token = accounts.issue("acme", scopes=["ask"])
    with pytest.raises(CredentialError):
        Accounts(database, secret=bytes(32)).check(token)


def test_unknown_revoked_and_expired_keys_look_the_same(accounts: Accounts) -> None:
    revoked, expired = accounts.issue("acme", scopes=["ask"]), accounts.issue("acme", scopes=["ask"], lifetime=-1)
    accounts.revoke(accounts.check(revoked).id)
    said = set()
    for token in (revoked, expired, "dom_nothing", ""):
        with pytest.raises(CredentialError) as caught:
            accounts.check(token)
        said.add((str(caught.value), caught.value.hint))
    assert len(said) == 1


def test_revoking_says_whether_there_was_anything_to_revoke(accounts: Accounts) -> None:
    key = accounts.check(accounts.issue("acme", scopes=["ask"])).id
    assert accounts.revoke(key)
    assert not accounts.revoke(key)
    assert not accounts.revoke("0" * 16)


def test_each_kind_of_credential_opens_its_own_door_alone(accounts: Accounts) -> None:
    tokens = {kind: accounts.issue("acme", scopes=["ask"], kind=kind) for kind in ("key", "signin", "session")}
    for kind, token in tokens.items():
        for door in tokens:
            if door == kind:
                assert accounts.check(token, kind=door).tenant == "acme"
            else:
                with pytest.raises(CredentialError):
                    accounts.check(token, kind=door)


def test_a_sign_in_link_works_once(accounts: Accounts) -> None:
    link = accounts.issue("acme", scopes=SCOPES, kind="signin", lifetime=60)
    session = accounts.check(accounts.sign_in(link), kind="session")
    assert session.scopes == set(SCOPES)
    with pytest.raises(CredentialError):
        accounts.sign_in(link)


def test_an_api_key_signs_in_as_often_as_it_likes(accounts: Accounts) -> None:
    key = accounts.issue("acme", scopes=["ask"])
    sessions = {accounts.sign_in(key), accounts.sign_in(key)}
    assert len(sessions) == 2
    assert all(accounts.check(each, kind="session").scopes == {"ask"} for each in sessions)


def test_a_page_token_belongs_to_one_session(accounts: Accounts) -> None:
    one, two = (accounts.check(accounts.issue("acme", scopes=["ask"], kind="session"), kind="session") for _ in "12")
    assert accounts.csrf(one) == accounts.csrf(one) != accounts.csrf(two)


@pytest.mark.parametrize("name", ["", "Acme", "ac me", "-acme", "a" * 64, "acme/..", "acmé"])
def test_a_tenant_needs_a_plain_name(accounts: Accounts, name: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        accounts.ensure_tenant(name, ceiling=["EEA"], zone="DE")
    assert caught.value.param == "tenant"


def test_a_tenant_that_is_there_keeps_its_ceiling_until_it_is_set(accounts: Accounts) -> None:
    assert accounts.ensure_tenant("acme", ceiling=["US"], zone="US").ceiling == {"EEA"}
    accounts.set_ceiling("acme", ["DE"])
    assert [each.ceiling for each in accounts.tenants()] == [{"DE"}]


@pytest.mark.parametrize("scopes", [[], ["ask", "fly"]])
def test_a_key_needs_scopes_that_are_some(accounts: Accounts, scopes: list[str]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        accounts.issue("acme", scopes=scopes)
    assert caught.value.param == "scope"
    assert caught.value.hint


def test_a_key_for_a_tenant_that_is_none_cannot_be_made(accounts: Accounts, database: Database) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        accounts.issue("nobody", scopes=["ask"])
    with database.reading() as connection:
        assert not connection.execute(sa.select(keys)).all()


def test_keys_are_listed_by_tenant_and_sessions_are_not(accounts: Accounts) -> None:
    accounts.ensure_tenant("other", ceiling=["EEA"], zone="FR")
    accounts.issue("acme", scopes=["ask"])
    accounts.issue("other", scopes=["report"])
    accounts.issue("acme", scopes=["ask"], kind="session")
    assert [row["scopes"] for row in accounts.listing("acme")] == [["ask"]]
    assert len(accounts.listing()) == 2
