"""The main job, end to end, on the documents beside this file: sealed, placed, asked, refused, reported, verified.

Run by `make demo`. Everything happens on this machine, in `demo-out/`, which is made anew each time.
"""

from residency.silence import silence

silence()

import asyncio  # noqa: E402
import shutil  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import tomllib  # noqa: E402
from collections.abc import AsyncIterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import msgspec  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.markup import escape  # noqa: E402
from rich.panel import Panel  # noqa: E402
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402
from rich.table import Table  # noqa: E402

from ingestion.claims import Claim  # noqa: E402
from ingestion.documents import State  # noqa: E402
from ingestion.intake import Refused  # noqa: E402
from residency.decision import Principal  # noqa: E402
from residency.verify import verify  # noqa: E402
from service.answering import Answer, Question  # noqa: E402
from service.bootstrap import domicile  # noqa: E402
from service.cli.common import operator  # noqa: E402
from service.home import office, policies_of, prepare  # noqa: E402
from service.house import House  # noqa: E402
from service.settings import load  # noqa: E402

HERE = Path(__file__).parent
OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "demo-out"
ENDS = {State.LIVE, State.QUARANTINED, State.FAILED}
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def headline(number: int, text: str) -> None:
    """Say what comes next."""
    console.print()
    console.rule(f"[bold]{number}. {text}", align="left")


async def blocks(path: Path) -> AsyncIterator[bytes]:
    """Give a file's bytes as an upload would bring them."""
    with path.open("rb") as file:
        while block := file.read(1 << 16):
            yield block


def claim_of(item: dict[str, Any]) -> Claim:
    """Read a declaration of the manifest."""
    return Claim(
        name=item["file"],
        jurisdictions=frozenset({item["jurisdiction"]}),
        residency=frozenset(item["residency"]),
        personal=item.get("personal", True),
        categories=frozenset(item.get("categories", [])),
        classification=item.get("classification", 1),
    )


async def take_in(house: House, principal: Principal, manifest: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take every example in, and watch it become live."""
    rows: list[dict[str, Any]] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=not sys.stdout.isatty()) as progress:
        for item in manifest:
            path = HERE / "documents" / item["file"]
            taken = await house.intake.receive(blocks(path), claim_of(item), principal)
            task = progress.add_task(path.name[:44], total=1.0)
            rows.append({"item": item, "taken": taken, "task": task})
            if isinstance(taken, Refused):
                progress.update(task, completed=1.0, description=f"{path.name[:36]} refused")
        while True:
            waiting = 0
            for row in rows:
                if isinstance(row["taken"], Refused):
                    continue
                entry = await house.catalogue.get(principal, row["taken"].document.id)
                row["entry"] = entry
                progress.update(row["task"], completed=entry.document.progress)
                waiting += entry.document.state not in ENDS
            if not waiting:
                return rows
            await asyncio.sleep(0.1)


def show_places(house: House, rows: list[dict[str, Any]]) -> None:
    """Say where each document went and why."""
    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    for title in ("document", "law of", "may be in", "state", "lies at", "why"):
        table.add_column(title, overflow="fold")
    for row in rows:
        item = row["item"]
        law, where = item["jurisdiction"], ", ".join(item["residency"])
        if isinstance(row["taken"], Refused):
            refusal = row["taken"].refusal
            why = ", ".join(refusal.policies) or "; ".join(f"{k}: {v}" for k, v in refusal.why_not.items())
            table.add_row(item["file"], law, where, "[red]refused[/]", "nowhere", why)
            continue
        entry = row["entry"]
        if entry.document.state is State.LIVE:
            site = house.engine.fleet.site(entry.document.site)
            why = f"{site.zone} lies within {where}; permit-in-residency"
            table.add_row(item["file"], law, where, "[green]live[/]", f"{site.id} ({site.zone})", why)
        else:
            hint = (entry.document.error or {}).get("hint", "")
            table.add_row(item["file"], law, where, f"[yellow]{entry.document.state}[/]", entry.document.site, hint)
    console.print(table)


def show_answer(question: str, answer: Answer) -> None:
    """Print a question, its answer, its sources and its receipt."""
    text = escape(answer.text)
    lines = [f"[yellow]{text}[/]  (reason: {answer.reason})" if answer.abstained else f"[bold]{text}[/]"]
    for citation in answer.citations:
        place = f"{citation.name}, page {citation.page}  ({citation.site}, {citation.zone})"
        lines += ["", escape(f"[{citation.index}] {place}"), escape(f'    "{" ".join(citation.quote.split())}"')]
    if answer.withheld:
        lines += ["", f"{answer.withheld} passages not used: outside the permitted zones"]
    zones = ", ".join(answer.zones)
    lines += ["", f"[dim]confidence {answer.confidence:.2f} · processed in {zones} · receipt {answer.receipt}[/]"]
    console.print(Panel("\n".join(lines), title=escape(question), title_align="left"))


def show_refusal(refused: Refused, name: str, wanted: str) -> None:
    """Print a refusal with the clause that decided and the nearest remedy."""
    lines = [f"[red]{name}, to be processed in {wanted}: refused at every site of the fleet.[/]"]
    for each in refused.refusals:
        where = each.ask.site
        lines += [f"{where}: clause [bold]{c.id}[/]: {c.explain}  [dim]({c.law})[/]" for c in each.clauses]
        if not each.clauses:
            lines += [f"{where}: [bold]{name}[/] needs {escape(text)}" for name, text in each.why_not.items()]
    lines += [f"nearest remedy: {refused.refusal.remedy}", f"[dim]receipt {refused.receipt}[/]"]
    title = "refused before a byte of it was read"
    console.print(Panel("\n".join(dict.fromkeys(lines)), title=title, title_align="left"))


def show_disk(home: Path) -> None:
    """Show where the sealed bytes lie, and that none of the words do."""
    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    for title in ("site", "holds", "files", "KiB on disk"):
        table.add_column(title, justify="right" if title in ("files", "KiB on disk") else "left")
    for site in sorted((home / "sites").iterdir()):
        for kind in ("vault", "shard"):
            files = [each for each in (site / kind).rglob("*") if each.is_file()]
            size = sum(each.stat().st_blocks * 512 for each in files)
            table.add_row(
                site.name,
                "sealed originals and texts" if kind == "vault" else "sealed passages",
                str(len(files)),
                f"{size / 1024:,.0f}",
            )
    console.print(table)
    vault = next(each for each in sorted((home / "sites").rglob("*")) if each.name.endswith(".original"))
    head = vault.read_bytes()[:48]
    console.print(f"first bytes of {vault.relative_to(home)}: [dim]{head.hex(' ', 4)}[/]")
    needles = [b"passphrase", b"Betriebsvereinbarung", b"security-handbook", b"sous-traitant"]
    hits = sum(needle in each.read_bytes() for each in home.rglob("*") if each.is_file() for needle in needles)
    console.print(f"searched every byte below {home.name}/ for words of the documents: [bold]{hits} hits[/]")


async def main() -> int:
    """Run the story; give the exit code."""
    begun = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    manifest = tomllib.loads((HERE / "documents.toml").read_text(encoding="utf-8"))
    questions = tomllib.loads((HERE / "questions.toml").read_text(encoding="utf-8"))["question"]
    tenant = manifest["tenant"]

    headline(1, "A home, four sites, rules")
    home = OUT / "home"
    prepare(home, zone="DE", operator="DE")
    shutil.copyfile(HERE / "fleet.toml", home / "fleet.toml")
    settings = load(home, environ={})
    with office(settings) as accounts:
        accounts.ensure_tenant(tenant, ceiling=manifest["ceiling"], zone="DE")
    async with domicile(settings) as house:
        principal = operator(settings, tenant)
        sites = ", ".join(f"{site.id} ({site.zone})" for site in house.engine.fleet.sites.values())
        console.print(f"sites: {sites}")
        policy = house.engine.policy
        console.print(f"{len(policy.clauses)} clauses in {policies_of(settings).name}/, {policy.digest[:23]}…")

        headline(2, f"{len(manifest['document'])} documents come in: sealed, tagged, placed")
        rows = await take_in(house, principal, manifest["document"])
        show_places(house, rows)
        wrong = [row["item"]["file"] for row in rows if _outcome(row) != row["item"]["outcome"]]

        headline(3, "Questions, in three languages")
        receipts = []
        for item in [each for each in questions if each.get("demo") and each.get("document")]:
            answer = await house.answering.answer(principal, Question(item["question"]))
            assert isinstance(answer, Answer)
            show_answer(item["question"], answer)
            receipts.append(answer.receipt)
            if not any(citation.name == item["document"] for citation in answer.citations):
                wrong.append(item["id"])

        headline(4, "A question that the documents do not answer")
        item = next(each for each in questions if each.get("demo") and not each.get("document"))
        answer = await house.answering.answer(principal, Question(item["question"]))
        assert isinstance(answer, Answer)
        show_answer(item["question"], answer)
        if not answer.abstained:
            wrong.append(item["id"])

        headline(5, "Documents that no site may hold")
        for row in rows:
            if isinstance(row["taken"], Refused):
                show_refusal(row["taken"], row["item"]["file"], ", ".join(row["item"]["residency"]))
        for item in manifest["refusal"]:
            taken = await house.intake.receive(blocks(HERE / "documents" / item["file"]), claim_of(item), principal)
            if isinstance(taken, Refused):
                show_refusal(taken, item["file"], ", ".join(item["residency"]))
            else:
                wrong.append(item["file"])

        headline(6, "What the data-protection officer gets")
        for form in ("html", "pdf", "json"):
            made, _ = await house.reporting.file(tenant, None, None, form, requested_by=principal.id)
            path = OUT / f"residency-report.{form}"
            path.write_bytes(made.data)
            console.print(f"{path.relative_to(OUT.parent)}  {len(made.data):>9,} bytes")
        bundle = await house.database.run(house.ledger.bundle, tenant, receipts[0])
        while bundle is not None and not bundle.get("proof"):
            await house.database.run(house.ledger.sequence)
            bundle = await house.database.run(house.ledger.bundle, tenant, receipts[0])
        (OUT / "receipt.json").write_bytes(msgspec.json.format(msgspec.json.encode(bundle), indent=2))
        (OUT / "trust.txt").write_text(house.ledger.trust, encoding="utf-8")

    headline(7, "The receipt, checked offline: no database, no network, no service")
    given = {"receipt.json": (OUT / "receipt.json").read_bytes(), "trust.txt": (OUT / "trust.txt").read_bytes()}
    folder = policies_of(settings)
    given |= {
        str(each.relative_to(folder)): each.read_bytes()
        for each in sorted(folder.glob("*"))
        if each.suffix != ".md" and each.is_file()
    }
    given["fleet.toml"] = (home / "fleet.toml").read_bytes()
    verdict = verify(given)
    for line in verdict.lines:
        console.print(line, markup=False)

    headline(8, "Where the sealed bytes lie")
    show_disk(home)
    console.print(f"\nDone in {time.monotonic() - begun:.0f} s. Reports and receipt lie in {OUT.name}/.")
    if wrong or verdict.code:
        console.print(f"[red]Not as expected: {', '.join(wrong) or 'the receipt'}[/]")
        return 1
    return 0


def _outcome(row: dict[str, Any]) -> str:
    return "refused" if isinstance(row["taken"], Refused) else str(row["entry"].document.state)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
