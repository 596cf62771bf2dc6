from hypothesis import given
from hypothesis import strategies as st

from residency.tag import Tag, joined
from tests.doubles.rules import zones

codes = st.frozensets(
    st.sampled_from(["DE", "DE-BY", "FR", "EU", "EEA", "GDPR-ADEQUATE", "CH", "US", "US-DPF"]), max_size=4
)
tags = st.builds(
    Tag,
    codes,
    codes,
    st.booleans(),
    st.frozensets(st.sampled_from(["health", "finance", "union"]), max_size=2),
    st.integers(0, 4),
)
places = st.sampled_from(sorted(zones().codes))


def allows(tag: Tag, place: str) -> bool:
    return any(zones().within(place, code) for code in tag.residency)


@given(tags, tags, places)
def test_a_meet_never_widens_where_data_may_be_processed(left: Tag, right: Tag, place: str) -> None:
    assert allows(left.meet(right, zones()), place) == (allows(left, place) and allows(right, place))


@given(tags, tags)
def test_a_meet_keeps_every_bond_of_both(left: Tag, right: Tag) -> None:
    met = left.meet(right, zones())
    assert met.jurisdictions == left.jurisdictions | right.jurisdictions
    assert met.categories == left.categories | right.categories
    assert met.personal == (left.personal or right.personal)
    assert met.classification == max(left.classification, right.classification)


@given(tags, tags, tags)
def test_the_order_of_meeting_does_not_matter(a: Tag, b: Tag, c: Tag) -> None:
    assert a.meet(b, zones()) == b.meet(a, zones())
    assert a.meet(b, zones()).meet(c, zones()) == a.meet(b.meet(c, zones()), zones())


@given(tags)
def test_facts_read_back_as_the_same_tag_with_the_same_digest(tag: Tag) -> None:
    assert Tag.of(tag.facts()) == tag
    assert Tag.of(tag.facts()).digest == tag.digest


@given(tags, tags)
def test_two_tags_share_a_digest_only_when_they_are_equal(left: Tag, right: Tag) -> None:
    assert (left.digest == right.digest) == (left == right)


def test_countries_without_common_ground_leave_nowhere() -> None:
    met = Tag(frozenset({"DE"}), frozenset({"DE"})).meet(Tag(frozenset({"FR"}), frozenset({"FR"})), zones())
    assert met.residency == frozenset()
    assert met.origin == "DE+FR"


def test_data_is_personal_and_internal_unless_somebody_says_otherwise() -> None:
    tag = Tag(frozenset({"DE"}), frozenset({"EU"}))
    assert tag.personal
    assert tag.classification == 1


def test_codes_are_joined_in_bytewise_order() -> None:
    assert joined({"FR", "DE-BY", "DE"}) == "DE+DE-BY+FR"
