"""The command line as people run it: every verb, on one home; a few in a process of their own."""

import contextlib
import io
import json
import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from residency.egress import watching
from residency.outlets.models import BUNDLED_DIGEST
from service.cli import VERBS, main
from service.errors import HomeError
from service.home import origin_of
from service.homelock import locked
from service.settings import Settings, load
from tests.doubles.homes import ROOT

SWIFT = "The swift nests under the eaves of the town hall. It comes back on the first of May.\n"
MARTEN = "The marten sleeps in the hay loft until the first snow falls.\n"


@dataclass(frozen=True)
class Done:
    """What a run left behind."""

    stdout: str
    stderr: str


def run(*words: str, home: Path | None = None, code: int = 0) -> Done:
    """Run `domicile` with these words in this process and hold its exit code; people never see a trace."""
    out, err, ended = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True), io.StringIO(), 0
    given = {"DOMICILE_MODELS__THREADS": "1", "COLUMNS": "200"} | ({"DOMICILE_HOME": str(home)} if home else {})
    with (
        mock.patch.dict(os.environ, given),
        mock.patch.object(sys, "argv", ["domicile", *words]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            ended = int(end.code or 0)
        finally:
            if (tripwire := watching()) is not None:
                tripwire.uninstall()
    done = Done(out.buffer.getvalue().decode(), err.getvalue())
    assert ended == code, f"{words}: {ended}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def told(*words: str, home: Path, code: int = 0) -> Any:
    """Run with `--json` and read what it printed."""
    return json.loads(run(*words, "--json", home=home, code=code).stdout)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, onnx_model: Path) -> Path:
    """Set a home up by `domicile init`, with two documents taken in; one Site, in Germany."""
    folder = tmp_path_factory.mktemp("cli") / "home"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / onnx_model.parent.name[:16]).symlink_to(onnx_model.parent, target_is_directory=True)
    done = run("init", "--zone", "DE", home=folder)
    assert "zone DE, operator established in DE, tenant default" in done.stderr
    papers = folder.parent / "papers"
    (papers / ".hidden").mkdir(parents=True)
    (papers / "swift.txt").write_text(SWIFT, encoding="utf-8")
    (papers / "marten.md").write_text(MARTEN, encoding="utf-8")
    (papers / ".secret.txt").write_text("hidden", encoding="utf-8")
    taken = told("ingest", str(papers), "--jurisdiction", "DE", home=folder)
    assert {row["name"]: row["state"] for row in taken["documents"]} == {"swift.txt": "live", "marten.md": "live"}
    return folder


def rows(home: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in told("documents", home=home)["documents"]}


# --- help ---


def test_help_lists_every_verb_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, io, contextlib; sys.argv = ['domicile', '--help']\n"
        "from service.cli import main\n"
        "out = io.StringIO()\n"
        "with contextlib.redirect_stdout(out):\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'onnxruntime', 'sqlalchemy', 'litestar', 'cedarpy', 'numpy', 'qdrant_edge', 'uvicorn'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "print(out.getvalue())\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    loaded, _, text = done.stdout.partition("\n")
    assert loaded == "[]"
    assert all(f" {verb} " in text for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_explains_itself(verb: str) -> None:
    assert "Usage" in run(verb, "--help").stdout


def test_the_command_itself_ends_with_the_code_of_its_verb(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from service.cli import main; main()", "doctor", "--home", str(tmp_path / "none")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1
    assert "domicile init" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_verb_that_is_none_is_a_usage_error() -> None:
    assert "No such command" in run("fly", code=2).stderr


def test_the_version_is_told() -> None:
    assert run("--version").stdout.strip().count(".") == 2


# --- setting up ---


def test_setting_up_again_changes_nothing(home: Path) -> None:
    before = (home / "domicile.toml").read_bytes(), (home / "keys" / "service.key").read_bytes()
    assert "Already there" in run("init", "--zone", "FR", home=home).stderr
    assert ((home / "domicile.toml").read_bytes(), (home / "keys" / "service.key").read_bytes()) == before
    assert len(rows(home)) >= 2


def test_a_zone_that_is_none_makes_no_home(tmp_path: Path) -> None:
    done = run("init", "--zone", "GERMANY", home=tmp_path / "new", code=1)
    assert done.stderr.startswith("Error:")
    assert "Next:" in done.stderr
    assert not (tmp_path / "new").exists()


def test_without_a_home_the_next_step_is_named(tmp_path: Path) -> None:
    for words in (["documents"], ["ask", "why?"], ["accounts", "list"], ["keys", "list"]):
        done = run(*words, home=tmp_path / "none", code=1)
        assert "domicile init" in done.stderr


def test_a_setting_that_is_none_stops_with_the_nearest(home: Path, tmp_path: Path) -> None:
    (tmp_path / "domicile.toml").write_text("[server]\nprot = 1\n", encoding="utf-8")
    done = run("documents", home=tmp_path, code=1)
    assert "did you mean `port`?" in done.stderr


# --- documents ---


def test_documents_are_listed_with_state_and_place(home: Path) -> None:
    found = rows(home)["swift.txt"]
    assert (found["state"], found["zone"], found["passages"], found["error"]) == ("live", "DE", 1, None)
    assert "swift.txt" in run("documents", home=home).stderr


def test_the_same_file_again_changes_nothing(home: Path) -> None:
    before = rows(home)["swift.txt"]
    (row,) = told("ingest", str(home.parent / "papers" / "swift.txt"), "--jurisdiction", "DE", home=home)["documents"]
    assert (row["id"], row["version"], row["created"]) == (before["id"], before["version"], False)


def test_a_file_that_cannot_be_read_and_one_that_can_end_with_partly(home: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7\n" + b"nothing\n" * 30)
    (tmp_path / "empty.txt").write_bytes(b"")
    words = ("ingest", str(tmp_path), "--jurisdiction", "DE", "--collection", "odd")
    found = {row["name"]: row for row in told(*words, home=home, code=4)["documents"]}
    assert (found["broken.pdf"]["state"], found["broken.pdf"]["error"]["code"]) == ("failed", "broken_file")
    assert (found["empty.txt"]["state"], found["empty.txt"]["error"]["code"]) == ("invalid", "empty_file")


def test_a_residency_that_no_site_fits_is_refused_with_exit_code_3(home: Path, tmp_path: Path) -> None:
    (tmp_path / "abroad.txt").write_text("The ibex.\n", encoding="utf-8")
    words = ("ingest", str(tmp_path / "abroad.txt"), "--jurisdiction", "DE", "--residency", "FR")
    (row,) = told(*words, home=home, code=3)["documents"]
    assert row["state"] == "refused"
    assert row["refusal"]["remedy"]
    assert row["receipt"]
    assert "abroad.txt" not in rows(home)
    assert "refused" in run(*words, home=home, code=3).stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [(["ingest", "nowhere.txt", "--jurisdiction", "DE"], 2), (["ingest", "."], 2), (["search"], 2), (["verify"], 2)],
)
def test_words_that_are_missing_or_wrong_are_usage_errors(home: Path, words: list[str], code: int) -> None:
    assert "Error" in run(*words, home=home, code=code).stderr


def test_a_tenant_that_is_none_is_named_with_how_to_make_it(home: Path) -> None:
    done = run("documents", "--tenant", "nobody", home=home, code=1)
    assert "domicile accounts tenant nobody" in done.stderr


# --- asking ---


def test_a_search_prints_passages_or_json(home: Path) -> None:
    found = told("search", "Where does the swift nest?", "--top-k", "1", home=home)
    assert set(found) == {"results", "withheld", "receipt", "unreached", "ignored", "damaged"}
    assert found["results"][0]["text"] in SWIFT
    done = run("search", "Where does the swift nest?", home=home)
    assert done.stdout.startswith("1. swift.txt, p. 1")
    assert "receipt" in done.stderr


def test_a_question_prints_its_answer_with_sources_or_json(home: Path) -> None:
    found = told("ask", "When does the swift come back?", home=home)
    assert not found["abstained"]
    (first, *_) = found["citations"]
    assert SWIFT[first["start"] : first["end"]] == first["quote"]
    done = run("ask", "When does the swift come back?", home=home)
    assert "first of May" in done.stdout
    assert "[1] swift.txt, p. 1" in done.stdout


def test_a_second_process_on_the_home_gets_a_clear_message(home: Path) -> None:
    with locked(home):
        done = run("ask", "When does the swift come back?", home=home, code=1)
        assert "this home is in use by `domicile" in done.stderr
        assert f"process {os.getpid()}" in done.stderr
        assert "Next:" in done.stderr
        assert "lock" not in done.stderr.lower().replace("unlock", "")
        assert len(rows(home)) >= 2  # looking at what is there needs no lock


# --- serving ---


def serve(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `domicile serve` in a process of its own, for what ends it before it serves."""
    command = [sys.executable, "-c", "from service.cli import main; main()", "serve", "--home", str(home), *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DOMICILE_MODELS__THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=120)


def test_a_second_server_on_the_home_gets_two_lines_and_no_trace(home: Path) -> None:
    with locked(home):
        done = serve(home, "--port", "1")
    assert done.returncode == 1
    cause, step = done.stderr.splitlines()
    assert cause.startswith("Error: this home is in use by `domicile")
    assert step.startswith("  Next: ")


@pytest.mark.enable_socket
def test_a_port_that_is_taken_is_named_with_a_next_step(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve(home, "--port", str(port))
    assert done.returncode == 1
    assert f"Error: nothing could be served at 127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Sign in" not in done.stderr


def test_a_port_of_the_day_leaves_the_ledger_its_name(home: Path) -> None:
    seen: list[Settings] = []

    def ended(settings: Settings, **_: Any) -> None:
        seen.append(settings)
        raise HomeError("seen enough")

    with mock.patch("service.app.create_app", ended):
        run("serve", "--port", "9123", home=home, code=1)
    assert seen[0].public_url == "http://127.0.0.1:9123"
    assert origin_of(seen[0]) == origin_of(load(home)) == "127.0.0.1:8000/ledger/1"


# --- erasing ---


def test_an_erasure_prints_its_certificate(home: Path, tmp_path: Path) -> None:
    (tmp_path / "brief.txt").write_text("The stoat changes its coat.\n", encoding="utf-8")
    (row,) = told("ingest", str(tmp_path / "brief.txt"), "--jurisdiction", "DE", home=home)["documents"]
    certificate = told("erase", row["id"], home=home)
    assert (certificate["document"], certificate["state"]) == (row["id"], "complete")
    assert {each["store"] for each in certificate["stores"]} >= {"keys", "database"}
    assert "brief.txt" not in rows(home)
    assert "no such document" in run("erase", "0" * 32, home=home, code=1).stderr


# --- evidence ---


@pytest.mark.parametrize("form", ["json", "html", "pdf", "csv", "xlsx"])
def test_a_report_is_written_in_its_format(home: Path, tmp_path: Path, form: str) -> None:
    out = tmp_path / f"report.{form}"
    done = run("report", "residency", "--format", form, "--out", str(out), home=home)
    assert str(out) in done.stderr
    assert out.stat().st_size > 200


def test_a_receipt_and_a_report_verify_offline_and_a_changed_one_does_not(home: Path, tmp_path: Path) -> None:
    answer = told("ask", "When does the swift come back?", home=home)
    saved, report = tmp_path / "receipt.json", tmp_path / "report.json"
    run("receipt", answer["receipt"], "--out", str(saved), home=home)
    run("report", "residency", "--format", "json", "--out", str(report), home=home)
    verdict = json.loads(run("verify", str(saved), "--json", code=2).stdout)
    assert verdict["format"] == "domicile-verdict/v1"  # without a trusted key it stays open
    key = json.loads(report.read_text(encoding="utf-8"))["report"]["evidence"]["key"]
    trust = tmp_path / "trust.txt"
    trust.write_text(f"log {key}\nquorum none\n", encoding="utf-8")
    zones = str(ROOT / "policies" / "zones.toml")
    assert "FALSE" not in run("verify", str(saved), str(trust), zones).stdout
    saved.write_text(saved.read_text(encoding="utf-8").replace('"answer"', '"search"', 1), encoding="utf-8")
    assert "FALSE" in run("verify", str(saved), str(trust), code=1).stdout


def test_a_receipt_that_is_none_is_said_so(home: Path) -> None:
    assert "no such receipt" in run("receipt", "0" * 8, home=home, code=1).stderr


# --- rules ---


def test_the_rules_are_checked_with_their_cases_and_invariants(home: Path) -> None:
    found = told("policy", "check", home=home)
    assert found["digest"].startswith("sha256:")
    assert (found["failed"], found["invariants_broken"]) == ([], [])
    assert found["cases"] > 10


def test_an_ask_can_be_tried_without_any_data(home: Path) -> None:
    site = rows(home)["swift.txt"]["site"]
    words = ("policy", "try", "store", "--site", site, "--jurisdiction", "DE")
    assert told(*words, "--residency", "DE", home=home)["permitted"] is True
    refused = told(*words, "--residency", "FR", home=home, code=3)
    assert refused["refused"]["remedy"]
    assert run(*words, "--residency", "EEUU", home=home, code=1).stderr.startswith("Error:")


def test_each_clause_is_explained_with_its_law(home: Path) -> None:
    whole = told("policy", "explain", home=home)
    found = whole["clauses"]
    assert f"in force, as receipts name it: {whole['digest']}" in run("policy", "explain", home=home).stderr
    assert all(row["id"] and row["explain"] and row["law"] for row in found)


def test_two_sets_of_rules_are_compared_over_the_fleet(home: Path) -> None:
    rules = str(ROOT / "policies")
    found = told("policy", "diff", rules, rules, home=home)
    assert (found["newly_permitted"], found["newly_refused"]) == (0, 0)
    assert found["asked"] > 0


# --- keys and accounts ---


def test_sealing_keys_are_listed_rotated_and_rewrapped(home: Path) -> None:
    (before,) = [row for row in told("keys", "list", home=home)["keys"] if row["state"] == "active"]
    run("keys", "rotate", "--tenant", "default", "--jurisdiction", "DE", home=home)
    assert "0 left" in run("keys", "rewrap", "--tenant", "default", "--jurisdiction", "DE", home=home).stderr
    (after,) = [row for row in told("keys", "list", home=home)["keys"] if row["state"] == "active"]
    assert after["version"] == before["version"] + 1
    assert [row["site"] for row in told("keys", "status", home=home)["keys"]] == [after["site"]]
    assert told("ask", "When does the swift come back?", home=home)["citations"]
    assert (
        "no key for AT"
        in run("keys", "rotate", "--tenant", "default", "--jurisdiction", "AT", home=home, code=1).stderr
    )


def test_a_retired_key_is_destroyed_in_its_time_and_not_before(home: Path) -> None:
    of = ("--tenant", "default", "--jurisdiction", "DE")
    run("keys", "rotate", *of, home=home)
    assert told("keys", "rewrap", *of, home=home)["left"] == 0
    retired = [row for row in told("keys", "list", home=home)["keys"] if row["state"] == "retired"]
    assert retired and all(row["destroy_by"] > row["created"] for row in retired)
    assert told("keys", "destroy", *of, home=home) == {"destroyed": []}
    early = run("keys", "destroy", *of, "--version", str(retired[0]["version"]), home=home, code=1)
    assert "is kept until" in early.stderr
    database = sqlite3.connect(home / "domicile.sqlite")
    with contextlib.closing(database):
        database.execute("UPDATE kek SET due = due - 31 * 86400 WHERE state = 'retired'")
        database.commit()
    gone = told("keys", "destroy", *of, home=home)["destroyed"]
    assert [row["version"] for row in gone] == [row["version"] for row in retired]
    site = retired[0]["site"]
    assert "under a new root" in run("keys", "rotate", "--root", site, home=home).stderr
    assert site in run("keys", "status", home=home).stderr
    answer = told("ask", "When does the swift come back?", home=home)
    assert answer["citations"]
    assert "give --tenant" in run("keys", "rotate", "--root", site, *of, home=home, code=1).stderr


def test_public_keys_are_told(home: Path) -> None:
    (row,) = told("keys", "export-public", home=home)["keys"]
    assert row["use"] == "ledger" and row["key"] in run("keys", "export-public", home=home).stdout


def test_an_api_key_is_printed_once_and_can_be_revoked(home: Path) -> None:
    made = told("accounts", "key", "--tenant", "acme", "--scope", "ask", "--scope", "upload", home=home)
    assert made["key"].startswith("dom_")
    assert made["scopes"] == ["ask", "upload"]
    listed = run("accounts", "list", "--json", home=home).stdout
    assert made["key"] not in listed
    (row,) = [each for each in json.loads(listed)["keys"] if each["tenant"] == "acme"]
    run("accounts", "revoke", row["id"], home=home)
    assert "no live key" in run("accounts", "revoke", row["id"], home=home, code=1).stderr
    plain = run("accounts", "key", "--tenant", "acme", "--scope", "report", home=home)
    assert plain.stdout.startswith("dom_")
    assert "not shown again" in plain.stderr
    run("accounts", "key", "--tenant", "acme", "--scope", "fly", home=home, code=2)


def test_a_tenants_ceiling_is_set_in_zones_that_exist(home: Path) -> None:
    done = run("accounts", "tenant", "northwind", "--ceiling", "DE,FR", home=home)
    assert done.stdout.strip() == "northwind: ceiling DE, FR, zone DE"
    assert "Error:" in run("accounts", "tenant", "northwind", "--ceiling", "Mars", home=home, code=1).stderr


# --- looking after ---


def test_the_doctor_looks_at_everything_and_says_what_next(home: Path, tmp_path: Path) -> None:
    found = {each["id"]: each for each in told("doctor", home=home)["findings"]}
    assert {"home", "modes", "silence", "policies", "fleet", "database", "model", "sandbox"} <= set(found)
    assert not [each for each in found.values() if each["state"] == "fail"]
    (home / "keys" / "service.key").chmod(0o644)
    try:
        sick = {each["id"]: each for each in told("doctor", home=home, code=1)["findings"]}
    finally:
        (home / "keys" / "service.key").chmod(0o600)
    assert (sick["modes"]["state"], bool(sick["modes"]["next"])) == ("fail", True)
    assert "home" in run("doctor", home=tmp_path / "none", code=1).stderr


def test_migrating_again_changes_nothing(home: Path) -> None:
    said = {run("migrate", home=home).stderr.strip() for _ in range(2)}
    assert len(said) == 1


def test_documents_are_paused_resumed_retried_and_given_up(home: Path, tmp_path: Path) -> None:
    (tmp_path / "slow.txt").write_text("The owl sleeps by day.\n", encoding="utf-8")
    words = ("ingest", str(tmp_path / "slow.txt"), "--jurisdiction", "DE", "--no-wait", "--collection", "owls")
    (row,) = told(*words, home=home)["documents"]
    run("documents", "pause", row["id"], home=home)
    run("work", "--once", home=home)
    assert (rows(home)["slow.txt"]["state"], rows(home)["slow.txt"]["error"]["code"]) == ("sealed", "paused")
    run("documents", "resume", row["id"], home=home)
    run("documents", "pause", "--collection", "owls", home=home)
    assert "paused" in run("documents", "progress", "--collection", "owls", home=home).stderr
    run("documents", "resume", "--collection", "owls", home=home)
    assert "only a failed document" in run("documents", "retry", row["id"], home=home, code=1).stderr
    assert "name documents" in run("documents", "pause", home=home, code=1).stderr
    run("documents", "cancel", row["id"], home=home)
    assert "slow.txt" not in rows(home)  # its key is gone, and with it its name
    run("work", "--once", home=home)
    assert row["id"] not in {each["id"] for each in told("documents", home=home)["documents"]}
    assert "no Site of the Fleet in US" in run("work", "--once", "--zone", "US", home=home, code=1).stderr


def test_work_ends_when_nothing_is_waiting(home: Path, tmp_path: Path) -> None:
    (tmp_path / "later.txt").write_text("The dormouse wakes in April.\n", encoding="utf-8")
    words = ("ingest", str(tmp_path / "later.txt"), "--jurisdiction", "DE", "--no-wait")
    (row,) = told(*words, home=home)["documents"]
    assert row["state"] == "sealed"
    run("work", "--once", home=home)
    assert rows(home)["later.txt"]["state"] == "live"


def test_an_evaluation_prints_figures_keeps_them_and_compares(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "swift.jsonl"
    place = {"document": "swift.txt", "quote": "first of May"}
    cases = [
        {"language": "en", "question": "When does the swift come back?", "expect": place},
        {"language": "en", "question": "Who won the chess olympiad?", "expect": "unanswerable"},
    ]
    file.write_text("".join(json.dumps(case) + "\n" for case in cases))
    found = told("eval", str(file), "--out", str(tmp_path / "out"), home=home)
    assert found["summary"]["all"]["questions"] == 2
    assert found["summary"]["en"]["exact_quotes"] == 1
    assert found["before"] is None
    assert "swift" not in json.dumps(found["rows"]).replace("swift-", "")
    assert (tmp_path / "out" / "swift.svg").read_text().startswith("<svg")
    done = run("eval", str(file), "--out", str(tmp_path / "out"), home=home)
    assert "wrong_refusals" in done.stderr
    assert "change against the last run" in done.stderr


def test_calibrating_asks_the_collections_own_sentences_and_a_kept_threshold_acts(home: Path) -> None:
    found = told("eval", "--calibrate", home=home)
    assert set(found) == {"maps", "pairs"}
    assert found["maps"] == {}  # a home of a few short files has fewer than 50 pairs
    with contextlib.closing(sqlite3.connect(home / "domicile.sqlite")) as database:
        [[collection]] = database.execute("SELECT DISTINCT collection_id FROM document WHERE state = 'live'").fetchall()
        values = (collection, "", BUNDLED_DIGEST, 6.0, -50.0, 9.0, 0.0, 0.0, 0.0, 60, 1, 0.0)
        database.execute("INSERT INTO calibration VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        database.commit()
    answer = told("ask", "When does the swift come back?", home=home)
    assert (answer["abstained"], answer["reason"], answer["confidence"]) == (True, "no_support", 0.01)
    with contextlib.closing(sqlite3.connect(home / "domicile.sqlite")) as database:
        database.execute("DELETE FROM calibration")
        database.commit()
    assert not told("ask", "When does the swift come back?", home=home)["abstained"]
    run("eval", home=home, code=2)
