"""edge_host: the child process of an embedded shard; `python -m residency.outlets.shards.edge_host`.

Qdrant Edge keeps the GIL while it works, so it never runs in the service's process; `edge_child` starts this one per
Site and talks to it over stdin and stdout in the words of `edge_wire`. Rules kept here:

- Without a WAL Qdrant takes no lock: `shard.lock` is ours, held by flock as long as this process lives.
- A call whose deadline is past is dropped unread; a purge gets the time between other calls.
- The child lives no longer than its parent, dumps no core, and has no environment but what `edge_child` lists.
- It has no network: an empty namespace where the system gives one, and in any case a Tripwire that allows nothing.
"""

import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from residency.egress import Tripwire, seclude

if __name__ == "__main__":
    seclude()  # before a library starts a thread, which would stay outside

import msgspec

from residency.outlets.shards import edge_wire as wire
from residency.outlets.shards.edge_store import HostFaultError, Store

LOCK_PATIENCE: Final = 1.0
"""Seconds to wait for a lock: a killed owner's child needs a moment to die."""
PIPE_SIZE: Final = 1024 * 1024
"""Bytes, the most that Linux gives without privilege: a search's answer leaves in one write."""
PR_SET_PDEATHSIG: Final = 1


def hold(folder: Path, opening: wire.Opening) -> int:
    """Take `shard.lock` and write into it who holds it; give the handle that must stay open."""
    handle = os.open(folder / "shard.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    patience = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            if time.monotonic() > patience:
                holder = os.pread(handle, 4096, 0).decode(errors="replace")
                raise HostFaultError("locked", holder or "an unnamed process") from None
            time.sleep(0.05)
    holder = json.dumps({"pid": opening.parent, "child": os.getpid(), "command": opening.command})
    os.ftruncate(handle, 0)
    os.pwrite(handle, holder.encode(), 0)
    return handle


_decode_call = msgspec.msgpack.Decoder(wire.Call).decode
_decode_op = msgspec.msgpack.Decoder(wire.Op).decode
NOTHING: Final = msgspec.Raw(wire.packed(None))


def receive(handle: int) -> bytes | None:
    """Read one message; None at the end of the stream."""
    head = read_exactly(handle, wire.LENGTH.size)
    if head is None:
        return None
    (size,) = wire.LENGTH.unpack(head)
    if size > wire.LARGEST:
        raise HostFaultError("broken", f"a message of {size} bytes was announced")
    return read_exactly(handle, size)


def read_exactly(handle: int, size: int) -> bytes | None:
    """Read `size` bytes; None when the stream ends before."""
    parts, missing = [], size
    while missing:
        part = os.read(handle, missing)
        if not part:
            return None
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def send(handle: int, reply: wire.Reply) -> None:
    """Write one message whole."""
    view = memoryview(wire.framed(reply))
    while view:
        view = view[os.write(handle, view) :]


def answer(store: Store, op: wire.Op) -> object:
    """Do one op other than a purge."""
    match op:
        case wire.Search():
            return store.search(op)
        case wire.Words():
            return store.words(op)
        case wire.Put():
            return store.put(op)
        case wire.Retrieve():
            return store.retrieve(op)
        case wire.Count():
            return store.count(op)
        case wire.Ids():
            return store.ids(op)
        case wire.Delete():
            return store.delete(op)
        case _:
            return store.info()


def attempt(number: int, work: Any) -> wire.Reply:
    """Do `work` and pack its result, or the Fault in its place; only the kind of an unforeseen error is told."""
    try:
        return wire.Reply(number, msgspec.Raw(wire.packed(work())))
    except HostFaultError as error:
        return wire.Reply(number, NOTHING, error.fault)
    except Exception as error:
        return wire.Reply(number, NOTHING, wire.Fault("broken", f"the shard failed with {type(error).__name__}"))


def serve(store: Store, source: int, sink: int) -> None:
    """Answer calls until the stream ends; purges, in turn, get the time between them."""
    purges: list[int] = []
    running: Iterator[dict[str, Any] | None] | None = None
    while True:
        if purges and not select.select([source], [], [], 0)[0]:
            running = running or store.purge()
            reply = attempt(purges[0], lambda steps=running: next(steps))
            if reply.fault is not None or bytes(reply.result) != bytes(NOTHING):
                send(sink, reply)
                purges.pop(0)
                running = None
            continue
        message = receive(source)
        if message is None:
            return
        call = _decode_call(message)
        if time.monotonic() > call.deadline:
            continue  # nobody waits for it
        op = _decode_op(call.op)
        if isinstance(op, wire.Purge):
            purges.append(call.id)
        else:
            send(sink, attempt(call.id, lambda op=op: answer(store, op)))


def settle(opening: wire.Opening) -> None:
    """Die with the parent, dump no core, make files for the owner alone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != opening.parent:
        sys.exit(0)  # it died before the line above
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says when to end


def main() -> None:
    """Take the opening from stdin, answer calls on what was stdout; stray prints go to stderr."""
    Tripwire(strict=True).install()
    source, sink = 0, os.dup(1)
    os.dup2(2, 1)
    fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    message = receive(source)
    if message is None:
        return
    opening = msgspec.msgpack.decode(message, type=wire.Opening)
    settle(opening)
    try:
        folder = Path(opening.folder)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = hold(folder, opening)
        store = Store(folder, dimension=opening.dimension, free_share=opening.free_share)
    except HostFaultError as error:
        send(sink, wire.Reply(0, NOTHING, error.fault))
        return
    except (OSError, ValueError) as error:
        send(sink, wire.Reply(0, NOTHING, wire.Fault("broken", f"the shard's folder: {error}")))
        return
    send(sink, attempt(0, store.info))
    serve(store, source, sink)
    store.close()
    os.close(lock)


if __name__ == "__main__":
    main()
