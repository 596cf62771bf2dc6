"""`domicile ingest|watch`: files, folders, globs and stdin taken in by the operator, ruled on like everybody's.

Of a folder only what changed is sent (`ingestion/manifest.py`); one file that cannot be read never ends the batch.
"""

import asyncio
import glob
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ingestion.documents import State
from ingestion.manifest import Found, files_below
from service.cli.batch import Batch
from service.cli.common import home_option, in_house, json_option, operator, people, show, table_of, tenant_option
from service.house import House
from service.settings import Settings

ENDS = {State.LIVE, State.QUARANTINED, State.FAILED, State.ERASED, State.ARCHIVED}
BAD = ("refused", "failed", "invalid")
PARTLY = 4


def claiming(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options by which a Document is declared."""
    for option in reversed(
        (
            click.option("--jurisdiction", required=True, help="Whose law binds them, such as DE; comma-separated."),
            click.option("--residency", default="", help="Where they may be processed, such as EU; default: its bloc."),
            click.option("--collection", default="default", show_default=True, help="Which set of documents."),
            click.option("--categories", default="", help="Such as health or finance, comma-separated."),
            click.option("--classification", default=1, show_default=True, help="0 public … 4 top secret."),
            click.option("--public/--personal", "public", default=False, help="Whether they hold no personal data."),
            click.option("--groups", default="", help="Access groups that may find them."),
            click.option("--erase-missing", is_flag=True, help="Erase documents whose file is gone from its folder."),
        )
    ):
        function = option(function)
    return function


@click.command()
@home_option
@tenant_option
@json_option
@click.argument("paths", nargs=-1, required=True)
@claiming
@click.option("--name", default="", help="The document's name, for `-` (stdin).")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Stay until they can be asked about.")
def ingest(settings: Settings, tenant: str, as_json: bool, paths: tuple[str, ...], **claimed: Any) -> None:
    """Take files, folders, globs or stdin (`-`) in. Of a folder only what changed is sent."""
    if ("-" in paths) != bool(claimed["name"]):
        raise click.UsageError("`-` reads stdin and needs --name, and --name is for `-` alone")
    files, folders = _chosen(paths)
    found = {folder: list(files_below(folder)) for folder in folders}
    if "-" not in paths and not files and not any(found.values()) and not claimed["erase_missing"]:
        raise click.UsageError("there are no files in these folders")

    async def story(house: House) -> tuple[list[dict[str, Any]], Counter[str]]:
        batch = await Batch.opened(house, operator(settings, tenant), settings, claimed)
        rows: list[dict[str, Any]] = []
        with _progress(as_json) as progress:
            task = progress.add_task("taking in", total=len(files) + sum(map(len, found.values())))
            if "-" in paths:
                rows.append(await batch.send(sys.stdin.buffer, claimed["name"], "", None))
            for path in files:
                rows.append(await batch.file(path))
                progress.advance(task)
            for folder, held in found.items():
                rows += await batch.folder(folder, held, held, lambda: progress.advance(task))
        if claimed["wait"]:
            await _wait(house, batch.principal, rows, as_json)
        batch.counts.update("failed" if row["state"] in BAD else "taken" for row in rows if row["state"] != "erasing")
        return rows, batch.counts

    rows, counts = in_house(settings, story, work=claimed["wait"])
    summary = {kind: counts[kind] for kind in ("taken", "unchanged", "erased", "failed")}
    if as_json:
        show({"documents": rows, "summary": summary})
    else:
        table_of(rows)
        people.print(", ".join(f"{number} {kind}" for kind, number in summary.items()))
    if counts["failed"]:
        raise Exit(PARTLY if counts["taken"] or counts["unchanged"] or any(row.get("id") for row in rows) else 3)


@click.command()
@home_option
@tenant_option
@click.argument("folder")
@claiming
@click.option("--every", default=5.0, show_default=True, help="Seconds between two looks; by polling, for shares.")
def watch(settings: Settings, tenant: str, folder: str, every: float, **claimed: Any) -> None:
    """Take in what is new or changed in a folder, until SIGTERM. A file counts once two looks found it the same."""
    root = Path(folder)
    if not root.is_dir():
        raise click.UsageError(f"there is no folder {folder}")

    async def story(house: House) -> None:
        batch = await Batch.opened(house, operator(settings, tenant), settings, claimed)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        people.print(f"watching; a look every {every:g} s")
        before: dict[str, Found] = {}
        tried: dict[str, Found] = {}
        while not stop.is_set():
            found = await asyncio.to_thread(lambda: list(files_below(root)))
            settled = [each for each in found if before.get(each.shown) == each != tried.get(each.shown)]
            rows = await batch.folder(root, settled, found, lambda: None)
            if rows:
                table_of(rows)
            bad = {row["name"] for row in rows if row["state"] in BAD}
            names = batch.names(found)
            tried |= {each.shown: each for each in settled if names[each.shown] in bad or each.shown in bad}
            before = {each.shown: each for each in found}
            try:
                await asyncio.wait_for(stop.wait(), every)
            except TimeoutError:
                continue

    in_house(settings, story, work=True)


def _chosen(paths: tuple[str, ...]) -> tuple[list[Path], list[Path]]:
    """Give the files and the folders that are named, by themselves or by a pattern."""
    files: list[Path] = []
    folders: list[Path] = []
    for text in paths:
        if text == "-":
            continue
        named = [Path(text)] if Path(text).exists() else sorted(map(Path, glob.glob(text, recursive=True)))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not named:
            raise click.UsageError(f"there is no file or folder {text}")
        folders += [path for path in named if path.is_dir()]
        files += [path for path in named if not path.is_dir()]
    return files, folders


async def _wait(house: House, principal: Any, results: list[dict[str, Any]], quiet: bool) -> None:
    with _progress(quiet) as progress:
        task = progress.add_task("reading and indexing", total=float(len(results)))
        while True:
            done = 0.0
            open_ends = 0
            for row in results:
                if row.get("version") is None or row["state"] in ENDS:
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
