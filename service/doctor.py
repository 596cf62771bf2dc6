"""Doctor: what is wrong here and what to do; each finding has an id, a state, a sentence and a next step."""

import os
import resource
import shutil
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from residency.errors import DomicileError
from residency.silence import missing
from service.settings import Settings

FULL = 0.90
"""Share of a full disk at which uploads stop."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    id: str
    state: str
    """ok, warn or fail."""
    text: str
    next: str = ""

    def facts(self) -> dict[str, Any]:
        """Give it as JSON-able data."""
        return {"id": self.id, "state": self.state, "text": self.text, "next": self.next}


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything that can be looked at without taking the home's lock."""
    checks: list[Callable[[Settings], Finding]] = [
        _home,
        _modes,
        _silence,
        _policies,
        _fleet,
        _database,
        _model,
        _disk,
        _core_dumps,
        _swap,
        _sandbox,
        _ocr,
        _loop,
    ]
    findings = []
    for check in checks:
        try:
            findings.append(check(settings))
        except DomicileError as error:
            findings.append(Finding(check.__name__.strip("_"), "fail", str(error), error.hint))
    return findings


def _home(settings: Settings) -> Finding:
    if (settings.path / "domicile.toml").is_file():
        return Finding("home", "ok", f"{settings.path}, zone {settings.here.zone}")
    return Finding("home", "fail", f"there is no home at {settings.path}", "run `domicile init`")


def _modes(settings: Settings) -> Finding:
    loose = [
        path.relative_to(settings.path)
        for path in (settings.path / "keys").rglob("*")
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    if loose:
        return Finding("modes", "fail", f"{len(loose)} key files can be read by others", "chmod 600 the files in keys/")
    return Finding("modes", "ok", "key files are readable by their owner alone")


def _silence(_settings: Settings) -> Finding:
    left = missing()
    if left:
        return Finding("silence", "fail", f"not set: {', '.join(left)}", "start through the `domicile` command")
    return Finding("silence", "ok", "telemetry and downloads of every library are off")


def _policies(settings: Settings) -> Finding:
    from residency.cases import run_cases
    from service.home import policies_of

    folder = policies_of(settings)
    results = run_cases(folder)
    failed = [result for result in results if not result.passed]
    if failed:
        return Finding("policies", "fail", f"{len(failed)} of {len(results)} cases fail", "domicile policy check")
    return Finding("policies", "ok", f"{folder}: {len(results)} worked cases pass")


def _fleet(settings: Settings) -> Finding:
    from service.home import rules

    fleet = rules(settings)[2]
    listed = ", ".join(f"{site.id} ({site.zone})" for site in fleet.sites.values())
    return Finding("fleet", "ok", f"{len(fleet.sites)} sites: {listed}")


def _database(settings: Settings) -> Finding:
    from sqlalchemy.exc import SQLAlchemyError

    from service.migrations import NEWEST, current

    try:
        at = current(settings.database_url)
    except SQLAlchemyError as error:
        return Finding(
            "database", "fail", f"does not answer ({type(error).__name__})", "run `domicile init` or start it"
        )
    if at != NEWEST:
        return Finding("database", "fail", f"at version {at or 'none'}, needs {NEWEST}", "run `domicile migrate`")
    return Finding("database", "ok", f"at version {at}")


def _model(_settings: Settings) -> Finding:
    from service.outfitting import bundled_digest

    return Finding("model", "ok", f"the bundled model's files match {bundled_digest()[:23]}…")


def _disk(settings: Settings) -> Finding:
    usage = shutil.disk_usage(settings.path if settings.path.exists() else Path.cwd())
    share = usage.used / usage.total
    if share >= FULL:
        return Finding("disk", "fail", f"{share:.0%} full", "uploads stop at 90 %; make room")
    return Finding("disk", "ok", f"{share:.0%} full")


def _core_dumps(_settings: Settings) -> Finding:
    soft, _hard = resource.getrlimit(resource.RLIMIT_CORE)
    if soft:
        return Finding("core-dumps", "warn", "a crash may write memory to disk", "start with `ulimit -c 0`")
    return Finding("core-dumps", "ok", "off")


def _swap(_settings: Settings) -> Finding:
    try:
        devices = Path("/proc/swaps").read_text(encoding="utf-8").splitlines()[1:]
    except OSError:
        return Finding("swap", "warn", "cannot be seen here", "switch swap off, or encrypt it")
    if devices:
        return Finding("swap", "warn", "memory may be written to disk", "switch swap off, or encrypt it")
    return Finding("swap", "ok", "none")


def _sandbox(_settings: Settings) -> Finding:
    from ingestion.sandbox import capabilities

    found = capabilities()
    absent = [name for name, there in found.items() if not there]
    if absent:
        return Finding(
            "sandbox", "warn", f"readers run without: {', '.join(absent)}", "see docs/operations.md, Sandbox"
        )
    return Finding("sandbox", "ok", f"readers run with: {', '.join(found)}")


def _ocr(_settings: Settings) -> Finding:
    from ingestion.sandbox import recognises

    if recognises():
        return Finding("ocr", "ok", "scans and images are read by Tesseract")
    return Finding("ocr", "warn", "no Tesseract: scans and images fail", "apt-get install tesseract-ocr, and a model")


def _loop(_settings: Settings) -> Finding:
    if "uvloop" in sys.modules or os.environ.get("UVLOOP"):
        return Finding("loop", "warn", "uvloop hides connections from the tripwire", "do not install uvloop")
    return Finding("loop", "ok", "asyncio's own")
