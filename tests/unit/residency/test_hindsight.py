from datetime import date
from typing import Any

import pytest

from residency.errors import ZoneError
from residency.hindsight import Law, rejudge, without_adequacy
from tests.doubles.rules import fleet, policy, tag, zones

CEILINGS = {"shop": frozenset({"GDPR-ADEQUATE"})}
BASIS = {"article": "45", "instrument": "Decision (EU) 2023/1795", "expires": "2027-01-01T00:00:00.000Z"}


def entry(
    id: str,  # noqa: A002
    *steps: tuple[str, str],
    when: str = "2026-11-03T09:00:00.000Z",
    refused: tuple[tuple[str, str], ...] = (),
    residency: str = "EU",
    basis: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Give a Receipt as the Ledger gives it back, with what hindsight reads."""
    return {
        "id": id,
        "time": when,
        "tenant": "shop",
        "activity": "search",
        "policy": "sha256:the-same",
        "zones": "sha256:the-same",
        "tags": [tag(residency).facts()],
        "steps": [{"action": a, "site": s, "zone": "?", "tag": [0], "count": 5} for a, s in steps],
        "refused": [{"action": a, "site": s, "tag": [0], "policies": [], "count": 1} for a, s in refused],
        "facts": {"basis": basis} if basis else {},
    }


def now_law() -> Law:
    return Law(policy(), zones())


def test_under_the_same_law_nothing_would_have_been_refused() -> None:
    seen = rejudge([entry("a", ("search", "par"), ("open", "par"))], fleet(), CEILINGS, now_law(), now_law())
    assert (seen.receipts, seen.steps, dict(seen.refused), seen.permitted_now) == (1, 2, {}, 0)


def test_an_annulled_decision_shows_which_transfers_would_have_been_refused() -> None:
    record = [
        entry("one", ("transfer", "iad-dpf"), basis=BASIS),
        entry("two", ("search", "par")),
        entry("three", ("transfer", "zrh"), basis=BASIS),
    ]
    would = Law(policy(), without_adequacy(zones(), "US"))
    seen = rejudge(record, fleet(), CEILINGS, now_law(), would)
    assert dict(seen.refused) == {("transfer", "iad-dpf", "US", "forbid-outside-tenant-ceiling"): 1}
    assert sum(seen.items.values()) == 5
    assert seen.examples == ["one"]


def test_a_later_day_is_judged_by_the_law_of_that_day() -> None:
    record = [entry("one", ("search", "lon"), residency="GB")]
    sites = fleet()
    london = type(sites.site("zrh"))(
        "lon", ("GB",), sites.site("zrh").operator, sites.site("zrh").parent, evidence=sites.site("zrh").evidence
    )
    over = type(sites)([*sites.sites.values(), london])
    today = rejudge(record, over, CEILINGS, now_law(), Law(policy(), zones(), on=date(2026, 12, 1)))
    later = rejudge(record, over, CEILINGS, now_law(), Law(policy(), zones(), on=date(2032, 1, 1)))
    assert not today.refused
    assert dict(later.refused) == {("search", "lon", "GB", "forbid-outside-tenant-ceiling"): 1}


def test_what_was_done_in_march_is_judged_with_the_zones_of_march() -> None:
    """Brazil was found adequate on 2026-01-26: a transfer of the day before was none to an adequate Zone."""
    sites = fleet()
    rio = type(sites.site("zrh"))("rio", ("BR",), sites.site("zrh").operator, sites.site("zrh").parent)
    over = type(sites)([*sites.sites.values(), rio])
    record = [
        entry("before", ("transfer", "rio"), when="2026-01-25T12:00:00.000Z", basis=BASIS),
        entry("after", ("transfer", "rio"), when="2026-01-26T12:00:00.000Z", basis=BASIS),
    ]
    seen = rejudge(record, over, CEILINGS, now_law(), Law(policy(), without_adequacy(zones(), "BR")))
    assert seen.examples == ["after"]


def test_other_rules_may_be_tried_on_the_record_and_refusals_turn_too() -> None:
    record = [entry("one", ("search", "par"), refused=(("search", "zrh"),))]
    wider = Law(policy().without(["forbid-plaintext-outside-eea"], zones()), zones())
    assert rejudge(record, fleet(), CEILINGS, now_law(), wider).permitted_now == 0
    strict = Law(policy().without(["permit-in-residency"], zones()), zones())
    seen = rejudge(record, fleet(), CEILINGS, now_law(), strict)
    assert dict(seen.refused) == {("search", "par", "FR", "no permit holds"): 1}
    back = rejudge([entry("x", refused=(("search", "par"),))], fleet(), CEILINGS, strict, now_law())
    assert back.permitted_now == 1


def test_a_site_that_is_gone_is_counted_as_not_judged() -> None:
    seen = rejudge([entry("one", ("search", "oslo"))], fleet(), CEILINGS, now_law(), now_law())
    assert dict(seen.unknown) == {"Site oslo": 1}


@pytest.mark.parametrize("code", ["DE", "IN", "EEA"])
def test_a_country_without_a_decision_cannot_lose_one(code: str) -> None:
    with pytest.raises(ZoneError, match="no adequacy decision"):
        without_adequacy(zones(), code)


def test_a_partial_decision_falls_with_its_country() -> None:
    less = without_adequacy(zones(), "CA")
    assert not less.within("CA-PIPEDA", "GDPR-ADEQUATE")
    assert less.within("GB", "GDPR-ADEQUATE")
