"""`domicile ingest` and `watch` on real folders: what changed is sent, and nothing ends the batch."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.service.test_cli import run, told

PROGRAM = (str(Path(sys.executable).parent / "domicile"),)
WORDS = ("--jurisdiction", "DE")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, onnx_model: Path) -> Path:
    """Set a home up with one Site in Germany."""
    folder = tmp_path_factory.mktemp("ingest") / "home"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / onnx_model.parent.name[:16]).symlink_to(onnx_model.parent, target_is_directory=True)
    run("init", "--zone", "DE", home=folder)
    return folder


def papers(folder: Path) -> Path:
    (folder / "papers" / "old").mkdir(parents=True)
    (folder / "papers" / "swift.txt").write_text("The swift nests under the northern eaves.\n")
    (folder / "papers" / "plan.txt").write_text("The plan for the new pier.\n")
    (folder / "papers" / "old" / "plan.txt").write_text("The plan for the old pier.\n")
    return folder / "papers"


def listed(house: Path, collection: str) -> dict[str, str]:
    rows = told("documents", "--collection", collection, home=house)["documents"]
    return {row["name"]: row["state"] for row in rows if row["state"] not in ("archived", "erased", "erasing")}


def test_of_a_folder_only_what_changed_is_sent_and_what_is_gone_is_erased_if_wished(
    house: Path, tmp_path: Path
) -> None:
    folder = papers(tmp_path)
    words = ("ingest", str(folder), *WORDS, "--collection", "first")
    first = told(*words, home=house)
    assert {row["name"]: row["state"] for row in first["documents"]} == {
        "swift.txt": "live",
        "plan.txt": "live",
        "old · plan.txt": "live",
    }
    assert first["summary"] == {"taken": 3, "unchanged": 0, "erased": 0, "failed": 0}

    os.utime(folder / "plan.txt", (1, 1))  # touched, with the same bytes
    again = told(*words, home=house)
    assert (again["documents"], again["summary"]["unchanged"]) == ([], 3)

    (folder / "swift.txt").write_text("The swift has left for the south.\n")
    (folder / "old" / "plan.txt").unlink()
    kept = told(*words, home=house)
    assert [(row["name"], row["version"]) for row in kept["documents"]] == [("swift.txt", 2)]
    assert "old · plan.txt" in listed(house, "first")
    gone = told(*words, "--erase-missing", home=house)
    assert gone["summary"] == {"taken": 0, "unchanged": 2, "erased": 1, "failed": 0}
    assert listed(house, "first") == {"swift.txt": "live", "plan.txt": "live"}

    (manifest,) = (path for path in (house / "manifests").iterdir() if b"first" not in path.name.encode())
    held = manifest.read_bytes()
    assert b"swift" not in held and b"papers" not in held
    assert manifest.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_is_empty_now_erases_nothing(house: Path, tmp_path: Path) -> None:
    folder = papers(tmp_path)
    words = ("ingest", str(folder), *WORDS, "--collection", "mounted", "--erase-missing")
    told(*words, home=house)
    for path in folder.rglob("*.txt"):
        path.unlink()
    done = told(*words, home=house, code=3)
    assert "is it mounted?" in done["documents"][0]["error"]["hint"]
    assert len(listed(house, "mounted")) == 3


def test_what_cannot_be_taken_is_named_and_the_batch_goes_on(house: Path, tmp_path: Path) -> None:
    folder = papers(tmp_path)
    (tmp_path / "outside.txt").write_text("Not of this folder.\n")
    (folder / "away.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "up").symlink_to(tmp_path)
    (folder / "loop.txt").symlink_to(folder / "loop.txt")
    (folder / "within.txt").symlink_to(folder / "swift.txt")
    os.mkfifo(folder / "pipe.txt")
    found = told("ingest", str(folder), *WORDS, "--collection", "odd", home=house, code=4)
    bad = {row["name"]: row["error"]["hint"] for row in found["documents"] if row["state"] == "invalid"}
    assert set(bad) == {"away.txt", "up", "loop.txt", "pipe.txt"}
    assert "out of the folder" in bad["away.txt"] and "out of the folder" in bad["up"]
    assert "no plain file" in bad["pipe.txt"]
    assert found["summary"] == {"taken": 3, "unchanged": 0, "erased": 0, "failed": 4}


def test_an_erased_document_comes_back_with_its_file_and_a_new_declaration_is_sent(house: Path, tmp_path: Path) -> None:
    folder = papers(tmp_path)
    words = ("ingest", str(folder), *WORDS, "--collection", "back")
    (row,) = (row for row in told(*words, home=house)["documents"] if row["name"] == "swift.txt")
    run("erase", row["id"], home=house)
    again = told(*words, home=house)
    assert [each["name"] for each in again["documents"]] == ["swift.txt"]
    assert told(*words, "--groups", "harbour", home=house)["summary"]["taken"] == 3


def test_globs_and_stdin_are_taken(house: Path, tmp_path: Path) -> None:
    folder = papers(tmp_path)
    found = told("ingest", str(folder / "**" / "plan.txt"), *WORDS, "--collection", "globbed", home=house)
    assert len(found["documents"]) == 2
    done = subprocess.run(
        [
            *PROGRAM,
            "ingest",
            "-",
            "--name",
            "piped.txt",
            *WORDS,
            "--json",
            "--collection",
            "piped",
            "--home",
            str(house),
        ],
        input=b"What came through a pipe.\n",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    (row,) = json.loads(done.stdout)["documents"]
    assert (row["name"], row["state"]) == ("piped.txt", "live")
    assert "needs --name" in run("ingest", "-", *WORDS, home=house, code=2).stderr


def test_a_watched_folder_is_taken_as_it_changes_until_sigterm(house: Path, tmp_path: Path) -> None:
    folder = papers(tmp_path)
    words = ["watch", str(folder), *WORDS, "--collection", "watched", "--every", "0.2", "--erase-missing"]
    process = subprocess.Popen([*PROGRAM, *words, "--home", str(house)], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        seen = _until(process.stderr, "swift.txt")
        (folder / "late.txt").write_text("It came later.\n")
        (folder / "plan.txt").unlink()
        seen += _until(process.stderr, "late.txt")
        process.send_signal(signal.SIGTERM)
        seen += process.stderr.read()
        assert process.wait(30) == 0, seen
    finally:
        process.kill()
        process.wait()
    assert set(listed(house, "watched")) >= {"swift.txt", "late.txt"}


def _until(stream: Any, word: str) -> str:
    text, end = "", time.monotonic() + 60
    while word not in text and time.monotonic() < end:
        line = stream.readline()
        if not line:
            break
        text += line
    assert word in text
    return text
