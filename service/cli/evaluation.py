"""`domicile eval`: put a file of questions to the running system, and say how good it is and what changed."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click
from rich.progress import Progress
from rich.table import Table

from residency.decision import Principal
from service.calibration import FEWEST
from service.cli.common import home_option, in_house, json_option, operator, people, show, tenant_option
from service.evaluation import Row, ask, load, summary
from service.house import House
from service.leaving import Calibrated
from service.rendering.bars import bars
from service.settings import Settings

WORSE_WHEN_HIGHER = ("wrong_", "calibration", "search_p", "answer_p")
PLAIN = ("questions", "answerable", "unanswerable", "beyond_reach")


@click.command("eval")
@home_option
@tenant_option
@json_option
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--collection", default="default", show_default=True, help="Which set of documents is asked.")
@click.option("--calibrate", is_flag=True, help="First set confidence and threshold by leaving Documents out.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Results; default: <home>/eval.")
def evaluate(
    settings: Settings,
    tenant: str,
    as_json: bool,
    files: tuple[Path, ...],
    collection: str,
    calibrate: bool,
    out: Path | None,
) -> None:
    """Judge search and answers by files of questions (JSON lines, or TOML); compare with the last run of these."""
    if calibrate:
        set_ = in_house(settings, lambda house: _calibrate(house, operator(settings, tenant), collection))
        if as_json and not files:
            show({"maps": set_.maps, "pairs": set_.pairs})
        elif not as_json:
            _maps(set_)
    if not files:
        if not calibrate:
            raise click.UsageError("give a file of questions, or --calibrate")
        return
    cases = [case for file in files for case in load(file)]
    name = "+".join(file.stem for file in files)[:100]

    async def story(house: House) -> tuple[list[Row], dict[str, str]]:
        await house.welcome(tenant)
        with Progress(console=people, disable=as_json or not people.is_terminal, transient=True) as progress:
            task = progress.add_task("asking", total=len(cases))
            rows = await ask(
                house,
                operator(settings, tenant),
                cases,
                collection=collection,
                told=lambda: progress.advance(task),
            )
        return rows, house.engine.digests()

    rows, digests = in_house(settings, story)
    found = summary(rows)
    folder = out or settings.path / "eval"
    before = _last(folder / f"{name}.json")
    result: dict[str, Any] = {
        "format": "domicile-eval/v1",
        "files": [file.name for file in files],
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "rules": digests,
        "summary": found,
        "rows": msgspec.to_builtins(rows),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1))
    (folder / f"{name}.svg").write_text(bars(found, f"Evaluation: {name}"), encoding="utf-8")
    if as_json:
        show(result | {"before": before})
        return
    _table(found, before)
    people.print(f"[dim]written: {folder / name}.json, .svg[/]")


async def _calibrate(house: House, principal: Principal, collection: str) -> Calibrated:
    await house.welcome(principal.tenant)
    with Progress(console=people, disable=not people.is_terminal, transient=True) as progress:
        task = progress.add_task("leaving out", total=None)
        return await house.leaving.calibrate(principal, collection, told=lambda: progress.advance(task))


def _maps(found: Calibrated) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("language", "slope", "intercept", "threshold", "error", "answered", "falsely", "pairs", "date"):
        table.add_column(column, justify="left" if column == "language" else "right")
    for language, each in sorted(found.maps.items()):
        day = datetime.fromtimestamp(each.made, UTC).date().isoformat()
        numbers = (each.slope, each.intercept, each.threshold, each.error, each.answered, each.falsely)
        table.add_row(language or "all", *(f"{number:.3f}" for number in numbers), str(each.pairs), day)
    people.print(table)
    few = {language: count for language, count in found.pairs.items() if language not in found.maps}
    if few or not found.maps:
        said = ", ".join(f"{language} {count}" for language, count in sorted(few.items())) or "none"
        people.print(f"[dim]fewer than {FEWEST} pairs, so the map of all languages or the shipped one holds: {said}[/]")


def _last(path: Path) -> dict[str, dict[str, Any]] | None:
    try:
        kept: dict[str, dict[str, Any]] = msgspec.json.decode(path.read_bytes())["summary"]
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return None
    return kept


def _table(found: dict[str, dict[str, Any]], before: dict[str, dict[str, Any]] | None) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("figure")
    for group in found:
        table.add_column(group, justify="right")
    for key in found["all"]:
        cells = [_cell(key, figures[key], (before or {}).get(group, {}).get(key)) for group, figures in found.items()]
        table.add_row(key, *cells)
    people.print(table)
    people.print("[dim]in brackets: change against the last run of this file[/]" if before else "[dim]first run[/]")


def _cell(key: str, value: Any, last: Any) -> str:
    if value is None:
        return "-"
    said = str(value) if key in PLAIN else f"{value:.1f}" if key.endswith("_ms") else f"{value:.3f}"
    if last is None or key in PLAIN or abs(value - last) < 0.0005:
        return said
    better = (value < last) == key.startswith(WORSE_WHEN_HIGHER)
    colour = "green" if better else "red"
    return (
        f"{said} [{colour}]({value - last:+.1f})[/]"
        if key.endswith("_ms")
        else f"{said} [{colour}]({value - last:+.3f})[/]"
    )


eval = evaluate  # noqa: A001 - the verb's name
