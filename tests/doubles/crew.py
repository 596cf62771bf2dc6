"""A crew: one home on PostgreSQL with a Site in Germany and one in France, each at its own Qdrant double, and real
`domicile work` processes on it. The double of a Qdrant knows what the real one would hold.

Run as a program it is such a process with a short lease, which may stop itself (SIGSTOP) at a crash point.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ingestion.claims import Claim
from ingestion.intake import Intake
from ingestion.rows import document
from residency.database import Database
from residency.decision import Principal
from service.bootstrap import domicile
from service.home import office
from service.migrations import upgrade
from service.settings import Settings
from tests.doubles import qdrant_http
from tests.doubles.homes import ROOT, home, settings
from tests.doubles.ingesting import EVIDENCE, blocks

LEASE = 1.0
HOLDS = (
    '[{kind="shard",url="URL",key_file="qdrant.key"},{kind="vault",url="folder:"},{kind="keys",url="file:"},'
    '{kind="embedder",url="bundled:"}]'
)


class Crew:
    """The home and what stands around it."""

    def __init__(self, folder: Path, onnx: Path, url: str, doubles: dict[str, qdrant_http.QdrantDouble]) -> None:
        self.folder, self.doubles, self.log = home(folder / "home", onnx, fleet=None), doubles, folder / "workers.log"
        text = ""
        for site, zone in (("fra", "DE"), ("par", "FR")):
            owner = f'{{name="Example Hosting {zone}",zone="{zone}"}}'
            holds = HOLDS.replace("URL", doubles[site].url)
            text += f'[[site]]\nid="{site}"\nzone="{zone}"\noperator={owner}\nevidence={EVIDENCE}\nholds={holds}\n'
        (self.folder / "fleet.toml").write_text(text, encoding="utf-8")
        (self.folder / "qdrant.key").write_text("key", encoding="utf-8")
        with (self.folder / "domicile.toml").open("a", encoding="utf-8") as file:
            file.write(f'\n[database]\nurl = "{url}"\n')
        upgrade(url)
        self.settings: Settings = settings(self.folder)
        with office(self.settings) as accounts:
            accounts.ensure_tenant("acme", ceiling=("EEA",), zone="DE")
        self.database = Database(url)

    @asynccontextmanager
    async def intake(self) -> AsyncIterator[Intake]:
        """Open what takes bodies in; nothing works."""
        async with domicile(self.settings, work=False) as house:
            await house.probing.once()
            yield house.intake

    async def take(self, intake: Intake, name: str, body: bytes, law: str) -> str:
        """Take a document in that may lie in one country alone; gives its id."""
        claim = Claim(name, jurisdictions=frozenset({law}), residency=frozenset({law}))
        who = Principal("app:intranet", "acme", frozenset({"search", "indexing"}))
        taken = await intake.receive(blocks(body), claim, who, len(body))
        document_id: str = taken.document.id  # type: ignore[union-attr]  # a refusal fails the test here
        return document_id

    @contextmanager
    def worker(self, *words: str, stop_at: str = "") -> Iterator["subprocess.Popen[bytes]"]:
        """Run one `domicile work` process until the end of the block."""
        command = [sys.executable, "-m", "tests.doubles.crew", stop_at, "work", "--home", str(self.folder), *words]
        with self.log.open("ab") as log:
            env = os.environ | {"DOMICILE_MODELS__THREADS": "1", "PYTHONPATH": str(ROOT)}
            process = subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=ROOT)
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait(20)

    def rows(self) -> dict[str, Any]:
        """Give every row by its document's id."""
        with self.database.reading() as connection:
            return {row.id: row for row in connection.execute(sa.select(document))}

    def until(self, true: Any, seconds: float = 60.0) -> None:
        """Wait until something is true of the rows."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(sa.exc.DBAPIError):
                if true(self.rows()):
                    return
            time.sleep(0.1)
        states = {name: (row.state, row.cause, row.lease_owner) for name, row in self.rows().items()}
        raise AssertionError(f"it never came: {states}\n{self.log.read_text()[-2000:] if self.log.exists() else ''}")

    async def stages(self) -> list[str]:
        """Give the stage of every Receipt of an ingestion."""
        ever = (datetime(2000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC))
        async with domicile(self.settings, index=False, work=False) as house:
            return [each["facts"]["stage"] for each in house.ledger.entries("acme", *ever, ["ingest"])]

    def hang_up(self) -> None:
        """Have the server end every connection to this database, but for the one that says so."""
        with self.database.transaction() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    def points(self, site: str) -> list[tuple[str, int]]:
        """Give document and number of each point that lies at a Site's shard."""
        found = [held.payload for each in self.doubles[site].collections.values() for held in each.points.values()]
        return sorted((payload["d"], payload["n"]) for payload in found)


@contextmanager
def crew(folder: Path, onnx: Path, url: str) -> Iterator[Crew]:
    """Set it up; nothing works yet."""
    with contextlib.ExitStack() as stack:
        doubles = {
            site: stack.enter_context(qdrant_http.serving(qdrant_http.QdrantDouble())) for site in ("fra", "par")
        }
        made = Crew(folder, onnx, url, doubles)
        stack.callback(made.database.close)
        yield made


def main() -> None:
    """Be a worker with a short lease: as `domicile` is, but for that."""
    stop_at = sys.argv.pop(1)
    from ingestion import crash
    from ingestion.leases import Leases
    from service.cli import main as cli

    assert Leases.__init__.__kwdefaults__ is not None
    Leases.__init__.__kwdefaults__["seconds"] = LEASE

    def hook(name: str) -> None:
        if name == stop_at:
            os.kill(os.getpid(), signal.SIGSTOP)

    crash.hook = hook
    cli()


if __name__ == "__main__":
    main()
