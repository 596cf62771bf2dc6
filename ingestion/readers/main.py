"""The child's side of the sandbox: a nursery that forks one confined child for every file.

The nursery has loaded the readers once and never sees a file; each child gets two pipes, confines itself, reads one
file, answers with one outline and one text, and is gone. So a file costs a fork instead of an interpreter's start, and
nothing of one file reaches the next.
Rules kept here: bytes in, msgpack out; nothing is unpickled (`send_bytes` and `recv_bytes` alone); a child holds no
pipe but its own; the nursery ends when its parent does.
"""

import contextlib
import gc
import os
import select
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Final, NoReturn

import msgspec

from ingestion.readers import (
    DOCX,
    HTML,
    MARKDOWN,
    MAX_OUTLINE,
    MAX_TEXT,
    PDF,
    PLAIN,
    Confinement,
    Failure,
    Job,
    Outline,
    Reading,
    UnreadableError,
    office,
    pdf,
    plain,
)
from ingestion.readers.confine import confine, no_new_privileges

Read = Callable[[bytes, Job], Reading]

_encode = msgspec.msgpack.encode

FOREIGN: Final = (
    (b"\x89PNG", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF8", "image"),
    (b"II*\x00", "image"),
    (b"MM\x00*", "image"),
    (b"{\\rtf", "rtf"),
    (b"\x1f\x8b", "archive"),
    (b"7z\xbc\xaf", "archive"),
    (b"Rar!", "archive"),
    (b"BZh", "archive"),
    (b"\xfd7zXZ", "archive"),
    (b"\x7fELF", "program"),
    (b"MZ", "program"),
    (b"SQLite format 3\x00", "database"),
)
"""First bytes of types that we name but do not read."""
OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
ENCRYPTED_PACKAGE: Final = "EncryptedPackage".encode("utf-16-le")


def read(data: bytes, job: Job) -> Reading:
    """Read a file as what its bytes say it is; name and declared type only decide between plain, Markdown and HTML."""
    media_type, decoded = sniff(data, job)
    if media_type == PDF:
        return pdf.read(data)
    if media_type == DOCX:
        return office.read(data)
    text = plain.decode(data) if decoded is None else decoded
    return plain.read(text, media_type)


def sniff(data: bytes, job: Job) -> tuple[str, str | None]:
    """Say what a file is by its first bytes, a ZIP by its list of contents; gives the text too where it had to decode.

    Raises `UnreadableError`: `unsupported_type`, `encrypted_file`, `empty_text`, or what the ZIP's check found.
    """
    if not data:
        raise UnreadableError("empty_text", "nothing")
    if b"%PDF-" in data[:1024]:  # readers allow as much before it: ISO 32000-1, annex H.3, note 13
        return PDF, None
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return office.kind(data), None
    if data.startswith(OLE):
        if ENCRYPTED_PACKAGE in data:
            raise UnreadableError("encrypted_file", "office")
        raise UnreadableError("unsupported_type", "old office")
    for magic, found in FOREIGN:
        if data.startswith(magic) and plain.is_binary(data):
            raise UnreadableError("unsupported_type", found)
    if data.startswith(b"{\\rtf"):
        raise UnreadableError("unsupported_type", "rtf")
    text = plain.decode(data)
    if plain.looks_like_html(text):
        return HTML, text
    if job.suffix in {".html", ".htm", ".xhtml"} or job.declared_type in {HTML, "application/xhtml+xml"}:
        return HTML, text
    if job.suffix in {".md", ".markdown"} or job.declared_type in {MARKDOWN, "text/x-markdown"}:
        return MARKDOWN, text
    return PLAIN, text


def serve(read: Read = read) -> NoReturn:
    """Wait for files on the pipe whose number stands in `sys.argv[1]`; fork a child for each; never comes back."""
    no_new_privileges()
    control = Connection(int(sys.argv[1]))
    gc.collect()
    gc.freeze()  # or the collector would copy every page that parent and child share
    poll = select.poll()
    poll.register(control.fileno(), select.POLLIN)
    leashes: dict[int, int] = {}  # leash -> pid of its child
    children: dict[int, tuple[int, Connection]] = {}  # pidfd -> pid and leash
    while True:
        for ready, _ in poll.poll():
            if ready == control.fileno():
                try:
                    limits = msgspec.msgpack.decode(control.recv_bytes(4096), type=Confinement)
                    pipe, leash = recv_handle(control), Connection(recv_handle(control))
                except (EOFError, OSError):
                    os._exit(0)  # the parent is gone; the children follow by PR_SET_PDEATHSIG
                nursery, pid = os.getpid(), os.fork()
                if pid == 0:
                    _child(pipe, limits, read, nursery)
                os.close(pipe)
                pidfd = os.pidfd_open(pid)
                leashes[leash.fileno()] = pid
                children[pidfd] = pid, leash
                poll.register(leash.fileno(), select.POLLIN)
                poll.register(pidfd, select.POLLIN)
            elif ready in leashes:  # a word or a hang-up: the file's time is over
                _kill(leashes.pop(ready))
                poll.unregister(ready)
            elif ready in children:
                pid, leash = children.pop(ready)
                _, status = os.waitpid(pid, 0)
                if leashes.pop(leash.fileno(), None) is not None:
                    poll.unregister(leash.fileno())
                poll.unregister(ready)
                os.close(ready)
                with contextlib.suppress(OSError):  # the parent had its answer and did not wait
                    leash.send_bytes(_encode(status))
                leash.close()


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _child(pipe: int, limits: Confinement, read: Read, nursery: int) -> NoReturn:
    """Read one file and end; `os._exit` runs nothing that the nursery had planned for its own end."""
    try:
        os.dup2(pipe, 3)
        os.closerange(4, 1 << 20)
        parent = Connection(3)
        held = confine(limits)
        if os.getppid() != nursery:  # it was gone before we had asked to die with it
            os._exit(0)
        job = msgspec.msgpack.decode(parent.recv_bytes(4096), type=Job)
        if job.probe:
            parent.send_bytes(_encode(held))
        else:
            _answer(parent, parent.recv_bytes(), job, read)
    finally:
        os._exit(0)


def _answer(parent: Connection, data: bytes, job: Job, read: Read) -> None:
    try:
        reading = read(data, job)
        text = reading.text.encode("utf-8")
        outline = Outline(reading.media_type, reading.pages, reading.blocks, reading.pages_without_text)
        first = _encode(outline)
        if len(text) > MAX_TEXT or len(first) > MAX_OUTLINE:
            raise UnreadableError("bomb", "text")
    except UnreadableError as error:
        parent.send_bytes(_encode(Failure(error.reason, error.found)))
    except MemoryError:
        parent.send_bytes(_encode(Failure("parse_memory")))
    except Exception:  # whatever a stranger's file provokes; the text of it may quote the file
        parent.send_bytes(_encode(Failure("parse_crash")))
    else:
        parent.send_bytes(first)
        parent.send_bytes(text)
