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
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import PurePosixPath
from typing import Final, NoReturn

import msgspec

from ingestion.readers import (
    MAX_MEMBER,
    MAX_OUTLINE,
    MAX_TEXT,
    Confinement,
    Failure,
    Job,
    Member,
    Outline,
    Reading,
    TextBuilder,
    UnreadableError,
    archive,
    book,
    joined,
    mail,
    ocr,
    office,
    opendocument,
    pdf,
    plain,
    rtf,
    sheets,
    slides,
    sniff,
    tidy,
)
from ingestion.readers.confine import confine, no_new_privileges
from ingestion.readers.kinds import CSV, DOCX, EML, EPUB, IMAGES, MSG, ODP, ODT, PDF, PLAIN, PPTX, RTF, SHEETS, ZIP

Read = Callable[[bytes, Job], Reading]

_encode = msgspec.msgpack.encode

READERS: Final[dict[str, Callable[[bytes], Reading]]] = {
    DOCX: office.read,
    PPTX: slides.read,
    RTF: rtf.read,
    EPUB: book.read,
    EML: mail.read_eml,
    MSG: mail.read_msg,
    ZIP: archive.read,
}
UNPACKERS: Final[dict[str, Callable[[bytes], Iterator[tuple[Member, bytes]]]]] = {
    PDF: pdf.unpack,
    EML: mail.unpack_eml,
    MSG: mail.unpack_msg,
    ZIP: archive.unpack,
}


MAX_DEPTH: Final = 3
"""How deep files may lie in files."""


def read(data: bytes, job: Job, depth: int = 0) -> Reading:
    """Read a file as what its bytes say it is, once name and declared type do not say otherwise.

    Attachments and the files of an archive follow the file's own text, each on pages of its own.
    """
    kind, text = sniff.sniff(data, job)
    reading = _read(data, kind, text, ocr_too=job.ocr)
    if kind in UNPACKERS:
        reading = joined(reading, _members(data, kind, job, depth + 1))
    if not reading.blocks:
        raise UnreadableError("empty_text", "blank")
    return reading


def _members(data: bytes, kind: str, job: Job, depth: int) -> Iterator[tuple[str, Reading]]:
    """Read each file within a file; what cannot be read is named with its cause, and the rest goes on."""
    for member, content in UNPACKERS[kind](data):
        if len(content) > MAX_MEMBER:
            raise UnreadableError("bomb", "size")
        name = tidy(member.name)
        suffix = PurePosixPath(name).suffix.lower()[:20]
        try:
            if depth > MAX_DEPTH:
                raise UnreadableError("bomb", "depth")
            yield name, read(content, Job(_declared(member), suffix, ocr=job.ocr), depth)
        except UnreadableError as error:
            if error.reason == "bomb":
                raise
            left = TextBuilder()
            left.put("note", f"{name}: not read ({error.reason})")
            if error.found in {"scan", "image"}:
                left.unread.append(1)
            yield name, left.reading(PLAIN)


def _declared(member: Member) -> str:
    kind = member.media_type.lower()
    return "" if kind.startswith("application/octet") else kind[:200]


def _read(data: bytes, kind: str, text: str | None, *, ocr_too: bool) -> Reading:
    if kind == PDF:
        return pdf.read(data, ocr.read_pages if ocr_too else None)
    if kind in READERS:
        return READERS[kind](data)
    if kind in SHEETS:
        return sheets.read(data, kind)
    if kind in {ODT, ODP}:
        return opendocument.read(data, kind)
    if kind in IMAGES and ocr_too:
        return ocr.read_image(data, kind)
    if kind in IMAGES:
        raise UnreadableError("empty_text", "image")
    text = plain.decode(data) if text is None else text
    return sheets.read_csv(text) if kind == CSV else plain.read(text, kind)


def serve(read: Read = read) -> NoReturn:
    """Wait for files on the pipe whose number stands in `sys.argv[1]`; fork a child for each; never comes back."""
    no_new_privileges()
    sniff.model()
    ocr.engine()
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
        outline = Outline(reading.media_type, reading.pages, reading.blocks, reading.unread, reading.recognised)
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
