"""SIGKILLs at random moments of a real `domicile serve` under load, and what is there afterwards.

`python -m bench.kills 200` kills 200 times; `BENCH_SECONDS=300` stops earlier, `BENCH_SEED` repeats a run's moments. An
uploader puts documents, versions and erasures all the while and keeps a journal of every 202. In the end nothing that
was answered 202 may be missing, nothing may be there twice, and the index holds the points of the rows and no others.
"""

from residency.silence import silence

silence()

import asyncio  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import random  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import httpx  # noqa: E402

from bench.idle import free_port  # noqa: E402
from service.accounts import SCOPES  # noqa: E402
from service.home import office, prepare  # noqa: E402
from service.settings import Settings, load  # noqa: E402

CACHE = Path(__file__).parent.parent / ".cache" / "models"
LONGEST = 4.0
"""Seconds from readiness to a kill, at most."""


class Loader(threading.Thread):
    """Puts and erases; keeps what was answered. Errors of a dead server count for nothing."""

    def __init__(self, address: str, key: str, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.browser = httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=30)
        self.chance = chance
        self.ended = threading.Event()
        self.journal: dict[str, str] = {}
        """Id by name, of every 202."""
        self.erased: set[str] = set()
        """Ids whose erasure was asked for; one without its 202 may be there or not."""
        self.sent = 0

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                self._one()
            except httpx.TransportError:
                time.sleep(0.05)

    def _one(self) -> None:
        if self.journal and self.chance.random() < 0.15:
            name = self.chance.choice(sorted(self.journal))
            if self.journal[name] not in self.erased and self.chance.random() < 0.5:
                self.erased.add(self.journal[name])
                self.browser.delete(f"/v1/documents/{self.journal[name]}")
                return
        else:
            name = f"note-{self.sent}.txt"
        self.sent += 1
        if self.journal.get(name) in self.erased:
            return
        lines = [f"Rule {n} of {name} was written as number {self.sent}." for n in range(self.chance.randrange(1, 400))]
        parameters = {"jurisdiction": "DE", "residency": "EU", "personal": "false"}
        given = self.browser.put(f"/v1/documents/{name}", params=parameters, content="\n\n".join(lines).encode())
        if given.status_code == 202:
            self.journal[name] = given.json()["id"]
        time.sleep(0.02)


def serve(home: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start it in a process group of its own and wait until it is ready."""
    command = [str(Path(sys.executable).parent / "domicile"), "serve", "--home", str(home), "--port", str(port)]
    with (home / "serve.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ)
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200:
                return process
        except httpx.TransportError:
            if process.poll() is not None:  # the dead one's shard has not let go yet
                return serve(home, port)
        time.sleep(0.05)
    raise SystemExit("it was never ready again")


async def judge(settings: Settings, loader: Loader) -> dict[str, Any]:
    """Work to the end, then hold the journal against rows, and rows against the index."""
    from service.bootstrap import domicile

    async with domicile(settings, work=False) as house:
        await house.probing.once()
        retried = set[str]()
        for _ in range(600):
            await house.worker.drain()
            listed, cursor = [], ""
            while True:
                page = await house.database.run(
                    lambda after=cursor: house.documents.listing("default", cursor=after, limit=500)
                )
                listed, cursor = [*listed, *page.items], page.cursor
                if not cursor:
                    break
            for each in listed:
                if each.cause == "poison":  # died on it four times running: what an operator would do
                    retried.add(each.id)
                    await house.database.run(house.documents.retry, "default", each.id)
            if all(each.state in ("live", "erasing") for each in listed) and not any(
                each.state == "erasing" for each in listed
            ):
                break
            await asyncio.sleep(0.5)
        found = await house.drift.check()
        names = [entry.name for entry in await _entries(house, listed)]
    living = {each.id for each in listed if each.state == "live"}
    answered = {each for each in loader.journal.values() if each not in loader.erased}
    return {
        "answered": len(loader.journal),
        "live": len(living),
        "passages": sum(each.passages for each in listed),
        "retried": len(retried),
        "lost": len(answered - living),
        "twice": len(names) - len(set(names)),
        "phantoms": sum(name not in {f"note-{n}.txt" for n in range(loader.sent)} for name in names),
        "not at rest": sum(each.state != "live" for each in listed),
        "index against rows": [each.facts() for each in found.found],
        "not looked at": found.unseen,
    }


async def _entries(house: Any, listed: list[Any]) -> list[Any]:
    from residency.decision import Principal
    from service.accounts import ACTIVITIES

    who = Principal(
        id="bench", tenant="default", activities=ACTIVITIES, scopes=frozenset(SCOPES), zone=house.settings.here.zone
    )
    entries: list[Any] = await house.catalogue.entries(who, listed)
    return entries


def main() -> None:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    until = time.monotonic() + float(os.environ.get("BENCH_SECONDS", "1e9"))
    seed = int(os.environ.get("BENCH_SEED", str(time.time_ns() % 100_000)))
    chance, home, kills = random.Random(seed), Path(tempfile.mkdtemp(prefix="kills")), 0
    prepare(home, zone="DE", operator="DE")
    if CACHE.is_dir():  # the exported model, if a test or a bench made it
        (home / "models").mkdir(exist_ok=True)
        for each in CACHE.iterdir():
            (home / "models" / each.name[:16]).symlink_to(each.absolute(), target_is_directory=True)
    settings = load(home, environ={})
    with office(settings) as accounts:
        accounts.ensure_tenant("default", ceiling=settings.here.default_ceiling, zone="DE")
        key = accounts.issue("default", scopes=SCOPES)
    port, began = free_port(), time.monotonic()
    loader = Loader(f"http://127.0.0.1:{port}", key, chance)
    process = serve(home, port)
    loader.start()
    while kills < wanted and time.monotonic() < until:
        time.sleep(chance.uniform(0.1, LONGEST))
        process.kill()
        process.wait()
        kills += 1
        process = serve(home, port)
    time.sleep(1.0)
    loader.ended.set()
    loader.join(60)
    process.terminate()
    process.wait(60)
    lasted = round(time.monotonic() - began)
    told = {"seed": seed, "kills": kills, "seconds": lasted} | asyncio.run(judge(settings, loader))
    print(json.dumps(told, indent=1))
    shutil.rmtree(home, ignore_errors=True)
    good = not (told["lost"] or told["twice"] or told["phantoms"] or told["not at rest"] or told["index against rows"])
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
