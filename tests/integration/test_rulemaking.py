"""How rules come into force: tried, approved by a second officer where they widen, recorded, followed elsewhere."""

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from residency import impact, product
from residency.database import Database, metadata
from residency.decision import Permit, Principal, Refusal
from residency.engine import Engine
from residency.errors import PolicyError, ZoneError
from residency.exhibits import Exhibits
from residency.fleet import Fleet
from residency.ledger import Ledger
from residency.logkey import LogKey
from residency.policy import PolicySet
from residency.route import Action
from residency.rulebook import Rulebook, digest
from service.accounts import Accounts
from service.bootstrap import domicile
from service.errors import ApprovalError, PolicyRejectedError, ScopeError
from service.home import office as office_of
from service.home import policies_of, prepare
from service.rulemaking import Rulemaking
from service.rulestore import GOOD, LAST_GOOD, Archive, kept_rules, pointed_at, policy_sets, remember, settle
from service.settings import load
from tests.doubles.rules import NOON, POLICIES, ask, fleet, policy, tag, zones

_BASE = {"cases/fleet.toml", "cases/residency.toml"}
SHIPPED = Rulebook(
    {name: raw for name, raw in Rulebook.read(POLICIES).files.items() if "cases/" not in name or name in _BASE}
)
STRICTER = Rulebook({**SHIPPED.files, "sets.toml": b'use = ["eu-only"]'})
TENANT_TYPO = """
@id("forbid-x") @law("x") @explain("x") forbid (principal, action in Domicile::Action::"governed", resource)
when { principal.tenant == Domicile::Tenant::"shpo" } unless { resource in Domicile::Zone::"DE" };
"""
both = pytest.mark.parametrize("office", ["sqlite", "postgresql"], indirect=True)
ALWAYS = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC))
FIRST, SECOND = (Principal(f"key:{n}", "default", scopes=frozenset({"admin"})) for n in ("one", "two"))
SWISS = ask(Action.SEARCH, "zrh", tag("GDPR-ADEQUATE"))


class Held:
    """An inventory with documents of the shop in Zurich."""

    def placement(self, tenant: str) -> list[dict[str, Any]]:
        rows = [{**tag("GDPR-ADEQUATE").facts(), "site": "zrh", "documents": 12, "passages": 40, "bytes": 9}]
        return rows if tenant == "shop" else []


class Office:
    """A home with a database, an engine of its own, and the officers' desk; `another` is a second process of it."""

    def __init__(self, url: str, folder: Path, key: LogKey | None = None) -> None:
        self.database, self.folder, self._key = Database(url), folder, key or LogKey.generate()
        self.others: list[Office] = []
        metadata.create_all(self.database.engine)
        self.accounts = Accounts(self.database, secret=bytes(32))
        for tenant in ("default", "shop"):
            self.accounts.ensure_tenant(tenant, ceiling=["GDPR-ADEQUATE"], zone="FR")
        self.health = settle(self.database, folder / "policies")
        laid = pointed_at(folder / "policies")
        book = Rulebook.read(laid) if laid else SHIPPED
        sites = Fleet([fleet().site("par"), fleet().site("zrh")])
        for site in sites.sites:
            sites.verify(site, bound=True, until=NOON + timedelta(hours=1))
        self.engine = Engine(zones(), PolicySet(book.rules(), zones()), sites, clock=lambda: NOON)
        for tenant in ("default", "shop"):
            self.engine.admit(tenant, frozenset({"GDPR-ADEQUATE"}))
        self.ledger = Ledger(
            self.database, self._key, origin="x/ledger/1", digests=self.engine.digests, software="domicile 0"
        )
        self.desk = Rulemaking(
            database=self.database,
            engine=self.engine,
            ledger=self.ledger,
            accounts=self.accounts,
            inventory=Held(),
            folder=folder / "policies",
            steward="default",
            health=self.health,
            clock=lambda: NOON,
        )

    def another(self, folder: Path) -> "Office":
        folder.mkdir(exist_ok=True)
        return self.beside(folder)

    def beside(self, folder: Path) -> "Office":
        self.others.append(Office(self.database.url, folder, self._key))
        return self.others[-1]

    def close(self) -> None:
        for each in (*self.others, self):
            each.database.close()

    def swiss(self) -> bool:
        return isinstance(self.engine.decide(SWISS), Permit)

    def recorded(self, tenant: str) -> list[dict[str, Any]]:
        return list(self.ledger.entries(tenant, *ALWAYS, kinds=["policy"]))


@pytest.fixture
def office(request, tmp_path, monkeypatch):
    monkeypatch.setattr(impact, "product", partial(product.product, limit=4))
    monkeypatch.setattr(product, "_foils", lambda *_: [])  # the whole product is held in test_impact
    url = (
        f"sqlite:///{tmp_path}/home.sqlite"
        if getattr(request, "param", "sqlite") == "sqlite"
        else request.getfixturevalue("postgres_url")
    )
    home = tmp_path / "home"
    home.mkdir()
    found = Office(url, home)
    with found.database.transaction() as connection:
        connection.execute(sa.text("DELETE FROM active_policy"))
        connection.execute(policy_sets.delete())
        connection.execute(kept_rules.delete())
    yield found
    found.close()


@both
def test_a_narrowing_change_comes_into_force_by_one_officer_and_is_recorded_for_every_tenant(office) -> None:
    assert office.swiss()
    made = office.desk.propose(STRICTER, FIRST)
    assert (made["state"], made["proposed_by"], made["approved_by"], made["widens"]) == (
        "activated", "key:one", "", False,
    )  # fmt: skip
    assert made["newly_permitted"] == 0
    assert made["newly_refused"] > 0
    assert made["documents_newly_refused"] == 12
    assert not office.swiss()
    assert office.desk.health == GOOD
    for tenant, documents in (("shop", 12), ("default", 0)):
        [entry] = office.recorded(tenant)
        facts = entry["facts"]
        assert (facts["event"], facts["proposed_by"], facts["set"]) == ("activated", "key:one", STRICTER.digest)
        assert facts["policy"] == office.engine.policy.digest
        assert entry["policy"] == policy().digest
        assert facts["documents_newly_refused"] == documents
    assert pointed_at(office.folder / "policies").name == STRICTER.digest.removeprefix("sha256:")


@both
def test_a_widening_change_waits_for_a_second_credential(office) -> None:
    office.desk.propose(STRICTER, FIRST)
    made = office.desk.propose(SHIPPED, FIRST)
    assert (made["state"], made["widens"]) == ("waiting", True)
    assert made["documents_newly_permitted"] == 12
    assert not office.swiss()
    with pytest.raises(ApprovalError, match="this credential proposed it"):
        office.desk.approve(made["digest"], FIRST)
    assert not office.swiss()
    done = office.desk.approve(made["digest"][7:19], SECOND)
    assert (done["state"], done["proposed_by"], done["approved_by"]) == ("activated", "key:one", "key:two")
    assert office.swiss()
    assert [entry["facts"]["event"] for entry in office.recorded("shop")] == ["activated", "proposed", "activated"]
    with pytest.raises(ApprovalError, match="activated already"):
        office.desk.approve(made["digest"], SECOND)


@pytest.mark.parametrize(
    "who",
    [
        Principal("key:x", "default", scopes=frozenset({"report"})),
        Principal("key:x", "shop", scopes=frozenset({"admin"})),
    ],
)
def test_only_admins_of_the_installations_own_tenant_change_rules(office, who: Principal) -> None:
    with pytest.raises(ScopeError):
        office.desk.propose(STRICTER, who)
    with pytest.raises(ScopeError):
        office.desk.approve(STRICTER.digest, who)
    assert office.desk.proposals() == []


def broken(old: str, new: str) -> Rulebook:
    text = SHIPPED.files["residency.cedar"].decode()
    assert old in text
    return Rulebook({**SHIPPED.files, "residency.cedar": text.replace(old, new).encode()})


@pytest.mark.parametrize(
    ("book", "says"),
    [
        (broken("permit (principal is", "permit principal is"), "does not parse: the clause at line 5"),
        (broken('Zone::"DE" };', 'Zone::"EU" };'), "cases/residency.toml: 7 German health data in Paris"),
        (broken('@law("GDPR 17")\n', ""), "it has no @law"),
        (Rulebook({**SHIPPED.files, "zones.toml": b"[[edge]]"}), "zones.toml"),
        (Rulebook({n: raw for n, raw in SHIPPED.files.items() if not n.startswith("cases/")}), "no worked case"),
        (Rulebook({**SHIPPED.files, "own.cedar": TENANT_TYPO.encode()}), "did you mean shop?"),
    ],
)  # fmt: skip
def test_rules_that_do_not_pass_their_trial_are_not_even_filed(office, book: Rulebook, says: str) -> None:
    with pytest.raises(PolicyRejectedError) as caught:
        office.desk.propose(book, FIRST)
    assert any(says in problem for problem in caught.value.problems)
    assert office.desk.proposals() == []
    assert office.recorded("shop") == []
    assert office.swiss()


def test_a_zone_that_held_documents_name_may_not_vanish(office) -> None:
    text = SHIPPED.files["zones.toml"].decode()
    less = Rulebook({**SHIPPED.files, "zones.toml": text.replace('"PW", ', "").encode()})
    office.desk._inventory = type("Palau", (), {"placement": lambda _, tenant: [
        {**tag("PW").facts(), "site": "zrh", "documents": 1}]})()  # fmt: skip
    with pytest.raises(PolicyRejectedError, match="PW"):
        office.desk.propose(less, FIRST)


def test_a_proposal_made_against_other_rules_is_out_of_date(office) -> None:
    office.desk.propose(STRICTER, FIRST)
    wide = office.desk.propose(SHIPPED, FIRST)
    other = Rulebook({**SHIPPED.files, "sets.toml": b'use = ["eu-only", "sovereign"]'})
    office.desk.propose(other, SECOND)
    with pytest.raises(ApprovalError, match="have changed since"):
        office.desk.approve(wide["digest"], SECOND)


def test_a_stored_proposal_that_was_changed_is_not_activated(office) -> None:
    office.desk.propose(STRICTER, FIRST)
    wide = office.desk.propose(SHIPPED, FIRST)
    with office.database.transaction() as connection:
        other = Rulebook({**SHIPPED.files, "README.md": b"changed"}).packed()
        connection.execute(policy_sets.update().where(policy_sets.c.digest == wide["digest"]).values(files=other))
    with pytest.raises(PolicyRejectedError, match="changed"):
        office.desk.approve(wide["digest"], SECOND)
    assert not office.swiss()


def test_the_rules_in_force_need_not_be_proposed(office) -> None:
    office.desk.propose(STRICTER, FIRST)
    with pytest.raises(ApprovalError, match="in force already"):
        office.desk.propose(STRICTER, FIRST)
    with pytest.raises(ApprovalError, match="no such proposal"):
        office.desk.approve("sha256:" + "0" * 64, SECOND)


# --- other processes --------------------------------------------------------------------------------------------------


@both
def test_another_process_takes_the_rules_over_without_a_restart(office, tmp_path) -> None:
    other = office.another(tmp_path / "other")
    assert not other.desk.pending()
    office.desk.propose(STRICTER, FIRST)
    assert other.swiss()
    assert other.desk.pending()
    assert other.desk.follow()
    assert not other.swiss()
    assert not other.desk.pending()
    assert other.engine.digests() == office.engine.digests()


def test_two_processes_of_one_home_follow_too(office) -> None:
    beside = office.beside(office.folder)
    office.desk.propose(STRICTER, FIRST)
    assert beside.desk.pending()
    assert beside.desk.follow()
    assert not beside.swiss()


def test_a_process_that_starts_later_starts_with_the_active_rules(office, tmp_path) -> None:
    office.desk.propose(STRICTER, FIRST)
    later = office.another(tmp_path / "later")
    assert not later.swiss()
    assert not later.desk.pending()


def spoil(office: Office) -> None:
    """Make the active row name a set that is broken, as a damaged database would."""
    with office.database.transaction() as connection:
        connection.execute(policy_sets.update().values(files=Rulebook({"own.cedar": b"permit"}).packed()))


def test_a_broken_set_never_replaces_a_good_one_and_the_health_says_so(office, tmp_path) -> None:
    other = office.another(tmp_path / "other")
    office.desk.propose(STRICTER, FIRST)
    spoil(office)
    assert other.desk.pending()
    assert not other.desk.follow()
    assert other.desk.health.startswith(LAST_GOOD)
    assert other.swiss()
    assert not other.desk.pending()  # it is not tried again each second


def test_a_start_with_a_broken_active_set_serves_the_last_good_one(office) -> None:
    office.desk.propose(STRICTER, FIRST)
    spoil(office)
    again = office.beside(office.folder)
    assert again.desk.health.startswith(LAST_GOOD)
    assert not again.swiss()


def test_a_start_with_a_broken_set_and_no_good_one_is_refused(office, tmp_path) -> None:
    office.desk.propose(STRICTER, FIRST)
    spoil(office)
    (tmp_path / "bare").mkdir()
    with pytest.raises(PolicyError):
        settle(office.database, tmp_path / "bare" / "policies")


def test_files_changed_after_they_were_activated_are_refused_and_laid_anew(office) -> None:
    office.desk.propose(STRICTER, FIRST)
    laid = pointed_at(office.folder / "policies")
    (laid / "residency.cedar").write_text("// nothing")
    with pytest.raises(PolicyError, match="were changed after"):
        pointed_at(office.folder / "policies")
    assert settle(office.database, office.folder / "policies") == GOOD
    assert Rulebook.read(pointed_at(office.folder / "policies")) == STRICTER


def test_receipts_before_and_after_name_the_rules_they_were_judged_by(office) -> None:
    from residency.receipt import Draft

    before = office.ledger.append(Draft("admin", "shop", "accountability"))
    office.desk.propose(STRICTER, FIRST)
    after = office.ledger.append(Draft("admin", "shop", "accountability"))
    kinds = list(office.ledger.entries("shop", *ALWAYS))
    by_id = {entry["id"]: entry["policy"] for entry in kinds}
    assert by_id[before.id] == policy().digest
    assert by_id[after.id] == PolicySet(STRICTER.rules(), zones()).digest != policy().digest


def test_a_refusal_after_the_change_names_the_new_clause(office) -> None:
    office.desk.propose(STRICTER, FIRST)
    decision = office.engine.decide(SWISS)
    assert isinstance(decision, Refusal)
    assert decision.policies == ("forbid-outside-eu",)
    assert office.engine.fleet.verified_until("zrh") > NOON + timedelta(minutes=1)


@both
def test_a_waiting_proposal_is_withdrawn_by_an_admin_recorded_and_can_be_made_again(office: Office) -> None:
    office.desk.propose(STRICTER, FIRST)
    waiting = office.desk.propose(SHIPPED, FIRST)
    assert waiting["state"] == "waiting"
    with pytest.raises(ScopeError):
        office.desk.withdraw(waiting["digest"], Principal("key:x", "shop", scopes=frozenset({"admin"})))
    assert office.desk.withdraw(waiting["digest"], SECOND)["state"] == "withdrawn"
    for late in (office.desk.approve, office.desk.withdraw):
        with pytest.raises(ApprovalError, match="was withdrawn already"):
            late(waiting["digest"], SECOND)
    facts = office.recorded("shop")[-1]["facts"]
    assert (facts["event"], facts["proposed_by"], facts["withdrawn_by"]) == ("withdrawn", "key:one", "key:two")
    assert office.desk.propose(SHIPPED, FIRST)["state"] == "waiting"
    assert office.desk.approve(SHIPPED.digest, SECOND)["state"] == "activated"


@both
def test_whatever_was_in_force_is_found_again_by_the_digests_that_receipts_name(office: Office) -> None:
    before = office.engine.digests()
    remember(office.database, SHIPPED)
    remember(office.database, SHIPPED)
    later = Rulebook({**STRICTER.files, "zones.toml": STRICTER.files["zones.toml"] + b"\n# read by counsel\n"})
    office.desk.propose(later, FIRST)
    after = office.engine.digests()
    assert (before["policy"], before["zones"]) != (after["policy"], after["zones"])
    archive = Archive(office.database)
    for digests in (before, after):
        law = archive.of(digests["policy"], digests["zones"])
        assert (law.policy.digest, law.zones.digest) == (digests["policy"], digests["zones"])
    assert archive.zones("sha256:" + "00" * 32) is None
    with office.database.transaction() as connection:
        other = sa.select(kept_rules.c.files).where(kept_rules.c.digest == before["zones"]).scalar_subquery()
        connection.execute(kept_rules.update().where(kept_rules.c.digest == after["zones"]).values(files=other))
    with pytest.raises(ZoneError, match="not kept"):
        Archive(office.database).of(after["policy"], after["zones"])


async def test_a_folder_of_the_home_without_rules_or_with_an_erring_clause_stops_the_start(tmp_path) -> None:
    prepare(tmp_path / "home", zone="DE", operator="DE")
    own = tmp_path / "home" / "policies"
    own.mkdir()
    chosen = load(tmp_path / "home", environ={})
    with pytest.raises(PolicyError, match="holds no rules"):  # not the shipped ones in their place
        policies_of(chosen)
    with office_of(chosen) as accounts:
        accounts.ensure_tenant("default", ceiling=["EEA"], zone="DE")
    own.rmdir()
    SHIPPED.write(own)
    async with domicile(chosen, index=False, work=False):
        pass
    (own / "own.cedar").write_text(
        '@id("forbid-erring") @law("contract") @explain("overflows at run time")\n'
        'forbid (principal, action in Domicile::Action::"governed", resource)\n'
        "when { 9223372036854775807 + context.tag.classification > 3 };\n"
    )
    with pytest.raises(PolicyError, match="forbid-erring"):
        async with domicile(chosen, index=False, work=False):
            pass


def test_what_was_ever_in_force_is_exported_by_its_digest_and_nothing_that_was_changed(office, tmp_path) -> None:
    remember(office.database, SHIPPED)
    office.desk.propose(STRICTER, FIRST)
    archive = Archive(office.database)
    written = archive.export(tmp_path / "rules")
    files = {str(path): path.read_bytes() for folder in written for path in folder.iterdir()}
    given = Exhibits()
    for name, data in files.items():
        assert given.add(name, data) == ""
    assert set(given.zones) == {SHIPPED.zones().digest}
    assert given.policy_digests >= {digest(SHIPPED.rules()), digest(STRICTER.rules())}
    assert archive.export(tmp_path / "rules") == written  # again changes nothing
    with office.database.transaction() as connection:
        connection.execute(kept_rules.update().where(kept_rules.c.kind == "policy").values(files=STRICTER.packed()))
    with pytest.raises(PolicyError, match="is something else"):
        archive.export(tmp_path / "other")
    assert not (tmp_path / "other").exists()
