"""Problems: one body for two readers; every code has one status; nothing of an unforeseen error gets out."""

from collections.abc import Iterator

import pytest

import ingestion.errors
import residency.errors
import service.errors
from ingestion.errors import NotFoundError, ReaderError, TooLargeError
from residency.decision import Ask, Clause, Principal, Refusal
from residency.errors import DomicileError, SealedError, SiteError
from residency.route import Action
from residency.tag import Tag
from service.errors import InvalidRequestError, LimitError, ScopeError
from service.problems import STATUS, of_error, of_refusal, problem

INSIDE = {
    "route_invalid",
    "sealed_damaged",
    "backup_refused",
    "model_refused",
    "lease_lost",
    "erasure_incomplete",
    "settings_invalid",
    "home_unavailable",
}
"""Codes that no caller can do anything about: they leave as `internal`, without a message."""


def tree(root: type[DomicileError]) -> Iterator[type[DomicileError]]:
    yield root
    for each in root.__subclasses__():
        if each.__module__ in {"residency.errors", "ingestion.errors", "service.errors"}:
            yield from tree(each)


def codes() -> set[str]:
    assert {each.__name__ for each in (residency.errors, ingestion.errors, service.errors)}
    return {each.code for each in tree(DomicileError)}


def test_every_code_of_the_error_trees_has_a_status_or_stays_inside() -> None:
    assert codes() - set(STATUS) == INSIDE


def test_a_planted_code_without_a_status_is_seen() -> None:
    planted = type("PlantedError", (DomicileError,), {"code": "planted", "__module__": "residency.errors"})
    try:
        assert "planted" in codes() - set(STATUS)
    finally:
        planted.code = "internal"  # type: ignore[attr-defined]


@pytest.mark.parametrize("code", STATUS)
def test_one_body_serves_both_readers(code: str) -> None:
    made = problem(code, "It went wrong.", hint="try again", instance="/v1/x", request_id="req_1")
    body = made.body
    assert made.status == body["status"] == STATUS[code][0]
    assert body["type"] == f"urn:domicile:problem:{code.replace('_', '-')}"
    assert (body["title"], body["detail"], body["instance"]) == (STATUS[code][1], "It went wrong.", "/v1/x")
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] == "It went wrong. Try again."


def test_headers_tell_a_client_whether_to_come_again() -> None:
    assert problem("unauthenticated", "x").headers == {"WWW-Authenticate": "Bearer"}
    for code in ("residency_refused", "scope_missing", "state_conflict"):
        assert problem(code, "x").headers == {"x-should-retry": "false"}
    for code in ("rate_limited", "site_unavailable", "ledger_unavailable", "storage_full"):
        assert int(problem(code, "x").headers["Retry-After"]) >= 1
    assert problem("rate_limited", "x", retry_after=12.4).headers["Retry-After"] == "13"  # never too early
    assert problem("not_found", "x").headers == {}


def test_a_hint_that_is_a_whole_sentence_gets_no_second_full_stop() -> None:
    assert problem("not_found", "Gone.", hint="look again.").body["error"]["message"] == "Gone. Look again."


@pytest.mark.parametrize(
    ("error", "status", "member", "value"),
    [
        (InvalidRequestError("bad", param="top_k", hint="try 5"), 400, "param", "top_k"),
        (TooLargeError("large", limit_bytes=10), 413, "limit_bytes", 10),
        (ReaderError("unreadable", reason="bomb"), 422, "reason", "bomb"),
        (ScopeError("no", scope="ask"), 403, "scope", "ask"),
        (SiteError("down", site="par"), 503, "site", "par"),
        (LimitError("slow down", retry_after=3), 429, "retry_after", 3),
        (NotFoundError("there is no such document", hint="list them"), 404, "hint", "list them"),
    ],
)
def test_an_error_carries_what_its_reader_needs(error: DomicileError, status: int, member: str, value: object) -> None:
    made = of_error(error)
    assert made.status == status
    assert made.body[member] == value


def test_a_message_becomes_a_sentence() -> None:
    assert of_error(NotFoundError("there is no such document")).body["detail"] == "There is no such document."


def test_an_error_that_callers_cannot_mend_leaves_without_its_message() -> None:
    made = of_error(SealedError("frame 7 of artefact abc does not open", hint="restore it"))
    assert (made.status, made.body["code"]) == (500, "internal")
    assert "frame" not in str(made.body)
    assert "restore" not in str(made.body)


def refusal(**facts: object) -> Refusal:
    asker = Principal("app", "acme")
    return Refusal(Ask(asker, Action.EMBED, "iad", (Tag(frozenset({"DE"}), frozenset({"EU"})),)), **facts)  # type: ignore[arg-type]


def test_a_refusal_names_clause_law_places_and_remedy() -> None:
    clause = Clause("stay-in-eu", "this data stays in the EU", "GDPR 44")
    made = of_refusal(refusal(clauses=(clause,), permitted=("DE",), remedy="ask at de-1"), receipt="r1")
    body = made.body
    assert made.status == 403
    assert body["reasons"] == [{"policy": "stay-in-eu", "text": "this data stays in the EU", "law": "GDPR 44"}]
    assert (body["permitted"], body["remedy"], body["receipt"]) == (["DE"], "ask at de-1", "r1")
    assert "refuses embed at site iad: this data stays in the EU." in body["detail"]
    assert body["error"]["receipt"] == "r1"
    assert body["error"]["message"].endswith("Ask at de-1.")


def test_a_refusal_by_default_names_the_condition_that_failed() -> None:
    made = of_refusal(refusal(why_not={"permit-in-residency": "resource in context.tag.residency"}))
    assert "permit-in-residency needs: resource in context.tag.residency" in made.body["detail"]
    assert "no permit applies" in of_refusal(refusal()).body["detail"]
