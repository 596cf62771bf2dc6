"""`domicile hold`, `retention`, `backup` and `restore` as people run them: one story, which ends in a new home."""

import shutil
from pathlib import Path

from tests.unit.service.test_cli import MARTEN, SWIFT, run, told


def test_what_is_held_stays_what_is_backed_up_comes_back_and_is_found(tmp_path: Path, onnx_model: Path) -> None:
    old = tmp_path / "old"
    (old / "models").mkdir(parents=True)
    (old / "models" / onnx_model.parent.name[:16]).symlink_to(onnx_model.parent, target_is_directory=True)
    run("init", "--zone", "DE", home=old)
    for name, text in (("swift.txt", SWIFT), ("marten.txt", MARTEN)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    papers = [str(tmp_path / "swift.txt"), str(tmp_path / "marten.txt")]
    taken = told("ingest", *papers, "--jurisdiction", "DE", home=old)["documents"]
    ids = {row["name"]: row["id"] for row in taken}

    # 1. A hold, with its reason, stops whoever erases.
    (held,) = told("hold", "add", ids["swift.txt"], "--reason", "LG Musterstadt 3 O 17/26", home=old)["holds"]
    assert (held["document"], held["lifted"]) == (ids["swift.txt"], None)
    assert "LG Musterstadt 3 O 17/26" in run("erase", "--everything", home=old, code=1).stderr
    assert told("hold", "list", home=old)["holds"] == [held]

    # 2. The rules say what they would erase.
    assert told("retention", "check", home=old) == {"due": []}

    # 3. A backup of the zone: sealed, whole, not overwritten.
    file = tmp_path / "de.tar"
    made = told("backup", "--zone", "DE", "--out", str(file), home=old)
    assert (made["documents"], made["left_out"]) == (2, 0)
    assert b"swift" not in file.read_bytes().lower() and b"town hall" not in file.read_bytes()
    assert "there already" in run("backup", "--zone", "DE", "--out", str(file), home=old, code=1).stderr

    # 4. A new home with the same keys and nothing else.
    new = tmp_path / "new"
    lost = shutil.ignore_patterns("domicile.sqlite*", "shard", "vault", "ledger.checkpoint", "lock")
    shutil.copytree(old, new, symlinks=True, ignore=lost)
    done = told("restore", str(file), home=new)
    assert (done["restored"], done["unopened"]) == (2, 0)
    (found, *_) = told("search", "Where does the swift nest?", home=new)["results"]
    assert found["name"] == "swift.txt" and "town hall" in found["text"]

    # 5. What is erased there after all stays erased by a second restore.
    assert told("erase", ids["marten.txt"], home=new)["state"] == "complete"
    assert told("restore", str(file), home=new)["erased_again"] == 1
    assert "marten.txt" not in {row["name"] for row in told("documents", home=new)["documents"]}

    # 6. A lifted hold stops nobody.
    told("hold", "lift", ids["swift.txt"], home=old)
    assert told("erase", "--everything", home=old)["erased"] == 2
