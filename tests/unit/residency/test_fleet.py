from datetime import UTC, date, datetime, timedelta
from threading import Thread

import pytest

from residency.errors import SiteError, ZoneError
from residency.evidence import GRADES, Evidence, best, weakest
from residency.fleet import NEVER, Fleet
from tests.doubles.rules import NOON, POLICIES, fleet, zones

SITE = """
[[site]]
id = "de-frankfurt"
zone = "DE"
operator = { name = "Beispiel Rechenzentrum GmbH", zone = "DE" }
"""


def parsed(text: str) -> Fleet:
    return Fleet.parse(text, zones())


# --- facts ------------------------------------------------------------------------------------------------------------


def test_a_site_is_its_own_parent_where_none_is_named() -> None:
    site = parsed(SITE).site("de-frankfurt")
    assert site.parent == site.operator
    assert (site.zone, site.place, site.holds) == ("DE", "", ())
    assert fleet().site("fra-rented").parent.zone == "US"


def test_a_site_gives_what_it_holds_with_its_settings() -> None:
    text = SITE + 'holds = [{ kind = "generator", url = "https://llm.example/v1", model = "m", key_file = "k" }]'
    holding = parsed(text).site("de-frankfurt").holding("generator")
    assert holding is not None
    assert (holding.scheme, dict(holding.settings)) == ("https", {"model": "m", "key_file": "k"})
    assert parsed(text).site("de-frankfurt").holding("shard") is None


def test_a_fleet_lists_the_sites_that_hold_a_kind() -> None:
    assert [site.id for site in fleet().holding("keys")] == ["par", "fra"]
    assert fleet().holding("nothing") == ()


def test_a_single_fleet_is_one_site_named_after_its_zone_that_holds_everything() -> None:
    made = Fleet.single("DE-BY", "DE", zones())
    site = made.site("de-by")
    assert list(made.sites) == ["de-by"]
    assert [(item.kind, item.url) for item in site.holds] == [
        ("shard", "edge:"),
        ("vault", "folder:"),
        ("keys", "file:"),
        ("embedder", "bundled:"),
        ("generator", "extractive:"),
    ]
    assert site.grade(NOON) == 1
    assert not made.bound("de-by")


@pytest.mark.parametrize(("zone", "operator"), [("UK", "GB"), ("DE", "Germany"), ("", "DE")])
def test_a_single_fleet_of_an_unknown_zone_is_refused(zone: str, operator: str) -> None:
    with pytest.raises((ZoneError, SiteError)):
        Fleet.single(zone, operator, zones())


def test_a_single_fleet_stands_in_a_country_and_not_in_the_union() -> None:
    with pytest.raises(SiteError, match="country"):
        Fleet.single("EU", "DE", zones())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "site"),
        ("site = []", "names no Site"),
        ("not toml", "no TOML"),
        (SITE + SITE, "twice"),
        (SITE + 'colour = "red"', "colour"),
        (SITE.replace('zone = "DE"\n', ""), "zone"),
        (SITE.replace('zone = "DE"\n', 'zone = "EU"\n'), "country"),
        (SITE.replace('zone = "DE"\n', 'zones = ["US-DPF"]\n'), "country"),
        (SITE.replace('zone = "DE"\n', 'zones = ["US", "DE"]\n'), "schemes of that country"),
        (SITE.replace('zone = "DE"\n', 'zones = ["DE", "US-DPF"]\n'), "schemes of that country"),
        (SITE + 'zone_until = { "DE" = 2027-01-01 }', "zone_until"),
        (SITE.replace("de-frankfurt", "../etc"), "slug"),
        (SITE.replace("de-frankfurt", "DE"), "slug"),
        (SITE + 'evidence = [{ grade = 7, claim = "c", source = "s", date = 2026-01-01 }]', "0 to 6"),
        (SITE + 'evidence = [{ grade = 1, claim = "c", date = 2026-01-01 }]', "source"),
        (SITE + 'holds = [{ kind = "cache", url = "edge:" }]', "kind"),
        (SITE + 'holds = [{ kind = "shard", url = "folder:" }]', "scheme"),
        (SITE + 'holds = [{ kind = "shard", url = "edge" }]', "scheme"),
        (SITE + 'holds = [{ kind = "shard", url = "http://qdrant.example" }]', "scheme"),
        (SITE + 'holds = [{ kind = "shard", url = "http://127.0.0.1.example" }]', "scheme"),
        (SITE + 'holds = [{ kind = "vault", url = "http://127.0.0.1" }]', "scheme"),
        (SITE + 'holds = [{ kind = "shard", url = "https://me:secret@q.example" }]', "credentials"),
        (SITE + 'holds = [{ kind = "shard", url = "https://q.example?key=1" }]', "credentials"),
        (SITE + 'holds = [{ kind = "shard", url = "edge:" }, { kind = "shard", url = "edge:" }]', "one kind twice"),
    ],
)
def test_a_fleet_file_that_is_not_right_is_refused_with_what_to_mend(text: str, says: str) -> None:
    with pytest.raises(SiteError, match=says) as caught:
        parsed(text)
    assert caught.value.hint
    assert "secret" not in str(caught.value) + caught.value.hint


def test_a_loopback_address_may_do_without_tls() -> None:
    assert parsed(SITE + 'holds = [{ kind = "shard", url = "http://127.0.0.1:6333" }]').holding("shard")


@pytest.mark.parametrize("where", ["zone", "operator", "parent"])
def test_a_site_that_names_an_unknown_zone_is_refused(where: str) -> None:
    text = SITE + 'parent = { name = "Example Holding", zone = "DE" }\n'
    with pytest.raises(ZoneError):
        parsed(
            {
                "zone": text.replace('zone = "DE"\n', 'zone = "UK"\n', 1),
                "operator": text.replace('GmbH", zone = "DE"', 'GmbH", zone = "UK"'),
                "parent": text.replace('Holding", zone = "DE"', 'Holding", zone = "UK"'),
            }[where]
        )


def test_an_unknown_site_raises_and_names_the_nearest_one() -> None:
    with pytest.raises(SiteError) as caught:
        fleet().site("fra-rent")
    assert "fra-rented" in caught.value.hint
    assert caught.value.site == "fra-rent"


def test_a_missing_file_is_a_site_error() -> None:
    with pytest.raises(SiteError):
        Fleet.load(POLICIES / "absent.toml", zones())


def test_the_digest_is_of_the_facts_and_neither_of_health_nor_of_their_order() -> None:
    one = SITE + SITE.replace("de-frankfurt", "de-berlin")
    two = SITE.replace("de-frankfurt", "de-berlin") + SITE
    assert parsed(one).digest == parsed(two).digest
    assert parsed(one).digest != parsed(one.replace("GmbH", "AG")).digest
    assert fleet(verified=True).digest == fleet(verified=False).digest


# --- time -------------------------------------------------------------------------------------------------------------


def test_facts_that_people_state_are_checked_for_their_form_and_change_the_digest_only_where_they_stand() -> None:
    stated = SITE + 'subprocessor_rank = 2\ncountry_of_provision = "FR"\ncertificates = [{ scheme = "C5" }]\n'
    assert parsed(stated).site("de-frankfurt").certificates[0].scheme == "C5"
    assert parsed(stated).digest != parsed(SITE).digest
    assert not {"subprocessor_rank", "certificates"} & parsed(SITE).site("de-frankfurt").facts().keys()
    for wrong in ("subprocessor_rank = 0", 'certificates = [{ scheme = "C5", until = 2027-01-01 }]'):
        with pytest.raises(SiteError):
            parsed(SITE + wrong)
    with pytest.raises(ZoneError):
        parsed(SITE + 'country_of_provision = "UK"')


def test_a_scheme_ends_after_its_last_day() -> None:
    site = fleet().site("iad-dpf")
    assert site.zones_at(datetime(2027, 6, 30, 23, 59, tzinfo=UTC)) == ("US", "US-DPF")
    assert site.zones_at(datetime(2027, 7, 1, tzinfo=UTC)) == ("US",)
    assert site.next_change(NOON) == datetime(2027, 7, 1, tzinfo=UTC)


def test_a_site_has_the_grade_of_its_best_evidence_in_force() -> None:
    old = Evidence(5, "place", "audit", date(2020, 1, 1), date(2025, 12, 31))
    now = Evidence(2, "place", "contract", date(2026, 1, 1), date(2026, 11, 23))
    coming = Evidence(6, "place", "attestation", date(2026, 11, 24))
    assert best([old, now, coming], NOON) == 2
    assert best([old, now, coming], NOON + timedelta(days=1)) == 6
    assert best([old], NOON) == 0
    assert best([], NOON) == 0


def test_a_path_is_as_good_as_its_weakest_site() -> None:
    assert weakest([3, 1, 5]) == 1
    assert weakest([]) == 0
    assert sorted(GRADES) == list(range(7))


# --- health -----------------------------------------------------------------------------------------------------------


def test_a_site_that_nobody_probed_is_closed() -> None:
    sites = fleet(verified=False)
    assert not sites.bound("par")
    assert sites.verified_until("par") == NEVER
    assert sites.cause("par") == "not probed yet"


def test_a_good_probe_opens_a_site_and_a_cause_closes_it_again() -> None:
    sites = fleet(verified=False)
    sites.verify("par", bound=True, until=NOON)
    assert (sites.bound("par"), sites.verified_until("par"), sites.cause("par")) == (True, NOON, "")
    sites.close("par", "another certificate")
    assert (sites.bound("par"), sites.verified_until("par"), sites.cause("par")) == (
        False,
        NEVER,
        "another certificate",
    )
    assert sites.site("par").zone == "FR"


def test_every_change_of_health_has_a_version_of_its_own() -> None:
    sites = fleet(verified=False)
    assert sites.version == 0

    def probe() -> None:
        for _ in range(200):
            sites.verify("par", bound=True, until=NOON)

    threads = [Thread(target=probe) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sites.version == 800


@pytest.mark.parametrize("ask", ["verify", "close", "bound", "verified_until", "cause"])
def test_the_health_of_an_unknown_site_is_an_error(ask: str) -> None:
    sites = fleet()
    arguments: dict[str, dict[str, object]] = {"verify": {"bound": True, "until": NOON}, "close": {"cause": "x"}}
    with pytest.raises(SiteError):
        getattr(sites, ask)("nowhere", **arguments.get(ask, {}))
