import pytest

from residency.errors import PolicyError
from residency.policy import PolicySet
from residency.rulebook import MOST_BYTES, Rulebook
from tests.doubles.rules import POLICIES, policy, zones


def book(**files: str) -> Rulebook:
    """Give the shipped folder with some files replaced; `sets__health_cedar` stands for `sets/health.cedar`."""
    named = {name.replace("__", "/").replace("_", "."): text.encode() for name, text in files.items()}
    return Rulebook({**Rulebook.read(POLICIES).files, **named})


def test_the_shipped_folder_uses_no_set_and_offers_seven() -> None:
    shipped = Rulebook.read(POLICIES)
    assert shipped.used == ()
    assert shipped.offered == (
        "adequacy", "banking", "eu-only", "health", "home-country", "public-sector", "sovereign",
    )  # fmt: skip
    assert PolicySet(shipped.rules(), zones()).digest == policy().digest


def test_a_set_in_use_is_in_force_and_an_offered_one_is_not() -> None:
    chosen = PolicySet(book(sets_toml='use = ["eu-only", "sovereign"]').rules(), zones())
    assert "forbid-outside-eu" in chosen.clauses
    assert "forbid-parent-outside-eea" in chosen.clauses
    assert "forbid-outside-adequate" not in chosen.clauses
    assert str(chosen.places["forbid-outside-eu"]) == "eu-only.cedar:3"


def test_a_set_that_is_copied_is_the_same_as_one_in_use() -> None:
    used = book(sets_toml='use = ["eu-only"]')
    copied = Rulebook({**used.files, "sets.toml": b"use = []", "eu-only.cedar": used.files["sets/eu-only.cedar"]})
    both = Rulebook({**copied.files, "sets.toml": b'use = ["eu-only"]'})
    digests = {PolicySet(each.rules(), zones()).digest for each in (used, copied, both)}
    assert len(digests) == 1
    assert len({used.digest, copied.digest, both.digest}) == 3


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("use = [", "no TOML", "use ="),
        ('use = "eu-only"', "one line", "use ="),
        ("use = [1]", "one line", "use ="),
        ("used = []", "one line", "use ="),
        ('use = ["eu-onyl"]', "no set of the folder", "did you mean eu-only"),
        ('use = ["../residency"]', "no set of the folder", "there are: adequacy"),
    ],
)
def test_a_list_of_sets_that_cannot_be_right_is_refused(text: str, says: str, hint: str) -> None:
    with pytest.raises(PolicyError, match=says) as caught:
        book(sets_toml=text).rules()
    assert hint in caught.value.hint


def test_an_own_file_that_hides_a_set_is_refused() -> None:
    with pytest.raises(PolicyError, match="differ"):
        Rulebook({**book(sets_toml='use = ["eu-only"]').files, "eu-only.cedar": b"// mine"}).rules()


@pytest.mark.parametrize("name", ["../evil.cedar", "/etc/passwd", "sets/../x.cedar", "a/b/c.cedar", "x.py", "cases/x"])
def test_a_file_that_is_none_of_a_policies_folder_is_refused(name: str) -> None:
    with pytest.raises(PolicyError):
        Rulebook({name: b""})


def test_a_folder_too_large_is_refused() -> None:
    with pytest.raises(PolicyError, match="4 MiB"):
        Rulebook({"own.cedar": b" " * (MOST_BYTES + 1)})


def test_an_empty_or_absent_folder_says_what_a_policies_folder_is(tmp_path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(PolicyError, match="holds no rules") as caught:
            Rulebook.read(folder)
        assert "schema.cedarschema" in caught.value.hint


def test_it_packs_and_writes_whole_and_reads_back(tmp_path) -> None:
    shipped = Rulebook.read(POLICIES)
    shipped.write(tmp_path / "set")
    assert Rulebook.read(tmp_path / "set") == Rulebook.unpacked(shipped.packed()) == shipped
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"own.cedar": 3}', '{"own.cedar": "!"}', '{"../x.cedar": ""}'])
def test_a_damaged_pack_is_refused(text: str) -> None:
    with pytest.raises(PolicyError):
        Rulebook.unpacked(text)


def test_a_folder_without_a_table_of_zones_is_refused_when_it_is_asked_for_one() -> None:
    files = {name: raw for name, raw in Rulebook.read(POLICIES).files.items() if name != "zones.toml"}
    with pytest.raises(PolicyError, match=r"zones\.toml is missing"):
        Rulebook(files).zones()
