"""Airgap: does the main job work with no network at all, and does anything reach for one? `doctor --egress`.

Rules kept here: the rehearsal runs in a child, in an empty network namespace where the system gives one; its home lies
in memory and is gone afterwards; what it tried is counted twice, by the tripwire (Python's sockets, with their
destinations) and by the kernel (whatever library, in that namespace). Shards and readers have empty namespaces of their
own inside it. Where no namespace is given, the outcome says so and counts for less.
"""

import asyncio
import os
import secrets
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from residency.egress import Tripwire, kernel_count, seclude
from residency.errors import DomicileError
from service.errors import HomeError
from service.settings import Settings, parse

MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a home of our own in it, 0700
ROOM: Final = 256 * 1024 * 1024
"""Bytes that must be free there; the model's export alone has 90 MB where the real home has none to lend."""
STEPS: Final = ("start", "ingest", "ask", "report", "erase")
LATE: Final = 3.0
"""Seconds that the child stays when all is done, since uploaders of telemetry are late."""


class Outcome(msgspec.Struct, kw_only=True):
    """What one rehearsal showed."""

    secluded: bool = False
    """Whether it ran in an empty network namespace."""
    steps: list[str] = msgspec.field(default_factory=list)
    """Steps that came to a good end, of `STEPS`."""
    problem: str = ""
    """Why it ended early; empty when it did not."""
    tried: list[tuple[str, int, int]] = msgspec.field(default_factory=list)
    """Destinations that the tripwire saw: host, port (0: a name lookup), how often."""
    packets: int = 0
    """What the kernel counted in the namespace."""
    seconds: float = 0.0

    @property
    def state(self) -> str:
        """`silent`; `seen` when something reached out; `failed` when the job did; `partly` without a namespace."""
        if self.tried or self.packets:
            return "seen"
        if self.problem or len(self.steps) < len(STEPS):
            return "failed"
        return "silent" if self.secluded else "partly"

    def facts(self) -> dict[str, Any]:
        """Give what the Ledger keeps: codes and counts, no destination's name, since a name can carry content."""
        return {
            "event": "egress",
            "state": self.state,
            "secluded": self.secluded,
            "steps": list(self.steps),
            "tried": sum(count for _, _, count in self.tried),
            "packets": self.packets,
        }


def attempt(settings: Settings) -> Outcome:
    """Rehearse under the rules of `settings` and tell what happened; call it before anything starts a thread.

    Raises `HomeError` where there is no memory-backed folder with room for a home.
    """
    folder = _home()
    receiving, sending = os.pipe()
    try:
        child = os.fork()
        if child == 0:
            os.close(receiving)
            _child(settings, folder, sending)
        os.close(sending)
        with os.fdopen(receiving, "rb") as told:
            text = told.read()
        _, status = os.waitpid(child, 0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        return msgspec.json.decode(text, type=Outcome)
    except msgspec.DecodeError:
        return Outcome(problem=f"the rehearsal's process ended with status {os.waitstatus_to_exitcode(status)}")


def _home() -> Path:
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < ROOM:
        raise HomeError(
            f"{MEMORY} has no room for a home of {ROOM >> 20} MiB in memory",
            hint="mount a tmpfs there, or give the container more (`--shm-size`)",
        )
    folder = MEMORY / f"domicile-{secrets.token_hex(8)}"
    folder.mkdir(mode=0o700)
    return folder


def _child(settings: Settings, folder: Path, sending: int) -> NoReturn:
    """Seclude this process, rehearse, tell, and end without a word to what the parent had begun."""
    begun = time.monotonic()
    outcome = Outcome(secluded=seclude())
    watcher = Tripwire(strict=True)
    watcher.install()
    try:
        asyncio.run(_rehearse(settings, folder, outcome))
        time.sleep(LATE)
    except DomicileError as error:
        outcome.problem = str(error)
    except BaseException as error:
        outcome.problem = f"{type(error).__name__} in the rehearsal"
    outcome.tried = [(host, port, count) for (host, port), count in sorted(watcher.seen().items())]
    outcome.packets = kernel_count() if outcome.secluded else 0
    outcome.seconds = round(time.monotonic() - begun, 1)
    os.write(sending, msgspec.json.encode(outcome))
    sys.stderr.flush()
    os._exit(0)


async def _rehearse(settings: Settings, folder: Path, outcome: Outcome) -> None:
    from service.home import policies_of, prepare
    from service.rehearsal import rehearse

    here = settings.here
    prepare(folder, zone=here.zone, operator=here.operator)
    lent = settings.path / "models"
    if lent.is_dir():
        (folder / "models").symlink_to(lent, target_is_directory=True)
    tree: dict[str, Any] = {
        "home": str(folder),
        "here": {"zone": here.zone, "operator": here.operator, "default_ceiling": [here.zone]},
        "rules": {"policies": str(policies_of(settings))},
        "models": msgspec.to_builtins(settings.models),
    }
    await rehearse(parse(tree), outcome.steps.append)
