"""Claims are checked before a byte of the body is read, and never quoted."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.claims import Claim, check_groups, check_name, suffix_of
from ingestion.errors import TagError, UploadError
from residency.errors import ZoneError
from residency.zones import Zones

ZONES = Zones.load(Path(__file__).parents[3] / "policies" / "zones.toml", on=datetime(2026, 11, 23, tzinfo=UTC))
DE = frozenset({"DE"})


@pytest.mark.parametrize(
    "name",
    ["", "   ", "a" * 256, "a\x00b", "a\nb", "../x", "a/b", "a\\b", "..", ".", "evil\u202etxt.exe", "line\u2028sep"],
)
def test_a_name_that_could_mislead_is_refused_without_being_quoted(name: str) -> None:
    with pytest.raises(UploadError) as caught:
        check_name(name)
    assert caught.value.hint
    assert len(name) < 4 or name not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    "name", ["Mietvertrag Müller.pdf", "報告書.docx", "a..b", ".hidden", "x" * 255, "Ωmega (2).md"]
)
def test_an_ordinary_name_in_any_language_is_taken(name: str) -> None:
    check_name(name)


@given(st.text())
def test_no_name_that_passes_can_be_a_path(name: str) -> None:
    try:
        check_name(name)
    except UploadError:
        return
    assert "/" not in name and "\\" not in name and name not in (".", "..")
    assert not any(ord(character) < 32 for character in name)


def test_a_claim_without_jurisdiction_makes_no_tag() -> None:
    with pytest.raises(TagError):
        Claim("a.txt", frozenset()).tag(ZONES)


def test_an_unknown_zone_is_named_with_a_hint() -> None:
    with pytest.raises(ZoneError):
        Claim("a.txt", frozenset({"XQ"})).tag(ZONES)


def test_without_a_residency_a_document_stays_in_its_own_bloc() -> None:
    assert Claim("a.txt", DE).tag(ZONES).residency == {"EU"}
    assert Claim("a.txt", frozenset({"CH"})).tag(ZONES).residency == {"CH"}


def test_jurisdictions_that_no_zone_suits_need_a_word_from_the_sender() -> None:
    with pytest.raises(TagError):
        Claim("a.txt", frozenset({"DE", "CH"})).tag(ZONES)


@pytest.mark.parametrize(
    "claim",
    [
        Claim("a", DE, residency=frozenset()),
        Claim("a", DE, classification=5),
        Claim("a", DE, classification=-1),
        Claim("a", DE, categories=frozenset({"Health Data"})),
    ],
)
def test_a_claim_out_of_range_makes_no_tag(claim: Claim) -> None:
    with pytest.raises(TagError):
        claim.tag(ZONES)


def test_another_group_or_another_tag_is_another_claim() -> None:
    claim = Claim("a", DE)
    tag = claim.tag(ZONES)
    secret = Claim("a", DE, classification=2)
    digests = {
        claim.digest(tag),
        Claim("b", DE).digest(tag),  # the name is compared by itself
        Claim("a", DE, groups=frozenset({"board"})).digest(tag),
        secret.digest(secret.tag(ZONES)),
    }
    assert len(digests) == 3


def test_groups_are_slugs() -> None:
    check_groups(frozenset({"works-council", "hr"}))
    with pytest.raises(UploadError):
        check_groups(frozenset({"Works Council"}))


@pytest.mark.parametrize(
    ("name", "suffix"), [("a.PDF", ".pdf"), (".bashrc", ""), ("a", ""), ("a.b.md", ".md"), ("a.verylongending", "")]
)
def test_the_end_of_a_name_tells_its_kind(name: str, suffix: str) -> None:
    assert suffix_of(name) == suffix
