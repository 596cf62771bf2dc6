"""What `domicile serve` weighs: started as a process of its own, fed over HTTP, left alone, then measured.

Everything it started (shards, the readers' nursery) counts. Run by `bench.run` as `python -m bench.idle JOB`.
"""

from residency.silence import silence

silence()

import os  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import httpx  # noqa: E402

from bench.measuring import answer, lend_model, next_task, read_job, tree_memory  # noqa: E402
from service.accounts import SCOPES  # noqa: E402
from service.home import office, prepare  # noqa: E402
from service.settings import load  # noqa: E402

REST = 3.0
"""Seconds of rest before memory is read."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def feed(address: str, key: str, documents: list[dict[str, str]]) -> None:
    """Put every document and wait until all are live; then ask a little, so that nothing is left unloaded."""
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=120) as browser:
        for each in documents:
            given = browser.put(
                f"/v1/documents/{each['name']}",
                params={"jurisdiction": "DE", "residency": "EEA", "personal": "false"},
                content=each["text"].encode(),
                headers={"Content-Type": "text/plain"},
            )
            given.raise_for_status()
        while browser.get("/v1/documents", params={"state": "live", "limit": 100}).json()["data"].__len__() < min(
            100, len(documents)
        ):
            time.sleep(0.5)
        for each in documents[:5]:
            browser.post("/v1/answers", json={"question": each["text"][:80]}).raise_for_status()


def main() -> None:
    job = read_job()
    next_task()
    home = Path(job["folder"]) / "idle"
    prepare(home, zone="DE", operator="DE")
    settings = load(home, environ={})
    with office(settings) as accounts:
        accounts.ensure_tenant("default", ceiling=settings.here.default_ceiling, zone="DE")
        key = accounts.issue("default", scopes=SCOPES)
    lend_model(job, home)
    port = free_port()
    server = subprocess.Popen(
        [str(Path(sys.executable).parent / "domicile"), "serve", "--home", str(home), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ,
    )
    result: dict[str, Any] = {}
    try:
        address = f"http://127.0.0.1:{port}"
        began = time.monotonic()
        while True:
            try:
                httpx.get(f"{address}/readyz", timeout=2)
                break
            except httpx.TransportError:
                if server.poll() is not None or time.monotonic() - began > 60:
                    raise
                time.sleep(0.05)
        result["ready_s"] = round(time.monotonic() - began, 2)
        time.sleep(REST)
        result["fresh"] = tree_memory(server.pid)
        feed(address, key, job["documents"])
        time.sleep(REST)
        result["idle"] = tree_memory(server.pid)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    answer(result)


if __name__ == "__main__":
    main()
