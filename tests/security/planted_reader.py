"""A nursery whose reader does what the file says: the hostile side of `test_sandbox.py`."""

import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from ingestion.readers import Block, Job, PageSpan, Reading, main


def _said(text: str) -> Reading:
    return Reading(text, [PageSpan(1, 0, len(text))], [], "text/plain")


def _flood() -> NoReturn:
    while True:
        os.write(3, b"\xff" * 65_536)


def _refused(step: object) -> Reading:
    """Do a step that must fail; say how it failed, so that the test sees the right wall held."""
    try:
        step()  # type: ignore[operator]
    except OSError as error:
        return _said(f"refused: {type(error).__name__}")
    return _said("done")


def _connect() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as out:
        out.settimeout(1)
        out.connect(("127.0.0.1", 9))


def _write(path: str) -> None:
    Path(path).write_bytes(b"x")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def planted(data: bytes, job: Job) -> Reading:
    """Read a file whose first word is an order."""
    order, _, rest = data.decode().partition(" ")
    match order:
        case "connect":
            return _refused(_connect)
        case "write":
            return _refused(lambda: _write(rest))
        case "truncate":
            return _refused(lambda: os.truncate(rest, 0))
        case "open":
            return _refused(lambda: Path(rest).read_bytes())
        case "remove":
            return _refused(lambda: Path(rest).unlink())
        case "fork":
            return _refused(os.fork)
        case "kill":
            return _refused(lambda: os.kill(int(rest), signal.SIGKILL))
        case "run":
            return _refused(lambda: os.execv(sys.executable, [sys.executable, "-c", "pass"]))
        case "files":
            return _said(" ".join(str(number) for number in range(64) if _is_open(number)))
        case "environment":
            return _said(repr(dict(os.environ)))
        case "allocate":
            return _said(str(len(bytearray(1 << 40))))
        case "spin":
            while True:
                pass
        case "sleep":
            time.sleep(600)
        case "flood":
            _flood()
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "fault":
            import ctypes

            ctypes.string_at(0)
        case "raise":
            raise RuntimeError(rest)
        case "vanish":
            os._exit(0)
        case "pickle":
            os.write(3, (20).to_bytes(4, "big") + b"cos\nsystem\n(S'id'\ntR.")
        case "outside":
            return Reading("abc", [PageSpan(1, 0, 999)], [Block("text", 1, 500, 900)], "text/plain")
        case "huge":
            return _said("x" * 30_000_000)
        case _:
            return _said(rest)
    return _said("alive")


def serve() -> NoReturn:
    """Serve with the planted reader in place of the true ones."""
    main.serve(planted)


def serve_open() -> NoReturn:
    """Serve unconfined: the twin that shows what the walls are for."""
    main.confine = lambda _limits: {}
    main.serve(planted)
