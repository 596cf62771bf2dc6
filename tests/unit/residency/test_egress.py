"""The tripwire counts what nobody declared, refuses it in strict mode, and lets the Fleet's own addresses pass."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from residency import egress
from residency.egress import Tripwire, UndeclaredError, addresses
from residency.errors import SiteError
from tests.doubles.lacking import NO_NAMESPACES, lacking

pytestmark = pytest.mark.enable_socket


@pytest.fixture(params=[False, True], ids=["counting", "strict"])
def tripwire(request: pytest.FixtureRequest) -> Iterator[Tripwire]:
    """A Tripwire that watches during one test."""
    found = Tripwire(strict=request.param)
    found.install()
    yield found
    found.uninstall()


@pytest.fixture
def port() -> Iterator[int]:
    """A loopback server that takes connections and says nothing; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def connect(host: str, port: int) -> None:
    with socket.socket() as line:
        line.settimeout(2)
        line.connect((host, port))


def test_a_declared_address_passes_uncounted(tripwire: Tripwire, port: int) -> None:
    tripwire.allow("127.0.0.1", port)
    connect("127.0.0.1", port)
    assert tripwire.unexpected == 0


def test_an_undeclared_address_is_counted_and_in_strict_mode_refused(tripwire: Tripwire, port: int) -> None:
    tripwire.allow("127.0.0.1", port + 1)
    if tripwire.strict:
        with pytest.raises(SiteError, match="undeclared"):
            connect("127.0.0.1", port)
    else:
        connect("127.0.0.1", port)
    assert tripwire.unexpected == 1
    assert tripwire.seen() == {("127.0.0.1", port): 1}


def test_without_a_watcher_nothing_is_counted(tripwire: Tripwire, port: int) -> None:
    tripwire.uninstall()
    connect("127.0.0.1", port)
    assert tripwire.unexpected == 0


def test_a_lookup_of_an_undeclared_name_is_counted_before_it_leaves(tripwire: Tripwire) -> None:
    with suppress(SiteError, OSError):
        socket.getaddrinfo("exfiltration.invalid", 443)
    assert tripwire.seen() == {("exfiltration.invalid", 0): 1}


def test_a_declared_name_may_be_looked_up_and_its_address_connected_to(tripwire: Tripwire, port: int) -> None:
    tripwire.allow("localhost", port)
    with suppress(OSError), socket.create_connection(("localhost", port), timeout=2):
        pass
    assert tripwire.unexpected == 0


def test_an_address_of_a_declared_name_is_good_for_the_declared_port_alone(tripwire: Tripwire, port: int) -> None:
    tripwire.allow("localhost", port + 1)
    socket.getaddrinfo("localhost", port + 1)
    with suppress(SiteError):
        connect("127.0.0.1", port)
    assert tripwire.unexpected == 1


def test_a_datagram_is_seen_too(tripwire: Tripwire) -> None:
    with suppress(SiteError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.sendto(b"x", ("127.0.0.1", 9))
    assert tripwire.seen() == {("127.0.0.1", 9): 1}


def test_mapped_addresses_are_the_addresses_they_map(tripwire: Tripwire, port: int) -> None:
    tripwire.allow("127.0.0.1", port)
    tripwire.on_connect(socket.AF_INET6, ("::ffff:127.0.0.1", port, 0, 0))
    assert tripwire.unexpected == 0
    with suppress(SiteError):
        tripwire.on_connect(socket.AF_INET6, ("::ffff:198.51.100.7", port, 0, 0))
    assert tripwire.unexpected == 1


def test_unix_sockets_and_listening_are_free(tripwire: Tripwire, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as line:
        server.bind(path)
        server.listen()
        line.connect(path)
    with socket.create_server(("127.0.0.1", 0)):
        pass
    assert tripwire.unexpected == 0


async def test_a_planted_call_through_httpx_is_seen_on_asyncios_loop(tripwire: Tripwire, port: int) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=0.2) as line:
        with suppress(SiteError, httpx.HTTPError):
            await line.get(f"http://127.0.0.1:{port}/")
    assert tripwire.unexpected == 1


async def test_a_declared_name_may_be_called_through_httpx(tripwire: Tripwire, port: int) -> None:
    tripwire.allow("localhost", port)
    async with httpx.AsyncClient(trust_env=False, timeout=0.5) as line:
        with pytest.raises(httpx.ReadTimeout):  # the server says nothing, but it was reached
            await line.get(f"http://localhost:{port}/")
    assert tripwire.unexpected == 0


@pytest.mark.parametrize(
    "ask", [lambda: socket.gethostbyaddr("198.51.100.7"), lambda: socket.getnameinfo(("198.51.100.7", 9), 0)]
)
def test_the_name_of_an_address_is_not_asked_for(tripwire: Tripwire, ask: Callable[[], object]) -> None:
    if not tripwire.strict:
        tripwire.on_reverse("198.51.100.7")  # the question itself would leave this machine
        tripwire.on_reverse(("198.51.100.7", 9))
    else:
        with pytest.raises(UndeclaredError):
            ask()
    assert set(tripwire.seen()) == {("198.51.100.7", 0)}


def test_who_must_know_is_told_of_each(port: int) -> None:
    told: list[int] = []
    watcher = Tripwire(told=lambda: told.append(1))
    watcher.on_connect(socket.AF_INET, ("198.51.100.7", port))
    watcher.on_lookup("exfiltration.invalid")
    assert len(told) == watcher.unexpected == 2


def test_addresses_of_an_address_and_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert addresses("198.51.100.7") == ["198.51.100.7"]
    assert "127.0.0.1" in addresses("localhost")

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(egress, "_look_up", unknown)
    with pytest.raises(SiteError):
        addresses("no-such-host.invalid")


SECLUDED = """
import socket
from residency.egress import kernel_count, seclude
assert seclude()
assert kernel_count() == 0
{attempt}
print(kernel_count())
"""
ATTEMPTS = {
    "nothing": "",
    "python": "socket.socket(type=socket.SOCK_DGRAM).connect_ex(('198.51.100.7', 53))",
    "c": "import ctypes as c; c.CDLL(None).getaddrinfo(b'leak.invalid', b'443', None, c.byref(c.c_void_p()))",
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_secluded_process_reaches_nothing_and_the_kernel_counts_what_it_tried(attempt: str) -> None:
    code = SECLUDED.format(attempt=ATTEMPTS[attempt])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if "assert seclude()" in done.stderr:
        lacking(NO_NAMESPACES)
    assert (int(done.stdout) > 0) == (attempt != "nothing")


ORDINARY = """
import ctypes, os, sys
from residency.egress import kernel_count, seclude
if os.geteuid() == 0:
    os.setresgid(65534, 65534, 65534), os.setresuid(65534, 65534, 65534)
    ctypes.CDLL(None).prctl(4, 1)  # as after an ordinary start: it may write its own maps
before = os.geteuid(), os.getegid()
made = seclude()
assert (os.geteuid(), os.getegid()) == before  # whether it was given or not
open(sys.argv[1] + "/own", "w").close()
print(made and kernel_count() == 0)
"""


def test_an_ordinary_account_keeps_itself_in_a_namespace_of_its_own(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:3]:  # with several workers each has a folder more
        if folder.name != "tmp":
            folder.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", ORDINARY, str(tmp_path)], capture_output=True, text=True, check=True)
    if done.stdout != "True\n":
        lacking(NO_NAMESPACES)


async def test_asyncios_own_connections_are_seen(tripwire: Tripwire, port: int) -> None:
    with suppress(SiteError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
    assert tripwire.unexpected == 1


def test_threads_are_seen_too(tripwire: Tripwire, port: int) -> None:
    def call() -> None:
        with suppress(SiteError):
            connect("127.0.0.1", port)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert tripwire.unexpected == 1
