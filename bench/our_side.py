"""Our side: Domicile with everything on (sealing, tagging, two rulings, rotation, Ledger), in a process of its own.

The whole use-cases are called, as the HTTP face calls them: `Intake.receive` until every document is live, and
`Searching.search` with ruling, embedding, shard, opening and the Receipt's commit.
"""

from residency.silence import silence

silence()

import asyncio  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import time  # noqa: E402
from collections.abc import AsyncIterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from bench import judging  # noqa: E402
from bench.corpus import EXAMPLES  # noqa: E402
from bench.measuring import answer, keep_model, lend_model, next_task, read_job, tree_memory  # noqa: E402
from ingestion.claims import Claim  # noqa: E402
from ingestion.documents import State  # noqa: E402
from ingestion.intake import Refused  # noqa: E402
from residency.decision import Principal  # noqa: E402
from service.answering import Answer, Question  # noqa: E402
from service.bootstrap import domicile  # noqa: E402
from service.cli.common import operator  # noqa: E402
from service.home import office, prepare  # noqa: E402
from service.house import House  # noqa: E402
from service.searching import Results, Search  # noqa: E402
from service.settings import load  # noqa: E402

TENANT = "bench"
ENDS = {State.LIVE, State.QUARANTINED, State.FAILED}


async def one(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def until_done(house: House, principal: Principal, ids: list[str]) -> list[State]:
    """Wait until each has ended; looks every 50 ms, as a portal would, at rows and not at names."""
    while True:
        listed = await house.database.run(house.documents.listing, principal.tenant, limit=len(ids) + 10)
        states = {item.id: item.state for item in listed.items}
        if all(states[id_] in ENDS for id_ in ids):
            return [states[id_] for id_ in ids]
        await asyncio.sleep(0.05)


async def ingest(house: House, principal: Principal, documents: list[dict[str, str]]) -> list[str]:
    ids = []
    for each in documents:
        claim = Claim(
            name=each["name"],
            jurisdictions=frozenset({"DE"}),
            residency=frozenset({"EEA"}),
            personal=False,
            media_type="text/plain",
        )
        taken = await house.intake.receive(one(each["text"].encode()), claim, principal)
        assert not isinstance(taken, Refused)
        ids.append(taken.document.id)
    return ids


async def take_in(house: House, principal: Principal, documents: list[dict[str, str]]) -> dict[str, Any]:
    """Give the seconds from the first body until the last document is live."""
    began = time.perf_counter()
    ids = await ingest(house, principal, documents)
    received = time.perf_counter() - began
    states = await until_done(house, principal, ids)
    seconds = time.perf_counter() - began
    assert set(states) == {State.LIVE}, f"not every document became live: {states}"
    listed = await house.database.run(house.documents.listing, principal.tenant, limit=10_000)
    made = sum(item.passages for item in listed.items if item.id in set(ids))
    return {"seconds": seconds, "received_s": received, "pieces": made}


async def ask(house: House, principal: Principal, questions: list[str], top_k: int) -> dict[str, Any]:
    """Give the seconds of each question and of each of its parts."""
    times, parts = [], []
    for question in questions:
        mark = time.perf_counter()
        results = await house.searching.search(principal, Search(question, top_k=top_k))
        times.append(time.perf_counter() - mark)
        assert isinstance(results, Results)
        parts.append(results.findings.timings | {"whole": times[-1]})
    return {"times": times, "parts": parts}


async def quality(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    manifest, tenant = job["manifest"], job["manifest"]["tenant"]
    prepare(folder, zone="DE", operator="DE")
    shutil.copyfile(EXAMPLES / "fleet.toml", folder / "fleet.toml")
    settings = load(folder, environ={})
    with office(settings) as accounts:
        accounts.ensure_tenant(tenant, ceiling=manifest["ceiling"], zone="DE")
    lend_model(job, folder)
    async with domicile(settings) as house:
        principal = operator(settings, tenant)
        ids, sites = [], {}
        for item in manifest["document"]:
            claim = Claim(
                name=item["file"],
                jurisdictions=frozenset({item["jurisdiction"]}),
                residency=frozenset(item["residency"]),
                personal=item.get("personal", True),
                categories=frozenset(item.get("categories", [])),
                classification=item.get("classification", 1),
            )
            data = (EXAMPLES / "documents" / item["file"]).read_bytes()
            taken = await house.intake.receive(one(data), claim, principal)
            if not isinstance(taken, Refused):
                ids.append(taken.document.id)
                sites[item["file"]] = taken.document.site
        await until_done(house, principal, ids)
        return await _judged(job, house, principal, sites)


async def _judged(job: dict[str, Any], house: House, principal: Principal, sites: dict[str, str]) -> dict[str, Any]:
    """Ask every question; one row each. `held_back`: its document lies where this asker's question may not go."""
    rows: list[dict[str, Any]] = []
    for item in job["asked"]:
        results = await house.searching.search(principal, Search(item["question"], top_k=10))
        given = await house.answering.answer(principal, Question(item["question"]))
        assert isinstance(results, Results) and isinstance(given, Answer)
        found = results.findings
        row = {
            "id": item["id"],
            "language": item["language"],
            "answerable": bool(item.get("document")),
            "support": round(max((each.support for each in found.passages), default=0.0), 3),
            "abstained": given.abstained,
            "citations": len(given.citations),
            "exact": sum(
                job["texts"].get(each.name, "")[each.start : each.end] == each.quote for each in given.citations
            ),
        }
        if item.get("document"):
            quoted = " ".join(each.quote for each in given.citations if each.name == item["document"])
            row["rank"] = judging.rank(item, [(each.name, each.text) for each in found.passages])
            row["right"] = judging.holds(item, item["document"], quoted)
            row["held_back"] = sites.get(item["document"]) in {refusal.ask.site for refusal in found.refusals}
        rows.append(row)
    return {"rows": rows}


async def main() -> None:
    job = read_job()
    home = Path(job["folder"]) / "home"
    prepare(home, zone="DE", operator="DE")
    settings = load(home, environ={"DOMICILE_MODELS__THREADS": str(job["threads"])})
    with office(settings) as accounts:
        accounts.ensure_tenant(TENANT, ceiling=settings.here.default_ceiling, zone="DE")
    principal, documents, questions = operator(settings, TENANT), job["documents"], job["questions"]
    async with domicile(settings) as house:
        keep_model(job, home)
        while (task := await asyncio.to_thread(next_task)) is not None:
            match task["do"]:
                case "warm":
                    await take_in(house, principal, [{"name": "warm.txt", "text": documents[0]["text"][:2000]}])
                    answer({"threads": job["threads"], "workers": settings.ingestion.workers})
                case "ingest":
                    answer(await take_in(house, principal, documents[task["first"] : task["last"]]))
                case "ask":
                    answer(await ask(house, principal, questions[task["first"] : task["last"]], job["top_k"]))
                case "memory":
                    answer(tree_memory(os.getpid()))
                case _:
                    answer(await quality(job, Path(job["folder"]) / "examples"))


if __name__ == "__main__":
    asyncio.run(main())
