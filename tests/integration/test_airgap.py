"""The rehearsal without a network: silent as it stands, red when something reaches out, recorded where it ran."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.airgap import MEMORY, Outcome, attempt
from service.errors import HomeError
from service.settings import parse
from tests.doubles.homes import home, settings
from tests.doubles.lacking import NO_NAMESPACES, lacking

STEPS = ["start", "ingest", "ask", "report", "erase"]
PLANTED = """
import sys
from residency.silence import silence
silence()
from service.settings import load
from service import airgap, rehearsal
import socket, ctypes
from contextlib import suppress
whole = rehearsal.rehearse
async def leaking(settings, done):
    with suppress(OSError):
        {leak}
    await whole(settings, done)
rehearsal.rehearse = leaking
airgap.LATE = 0.0
outcome = airgap.attempt(load(sys.argv[1]))
print(outcome.state, outcome.secluded, outcome.tried, outcome.packets)
"""
LEAKS = {
    "python": "socket.create_connection(('198.51.100.7', 443), timeout=1)",
    "c": "ctypes.CDLL(None).getaddrinfo(b'leak.invalid', b'443', None, ctypes.byref(ctypes.c_void_p()))",
}


@pytest.fixture
def folder(tmp_path: Path, onnx_model: Path) -> Path:
    """A home with the exported model, whose database knows its steward."""
    made = home(tmp_path / "home", onnx_model, fleet=None)
    from service.home import office

    with office(settings(made)) as accounts:
        accounts.ensure_tenant("default", ceiling=("EEA",), zone="DE")
    return made


def doctor(folder: Path, *before: str) -> tuple[int, dict[str, object]]:
    command = [*before, sys.executable, "-c", "from service.cli import main; main()"]
    done = subprocess.run(
        [*command, "doctor", "--egress", "--json", "--home", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_the_main_job_needs_no_network_and_the_ledger_says_so(folder: Path) -> None:
    code, told = doctor(folder)
    if not told["secluded"]:
        lacking(NO_NAMESPACES)
    assert (code, told["state"], told["steps"]) == (0, "silent", STEPS)
    assert (told["tried"], told["packets"], told["destinations"]) == (0, 0, [])
    assert not list(MEMORY.glob("domicile-*"))
    receipt = subprocess.run(
        [sys.executable, "-c", "from service.cli import main; main()", "receipt", str(told["receipt"])],
        env={**os.environ, "DOMICILE_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    made = json.loads(receipt.stdout)["receipt"]
    assert made["kind"] == "probe"
    assert '"packets":0' in json.dumps(made, separators=(",", ":"))


@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_leak_is_seen_also_where_python_sees_none(folder: Path, leak: str) -> None:
    code = PLANTED.format(leak=LEAKS[leak])
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    state, secluded, rest = done.stdout.split(" ", 2)
    if secluded != "True":
        lacking(NO_NAMESPACES)
    assert state == "seen"
    assert ("198.51.100.7" in rest) == (leak == "python")  # strict: refused before the kernel saw it
    assert (int(rest.split()[-1]) > 0) == (leak == "c")


def test_without_a_namespace_the_outcome_counts_for_less(folder: Path) -> None:
    none = 'echo 0 > /proc/sys/user/max_net_namespaces && echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    walls = ["unshare", "--user", "--map-root-user", "sh", "-c", none, "sh"]
    if subprocess.run([*walls, "true"], capture_output=True, check=False).returncode:
        lacking(NO_NAMESPACES)
    code, told = doctor(folder, *walls)
    assert (code, told["state"], told["secluded"], told["steps"]) == (4, "partly", False, STEPS)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome(secluded=True, steps=STEPS), "silent"),
        (Outcome(secluded=False, steps=STEPS), "partly"),
        (Outcome(secluded=True, steps=STEPS[:2], problem="x"), "failed"),
        (Outcome(secluded=True, steps=STEPS[:2]), "failed"),
        (Outcome(secluded=True, steps=STEPS, packets=1), "seen"),
        (Outcome(secluded=False, steps=STEPS, tried=[("h", 0, 2)]), "seen"),
    ],
)
def test_an_outcome_has_one_state(outcome: Outcome, state: str) -> None:
    assert outcome.state == state


def test_the_ledger_keeps_no_name_of_a_destination() -> None:
    outcome = Outcome(secluded=True, steps=STEPS, tried=[("smuggled-text.example", 0, 2)])
    assert "smuggled" not in json.dumps(outcome.facts())
    assert outcome.facts()["tried"] == 2


def test_without_memory_for_a_home_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("service.airgap.MEMORY", tmp_path / "absent")
    with pytest.raises(HomeError, match="no room"):
        attempt(parse({}))
