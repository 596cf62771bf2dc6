from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residency.errors import ZoneError
from residency.zones import Zones
from tests.doubles.rules import NOON, POLICIES, zones

EU = [
    "AT",
    "BE",
    "BG",
    "HR",
    "CY",
    "CZ",
    "DK",
    "EE",
    "FI",
    "FR",
    "DE",
    "GR",
    "HU",
    "IE",
    "IT",
    "LV",
    "LT",
    "LU",
    "MT",
    "NL",
    "PL",
    "PT",
    "RO",
    "SK",
    "SI",
    "ES",
    "SE",
]
codes = st.sampled_from(sorted(zones().codes))
some = st.frozensets(codes, max_size=4)


def table(*edges: str, more: str = "") -> Zones:
    text = "\n".join(f"[[edge]]\n{edge}\nsource = 's'" for edge in edges)
    return Zones.parse((text + more).encode(), on=NOON)


def test_all_27_states_lie_in_the_union_and_no_other_country_does() -> None:
    inside = {code for code in zones().codes if len(code) == 2 and zones().within(code, "EU")} - {"EU"}
    assert inside == {*EU, "GF", "GP", "MF", "MQ", "RE", "YT", "AX"}


def test_a_german_land_lies_in_everything_above_it() -> None:
    assert zones().ancestors("DE-BY") == {"DE", "EU", "EEA", "GDPR-ADEQUATE"}
    assert zones().within("DE-BY", "DE-BY")
    assert not zones().within("DE", "DE-BY")


@pytest.mark.parametrize("code", ["IS", "LI", "NO"])
def test_the_three_efta_states_lie_in_the_area_and_not_in_the_union(code: str) -> None:
    assert zones().within(code, "EEA")
    assert not zones().within(code, "EU")


@pytest.mark.parametrize(
    "code", ["AD", "AR", "BR", "CH", "FO", "GB", "GG", "IL", "IM", "JE", "JP", "KR", "NZ", "UY", "US-DPF", "CA-PIPEDA"]
)
def test_a_country_with_a_decision_is_adequate_and_outside_the_area(code: str) -> None:
    assert zones().within(code, "GDPR-ADEQUATE")
    assert not zones().within(code, "EEA")


@pytest.mark.parametrize("code", ["US", "CA", "NC", "PF", "PM", "WF", "BL", "GL", "SJ", "CN", "RU"])
def test_countries_without_a_whole_decision_are_known_and_not_adequate(code: str) -> None:
    assert zones().known(code)
    assert not zones().ancestors(code)


def test_the_british_decision_ends_with_its_last_day() -> None:
    assert zones().at(datetime(2031, 12, 27, 23, 59, tzinfo=UTC)).within("GB", "GDPR-ADEQUATE")
    assert not zones().at(datetime(2031, 12, 28, tzinfo=UTC)).within("GB", "GDPR-ADEQUATE")
    assert zones().next_change == datetime(2031, 12, 28, tzinfo=UTC)


def test_an_edge_does_not_hold_before_its_first_day() -> None:
    assert not zones().at(datetime(2013, 6, 30, 12, tzinfo=UTC)).within("HR", "EU")
    assert zones().at(datetime(2013, 7, 1, tzinfo=UTC)).within("HR", "EU")


def test_a_table_without_dates_to_come_never_changes() -> None:
    assert table("zone='DE'\nwithin='EU'\nfrom=1958-01-01").next_change is None


@pytest.mark.parametrize(
    ("wrong", "right"), [("UK", "GB"), ("EL", "GR"), ("uk", "GB"), ("USA", "US"), ("de-by", "DE-BY")]
)
def test_a_code_that_people_write_by_mistake_is_refused_with_the_right_one(wrong: str, right: str) -> None:
    with pytest.raises(ZoneError) as caught:
        zones().check(wrong)
    assert right in caught.value.hint


def test_an_error_never_repeats_a_long_text_that_came_as_a_code() -> None:
    with pytest.raises(ZoneError) as caught:
        zones().check("the patient lives in Kiel\n")
    assert "patient" not in str(caught.value) + caught.value.hint


def test_a_question_about_an_unknown_zone_raises_and_says_neither_yes_nor_no() -> None:
    with pytest.raises(ZoneError):
        zones().within("XX", "EU")
    with pytest.raises(ZoneError):
        zones().within("DE", "XX")


def test_a_removed_edge_leaves_the_rest() -> None:
    left = zones().without("US-DPF")
    assert not left.within("US-DPF", "GDPR-ADEQUATE")
    assert left.within("GB", "GDPR-ADEQUATE")


def test_every_edge_names_its_source_and_what_is_contested_is_marked() -> None:
    assert all(edge.source for edge in zones().edges())
    assert [edge.zone for edge in zones().edges() if edge.contested] == ["US-DPF"]


def test_the_digest_is_of_the_file_and_not_of_the_day() -> None:
    assert zones().digest == Zones.load(POLICIES / "zones.toml").digest
    assert zones().digest.startswith("sha256:")
    assert table("zone='A1'\nwithin='B1'\nfrom=2020-01-01").digest != zones().digest


@pytest.mark.parametrize(
    "edge",
    [
        "zone='DE'\nwithin='EU'",
        "zone='DE'\nfrom=2020-01-01",
        "zone='DE'\nwithin='EU'\nfrom=2020-01-01\nuntill=2021-01-01",
        "zone='DE'\nzones=['FR']\nwithin='EU'\nfrom=2020-01-01",
        "zone='DE'\nwithin='EU'\nfrom='2020-01-01'",
        "zone='DE'\nwithin='EU'\nfrom=2020-01-01T00:00:00Z",
        "zone='DE'\nwithin='EU'\nfrom=2020-01-01\nuntil='later'",
    ],
)
def test_an_edge_that_is_not_whole_is_refused(edge: str) -> None:
    with pytest.raises(ZoneError):
        table(edge)


def test_a_circle_is_refused_also_when_its_edges_never_hold_together() -> None:
    with pytest.raises(ZoneError, match="within itself"):
        table(
            "zone='A1'\nwithin='B1'\nfrom=2020-01-01\nuntil=2020-12-31",
            "zone='B1'\nwithin='C1'\nfrom=2022-01-01",
            "zone='C1'\nwithin='A1'\nfrom=2024-01-01",
        )


@pytest.mark.parametrize("raw", [b"", b"not toml", b"\xff\xfe", b"[[zone]]\ncodes=['US']\nkind='planet'"])
def test_bytes_that_are_no_table_are_refused(raw: bytes) -> None:
    with pytest.raises(ZoneError):
        Zones.parse(raw)


def test_a_missing_file_is_a_zone_error() -> None:
    with pytest.raises(ZoneError):
        Zones.load(POLICIES / "absent.toml")


@given(codes, codes, codes)
def test_lying_within_is_transitive(a: str, b: str, c: str) -> None:
    if zones().within(a, b) and zones().within(b, c):
        assert zones().within(a, c)


@given(some, some)
def test_an_intersection_lies_inside_both_sides_and_the_order_does_not_matter(
    left: frozenset, right: frozenset
) -> None:
    common = zones().intersect(left, right)
    assert common == zones().intersect(right, left)
    for code in common:
        assert any(zones().within(code, outer) for outer in left)
        assert any(zones().within(code, outer) for outer in right)


@given(some, some, codes)
def test_what_lies_inside_both_sides_lies_in_the_intersection(left: frozenset, right: frozenset, code: str) -> None:
    both = all(any(zones().within(code, outer) for outer in side) for side in (left, right))
    assert both == any(zones().within(code, outer) for outer in zones().intersect(left, right))
