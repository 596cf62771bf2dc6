"""The sandbox: strangers' files are read in a child that has no network, no keys, no folder to write to.

A nursery process (`ingestion/readers/main.py`) is started once and forks a confined child for each file. Rules kept
here: bytes in by pipe, msgpack out, decoded against a schema and size limits, never unpickled; the clock that ends a
child runs in the parent and kills the child's whole process group; a child's words never reach an error, only one of
its outcome codes; whatever a file does to its child, the parent and the other files go on.
This is one of the two files that start processes.
"""

import asyncio
import atexit
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import Final

import msgspec

from ingestion.errors import ReaderError
from ingestion.outcomes import outcome
from ingestion.readers import (
    MAX_OUTLINE,
    MAX_TEXT,
    Block,
    Confinement,
    Failure,
    Job,
    Outline,
    PageSpan,
    Reading,
)
from ingestion.readers.confine import models

__all__ = ["Block", "Limits", "PageSpan", "Reading", "Sandbox", "capabilities", "read_file", "recognises", "warm"]

_encode = msgspec.msgpack.encode

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost. PDFium reads 50 pages in 27 MB and 50 ms; these limits stop accidents, not attackers."""

    memory: int = 512 * MIB
    """Bytes of address space that the child may add to its code; grows by eight times the file."""
    cpu_s: int = 30
    """Seconds of CPU time; grows by one second for each MiB of the file."""
    wall_s: float = 60.0
    """Seconds from the first byte to the answer; grows alike."""
    files: int = 16
    """Open files of the child."""
    growth: int = 200
    """How many times its file's size a text may have, beyond the first 64 KiB."""

    def confinement(self, size: int) -> Confinement:
        """Give the child's limits for a file of that many bytes."""
        return Confinement(self.memory + 8 * size, self.cpu_s + size // MIB, self.files)

    def for_ocr(self) -> "Limits":
        """Give the limits of a file whose pages are to be recognised: a page takes seconds."""
        return replace(self, memory=2 * self.memory, cpu_s=20 * self.cpu_s, wall_s=15 * self.wall_s)

    def wall(self, size: int) -> float:
        """Give the seconds that the parent waits for a file of that many bytes."""
        return self.wall_s + size / MIB


_SILENT: Final = {"ORT_DISABLE_TELEMETRY": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1"}
"""The nursery's whole environment: no telemetry, and no thread but the one that forks."""
_BOOT: Final = """
import sys
sys.path[:0] = sys.argv[2:]
from ingestion.readers.confine import no_connections
no_connections()
from {module} import serve
serve()
"""


class Sandbox:
    """Reads files in confined children, at most `width` at a time; safe for many threads and event loops.

    `module` serves the nursery and exists for tests that plant a hostile reader. `close` ends it; it starts anew when
    it is needed again, or when something killed it.
    """

    def __init__(self, *, width: int = 4, module: str = "ingestion.readers.main", paths: tuple[str, ...] = ()) -> None:
        self._module = module
        self._paths = paths
        self._lock = threading.Lock()
        self._nursery: tuple[subprocess.Popen[bytes], Connection] | None = None
        self._threads = ThreadPoolExecutor(width, thread_name_prefix="sandbox")

    async def read_file(
        self, data: bytes, *, declared_type: str | None = None, name_suffix: str = "", limits: Limits | None = None
    ) -> Reading:
        """Read a file in a child of its own; a cancelled call kills the child.

        `name_suffix` is the end of the file's name with its dot. Raises `ReaderError` with one of the outcome codes.
        """
        job = Job((declared_type or "").partition(";")[0].strip().lower()[:200], name_suffix.lower()[:20])
        leash = _Leash()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, self._read, data, job, limits or Limits(), leash)
        except asyncio.CancelledError:
            leash.cut()
            raise

    def capabilities(self) -> dict[str, bool]:
        """Say which confinements hold on this system, by trying them in a child that reads nothing. For `doctor`."""
        held: dict[str, str] = {}

        def ask(pipe: Connection) -> None:
            pipe.send_bytes(_encode(Job(probe=True)))
            held.update(msgspec.msgpack.decode(pipe.recv_bytes(65_536), type=dict[str, str]))

        reason = self._with_child(ask, Limits(wall_s=10), 0, _Leash())
        return {name: not why for name, why in held.items()} if not reason else {"a child that answers": False}

    def warm(self) -> None:
        """Start the nursery now, so that the first file does not wait for it."""
        with self._lock:
            self._control()

    def close(self) -> None:
        """End the nursery and with it every child."""
        with self._lock:
            nursery, self._nursery = self._nursery, None
        if nursery is not None:
            _end(*nursery)

    def _read(self, data: bytes, job: Job, limits: Limits, leash: "_Leash") -> Reading:
        """Read a file; where pages hold no text, once more with text recognition, under limits of its own."""
        first = self._once(data, job, limits, leash)
        if isinstance(first, Reading) and first.unread:
            try:
                second = self._once(data, msgspec.structs.replace(job, ocr=True), limits.for_ocr(), leash)
            except ReaderError:
                second = first
            return first if isinstance(second, Failure) else second
        if isinstance(first, Failure) and first.found in {"scan", "image"}:
            first = self._once(data, msgspec.structs.replace(job, ocr=True), limits.for_ocr(), leash)
        if isinstance(first, Failure):
            raise outcome(first.reason, first.found)
        return first

    def _once(self, data: bytes, job: Job, limits: Limits, leash: "_Leash") -> Reading | Failure:
        got: list[Reading | Failure] = []
        room = limits.growth * len(data) + 65_536

        def put(pipe: Connection) -> None:
            pipe.send_bytes(_encode(job))
            pipe.send_bytes(data)
            outline = msgspec.msgpack.decode(pipe.recv_bytes(min(room, MAX_OUTLINE)), type=Outline | Failure)
            if isinstance(outline, Failure):
                got.append(outline)
                return
            text = pipe.recv_bytes(min(room, MAX_TEXT)).decode("utf-8")
            rest = outline.unread, outline.recognised
            got.append(Reading(text, outline.pages, outline.blocks, outline.media_type, *rest))

        reason = self._with_child(put, limits, len(data), leash)
        if reason or not got:
            raise outcome(reason)
        if isinstance(got[0], Reading) and not _in_order(got[0]):
            raise outcome("parse_crash")
        return got[0]

    def _with_child(self, talk: Callable[[Connection], None], limits: Limits, size: int, leash: "_Leash") -> str:
        """Talk to a fresh child under the clock; gives "" or the outcome code of a talk that came to nothing."""
        ours, theirs = Pipe()
        leash.end, far = Pipe()
        with ours, leash.end:
            with theirs, far:
                self._ask_for_child(limits.confinement(size), theirs, far)
            if leash.was_cut:  # cancelled before there was a child to kill
                return "parse_timeout"
            clock = threading.Timer(limits.wall(size), leash.cut)
            clock.daemon = True
            clock.start()
            try:
                talk(ours)
            except (EOFError, ConnectionError):
                return leash.blame()
            except (msgspec.DecodeError, UnicodeDecodeError):
                return "parse_crash"
            except OSError:  # "bad message length": more than the limit
                return "bomb"
            finally:
                clock.cancel()
        return ""

    def _ask_for_child(self, confinement: Confinement, pipe: Connection, leash: Connection) -> None:
        with self._lock:
            for attempt in itertools.count():
                process, control = self._control()
                try:
                    control.send_bytes(_encode(confinement))
                    send_handle(control, pipe.fileno(), process.pid)
                    send_handle(control, leash.fileno(), process.pid)
                except OSError:
                    self._nursery = None
                    _end(process, control)
                    if attempt:
                        raise outcome("parse_crash") from None
                else:
                    return

    def _control(self) -> tuple[subprocess.Popen[bytes], Connection]:
        """Give the running nursery, started if there is none: an empty environment, no open file but its pipe."""
        if self._nursery is None:
            ours, theirs = Pipe()
            root = str(Path(__file__).resolve().parent.parent)
            libraries = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
            command = [sys.executable, "-I", "-S", "-c", _BOOT.format(module=self._module), str(theirs.fileno())]
            with theirs:
                process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
                    [*command, root, *libraries, *self._paths],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=_SILENT,
                    cwd="/",
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            self._nursery = process, ours
        return self._nursery


class _Leash:
    """The parent's hold on one child: once it is cut or let go, the nursery kills the child's process group."""

    def __init__(self) -> None:
        self.end: Connection | None = None
        self.was_cut = False

    def cut(self) -> None:
        """Have the child killed: its time is over, or nobody waits for it any more."""
        self.was_cut = True
        try:
            if self.end is not None:
                self.end.send_bytes(b"")
        except OSError:
            pass  # it is gone already

    def blame(self) -> str:
        """Give the outcome code of a child that ended without an answer."""
        if self.was_cut or self.end is None:
            return "parse_timeout"
        try:
            status = msgspec.msgpack.decode(self.end.recv_bytes(64), type=int) if self.end.poll(2.0) else 0
        except (EOFError, OSError, msgspec.DecodeError):
            return "parse_crash"
        # SIGKILL that we did not send comes from the system, for memory; SIGXCPU is the limit on CPU time
        by_signal: dict[int, str] = {signal.SIGXCPU: "parse_timeout", signal.SIGKILL: "parse_memory"}
        return by_signal.get(os.WTERMSIG(status), "parse_crash") if os.WIFSIGNALED(status) else "parse_crash"


def _end(process: subprocess.Popen[bytes], control: Connection) -> None:
    control.close()
    process.kill()
    process.wait()


def _in_order(reading: Reading) -> bool:
    """Say whether pages and blocks are slices of the text in order, as a child that was taken over might not send."""
    length = len(reading.text)
    for spans in (reading.pages, reading.blocks):
        at = 0
        for span in spans:
            if not at <= span.start <= span.end <= length:
                return False
            at = span.end
    return bool(reading.pages) and all(page.number == at for at, page in enumerate(reading.pages, 1))


_shared = Sandbox()
atexit.register(_shared.close)


async def read_file(
    data: bytes, *, declared_type: str | None = None, name_suffix: str = "", limits: Limits | None = None
) -> Reading:
    """Read a file in a child of its own, out of the one nursery of this process. See `Sandbox.read_file`."""
    return await _shared.read_file(data, declared_type=declared_type, name_suffix=name_suffix, limits=limits)


def warm() -> None:
    """Start the nursery of this process now. See `Sandbox.warm`."""
    _shared.warm()


def recognises() -> bool:
    """Say whether Tesseract's models are installed, so that scans can be read."""
    return bool(models())


def capabilities() -> dict[str, bool]:
    """Say which confinements hold on this system. See `Sandbox.capabilities`."""
    return _shared.capabilities()
