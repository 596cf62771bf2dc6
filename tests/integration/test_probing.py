"""Probes: a Site is open only while it was seen well, says why it is closed since when; every change is kept."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from residency.database import Database, metadata
from residency.decision import Ask, Permit, Principal, Refusal
from residency.engine import Engine
from residency.errors import SiteError
from residency.fleet import Fleet
from residency.ledger import Ledger
from residency.logkey import LogKey
from residency.outlets.lines import lines
from residency.route import Action
from residency.tag import Tag
from residency.violations import Violations
from service.certifying import Wishes, certify
from service.probing import Probing
from service.sightings import Sightings, site_state
from tests.doubles.rules import policy, zones
from tests.doubles.tls_counting import counting, server

STEWARD = "default"
ALICE = Principal("app:alice", "northwind", frozenset({"search"}))


class Told:
    """A shard or key provider that says what a test wants."""

    site = "fra"

    def __init__(self) -> None:
        self.wrong = ""
        self.facts: dict[str, Any] = {"kind": "server", "version": "1.19.1", "pid": 7, "points": 3}

    async def probe(self) -> dict[str, Any]:
        if self.wrong:
            raise SiteError(self.wrong, site=self.site, hint="mend it")
        self.facts["pid"] += 1
        return self.facts

    status = probe


class Answering:
    """A peer that answers a handshake, as `lines.Line` would."""

    kind, own = "shard", True

    def __init__(self, ends: datetime) -> None:
        self.certificate, self.spki, self.expires = "c" * 64, "5" * 64, ends

    async def meet(self) -> "Answering":
        return self


class Stand:
    """A Fleet of one remote Site in Germany with a clock moved by hand."""

    def __init__(self, folder: Path, *, evidence: str = "", zone: str = "DE", holds: str = "") -> None:
        self.now = datetime(2026, 11, 23, 12, tzinfo=UTC)
        text = f'[[site]]\nid = "fra"\nzone = "{zone}"\noperator = {{ name = "Example Hosting", zone = "DE" }}\n'
        text += f'evidence = [{evidence}]\nholds = [{{ kind = "shard", url = "https://fra.example" }}{holds}]\n'
        self.fleet = Fleet.parse(text, zones())
        self.engine = Engine(zones(), policy(), self.fleet, clock=lambda: self.now)
        self.engine.admit("northwind", frozenset({"EEA"}))
        self.database = Database(f"sqlite:///{folder / 'domicile.sqlite'}")
        metadata.create_all(self.database.engine)
        key = LogKey.load_or_create(folder / "ledger.key")
        self.ledger = Ledger(self.database, key, origin="test/ledger/1", digests=self.engine.digests, software="test")
        self.shard = Told()
        self.lines: dict[tuple[str, str], Any] = {}
        self.violations = Violations(self.database, self.ledger, clock=lambda: self.now)
        self.sightings = Sightings(
            self.database, self.ledger, steward=STEWARD, ttl=3600.0, violations=self.violations,
            holders=lambda _site: ["northwind"], clock=lambda: self.now,
        )  # fmt: skip
        self.probing = self.another()

    def another(self) -> Probing:
        """Another process's probing over the same database."""
        bodies: dict[str, Any] = {"fra": self.shard}
        return Probing(
            database=self.database, engine=self.engine, sightings=self.sightings, shards=bodies, keys={},
            lines=self.lines, here="DE", ttl=3600.0, clock=lambda: self.now,
        )  # fmt: skip

    def permitted(self) -> bool:
        tag = Tag(frozenset({"DE"}), frozenset({"EU"}))
        decision = self.engine.decide(Ask(ALICE, Action.SEARCH, "fra", (tag,)))
        assert isinstance(decision, Permit | Refusal)
        return isinstance(decision, Permit)

    def recorded(self) -> list[dict[str, Any]]:
        end = datetime.now(UTC) + timedelta(days=1)
        found = self.ledger.entries(STEWARD, datetime(2020, 1, 1, tzinfo=UTC), end, ["probe"])
        return [entry["facts"] for entry in found]


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


async def test_a_good_probe_opens_a_site_until_its_time_runs_out(stand: Stand) -> None:
    assert not stand.permitted()
    await stand.probing.once()
    assert stand.permitted()
    stand.now += timedelta(minutes=59)
    assert stand.permitted()
    stand.now += timedelta(minutes=2)
    assert not stand.permitted()
    (site,) = await stand.probing.listing()
    assert (site["state"], site["cause"]) == ("closed", "its last good probe ran out at 2026-11-23T13:00:00Z")
    await stand.probing.once()
    assert stand.permitted()


async def test_a_failing_probe_closes_at_once_and_says_why_and_since_when(stand: Stand) -> None:
    await stand.probing.once()
    stand.now += timedelta(minutes=10)
    stand.shard.wrong = "the server at fra is too old (1.18.0)"
    await stand.probing.once()
    assert not stand.permitted()
    stand.now += timedelta(minutes=10)
    await stand.probing.once()
    (site,) = await stand.probing.listing()
    shown = {name: site[name] for name in ("state", "cause", "remedy", "since", "probed")}
    assert shown == {
        "state": "closed",
        "cause": "the server at fra is too old (1.18.0)",
        "remedy": "mend it",
        "since": "2026-11-23T12:10:00.000Z",
        "probed": "2026-11-23T12:20:00.000Z",
    }


async def test_only_changes_are_recorded_and_only_once_whoever_sees_them(stand: Stand) -> None:
    for _ in range(3):
        await asyncio.gather(stand.probing.once(), stand.another().once())
    assert [(each["site"], each["state"]) for each in stand.recorded()] == [("fra", "open")]
    stand.shard.wrong = "it does not answer"
    await asyncio.gather(stand.probing.once(), stand.another().once())
    stand.shard.wrong = ""
    stand.shard.facts["version"] = "1.20.0"
    await stand.another().once()
    assert [(each["state"], each["cause"], each.get("before")) for each in stand.recorded()] == [
        ("open", "", None), ("closed", "it does not answer", "open"), ("open", "", "closed"),
    ]  # fmt: skip
    assert stand.recorded()[-1]["shard"] == {"kind": "server", "version": "1.20.0"}


async def test_a_handshake_under_the_zones_own_root_proves_grade_3_as_long_as_the_probe_is_good(stand: Stand) -> None:
    before = stand.fleet.digest
    stand.lines["fra", "shard"] = Answering(stand.now + timedelta(days=90))
    await stand.probing.once()
    site = stand.fleet.site("fra")
    assert site.grade(stand.now) == 3 and site.grade(stand.now + timedelta(hours=2)) == 0
    assert (stand.fleet.digest, Fleet(stand.fleet.sites.values()).digest) == (before, before)
    (listed,) = await stand.probing.listing()
    assert (listed["grade"], listed["facts"]["peers"][0]["spki"]) == (3, "5" * 64)
    stand.shard.wrong = "it does not answer"
    await stand.probing.once()
    assert stand.fleet.site("fra").grade(stand.now) == 0


@pytest.mark.parametrize(
    ("zone", "holds", "grade"),
    [
        ("DE", ', { kind = "vault", url = "folder:" }', 3),
        ("FR", "", 3),
        ("FR", ', { kind = "vault", url = "folder:" }', 0),  # this machine stands in Germany, and so does its folder
    ],
)
async def test_a_handshake_says_nothing_of_what_a_site_keeps_elsewhere(
    tmp_path: Path, zone: str, holds: str, grade: int
) -> None:
    stand = Stand(tmp_path, zone=zone, holds=holds)
    stand.lines["fra", "shard"] = Answering(stand.now + timedelta(days=90))
    await stand.probing.once()
    assert stand.fleet.site("fra").grade(stand.now) == grade


async def test_a_root_that_is_not_the_zones_own_proves_nothing(stand: Stand) -> None:
    stand.lines["fra", "shard"] = answering = Answering(stand.now + timedelta(days=90))
    answering.own = False
    await stand.probing.once()
    assert stand.permitted() and stand.fleet.site("fra").grade(stand.now) == 0


async def test_a_site_closes_with_its_certificate_not_with_the_probe_after(stand: Stand) -> None:
    stand.lines["fra", "shard"] = Answering(stand.now + timedelta(minutes=20))
    await stand.probing.once()
    (site,) = await stand.probing.listing()
    assert (site["verified_until"], "lapsing" in site["facts"]) == ("2026-11-23T12:20:00.000Z", True)
    stand.now += timedelta(minutes=21)
    assert not stand.permitted()
    await stand.probing.once()
    assert "certificate of fra has expired" in stand.fleet.closed("fra", stand.now)


async def test_a_site_whose_evidence_has_all_run_out_is_closed_and_one_without_any_has_grade_0(tmp_path: Path) -> None:
    old = '{ grade = 2, claim = "place", source = "contract", date = 2024-01-01, valid_until = 2026-11-22 }'
    stand = Stand(tmp_path, evidence=old)
    await stand.probing.once()
    assert stand.fleet.closed("fra", stand.now) == "the evidence for the place of fra ran out on 2026-11-22"
    stand.now -= timedelta(days=2)
    await stand.probing.once()
    assert stand.permitted() and stand.fleet.site("fra").grade(stand.now) == 2


async def test_a_loss_that_an_outlet_reports_closes_at_once_and_is_looked_into(stand: Stand) -> None:
    await stand.probing.once()
    stopping = asyncio.Event()
    running = asyncio.create_task(stand.probing.run(3600.0, stopping))
    stand.shard.wrong = "its process died 3 times in 10 minutes"
    stand.probing.lost("fra", "its process died 3 times")
    assert not stand.permitted()
    async with asyncio.timeout(10):
        while len(stand.recorded()) < 2:  # noqa: ASYNC110 - another process would look like this, too
            await asyncio.sleep(0.01)
    running.cancel()
    assert stand.recorded()[-1]["cause"] == "its process died 3 times in 10 minutes"


async def test_a_database_that_cannot_be_written_leaves_the_site_as_it_was_seen(stand: Stand) -> None:
    with stand.database.transaction() as connection:
        site_state.drop(connection)
    await stand.probing.once()
    assert stand.permitted()


# --- real lines -------------------------------------------------------------------------------------------------------


def fleet_of(folder: Path, port: int, *, roots: tuple[str, str] = ("de", "fr"), extra: str = "") -> Fleet:
    text = ""
    for (name, zone), root in zip((("fra", "DE"), ("par", "FR")), roots, strict=True):
        text += f'[[site]]\nid = "{name}"\nzone = "{zone}"\noperator = {{ name = "Example Hosting", zone = "DE" }}\n'
        text += f'trust_root = "{root}/root.pem"\n{extra if name == "fra" else ""}\n'
        text += f'holds = [{{ kind = "generator", url = "https://127.0.0.1:{port}/v1" }}]\n'
    return Fleet.parse(text, zones())


@pytest.fixture
def certified(tmp_path: Path) -> Path:
    certify(fleet_of(tmp_path, 443), tmp_path)
    return tmp_path


@pytest.mark.enable_socket
async def test_each_line_is_met_by_its_own_zones_root(certified: Path) -> None:
    with counting(server(certified / "de" / "fra.pem", certified / "de" / "fra.key")) as seen:
        made = lines(fleet_of(certified, seen.port), certified)
        assert [line.own for line in made.values()] == [True, True]
        peer = await made["fra", "generator"].meet()
        assert peer.expires > datetime.now(UTC)
        with pytest.raises(SiteError, match="its Zone's root did not sign"):
            await made["par", "generator"].meet()
    assert seen.payload == 0


def test_a_root_that_two_zones_share_is_neithers_own(certified: Path) -> None:
    made = lines(fleet_of(certified, 443, roots=("de", "de")), certified)
    assert [line.own for line in made.values()] == [False, False]


def test_an_address_without_a_trust_root_is_refused_with_what_to_do(certified: Path) -> None:
    text = fleet_of(certified, 443)
    bare = Fleet.parse(
        '[[site]]\nid = "fra"\nzone = "DE"\noperator = { name = "Example Hosting", zone = "DE" }\n'
        'holds = [{ kind = "generator", url = "https://127.0.0.1/v1" }]\n', zones(),
    )  # fmt: skip
    assert lines(text, certified)
    with pytest.raises(SiteError, match="generator of fra has no trust root") as refused:
        lines(bare, certified)
    assert "domicile sites certify" in refused.value.hint


@pytest.mark.enable_socket
async def test_our_own_certificate_that_has_ended_is_named_before_anybody_is_called(certified: Path) -> None:
    def ago() -> datetime:
        return datetime.now(UTC) - timedelta(days=40)

    certify(fleet_of(certified, 443), certified / "old", wishes=Wishes(days=31, renew_days=1), clock=ago)
    shown = 'certificate = "old/de/service.pem"\ncertificate_key = "old/de/service.key"'
    with counting(server(certified / "de" / "fra.pem", certified / "de" / "fra.key")) as seen:
        made = lines(fleet_of(certified, seen.port, extra=shown), certified)
        with pytest.raises(SiteError, match="our certificate for fra has expired"):
            await made["fra", "generator"].meet()
    assert seen.begun == 0


async def test_a_site_closed_by_a_probe_is_an_incident_until_a_good_one(stand: Stand) -> None:
    await stand.probing.once()
    stand.now += timedelta(minutes=10)
    for cause in ("it does not answer", "it does not answer", "a certificate of fra has expired"):
        stand.shard.wrong = cause
        await asyncio.gather(stand.probing.once(), stand.another().once())
        stand.now += timedelta(minutes=10)
    stand.shard.wrong = ""
    await stand.probing.once()
    for tenant in (STEWARD, "northwind"):
        found = [
            (each.category, each.subject, each.begin[11:16], each.state, (each.resolved or "")[11:16], each.evidence)
            for each in stand.violations.listing(tenant)
        ]
        assert found == [
            ("evidence", "fra", "12:00", "resolved", "12:30", {"site": "fra", "cause": "it does not answer"}),
            ("evidence", "fra", "12:30", "resolved", "12:40",
             {"site": "fra", "cause": "a certificate of fra has expired"}),
        ]  # fmt: skip


async def test_a_time_in_which_nobody_looked_is_recorded_by_the_next_probe(stand: Stand) -> None:
    await stand.probing.once()
    stand.now += timedelta(minutes=59)
    await stand.probing.once()
    assert len(stand.recorded()) == 1
    stand.now += timedelta(hours=5)
    await stand.probing.once()
    gap = {"from": "2026-11-23T12:59:00.000Z", "to": "2026-11-23T17:59:00.000Z"}
    assert [each.get("unprobed") for each in stand.recorded()] == [None, gap]
    assert stand.violations.listing(STEWARD) == []


async def test_points_that_come_and_go_leave_no_receipt_but_the_newest_number(stand: Stand) -> None:
    await stand.probing.once()
    stand.shard.facts["points"] = 9
    await stand.probing.once()
    assert len(stand.recorded()) == 1
    assert stand.sightings.watch().states["fra"]["facts"]["shard"]["points"] == 9
