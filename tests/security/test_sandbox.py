"""The sandbox holds: whatever a reader does, the file ends in its outcome code and the house goes on."""

import asyncio
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestion import sandbox as sandbox_module
from ingestion.errors import ReaderError
from ingestion.sandbox import Limits, Sandbox
from tests.doubles.lacking import lacking

HERE = str(Path(__file__).parent)


@pytest.fixture(scope="module")
def planted() -> Iterator[Sandbox]:
    sandbox = Sandbox(module="planted_reader", paths=(HERE,))
    yield sandbox
    sandbox.close()


async def outcome(sandbox: Sandbox, order: str, limits: Limits | None = None) -> str:
    try:
        reading = await sandbox.read_file(order.encode(), limits=limits)
    except ReaderError as error:
        assert error.hint
        return error.reason
    return reading.text


async def test_an_obedient_reader_is_heard(planted: Sandbox) -> None:
    assert await outcome(planted, "say hello there") == "hello there"


def test_this_system_gives_every_wall_the_sandbox_asks_for(planted: Sandbox) -> None:
    held = planted.capabilities()
    assert {"memory limit", "CPU limit", "file size 0", "no core dumps", "no new privileges"} <= {
        name for name, there in held.items() if there
    }


@pytest.mark.parametrize("order", ["connect", "write", "fork", "run"])
async def test_a_reader_cannot_reach_out(planted: Sandbox, order: str, tmp_path: Path) -> None:
    assert (await outcome(planted, f"{order} {tmp_path / 'out'}")).startswith("refused: ")
    assert not (tmp_path / "out").exists()


async def test_without_its_walls_the_same_reader_does_reach_out(tmp_path: Path) -> None:
    open_house = Sandbox(module="planted_open_reader", paths=(HERE,))
    try:
        assert await outcome(open_house, f"write {tmp_path / 'out'}") == "done"
        assert (tmp_path / "out").read_bytes() == b"x"
        assert set(open_house.capabilities().values()) == set()
    finally:
        open_house.close()


async def test_a_reader_cannot_kill_its_nursery_or_the_house(planted: Sandbox) -> None:
    if not planted.capabilities()["system calls (seccomp)"]:
        lacking("the kernel has no seccomp filters")
    assert await outcome(planted, f"kill {os.getpid()}") == "refused: PermissionError"


async def test_a_reader_cannot_open_empty_or_remove_a_file_of_ours(planted: Sandbox, tmp_path: Path) -> None:
    if not planted.capabilities()["no files but code (landlock)"]:
        lacking("the kernel has no Landlock")
    ours = tmp_path / "ours"
    ours.write_bytes(b"kept")
    assert await outcome(planted, f"open {ours}") == "refused: PermissionError"
    assert await outcome(planted, f"truncate {ours}") == "refused: PermissionError"
    assert await outcome(planted, f"remove {ours}") == "refused: PermissionError"
    assert ours.read_bytes() == b"kept"


async def test_a_reader_holds_no_pipe_but_its_own(planted: Sandbox) -> None:
    assert await outcome(planted, "files") == "0 1 2 3"  # 0 to 2 are /dev/null


async def test_a_reader_sees_nothing_of_our_environment(planted: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMICILE_CANARY", "canary-7f3a")
    assert "canary" not in await outcome(planted, "environment")


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ("allocate", "parse_memory"),
        ("flood", "bomb"),
        ("huge", "bomb"),
        ("crash", "parse_crash"),
        ("fault", "parse_crash"),
        ("raise", "parse_crash"),
        ("vanish", "parse_crash"),
        ("pickle", "parse_crash"),
        ("outside", "parse_crash"),
    ],
)
async def test_a_hostile_reader_ends_in_its_outcome_code(planted: Sandbox, order: str, reason: str) -> None:
    assert await outcome(planted, order) == reason
    assert await outcome(planted, "say still here") == "still here"


async def test_a_reader_that_sleeps_is_killed_by_the_parents_clock(planted: Sandbox) -> None:
    assert await outcome(planted, "sleep", Limits(wall_s=0.2)) == "parse_timeout"


async def test_a_reader_that_spins_is_killed_by_the_limit_on_cpu_time(planted: Sandbox) -> None:
    assert await outcome(planted, "spin", Limits(cpu_s=1)) == "parse_timeout"


async def test_what_a_reader_raises_never_reaches_the_error(planted: Sandbox) -> None:
    with pytest.raises(ReaderError) as caught:
        await planted.read_file(b"raise canary-7f3a")
    assert "canary" not in f"{caught.value} {caught.value.hint}"


async def test_a_cancelled_call_ends_its_child_and_nothing_else(planted: Sandbox) -> None:
    sleeping = asyncio.create_task(planted.read_file(b"sleep"))
    await asyncio.sleep(0.1)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    assert await outcome(planted, "say still here") == "still here"


async def test_hostile_and_honest_files_side_by_side_each_get_their_own(planted: Sandbox) -> None:
    orders = ["crash", "say one", "flood", "say two", "raise", "say three", "pickle", "say four"]
    found = await asyncio.gather(*(outcome(planted, order) for order in orders))
    assert found == ["parse_crash", "one", "bomb", "two", "parse_crash", "three", "parse_crash", "four"]


async def test_a_killed_nursery_is_started_anew() -> None:
    sandbox = Sandbox(module="planted_reader", paths=(HERE,))
    try:
        assert await outcome(sandbox, "say one") == "one"
        assert sandbox._nursery is not None
        sandbox._nursery[0].kill()
        sandbox._nursery[0].wait()
        assert await outcome(sandbox, "say two") == "two"
    finally:
        sandbox.close()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until_gone(pid: int) -> bool:
    for _ in range(250):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.02)
    return False


SLOW = """
import time

from ingestion.readers import main
from planted_reader import planted

true = main.confine


def late(limits):
    time.sleep(0.3)
    return true(limits)


def serve():
    main.confine = late
    main.serve(planted)
"""
"""A child that has not yet asked to die with its nursery when that ends."""


@pytest.mark.parametrize("module", ["planted_reader", "slow_reader"])
async def test_children_end_with_their_house(tmp_path: Path, module: str) -> None:
    (tmp_path / "slow_reader.py").write_text(SLOW)
    sandbox = Sandbox(module=module, paths=(HERE, str(tmp_path)))
    sandbox.warm()
    assert sandbox._nursery is not None
    sleeping = asyncio.create_task(outcome(sandbox, "sleep"))
    for _ in range(250):
        if children_of(sandbox._nursery[0].pid):
            break
        await asyncio.sleep(0.02)
    (child,) = children_of(sandbox._nursery[0].pid)
    sandbox.close()
    async with asyncio.timeout(30):
        assert await sleeping == "parse_crash"
    assert wait_until_gone(child)


PLANTED = """
import socket
from pathlib import Path

from ingestion.readers.main import serve

said = []
for step in (
    lambda: socket.create_connection(("127.0.0.1", {port}), 2).close(),
    lambda: socket.getaddrinfo("localhost", {port}),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", {port})),
):
    try:
        step()
    except OSError as error:
        said.append(type(error).__name__)
    else:
        said.append("done")
Path({said!r}).write_text(" ".join(said))
"""
"""A library that calls home when the nursery imports it."""


@pytest.mark.enable_socket
@pytest.mark.parametrize("watched", [True, False], ids=["the nursery", "its twin without the tripwire"])
async def test_the_nursery_itself_reaches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    if not watched:
        monkeypatch.setattr(sandbox_module, "_BOOT", sandbox_module._BOOT.replace("no_connections()\n", "", 1))
    with socket.create_server(("127.0.0.1", 0)) as home:
        said = tmp_path / "said"
        text = PLANTED.format(port=home.getsockname()[1], said=str(said))
        (tmp_path / "planted_nursery.py").write_text(text)
        nursery = Sandbox(module="planted_nursery", paths=(str(tmp_path),))
        try:
            assert (await nursery.read_file(b"Read all the same.")).text == "Read all the same."
        finally:
            nursery.close()
        assert said.read_text() == " ".join(["PermissionError" if watched else "done"] * 3)
        came, _, _ = select.select([home], [], [], 0)
        assert bool(came) is not watched
