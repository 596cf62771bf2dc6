"""Violations from their beginning to their end, on both databases, and two books that must agree."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from residency.database import Database, metadata
from residency.errors import NoViolationError, ViolationError
from residency.ledger import Ledger
from residency.logkey import LogKey
from residency.receipt import Draft
from residency.reconciliation import compare, read
from residency.tag import Tag
from residency.violations import Violations
from service.errors import InvalidRequestError
from service.reconciling import Reconciling

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
TAG = Tag(frozenset({"DE"}), frozenset({"EU"}))
SITE = "de-frankfurt"


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    url = f"sqlite:///{tmp_path}/v.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    found = Database(url)
    metadata.create_all(found.engine)
    yield found
    found.close()


@pytest.fixture
def ledger(database):
    digests = {"policy": "sha256:aa", "zones": "sha256:bb", "fleet": "sha256:cc"}
    key = LogKey.generate()
    return Ledger(database, key, origin="l.example/1", digests=lambda: digests, software="1", clock=Clock())


@pytest.fixture
def violations(database, ledger):
    return Violations(database, ledger, clock=ledger._clock)


def recorded(ledger, tenant="northwind"):
    found = ledger.entries(tenant, START - timedelta(days=1), START + timedelta(days=9), ["admin"])
    return [(entry["subject"], entry["facts"]["state"]) for entry in found if entry["facts"]["event"] == "violation"]


def test_a_finding_is_one_record_however_often_it_is_seen(violations, ledger):
    one = violations.found("northwind", "location", "ab" * 16, policy="residency", evidence={"points": 3}, records=3)
    two = violations.found("northwind", "location", "ab" * 16, policy="residency", evidence={"points": 3})
    assert (two.id, two.state, two.begin, two.records) == (one.id, "open", one.begin, 3)
    assert two.seen > one.seen
    assert violations.found("harbour", "location", "ab" * 16, policy="residency").id != one.id
    assert violations.found("northwind", "location", "ab" * 16, policy="other").id != one.id
    assert recorded(ledger)[:1] == [(one.id, "open")]
    assert one.id in {each.id for each in violations.listing("northwind", state="open")}


def test_it_goes_from_open_over_acknowledged_and_excepted_to_resolved_and_each_step_is_recorded(violations, ledger):
    made = violations.found("northwind", "key", "de-munich", evidence={"kek": "00"})
    seen = violations.acknowledge("northwind", made.id, by="key:officer", notifiable="no")
    assert (seen.state, seen.acknowledged_by, seen.notifiable) == ("acknowledged", "key:officer", "no")
    until = START + timedelta(days=5)
    borne = violations.excepted("northwind", made.id, by="key:officer", reason="moved on Friday", expires=until)
    assert (borne.state, borne.reason, borne.expires) == ("excepted", "moved on Friday", "2026-11-28T12:00:00.000Z")
    done = violations.resolve("northwind", made.id, by="key:officer", remediation="rotated")
    assert done.state == "resolved" and done.resolved and done.remediation == "rotated"
    assert recorded(ledger) == [(made.id, state) for state in ("open", "acknowledged", "excepted", "resolved")]
    assert "moved on Friday" not in json.dumps(list(ledger.entries("northwind", START, START + timedelta(days=1))))
    with pytest.raises(ViolationError, match="resolved"):
        violations.acknowledge("northwind", made.id, by="key:officer")
    again = violations.found("northwind", "key", "de-munich")
    assert again.id != made.id and violations.get("northwind", made.id).state == "resolved"


def test_a_finding_that_is_gone_is_closed_by_the_service(violations):
    violations.found("northwind", "evidence", SITE, policy="probe")
    gone = violations.gone("northwind", "evidence", SITE, policy="probe", remediation="the probe was good again")
    assert gone is not None and (gone.state, gone.remediation) == ("resolved", "the probe was good again")
    assert violations.gone("northwind", "evidence", SITE, policy="probe", remediation="x") is None


def test_a_period_shows_what_was_unresolved_in_it(violations, ledger):
    old = violations.found("northwind", "access", "a", begin=START - timedelta(days=30))
    violations.resolve("northwind", old.id, by="x", remediation="y")
    new = violations.found("northwind", "access", "b")
    day = timedelta(days=1)
    assert [v.id for v in violations.listing("northwind", since=START - 20 * day, until=START - day)] == [old.id]
    assert [v.id for v in violations.listing("northwind", since=START + day)] == [new.id]


def test_a_foreign_and_an_unknown_violation_look_alike(violations):
    made = violations.found("northwind", "access", "a")
    errors = []
    for tenant, id_ in (("harbour", made.id), ("northwind", "nothing")):
        with pytest.raises(NoViolationError) as caught:
            violations.acknowledge(tenant, id_, by="x")
        errors.append(str(caught.value))
    assert errors[0] == errors[1]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda v, i: v.found("northwind", "gossip", "a"),
        lambda v, i: v.listing("northwind", state="lost"),
        lambda v, i: v.acknowledge("northwind", i, by="x", notifiable="perhaps"),
        lambda v, i: v.excepted("northwind", i, by="x", reason="", expires=START + timedelta(days=1)),
        lambda v, i: v.excepted("northwind", i, by="x", reason="late", expires=START - timedelta(days=1)),
    ],
)
def test_unknown_words_and_half_exceptions_are_refused(violations, wrong):
    made = violations.found("northwind", "access", "a")
    with pytest.raises(ViolationError):
        wrong(violations, made.id)
    assert violations.get("northwind", made.id).state == "open"


# --- two books ------------------------------------------------------------------------------------------------------


def line(minute, method, request="", **more):
    """One line as Qdrant's audit log writes it."""
    time = (START + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%S.774671900Z")
    found = {"timestamp": time, "method": method, "auth_type": "ApiKey", "remote": "192.0.2.7"}
    found |= {"collection": "domicile-g0001", "result": "ok", **({"tracing_id": request} if request else {})}
    return json.dumps(found | more, separators=(",", ":"))


def log(*lines):
    ends = (line(-60, "list_collections"), line(60, "telemetry_cluster"))
    return ("\n".join([ends[0], *lines, ends[1]]) + "\n").encode()


def asked(ledger, request, site=SITE, tenant="northwind"):
    step = {
        "action": "search", "site": site, "kind": "shard", "zone": "DE", "operator": {"name": "A", "zone": "DE"},
        "parent": {"name": "A", "zone": "DE"}, "grade": 1, "peer": "local", "tag": [TAG.digest.hex()], "policies": [],
        "count": 1, "bytes": 0, "request": request,
    }  # fmt: skip
    return ledger.append(Draft("search", tenant, "search", (TAG,), [step]))


@pytest.fixture
def reconciling(ledger, violations):
    return Reconciling(ledger, violations, tenants=lambda: ["harbour", "northwind"])


def test_two_books_that_agree_have_no_difference(reconciling, ledger):
    asked(ledger, "aa" * 16)
    asked(ledger, "bb" * 16, tenant="harbour")
    asked(ledger, "cc" * 16, site="fr-lyon")
    found = reconciling.reconcile(
        SITE,
        {
            "audit.log": log(
                line(0, "query_points", "aa" * 16), line(0, "count", "aa" * 16), line(1, "upsert", "bb" * 16)
            )
        },
    )
    assert (found["lines"], found["matched"], found["plain"], found["requests"]) == (5, 3, 2, 2)
    assert found["only_log"] == found["only_receipts"] == 0 and found["violations"] == []
    assert found["tenants"] == ["harbour", "northwind"]
    kept = list(ledger.entries("harbour", START, START + timedelta(days=1), ["probe"]))
    assert kept[0]["facts"]["event"] == "reconciled" and "192.0.2.7" not in json.dumps(kept)


def test_a_request_that_no_receipt_names_is_a_violation(reconciling, ledger, violations):
    asked(ledger, "aa" * 16)
    found = reconciling.reconcile(SITE, {"a": log(line(0, "query_points", "aa" * 16), line(5, "scroll", "ff" * 16))})
    assert [row["request"] for row in found["not_in_receipts"]] == ["ff" * 16]
    made = violations.get("northwind", found["violations"][0])
    assert (made.category, made.subject, made.policy) == ("access", "ff" * 16, "two-books")
    assert made.evidence["method"] == "scroll" and made.begin == "2026-11-23T12:05:00.774Z"
    again = reconciling.reconcile(SITE, {"a": log(line(0, "query_points", "aa" * 16), line(5, "scroll", "ff" * 16))})
    assert again["violations"] == found["violations"]


def test_a_receipt_whose_request_the_log_does_not_hold_is_a_violation(reconciling, ledger, violations):
    stored = asked(ledger, "aa" * 16)
    found = reconciling.reconcile(SITE, {"a": log()})
    assert found["not_in_log"] == [{"receipt": stored.id, "request": "aa" * 16}]
    made = violations.get("northwind", found["violations"][0])
    assert (made.category, made.subject, made.evidence["receipt"]) == ("service", "aa" * 16, stored.id)


@pytest.mark.parametrize("method", ["scroll", "delete_collection", "create_snapshot", "something_new"])
def test_a_line_without_an_id_is_ours_only_when_it_sees_no_points(reconciling, ledger, method):
    asked(ledger, "aa" * 16)
    found = reconciling.reconcile(SITE, {"a": log(line(0, "query_points", "aa" * 16), line(2, method))})
    assert [row["method"] for row in found["not_in_receipts"]] == [method]


def test_a_denied_probe_is_shown(reconciling, ledger):
    asked(ledger, "aa" * 16)
    denied = line(2, "list_collections", result="denied", error="Forbidden: JWT")
    found = reconciling.reconcile(SITE, {"a": log(line(0, "query_points", "aa" * 16), denied)})
    assert [row["result"] for row in found["not_in_receipts"]] == ["denied"]


def test_what_lies_at_the_ends_of_the_log_is_not_judged(ledger):
    entry = {"id": "r", "time": "2026-11-23T13:59:00.000Z", "steps": [{"site": SITE, "request": "zz"}]}
    books = compare(read(log(line(-59, "scroll", "yy"))), [entry], SITE)
    assert (books.edge, books.only_log, books.only_receipts) == (2, [], [])
    books = compare(read(log(line(-59, "scroll", "yy"))), [], SITE, edge=timedelta(0))
    assert [each.request for each in books.only_log] == ["yy"]


@pytest.mark.parametrize(
    "raw", [b"{", b"[]", b"{}", b'{"timestamp":"x","method":"a","result":"ok"}', b"\xff", b"null", b'{"timestamp":3}']
)
def test_a_line_that_cannot_be_read_is_counted(raw):
    books = compare(read(raw + b"\n" + log()), [], SITE)
    assert books.unreadable == 1


def test_a_log_without_a_readable_line_is_refused(reconciling):
    with pytest.raises(InvalidRequestError):
        reconciling.reconcile(SITE, {"a": b"not a log\n"})
