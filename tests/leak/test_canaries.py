"""Canaries: words planted in bodies, names, questions and errors are found nowhere on disk or in logs.

The served process has a home, a temporary folder, a working folder and logs of its own; it is killed in mid-upload, and
then every byte below these is searched, in every encoding in which a text may hide. The same story is run by a control
with sealing switched off and two leaks planted (`tests/doubles/unsealed.py`), and there the canaries must be found.
"""

import base64
import contextlib
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.doubles.disguises import BLOCK, dense, needles, unpacked
from tests.doubles.homes import ROOT, home, key, settings
from tests.doubles.serving import erased, live, put, settled

pytestmark = [pytest.mark.enable_socket, pytest.mark.slow]

ASCII, UMLAUTS = "ZXQJVK7F3E", "Zwölfkäferößchen"
ROLES = ("body", "gone", "name", "question", "error", "torn")
CANARIES = {
    f"{role} {kind}": f"{word}{role}" for role in ROLES for kind, word in (("ascii", ASCII), ("umlauts", UMLAUTS))
}
SEALED = "from service.cli import main; main()"
UNSEALED = "from tests.doubles.unsealed import main; main()"


# --- the story ---


def words(role: str) -> str:
    """Give both canaries of a role in one text."""
    return f"{CANARIES[f'{role} ascii']} {CANARIES[f'{role} umlauts']}"


def tell(folder: Path, onnx: Path, runner: str) -> None:
    """Serve in a process of its own: upload, ask, fail, erase, and die by SIGKILL in the midst of an upload."""
    place = home(folder / "home", onnx, fleet=None)
    secret = key(settings(place), "acme", "ask", "upload", "report")
    for name in ("tmp", "cwd", "user"):
        (folder / name).mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(folder / "tmp"),
        "HOME": str(folder / "user"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", runner, "serve", "--home", str(place), "--port", str(port)]
    with (folder / "stdout.log").open("wb") as out, (folder / "stderr.log").open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=env, cwd=folder / "cwd")
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}",
                headers={"Authorization": f"Bearer {secret}"},
                timeout=60,
                trust_env=False,
            ) as client:
                ready(client, process)
                act(client)
                tear(client, process)
        finally:
            process.kill()
            process.wait(20)


def ready(client: httpx.Client, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(1200):
        assert process.poll() is None, "the served process ended by itself"
        with contextlib.suppress(httpx.TransportError):
            if client.get("/readyz").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError("the served process was never ready")


def act(client: httpx.Client) -> None:
    """Let every kind of content pass through, well and badly."""
    named = quote(f"{words('name')}.txt")
    kept = live(client, named, f"The owl {words('body')} sleeps in the {words('body')} barn.\n" * 30)
    assert kept["name"] == f"{words('name')}.txt"
    gone = live(client, "gone.md", f"# {words('gone')}\n\nThe hen {words('gone')} went away.\n")
    question = f"Where does the owl {words('question')} sleep?"
    answer = client.post("/v1/answers", json={"question": question}).json()
    assert not answer["abstained"]
    client.post("/v1/search", json={"query": question, "top_k": 3})
    chat = {"model": "domicile/default", "messages": [{"role": "user", "content": question}]}
    client.post("/v1/chat/completions", json=chat)
    client.post("/v1/embeddings", json={"input": question})
    # errors: a file that cannot be read, a name that is none, JSON that is none, a path and a filter that are none
    broken = put(client, quote(f"{words('error')}.pdf"), b"%PDF-1.7\n" + words("error").encode() * 20).json()
    assert settled(client, broken["id"])["state"] == "failed"
    assert put(client, quote(f"{words('error')}\n.txt"), words("error")).status_code == 400
    assert client.post("/v1/search", content=f'{{"query": "{words("error")}'.encode()).status_code == 400
    assert client.post("/v1/search", json={"query": "x", "filters": {words("error"): 1}}).status_code == 400
    assert client.get(f"/v1/{quote(words('error'))}").status_code == 404
    assert client.get("/v1/documents", params={"state": words("error")}).status_code == 400
    client.get("/v1/reports/residency", params={"format": "pdf"})
    erased(client, gone["id"])


def tear(client: httpx.Client, process: "subprocess.Popen[bytes]") -> None:
    """Kill the process when some hundred kilobytes of a body have come in and more are under way."""

    def body() -> Iterator[bytes]:
        for number in range(200):
            if number == 12:
                time.sleep(0.3)
                process.send_signal(signal.SIGKILL)
                process.wait(20)
            yield (words("torn") + "\n").encode() * 1000

    with pytest.raises(httpx.TransportError):
        client.put("/v1/documents/torn.txt", params={"jurisdiction": "DE"}, content=body())


# --- the search ---


def hits(folder: Path) -> dict[str, set[str]]:
    """Search every byte below a folder; give each canary that was found with `file: disguise`."""
    wanted = {label: needles(text) for label, text in CANARIES.items()}
    found: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or (folder / "home" / "models") in path.parents:
            continue
        data = dense(path)
        for text, way in [(data, ""), *((inner, "unpacked ") for inner in unpacked(data))]:
            for label, disguises in wanted.items():
                for disguise, needle in disguises.items():
                    if needle in text:
                        found.setdefault(label, set()).add(f"{path.relative_to(folder)}: {way}{disguise}")
        if any(
            needle in str(path.relative_to(folder)).encode() for each in wanted.values() for needle in each.values()
        ):
            found.setdefault("path", set()).add(str(path.relative_to(folder)))
    return found


@pytest.mark.parametrize(
    "hide",
    [
        lambda raw: raw,
        lambda raw: raw.decode().encode("utf-16-le"),
        lambda raw: json.dumps({"q": raw.decode()}).encode(),
        lambda raw: quote(raw.decode()).encode(),
        lambda raw: raw.hex().encode(),
        lambda raw: base64.b64encode(b"a" + raw + b"z"),
        lambda raw: base64.b64encode(b"ab" + raw + b"yz"),
        lambda raw: base64.urlsafe_b64encode(b"abc" + raw),
        lambda raw: b"head" + gzip.compress(b"left " + raw + b" right") + b"tail",
        lambda raw: b"head" + zlib.compress(b"left " + raw + b" right", 9),
        lambda raw: bytes(70 * BLOCK) + raw,
    ],
)
@pytest.mark.parametrize("kind", ["ascii", "umlauts"])
def test_the_search_sees_through_each_disguise(tmp_path: Path, kind: str, hide: object) -> None:
    (tmp_path / "file").write_bytes(hide(CANARIES[f"body {kind}"].encode()))  # type: ignore[operator]
    assert set(hits(tmp_path)) == {f"body {kind}"}


def test_nothing_that_was_said_is_found_on_disk_or_in_logs(tmp_path: Path, onnx_model: Path) -> None:
    tell(tmp_path, onnx_model, SEALED)
    assert hits(tmp_path) == {}
    assert (tmp_path / "stderr.log").stat().st_size > 0
    assert list((tmp_path / "tmp").iterdir()) == []
    assert [path for path in (tmp_path / "cwd").rglob("*") if path.is_file()] == []


def test_with_sealing_off_every_canary_is_found_where_it_was_left(tmp_path: Path, onnx_model: Path) -> None:
    tell(tmp_path, onnx_model, UNSEALED)
    found = hits(tmp_path)
    for kind in ("ascii", "umlauts"):
        assert any("vault" in place for place in found[f"body {kind}"])
        assert any("shard" in place for place in found[f"body {kind}"])
        assert any("domicile.sqlite" in place for place in found[f"name {kind}"])
        assert any("vault" in place for place in found[f"error {kind}"])
        assert any("stderr.log" in place for place in found[f"error {kind}"])
        assert any("stderr.log" in place for place in found[f"question {kind}"])
        assert any("vault" in place for place in found[f"torn {kind}"])
        assert f"gone {kind}" not in found  # erasing removes the bytes, sealed or not
