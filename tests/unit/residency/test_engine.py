import asyncio
import threading
import time
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residency.decision import Basis, Permit, Principal, Refusal
from residency.engine import FRESH, Engine
from residency.errors import PolicyError, SiteError, ZoneError
from residency.fleet import Fleet
from residency.policy import PolicySet
from residency.route import LIFETIME, Action
from residency.zones import Zones
from tests.doubles.rules import NOON, POLICIES, SHOP, Clock, amended, ask, engine, fleet, policy, tag, zones

BASIS = Basis("45", "Decision 2000/518/EC", NOON + timedelta(seconds=20))


def left(permit: object) -> float:
    assert isinstance(permit, Permit)
    return permit.route.good_until - time.monotonic()


# --- what is unknown is a fault ---------------------------------------------------------------------------------------


def test_an_ask_without_tags_is_a_fault() -> None:
    question = ask()
    with pytest.raises(PolicyError):
        engine().decide(type(question)(SHOP, Action.SEARCH, "par", ()))


@pytest.mark.parametrize("action", [Action.SEARCH, Action.ERASE, Action.TRANSFER])
def test_an_unknown_site_is_a_fault_whatever_is_asked(action: Action) -> None:
    with pytest.raises(SiteError) as caught:
        engine().decide(ask(action, "pa"))
    assert "par" in caught.value.hint


@pytest.mark.parametrize("principal", [Principal("stranger", ""), Principal("stranger", "nobody")])
def test_a_principal_of_a_tenant_that_nobody_admitted_is_a_fault(principal: Principal) -> None:
    with pytest.raises(PolicyError):
        engine().decide(ask(principal=principal))


def test_data_of_a_tenant_that_nobody_admitted_is_a_fault() -> None:
    with pytest.raises(PolicyError):
        engine().decide(ask(tenant="nobody"))


@pytest.mark.parametrize("field", ["residency", "jurisdictions"])
def test_a_tag_that_names_an_unknown_zone_is_a_fault(field: str) -> None:
    with pytest.raises(ZoneError):
        engine().decide(ask(Action.SEARCH, "par", tag(**{field: ["UK"]})))


def test_a_ceiling_that_names_an_unknown_zone_is_refused() -> None:
    with pytest.raises(ZoneError):
        engine().admit("harbour", frozenset({"Europe"}))


def test_a_policy_that_names_a_site_outside_the_fleet_is_refused_at_the_start() -> None:
    text = b'@id("forbid-lyon") @explain("x") forbid (principal, action, resource == Domicile::Site::"lyon");'
    with pytest.raises(PolicyError, match="lyon"):
        Engine(zones(), PolicySet({**policy().files, "own.cedar": text}, zones()), fleet())


def test_a_fault_is_not_remembered_as_a_ruling() -> None:
    court = engine()
    with pytest.raises(PolicyError):
        court.decide(ask(tenant="harbour"))
    court.admit("harbour", frozenset({"EU"}))
    assert isinstance(court.decide(ask(principal=Principal("h", "harbour"), tenant="harbour")), Permit)


# --- permits and their Routes -----------------------------------------------------------------------------------------


def test_a_permit_carries_a_route_for_exactly_what_was_asked() -> None:
    one, two = tag(), tag(categories=["finance"])
    decision = engine().decide(ask(Action.EMBED, "par", one, two))
    assert isinstance(decision, Permit)
    route = decision.route
    assert (route.action, route.site, route.tenant, route.principal) == (Action.EMBED, "par", "shop", "shop")
    assert route.tags == {one.digest.hex(), two.digest.hex()}
    assert route.policies == decision.policies == ("permit-in-residency",)


def test_every_tag_must_be_permitted_for_the_ask_to_be() -> None:
    german = tag("DE")
    decision = engine().decide(ask(Action.SEARCH, "par", tag(), german))
    assert isinstance(decision, Refusal)
    assert decision.tag == german


def test_a_route_dies_with_the_evidence_it_rests_on() -> None:
    sites = fleet()
    sites.verify("par", bound=True, until=NOON + timedelta(seconds=7))
    assert 6 < left(engine(over=sites).decide(ask())) <= 7


def test_a_route_dies_with_the_basis_of_its_transfer() -> None:
    assert 19 < left(engine().decide(ask(Action.TRANSFER, "zrh", basis=BASIS))) <= 20


def test_a_route_dies_when_a_zone_changes() -> None:
    clock = Clock(zones().next_change - timedelta(seconds=5))  # type: ignore[operator]
    sites = fleet()
    sites.verify("par", bound=True, until=clock.now + timedelta(hours=1))
    assert left(engine(clock=clock, over=sites).decide(ask())) <= 5


def test_a_remembered_permit_still_has_half_a_minute_to_live() -> None:
    clock = Clock()
    court = engine(clock=clock)
    court.decide(ask())
    clock.pass_(seconds=FRESH - 0.1)
    assert LIFETIME - FRESH - 1 < left(court.decide(ask())) <= LIFETIME - FRESH + 0.2
    clock.pass_(seconds=0.2)
    assert left(court.decide(ask())) > LIFETIME - 1


# --- remembering ------------------------------------------------------------------------------------------------------


class Counting(PolicySet):
    """The shipped rules, counting how often Cedar is asked."""

    asked = 0

    def rule(self, *args, **kwargs):
        self.asked += 1
        return super().rule(*args, **kwargs)


def counted(**more: object) -> tuple[Counting, Engine]:
    rules = Counting(policy().files, zones())
    return rules, engine(rules=rules, **more)  # type: ignore[arg-type]


def test_the_same_ask_is_ruled_on_once() -> None:
    clock = Clock()
    rules, court = counted(clock=clock)
    for _ in range(5):
        court.decide(ask())
        clock.pass_(seconds=1)
    assert rules.asked == 1


@pytest.mark.parametrize(
    "other",
    [
        {"principal": Principal("other", "shop")},
        {"principal": Principal("shop", "shop", frozenset({"search", "support"}))},
        {"activity": "support"},
        {"tenant": "bank"},
        {"basis": BASIS},
        {"action": Action.OPEN},
        {"site": "fra"},
        {"tags": (tag(classification=2),)},
    ],
)
def test_an_ask_that_differs_in_anything_is_ruled_on_by_itself(other: dict[str, object]) -> None:
    rules, court = counted()
    court.decide(ask())
    before = rules.asked
    given_ = {"principal": SHOP, "action": Action.SEARCH, "site": "par", "tags": (tag(),), **other}
    court.decide(type(ask())(**given_))  # type: ignore[arg-type]
    assert rules.asked > before


def test_a_permit_is_forgotten_when_the_evidence_runs_out() -> None:
    clock, sites = Clock(), fleet()
    sites.verify("par", bound=True, until=NOON + timedelta(seconds=2))
    court = engine(clock=clock, over=sites)
    assert isinstance(court.decide(ask()), Permit)
    clock.pass_(seconds=2)
    assert court.decide(ask()).policies == ("forbid-stale-evidence",)


def test_a_permit_is_forgotten_when_the_basis_ends() -> None:
    clock = Clock()
    court = engine(clock=clock)
    question = ask(Action.TRANSFER, "zrh", basis=BASIS)
    assert isinstance(court.decide(question), Permit)
    clock.pass_(seconds=20)
    assert isinstance(court.decide(question), Refusal)


def test_a_site_that_closes_is_refused_at_once_and_permitted_again_after_a_good_probe() -> None:
    sites = fleet()
    court = engine(over=sites)
    assert isinstance(court.decide(ask()), Permit)
    sites.close("par", "certificate of another Zone")
    refusal = court.decide(ask())
    assert isinstance(refusal, Refusal)
    assert refusal.policies == ("forbid-stale-evidence",)
    sites.verify("par", bound=True, until=NOON + timedelta(minutes=5))
    assert isinstance(court.decide(ask()), Permit)


def test_a_closed_site_still_lets_a_tenant_erase() -> None:
    sites = fleet()
    sites.close("par", "unreachable")
    assert isinstance(engine(over=sites).decide(ask(Action.ERASE)), Permit)


def test_a_fleet_that_nobody_probed_refuses_everything_but_erasing() -> None:
    court = engine(over=fleet(verified=False))
    for action in Action:
        assert isinstance(court.decide(ask(action, basis=BASIS)), Permit) == (action is Action.ERASE)


def test_a_narrower_ceiling_holds_from_the_next_ask_on() -> None:
    court = engine()
    assert isinstance(court.decide(ask()), Permit)
    court.admit("shop", frozenset({"DE"}))
    assert court.decide(ask()).policies == ("forbid-outside-tenant-ceiling",)


def test_a_membership_ends_by_the_clock_alone() -> None:
    clock, sites = Clock(), fleet()
    sites.verify("iad-dpf", bound=True, until=NOON + timedelta(days=900))
    court = engine(clock=clock, over=sites)
    question = ask(Action.TRANSFER, "iad-dpf", basis=Basis("45", "2023/1795", NOON + timedelta(days=900)))
    assert isinstance(court.decide(question), Permit)
    clock.now = clock.now.replace(year=2027, month=7, day=1)
    assert isinstance(court.decide(question), Refusal)


def test_a_decision_of_adequacy_ends_by_the_clock_alone() -> None:
    clock = Clock()
    text = (
        '[[site]]\nid = "lon"\nzone = "GB"\noperator = { name = "Example Hosting Ltd", zone = "GB" }\n'
        'holds = [{ kind = "shard", url = "edge:" }]\n'
    )
    sites = Fleet.parse(text, zones())
    sites.verify("lon", bound=True, until=NOON + timedelta(days=9000))
    court = engine(clock=clock, over=sites)
    question = ask(Action.TRANSFER, "lon", basis=Basis("45", "2021/1772", NOON + timedelta(days=9000)))
    assert isinstance(court.decide(question), Permit)
    clock.now = clock.now.replace(year=2032)
    assert isinstance(court.decide(question), Refusal)
    assert not court.zones.within("GB", "GDPR-ADEQUATE")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["close", "verify", "pass", "decide"]), max_size=12))
def test_remembering_never_changes_a_ruling(steps: list[str]) -> None:
    clock, sites = Clock(), fleet()
    court = engine(clock=clock, over=sites)
    for step in steps:
        if step == "close":
            sites.close("par", "test")
        elif step == "verify":
            sites.verify("par", bound=True, until=clock.now + timedelta(seconds=15))
        elif step == "pass":
            clock.pass_(seconds=10)
        fresh = engine(clock=clock, over=sites).decide(ask())
        assert type(court.decide(ask())) is type(fresh)


# --- other rules, other clocks ----------------------------------------------------------------------------------------


def test_rules_are_put_in_force_at_once_and_named_by_the_digests() -> None:
    court = engine()
    before = court.decide(ask())
    assert isinstance(before, Permit)
    stricter = amended("context.tag.residency &&", "context.tag.residency && resource.grade >= 6 &&")
    court.swap(stricter, zones())
    assert isinstance(court.decide(ask()), Refusal)
    assert court.policy is stricter
    assert court.digests()["policy"] == stricter.digest
    court.swap(policy(), zones())
    assert isinstance(court.decide(ask()), Permit)


def test_a_route_minted_before_lives_out_its_minute_and_no_longer() -> None:
    court = engine()
    permit = court.decide(ask())
    court.swap(policy().without(["permit-in-residency"], zones()), zones())
    assert isinstance(permit, Permit)
    permit.route.check(site="par", action=Action.SEARCH)
    assert left(permit) <= LIFETIME


def test_other_zones_are_put_in_force_with_the_rules() -> None:
    court = engine()
    question = ask(Action.TRANSFER, "iad-dpf", basis=Basis("45", "2023/1795", NOON + timedelta(days=900)))
    assert isinstance(court.decide(question), Permit)
    court.swap(policy(), zones().without("US-DPF"))
    assert isinstance(court.decide(question), Refusal)
    assert not court.zones.within("US-DPF", "GDPR-ADEQUATE")


@pytest.mark.parametrize("missing", ["CH", "GDPR-ADEQUATE"])
def test_rules_that_do_not_fit_fleet_or_ceilings_change_nothing(missing: str) -> None:
    court = engine()
    raw = (POLICIES / "zones.toml").read_text().replace(f'"{missing}"', '"XX"')
    with pytest.raises(ZoneError):
        court.swap(policy(), Zones.parse(raw.encode(), on=NOON))
    assert court.zones.digest == zones().digest
    assert isinstance(court.decide(ask()), Permit)


def test_rules_that_name_a_site_outside_the_fleet_change_nothing() -> None:
    court = engine()
    text = b'@id("forbid-lyon") @explain("x") forbid (principal, action, resource == Domicile::Site::"lyon");'
    with pytest.raises(PolicyError, match="lyon"):
        court.swap(PolicySet({**policy().files, "own.cedar": text}, zones()), zones())
    assert court.policy is policy()


async def test_a_story_that_began_under_other_rules_is_recorded_by_the_rules_it_was_judged_by() -> None:
    court = engine()
    old, new = policy().digest, amended("a tenant's own data", "own data").digest

    async def story(go: asyncio.Event, *, asks: bool) -> str:
        if asks:
            court.decide(ask())
        await go.wait()
        return court.judged()["policy"]

    go = asyncio.Event()
    stories = [asyncio.create_task(story(go, asks=asks)) for asks in (True, False)]
    await asyncio.sleep(0)
    court.swap(amended("a tenant's own data", "own data"), zones())
    go.set()
    assert await asyncio.gather(*stories) == [old, new]
    court.decide(ask())
    assert court.judged() == court.digests()
    assert engine().judged()["policy"] == old


def test_rules_swapped_under_load_never_mix() -> None:
    """Every ruling is by the one set or the other: no clause decides that the set at hand does not hold."""
    court, stop = engine(), threading.Event()
    other = amended("forbid-stale-evidence", "forbid-old-evidence")
    sites = court.fleet
    sites.close("par", "test")
    seen: set[str] = set()
    failed: list[BaseException] = []

    def asking() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                decision = court.decide(ask(activity="search", principal=Principal(f"p{number % 7}", "shop")))
                assert isinstance(decision, Refusal)
                seen.update(decision.policies)
            except BaseException as error:  # whatever it is, the test must say so
                failed.append(error)
                return

    threads = [threading.Thread(target=asking) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(20):
        court.swap(other if number % 2 else policy(), zones())
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert seen <= {"forbid-stale-evidence", "forbid-old-evidence"}


def test_a_clock_set_back_is_a_fault_with_its_cause() -> None:
    clock = Clock()
    court = engine(clock=clock)
    court.not_before(NOON)
    clock.pass_(minutes=-4)
    assert isinstance(court.decide(ask()), Permit)
    clock.pass_(minutes=-2)
    with pytest.raises(PolicyError, match="6 minutes behind") as caught:
        court.decide(ask())
    assert "set the clock right" in caught.value.hint
    with pytest.raises(PolicyError):
        _ = court.zones
    clock.pass_(minutes=2)
    assert isinstance(court.decide(ask()), Permit)


def test_an_older_checkpoint_takes_nothing_back() -> None:
    clock = Clock()
    court = engine(clock=clock)
    court.not_before(NOON)
    court.not_before(NOON - timedelta(days=3))
    clock.pass_(hours=-1)
    with pytest.raises(PolicyError):
        court.decide(ask())


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_refusal_names_clause_law_failed_condition_other_zones_and_a_remedy() -> None:
    refusal = engine().decide(ask(Action.EMBED, "iad"))
    assert isinstance(refusal, Refusal)
    assert refusal.policies == ("forbid-outside-tenant-ceiling", "forbid-plaintext-outside-eea")
    assert refusal.clauses[1].explain == "personal data may be in the clear only inside the EEA"
    assert refusal.clauses[1].law.startswith("GDPR 44")
    assert refusal.why_not == {"permit-in-residency": "resource in context.tag.residency"}
    assert refusal.permitted == ("DE", "DE-BY", "FR")
    assert refusal.remedy == "Use a Site in DE, DE-BY or FR: the same Ask is permitted there."


def test_zones_offered_instead_hold_for_every_tag_of_the_ask() -> None:
    refusal = engine().decide(ask(Action.SEARCH, "iad", tag(), tag("FR")))
    assert isinstance(refusal, Refusal)
    assert refusal.permitted == ("FR",)


@pytest.mark.parametrize(
    ("question", "says"),
    [
        (ask(tenant="bank"), "credential of the tenant"),
        (ask(activity="profiling"), "registered one (search)"),
        (ask(Action.TRANSFER, "zrh"), "Record a transfer basis"),
        (ask(Action.TRANSFER, "zrh", basis=Basis("45", "x", NOON)), "Renew the transfer basis"),
        (ask(Action.TRANSFER, "iad", basis=Basis("45", "x", NOON)), "Renew the transfer basis"),
        (ask(Action.SEARCH, "par", tag(residency=[])), "no Zone in common"),
        (ask(Action.SEARCH, "par", tag("NO")), "Add a Site in NO"),
        (ask(Action.SEARCH, "par", tag("FR", jurisdictions=["DE"], categories=["health"])), "meets every rule"),
    ],
)
def test_the_remedy_is_the_nearest_change_that_helps(question, says: str) -> None:
    refusal = engine().decide(question)
    assert isinstance(refusal, Refusal)
    assert says in refusal.remedy


def test_a_closed_site_is_to_be_probed_and_the_cause_is_named() -> None:
    sites = fleet()
    sites.close("par", "its certificate has expired")
    refusal = engine(over=sites).decide(ask(Action.SEARCH, "par", tag("FR")))
    assert isinstance(refusal, Refusal)
    assert refusal.remedy == "Probe par again: its certificate has expired."


def test_a_refusal_has_no_route() -> None:
    assert not hasattr(engine().decide(ask(site="iad")), "route")


# --- every Site of a kind ---------------------------------------------------------------------------------------------


def test_sites_in_the_datas_own_jurisdiction_come_first_then_by_id() -> None:
    permits, refusals = engine().permitted(SHOP, Action.SEARCH, [tag(jurisdictions=["DE"])], "shard")
    assert [permit.ask.site for permit in permits] == ["ber-stale", "fra", "fra-rented", "muc", "par"]
    assert [refusal.ask.site for refusal in refusals] == ["iad", "iad-dpf", "zrh"]


def test_only_sites_that_hold_the_kind_are_asked() -> None:
    permits, refusals = engine().permitted(SHOP, Action.OPEN, [tag()], "keys")
    assert {decision.ask.site for decision in (*permits, *refusals)} == {"par", "fra"}


def test_digests_name_rules_zones_and_fleet() -> None:
    court = engine()
    assert court.digests() == {
        "policy": policy().digest,
        "zones": zones().digest,
        "fleet": fleet().digest,
    }


def test_an_annulled_decision_refuses_what_it_carried() -> None:
    without: Zones = zones().without("US-DPF")
    court = Engine(without, policy(), fleet(), clock=Clock())
    court.admit("shop", frozenset({"GDPR-ADEQUATE"}))
    assert isinstance(court.decide(ask(Action.TRANSFER, "iad-dpf", basis=BASIS)), Refusal)
    assert isinstance(engine().decide(ask(Action.TRANSFER, "iad-dpf", basis=BASIS)), Permit)
