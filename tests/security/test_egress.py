"""Nothing leaves but to the Fleet: the whole service in a network namespace, with witnesses that can be fooled by no
library. Packets beyond the ruleset, destinations captured, names asked for, files strewn: none. Each twin plants one
leak, and the same complaints that were empty name it.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.doubles.lacking import lacking
from tests.doubles.leaking import CALLED, LOOKED_UP
from tests.doubles.qdrant_http import Seen
from tests.doubles.serving import erased, live, put
from tests.doubles.street import HOSTS, METADATA, RESOLVER, Running, Street, street

ROOT = Path(__file__).parents[2]
DOCUMENTS = ROOT / "examples" / "documents"
FILES = {
    "consignes-evacuation.txt": "FR",
    "meeting-rooms.md": "DE",
    "trail-rack-safety-notice.html": "DE",
    "supplier-quality-manual.docx": "DE",
    "contrat-cadre-transport.pdf": "FR",
}
"""Examples of every type, and the law that they are of."""
LATE = 15.0
"""Seconds to wait at the end, since uploaders of telemetry are late."""
PATIENCE = 60.0
TELEMETRY = "mobile.events.data.microsoft.com"
QUESTION = "What colour is the lamp above the sluice?"


def _absent() -> str:
    """Say what this machine lacks for namespaces of a test's own."""
    if os.geteuid() != 0:
        return "needs root"
    tools = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
    return f"needs {' and '.join(tools)} (Debian: iproute2, nftables)" if tools else ""


pytestmark = [pytest.mark.netns, pytest.mark.enable_socket]


@pytest.fixture(autouse=True)
def _rooms() -> None:
    if lacks := _absent():
        lacking(lacks)


def the_main_job(running: Running, at: Street, api_key: str, abroad: str) -> dict[str, str]:
    """Take documents in, ask, report, fail in every way a Site can, erase. Gives the ids of documents by law."""
    client, other = running.caller(api_key), running.caller(abroad)
    text = "The lock at Pinebarrel opens at noon.\n"
    ids = {"US": live(other, "lock.txt", text, jurisdiction="US", residency="US", personal="false")}
    # 1. Documents of each type, under two laws.
    text = "The lamp above the sluice is red. It burns from dusk until dawn.\n"
    taken = {"DE": live(client, "sluice.txt", text, residency="EU", personal="false")}
    taken["FR"] = live(client, "vanne.txt", "La vanne du canal est bleue.\n", jurisdiction="FR", residency="EU")
    for name, law in FILES.items():
        live(client, name, (DOCUMENTS / name).read_bytes(), jurisdiction=law, residency="EU", personal="false")
    assert put(client, "abroad.txt", "Not there.\n", residency="US").status_code == 403
    # 2. Questions: found, answered by the generator, streamed, embedded.
    assert ask(client)["answered_by"] == "generator"
    client.post("/v1/search", json={"query": "canal"}).raise_for_status()
    chat = {"model": "domicile/default", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
    client.post("/v1/chat/completions", json=chat).raise_for_status()
    client.post("/v1/embeddings", json={"model": "domicile/embedding", "input": ["lamp"]})
    # 3. Reports.
    for form in ("json", "html", "pdf", "xlsx"):
        client.get("/v1/reports/residency", params={"format": form}).raise_for_status()
    # 4. Failures: each has an answer, and none has a way out.
    at.writer.status = 500
    assert ask(client)["fallback"] == "generator_unavailable"
    at.writer.status, at.writer.redirect = 200, METADATA
    assert ask(client)["fallback"] == "generator_unavailable"
    at.writer.redirect = ""
    at.sites["fr"].double.fail("/query", 307, times=8, location=METADATA)
    assert "fr-paris" in ask(client)["unreached"]
    at.sites["fr"].double.fail("/query", 503, times=8)
    ask(client)
    at.sites["fr"].stop()
    assert "fr-paris" in ask(client)["unreached"]
    at.sites["fr"].double.forgive()
    at.sites["fr"].start()
    # 5. Erasure.
    for document in taken.values():
        assert erased(client, document["id"])["state"] == "complete"
    return {law: found["id"] for law, found in (ids | taken).items()}


def ask(client: httpx.Client) -> dict[str, Any]:
    reply = client.post("/v1/answers", json={"question": QUESTION})
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


@pytest.mark.parametrize("confined", [False, True], ids=["let out", "confined"])
def test_the_main_job_sends_nothing_to_anybody_but_the_fleet(tmp_path: Path, onnx_model: Path, confined: bool) -> None:
    with street(tmp_path, onnx_model, confined=confined) as at:
        home_key, abroad = at.key("acme", ["EEA"]), at.key("atlantic", ["EEA", "US"])
        with at.serving() as running:
            ids = running.do(lambda: the_main_job(running, at, home_key, abroad))
            time.sleep(LATE if not confined else 1.0)
            assert running.metric("domicile_unexpected_connects_total") == 0
            assert running.strewn() == []
        assert at.complaints() == []
        assert at.leaked() == 0
        assert at.capture.stop() == 0, "the capture missed packets"
        assert at.left_behind() == []
        # the witnesses were awake
        assert {f"qdrant-{code}.example" for code in at.sites} | {"writer.example"} <= set(at.names.asked)
        assert ("tcp", HOSTS["qdrant-de.example"], 6333) in at.capture.seen
        assert ("udp", RESOLVER, 53) in at.capture.seen
        # the foil is a Site like others, and got its own tenant's document alone
        foil = at.sites["us"].double
        assert written(foil.calls("/points$")) == {ids["US"]}
        assert {ids["DE"], ids["FR"]} <= written(at.sites["de"].double.log) | written(at.sites["fr"].double.log)
        assert foil.calls("/query") == []


def written(calls: list[Seen]) -> set[str]:
    """Give the ids of the documents whose points were put."""
    return {
        point["payload"]["d"] for call in calls if call.method == "PUT" for point in (call.body or {}).get("points", [])
    }


# --- twins ------------------------------------------------------------------------------------------------------------


@contextmanager
def leaking(kinds: str, folder: Path, onnx: Path, *, refuse: bool) -> Iterator[tuple[Street, Running]]:
    """Serve with leaks planted."""
    with street(folder, onnx, confined=False) as at:
        program = (sys.executable, "-P", str(ROOT / "tests" / "doubles" / "leaking.py"), kinds)
        with at.serving(*program, egress__refuse=str(refuse).lower()) as running:
            yield at, running


def soon(shown: Callable[[], bool]) -> bool:
    """Wait until it shows; a busy machine may take its time."""
    until = time.monotonic() + PATIENCE
    while not shown() and time.monotonic() < until:
        time.sleep(0.1)
    return shown()


def test_a_planted_call_and_a_planted_lookup_are_seen_by_every_witness(tmp_path: Path, onnx_model: Path) -> None:
    with leaking("call,lookup", tmp_path, onnx_model, refuse=False) as (at, running):
        assert soon(lambda: ("tcp", CALLED, 80) in at.capture.seen and LOOKED_UP in at.names.asked)
        assert at.leaked() > 0
        told = "; ".join(at.complaints())
        assert f"by tcp to {CALLED}:80" in told
        assert f"asked for the name {LOOKED_UP}" in told
        assert "packets beyond the ruleset" in told
        assert running.metric("domicile_unexpected_connects_total") >= 2


def test_the_guard_in_the_process_stops_both_before_a_packet_leaves(tmp_path: Path, onnx_model: Path) -> None:
    with leaking("call,lookup", tmp_path, onnx_model, refuse=True) as (at, running):
        assert soon(lambda: running.metric("domicile_unexpected_connects_total") >= 4)
        assert at.complaints() == []


def test_the_telemetry_of_onnxruntime_is_seen_when_its_switch_is_missing(tmp_path: Path, onnx_model: Path) -> None:
    with leaking("telemetry", tmp_path, onnx_model, refuse=True) as (at, _):
        assert soon(lambda: TELEMETRY in at.names.asked)
        assert f"asked for the name {TELEMETRY}" in at.complaints()
        assert soon(lambda: bool(at.left_behind())), "it keeps a device id in the account's own folder"


def test_the_generated_ruleset_holds_back_and_counts(tmp_path: Path, onnx_model: Path) -> None:
    with street(tmp_path, onnx_model, confined=True) as at:
        probe = (
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('198.51.100.7', 9))"
        )
        with pytest.raises(OSError, match="Operation not permitted"):
            at.service.run(sys.executable, "-c", probe)
        assert at.leaked() == 1
        assert at.capture.seen == {}
