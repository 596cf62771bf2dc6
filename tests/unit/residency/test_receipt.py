"""A Receipt holds what was decided and touched, and nothing that was said."""

import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from residency import receipt
from residency.errors import LedgerError
from residency.fleet import Fleet
from residency.journal import Touch
from residency.receipt import Draft
from residency.route import Action
from residency.tag import Tag
from residency.zones import Zones

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ZONES = Zones.parse(
    b"""
[[edge]]
zones = ["DE", "FR"]
within = "EU"
from = 1993-11-01
source = "a treaty"
[[zone]]
codes = ["US"]
[[zone]]
codes = ["US-DPF"]
kind = "scheme"
""",
    on=NOW,
)
FLEET = Fleet.parse(
    """
[[site]]
id = "de-one"
zone = "DE"
operator = { name = "Example Hosting", zone = "DE" }
evidence = [{ grade = 2, claim = "place", source = "contract", date = 2026-01-01 }]
[[site]]
id = "us-one"
zones = ["US", "US-DPF"]
operator = { name = "Example Cloud", zone = "DE" }
parent = { name = "Example Holding", zone = "US" }
evidence = [{ grade = 1, claim = "place", source = "form", date = 2026-01-01 }]
""",
    ZONES,
)
TAG = Tag(frozenset({"DE"}), frozenset({"EU"}))
OTHER = Tag(frozenset({"FR"}), frozenset({"FR"}))
DIGESTS = {"policy": "sha256:aa", "zones": "sha256:bb", "fleet": "sha256:cc"}
R = b"r" * 32


def touch(action=Action.SEARCH, site="de-one", **more):
    facts = {"kind": "shard", "tags": frozenset({TAG.digest.hex()}), "policies": ("permit-in-residency",)}
    return Touch(action=action, site=site, **(facts | more))


def build(draft):
    return receipt.build(draft, seq=7, id="0190", time="t", software="1", digests=DIGESTS, r=R)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-receipt.SAFE, receipt.SAFE) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(max_codepoint=127)), inner),
    max_leaves=12,
)


@given(JSON)
def test_canonical_text_is_that_of_rfc_8785(value):
    try:
        expected = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        with pytest.raises(LedgerError):
            receipt.canonical(value)
    else:
        assert receipt.canonical(value) == expected


@pytest.mark.parametrize("value", [1.0, {"ä": 1}, 2**53, "\ud800", b"bytes", {1: 2}, {"x": {"y": [object()]}}])
def test_what_has_no_canonical_text_is_refused(value):
    with pytest.raises(LedgerError):
        receipt.canonical(value)


def test_equal_steps_are_merged_and_their_counts_summed():
    touches = [touch(count=2, bytes=10), touch(count=3, bytes=5), touch(count=1, request="x-1")]
    first, second = receipt.steps(touches, FLEET, NOW)
    assert first == {
        "action": "search", "site": "de-one", "kind": "shard", "zone": "DE",
        "operator": {"name": "Example Hosting", "zone": "DE"}, "parent": {"name": "Example Hosting", "zone": "DE"},
        "grade": 2, "peer": "local", "tag": [TAG.digest.hex()], "policies": ["permit-in-residency"],
        "count": 5, "bytes": 15, "request": "",
    }  # fmt: skip
    assert (second["count"], second["request"]) == (1, "x-1")


def test_a_step_names_schemes_of_its_site_and_the_reason_of_an_opening():
    opened, searched = receipt.steps(
        [touch(Action.OPEN, "us-one"), touch(Action.SEARCH, "us-one")], FLEET, NOW, reason="asked"
    )
    assert opened["reason"] == "asked" and opened["zones"] == ["US", "US-DPF"]
    assert opened["parent"] == {"name": "Example Holding", "zone": "US"} and opened["grade"] == 1
    assert "reason" not in searched


def test_tags_are_numbered_and_a_step_with_an_unknown_tag_is_refused():
    draft = Draft("search", "northwind", "support", (OTHER, TAG), receipt.steps([touch()], FLEET, NOW))
    made = build(draft)
    assert made["tags"] == [OTHER.facts(), TAG.facts()]
    assert made["steps"][0]["tag"] == [1]
    draft.tags = (OTHER,)
    with pytest.raises(LedgerError, match="names a Tag"):
        build(draft)


def test_refusals_are_merged_and_lose_their_prose():
    refusal = {"action": "embed", "site": "us-one", "tag": TAG.facts(), "policies": ["b", "a"],
               "reasons": [{"policy": "a", "text": "…", "law": ""}], "permitted": ["DE"], "remedy": "…"}  # fmt: skip
    silent = {
        "action": "transfer",
        "site": "us-one",
        "tag": None,
        "policies": [],
        "why_not": {"p": "context has basis"},
    }
    made = build(Draft("refusal", "northwind", "support", refused=[refusal, {**refusal, "count": 2}, silent]))
    assert made["refused"] == [
        {"action": "embed", "site": "us-one", "tag": [0], "policies": ["a", "b"], "count": 3},
        {"action": "transfer", "site": "us-one", "tag": [], "policies": [], "count": 1,
         "why_not": {"p": "context has basis"}},
    ]  # fmt: skip


def test_what_was_said_is_committed_to_and_not_recorded():
    said = {"question": b"who is ill?", "answer": b"nobody", "documents": [b"0" * 32, b"1" * 32]}
    made = build(Draft("answer", "northwind", "support", commits=said))
    assert made["commits"]["question"] == hmac.new(R, b"question\x00who is ill?", hashlib.sha256).hexdigest()
    assert made["commits"]["documents"][1] == hmac.new(R, b"documents\x00" + b"1" * 32, hashlib.sha256).hexdigest()
    assert b"ill" not in receipt.leaf(made) and b"nobody" not in receipt.leaf(made)


def test_more_than_256_documents_become_one_commitment_over_the_sorted_list():
    many = [f"{n:032x}".encode() for n in range(300)]
    one = build(Draft("answer", "northwind", "support", commits={"documents": many}))
    two = build(Draft("answer", "northwind", "support", commits={"documents": many[::-1]}))
    assert one["commits"] == two["commits"] and one["commits"]["documents"]["count"] == 300
    assert len(build(Draft("answer", "t", "a", commits={"documents": many[:256]}))["commits"]["documents"]) == 256


def test_the_fields_are_those_of_version_1():
    made = build(Draft("erase", "northwind", "support", subject="ab", facts={"backups": "2027-01-01"}))
    assert set(made) == {
        "v", "id", "kind", "time", "tenant", "seq", "activity", "software", "policy", "zones", "fleet", "tags",
        "steps", "refused", "withheld", "commits", "subject", "facts",
    }  # fmt: skip
    assert (made["v"], made["seq"], made["policy"]) == (1, 7, "sha256:aa")
    assert json.loads(receipt.leaf(made)) == made


def test_an_unknown_kind_and_a_leaf_beyond_a_u16_are_refused():
    with pytest.raises(LedgerError, match="kind"):
        build(Draft("gossip", "northwind", "support"))
    with pytest.raises(LedgerError, match="too long"):
        receipt.leaf(build(Draft("admin", "northwind", "support", facts={"x": "y" * 65_536})))


def test_ids_are_uuids_of_version_7_and_sort_in_time():
    ids = [receipt.new_id(now) for now in (1.0, 1.001, 1_700_000_000.0)]
    assert ids == sorted(ids) and len(set(ids)) == 3
    assert all(i[14] == "7" and i[19] in "89ab" and len(i) == 36 for i in ids)
    assert receipt.new_id(1.0) != receipt.new_id(1.0)


def test_instants_are_written_in_utc_with_milliseconds():
    assert receipt.stamp(datetime(2026, 11, 23, 12, 0, 0, 123_999, tzinfo=UTC)) == "2026-11-23T12:00:00.123Z"


@dataclass
class Nobody:
    """A Fleet without the Site."""

    def site(self, site_id):
        from residency.errors import SiteError

        raise SiteError("no such Site", site=site_id)


def test_a_touch_of_a_site_outside_the_fleet_is_an_error():
    from residency.errors import SiteError

    with pytest.raises(SiteError):
        receipt.steps([touch()], Nobody(), NOW)
