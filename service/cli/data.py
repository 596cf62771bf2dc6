"""`domicile ingest|search|ask`: the operator's hands on documents, ruled on like everybody's."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ingestion.claims import Claim
from ingestion.documents import State
from ingestion.intake import Refused
from residency.errors import DomicileError
from service.answering import Answer, Question
from service.cli.common import (
    home_option,
    in_house,
    json_option,
    operator,
    people,
    show,
    show_refusal,
    table_of,
    tenant_option,
)
from service.house import House
from service.searching import Results, Search
from service.settings import Settings
from service.wire import answer_out, search_out

BLOCK = 1 << 20
ENDS = {State.LIVE, State.QUARANTINED, State.FAILED, State.ERASED, State.ARCHIVED}
PARTLY = 4


def files_in(paths: tuple[str, ...]) -> list[Path]:
    """Give every file named or below a named folder, sorted; hidden ones are left out."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += [
                each
                for each in sorted(path.rglob("*"))
                if each.is_file() and not each.is_symlink() and not any(p.startswith(".") for p in each.parts[-1:])
            ]
        elif path.is_file():
            found.append(path)
        else:
            raise click.UsageError(f"there is no file or folder {path}")
    return found


async def blocks(path: Path) -> AsyncIterator[bytes]:
    """Read a file block by block."""
    with path.open("rb") as file:
        while block := await asyncio.to_thread(file.read, BLOCK):
            yield block


@click.command()
@home_option
@tenant_option
@json_option
@click.argument("paths", nargs=-1, required=True)
@click.option("--jurisdiction", required=True, help="Whose law binds them, such as DE; comma-separated.")
@click.option("--residency", default="", help="Where they may be processed, such as EU; default: its bloc, EU for DE.")
@click.option("--collection", default="default", show_default=True, help="Which set of documents.")
@click.option("--categories", default="", help="Such as health or finance, comma-separated.")
@click.option("--classification", default=1, show_default=True, help="0 public … 4 top secret.")
@click.option("--public/--personal", "public", default=False, help="Whether they hold no personal data.")
@click.option("--groups", default="", help="Access groups that may find them.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Stay until they can be asked about.")
def ingest(settings: Settings, tenant: str, as_json: bool, paths: tuple[str, ...], **claimed: Any) -> None:
    """Take files and folders in. The same bytes under the same name change nothing."""
    chosen = files_in(paths)
    if not chosen:
        raise click.UsageError("there are no files in these folders")

    async def story(house: House) -> tuple[list[dict[str, Any]], bool]:
        principal = operator(settings, tenant)
        await house.welcome(tenant)
        results: list[dict[str, Any]] = []
        with _progress(as_json) as progress:
            task = progress.add_task("taking in", total=len(chosen))
            for path in chosen:
                results.append(await _one(house, principal, path, claimed))
                progress.advance(task)
        if claimed["wait"]:
            await _wait(house, principal, results, as_json)
        return results, all(row["state"] not in ("refused", "failed", "invalid") for row in results)

    results, good = in_house(settings, story, work=claimed["wait"])
    if as_json:
        show({"documents": results})
    else:
        table_of(results)
    if not good:
        raise Exit(PARTLY if any(row.get("id") for row in results) else 3)


async def _one(house: House, principal: Any, path: Path, claimed: dict[str, Any]) -> dict[str, Any]:
    claim = Claim(
        name=path.name,
        jurisdictions=_codes(claimed["jurisdiction"]),
        collection=claimed["collection"],
        residency=_codes(claimed["residency"]) or None,
        personal=not claimed["public"],
        categories=_codes(claimed["categories"]),
        classification=claimed["classification"],
        groups=_codes(claimed["groups"]),
        folder=path.parent.as_posix(),
    )
    try:
        outcome = await house.intake.receive(blocks(path), claim, principal, _size(path))
    except DomicileError as error:
        return {"name": path.name, "state": "invalid", "error": {"code": error.code, "hint": f"{error}; {error.hint}"}}
    if isinstance(outcome, Refused):
        facts = outcome.refusal.facts()
        return {"name": path.name, "state": "refused", "refusal": facts, "receipt": outcome.receipt}
    entry = await house.catalogue.get(principal, outcome.document.id, outcome.document.version)
    return entry.facts() | {"name": path.name, "created": outcome.created}


async def _wait(house: House, principal: Any, results: list[dict[str, Any]], quiet: bool) -> None:
    with _progress(quiet) as progress:
        task = progress.add_task("reading and indexing", total=float(len(results)))
        while True:
            done = 0.0
            open_ends = 0
            for row in results:
                if row.get("id") is None or row["state"] in ENDS:
                    done += 1
                    continue
                entry = await house.catalogue.get(principal, row["id"], row["version"])
                row.update(entry.facts() | {"name": row["name"]})
                done += entry.document.progress
                open_ends += entry.document.state not in ENDS
            progress.update(task, completed=done)
            if not open_ends:
                return
            await asyncio.sleep(0.2)


@click.command()
@home_option
@tenant_option
@json_option
@click.argument("query")
@click.option("--top-k", default=5, show_default=True, help="How many passages.")
@click.option("--collection", default="default", show_default=True)
def search(settings: Settings, tenant: str, as_json: bool, query: str, top_k: int, collection: str) -> None:
    """Find passages in permitted places."""

    async def story(house: House) -> Any:
        await house.welcome(tenant)
        return await house.searching.search(operator(settings, tenant), Search(query, top_k, collection))

    outcome = in_house(settings, story)
    if not isinstance(outcome, Results):
        show_refusal(*outcome, as_json=as_json)
        return
    if as_json:
        show(search_out(outcome))
        return
    for at, passage in enumerate(outcome.findings.passages, start=1):
        click.echo(f"{at}. {passage.name}, p. {passage.page}  [{passage.zone} {passage.site}]  {passage.score:.3f}")
        click.echo("   " + " ".join(passage.text.split())[:300])
    if outcome.findings.withheld:
        people.print(f"{outcome.findings.withheld} passages not used: outside the permitted zones")
    people.print(f"[dim]receipt {outcome.receipt}[/]")


@click.command()
@home_option
@tenant_option
@json_option
@click.argument("question")
@click.option("--collection", default="default", show_default=True)
def ask(settings: Settings, tenant: str, as_json: bool, question: str, collection: str) -> None:
    """Ask a question and get an answer with its sources."""

    async def story(house: House) -> Any:
        await house.welcome(tenant)
        return await house.answering.answer(operator(settings, tenant), Question(question, collection))

    outcome = in_house(settings, story)
    if not isinstance(outcome, Answer):
        show_refusal(*outcome, as_json=as_json)
        return
    if as_json:
        show(answer_out(outcome, settings.public_url))
        return
    click.echo(outcome.text)
    for citation in outcome.citations:
        click.echo(f"  [{citation.index}] {citation.name}, p. {citation.page} ({citation.zone}, {citation.site})")
    if outcome.withheld:
        people.print(f"{outcome.withheld} passages not used: outside the permitted zones")
    people.print(f"[dim]receipt {outcome.receipt}[/]")


def _size(path: Path) -> int:
    return path.stat().st_size


def _codes(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip())


def _progress(quiet: bool) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        console=people,
        disable=quiet or not people.is_terminal,
        transient=True,
    )
