"""`domicile sites` and `domicile move` as people run them, on a home of two Sites and one Qdrant double behind TLS."""

from pathlib import Path

import pytest

from tests.doubles.homes import home as prepared
from tests.doubles.qdrant_http import QdrantDouble, serving
from tests.doubles.tls_counting import server
from tests.unit.service.test_cli import run, told

HOLDS = '{kind="vault",url="folder:"},{kind="keys",url="file:"},{kind="embedder",url="bundled:"}'


def fleet(folder: Path, *, remote: str, trust: str = "") -> None:
    """Write a fleet file: Frankfurt with an embedded shard, Paris with a Qdrant at `remote`."""
    (folder / "qdrant.key").write_text("key", encoding="utf-8")
    text = ""
    for name, zone, shard in (
        ("fra", "DE", '{kind="shard",url="edge:"}'),
        ("par", "FR", f'{{kind="shard",url="{remote}",key_file="qdrant.key"}}'),
    ):
        text += f'[[site]]\nid="{name}"\nzone="{zone}"\noperator={{name="Example Hosting",zone="FR"}}\n'
        text += f"{trust if name == 'par' else ''}\nholds=[{shard},{HOLDS}]\n"
    (folder / "fleet.toml").write_text(text, encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, onnx_model: Path) -> Path:
    return prepared(tmp_path / "home", onnx_model, fleet=None)


@pytest.mark.enable_socket
def test_a_self_run_site_is_certified_probed_served_and_moved_to(folder: Path) -> None:
    fleet(folder, remote="https://127.0.0.1:6333")
    done = told("sites", "certify", "par", home=folder)["zones"][0]
    assert done["zone"] == "FR" and set(done["until"]) == {"root.pem", "par.pem", "service.pem"}
    files = folder / "certificates" / "fr"
    tls = server(files / "par.pem", files / "par.key", clients=files / "root.pem")
    with serving(QdrantDouble(), tls=tls) as double:
        fleet(folder, remote=double.url, trust=done["fleet"]["par"])
        run("init", home=folder)
        (row,) = [each for each in told("sites", "probe", "par", home=folder)["sites"] if each["id"] == "par"]
        assert (row["state"], row["facts"]["shard"]["version"]) == ("open", "1.19.1")
        assert row["facts"]["peers"][0]["own_root"] is True and row["facts"]["peers"][0]["spki"] in done["fleet"]["par"]
        assert row["grade"] == 0  # its vault is a folder of this machine, which stands in Germany
        listed = {each["id"]: each for each in told("sites", "list", home=folder)["sites"]}
        assert {each["state"] for each in listed.values()} == {"open"}
        paper = folder.parent / "swift.txt"
        paper.write_text("The swift nests under the eaves of the town hall.\n", encoding="utf-8")
        (taken,) = told("ingest", str(paper), "--jurisdiction", "DE", "--residency", "EU", home=folder)["documents"]
        assert taken["site"] == "fra"
        status = told("move", taken["id"], "--to", "par", home=folder)
        assert (status["state"], status["from"], status["to"]) == ("done", "fra", "par")
        found = told("search", "where does the swift nest", home=folder)["results"]
        assert [result["site"] for result in found] == ["par"]
        assert told("sites", "drift", home=folder) == {"found": [], "mended": 0, "unseen": [], "again": 0}
        double.version = "1.17.0"
        closed = told("sites", "probe", home=folder, code=4)["sites"]
        assert [(each["id"], each["state"]) for each in closed] == [("fra", "open"), ("par", "closed")]
        assert "too old" in run("sites", "probe", home=folder, code=4).stderr
    down = told("search", "where does the swift nest", home=folder, code=3)  # the one Site that holds it is closed
    assert down["refused"]["site"] == "par"
    after = {each["id"]: each for each in told("sites", "list", home=folder)["sites"]}
    assert after["par"]["state"] == "closed" and after["par"]["since"] and after["par"]["cause"]


def test_a_site_without_a_host_a_bad_host_and_an_unknown_site_are_told_what_to_do(folder: Path) -> None:
    run("init", home=folder)
    assert "--host SITE=host" in run("sites", "certify", home=folder, code=1).stderr
    assert "SITE=HOST" in run("sites", "certify", "--host", "de", home=folder, code=2).stderr
    assert "no such Site" in run("sites", "probe", "xx", home=folder, code=1).stderr
    refused = run("move", "0" * 32, "--to", "de", home=folder, code=1)
    assert "no such document" in refused.stderr


def test_a_move_that_the_policy_refuses_ends_with_3_and_names_why(folder: Path) -> None:
    held = f'{{kind="shard",url="edge:"}},{HOLDS}'
    text = "".join(
        f'[[site]]\nid="{name}"\nzone="{zone}"\noperator={{name="Example Hosting",zone="DE"}}\nholds=[{held}]\n'
        for name, zone in (("fra", "DE"), ("par", "FR"))
    )
    (folder / "fleet.toml").write_text(text, encoding="utf-8")
    run("init", home=folder)
    paper = folder.parent / "marten.txt"
    paper.write_text("The marten sleeps in the hay loft.\n", encoding="utf-8")
    (taken,) = told("ingest", str(paper), "--jurisdiction", "DE", "--residency", "DE", home=folder)["documents"]
    refused = told("move", taken["id"], "--to", "par", home=folder, code=3)
    assert refused["refused"]["site"] == "par" and refused["receipt"]
