"""What a row says of a Document: how far it is, what holds it up, and what to do next."""

from dataclasses import replace

import pytest

from ingestion.documents import Document, _read_cursor, _write_cursor, names_of
from ingestion.errors import DocumentError
from ingestion.states import COMING, HINTS, LIVING, READY, State
from residency.tag import Tag

DOCUMENT = Document(
    id="0" * 32, version=1, tenant="northwind", collection="1" * 32, state=State.SEALED,
    tag=Tag(frozenset({"DE"}), frozenset({"EU"})), tag_class=1, groups=frozenset(), site="fra", jurisdiction="DE",
    cause="", media_type="", language="und", pages=0, passages=0, passages_done=0, size=10, dek_id=b"k" * 16,
    name_sealed=b"sealed", search_epoch=0, receipt="", created=1_795_559_097.888985, updated=1.0,
)  # fmt: skip


def test_progress_only_ever_grows_on_the_way_to_live() -> None:
    block_by_block = (State.SPLIT, State.EMBEDDED)
    seen = [
        replace(DOCUMENT, state=state, passages=100, passages_done=done).progress
        for state in (*COMING, State.LIVE)
        for done in ((0, 50, 100) if state in block_by_block else (0,))
    ]
    assert seen == sorted(seen) and seen[-1] == 1.0 and all(0.0 <= value <= 1.0 for value in seen)


@pytest.mark.parametrize("state", [State.FAILED, State.ERASED, State.RECEIVING])
def test_nothing_is_done_of_what_will_not_be_live(state: State) -> None:
    assert replace(DOCUMENT, state=state, passages=10, passages_done=10).progress == 0.0


@pytest.mark.parametrize("cause", [*HINTS, "something_new"])
def test_every_cause_has_a_code_and_a_next_step(cause: str) -> None:
    error = replace(DOCUMENT, cause=cause).error
    assert error is not None and error["code"] == cause and len(error["hint"]) > 10


def test_a_document_without_a_cause_has_no_error() -> None:
    assert DOCUMENT.error is None


def test_every_outcome_code_of_the_sandbox_has_its_hint() -> None:
    from ingestion.readers import REASONS

    assert HINTS.keys() >= REASONS


def test_a_cursor_leads_back_to_where_it_was_written() -> None:
    assert _read_cursor(_write_cursor(DOCUMENT)) == (DOCUMENT.created, DOCUMENT.id)


@pytest.mark.parametrize("cursor", ["", "x", "!!!", "AAAA", "bm90IGEgY3Vyc29y"])
def test_a_cursor_that_is_not_ours_is_refused_with_a_hint(cursor: str) -> None:
    with pytest.raises(DocumentError) as caught:
        _read_cursor(cursor)
    assert caught.value.hint


def test_states_on_the_way_are_a_workers_and_stand_for_their_bytes() -> None:
    assert set(COMING) < set(READY) and set(COMING) < set(LIVING)
    assert State.RECEIVING not in READY and State.FAILED not in LIVING and State.ERASING not in LIVING


def test_vault_names_hold_ids_and_numbers_only() -> None:
    assert names_of("a" * 32, 12) == "a" * 32 + ".12."
