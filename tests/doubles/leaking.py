"""`domicile` with a leak planted in it: the twin that shows that the proof of silence can fail.

The first argument says which: `telemetry` takes away the switch of onnxruntime's, `call` sends an HTTP call to an
address that nobody declared, `lookup` asks for a name that nobody declared. The rest is `domicile`'s command line.
"""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from residency import silence
from residency.egress import watching

CALLED = "198.51.100.20"
LOOKED_UP = "collector.example"
EVERY = 1.0


def call() -> None:
    import httpx

    httpx.get(f"http://{CALLED}/collect", timeout=1.0)


def lookup() -> None:
    import socket

    socket.getaddrinfo(LOOKED_UP, 443)


LEAKS: dict[str, Callable[[], None]] = {"call": call, "lookup": lookup}


def _again_and_again(leak: Callable[[], None]) -> None:
    while watching() is None:  # before the guard stands there is nothing to show of it
        time.sleep(0.05)
    while True:
        time.sleep(EVERY)
        with suppress(Exception):
            leak()


if __name__ == "__main__":
    kinds, sys.argv = sys.argv[1], ["domicile", *sys.argv[2:]]
    for kind in kinds.split(","):
        if kind == "telemetry":
            del silence.SET["ORT_DISABLE_TELEMETRY"]
        else:
            threading.Thread(target=_again_and_again, args=(LEAKS[kind],), daemon=True).start()
    from service.cli import main

    main()
