"""A witness on its own machine: over the network, and with files alone."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from residency import notes, verify
from residency.errors import LedgerError
from service.cli.ledger import ledger, witness
from tests.doubles.homes import home, settings
from tests.doubles.serving import Served, live, serving


def do(command, *words):
    result = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def folder(tmp_path: Path, onnx_model: Path) -> Path:
    return home(tmp_path / "home", onnx_model)


@pytest.mark.enable_socket
def test_a_witness_over_the_network_cosigns_and_receipts_carry_it(folder: Path, tmp_path: Path) -> None:
    trust, key = tmp_path / "trust.txt", tmp_path / "key"
    mine = ("--folder", tmp_path / "witness", "--name", "dpo.example", "--trust", trust)
    vkey = do(witness, *mine[:4], "--key").strip()
    do(ledger, "witness", vkey, "--home", folder)
    with serving(settings(folder)) as served:
        assert isinstance(served, Served)
        client = served.client()
        trust.write_text(served.house.ledger.trust)
        key.write_text(served.key("report"))
        live(client, "note.txt", "The keeper winds the clock at noon.\n")
        do(witness, served.url, *mine, "--api-key", key)
        put_in = client.get("/v1/ledger/checkpoint").text
        named = notes.Verifier.parse(vkey)
        assert named in notes.signers(*notes.split(put_in), [named])
        live(client, "second.txt", "The second note says little.\n")
        do(witness, served.url, *mine, "--api-key", key)
        seen = int(do(witness, *mine, "--size"))
        assert seen == served.house.ledger.sequence()
        asked = client.post("/v1/search", json={"query": "When does the keeper wind the clock?"}).json()["receipt"]
        do(witness, served.url, *mine, "--api-key", key)
        receipt = client.get(f"/v1/receipts/{asked}")
        quorum = f"log {served.house.ledger.vkey}\nwitness w {vkey}\nquorum w\n".encode()
        verdict = verify.verify({"r.json": receipt.content, "t.txt": quorum})
        assert [(c.state, c.text) for c in verdict.checks if c.name == "witnesses"] == [("good", "quorum 1/1")]
        bare = CliRunner().invoke(witness, [served.url, *map(str, mine)])
        assert isinstance(bare.exception, LedgerError) and "--api-key" in bare.exception.hint
        assert "the log answered 401" in str(bare.exception)
        tile = client.get(f"/v1/ledger/tile/0/000.p/{min(seen, 255)}")
        assert len(tile.content) == 32 * min(seen, 255)
        for place, status in (("0/999", 404), ("0/1", 404), ("9/000", 400)):  # a tree has no level 9
            assert client.get(f"/v1/ledger/tile/{place}").status_code == status
        assert client.post("/v1/ledger/cosignatures", content=b"\xff").status_code == 400
        assert client.post("/v1/ledger/cosignatures", content=put_in.rsplit("\n", 2)[0] + "\n").status_code == 400
        assert served.client("ask").post("/v1/ledger/cosignatures", content=put_in).status_code == 403


def test_a_witness_without_a_network_takes_and_gives_files(folder: Path, tmp_path: Path) -> None:
    trust, first, second, proof, signed = (tmp_path / name for name in ("t", "c1", "c2", "p.json", "s"))
    mine = ("--folder", tmp_path / "witness", "--name", "dpo.example", "--trust", trust)
    vkey = do(witness, *mine[:4], "--key").strip()
    do(ledger, "witness", vkey, "--home", folder)
    do(ledger, "checkpoint", "--home", folder, "--out", first)
    origin = first.read_text().splitlines()[0]
    from residency.logkey import LogKey

    trust.write_text(LogKey.load_or_create(folder / "keys" / "ledger.key").vkey(origin) + "\n")
    do(witness, *mine, "--checkpoint", first, "--out", signed)
    do(ledger, "cosign", signed, "--home", folder)
    do(ledger, "checkpoint", "--home", folder, "--out", second)
    do(ledger, "consistency", do(witness, *mine, "--size").strip(), "--home", folder, "--out", proof)
    do(witness, *mine, "--checkpoint", second, "--consistency", proof, "--out", signed)
    named = notes.Verifier.parse(vkey)
    assert notes.signers(*notes.split(signed.read_text()), [named]) == [named]
    assert "Every row holds" in do(ledger, "check", "--home", folder)


def test_a_new_epoch_is_another_log(folder: Path) -> None:
    before = do(ledger, "epoch", "--home", folder).strip()
    assert before.endswith("/ledger/1")
    assert do(ledger, "epoch", "--begin", "--home", folder).strip().endswith("/ledger/2.")
    assert do(ledger, "checkpoint", "--home", folder).splitlines()[0].endswith("/ledger/2")
    assert "Every row holds" in do(ledger, "check", "--home", folder)
