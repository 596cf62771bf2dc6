"""Rooms: network namespaces of a test's own, joined by veth pairs, with witnesses of everything that leaves one.

A room lives as long as the process that holds it, and that ends when its stdin closes: nothing stays behind, even when
the test is killed, and no name outside the test is used. IPv6 is off before the first link exists. A socket belongs to
the namespace of the thread that made it, so doubles listen in a room although their threads live outside.
Run as a program it holds a room, or starts a command inside one, with a file system on which only the places named to
it can be written.
"""

import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

NEWNS, NEWNET = 0x00020000, 0x40000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG = 1
COVERED = ("/tmp", "/var/tmp", "/dev/shm")
"""Folders that anybody may write to; a command in a room gets empty ones of its own."""
ETH_P_ALL = 0x0003
PACKET_OUTGOING = 4
SOL_PACKET, PACKET_STATISTICS, SO_RCVBUFFORCE = 263, 6, 33
libc = ctypes.CDLL(None, use_errno=True)


def _must(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Room:
    """One namespace; use as a context manager."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            [sys.executable, "-I", __file__, "hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            raise OSError("no network namespace could be made")
        self.pid = self._holder.pid

    def __enter__(self) -> "Room":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait(10)

    def do(self, work: Callable[[], T]) -> T:
        """Do a piece of work in a thread that stands in this room; sockets and processes it makes stay here."""
        done: Future[T] = Future()

        def inside() -> None:
            try:
                self.enter()
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        return done.result()

    def enter(self) -> None:
        """Move the calling thread in here; it cannot be moved back, so it should be one that ends."""
        handle = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _must(libc.setns(handle, NEWNET))
        finally:
            os.close(handle)

    def run(self, *command: str, stdin: str = "") -> str:
        """Run a tool in here, such as `ip` or `nft`; gives what it printed."""
        done = self.do(lambda: subprocess.run(command, input=stdin, capture_output=True, text=True, check=False))
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def join(self, other: "Room", name: str, near: str, far: str) -> None:
        """Lay a cable: it is called `name` here and `eth0` there, with one address at each end."""
        self.run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(other.pid))
        for room, link, own, peer in ((self, name, near, far), (other, "eth0", far, near)):
            room.run("ip", "address", "add", f"{own}/32", "dev", link)
            room.run("ip", "link", "set", link, "up")
            room.run("ip", "route", "add", f"{peer}/32", "dev", link, "src", own)

    def start(
        self, *command: str, resolver: str, writable: Sequence[Path], environment: Mapping[str, str], output: Path
    ) -> "subprocess.Popen[bytes]":
        """Start a program in here that asks `resolver` for names and can write to nothing but what is named."""
        order = {"room": self.pid, "resolver": resolver, "writable": [str(path) for path in writable]}
        with output.open("wb") as sink:
            return subprocess.Popen(
                [sys.executable, "-I", __file__, "enter", json.dumps(order), *command],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd="/",
            )


def strewn(process: "subprocess.Popen[bytes]") -> list[str]:
    """List the files that a program started in a room left in the folders that anybody may write to."""
    found = []
    for folder in COVERED:
        root = Path(f"/proc/{process.pid}/root{folder}")
        own = {str(Path(f"/proc/{process.pid}/root") / Path(each).relative_to("/")) for each in _rooted(process)}
        for path in root.rglob("*"):
            inside = any(str(path) == each or str(path).startswith(each + "/") for each in own)
            if path.is_file() and not inside:
                found.append(str(path).removeprefix(f"/proc/{process.pid}/root"))
    return sorted(found)


def _rooted(process: "subprocess.Popen[bytes]") -> list[str]:
    """List the places mounted below a covered folder: what was bound back into it."""
    lines = Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()
    places = [line.split()[4] for line in lines]
    return [place for place in places if any(place.startswith(f"{folder}/") for folder in COVERED)]


# --- witnesses --------------------------------------------------------------------------------------------------------


class Capture:
    """Every IP packet that leaves a room, by protocol, destination and port; also those that a filter let out."""

    def __init__(self, room: Room) -> None:
        self.seen: Counter[tuple[str, str, int]] = Counter()
        self._line = room.do(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)))
        self._line.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 * 1024 * 1024)
        self._line.settimeout(0.1)
        self._over = threading.Event()
        self._missed = 0
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                packet, (link, protocol, direction, *_) = self._line.recvfrom(65_535)
            except TimeoutError:
                continue
            if link == "lo" or direction != PACKET_OUTGOING or protocol not in {0x0800, 0x86DD}:
                continue
            self.seen[_destination(packet)] += 1

    def stop(self) -> int:
        """End, and give how many packets were missed because the buffer was full; again: the same."""
        if not self._over.is_set():
            self._over.set()
            self._thread.join()
            _, self._missed = struct.unpack("II", self._line.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
            self._line.close()
        return self._missed


def _destination(packet: bytes) -> tuple[str, str, int]:
    if packet[0] >> 4 == 6:
        return f"ip6/{packet[6]}", socket.inet_ntop(socket.AF_INET6, packet[24:40]), 0
    head = (packet[0] & 0x0F) * 4
    kind = {6: "tcp", 17: "udp"}.get(packet[9], f"ip/{packet[9]}")
    port = struct.unpack("!H", packet[head + 2 : head + 4])[0] if kind in {"tcp", "udp"} else 0
    return kind, socket.inet_ntoa(packet[16:20]), port


class NameServer:
    """A resolver that writes down what it is asked; unknown names are told to stand at `elsewhere`."""

    def __init__(self, room: Room, place: str, known: Mapping[str, str], *, elsewhere: str) -> None:
        self.asked: list[str] = []
        self._known, self._elsewhere = known, elsewhere
        self._line = room.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        room.do(lambda: self._line.bind((place, 53)))
        self._line.settimeout(0.1)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                question, caller = self._line.recvfrom(4096)
            except TimeoutError:
                continue
            name, end = _name(question)
            self.asked.append(name)
            kind = struct.unpack("!H", question[end : end + 2])[0]
            address = self._known.get(name, self._elsewhere) if kind == 1 else ""
            answer = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton(address) if address else b""
            head = question[:2] + struct.pack("!HHHHH", 0x8180, 1, 1 if answer else 0, 0, 0)
            self._line.sendto(head + question[12 : end + 4] + answer, caller)

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self._line.close()


def _name(question: bytes) -> tuple[str, int]:
    """Give the name asked for, and where it ends. Source: RFC 1035 section 4.1.2."""
    parts, at = [], 12
    while size := question[at]:
        parts.append(question[at + 1 : at + 1 + size].decode("ascii", "replace"))
        at += size + 1
    return ".".join(parts).lower(), at + 1


# --- as a program -----------------------------------------------------------------------------------------------------


def _hold() -> None:
    _must(libc.unshare(NEWNET))
    for each in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{each}/disable_ipv6").write_text("1")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    print("ready", flush=True)
    sys.stdin.read()


def _mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    _must(libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()))


def _enter(order: dict[str, Any], command: list[str]) -> None:
    _must(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
    handle = os.open(f"/proc/{order['room']}/ns/net", os.O_RDONLY)
    _must(libc.setns(handle, NEWNET))
    os.close(handle)
    _must(libc.unshare(NEWNS))
    _mount("none", "/", flags=MS_REC | MS_PRIVATE)
    program = Path(__file__).parents[2]
    kept = {path: os.open(path, os.O_PATH) for path in [*order["writable"], str(program), sys.prefix]}
    for folder in COVERED:
        if Path(folder).is_dir():
            _mount("tmpfs", folder, "tmpfs", data="mode=1777")
    for path, handle in kept.items():
        Path(path).mkdir(parents=True, exist_ok=True)
        _mount(f"/proc/self/fd/{handle}", path, flags=MS_BIND | MS_REC)
    own = Path("/dev/shm/of-this-room")
    own.mkdir()
    for name, text in (("resolv.conf", f"nameserver {order['resolver']}\n"), ("nsswitch.conf", "hosts: files dns\n")):
        (own / name).write_text(text)
        _mount(str(own / name), f"/etc/{name}", flags=MS_BIND)
        (own / name).unlink()
    own.rmdir()
    for path in ("/", str(program), sys.prefix):
        _mount("none", path, flags=MS_REMOUNT | MS_BIND | MS_RDONLY)
    os.execvp(command[0], command)


if __name__ == "__main__":
    if sys.argv[1] == "hold":
        _hold()
    else:
        _enter(json.loads(sys.argv[2]), sys.argv[3:])
