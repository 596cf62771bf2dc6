"""Egress: a tripwire on what this process connects to, and a meter of what nobody declared.

It sees, through Python's audit hooks (PEP 578), every connect, datagram and name lookup that goes through Python's own
`socket` module: httpx, llama-index, qdrant-client over REST, asyncio's own loop. Allowed are the host and port pairs of
the Fleet, the addresses that a lookup of such a host gave in the last minute, and Unix sockets. The name of an address
is never asked for: that question, too, goes to a stranger's resolver. Listening is not its concern.
What it cannot see: uvloop (so the house refuses to stand on it in strict mode), gRPC, libpq beyond its name lookup,
Rust and C libraries with sockets of their own, and child processes. It detects mistakes; it confines nobody who means
harm. What confines is `seclude`, and outside the process nftables and systemd's address filter (docs/egress.md).
"""

import ctypes
import ipaddress
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from residency.errors import SiteError

_TARGETS: Final = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1}
"""Audit events that name a destination, and where it stands among their arguments."""
_LOOKUPS: Final = frozenset({"socket.getaddrinfo", "socket.gethostbyname"})
_REVERSE: Final = frozenset({"socket.gethostbyaddr", "socket.getnameinfo"})
"""Audit events that ask for the name of an address; what they are asked of stands first, in a tuple for the second."""
_REMEMBER: Final = 60.0
"""Seconds for which an address that an allowed lookup gave may be connected to."""
_MOST_KEPT: Final = 256

Destination = tuple[str, int]


class UndeclaredError(SiteError, PermissionError):
    """A connection that nobody declared; an `OSError` too, so that libraries take it for a connection that failed."""


class Tripwire:
    """Counts connections to undeclared addresses; in strict mode it also refuses them with an `UndeclaredError`.

    `told` is called for each; it must not connect to anything.
    """

    def __init__(self, *, strict: bool = False, told: Callable[[], None] | None = None) -> None:
        self.strict = strict
        self._told = told
        self._allowed: set[Destination] = set()
        self._hosts: set[str] = set()
        self._answers: dict[Destination, float] = {}
        self._seen: Counter[Destination] = Counter()
        self._unexpected = 0
        self._lock = threading.Lock()

    def allow(self, host: str, port: int) -> None:
        """Declare a destination: a name or an address, and its port."""
        with self._lock:
            self._allowed.add((_plain(host), port))
            self._hosts.add(_plain(host))

    @property
    def unexpected(self) -> int:
        """How often something undeclared was looked up or connected to; the metric of that name."""
        return self._unexpected

    def seen(self) -> dict[Destination, int]:
        """Give the undeclared destinations with their counts, for `doctor`; a lookup counts under port 0."""
        with self._lock:
            return dict(self._seen)

    def install(self) -> None:
        """Watch from now on, in place of a Tripwire installed before; Python never forgets a hook, so there is one."""
        _watch(self)

    def uninstall(self) -> None:
        """Stop watching."""
        if _active is self:
            _watch(None)

    # --- called by the hook ---------------------------------------------------------------------------------------

    def on_connect(self, kind: int, address: object) -> None:
        """Judge a destination; `kind` is the socket's family. Raises `UndeclaredError` in strict mode."""
        if kind == socket.AF_UNIX or address is None:
            return
        if kind not in {socket.AF_INET, socket.AF_INET6} or not isinstance(address, tuple):
            self._trip((f"family {int(kind)}", 0))
            return
        place = (_plain(str(address[0])), int(address[1]))
        with self._lock:
            known = place in self._allowed or self._answers.get(place, 0.0) > time.monotonic()
        if not known:
            self._trip(place)

    def on_lookup(self, host: object) -> None:
        """Judge a name to be looked up; an address needs none. Raises `UndeclaredError` in strict mode."""
        name = _spelt(host)
        if name and name not in self._hosts and not _is_address(name):
            self._trip((name, 0))

    def on_reverse(self, address: object) -> None:
        """Judge a question for the name of an address: nothing here needs one. Raises as `on_lookup` does."""
        host = address[0] if isinstance(address, tuple) and address else address
        self._trip((_spelt(host), 0))

    def on_answer(self, host: str, found: list[tuple[Any, ...]]) -> None:
        """Remember the addresses that a lookup of a declared host (spelt plainly) gave, for its declared ports."""
        until = time.monotonic() + _REMEMBER
        with self._lock:
            ports = [port for name, port in self._allowed if name == host]
            self._answers = {place: end for place, end in self._answers.items() if end > time.monotonic()}
            for *_, address in found:
                self._answers.update({(_plain(str(address[0])), port): until for port in ports})

    def _trip(self, place: Destination) -> None:
        with self._lock:
            self._unexpected += 1
            if place in self._seen or len(self._seen) < _MOST_KEPT:
                self._seen[place] += 1
        if self._told is not None:
            self._told()
        if self.strict:
            raise UndeclaredError(
                "a connection to an undeclared address was refused",
                hint="`domicile doctor` names it; if it is meant, declare it as a Site in fleet.toml",
            )


def watching() -> Tripwire | None:
    """Give the Tripwire that watches this process, if one does."""
    return _active


_active: Tripwire | None = None
_hooked = False
_look_up = socket.getaddrinfo


def _watch(tripwire: Tripwire | None) -> None:
    global _active, _hooked  # noqa: PLW0603 - the hook is one per process, as Python's is
    _active = tripwire
    if not _hooked:
        _hooked = True
        sys.addaudithook(_hook)
    # a hook sees questions and not answers, so the lookup itself is wrapped while someone watches
    socket.getaddrinfo = _look_up if tripwire is None else _answering


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    """Called by Python for every audit event, so the first line has to be quick."""
    if _active is None or not event.startswith("socket."):
        return
    if event in _TARGETS:
        _active.on_connect(arguments[0].family, arguments[_TARGETS[event]])
    elif event in _LOOKUPS:
        _active.on_lookup(arguments[0])
    elif event in _REVERSE:
        _active.on_reverse(arguments[0])


def _answering(host: Any, *arguments: Any, **named: Any) -> list[tuple[Any, ...]]:
    """Look up as `socket.getaddrinfo` does and tell the Tripwire what was found."""
    found: list[tuple[Any, ...]] = _look_up(host, *arguments, **named)
    if _active is not None:
        _active.on_answer(_spelt(host), found)  # anyio, and so httpx, hands over bytes
    return found


def addresses(host: str) -> list[str]:
    """Give the addresses that a name has now, sorted; an address is its own. Raises `SiteError` for an unknown name."""
    if _is_address(host):
        return [_plain(host)]
    try:
        found = _look_up(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise SiteError(
            f"{host} has no address here", hint="ask where the service will run, or mend the name in fleet.toml"
        ) from error
    return sorted({_plain(str(address[0])) for *_, address in found})


# --- a process without a network ------------------------------------------------------------------------------------

_NEWUSER: Final = 0x10000000
_NEWNET: Final = 0x40000000


def seclude() -> bool:
    """Move this process, and all children it will have, into an empty network namespace; False where that is refused.

    Needs root or user namespaces, and in the latter case a process of one thread, which keeps its own user and group.
    There is no way back. Source: unshare(2), user_namespaces(7).
    """
    if ctypes.CDLL(None).unshare(_NEWNET) == 0:
        return True
    child = os.fork()  # some systems give the namespace and then refuse its maps, which cannot be undone
    if child == 0:
        given = False
        try:
            given = _own_namespaces()
        finally:
            os._exit(0 if given else 1)
    return os.waitpid(child, 0)[1] == 0 and _own_namespaces()


def _own_namespaces() -> bool:
    user, group = os.geteuid(), os.getegid()
    if ctypes.CDLL(None).unshare(_NEWUSER | _NEWNET) != 0:
        return False
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path("/proc/self", name).write_text(text, encoding="utf-8")
    except OSError:
        return False
    return True


def kernel_count() -> int:
    """Count the packets that this namespace sent or had no way for, by whatever library; 0 in a silent empty one.

    The kernel's own count, so it sees what the Tripwire cannot: IPv4 and IPv6. Source: RFC 4293, /proc/net/snmp.
    """
    wanted = {"OutRequests", "OutNoRoutes", "Ip6OutRequests", "Ip6OutNoRoutes"}
    found = 0
    lines = Path("/proc/self/net/snmp").read_text(encoding="utf-8").splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        if names.startswith("Ip:"):
            found += sum(int(n) for name, n in zip(names.split(), values.split(), strict=True) if name in wanted)
    six = Path("/proc/self/net/snmp6")
    for line in six.read_text(encoding="utf-8").splitlines() if six.exists() else ():
        name, number = line.split()
        found += int(number) if name in wanted else 0
    return found


def _spelt(host: object) -> str:
    return _plain(host.decode("ascii", "replace") if isinstance(host, bytes) else str(host or ""))


def _plain(host: str) -> str:
    """Spell a host one way: lower case, no final dot, no scope, IPv4 also where it came mapped into IPv6."""
    name = host.lower().rstrip(".").split("%", 1)[0]
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
